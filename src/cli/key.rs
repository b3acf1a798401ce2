//! `tollway key`.

use super::limits::{self, Flags};
use super::open;
use super::show::{self, distance, moment, say, table};
use crate::config::Settings;
use crate::server::assemble::unix_millis;
use crate::store::{
    Account, AccountId, AccountScope, GatewayKey, KeyChange, Limits, NewKey, Right, Rights, Store, UnixMillis,
};
use crate::tenant::KeySecret;
use anyhow::{Context, Result};
use secrecy::ExposeSecret;
use std::time::Duration;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a key and print it, once
    Create {
        /// Whose it is
        #[arg(long)]
        name: String,
        /// The accounts it may use, by name, email or id; all if left out
        #[arg(long, value_delimiter = ',', value_name = "ACCOUNT,…")]
        accounts: Vec<String>,
        /// The pool it is bound to, by name or id, in the place of accounts
        #[arg(long, conflicts_with = "accounts")]
        pool: Option<String>,
        /// What it may do besides asking models: auth:refresh, accounts:email
        #[arg(long = "right", value_delimiter = ',', value_name = "RIGHT,…")]
        rights: Vec<Right>,
        /// When it ends, from now: 90d, 12h
        #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
        expires: Option<Duration>,
        /// The user it belongs to, and by them to their team
        #[arg(long)]
        user: Option<String>,
        /// The team it belongs to, if to no user
        #[arg(long, conflicts_with = "user")]
        team: Option<String>,
        #[command(flatten)]
        limits: Box<Flags>,
    },
    /// Print the hash of a key, read from standard input: what may stand in a file for `tollway apply`
    Hash,
    /// Make a key without letting it in anywhere, for a file that declares its hash: the key goes to
    /// standard output, the hash to standard error
    Generate,
    /// Change a key
    Set {
        /// Name, id, the start of an id, or the visible start of the key
        key: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        /// What it may do besides asking models: auth:refresh, accounts:email; or none
        #[arg(long = "right", value_delimiter = ',', value_name = "RIGHT,…")]
        rights: Option<Vec<String>>,
        /// When it ends, from now: 90d, 12h; or never
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        #[command(flatten)]
        limits: Box<Flags>,
    },
    /// List the keys
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one key
    Show {
        /// Name, id, the start of an id, or the visible start of the key
        key: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop a key for good, within a second
    Revoke {
        /// Name, id, the start of an id, or the visible start of the key
        key: String,
    },
    /// Make a new key in the place of an old one, which goes on working for a while
    Rotate {
        /// Name, id, the start of an id, or the visible start of the key
        key: String,
        /// How long the old key goes on working
        #[arg(long, default_value = "24h", value_parser = humantime::parse_duration, value_name = "TIME")]
        grace: Duration,
    },
}

pub(super) async fn run(settings: &Settings, command: Command) -> Result<()> {
    match command {
        Command::Hash => return hash(),
        Command::Generate => return generate(),
        _ => {}
    }
    let store = open::store_as_operator(settings).await?;
    let now = unix_millis();
    let done = match command {
        Command::Create { name, accounts, pool, rights, expires, user, team, limits } => {
            let order = Order { name, accounts, pool, rights: rights.into_iter().collect(), expires, user, team };
            create(&store, order, *limits, now).await
        }
        // Done above, for they need no store.
        Command::Hash | Command::Generate => Ok(()),
        Command::Set { key, name, rights, expires, limits } => {
            let change = KeyChange {
                name,
                rights: rights.as_deref().map(read_rights).transpose()?,
                expires_at: expires.map(|text| end_of(&text, now)).transpose()?,
                limits: None,
            };
            self::change(&store, &key, change, *limits, now).await
        }
        Command::List { json } => list(&store, json, now).await,
        Command::Show { key, json } => show(&store, &key, json, now).await,
        Command::Revoke { key } => revoke(&store, &key, now).await,
        Command::Rotate { key, grace } => rotate(&store, &key, grace, now).await,
    };
    store.close().await;
    done
}

fn hash() -> Result<()> {
    let text = zeroize::Zeroizing::new(std::io::read_to_string(std::io::stdin())?);
    Ok(say!("{}", KeySecret::parse(text.trim())?.digest())?)
}

fn generate() -> Result<()> {
    let secret = KeySecret::mint()?;
    show::hand_over(&format!("{}\n", secret.reveal()))?;
    eprintln!("{}", secret.digest());
    Ok(())
}

/// A key as it is asked for.
struct Order {
    name: String,
    accounts: Vec<String>,
    pool: Option<String>,
    rights: Rights,
    expires: Option<Duration>,
    user: Option<String>,
    team: Option<String>,
}

