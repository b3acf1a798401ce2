//! `tollway account`.

use super::show::{self, distance, moment, say, table};
use super::{login, open, pool::tags_of};
use crate::account::keeper;
use crate::codex::limits::Window;
use crate::config::Settings;
use crate::oauth::{Enrolment, auth_json};
use crate::server::assemble::{self, unix_millis};
use crate::store::{
    Account, AccountChange, AccountShare, AccountState, NewAccount, NewCredentials, Store, UnixMillis, Upserted,
};
use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Log in with a browser, or with a code on another device
    Login(login::Options),
    /// Take over credentials from an auth.json of the Codex CLI or of codexia
    Import {
        /// The file, or - for standard input
        path: PathBuf,
        /// What to call the account here
        #[arg(long)]
        name: Option<String>,
    },
    /// List the accounts
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one account
    Show {
        /// Name, email, id or the start of an id
        account: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Leave an account out of service until it is resumed
    Pause {
        /// Name, email, id or the start of an id
        account: String,
    },
    /// Take a paused account into service again
    Resume {
        /// Name, email, id or the start of an id
        account: String,
    },
    /// Change an account's part in its pools; what is not named stays
    Set {
        /// Name, email, id or the start of an id
        account: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        /// Its share of new work among its like, 1 as a rule
        #[arg(long)]
        weight: Option<f64>,
        /// Accounts of a higher priority are used first; 0 as a rule
        #[arg(long, allow_negative_numbers = true)]
        priority: Option<i32>,
        /// Words by which pools choose it
        #[arg(long, value_delimiter = ',', value_name = "TAG,…")]
        tags: Option<Vec<String>>,
    },
    /// Ask the backend now how much of an account is used
    Probe {
        /// Name, email, id or the start of an id
        account: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how an account's state has changed
    History {
        /// Name, email, id or the start of an id
        account: String,
        /// How many changes, the newest first
        #[arg(long, default_value_t = 20)]
        last: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Refresh an account's token now
    Refresh {
        /// Name, email, id or the start of an id
        account: String,
        /// Send the refresh token even if a refresh of it was cut off before: if it has reached the issuer
        /// then, this may end the login
        #[arg(long)]
        resend: bool,
    },
    /// Forget an account and its credentials
    Remove {
        /// Name, email, id or the start of an id
        account: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(settings: &Settings, command: Command) -> Result<()> {
    let store = open::store_as_operator(settings).await?;
    let now = unix_millis();
    let done = match command {
        Command::Login(options) => login::run(settings, &store, &options).await,
        Command::Import { path, name } => import(&store, &path, name).await,
        Command::List { json } => list(&store, json, now).await,
        Command::Show { account, json } => show(&store, &account, json, now).await,
        Command::Pause { account } => pause(&store, &account, true, now).await,
        Command::Resume { account } => pause(&store, &account, false, now).await,
        Command::Set { account, name, weight, priority, tags } => {
            set(&store, &account, name, (weight, priority, tags.as_deref()), now).await
        }
        Command::Probe { account, json } => probe(settings, &store, &account, json).await,
        Command::History { account, last, json } => history(&store, &account, last, json, now).await,
        Command::Refresh { account, resend } => {
            let mut settings = settings.clone();
            settings.accounts.resend_after_crash |= resend;
            refresh(&settings, &store, &account).await
        }
        Command::Remove { account, yes } => remove(&store, &account, yes).await,
    };
    store.close().await;
    done
}

async fn import(store: &Store, path: &PathBuf, name: Option<String>) -> Result<()> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut bytes).context("standard input cannot be read")?;
    } else {
        bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    }
    let found = auth_json::parse(&bytes)?;
    if name.is_some() && found.len() > 1 {
        bail!("the file holds {} accounts; leave out --name", found.len());
    }
    for enrolment in found {
        enrol(store, enrolment, name.clone()).await?;
    }
    say!(
        "If another program goes on using that login, one of the two will lose it at the next refresh: log out there, or log in here on its own with `tollway account login`."
    )?;
    Ok(())
}

/// Stores what a login or a file brought, and says what became of it.
pub(super) async fn enrol(store: &Store, enrolment: Enrolment, name: Option<String>) -> Result<()> {
    let new = NewAccount {
        name,
        email: enrolment.email,
        chatgpt_user_id: enrolment.chatgpt_user_id,
        chatgpt_account_id: enrolment.chatgpt_account_id,
        plan: enrolment.plan,
        fedramp: enrolment.fedramp,
        credentials: NewCredentials {
            access_token: enrolment.access_token,
            refresh_token: enrolment.refresh_token,
            id_token: enrolment.id_token,
            access_expires_at: enrolment.access_expires_at,
        },
    };
    let (verb, account) = match store.accounts().upsert(new, unix_millis()).await? {
        Upserted::Created(account) => ("added", account),
        Upserted::Replaced(account) => ("was here already: its credentials were replaced", account),
    };
    let plan = account.plan.as_deref().unwrap_or("unknown");
    say!("account {} {verb} (id {}, plan {plan})", account.name, account.id)?;
    Ok(())
}

async fn list(store: &Store, json: bool, now: UnixMillis) -> Result<()> {
    let accounts = store.accounts().list().await?;
    if json {
        let list: Vec<_> = accounts.iter().map(to_json).collect();
        say!("{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(());
    }
    if accounts.is_empty() {
        say!("no accounts yet: add one with `tollway account login` or `tollway account import`")?;
        return Ok(());
    }
    let rows = accounts.iter().map(|account| {
        [
            account.name.clone(),
            account.id.to_string(),
            account.plan.clone().unwrap_or_else(|| "–".into()),
            standing(account, now),
            account.access_expires_at.map_or_else(|| "–".into(), |at| distance(at, now)),
        ]
    });
    Ok(show::print(&table(["NAME", "ID", "PLAN", "STATE", "TOKEN ENDS"], rows))?)
}

async fn show(store: &Store, asked: &str, json: bool, now: UnixMillis) -> Result<()> {
    let account = store.accounts().find(asked).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&to_json(&account))?)?;
        return Ok(());
    }
    let at = |time: Option<UnixMillis>| time.map_or_else(|| "–".to_owned(), |time| moment(time, now));
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
    let rows = [
        ["name", account.name.as_str()].map(str::to_owned),
        ["id".to_owned(), account.id.to_string()],
        ["email".to_owned(), text(&account.email)],
        ["workspace".to_owned(), account.chatgpt_account_id.clone()],
        ["plan".to_owned(), text(&account.plan)],
        ["state".to_owned(), standing(&account, now)],
        ["since".to_owned(), moment(account.state_since, now)],
        ["what to do".to_owned(), text(&account.state_detail)],
        ["token ends".to_owned(), at(account.access_expires_at)],
        ["last refresh".to_owned(), moment(account.last_refresh_at, now)],
        ["generation".to_owned(), account.generation.to_string()],
        ["weight".to_owned(), account.share.weight.to_string()],
        ["priority".to_owned(), account.share.priority.to_string()],
        ["tags".to_owned(), account.share.tags.iter().cloned().collect::<Vec<_>>().join(", ")],
        ["added".to_owned(), moment(account.created_at, now)],
    ];
    Ok(show::print(&table(["ACCOUNT", ""], rows))?)
}

