//! Limits on the command line: the same flags for keys, users and teams. `none` takes a limit away.

use crate::store::{Budget, Effort, Limits, Store, UnixMillis};
use anyhow::{Context, Result, bail};
use std::str::FromStr;

/// A limit that is set, or taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change<T> {
    To(T),
    None,
}

impl<T: FromStr> FromStr for Change<T>
where
    T::Err: std::fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::To).map_err(|error| format!("{error}")) }
    }
}

fn change<T: FromStr>(text: &str) -> Result<Change<T>, String>
where
    T::Err: std::fmt::Display,
{
    text.parse()
}

/// What the flags say.
#[derive(clap::Args, Debug, Default)]
pub(super) struct Flags {
    /// Requests within any minute, or none
    #[arg(long, value_name = "N", value_parser = change::<u32>)]
    rpm: Option<Change<u32>>,
    /// Tokens within any minute, or none
    #[arg(long, value_name = "N", value_parser = change::<u64>)]
    tpm: Option<Change<u64>>,
    /// Requests at one time, or none
    #[arg(long, value_name = "N", value_parser = change::<u32>)]
    concurrency: Option<Change<u32>>,
    /// A budget: 5M/day (tokens), $20/month, 500k/5h (rolling); several may be given; or none
    #[arg(long = "budget", value_name = "AMOUNT/PERIOD", value_parser = change::<Budget>)]
    budgets: Vec<Change<Budget>>,
    /// The models that may be asked; a name may end in *; or none for all
    #[arg(long, value_delimiter = ',', value_name = "MODEL,…")]
    models: Option<Vec<String>>,
    /// The APIs that may be spoken: responses, chat, messages, images; or none for all
    #[arg(long, value_delimiter = ',', value_name = "API,…")]
    dialects: Option<Vec<String>>,
    /// The highest reasoning effort, or none (which is no limit; `--max-effort=off` allows no reasoning)
    #[arg(long, value_name = "EFFORT")]
    max_effort: Option<String>,
    /// Only accounts of these pools; or none for all
    #[arg(long, value_delimiter = ',', value_name = "POOL,…")]
    only_pools: Option<Vec<String>>,
    /// Only these accounts; or none for all
    #[arg(long, value_delimiter = ',', value_name = "ACCOUNT,…")]
    only_accounts: Option<Vec<String>>,
    /// Only from these networks: 10.0.0.0/8; or none for all
    #[arg(long, value_delimiter = ',', value_name = "CIDR,…")]
    networks: Option<Vec<String>>,
    /// From then on everything is refused, from now: 90d; or none
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

const DIALECTS: [&str; 4] = ["responses", "chat", "messages", "images"];

impl Flags {
    /// The limits with what the flags change.
    pub(super) async fn apply(self, mut limits: Limits, store: &Store, now: UnixMillis) -> Result<Limits> {
        set(&mut limits.requests_per_minute, self.rpm);
        set(&mut limits.tokens_per_minute, self.tpm);
        set(&mut limits.concurrent_requests, self.concurrency);
        if !self.budgets.is_empty() {
            let budget = |change| if let Change::To(budget) = change { Some(budget) } else { None };
            limits.budgets = self.budgets.into_iter().filter_map(budget).collect();
        }
        set_list(&mut limits.models, self.models);
        if let Some(unknown) =
            self.dialects.iter().flatten().find(|one| !DIALECTS.contains(&one.as_str()) && *one != "none")
        {
            bail!("--dialects: {unknown:?} is none of {}", DIALECTS.join(", "));
        }
        set_list(&mut limits.dialects, self.dialects);
        match self.max_effort.as_deref() {
            None => {}
            Some("none") => limits.max_effort = None,
            Some("off") => limits.max_effort = Some(Effort::None),
            Some(effort) => limits.max_effort = Some(effort.parse().context("--max-effort")?),
        }
        if let Some(asked) = self.only_pools {
            limits.pools = None;
            for asked in asked.iter().filter(|asked| *asked != "none") {
                limits.pools.get_or_insert_default().push(store.pools().find(asked).await?.id);
            }
        }
        if let Some(asked) = self.only_accounts {
            limits.accounts = None;
            for asked in asked.iter().filter(|asked| *asked != "none") {
                limits.accounts.get_or_insert_default().push(store.accounts().find(asked).await?.id);
            }
        }
        if let Some(asked) = self.networks {
            limits.networks = None;
            for asked in asked.iter().filter(|asked| *asked != "none") {
                let network =
                    asked.parse().with_context(|| format!("--networks: {asked:?} is no network like 10.0.0.0/8"))?;
                limits.networks.get_or_insert_default().push(network);
            }
        }
        match self.until.as_deref() {
            None => {}
            Some("none") => limits.expires_at = None,
            Some(life) => {
                let life = humantime::parse_duration(life).context("--until")?;
                limits.expires_at = Some(now.saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX)));
            }
        }
        Ok(limits)
    }
}

fn set<T>(limit: &mut Option<T>, change: Option<Change<T>>) {
    match change {
        None => {}
        Some(Change::None) => *limit = None,
        Some(Change::To(value)) => *limit = Some(value),
    }
}

fn set_list(limit: &mut Option<Vec<String>>, given: Option<Vec<String>>) {
    match given {
        None => {}
        Some(names) if names == ["none"] => *limit = None,
        Some(names) => *limit = Some(names),
    }
}

/// Limits in one line.
pub(super) fn line(limits: &Limits) -> String {
    let mut parts = Vec::new();
    parts.extend(limits.requests_per_minute.map(|limit| format!("{limit} requests/min")));
    parts.extend(limits.tokens_per_minute.map(|limit| format!("{limit} tokens/min")));
    parts.extend(limits.concurrent_requests.map(|limit| format!("{limit} at once")));
    parts.extend(limits.budgets.iter().map(ToString::to_string));
    let names =
        |what: &str, names: &Option<Vec<String>>| names.as_ref().map(|names| format!("{what} {}", names.join(" ")));
    parts.extend(names("models", &limits.models));
    parts.extend(names("dialects", &limits.dialects));
    parts.extend(limits.max_effort.map(|effort| format!("effort up to {}", effort.as_str())));
    parts.extend(limits.pools.as_ref().map(|pools| format!("{} pools", pools.len())));
    parts.extend(limits.accounts.as_ref().map(|accounts| format!("{} accounts", accounts.len())));
    let networks = |networks: &Vec<_>| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    parts.extend(limits.networks.as_ref().map(|those: &Vec<ipnet::IpNet>| format!("from {}", networks(those))));
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}
