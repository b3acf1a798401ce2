//! Why a sign-in failed.

/// Why an ID token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("it is no signed token")]
    Malformed,
    /// It is signed in a way that is not taken: only RS256, ES256, PS256 and EdDSA are.
    #[error("it is signed with an algorithm that is not taken")]
    Algorithm,
    /// The provider does not have the key that it names.
    #[error("the provider's key set does not hold the key that signed it")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is not as it must be: which one.
    #[error("its claim `{0}` is missing or wrong")]
    Claim(&'static str),
}

/// Why a sign-in failed.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The provider could not be reached, or did not answer in time.
    #[error("{step}: the provider could not be reached")]
    Unreachable {
        /// What was asked.
        step: &'static str,
        /// How.
        source: reqwest::Error,
    },
    /// The provider said no.
    #[error("{step}: the provider answered {status} ({code})")]
    Refused {
        /// What was asked.
        step: &'static str,
        /// The HTTP status.
        status: u16,
        /// Its error code, `invalid_grant`; empty if it gave none.
        code: String,
    },
    /// The provider's answer is not what the specification says.
    #[error("{step}: {reason}")]
    Unreadable {
        /// What was asked.
        step: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The ID token is not believed.
    #[error("the ID token is not believed: {0}")]
    Token(#[from] TokenError),
    /// The browser came back with an error: its code, such as `access_denied`.
    #[error("the provider ended the sign-in ({0})")]
    Ended(String),
    /// The browser came back from another provider (RFC 9207), or without a code.
    #[error("the browser came back with {0}")]
    Callback(&'static str),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

impl OidcError {
    /// Whether it may be the browser's own doing: a code that is old, used or somebody else's.
    pub fn is_of_browser(&self) -> bool {
        match self {
            Self::Refused { code, .. } => code == "invalid_grant",
            Self::Callback(_) => true,
            _ => false,
        }
    }
}
