//! `tollway pool`.

use super::open;
use super::show::{self, distance, say, table};
use crate::config::Settings;
use crate::server::assemble::{self, unix_millis};
use crate::store::{
    Account, AccountId, DecisionFilter, Names, Pool, PoolDraft, Store, StoreError, Strategy, UnixMillis,
};
use anyhow::{Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the pools
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a pool, or change one; what is not named stays
    Set {
        /// What to call it
        name: String,
        /// How its accounts are ordered: quota, round_robin, fill_first, least_loaded
        #[arg(long)]
        strategy: Option<Strategy>,
        /// The accounts that belong to it, by name, email or id
        #[arg(long, value_delimiter = ',', value_name = "ACCOUNT,…")]
        accounts: Option<Vec<String>>,
        /// Every account with one of these tags belongs to it too
        #[arg(long, value_delimiter = ',', value_name = "TAG,…")]
        tags: Option<Vec<String>>,
    },
    /// Forget a pool; no key may be bound to it
    Remove {
        /// Name, id or the start of an id
        pool: String,
    },
    /// Say which account a request would get, and why, without sending it
    Explain {
        /// The key it would come with: name, id, or the visible start of the key
        #[arg(long)]
        key: String,
        /// The model it would ask for, by its own name
        #[arg(long)]
        model: Option<String>,
        /// What its client calls the conversation
        #[arg(long)]
        session: Option<String>,
        /// Do not ask the backend which models accounts offer
        #[arg(long)]
        offline: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say why past requests got their accounts
    Decisions {
        /// Of one request, by the id that its client was told
        #[arg(long)]
        request: Option<String>,
        /// Of one key: name, id, or the visible start of the key
        #[arg(long)]
        key: Option<String>,
        /// How many, the newest first
        #[arg(long, default_value_t = 20)]
        last: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(settings: &Settings, command: Command) -> Result<()> {
    let store = open::store_as_operator(settings).await?;
    let now = unix_millis();
    let done = match command {
        Command::List { json } => list(&store, json).await,
        Command::Set { name, strategy, accounts, tags } => set(&store, &name, strategy, accounts, tags, now).await,
        Command::Remove { pool } => remove(&store, &pool).await,
        Command::Explain { key, model, session, offline, json } => {
            let asked = Asked { key, model, session, offline, json };
            explain(settings, &store, &asked, now).await
        }
        Command::Decisions { request, key, last, json } => {
            decisions(&store, request, key.as_deref(), last, json, now).await
        }
    };
    store.close().await;
    done
}

async fn list(store: &Store, json: bool) -> Result<()> {
    let pools = store.pools().list().await?;
    if json {
        let list: Vec<_> = pools.iter().map(to_json).collect();
        say!("{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(());
    }
    if pools.is_empty() {
        say!("no pools: keys use all accounts, or those they are bound to; make one with `tollway pool set NAME`")?;
        return Ok(());
    }
    let accounts = store.accounts().list().await?;
    let rows = pools.iter().map(|pool| {
        [
            pool.name.clone(),
            pool.strategy.as_str().to_owned(),
            joined(&pool.tags),
            names(&pool.members, &accounts),
            pool.id.to_string(),
        ]
    });
    Ok(show::print(&table(["NAME", "STRATEGY", "TAGS", "ACCOUNTS", "ID"], rows))?)
}

fn to_json(pool: &Pool) -> Value {
    serde_json::json!({
        "id": pool.id.to_string(),
        "name": pool.name,
        "strategy": pool.strategy.as_str(),
        "tags": pool.tags,
        "accounts": pool.accounts,
        "members": pool.members,
        "created_at": pool.created_at,
    })
}

fn joined(tags: &Names) -> String {
    if tags.is_empty() { "–".to_owned() } else { tags.iter().cloned().collect::<Vec<_>>().join(", ") }
}

fn names(ids: &[AccountId], accounts: &[Account]) -> String {
    let name = |id: &AccountId| accounts.iter().find(|account| account.id == *id).map(|account| account.name.clone());
    let names: Vec<_> = ids.iter().filter_map(name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Tags as they were given; each is one word.
pub(super) fn tags_of(given: &[String]) -> Result<Names> {
    let tags: Names = given.iter().map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect();
    if let Some(odd) = tags.iter().find(|tag| tag.contains(char::is_whitespace)) {
        bail!("a tag is one word: {odd:?}");
    }
    Ok(tags)
}

async fn set(
    store: &Store,
    name: &str,
    strategy: Option<Strategy>,
    accounts: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    now: UnixMillis,
) -> Result<()> {
    if name.trim().is_empty() {
        bail!("a pool needs a name");
    }
    let known = store.pools().list().await?.into_iter().find(|pool| pool.name == name);
    let accounts = match accounts {
        Some(asked) => {
            let mut ids = BTreeSet::new();
            for asked in asked.iter().map(|asked| asked.trim()).filter(|asked| !asked.is_empty()) {
                ids.insert(store.accounts().find(asked).await?.id);
            }
            ids
        }
        None => known.as_ref().map(|pool| pool.accounts.clone()).unwrap_or_default(),
    };
    let tags = match tags {
        Some(tags) => tags_of(&tags)?,
        None => known.as_ref().map(|pool| pool.tags.clone()).unwrap_or_default(),
    };
    let strategy = strategy.or(known.as_ref().map(|pool| pool.strategy)).unwrap_or_default();
    let draft = PoolDraft { name: name.to_owned(), strategy, tags, accounts };
    let pool = match &known {
        Some(pool) => store.pools().update(pool.id, &draft, Some(pool.version)).await?,
        None => store.pools().create(draft, now).await?,
    };
    let members = names(&pool.members, &store.accounts().list().await?);
    let verb = if known.is_some() { "changed" } else { "made" };
    say!("pool {name} is {verb}: {}, accounts: {members}", strategy.as_str())?;
    Ok(())
}

async fn remove(store: &Store, asked: &str) -> Result<()> {
    let pool = store.pools().find(asked).await?;
    match store.pools().remove(pool.id).await {
        Err(error @ StoreError::InUse { .. }) => bail!("{error}; revoke it, or bind its successor elsewhere"),
        removed => removed?,
    };
    say!("pool {} is removed", pool.name)?;
    Ok(())
}

/// A request that is not sent.
struct Asked {
    key: String,
    model: Option<String>,
    session: Option<String>,
    offline: bool,
    json: bool,
}

async fn explain(settings: &Settings, store: &Store, asked: &Asked, now: UnixMillis) -> Result<()> {
    let key = store.keys().find(&asked.key).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let books = assemble::books(settings, store)?;
    let holder = assemble::holder(assemble::COMMAND);
    let (_, relay) = assemble::relay(settings, store, books, holder, tasks.clone(), stop.clone()).await?;
    if !asked.offline && asked.model.is_some() {
        let survey = relay.survey_models(std::time::Instant::now());
        // What is not known by then counts as offered, as in a server that has just started.
        let _ = tokio::time::timeout(Duration::from_secs(5), survey).await;
    }
    let explanation = relay.explain(&key, asked.model.as_deref(), asked.session.as_deref());
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let content = serde_json::to_value(&explanation)?;
    if asked.json {
        say!("{}", serde_json::to_string_pretty(&content)?)?;
        return Ok(());
    }
    show::print(&in_words(&content, &by_id(store).await?, now))?;
    say!("Requests under way are known to the running server alone; here they count as none.")?;
    Ok(())
}

async fn by_id(store: &Store) -> Result<BTreeMap<String, String>> {
    let accounts = store.accounts().list().await?;
    Ok(accounts.into_iter().map(|account| (account.id.to_string(), account.name)).collect())
}

/// A decision for people.
fn in_words(decision: &Value, names: &BTreeMap<String, String>, now: UnixMillis) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let name = |value: &Value| {
        let id = value.as_str().unwrap_or_default();
        names.get(id).cloned().unwrap_or_else(|| id.to_owned())
    };
    let chosen = if decision["chosen"].is_string() { name(&decision["chosen"]) } else { "none".to_owned() };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "account: {chosen}   model: {}   strategy: {}   pool: {}   conversation's home: {}{}\n",
        text(&decision["model"]),
        text(&decision["strategy"]),
        text(&decision["pool"]),
        text(&decision["affinity"]),
        decision["affinity_reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default(),
    );
    let list = |field: &str| decision[field].as_array().cloned().unwrap_or_default();
    let windows = |candidate: &Value| {
        let told = candidate["windows"].as_array().cloned().unwrap_or_default().into_iter().map(|window| {
            let used = window[0].as_f64().unwrap_or_default() * 100.0;
            window[1].as_i64().map_or_else(String::new, |at| format!("{used:.0} % used, resets {}", distance(at, now)))
        });
        told.collect::<Vec<_>>().join("; ")
    };
    let served = list("candidates").into_iter().map(|candidate| {
        [
            name(&candidate["account"]),
            format!("{:.3}", candidate["score"].as_f64().unwrap_or_default()),
            candidate["in_flight"].to_string(),
            candidate["sessions"].to_string(),
            windows(&candidate),
        ]
    });
    let unnamed = decision["counts"][0].as_u64().unwrap_or_default().saturating_sub(served.len() as u64);
    out.push_str(&table(["COULD SERVE", "SCORE", "IN FLIGHT", "CONVERSATIONS", "WINDOWS"], served));
    if unnamed > 0 {
        let _ = writeln!(out, "and {unnamed} more");
    }
    let excluded = list("excluded").into_iter().map(|one| {
        let until = one["until"].as_i64().map_or_else(|| "–".to_owned(), |at| distance(at, now));
        [name(&one["account"]), text(&one["reason"]), until]
    });
    let excluded: Vec<_> = excluded.collect();
    if !excluded.is_empty() {
        out.push('\n');
        out.push_str(&table(["COULD NOT", "BECAUSE", "UNTIL"], excluded));
    }
    out
}

async fn decisions(
    store: &Store,
    request_id: Option<String>,
    key: Option<&str>,
    last: u32,
    json: bool,
    now: UnixMillis,
) -> Result<()> {
    let key = match key {
        Some(asked) => Some(store.keys().find(asked).await?.id),
        None => None,
    };
    let found = store.decisions().list(&DecisionFilter { request_id, key }, last).await?;
    let mut shown = Vec::with_capacity(found.len());
    for decision in &found {
        let mut content: Value = serde_json::from_str(&decision.content).unwrap_or_default();
        content["request_id"] = Value::from(decision.request_id.clone());
        content["key_id"] = Value::from(decision.key.to_string());
        content["at"] = Value::from(decision.at);
        shown.push(content);
    }
    if json {
        say!("{}", serde_json::to_string_pretty(&shown)?)?;
        return Ok(());
    }
    let names = by_id(store).await?;
    for content in &shown {
        let at = content["at"].as_i64().unwrap_or_default();
        say!("request {}, {}", content["request_id"].as_str().unwrap_or_default(), distance(at, now))?;
        say!("{}", in_words(content, &names, now))?;
    }
    if shown.is_empty() {
        say!("no such decision is kept; `pool.decisions` says for how long they are")?;
    }
    Ok(())
}
