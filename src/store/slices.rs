//! What each of several servers on one Postgres may give away of a team's, a user's or a key's limits
//! by itself: its slice. Who gets how much is the caller's to say; here it is read, decided and
//! written in one transaction, under a lock of whom it is about.
//!
//! A server's slices count for as long as it shows itself. One that has been silent for longer than
//! its lease is dead if the session lock of its connection is gone, and may be merely paused if the
//! lock is there: then its slices count for [`DOUBT`] longer. All times are the database's.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgPool};
use tokio::sync::Mutex;

use super::{
    Holder, HourlySum, Store, UnixMillis,
    backend::Backend,
    error::{Result, StoreError},
};

/// How long the slices of a silent server count whose connection is still open.
const DOUBT: Duration = Duration::from_mins(5);
/// How long its requests of the last minute count, whatever became of it.
const MINUTE: i64 = 62_000;
/// Sums of hours before these are in no budget's period.
const REACH: i64 = 93 * 24;
/// How often dead servers and old sums are forgotten.
const TIDY: i64 = 60_000;
/// The class of the session locks by which servers show that their connection is open.
const LOCKS: i32 = 0x746f_6c6c;
/// The clock of the database.
const NOW: &str = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";

/// Amounts of each thing that is limited: tokens and money of budgets, requests under way, requests
/// in the minute, tokens in the minute.
pub type Parts = [u64; 5];

/// What a server has of somebody's limits, and would have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Its slice: it lets requests in up to this.
    pub has: Parts,
    /// How much of it is taken.
    pub holds: Parts,
    /// How much it would have.
    pub wants: Parts,
    /// With how much a request gets in that waits there because there was not enough.
    pub needs: Parts,
    /// Since when one has waited; `None` when all got in.
    pub waits_since: Option<UnixMillis>,
    /// Whether it has all that there is, and a request that is larger may have it.
    pub sole: bool,
    /// Requests under way.
    pub in_flight: u64,
    /// When the first requests, and the first tokens, of its minute end to count.
    pub minute_falls_at: [UnixMillis; 2],
    /// When the last of them do.
    pub minute_ends_at: [UnixMillis; 2],
}

/// About whom a server asks, and what it says of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// A team, a user or a key.
    pub holder: Holder,
    /// Its id.
    pub id: String,
    /// The Unix hour from which on the ledger's sums are wanted.
    pub since: i64,
    /// Tokens and money (millionths) that were used here and are not in the ledger.
    pub used: (u64, u64),
}

/// What the database knows of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// What the ledger says, by the hour.
    pub hours: Vec<HourlySum>,
    /// The other servers that count.
    pub others: Vec<Other>,
}

/// Another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// What it has.
    pub share: Share,
    /// Tokens and money that it has used and that are not in the ledger.
    pub used: (u64, u64),
    /// How long nothing was heard of it, milliseconds.
    pub silent: i64,
    /// Whether it is gone: only its last minute counts.
    pub is_dead: bool,
}

/// A server's slices; one for the process. It has a connection of its own.
pub struct Slices {
    pool: PgPool,
    replica: String,
    lease: Duration,
    link: Mutex<Link>,
}

/// What must not be used by two at once.
#[derive(Default)]
struct Link {
    /// Open as long as the process lives.
    connection: Option<PgConnection>,
    /// Whether an exchange on it has failed, or was given up: nobody knows what state it is in. It is
    /// not used any more, but it still shows that this server lives until another does.
    is_doubtful: bool,
    /// Whose rows for locking are there.
    known: Known,
    /// When dead servers were last looked for, by the database's clock.
    tidied_at: UnixMillis,
}

/// Holders, and their ids.
type Known = HashSet<(&'static str, String)>;

/// Sums and other servers, as JSON.
type SightRow = (Option<String>, Option<String>);

/// Of another server: `[used_tokens, used_cost, silent, is_dead, share]`.
type OtherRow = (i64, i64, i64, bool, Share);

impl Holder {
    /// The name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::User => "user",
            Self::Key => "key",
        }
    }
}

