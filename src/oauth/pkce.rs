//! PKCE (RFC 7636, S256) and the `state` of a browser login; protocol.md 1.2.
//!
//! Randomness is handed in as bytes, so that a test's login is the same every time.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};

use super::error::LoginError;

/// The random bytes that one login needs.
pub struct LoginEntropy {
    /// Becomes the code verifier: 64 bytes give 86 characters, inside RFC 7636's 43 to 128.
    pub verifier: [u8; 64],
    /// Becomes `state`.
    pub state: [u8; 32],
}

impl LoginEntropy {
    /// Bytes from the operating system's generator.
    pub fn random() -> Result<Self, LoginError> {
        let mut entropy = Self { verifier: [0; 64], state: [0; 32] };
        rand::fill(&mut entropy.verifier).map_err(|_| LoginError::NoRandomness)?;
        rand::fill(&mut entropy.state).map_err(|_| LoginError::NoRandomness)?;
        Ok(entropy)
    }

    /// The `state` parameter: base64url without padding.
    pub fn state(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.state)
    }
}

/// A code verifier and the challenge that is made of it.
pub struct Pkce {
    /// Stays here until the exchange.
    pub verifier: SecretString,
    /// base64url-nopad(SHA-256(verifier)); travels in the authorize URL.
    pub challenge: String,
}

impl Pkce {
    /// The pair that these random bytes give.
    pub fn from_random(bytes: &[u8; 64]) -> Self {
        Self::of_verifier(URL_SAFE_NO_PAD.encode(bytes).into())
    }

    /// The pair of a verifier that exists already.
    pub fn of_verifier(verifier: SecretString) -> Self {
        let hash = digest::digest(&digest::SHA256, verifier.expose_secret().as_bytes());
        Self { verifier, challenge: URL_SAFE_NO_PAD.encode(hash) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let pkce = Pkce::of_verifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into());

        assert_eq!(pkce.challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_verifier_has_a_length_that_the_rfc_allows_and_no_padding() {
        let pkce = Pkce::from_random(&[0xfb; 64]);

        assert_eq!(pkce.verifier.expose_secret().len(), 86);
        assert!(!pkce.verifier.expose_secret().contains(['=', '+', '/']));
    }

    #[test]
    fn two_logins_share_neither_verifier_nor_state() {
        let (one, two) = (LoginEntropy::random().unwrap(), LoginEntropy::random().unwrap());

        assert_ne!(one.verifier, two.verifier);
        assert_ne!(one.state(), two.state());
    }
}
