//! `tollway alias`: models by other names.

use super::open;
use super::show::{self, say, table};
use crate::config::Settings;
use crate::server::assemble::unix_millis;
use crate::store::{AliasDraft, Store};
use anyhow::{Result, bail};
use std::collections::BTreeMap;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List all aliases, those of the settings too
    List,
    /// Give a model another name, or change what a name means
    Set {
        /// What clients ask for; may end in *
        name: String,
        /// What they get: a model, as `slug` or `slug:effort`
        target: String,
    },
    /// Forget an alias
    Remove {
        /// Name, id or the start of an id
        alias: String,
    },
}

pub(super) async fn run(settings: &Settings, command: Command) -> Result<()> {
    let store = open::store_as_operator(settings).await?;
    let done = match command {
        Command::List => list(settings, &store).await,
        Command::Set { name, target } => set(&store, AliasDraft { name, target }).await,
        Command::Remove { alias } => remove(&store, &alias).await,
    };
    store.close().await;
    done
}

async fn list(settings: &Settings, store: &Store) -> Result<()> {
    let of_settings = settings.models.aliases.iter().map(|(name, target)| (name.clone(), (target.clone(), "settings")));
    let mut all: BTreeMap<_, _> = of_settings.collect();
    // Of two of one name, the one in the database counts.
    all.extend(store.aliases().list().await?.into_iter().map(|alias| (alias.name, (alias.target, "database"))));
    let rows = all.into_iter().map(|(name, (target, origin))| [name, target, origin.to_owned()]);
    Ok(show::print(&table(["NAME", "MODEL", "FROM"], rows))?)
}

async fn set(store: &Store, draft: AliasDraft) -> Result<()> {
    if let Some(fault) = draft.fault() {
        bail!("{fault}");
    }
    let known = store.aliases().list().await?.into_iter().find(|alias| alias.name == draft.name);
    match known {
        Some(alias) => store.aliases().update(alias.id, &draft, Some(alias.version)).await?,
        None => drop(store.aliases().create(draft.clone(), unix_millis()).await?),
    }
    Ok(say!("{} means {}", draft.name, draft.target)?)
}

async fn remove(store: &Store, asked: &str) -> Result<()> {
    let alias = store.aliases().find(asked).await?;
    store.aliases().remove(alias.id, None).await?;
    Ok(say!("alias {} is removed", alias.name)?)
}