impl Slices {
    /// For a server that calls itself `replica`; its slices are void when it has not been heard of for
    /// `lease`. `None` where there can be no other server.
    pub fn new(store: &Store, replica: String, lease: Duration) -> Option<Self> {
        let Backend::Postgres(server) = &store.backend else { return None };
        Some(Self { pool: server.pool.clone(), replica, lease, link: Mutex::default() })
    }

    /// What the server calls itself.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// How long slices hold, from the begin of the exchange in which they were given.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Shows `decide` what the database knows of each of `asked`, in their order, with the database's
    /// time, and writes what it decides: the server's share, or that it has none. The server's lease
    /// begins anew. All of it happens, or nothing, or nobody knows: then an error comes back, and
    /// [`Slices::renew`] is to be called; so it is when the future is dropped.
    ///
    /// Nothing of this server's may be written to the ledger meanwhile.
    pub async fn exchange<F>(&self, asked: &[Asked], decide: F) -> Result<()>
    where
        F: FnOnce(UnixMillis, Vec<Sight>) -> Vec<Option<Share>> + Send,
    {
        let mut link = self.link.lock().await;
        let Link { connection, is_doubtful, known, tidied_at } = &mut *link;
        let connection = match connection {
            Some(connection) if !*is_doubtful => connection,
            _ => connection.insert(self.connect().await?),
        };
        *is_doubtful = true;
        self.make_known(connection, known, asked).await?;
        let now = self.exchange_on(connection, asked, decide).await?;
        if *tidied_at + TIDY < now {
            self.tidy(connection, now).await?;
            *tidied_at = now;
        }
        *is_doubtful = false;
        Ok(())
    }

    /// Ends what is left of an exchange that has failed or was given up, and what it may hold up of the
    /// others' exchanges, when another connection shows that this server lives: between them it would be
    /// taken for dead, and what it has be given to others while its requests are under way.
    pub async fn renew(&self) -> Result<()> {
        let mut link = self.link.lock().await;
        if link.is_doubtful {
            link.connection = Some(self.connect().await?);
            link.is_doubtful = false;
        }
        Ok(())
    }

    /// Gives all slices back: the server stops.
    pub async fn leave(&self) -> Result<()> {
        let mut link = self.link.lock().await;
        link.connection = None;
        sqlx::query("DELETE FROM replicas WHERE id = $1").bind(&self.replica).execute(&self.pool).await?;
        Ok(())
    }

    /// Whether nobody has told yet that a budget is used up; who is told so must tell. Once until
    /// `until`.
    pub async fn claim_hit(
        &self,
        (holder, id): (Holder, &str),
        budget: &str,
        now: UnixMillis,
        until: UnixMillis,
    ) -> Result<bool> {
        let claimed = sqlx::query(
            "INSERT INTO budget_hits (holder, id, budget, until) VALUES ($1, $2, $3, $4)
             ON CONFLICT (holder, id, budget) DO UPDATE SET until = excluded.until WHERE budget_hits.until <= $5",
        )
        .bind(holder.as_str())
        .bind(id)
        .bind(budget)
        .bind(until)
        .bind(now)
        .execute(&self.pool)
        .await?;
        Ok(claimed.rows_affected() > 0)
    }

    /// Opens the connection, and takes the lock that shows that it is open. It is shared, by what is
    /// left of an older one of this server's.
    async fn connect(&self) -> Result<PgConnection> {
        let mut connection = self.pool.acquire().await?.detach();
        sqlx::query("SELECT pg_try_advisory_lock_shared($1, $2)")
            .bind(LOCKS)
            .bind(self.lock())
            .execute(&mut connection)
            .await?;
        Ok(connection)
    }

    /// The number of its lock. Should two have the same, a dead one of them may seem to be paused.
    fn lock(&self) -> i32 {
        let number = crc32fast::hash(self.replica.as_bytes());
        i32::from_ne_bytes(number.to_ne_bytes())
    }

