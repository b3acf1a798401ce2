//! The books: one row a request, one a call of the backend, and sums by the hour and by the day that
//! are written in the same transaction, so that rows and sums always say the same.

mod postgres;
mod reading;
mod sqlite;

use super::{
    Store, UnixMillis,
    backend::{Backend, execute, fetch_one},
    error::Result,
};

/// Milliseconds.
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// Tokens and notional money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Of these, read from the prompt cache.
    pub cached: u64,
    /// Of these, written to it.
    pub cache_write: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Of these, reasoning.
    pub reasoning: u64,
}

/// A request that is over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageRow {
    /// What client and operator call the request by.
    pub id: String,
    /// When it arrived.
    pub at: UnixMillis,
    /// Whose key it was; empty where there is none.
    pub team_id: String,
    /// Whose key it was; empty where there is none.
    pub user_id: String,
    /// The key.
    pub key_id: String,
    /// The account that served, or was asked last; empty where none was.
    pub account_id: String,
    /// The API that was spoken.
    pub dialect: String,
    /// The route's template.
    pub endpoint: String,
    /// The model as the client named it.
    pub model_asked: String,
    /// The model that went upstream.
    pub model: String,
    /// The reasoning effort that was asked for.
    pub effort: Option<String>,
    /// The service tier that was asked for.
    pub tier: Option<String>,
    /// The HTTP status that the client got.
    pub status: u16,
    /// How it ended.
    pub outcome: String,
    /// Why, if it did not end well: a kind of failure.
    pub cause: Option<String>,
    /// What it used, over all attempts.
    pub used: Used,
    /// Whether the backend did not count it, or not all of it.
    pub estimated: bool,
    /// Notional money, millionths; `None` for a model without a price.
    pub cost: Option<u64>,
    /// To the first byte.
    pub first_byte_ms: Option<u64>,
    /// To the last.
    pub duration_ms: u64,
    /// The calls of the backend, in their order.
    pub attempts: Vec<AttemptRow>,
}

/// One call of the backend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttemptRow {
    /// The account it was made as.
    pub account_id: String,
    /// When it began.
    pub at: UnixMillis,
    /// How long it took: up to the first output where it was streamed.
    pub duration_ms: u64,
    /// `ok`, or a kind of failure.
    pub outcome: String,
    /// The backend's status, where it refused.
    pub status: Option<u16>,
    /// What the backend calls it, where it said so.
    pub upstream_id: Option<String>,
    /// What it used.
    pub used: Used,
}

/// What reports are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Teams.
    Team,
    /// Users.
    User,
    /// Keys.
    Key,
    /// Accounts.
    Account,
    /// Models, as they go upstream.
    Model,
    /// Dialects.
    Dialect,
    /// Days, in UTC.
    Day,
    /// Hours.
    Hour,
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 8] =
        [Self::Team, Self::User, Self::Key, Self::Account, Self::Model, Self::Dialect, Self::Day, Self::Hour];

    /// The name in JSON, in queries and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::User => "user",
            Self::Key => "key",
            Self::Account => "account",
            Self::Model => "model",
            Self::Dialect => "dialect",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Team => "team_id",
            Self::User => "user_id",
            Self::Key => "key_id",
            Self::Account => "account_id",
            Self::Model => "model",
            Self::Dialect => "dialect",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }
}

/// The text is no dimension.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected team, user, key, account, model, dialect, day or hour")]
pub struct UnknownDimension;

impl std::str::FromStr for Dimension {
    type Err = UnknownDimension;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == text).ok_or(UnknownDimension)
    }
}

/// Which use a report is about. Times are rounded outwards to full hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// From then on.
    pub from: UnixMillis,
    /// Until then.
    pub until: UnixMillis,
    /// Of this team.
    pub team_id: Option<String>,
    /// Of this user.
    pub user_id: Option<String>,
    /// Of this key.
    pub key_id: Option<String>,
    /// On this account.
    pub account_id: Option<String>,
    /// Of this model.
    pub model: Option<String>,
}

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageSum {
    /// What it is about: an id, a name, or the Unix hour or day, by the dimension; empty for nobody.
    pub group: String,
    /// How many requests.
    pub requests: u64,
    /// Of these, that did not end well.
    pub failed: u64,
    /// What they used.
    pub used: Used,
    /// How many of them were estimated.
    pub estimated: u64,
    /// Notional money, millionths; models without a price cost nothing here.
    pub cost: u64,
}

/// Of whom sums are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A team.
    Team,
    /// A user.
    User,
    /// A key.
    Key,
}

/// How many hours are forgotten at a time.
const HOURS_AT_A_TIME: i64 = 4;

/// What was forgotten in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Requests.
    pub requests: u64,
    /// Sums of an hour.
    pub sums: u64,
}

/// What was used in an hour: the Unix hour, tokens, and notional money in millionths.
pub type HourlySum = (i64, u64, u64);

/// The books in the store; made by `Store::ledger`.
#[derive(Debug, Clone, Copy)]
pub struct LedgerStore<'a> {
    store: &'a Store,
}

impl<'a> LedgerStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Writes requests and their sums. What was written before is not written, nor counted, again, so
    /// a batch whose commit is in doubt may be repeated.
    pub async fn append(&self, rows: &[UsageRow]) -> Result<()> {
        self.append_as(None, rows).await
    }

    /// The same by one of several servers, which had said of `replica`'s slices what these rows used.
    pub async fn append_as(&self, replica: Option<&str>, rows: &[UsageRow]) -> Result<()> {
        if let Backend::Postgres(server) = &self.store.backend {
            return postgres::all(&server.pool, replica, rows).await;
        }
        sqlite::all(self.store, rows).await
    }

    /// Forgets requests, and hours, from before; days are kept. At most `most` requests and the sums of
    /// `HOURS_AT_A_TIME` at a time, the oldest first, so that nobody waits long for the database.
    pub async fn forget(&self, requests: UnixMillis, hours: UnixMillis, most: u32) -> Result<Forgotten> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(
            &mut write,
            "DELETE FROM usage_requests WHERE id IN (SELECT id FROM usage_requests WHERE at < $1 ORDER BY at LIMIT $2)",
            requests,
            i64::from(most),
        )?;
        let (oldest,) = fetch_one!(&mut write, (Option<i64>,), "SELECT MIN(hour) FROM usage_hourly")?;
        let before = hours.div_euclid(HOUR).min(oldest.unwrap_or(i64::MIN).saturating_add(HOURS_AT_A_TIME));
        let sums = execute!(&mut write, "DELETE FROM usage_hourly WHERE hour < $1", before)?;
        write.commit().await?;
        Ok(Forgotten { requests: gone, sums })
    }
}

fn merge(sum: &mut UsageSum, more: &UsageSum) {
    sum.requests += more.requests;
    sum.failed += more.failed;
    sum.used.input += more.used.input;
    sum.used.cached += more.used.cached;
    sum.used.cache_write += more.used.cache_write;
    sum.used.output += more.used.output;
    sum.used.reasoning += more.used.reasoning;
    sum.estimated += more.estimated;
    sum.cost += more.cost;
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
