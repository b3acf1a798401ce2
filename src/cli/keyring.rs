//! `tollway keyring`: the master keys.

use super::open;
use super::show::say;
use crate::config::Settings;
use crate::store::vault::{KeyFile, Keyring};
use crate::store::{Rotation, Store};
use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print a new random master key
    Generate,
    /// List the ids of the keys given and of those the database uses
    Show,
    /// Seal everything under the first key given; safe to repeat
    Rotate,
}

pub(super) async fn run(settings: &Settings, command: Command) -> Result<()> {
    match command {
        Command::Generate => Ok(say!("{}", Keyring::generate_text()?.expose_secret())?),
        Command::Show => show(settings).await,
        Command::Rotate => rotate(settings).await,
    }
}

async fn show(settings: &Settings) -> Result<()> {
    let server = settings.database_server(open::replica());
    let in_use = Store::key_ids_in_use_on(&settings.database_url(), &server).await?;
    let keyring = match &settings.top.master_key {
        Some(text) => Some(Keyring::parse(text).context("master_key")?),
        None => KeyFile::at(settings.key_file()).load()?,
    };
    let given: Vec<&str> = keyring.iter().flat_map(Keyring::key_ids).collect();
    if given.is_empty() && in_use.is_empty() {
        say!("no key is given and none is in use; on SQLite one is made at first start")?;
    }
    for (place, id) in given.iter().enumerate() {
        let role = if place == 0 { "seals and opens" } else { "opens" };
        say!("{id}  {role}{}", if in_use.contains(*id) { ", in use" } else { "" })?;
    }
    for id in in_use.iter().filter(|id| !given.contains(&id.as_str())) {
        say!("{id}  in use, but not given: the server will refuse to start")?;
    }
    Ok(())
}

async fn rotate(settings: &Settings) -> Result<()> {
    let store = open::store_as_operator(settings).await?;
    let rotated = store.rotate_keyring(Rotation::default()).await;
    store.close().await;
    let report = rotated?;
    say!(
        "{} values resealed, {} were under the first key already, {} changed meanwhile and were looked at again",
        report.resealed,
        report.current,
        report.raced
    )?;
    if report.remaining > 0 {
        bail!(
            "{} values are still under another key: restart every server with the new key first, then run this again",
            report.remaining
        );
    }
    Ok(say!("any other key can be dropped")?)
}
