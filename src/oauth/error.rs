//! What can go wrong towards the issuer, and the one table that says what a refresh failure means.
//!
//! Nothing here holds a raw body: a token endpoint may echo what it was sent. Of an answer only the
//! code and a cleaned, shortened message are kept.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

/// What a failed refresh means for the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Only a new login helps.
    Permanent,
    /// The same refresh token may work later.
    Transient,
}

/// Codes that are permanent at any status: the CLI's three, `invalid_grant` (as all peers treat
/// it), and those that codex-lb met (protocol.md 1.5).
const PERMANENT: [&str; 11] = [
    "refresh_token_expired",
    "refresh_token_reused",
    "refresh_token_invalidated",
    "invalid_grant",
    "token_invalidated",
    "token_expired",
    "app_session_terminated",
    "account_session_expired",
    "account_deactivated",
    "account_suspended",
    "account_deleted",
];

/// The table of protocol.md 1.5. `code` is lower-case, as [`IssuerFault`] keeps it.
pub fn classify(status: u16, code: Option<&str>) -> Class {
    match (status, code) {
        (_, Some(code)) if PERMANENT.contains(&code) => Class::Permanent,
        (401, _) => Class::Permanent,
        _ => Class::Transient,
    }
}

/// What the issuer said in an answer that is not a success.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuerFault {
    /// HTTP status.
    pub status: u16,
    /// `error.code`, else `error` when it is text, else top-level `code`; lower-case.
    pub code: Option<String>,
    /// At most 200 characters, with everything that looks like a token taken out.
    pub message: Option<String>,
}

/// A message is for a person, not for a log of bodies.
const MESSAGE_CHARS: usize = 200;
/// No word is this long, but every token is.
const WORD_CHARS: usize = 40;
/// The longest known code has 25 characters.
const CODE_CHARS: usize = WORD_CHARS;

impl IssuerFault {
    /// Takes the code and the message out of a body; everything else of it is forgotten.
    pub fn read(status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &body["error"];
        let code = [&error["code"], error, &body["code"]].into_iter().find_map(Value::as_str).and_then(clean_code);
        let message = [&error["message"], &body["error_description"], &body["message"], &body["detail"]]
            .into_iter()
            .find_map(Value::as_str)
            .map(clean_message)
            .filter(|message| !message.is_empty());
        Self { status, code, message }
    }

    /// The same without `secret`, for an issuer that repeats a token too short to be noticed.
    #[must_use]
    pub(super) fn without(self, secret: &str) -> Self {
        Self {
            status: self.status,
            code: self.code.filter(|code| !code.eq_ignore_ascii_case(secret)),
            message: self.message.map(|text| text.replace(secret, "[removed]")),
        }
    }
}

impl fmt::Display for IssuerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

/// A code ends up in metrics and in the database: only an identifier passes.
fn clean_code(code: &str) -> Option<String> {
    let identifier = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let code = code.trim();
    (!code.is_empty() && code.len() <= CODE_CHARS && code.chars().all(identifier)).then(|| code.to_ascii_lowercase())
}

/// One line, without long words (a token in it would be one), shortened.
pub(super) fn clean_message(message: &str) -> String {
    let words = message.split(|c: char| c.is_whitespace() || c.is_control());
    let mut clean = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        if word.chars().count() > WORD_CHARS {
            clean.push_str("[removed]");
        } else {
            clean.push_str(word);
        }
    }
    match clean.char_indices().nth(MESSAGE_CHARS) {
        Some((cut, _)) => clean[..cut].to_owned(),
        None => clean,
    }
}

/// Why a refresh gave no tokens.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RefreshError {
    /// The refresh token is dead; somebody has to log in.
    #[error("the issuer refused the refresh token ({code}, HTTP {status})")]
    Permanent {
        /// The issuer's code; `unauthorized` for a 401 without one.
        code: String,
        /// HTTP status.
        status: u16,
        /// The issuer's words, cleaned.
        message: Option<String>,
    },
    /// The same refresh token may work later.
    #[error("the refresh did not succeed: {detail}")]
    Transient {
        /// The issuer's code, where it gave one.
        code: Option<String>,
        /// What happened, in one line without secrets.
        detail: String,
        /// The issuer's wish.
        retry_after: Option<Duration>,
        /// The issuer may have used up the refresh token although no answer arrived: a
        /// `refresh_token_reused` on the next try may then be our own lost answer.
        ambiguous: bool,
    },
    /// The refresh token was not sent: it had become too late to.
    #[error("the refresh token was not sent: it had become too late")]
    Withheld,
}

impl RefreshError {
    /// What an answer that is not a success means.
    pub fn of_fault(fault: IssuerFault, retry_after: Option<Duration>) -> Self {
        match classify(fault.status, fault.code.as_deref()) {
            Class::Permanent => Self::Permanent {
                code: fault.code.unwrap_or_else(|| "unauthorized".to_owned()),
                status: fault.status,
                message: fault.message,
            },
            Class::Transient => Self::Transient {
                detail: fault.to_string(),
                // A proxy's 502 or 504 says nothing about what the issuer behind it has done.
                ambiguous: fault.status >= 500,
                code: fault.code,
                retry_after,
            },
        }
    }
}

/// Why a step of a login did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OAuthError {
    /// The issuer said no.
    #[error("{step}: the issuer answered {fault}")]
    Refused {
        /// Which step.
        step: &'static str,
        /// Its answer.
        fault: IssuerFault,
    },
    /// No answer.
    #[error("{step}: {detail}")]
    Unreachable {
        /// Which step.
        step: &'static str,
        /// Kind of failure, without the address' query.
        detail: String,
    },
    /// A success that could not be understood.
    #[error("{step}: the issuer's answer lacks {missing}")]
    Malformed {
        /// Which step.
        step: &'static str,
        /// What was looked for.
        missing: &'static str,
    },
}