    /// Makes the rows that are locked, of those who are new.
    async fn make_known(&self, connection: &mut PgConnection, known: &mut Known, asked: &[Asked]) -> Result<()> {
        let is_new = |one: &&Asked| !known.contains(&(one.holder.as_str(), one.id.clone()));
        let new: Vec<(&'static str, String)> =
            asked.iter().filter(is_new).map(|one| (one.holder.as_str(), one.id.clone())).collect();
        if new.is_empty() {
            return Ok(());
        }
        let (holders, ids): (Vec<&str>, Vec<&str>) = new.iter().map(|(holder, id)| (*holder, id.as_str())).unzip();
        sqlx::query(
            "INSERT INTO limit_subjects (holder, id) SELECT * FROM UNNEST($1::TEXT[], $2::TEXT[]) ORDER BY 1, 2
             ON CONFLICT DO NOTHING",
        )
        .bind(holders)
        .bind(ids)
        .execute(connection)
        .await?;
        known.extend(new);
        Ok(())
    }

    async fn exchange_on<F>(&self, connection: &mut PgConnection, asked: &[Asked], decide: F) -> Result<UnixMillis>
    where
        F: FnOnce(UnixMillis, Vec<Sight>) -> Vec<Option<Share>> + Send,
    {
        let mut transaction = connection.begin().await?;
        let (holders, ids): (Vec<&str>, Vec<&str>) =
            asked.iter().map(|one| (one.holder.as_str(), one.id.as_str())).unzip();
        // A statement of its own: the one that reads must begin when the lock is there. In one order,
        // so that two servers never wait for each other.
        let (now,): (UnixMillis,) = sqlx::query_as(AssertSqlSafe(format!(
            "WITH locked AS (
                SELECT 1 FROM limit_subjects JOIN UNNEST($1::TEXT[], $2::TEXT[]) AS asked (holder, id) USING (holder, id)
                ORDER BY holder, id FOR UPDATE OF limit_subjects)
             SELECT {NOW} FROM (SELECT COUNT(*) FROM locked) AS all_of_them"
        )))
        .bind(&holders)
        .bind(&ids)
        .fetch_one(&mut *transaction)
        .await?;
        let sights = self.look(&mut transaction, asked, (&holders, &ids), now).await?;
        let shares = decide(now, sights);
        self.put(&mut transaction, asked, shares, now).await?;
        transaction.commit().await?;
        Ok(now)
    }

