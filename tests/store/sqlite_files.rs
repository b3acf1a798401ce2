//! What only a file can get wrong: its mode, what stands in it, what a crash or a wrong key leaves.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret;
use tempfile::TempDir;
use tollway::store::{AccountScope, OpenOptions, Result, Rotation, Saved, Store, StoreError};

use crate::database::{NEW_KEY, NOW, OLD_KEY, add, credentials, key, keyring, tokens};

async fn open(path: &Path, keys: &str) -> Result<Store> {
    let url = format!("sqlite://{}", path.display()).into();
    Store::open(OpenOptions { url, keyring: keyring(keys) }).await
}

async fn migrated(directory: &TempDir) -> (PathBuf, Store) {
    let path = directory.path().join("tollway.db");
    let store = open(&path, OLD_KEY).await.unwrap();
    store.migrate().await.unwrap();
    (path, store)
}

/// Every file of a directory with its content.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The files as a power cut would leave them while the store is open.
fn crash(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (path, content) in snapshot(directory) {
        let name = path.file_name().unwrap();
        // Shared memory is gone after a power cut.
        if !name.to_str().unwrap().ends_with("-shm") {
            fs::write(copy.path().join(name), content).unwrap();
        }
    }
    copy
}

fn holds(content: &[u8], secret: &[u8]) -> bool {
    content.windows(secret.len()).any(|window| window == secret)
}

#[tokio::test]
async fn no_plaintext_secret_is_in_any_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, store) = migrated(&directory).await;
    let ada = add(&store, "ada").await;
    let saved = store.accounts().save_refreshed(ada.id, 1, &credentials("ada", 2), NOW).await.unwrap();
    assert_eq!(saved, Saved::Stored { generation: 2 });
    store.keys().create(key("laptop", b'h', AccountScope::All), NOW).await.unwrap();
    let pepper = store.pepper().await.unwrap();
    let both = open(&path, &format!("{NEW_KEY},{OLD_KEY}")).await.unwrap();
    assert_eq!(both.rotate_keyring(Rotation::default()).await.unwrap().resealed, 4);

    let mut secrets: Vec<Vec<u8>> = (1..=2)
        .flat_map(|round| ["access", "refresh", "id"].map(|kind| format!("{kind}-ada-{round}").into_bytes()))
        .collect();
    secrets.push(pepper.expose_secret().to_vec());
    secrets.extend([OLD_KEY, NEW_KEY].map(|key| key.as_bytes().to_vec()));
    let no_secret_in = |files: &BTreeMap<PathBuf, Vec<u8>>| {
        for (file, content) in files {
            for secret in &secrets {
                assert!(!holds(content, secret), "{secret:?} is in {}", file.display());
            }
        }
    };
    let open_files = snapshot(directory.path());
    assert_eq!(open_files.len(), 3, "database, -wal and -shm");
    let all: Vec<u8> = open_files.values().flatten().copied().collect();
    assert!(holds(&all, b"user-ada") && holds(&all, &[b'h'; 32]), "the search finds what is there");
    no_secret_in(&open_files);
    store.close().await;
    both.close().await;
    no_secret_in(&snapshot(directory.path()));
}

#[tokio::test]
async fn a_wrong_key_leaves_the_files_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let (path, store) = migrated(&directory).await;
    add(&store, "ada").await;
    store.close().await;
    let before = snapshot(directory.path());
    assert_eq!(before.len(), 1, "closed, the log is folded into the file");
    assert!(matches!(open(&path, NEW_KEY).await, Err(StoreError::MissingKey { .. })));
    assert!(snapshot(directory.path()) == before, "another file or content");
}

#[tokio::test]
async fn a_wrong_key_is_seen_in_the_log_of_a_crash_which_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = migrated(&directory).await;
    add(&store, "ada").await;
    let crashed = crash(directory.path());
    let before = snapshot(crashed.path());
    let path = crashed.path().join("tollway.db");
    assert!(matches!(open(&path, NEW_KEY).await, Err(StoreError::MissingKey { .. })));
    let mut after = snapshot(crashed.path());
    after.retain(|path, _| !path.to_str().unwrap().ends_with("-shm"));
    assert!(after == before, "another file or content");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = migrated(&directory).await;
    let ada = add(&store, "ada").await;
    for round in 1..=20 {
        let new = credentials("ada", round + 1);
        let saved = store.accounts().save_refreshed(ada.id, round, &new, NOW).await.unwrap();
        assert_eq!(saved, Saved::Stored { generation: round + 1 });
        let crashed = crash(directory.path());
        let survivor = open(&crashed.path().join("tollway.db"), OLD_KEY).await.unwrap();
        assert_eq!(tokens(&survivor, &ada).await.1, format!("refresh-ada-{}", round + 1));
        survivor.close().await;
    }
}

#[tokio::test]
async fn new_files_and_directories_are_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/for it/tollway.db");
    let store = open(&path, OLD_KEY).await.unwrap();
    store.migrate().await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in snapshot(path.parent().unwrap()).keys() {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn urls_that_cannot_work_are_refused_without_repeating_them() {
    for url in [
        "sqlite://",
        "sqlite::memory:",
        "sqlite://a.db?mode=ro",
        "mysql://u:secret@h/d",
        "postgres://u:secret@h:port/d",
    ] {
        let options = OpenOptions { url: url.into(), keyring: keyring(OLD_KEY) };
        let refused = Store::open(options).await.unwrap_err();
        assert!(matches!(refused, StoreError::Url { .. }), "{url}: {refused:?}");
        assert!(!format!("{refused:?} {refused}").contains("secret"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    fs::write(&path, "these are my notes, and longer than a header of a database\n".repeat(99)).unwrap();
    let before = snapshot(directory.path());
    open(&path, OLD_KEY).await.unwrap_err();
    assert!(snapshot(directory.path()) == before, "another file or content");
}