/// Why a device login ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// 404 on the first step (protocol.md 1.6).
    #[error("device login is not enabled for this issuer or workspace; use the browser login instead")]
    NotEnabled,
    /// Nobody entered the code in its 15 minutes.
    #[error("the code has expired before it was entered; start again for a new one")]
    Expired,
    /// The person said no.
    #[error("the login was denied on the device page")]
    Denied,
    /// A step failed.
    #[error(transparent)]
    Issuer(#[from] OAuthError),
}

/// Why a browser login ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LoginError {
    /// The callback belongs to another login.
    #[error(
        "the state does not match: this address belongs to another login attempt; open the URL \
         that was printed last and paste the address it ends at"
    )]
    StateMismatch,
    /// An address without `state`.
    #[error("the pasted address has no state parameter; paste the whole address the browser ended at")]
    MissingState,
    /// Only a code, which could be anybody's.
    #[error(
        "that is a code without its state, so it cannot be told whose login it is; paste the whole \
         address the browser ended at (http://localhost:…/auth/callback?code=…&state=…)"
    )]
    BareCode,
    /// The issuer sent the person back with an error.
    #[error("the login was refused: {error}{}", description.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Denied {
        /// The issuer's code, e.g. `access_denied`.
        error: String,
        /// Its words, cleaned.
        description: Option<String>,
    },
    /// State but no code.
    #[error(
        "there is no code in the pasted address; finish the login in the browser and paste the \
         address it ends at, not the one it began with"
    )]
    MissingCode,
    /// Nothing was pasted.
    #[error("nothing was pasted")]
    Empty,
    /// A web address that cannot be parsed.
    #[error("the pasted text is not a complete web address")]
    Unreadable,
    /// The listener could not be had.
    #[error("cannot listen on 127.0.0.1 port {ports}: {reason}")]
    CannotListen {
        /// The ports that were tried.
        ports: String,
        /// The operating system's words.
        reason: String,
    },
    /// The listener went away before a callback came.
    #[error("the callback listener stopped before the login was finished")]
    ListenerClosed,
    /// The operating system's generator failed.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

impl LoginError {
    /// Whether another try at pasting can still end the same login.
    pub fn is_mendable(&self) -> bool {
        matches!(
            self,
            Self::StateMismatch
                | Self::MissingState
                | Self::BareCode
                | Self::MissingCode
                | Self::Empty
                | Self::Unreadable
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_failure_is_classified_by_the_table() {
        use Class::{Permanent, Transient};
        for (status, code, class) in [
            (400, Some("refresh_token_expired"), Permanent),
            (401, Some("refresh_token_reused"), Permanent),
            (400, Some("refresh_token_reused"), Permanent),
            (500, Some("refresh_token_invalidated"), Permanent),
            (400, Some("invalid_grant"), Permanent),
            (403, Some("account_deactivated"), Permanent),
            (403, Some("account_suspended"), Permanent),
            (403, Some("account_deleted"), Permanent),
            (400, Some("app_session_terminated"), Permanent),
            (400, Some("account_session_expired"), Permanent),
            (400, Some("token_invalidated"), Permanent),
            (400, Some("token_expired"), Permanent),
            (401, Some("something_new"), Permanent),
            (401, None, Permanent),
            (400, Some("invalid_request"), Transient),
            (400, None, Transient),
            (403, None, Transient),
            (404, None, Transient),
            (429, Some("rate_limit_exceeded"), Transient),
            (500, None, Transient),
            (503, Some("server_error"), Transient),
            (302, None, Transient),
        ] {
            assert_eq!(classify(status, code), class, "{status} {code:?}");
        }
    }

    #[test]
    fn the_code_is_taken_from_three_places_in_order_and_lowered() {
        for (body, code) in [
            (r#"{"error":{"code":"Refresh_Token_Reused"},"code":"x"}"#, Some("refresh_token_reused")),
            (r#"{"error":"invalid_grant","code":"x"}"#, Some("invalid_grant")),
            (r#"{"error":{"message":"m"},"code":"token_expired"}"#, Some("token_expired")),
            (r#"{"code":"token_expired"}"#, Some("token_expired")),
            (r#"{"error":{"code":"what a long story"}}"#, None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(IssuerFault::read(400, body.as_bytes()).code.as_deref(), code, "{body}");
        }
    }

    #[test]
    fn a_fault_keeps_no_token_and_no_long_text() {
        let token = "rt_".to_owned() + &"x".repeat(60);
        let body = serde_json::json!({"error": {
            "message": format!("token {token} was\nused {}", "again ".repeat(100)),
            "code": token,
        }});

        let fault = IssuerFault::read(400, body.to_string().as_bytes());

        let message = fault.message.clone().unwrap();
        assert!(message.starts_with("token [removed] was used again"), "{message}");
        assert_eq!(message.chars().count(), 200);
        assert!(!format!("{fault} {fault:?}").contains(&token[..40]));
    }

    #[test]
    fn only_an_answer_that_hides_the_outcome_is_ambiguous() {
        let ambiguous = |status| {
            let fault = IssuerFault { status, ..IssuerFault::default() };
            matches!(RefreshError::of_fault(fault, None), RefreshError::Transient { ambiguous: true, .. })
        };

        assert!(ambiguous(502) && ambiguous(500));
        assert!(!ambiguous(429) && !ambiguous(400));
    }
}