    async fn look(
        &self,
        connection: &mut PgConnection,
        asked: &[Asked],
        (holders, ids): (&[&str], &[&str]),
        now: UnixMillis,
    ) -> Result<Vec<Sight>> {
        let since: Vec<i64> = asked.iter().map(|one| one.since).collect();
        let rows: Vec<SightRow> = sqlx::query_as(
            "SELECT
                (SELECT CAST(JSON_AGG(JSON_BUILD_ARRAY(hour, tokens, cost)) AS TEXT) FROM usage_holders AS sums
                 WHERE sums.holder = asked.holder AND sums.id = asked.id AND hour >= asked.since),
                (SELECT CAST(JSON_AGG(JSON_BUILD_ARRAY(used_tokens, used_cost, $4 - seen_at,
                    CASE WHEN expires_at > $4 THEN FALSE
                         WHEN expires_at + $6 <= $4 THEN TRUE
                         ELSE NOT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted
                            AND classid = CAST($7 AS OID) AND objid = CAST(CAST(lock AS BIGINT) & 4294967295 AS OID)
                            AND database = (SELECT oid FROM pg_database WHERE datname = CURRENT_DATABASE()))
                    END, CAST(share AS JSON))) AS TEXT)
                 FROM limit_slices AS slices JOIN replicas ON replicas.id = replica
                 WHERE slices.holder = asked.holder AND slices.id = asked.id AND replica <> $5)
             FROM UNNEST($1::TEXT[], $2::TEXT[], $3::BIGINT[]) WITH ORDINALITY AS asked (holder, id, since, number)
             ORDER BY number",
        )
        .bind(holders)
        .bind(ids)
        .bind(since)
        .bind(now)
        .bind(&self.replica)
        .bind(millis(DOUBT))
        .bind(i64::from(LOCKS))
        .fetch_all(connection)
        .await?;
        let sights = asked.iter().zip(rows);
        sights.map(|(one, (hours, others))| read(&one.id, hours.as_deref(), others.as_deref())).collect()
    }

    async fn put(
        &self,
        connection: &mut PgConnection,
        asked: &[Asked],
        shares: Vec<Option<Share>>,
        now: UnixMillis,
    ) -> Result<()> {
        let (mut holders, mut ids, mut tokens, mut costs, mut texts) = (vec![], vec![], vec![], vec![], vec![]);
        let (mut gone_holders, mut gone_ids) = (vec![], vec![]);
        for (one, share) in asked.iter().zip(shares) {
            let Some(share) = share else {
                gone_holders.push(one.holder.as_str());
                gone_ids.push(one.id.as_str());
                continue;
            };
            holders.push(one.holder.as_str());
            ids.push(one.id.as_str());
            tokens.push(signed(one.used.0));
            costs.push(signed(one.used.1));
            texts.push(serde_json::to_string(&share).unwrap_or_default());
        }
        // A little more than the server itself reckons with: it stops before others go on.
        let lease = self.lease + self.lease / 4 + Duration::from_millis(500);
        sqlx::query(
            "WITH seen AS (
                INSERT INTO replicas (id, lock, seen_at, expires_at) VALUES ($1, $2, $3, $4)
                ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, expires_at = excluded.expires_at),
             gone AS (
                DELETE FROM limit_slices USING UNNEST($5::TEXT[], $6::TEXT[]) AS old (holder, id)
                WHERE limit_slices.holder = old.holder AND limit_slices.id = old.id AND replica = $1)
             INSERT INTO limit_slices (holder, id, replica, used_tokens, used_cost, share)
             SELECT holder, id, $1, tokens, cost, share
             FROM UNNEST($7::TEXT[], $8::TEXT[], $9::BIGINT[], $10::BIGINT[], $11::TEXT[])
                AS new (holder, id, tokens, cost, share)
             ON CONFLICT (holder, id, replica) DO UPDATE SET used_tokens = excluded.used_tokens,
                used_cost = excluded.used_cost, share = excluded.share",
        )
        .bind(&self.replica)
        .bind(self.lock())
        .bind(now)
        .bind(now + millis(lease))
        .bind(gone_holders)
        .bind(gone_ids)
        .bind(holders)
        .bind(ids)
        .bind(tokens)
        .bind(costs)
        .bind(texts)
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Forgets servers that are long dead, and sums that no budget reaches.
    async fn tidy(&self, connection: &mut PgConnection, now: UnixMillis) -> Result<()> {
        sqlx::query("DELETE FROM replicas WHERE id <> $1 AND expires_at < $2")
            .bind(&self.replica)
            .bind(now - millis(DOUBT) - MINUTE)
            .execute(&mut *connection)
            .await?;
        sqlx::query("DELETE FROM usage_holders WHERE hour < $1")
            .bind(now / 3_600_000 - REACH)
            .execute(connection)
            .await?;
        Ok(())
    }
}

fn read(id: &str, hours: Option<&str>, others: Option<&str>) -> Result<Sight> {
    let damaged = |_| StoreError::Damaged { table: "limit_slices", row: id.to_owned(), problem: "is not of its form" };
    let hours: Vec<(i64, i64, i64)> = hours.map_or(Ok(Vec::new()), serde_json::from_str).map_err(damaged)?;
    let others: Vec<OtherRow> = others.map_or(Ok(Vec::new()), serde_json::from_str).map_err(damaged)?;
    let others = others.into_iter().map(|(tokens, cost, silent, is_dead, share)| Other {
        share,
        used: (unsigned(tokens), unsigned(cost)),
        silent,
        is_dead,
    });
    Ok(Sight {
        hours: hours.into_iter().map(|(hour, tokens, cost)| (hour, unsigned(tokens), unsigned(cost))).collect(),
        others: others.filter(|other| !other.is_dead || other.silent < MINUTE).collect(),
    })
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
