//! A gateway key as its holder has it: `tw-`, 256 random bits, and a checksum, so that secret
//! scanners and typos are caught without a database.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::str::FromStr;
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

    /// What may stand in a file in the place of the key.
    pub fn digest(&self) -> KeyDigest {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.0.expose_secret().as_bytes()).as_ref());
        KeyDigest(hash)
    }

    /// What is stored of an admin key, and was stored of gateway keys before they could be declared
    /// by hash: HMAC-SHA-256 under the store's pepper. The key is random, so a fast keyed hash is
    /// enough, and a slow one would be paid on every request.
    pub fn hash(&self, pepper: &[u8; 32]) -> [u8; 32] {
        self.hash_by(&Hasher::new(pepper))
    }

    /// The same, for who has many to hash.
    pub(super) fn hash_by(&self, hasher: &Hasher) -> [u8; 32] {
        hasher.hash(self.0.expose_secret().as_bytes())
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

/// The SHA-256 of a key, `sha256:` and 64 hexadecimal digits. It says nothing of the key, which is
/// random, and is the same in every installation, so that keys can be declared in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDigest([u8; 32]);

/// The text is no hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `sha256:` and 64 hexadecimal digits, as `tollway key hash` prints it")]
pub struct UnknownDigest;

impl KeyDigest {
    /// What is stored of a gateway key: HMAC-SHA-256 of it under the store's pepper.
    pub fn hash(&self, pepper: &[u8; 32]) -> [u8; 32] {
        self.hash_by(&Hasher::new(pepper))
    }

    /// The same, for who has many to hash.
    pub(super) fn hash_by(&self, hasher: &Hasher) -> [u8; 32] {
        hasher.hash(&self.0)
    }

    /// What is shown in the place of a key's visible start, which nobody knows here.
    pub fn prefix(&self) -> String {
        self.to_string()[..DIGEST_PREFIX.len() + 6].to_owned()
    }
}

const DIGEST_PREFIX: &str = "sha256:";

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DIGEST_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for KeyDigest {
    type Err = UnknownDigest;

    fn from_str(text: &str) -> Result<Self, UnknownDigest> {
        let digits = text.strip_prefix(DIGEST_PREFIX).filter(|digits| digits.len() == 64 && digits.is_ascii());
        let digits = digits.ok_or(UnknownDigest)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(UnknownDigest);
            let value = digit(pair[0])? * 16 + digit(pair[1])?;
            *byte = u8::try_from(value).map_err(|_| UnknownDigest)?;
        }
        Ok(Self(hash))
    }
}

/// Hashes keys under the store's pepper, which is made ready once: that takes as long as a hash.
pub(super) struct Hasher(hmac::Key);

impl Hasher {
    pub(super) fn new(pepper: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, pepper))
    }

    fn hash(&self, content: &[u8]) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.0, content).as_ref());
        hash
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
    fn a_digest_is_the_plain_sha_256_of_the_key_and_is_read_as_it_is_written() {
        let key = KeySecret("abc".into());
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key.digest().to_string(), text);
        assert_eq!(text.parse(), Ok(key.digest()));
        assert_eq!(text.to_uppercase().replace("SHA256", "sha256").parse(), Ok(key.digest()));
        assert_ne!(key.digest().hash(&[7; 32]), key.hash(&[7; 32]));
        assert_eq!(key.digest().prefix(), "sha256:ba7816");
        for wrong in ["", "sha256:", "ba7816", "sha256:zz", &text[..70], &text.replace('b', "ä"), "tw-abc"] {
            assert_eq!(wrong.parse::<KeyDigest>(), Err(UnknownDigest), "{wrong}");
        }
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
