//! Sealing and opening, keyrings, and the key file.

use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;

use super::*;

const HERE: Place<'static> = Place { table: "credentials", column: "access_token", row: "row-1" };

fn key(byte: u8) -> String {
    STANDARD.encode([byte; KEY_BYTES])
}

fn ring(text: &str) -> Keyring {
    Keyring::parse(&SecretString::from(text)).unwrap()
}

fn none_in_use() -> BTreeSet<String> {
    BTreeSet::new()
}

proptest! {
    #[test]
    fn what_is_sealed_opens_again(plaintext: Vec<u8>, row in "[a-z0-9-]{0,40}") {
        let ring = ring(&key(1));
        let place = Place { row: &row, ..HERE };
        let envelope = ring.seal(place, &plaintext).unwrap();
        prop_assert_eq!(&*ring.open(place, &envelope).unwrap(), &plaintext);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(tw1\\.)?[0-9a-f]{0,17}\\.?\\PC*") {
        prop_assert!(ring(&key(1)).open(HERE, &text).is_err());
    }
}

#[test]
fn an_envelope_opens_only_where_it_was_sealed() {
    let ring = ring(&key(1));
    let envelope = ring.seal(HERE, b"secret").unwrap();
    for elsewhere in
        [Place { row: "row-2", ..HERE }, Place { column: "refresh_token", ..HERE }, Place { table: "secrets", ..HERE }]
    {
        assert!(matches!(ring.open(elsewhere, &envelope), Err(VaultError::Tampered)), "{elsewhere:?}");
    }
}

#[test]
fn an_envelope_with_any_character_changed_does_not_open() {
    let ring = ring(&key(1));
    let envelope = ring.seal(HERE, b"secret").unwrap();
    for index in 0..envelope.len() {
        let mut changed = envelope.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(ring.open(HERE, &changed).is_err(), "{changed}");
    }
}

#[test]
fn the_same_plaintext_never_gives_the_same_envelope() {
    let ring = ring(&key(1));
    assert_ne!(ring.seal(HERE, b"secret").unwrap(), ring.seal(HERE, b"secret").unwrap());
}

#[test]
fn a_missing_key_is_named() {
    let envelope = ring(&key(1)).seal(HERE, b"secret").unwrap();
    let expected = ring(&key(1)).sealing_key_id().to_owned();
    match ring(&key(2)).open(HERE, &envelope) {
        Err(VaultError::UnknownKey { key_id }) => assert_eq!(key_id, expected),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn the_first_key_seals_and_every_key_opens() {
    let old = ring(&key(1)).seal(HERE, b"secret").unwrap();
    let both = ring(&format!("{},{}", key(2), key(1)));
    assert_eq!(&**both.open(HERE, &old).unwrap(), b"secret");
    let new = both.seal(HERE, b"secret").unwrap();
    assert!(ring(&key(2)).open(HERE, &new).is_ok());
}

#[test]
fn keys_are_read_in_either_alphabet_padded_or_not_and_counted_once() {
    let padded = STANDARD.encode([0xfb; KEY_BYTES]);
    let url_safe = padded.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let ring = ring(&format!("  {padded}\n{url_safe}, ,{}\n", key(7)));
    assert_eq!(ring.key_ids().count(), 2);
}

#[test]
fn a_bad_key_is_told_by_number_and_not_repeated() {
    let text = format!("{} c2hvcnQtc2VjcmV0", key(1));
    let message = Keyring::parse(&SecretString::from(text)).err().unwrap().to_string();
    assert!(message.contains("key number 2") && message.contains("another length"), "{message}");
    assert!(!message.contains("c2hvcnQ"), "{message}");
    assert!(matches!(Keyring::parse(&SecretString::from(" \n,")), Err(VaultError::NoKey)));
}

/// The format is a promise: what was sealed by an earlier version must open. These values were made
/// by another implementation (Python's hmac, hashlib and cryptography).
#[test]
fn ids_and_envelopes_of_earlier_versions_stay_readable() {
    let ring = ring(&key(1));
    assert_eq!(ring.sealing_key_id(), "f8a1dc59ddbc9cb3");
    let envelope = "tw1.f8a1dc59ddbc9cb3.AAECAwQFBgcICQoLhMtC4OEDCzpxlB9HUsZ45UDOIkzXrA";
    assert_eq!(&**ring.open(HERE, envelope).unwrap(), b"secret");
}

#[test]
fn a_key_file_is_made_once_and_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::at(directory.path().join("data/master.key"));
    let (made, first) = file.load_or_create(&none_in_use()).unwrap();
    let (read, second) = file.load_or_create(&none_in_use()).unwrap();
    assert_eq!((first, second), (KeyFileOrigin::Created, KeyFileOrigin::Found));
    assert_eq!(made.sealing_key_id(), read.sealing_key_id());
    let permissions = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(permissions(file.path()), 0o600);
    assert_eq!(permissions(file.path().parent().unwrap()), 0o700);
    assert!(fs::read_to_string(file.path()).unwrap().ends_with("=\n"));
}

#[test]
fn a_key_file_that_others_can_read_is_refused_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::at(directory.path().join("master.key"));
    file.load_or_create(&none_in_use()).unwrap();
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let message = file.load().err().unwrap().to_string();
        assert!(message.contains(&format!("mode {mode:04o}")), "{message}");
        assert!(message.contains("chmod 600"), "{message}");
    }
}

#[test]
fn a_lost_key_file_is_not_replaced_while_secrets_need_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::at(directory.path().join("master.key"));
    let in_use = BTreeSet::from(["0123456789abcdef".to_owned()]);
    let error = file.load_or_create(&in_use).err().unwrap();
    assert!(matches!(error, KeyFileError::Lost { .. }));
    assert!(error.to_string().contains("0123456789abcdef"), "{error}");
    assert!(!file.path().exists());
}

#[test]
fn an_empty_key_file_is_an_error_and_not_a_reason_to_make_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::at(directory.path().join("master.key"));
    drop(crate::store::files::create_private_file(file.path()).unwrap());
    assert!(matches!(file.load_or_create(&none_in_use()), Err(KeyFileError::Malformed { .. })));
}
