//! `tollway admin-key`: keys of the admin API.

use super::open;
use super::show::{self, distance, moment, say, table};
use crate::config::Settings;
use crate::server::assemble::unix_millis;
use crate::store::{AdminKey, NewAdminKey, Role, Store, UnixMillis};
use crate::tenant::KeySecret;
use anyhow::{Context, Result, bail};
use secrecy::ExposeSecret;
use std::time::Duration;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make an admin key and print it, once
    Create {
        /// Whose it is
        #[arg(long)]
        name: String,
        /// What its holder may do: viewer, operator, owner
        #[arg(long)]
        role: Role,
        /// The only team whose objects its holder sees and changes
        #[arg(long)]
        team: Option<String>,
        /// When it ends, from now: 90d, 12h
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
        expires: Option<Duration>,
    },
    /// List the admin keys
    List,
    /// Stop an admin key for good, at once
    Revoke {
        /// Name, id, the start of an id, or the visible start of the key
        key: String,
    },
}

/// Runs a command on admin keys.
pub(super) async fn run(settings: &Settings, command: Command) -> Result<()> {
    let store = open::store_as_operator(settings).await?;
    let now = unix_millis();
    let done = match command {
        Command::Create { name, role, team, expires } => {
            let expires = expires.map(|life| now.saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX)));
            create(&store, name, role, team.as_deref(), expires, now).await
        }
        Command::List => list(&store, now).await,
        Command::Revoke { key } => revoke(&store, &key, now).await,
    };
    store.close().await;
    done
}

async fn create(
    store: &Store,
    name: String,
    role: Role,
    team: Option<&str>,
    expires_at: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<()> {
    let team = match team {
        Some(_) if role == Role::Owner => bail!("an owner owns the whole gateway, not one team"),
        Some(asked) => Some(store.tenants().find_team(asked).await?.id),
        None => None,
    };
    let secret = KeySecret::mint_admin()?;
    let (prefix, hash) = (secret.prefix().to_owned(), secret.hash(store.pepper().await?.expose_secret()));
    let key = store.admin_keys().create(NewAdminKey { name, prefix, hash, role, team, expires_at }, now).await?;
    show::hand_over(&format!("{}\n", secret.reveal())).with_context(|| {
        format!("the new key could not be printed and is lost: run `tollway admin-key revoke {}`", key.id)
    })?;
    let ends = key.expires_at.map_or_else(String::new, |at| format!(", ends {}", moment(at, now)));
    eprintln!("admin key {} made (id {}, {}{ends}). It is not shown again.", key.name, key.id, role.as_str());
    Ok(())
}

async fn list(store: &Store, now: UnixMillis) -> Result<()> {
    let keys = store.admin_keys().list().await?;
    if keys.is_empty() {
        return Ok(say!("no admin keys yet: make one with `tollway admin-key create --name NAME --role owner`")?);
    }
    let teams = store.tenants().teams().await?;
    let team = |key: &AdminKey| {
        let team = teams.iter().find(|team| Some(team.id) == key.team);
        team.map_or_else(|| "all".to_owned(), |team| team.name.clone())
    };
    let rows = keys.iter().map(|key| {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(at), _) => format!("revoked {}", distance(at, now)),
            (None, Some(at)) => format!("ends {}", distance(at, now)),
            (None, None) => "active".to_owned(),
        };
        [
            key.name.clone(),
            format!("{}…", key.prefix),
            key.role.as_str().to_owned(),
            team(key),
            state,
            key.id.to_string(),
        ]
    });
    Ok(show::print(&table(["NAME", "KEY", "ROLE", "TEAM", "STATE", "ID"], rows))?)
}

async fn revoke(store: &Store, asked: &str, now: UnixMillis) -> Result<()> {
    let key = store.admin_keys().find(asked).await?;
    let was = if store.admin_keys().revoke(&key, now).await? { "is" } else { "was before" };
    Ok(say!("admin key {} ({}…) {was} revoked", key.name, key.prefix)?)
}