/// What keeps an account from serving, the gravest first.
fn standing(account: &Account, now: UnixMillis) -> String {
    let reason = account.state_reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
    match account.state {
        AccountState::NeedsLogin => format!("needs login{reason}"),
        AccountState::Quarantined => format!("quarantined{reason}"),
        AccountState::Active if account.paused => "paused".to_owned(),
        AccountState::Active => match account.limited_until.filter(|until| *until > now) {
            Some(until) => format!("limited, back {}", distance(until, now)),
            None => "active".to_owned(),
        },
    }
}

fn to_json(account: &Account) -> serde_json::Value {
    serde_json::json!({
        "id": account.id,
        "name": account.name,
        "email": account.email,
        "chatgpt_account_id": account.chatgpt_account_id,
        "plan": account.plan,
        "state": account.state.as_str(),
        "state_reason": account.state_reason,
        "state_detail": account.state_detail,
        "state_since": account.state_since,
        "paused": account.paused,
        "limited_until": account.limited_until,
        "limit_reason": account.limit_reason,
        "weight": account.share.weight,
        "priority": account.share.priority,
        "tags": account.share.tags,
        "access_expires_at": account.access_expires_at,
        "last_refresh_at": account.last_refresh_at,
        "generation": account.generation,
        "created_at": account.created_at,
    })
}

async fn pause(store: &Store, asked: &str, paused: bool, now: UnixMillis) -> Result<()> {
    let account = store.accounts().find(asked).await?;
    let change = AccountChange { paused: Some(paused), ..AccountChange::default() };
    store.accounts().change(account.id, &change, None, now).await?;
    say!("account {} {}", account.name, if paused { "is paused" } else { "is in service again" })?;
    Ok(())
}

async fn set(
    store: &Store,
    asked: &str,
    name: Option<String>,
    (weight, priority, tags): (Option<f64>, Option<i32>, Option<&[String]>),
    now: UnixMillis,
) -> Result<()> {
    let account = store.accounts().find(asked).await?;
    if let Some(odd) = weight.filter(|weight| !weight.is_finite() || *weight < 0.0) {
        bail!("a weight is a number from 0 on, not {odd}");
    }
    let share = AccountShare {
        weight: weight.unwrap_or(account.share.weight),
        priority: priority.unwrap_or(account.share.priority),
        tags: tags.map_or(Ok(account.share.tags), tags_of)?,
    };
    let change = AccountChange { name, share: Some(share.clone()), ..AccountChange::default() };
    let account = store.accounts().change(account.id, &change, None, now).await?;
    let tags = share.tags.iter().cloned().collect::<Vec<_>>().join(", ");
    let tags = if tags.is_empty() { "none".to_owned() } else { tags };
    say!("account {}: weight {}, priority {}, tags: {tags}", account.name, share.weight, share.priority)?;
    Ok(())
}

