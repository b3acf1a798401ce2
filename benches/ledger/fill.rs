//! Ninety days of a company's use, made inside the database: 200 keys of 60 users in 12 teams, on 20
//! accounts with 8 models in 3 dialects. A key has two conversations at a time, which stay with their
//! accounts for four hours, and asks two models; people work by day, five days of seven, and services
//! always; one key, user, team, account and model are rare.

use anyhow::Result;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

/// 2026-01-07, a day's first millisecond.
pub(crate) const FIRST: i64 = 20_460 * DAY;
/// The millisecond after the last.
pub(crate) const END: i64 = FIRST + DAYS * DAY;
pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;
const DAYS: i64 = 90;

/// Which of the two SQLs is written; they differ in numbers by base 16 and in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sql {
    Sqlite,
    Postgres,
}

/// What an id is of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Team = 1,
    User = 2,
    Key = 3,
    Account = 4,
}

/// The id of the `number`th team, user, key or account.
pub(crate) fn id(kind: Kind, number: u8) -> String {
    format!("0195a000-0000-7000-8{}00-{number:012x}", kind as u8)
}

pub(crate) fn model(number: u8) -> String {
    format!("gpt-6.{number}-sol")
}

impl Sql {
    fn hex(self, number: &str, width: u8) -> String {
        match self {
            Self::Sqlite => format!("printf('%0{width}x', {number})"),
            Self::Postgres => format!("lpad(to_hex({number}), {width}, '0')"),
        }
    }

    fn id(self, kind: Kind, number: &str) -> String {
        format!("'0195a000-0000-7000-8{}00-' || {}", kind as u8, self.hex(number, 12))
    }

    /// The numbers from 0 on, as `s (n)`.
    fn series(self, rows: i64) -> String {
        match self {
            Self::Sqlite => {
                format!("WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {rows} - 1)")
            }
            Self::Postgres => format!("WITH s AS (SELECT n FROM generate_series(0::bigint, {rows} - 1) AS n)"),
        }
    }

    /// What comes before the rows and after them, so that filling takes minutes.
    pub(crate) fn around(self) -> (&'static str, &'static str) {
        match self {
            Self::Sqlite => (
                "PRAGMA synchronous = OFF; PRAGMA cache_size = -500000; PRAGMA temp_store = MEMORY",
                "PRAGMA wal_checkpoint(TRUNCATE)",
            ),
            // A replica's session trusts its foreign keys.
            Self::Postgres => (
                "SET session_replication_role = replica; SET synchronous_commit = off; SET work_mem = '512MB'",
                "VACUUM ANALYZE",
            ),
        }
    }

    /// The statements that write `rows` requests, their calls of the backend, and their sums.
    pub(crate) fn statements(self, rows: i64) -> [String; 4] {
        [self.requests(rows), attempts(), self.hours(), days()]
    }

