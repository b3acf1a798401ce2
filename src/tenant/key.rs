//! A gateway key as its holder has it: `tw-`, 256 random bits, and a checksum, so that secret
//! scanners and typos are caught without a database.

use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

const PREFIX: &str = "tw-";
/// Keys of the admin API are told apart at a glance, by people and by scanners.
const ADMIN_PREFIX: &str = "twa-";
/// 256 bits in base64url.
const RANDOM_LEN: usize = 43;
/// 32 bits in base64url.
const CHECKSUM_LEN: usize = 6;
/// How much of a key is shown in lists: enough to tell keys apart, useless to a thief.
const SHOWN: usize = PREFIX.len() + 6;

/// A gateway key in the clear. It is shown once, when it is made, and hashed when it is presented.
pub struct KeySecret(SecretString);

/// What is presented cannot be a gateway key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// Some other kind of key, or nothing like one.
    #[error("this is not a Tollway key: those begin with `tw-` and are {} characters long", PREFIX.len() + RANDOM_LEN + CHECKSUM_LEN)]
    NotOurs,
    /// A character was lost or changed.
    #[error("the key is mistyped: its checksum does not match")]
    Checksum,
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomUnavailable;

impl KeySecret {
    /// A new key.
    pub fn mint() -> Result<Self, RandomUnavailable> {
        Self::mint_with(PREFIX)
    }

    /// A new key of the admin API.
    pub fn mint_admin() -> Result<Self, RandomUnavailable> {
        Self::mint_with(ADMIN_PREFIX)
    }

    fn mint_with(prefix: &str) -> Result<Self, RandomUnavailable> {
        let mut random = Zeroizing::new([0u8; 32]);
        rand::fill(random.as_mut()).map_err(|_| RandomUnavailable)?;
        let body = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_ref()));
        Ok(Self(format!("{prefix}{}{}", body.as_str(), checksum(&body)).into()))
    }

    /// Reads a presented key; nothing but its form is checked.
    pub fn parse(presented: &str) -> Result<Self, KeyFormatError> {
        Self::parse_with(presented, PREFIX)
    }

    /// The same for a key of the admin API.
    pub fn parse_admin(presented: &str) -> Result<Self, KeyFormatError> {
        Self::parse_with(presented, ADMIN_PREFIX)
    }

    fn parse_with(presented: &str, prefix: &str) -> Result<Self, KeyFormatError> {
        let rest = presented.strip_prefix(prefix).ok_or(KeyFormatError::NotOurs)?;
        if rest.len() != RANDOM_LEN + CHECKSUM_LEN || !rest.is_ascii() {
            return Err(KeyFormatError::NotOurs);
        }
        let (body, sum) = rest.split_at(RANDOM_LEN);
        if checksum(body) != sum {
            return Err(KeyFormatError::Checksum);
        }
        Ok(Self(presented.into()))
    }

    /// What is stored: HMAC-SHA-256 under the store's pepper. The key is random, so a fast keyed
    /// hash is enough, and a slow one would be paid on every request.
    pub fn hash(&self, pepper: &[u8; 32]) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pepper), self.0.expose_secret().as_bytes());
        let mut hash = [0; 32];
        hash.copy_from_slice(tag.as_ref());
        hash
    }

    /// The part that may be shown.
    pub fn prefix(&self) -> &str {
        &self.0.expose_secret()[..SHOWN]
    }

    /// The whole key, for the one time it is shown.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

fn checksum(body: &str) -> String {
    URL_SAFE_NO_PAD.encode(crc32fast::hash(body.as_bytes()).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_minted_key_is_read_back_and_hashes_the_same() {
        let minted = KeySecret::mint().expect("random");
        let read = KeySecret::parse(minted.reveal()).expect("well-formed");
        assert_eq!(minted.hash(&[7; 32]), read.hash(&[7; 32]));
        assert_ne!(minted.hash(&[7; 32]), minted.hash(&[8; 32]), "the pepper counts");
        assert_eq!(minted.prefix().len(), 9);
    }

    #[test]
    fn an_admin_key_is_no_gateway_key() {
        let (admin, plain) = (KeySecret::mint_admin().expect("random"), KeySecret::mint().expect("random"));
        assert!(KeySecret::parse_admin(admin.reveal()).is_ok() && KeySecret::parse(admin.reveal()).is_err());
        assert!(KeySecret::parse_admin(plain.reveal()).is_err());
    }

    #[test]
    fn any_changed_character_is_caught() {
        let key = KeySecret::mint().expect("random").reveal().to_owned();
        for at in PREFIX.len()..key.len() {
            let mut typo = key.clone().into_bytes();
            typo[at] = if typo[at] == b'A' { b'B' } else { b'A' };
            let typo = String::from_utf8(typo).expect("ASCII");
            assert_eq!(KeySecret::parse(&typo).err(), Some(KeyFormatError::Checksum), "character {at}");
        }
    }

    #[test]
    fn other_keys_are_told_apart() {
        assert_eq!(KeySecret::parse("sk-abc").err(), Some(KeyFormatError::NotOurs));
        assert_eq!(KeySecret::parse("tw-short").err(), Some(KeyFormatError::NotOurs));
    }

    proptest! {
        #[test]
        fn nothing_that_is_presented_can_panic(presented in "(tw-)?\\PC{0,60}") {
            let _ = KeySecret::parse(&presented);
        }
    }
}
