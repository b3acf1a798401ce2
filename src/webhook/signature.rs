//! The signature of Standard Webhooks: HMAC-SHA-256 over id, time and body.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// What a secret begins with, as receivers' libraries expect it.
const PREFIX: &str = "whsec_";
/// Fewer bytes are no secret.
const SHORTEST: usize = 24;

/// Signs what is sent.
pub struct Secret(hmac::Key);

/// The text is no secret.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("must be `whsec_` and at least {SHORTEST} bytes in base64, such as `whsec_$(openssl rand -base64 32)`")]
pub struct SecretError;

impl Secret {
    /// Reads `whsec_<base64>`.
    pub fn parse(text: &SecretString) -> Result<Self, SecretError> {
        let encoded = text.expose_secret().trim().strip_prefix(PREFIX).ok_or(SecretError)?;
        let bytes = zeroize::Zeroizing::new(STANDARD.decode(encoded).map_err(|_| SecretError)?);
        if bytes.len() < SHORTEST {
            return Err(SecretError);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature`; `timestamp` in Unix seconds.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Secret, SecretError> {
        Secret::parse(&SecretString::from(text))
    }

    #[test]
    fn the_example_of_the_specification_is_signed_as_it_says() {
        let secret = parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!!"] {
            assert_eq!(parse(text).err(), Some(SecretError), "{text}");
        }
    }
}