async fn create(store: &Store, order: Order, limits: Flags, now: UnixMillis) -> Result<()> {
    let mut ids = Vec::with_capacity(order.accounts.len());
    for asked in &order.accounts {
        ids.push(store.accounts().find(asked.trim()).await?.id);
    }
    let pool = match &order.pool {
        Some(asked) => Some(store.pools().find(asked).await?.id),
        None => None,
    };
    let user = match &order.user {
        Some(asked) => Some(store.tenants().find_user(asked).await?.id),
        None => None,
    };
    let team = match &order.team {
        Some(asked) => Some(store.tenants().find_team(asked).await?.id),
        None => None,
    };
    let scope = if ids.is_empty() { AccountScope::All } else { AccountScope::only(ids) };
    let limits = limits.apply(Limits::default(), store, now).await?;
    let secret = KeySecret::mint()?;
    let expires_at = order.expires.map(|life| after(now, life));
    let new = stored(store, &secret, order.name, scope, expires_at).await?;
    let key = store.keys().create(NewKey { pool, rights: order.rights, user, team, limits, ..new }, now).await?;
    tell(&secret, &key, now)
}

fn read_rights(given: &[String]) -> Result<Rights> {
    let rights = given.iter().map(|right| right.trim()).filter(|right| *right != "none");
    rights.map(|right| right.parse::<Right>().with_context(|| format!("--right: {right:?}"))).collect()
}

fn end_of(text: &str, now: UnixMillis) -> Result<Option<UnixMillis>> {
    match text {
        "never" => Ok(None),
        life => Ok(Some(after(now, humantime::parse_duration(life).context("--expires")?))),
    }
}

async fn change(store: &Store, asked: &str, change: KeyChange, limits: Flags, now: UnixMillis) -> Result<()> {
    let key = store.keys().find(asked).await?;
    let limits = limits.apply(key.limits.clone(), store, now).await?;
    let line = limits::line(&limits);
    let change = KeyChange { limits: Some(limits), ..change };
    store.keys().update(key.id, &change, Some(key.version)).await?;
    Ok(say!("key {} ({}…): {line}", key.name, key.prefix)?)
}

async fn stored(
    store: &Store,
    secret: &KeySecret,
    name: String,
    accounts: AccountScope,
    expires_at: Option<UnixMillis>,
) -> Result<NewKey> {
    let pepper = store.pepper().await?;
    Ok(NewKey {
        name,
        prefix: secret.prefix().to_owned(),
        hash: secret.digest().hash(pepper.expose_secret()),
        accounts,
        pool: None,
        rights: Rights::new(),
        user: None,
        team: None,
        limits: Limits::default(),
        expires_at,
    })
}

/// The key goes to standard output by itself, so that a script can take it; the rest goes beside it.
fn tell(secret: &KeySecret, key: &GatewayKey, now: UnixMillis) -> Result<()> {
    show::hand_over(&format!("{}\n", secret.reveal())).with_context(|| {
        format!("the new key could not be printed and is lost: run `tollway key revoke {}` and make another", key.id)
    })?;
    let ends = key.expires_at.map_or_else(String::new, |at| format!(", ends {}", moment(at, now)));
    eprintln!("key {} made (id {}{ends}). It is not shown again.", key.name, key.id);
    eprintln!("its hash, for `tollway apply`: {}", secret.digest());
    Ok(())
}

async fn list(store: &Store, json: bool, now: UnixMillis) -> Result<()> {
    let keys = store.keys().list().await?;
    if json {
        let list: Vec<_> = keys.iter().map(to_json).collect();
        say!("{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(());
    }
    if keys.is_empty() {
        say!("no keys yet: make one with `tollway key create --name NAME`")?;
        return Ok(());
    }
    let accounts = store.accounts().list().await?;
    let rows = keys.iter().map(|key| {
        [
            key.name.clone(),
            format!("{}…", key.prefix),
            key.id.to_string(),
            standing(key, now),
            scope(key, &accounts),
            key.last_used_at.map_or_else(|| "never".into(), |at| distance(at, now)),
        ]
    });
    Ok(show::print(&table(["NAME", "KEY", "ID", "STATE", "ACCOUNTS", "LAST USED"], rows))?)
}

async fn show(store: &Store, asked: &str, json: bool, now: UnixMillis) -> Result<()> {
    let key = store.keys().find(asked).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&to_json(&key))?)?;
        return Ok(());
    }
    let rows = [
        ["name".to_owned(), key.name.clone()],
        ["key".to_owned(), format!("{}…", key.prefix)],
        ["id".to_owned(), key.id.to_string()],
        ["state".to_owned(), standing(&key, now)],
        ["accounts".to_owned(), scope(&key, &store.accounts().list().await?)],
        ["rights".to_owned(), rights_of(&key)],
        ["user".to_owned(), key.user.as_ref().map_or_else(|| "–".into(), |user| user.name.clone())],
        ["team".to_owned(), key.team.as_ref().map_or_else(|| "–".into(), |team| team.name.clone())],
        ["limits".to_owned(), limits::line(&key.limits)],
        ["made".to_owned(), moment(key.created_at, now)],
        ["ends".to_owned(), key.expires_at.map_or_else(|| "never".into(), |at| moment(at, now))],
        ["last used".to_owned(), key.last_used_at.map_or_else(|| "never".into(), |at| moment(at, now))],
        ["replaced by".to_owned(), key.rotated_to.map_or_else(|| "–".into(), |id| id.to_string())],
    ];
    Ok(show::print(&table(["GATEWAY KEY", ""], rows))?)
}

