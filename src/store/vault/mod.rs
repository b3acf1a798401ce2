//! The vault: seals secrets before they reach the database, and opens them afterwards.
//!
//! AES-256-GCM with a random 96-bit nonce. The key that seals is derived from the master key by
//! HKDF-SHA-256, so the master key itself touches no data. What is sealed is bound to its table,
//! column, row and key id: an envelope that is moved elsewhere does not open.
//!
//! The vault knows no database and no configuration; where keys come from is the caller's matter,
//! except for the key file of a first start (`KeyFile`).

mod envelope;
mod key_file;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    digest, hkdf,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD_INDIFFERENT, URL_SAFE_NO_PAD_INDIFFERENT},
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, Zeroizing};

use envelope::Envelope;
pub use key_file::{KeyFile, KeyFileError, KeyFileOrigin};

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
/// Kept apart from every other use that a master key may ever get.
const SALT: &[u8] = b"tollway vault v1";
const SEALING_LABEL: &[u8] = b"seal columns: aes-256-gcm";
const KEY_ID_LABEL: &[u8] = b"key id";

/// Why the vault could not read a key, or seal or open a value. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The keyring's text holds no key at all.
    #[error("the master key is empty: expected 32 bytes as base64 (`openssl rand -base64 32`)")]
    NoKey,
    /// A key of the keyring's text cannot be used.
    #[error(
        "key number {number} of the master key is not 32 bytes as base64 ({problem}); `openssl rand -base64 32` makes one"
    )]
    BadKey {
        /// Counted from one, in the order of the text.
        number: usize,
        /// What is wrong with it, without its content.
        problem: &'static str,
    },
    /// The value is no envelope that this version knows.
    #[error("not a sealed value of a version that this program knows")]
    NotAnEnvelope,
    /// The envelope names a key that the keyring does not hold.
    #[error("sealed under key id {key_id}, which is not in the keyring")]
    UnknownKey {
        /// The key id that the envelope names.
        key_id: String,
    },
    /// The authentication failed: the value was changed, or moved from another row or column.
    #[error("the sealed value was changed, or belongs to another row or column")]
    Tampered,
    /// The cryptographic library refused, for want of randomness for example.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// Where a sealed value lives; bound to it, so that it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    /// The row's primary key as text.
    pub(super) row: &'a str,
}

impl Place<'_> {
    /// Unambiguous because tables, columns and key ids never hold a `|`.
    fn associated_data(self, key_id: &str) -> Aad<String> {
        let Self { table, column, row } = self;
        Aad::from(format!("{table}|{column}|{row}|{key_id}"))
    }
}

/// The master keys: the first one seals, all of them open. Deliberately not `Debug`.
pub struct Keyring {
    first: SealingKey,
    /// Keys that only open what was sealed before a rotation.
    others: Vec<SealingKey>,
}

struct SealingKey {
    id: String,
    key: RandomizedNonceKey,
}

impl Keyring {
    /// Reads master keys: 32 bytes each as base64 (either alphabet, padded or not), separated by
    /// commas or white space. The first seals, all open; a key that stands twice counts once.
    pub fn parse(text: &SecretString) -> Result<Self, VaultError> {
        // The generator's first use gathers entropy for tens of milliseconds. That must not fall between
        // the issuer's answer to a refresh and our commit, the one moment in which a crash costs a login.
        aws_lc_rs::rand::fill(&mut [0; 1]).map_err(|_| VaultError::Crypto)?;
        let mut keys = text
            .expose_secret()
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|part| !part.is_empty())
            .enumerate()
            .map(|(index, part)| SealingKey::derive(&*decode(part, index + 1)?));
        let first = keys.next().ok_or(VaultError::NoKey)??;
        let mut ring = Self { first, others: Vec::new() };
        for key in keys {
            let key = key?;
            if ring.key(&key.id).is_none() {
                ring.others.push(key);
            }
        }
        Ok(ring)
    }

    /// A keyring of one new random key, which is lost with it.
    pub fn generate() -> Result<Self, VaultError> {
        Self::parse(&Self::generate_text()?)
    }

    /// A new random key as text, as `parse` reads it.
    pub fn generate_text() -> Result<SecretString, VaultError> {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        aws_lc_rs::rand::fill(bytes.as_mut()).map_err(|_| VaultError::Crypto)?;
        Ok(SecretString::from(STANDARD.encode(*bytes)))
    }

    /// The ids of all keys; the first is the one that seals. Ids are not secret.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.id.as_str())
    }

    /// The id of the key that seals.
    pub fn sealing_key_id(&self) -> &str {
        &self.first.id
    }

    /// Those of `in_use` that this keyring does not hold.
    pub(super) fn lacks(&self, in_use: &BTreeSet<String>) -> Vec<String> {
        in_use.iter().filter(|id| self.key(id).is_none()).cloned().collect()
    }

    /// Seals `plaintext` for one place, under the first key.
    pub(super) fn seal(&self, place: Place<'_>, plaintext: &[u8]) -> Result<String, VaultError> {
        let SealingKey { id, key } = &self.first;
        // Room for the tag from the start: a buffer that grows leaves its old content behind.
        let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.len() + TAG_BYTES));
        buffer.extend_from_slice(plaintext);
        let nonce =
            key.seal_in_place_append_tag(place.associated_data(id), &mut *buffer).map_err(|_| VaultError::Crypto)?;
        Ok(Envelope { key_id: id, nonce: *nonce.as_ref(), sealed: buffer }.to_text())
    }

    /// Opens an envelope that was sealed for this very place, under any key of the ring.
    pub(super) fn open(&self, place: Place<'_>, text: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let Envelope { key_id, nonce, mut sealed } = Envelope::parse(text)?;
        let Some(SealingKey { id, key }) = self.key(key_id) else {
            return Err(VaultError::UnknownKey { key_id: key_id.to_owned() });
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length =
            key.open_in_place(nonce, place.associated_data(id), &mut sealed).map_err(|_| VaultError::Tampered)?.len();
        sealed.truncate(length);
        Ok(sealed)
    }

    fn keys(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn key(&self, id: &str) -> Option<&SealingKey> {
        self.keys().find(|key| key.id == id)
    }
}

impl SealingKey {
    fn derive(master: &[u8; KEY_BYTES]) -> Result<Self, VaultError> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(master);
        let sealing = expand(&root, SEALING_LABEL)?;
        // The id is a hash of a sibling of the sealing key: it tells neither that nor the master key.
        let id = digest::digest(&digest::SHA256, &*expand(&root, KEY_ID_LABEL)?);
        let id = id
            .as_ref()
            .iter()
            .take(envelope::KEY_ID_BYTES)
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let key = RandomizedNonceKey::new(&AES_256_GCM, &*sealing).map_err(|_| VaultError::Crypto)?;
        Ok(Self { id, key })
    }
}

fn expand(root: &hkdf::Prk, label: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
    let mut out = Zeroizing::new([0_u8; KEY_BYTES]);
    root.expand(&[label], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(out.as_mut())).map_err(|_| VaultError::Crypto)?;
    Ok(out)
}

fn decode(part: &str, number: usize) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
    let bad = |problem| VaultError::BadKey { number, problem };
    let alphabet = if part.contains(['-', '_']) { URL_SAFE_NO_PAD_INDIFFERENT } else { STANDARD_NO_PAD_INDIFFERENT };
    let mut bytes = alphabet.decode(part).map_err(|_| bad("it is not base64"))?;
    let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map(Zeroizing::new);
    bytes.zeroize();
    key.map_err(|_| bad("it has another length"))
}
