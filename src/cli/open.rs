//! Opens the store as the settings say, in the order that a wrong key changes nothing.

use super::migrate;
use crate::config::Settings;
use crate::server::assemble::unix_millis;
use crate::store::vault::{KeyFile, KeyFileOrigin, Keyring};
use crate::store::{Actor, OpenOptions, Store, StoreError};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// The pauses between attempts to reach a database that is not there: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The open and migrated store.
pub(super) async fn store(settings: &Settings) -> Result<Store> {
    let url = settings.database_url();
    let server = settings.database_server(replica());
    let in_use = Store::key_ids_in_use_on(&url, &server).await?;
    let keyring = match &settings.top.master_key {
        Some(text) => Keyring::parse(text).context("master_key")?,
        None if settings.is_sqlite() => {
            let file = KeyFile::at(settings.key_file());
            let (keyring, origin) = file.load_or_create(&in_use)?;
            if origin == KeyFileOrigin::Created {
                announce(&file);
            }
            keyring
        }
        None => bail!(
            "master_key is not set: with a database server, give one in TOLLWAY_MASTER_KEY or TOLLWAY_MASTER_KEY_FILE (`tollway keyring generate` prints a new one)"
        ),
    };
    let store = Store::open_on(OpenOptions { url, keyring }, &server).await?;
    store.migrate().await?;
    migrate::must_be_finished(&store).await?;
    Ok(store)
}

/// The same for a server, which may be started before its database.
pub(super) async fn store_in_time(settings: &Settings) -> Result<Store> {
    let deadline = Instant::now() + settings.database.connect_retry;
    let mut pause = AGAIN.0;
    loop {
        let error = match store(settings).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let may_pass = error.downcast_ref::<StoreError>().is_some_and(StoreError::may_pass);
        let left = deadline.saturating_duration_since(Instant::now());
        if !may_pass || settings.is_sqlite() {
            return Err(error);
        }
        if left.is_zero() {
            return Err(error.context("the database was not there within database.connect_retry"));
        }
        let (error, left_seconds) = (format!("{error:#}"), left.as_secs());
        tracing::warn!(error, left_seconds, "the database is not there yet; it is tried again");
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

/// What the database server shows this process as: its machine, and its number there.
pub(super) fn replica() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("tollway {}/{}", machine.trim(), std::process::id())
}

/// The same, for a command of somebody's: what it changes is in the audit log as theirs.
pub(super) async fn store_as_operator(settings: &Settings) -> Result<Store> {
    let name = operator();
    let actor =
        Actor { id: format!("cli:{name}"), name, source: None, request_id: None, at: unix_millis(), once: None };
    Ok(store(settings).await?.acting(actor))
}

/// Who runs this command, as far as the system says.
pub(super) fn operator() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.into_iter().find(|name| !name.trim().is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Said once, and loudly: whoever loses this file loses every account's login.
fn announce(file: &KeyFile) {
    let path = file.path().display().to_string();
    if tracing::dispatcher::has_been_set() {
        tracing::warn!(path, "no master key was given: a new one was made and kept in this file; back it up");
    } else {
        eprintln!("note: no master key was given: a new one was made and kept in {path}; back it up");
    }
}