fn standing(key: &GatewayKey, now: UnixMillis) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", distance(at, now)),
        (None, Some(at)) if at <= now => format!("expired {}", distance(at, now)),
        (None, Some(at)) => format!("active, ends {}", distance(at, now)),
        (None, None) => "active".to_owned(),
    }
}

/// The names of the accounts that a key may use.
fn scope(key: &GatewayKey, accounts: &[Account]) -> String {
    if let Some(pool) = &key.pool {
        return format!("pool {}", pool.name);
    }
    match &key.accounts {
        AccountScope::All => "all".to_owned(),
        AccountScope::Only(ids) if ids.is_empty() => "none left".to_owned(),
        AccountScope::Only(ids) => {
            let name = |id: &AccountId| accounts.iter().find(|account| account.id == *id).map(|a| a.name.clone());
            ids.iter().map(|id| name(id).unwrap_or_else(|| id.to_string())).collect::<Vec<_>>().join(", ")
        }
    }
}

/// What a key may do besides asking models.
fn rights_of(key: &GatewayKey) -> String {
    let names: Vec<_> = key.rights.iter().map(|right| right.as_str()).collect();
    if names.is_empty() { "–".to_owned() } else { names.join(", ") }
}

fn to_json(key: &GatewayKey) -> serde_json::Value {
    let accounts = match &key.accounts {
        AccountScope::All => None,
        AccountScope::Only(ids) => Some(ids),
    };
    serde_json::json!({
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "accounts": accounts,
        "pool": key.pool.as_ref().map(|pool| &pool.name),
        "rights": key.rights.iter().map(|right| right.as_str()).collect::<Vec<_>>(),
        "user": key.user.as_ref().map(|user| &user.name),
        "team": key.team.as_ref().map(|team| &team.name),
        "limits": key.limits,
        "version": key.version,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "rotated_to": key.rotated_to,
        "last_used_at": key.last_used_at,
    })
}

async fn revoke(store: &Store, asked: &str, now: UnixMillis) -> Result<()> {
    let key = store.keys().find(asked).await?;
    if store.keys().revoke(key.id, now).await? {
        say!("key {} ({}…) is revoked", key.name, key.prefix)?;
    } else {
        say!("key {} ({}…) was revoked before", key.name, key.prefix)?;
    }
    Ok(())
}

async fn rotate(store: &Store, asked: &str, grace: Duration, now: UnixMillis) -> Result<()> {
    let old = store.keys().find(asked).await?;
    // The successor lives as long again as its predecessor was to live.
    let expires_at = old.expires_at.map(|at| now.saturating_add(at.saturating_sub(old.created_at)));
    let secret = KeySecret::mint()?;
    let new = stored(store, &secret, old.name.clone(), old.bound_to.clone(), expires_at).await?;
    let new = NewKey {
        pool: old.pool.as_ref().map(|pool| pool.id),
        rights: old.rights.clone(),
        user: old.user.as_ref().map(|user| user.id),
        team: old.team.as_ref().map(|team| team.id),
        limits: old.limits.clone(),
        ..new
    };
    let key = store.keys().rotate(old.id, new, after(now, grace), now).await.context("the key was not rotated")?;
    tell(&secret, &key, now)?;
    let old = store.keys().find(&old.id.to_string()).await?;
    eprintln!("the old key ({}…) is {}", old.prefix, standing(&old, now));
    Ok(())
}

fn after(now: UnixMillis, length: Duration) -> UnixMillis {
    now.saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX))
}
