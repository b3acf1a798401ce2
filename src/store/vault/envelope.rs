//! The text form of a sealed value: `tw1.<key id>.<base64url(nonce, ciphertext, tag)>`.

use aws_lc_rs::aead::NONCE_LEN;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::VaultError;

/// The key id in bytes; twice as many characters in the envelope.
pub(super) const KEY_ID_BYTES: usize = 8;
const VERSION: &str = "tw1";

/// An envelope taken apart. `sealed` is wiped because opening happens in place.
pub(super) struct Envelope<'a> {
    pub(super) key_id: &'a str,
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) sealed: Zeroizing<Vec<u8>>,
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, VaultError> {
        let not_one = VaultError::NotAnEnvelope;
        let mut parts = text.split('.');
        let (Some(VERSION), Some(key_id), Some(payload), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(not_one);
        };
        if key_id.len() != 2 * KEY_ID_BYTES || !key_id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_one);
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(payload).map_err(|_| VaultError::NotAnEnvelope)?;
        let Some(nonce) = sealed.first_chunk().copied() else {
            return Err(not_one);
        };
        sealed.drain(..NONCE_LEN);
        Ok(Self { key_id, nonce, sealed: Zeroizing::new(sealed) })
    }

    pub(super) fn to_text(&self) -> String {
        let payload = [self.nonce.as_slice(), &self.sealed].concat();
        format!("{VERSION}.{}.{}", self.key_id, URL_SAFE_NO_PAD.encode(payload))
    }
}