    fn requests(self, rows: i64) -> String {
        let a_day = rows / DAYS;
        let (night, working) = (a_day / 10, a_day * 8 / 10);
        let (estimated, counted) = if self == Self::Sqlite { ("1", "0") } else { ("TRUE", "FALSE") };
        let [team, user] = [self.id(Kind::Team, "CASE WHEN u = 59 THEN 11 ELSE u % 11 END"), self.id(Kind::User, "u")];
        let [key, account] = [self.id(Kind::Key, "k"), self.id(Kind::Account, "a")];
        let [at, hash, number] = [self.hex("at", 12), self.hex("h", 8), self.hex("n", 8)];
        let series = self.series(rows);
        format!(
            "INSERT INTO usage_requests (id, at, team_id, user_id, key_id, account_id, dialect, endpoint, model_asked,
                model, effort, tier, status, outcome, cause, input, cached, cache_write, output, reasoning, estimated,
                cost, attempts, first_byte_ms, duration_ms)
             {series},
             hashed AS (SELECT n, n / {a_day} AS day, n % {a_day} AS p, (n * 2654435761) % 4294967296 AS h,
                (n * 40503 + 12345) % 1000003 AS g FROM s),
             timed AS (SELECT n, day, h, g,
                CASE WHEN p < {night} THEN p * 28800000 / {night}
                    WHEN p < {night} + {working} THEN 28800000 + (p - {night}) * 36000000 / {working}
                    ELSE 64800000 + (p - {night} - {working}) * 21600000 / ({night} + 10) END AS ms,
                (h / 7 % 1000) * (h / 7 % 1000) / 5051 AS busy FROM hashed),
             keyed AS (SELECT n, day, h, g, ms, {FIRST} + day * {DAY} + ms AS at,
                CASE WHEN n % 100003 = 7 THEN 199
                    WHEN ms < 28800000 OR ms >= 64800000 OR (day + busy) % 7 < 2 THEN busy % 40
                    ELSE busy END AS k FROM timed),
             drawn AS (SELECT n, h, g, at, k, CASE WHEN k = 199 THEN 59 ELSE k % 59 END AS u,
                CASE WHEN n % 100019 = 9 THEN 19
                    ELSE (k * 7 + g % 2 * 5 + day * 3 + ms / 14400000) % 19 END AS a,
                CASE WHEN n % 100043 = 11 THEN 7 WHEN g % 5 = 0 THEN 6 WHEN (day + k) % 10 = 0 THEN (k + 1) % 6
                    ELSE k % 6 END AS m,
                CASE WHEN (day + k) % 12 = 0 THEN (k + 1) % 3 ELSE k % 3 END AS d FROM keyed)
             SELECT 'req_' || {at} || '7000' || {hash} || {number}, at, {team}, {user}, {key}, {account},
                CASE d WHEN 0 THEN 'responses' WHEN 1 THEN 'chat' ELSE 'messages' END,
                CASE d WHEN 0 THEN '/v1/responses' WHEN 1 THEN '/v1/chat/completions' ELSE '/v1/messages' END,
                'gpt-6.' || m || '-sol', 'gpt-6.' || m || '-sol',
                CASE g % 3 WHEN 0 THEN 'high' WHEN 1 THEN 'medium' END, NULL,
                CASE WHEN g % 50 = 0 THEN 502 ELSE 200 END, CASE WHEN g % 50 = 0 THEN 'failed' ELSE 'ok' END,
                CASE WHEN g % 50 = 0 THEN 'backend_unavailable' END,
                1000 + h % 60000, h % 900, 0, 100 + g % 4000, g % 90,
                CASE WHEN g % 200 = 1 THEN {estimated} ELSE {counted} END, 10 * (1000 + h % 60000),
                CASE WHEN g % 50 = 2 THEN 2 ELSE 1 END, 300 + g % 900, 2000 + g % 60000
             FROM drawn"
        )
    }

    fn hours(self) -> String {
        let estimated = if self == Self::Sqlite { "estimated" } else { "estimated::int" };
        format!(
            "INSERT INTO usage_hourly
             SELECT at / {HOUR}, team_id, user_id, key_id, account_id, model, dialect, COUNT(*),
                SUM(CASE WHEN outcome <> 'ok' THEN 1 ELSE 0 END), SUM(input), SUM(cached), SUM(cache_write),
                SUM(output), SUM(reasoning), SUM({estimated}), SUM(COALESCE(cost, 0))
             FROM usage_requests GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7"
        )
    }
}

fn attempts() -> String {
    "INSERT INTO usage_attempts (request_id, number, account_id, at, duration_ms, outcome, status, upstream_id, input,
        cached, output)
     SELECT id, number, account_id, at + number, duration_ms,
        CASE WHEN number = attempts THEN outcome ELSE 'rate_limited' END,
        CASE WHEN number = attempts THEN NULL ELSE 429 END,
        CASE WHEN number = attempts THEN 'resp_' || substr(id, 5) END, input, cached, output
     FROM usage_requests, (SELECT 1 AS number UNION ALL SELECT 2) AS numbers WHERE number <= attempts"
        .to_owned()
}

fn days() -> String {
    "INSERT INTO usage_daily
     SELECT hour / 24, team_id, user_id, key_id, account_id, model, dialect, SUM(requests), SUM(failed), SUM(input),
        SUM(cached), SUM(cache_write), SUM(output), SUM(reasoning), SUM(estimated), SUM(cost)
     FROM usage_hourly GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7"
        .to_owned()
}

/// Writes `rows` requests into a database that has none.
pub(crate) async fn fill(sql: Sql, url: &str, rows: i64) -> Result<()> {
    let (before, after) = sql.around();
    let statements = sql.statements(rows);
    run_all(sql, url, [before].into_iter().chain(statements.iter().map(String::as_str)).chain([after])).await
}

/// Runs statements one after another, on one connection.
pub(crate) async fn run_all(sql: Sql, url: &str, all: impl Iterator<Item = &str>) -> Result<()> {
    match sql {
        Sql::Sqlite => {
            let mut connection = SqliteConnection::connect(url).await?;
            for statement in all {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
            }
            connection.close().await?;
        }
        Sql::Postgres => {
            let mut connection = PgConnection::connect(url).await?;
            for statement in all {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
            }
            connection.close().await?;
        }
    }
    Ok(())
}