/// Asks as the server does, and keeps what was learnt for it; a running server asks by itself.
async fn probe(settings: &Settings, store: &Store, asked: &str, json: bool) -> Result<()> {
    let account = store.accounts().find(asked).await?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let books = assemble::books(settings, store)?;
    let holder = assemble::holder(assemble::COMMAND);
    let (accounts, relay) = assemble::relay(settings, store, books, holder, tasks.clone(), stop.clone()).await?;
    let member = accounts.get(account.id).context("the account was removed meanwhile")?;
    let was_limited = member.condition().limited_until(unix_millis());
    let asked = relay.ask_usage(&member).await;
    stop.cancel();
    // The last write of what was learnt, and of a limit that is over.
    keeper::write(&accounts, store).await;
    tasks.close();
    tasks.wait().await;
    asked.map_err(|failure| anyhow::anyhow!("{}", failure.message)).context("the backend was asked in vain")?;
    let now = unix_millis();
    let (limits, _) = member.limits(now).context("the backend told of no window")?;
    let windows: Vec<_> = [limits.primary, limits.secondary].into_iter().flatten().collect();
    if json {
        let told = |window: &Window| {
            serde_json::json!({"used_percent": window.used_percent, "window_minutes": window.window_minutes,
                "resets_at": window.resets_at})
        };
        let credits = limits.credits.as_ref().map(|credits| serde_json::json!(credits));
        say!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({
                "account": account.name, "plan": limits.plan, "windows": windows.iter().map(told).collect::<Vec<_>>(),
                "credits": credits, "limited_until": member.condition().limited_until(now),
            }))?
        )?;
        return Ok(());
    }
    let rows = windows.iter().map(|window| {
        let minutes = window.window_minutes.unwrap_or_default();
        let length = humantime::format_duration(Duration::from_secs(minutes * 60)).to_string();
        let resets = window.resets_at.map_or_else(|| "–".to_owned(), |at| distance(at * 1000, now));
        [length, format!("{:.1} %", window.used_percent), resets]
    });
    show::print(&table(["WINDOW", "USED", "RESETS"], rows))?;
    match (was_limited, member.condition().limited_until(now)) {
        (Some(_), None) => say!("account {} has quota again and is back", account.name)?,
        (_, Some(until)) => say!("account {} is used up, back {}", account.name, distance(until, now))?,
        (None, None) => {
            let plan = limits.plan.as_deref().unwrap_or("unknown");
            say!("account {} has quota (plan {plan})", account.name)?;
        }
    }
    Ok(())
}

async fn history(store: &Store, asked: &str, last: u32, json: bool, now: UnixMillis) -> Result<()> {
    let account = store.accounts().find(asked).await?;
    let events = store.conditions().history(account.id, last).await?;
    if json {
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                serde_json::json!({"at": event.at, "was": event.was, "became": event.became,
                    "reason": event.reason, "until": event.until})
            })
            .collect();
        say!("{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(());
    }
    if events.is_empty() {
        say!("account {} has had one state since it is here", account.name)?;
        return Ok(());
    }
    let rows = events.iter().map(|event| {
        [
            moment(event.at, now),
            event.was.clone(),
            event.became.clone(),
            event.reason.clone().unwrap_or_else(|| "–".into()),
            event.until.map_or_else(|| "–".into(), |until| distance(until, now)),
        ]
    });
    Ok(show::print(&table(["WHEN", "WAS", "BECAME", "BECAUSE", "UNTIL"], rows))?)
}

/// Through the same token manager as the server, and under the same lease: the two take turns.
async fn refresh(settings: &Settings, store: &Store, asked: &str) -> Result<()> {
    let account = store.accounts().find(asked).await?;
    let issuer = assemble::issuer(settings, &assemble::http_client(settings)?);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let holder = assemble::holder(assemble::COMMAND);
    let accounts = assemble::accounts(settings, store.clone(), issuer, holder, tasks.clone(), stop.clone());
    accounts.reload().await?;
    let member = accounts.get(account.id).context("the account was removed meanwhile")?;
    let refreshed = member.manager.refresh_now().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let credentials = refreshed.with_context(|| format!("account {} was not refreshed", account.name))?;
    let ends = credentials
        .access_expires_at
        .map_or_else(String::new, |at| format!(", the new token ends {}", moment(at, unix_millis())));
    say!("account {} is refreshed{ends}", account.name)?;
    Ok(())
}

async fn remove(store: &Store, asked: &str, yes: bool) -> Result<()> {
    let account = store.accounts().find(asked).await?;
    if !yes && !confirmed(&format!("Remove account {} ({}) and its credentials?", account.name, account.id))? {
        bail!("nothing was removed");
    }
    store.accounts().remove(account.id).await?;
    say!("account {} is removed; its login still stands at the issuer until it ends", account.name)?;
    Ok(())
}

/// Asks at a terminal; elsewhere the answer is no.
pub(super) fn confirmed(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} Say --yes: there is no terminal to ask at");
    }
    show::print(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
