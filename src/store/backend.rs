//! The two databases behind one face: pools, sessions and transactions, and the macros by which a
//! statement is written once and runs on either. Knows no table but `revisions`.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    Postgres, Sqlite, Transaction,
    pool::{PoolConnection, PoolOptions},
    postgres::{PgConnectOptions, PgPool},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous},
};

use super::{
    error::{Result, StoreError},
    files,
    server::Server,
};

/// How long a statement waits for another process's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection; longer than a writer may wait for the lock.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const SQLITE_READERS: u32 = 4;

/// One of two things, by database.
#[derive(Clone)]
pub(super) enum Dual<S, P> {
    Sqlite(S),
    Postgres(P),
}

/// A connection for reading.
pub(super) type Session = Dual<PoolConnection<Sqlite>, PoolConnection<Postgres>>;
/// A transaction; dropped without `commit`, it is rolled back.
pub(super) type Write = Dual<Transaction<'static, Sqlite>, Transaction<'static, Postgres>>;
/// Where the database is, read from its URL.
pub(super) type Address = Dual<PathBuf, Box<ServerAddress>>;

/// A database server, and how it is used.
#[derive(Clone)]
pub(super) struct ServerAddress {
    pub(super) options: PgConnectOptions,
    server: Server,
}

/// The open pools.
pub(super) type Backend = Dual<SqlitePools, PostgresPool>;

/// The connections to a server.
#[derive(Clone)]
pub(super) struct PostgresPool {
    pub(super) pool: PgPool,
    /// The schema that is asked for; made before the first migration.
    pub(super) schema: Option<String>,
    /// The most connections there may be.
    pub(super) size: u32,
    /// Who is told how long callers wait for a connection.
    waits: Arc<OnceLock<fn(Duration)>>,
}

/// SQLite has one writer at a time anyway; with a pool of one, writers queue here, fairly and
/// without polling, and readers never wait behind them.
#[derive(Clone)]
pub(super) struct SqlitePools {
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
    waits: Arc<OnceLock<fn(Duration)>>,
}

/// Runs `method` of a statement with `$1` placeholders on whichever database `$on` is.
macro_rules! on_either {
    ($on:expr, $query:expr, $method:ident $(, $bind:expr)*) => {
        match $on {
            $crate::store::backend::Dual::Sqlite(connection) => {
                $query$(.bind($bind))*.$method(&mut **connection).await
            }
            $crate::store::backend::Dual::Postgres(connection) => {
                $query$(.bind($bind))*.$method(&mut **connection).await
            }
        }
    };
}

/// Runs a statement and gives the number of rows that it changed.
macro_rules! execute {
    ($on:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        match $on {
            $crate::store::backend::Dual::Sqlite(connection) => sqlx::query($sql)
                $(.bind($bind))*.execute(&mut **connection).await.map(|done| done.rows_affected()),
            $crate::store::backend::Dual::Postgres(connection) => sqlx::query($sql)
                $(.bind($bind))*.execute(&mut **connection).await.map(|done| done.rows_affected()),
        }
    };
}

/// Runs one statement for many rows: `$1` is a JSON array, and between `$before` and `$after` stand its
/// elements, each in a column `value`. A statement for each would be a journey to the database for each.
macro_rules! execute_each {
    ($on:expr, $before:literal, $after:literal, $rows:expr $(, $bind:expr)* $(,)?) => {
        match $on {
            $crate::store::backend::Dual::Sqlite(connection) => sqlx::query(concat!($before, " json_each($1) ", $after))
                .bind($rows)$(.bind($bind))*.execute(&mut **connection).await.map(|done| done.rows_affected()),
            $crate::store::backend::Dual::Postgres(connection) => sqlx::query(
                concat!($before, " json_array_elements(CAST($1 AS JSON)) AS rows (value) ", $after)
            ).bind($rows)$(.bind($bind))*.execute(&mut **connection).await.map(|done| done.rows_affected()),
        }
    };
}

/// Runs a query and gives its first row, if any.
macro_rules! fetch_optional {
    ($on:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::store::backend::on_either!(
            $on, sqlx::query_as::<_, $row>($sql), fetch_optional $(, $bind)*)
    };
}

/// Runs a query and gives its first row; none is an error.
macro_rules! fetch_one {
    ($on:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::store::backend::on_either!(
            $on, sqlx::query_as::<_, $row>($sql), fetch_one $(, $bind)*)
    };
}

/// Runs a query and gives all its rows.
macro_rules! fetch_all {
    ($on:expr, $row:ty, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::store::backend::on_either!(
            $on, sqlx::query_as::<_, $row>($sql), fetch_all $(, $bind)*)
    };
}

/// The same with more values than can be counted here: those of `$more`, bound after the others.
macro_rules! fetch_all_of {
    ($on:expr, $row:ty, $sql:expr, $more:expr $(, $bind:expr)* $(,)?) => {
        match $on {
            $crate::store::backend::Dual::Sqlite(connection) => {
                let query = sqlx::query_as::<_, $row>($sql)$(.bind($bind))*;
                let query = $more.iter().fold(query, |query, value| query.bind(*value));
                query.fetch_all(&mut **connection).await
            }
            $crate::store::backend::Dual::Postgres(connection) => {
                let query = sqlx::query_as::<_, $row>($sql)$(.bind($bind))*;
                let query = $more.iter().fold(query, |query, value| query.bind(*value));
                query.fetch_all(&mut **connection).await
            }
        }
    };
}

/// The same, and gives the rows that the statement returns.
macro_rules! fetch_each {
    ($on:expr, $row:ty, $before:literal, $after:literal, $rows:expr $(, $bind:expr)* $(,)?) => {
        match $on {
            $crate::store::backend::Dual::Sqlite(connection) => {
                sqlx::query_as::<_, $row>(concat!($before, " json_each($1) ", $after))
                    .bind($rows)$(.bind($bind))*.fetch_all(&mut **connection).await
            }
            $crate::store::backend::Dual::Postgres(connection) => sqlx::query_as::<_, $row>(
                concat!($before, " json_array_elements(CAST($1 AS JSON)) AS rows (value) ", $after)
            ).bind($rows)$(.bind($bind))*.fetch_all(&mut **connection).await,
        }
    };
}

pub(super) use {execute, execute_each, fetch_all, fetch_all_of, fetch_each, fetch_one, fetch_optional, on_either};

/// Rows a statement, the largest first that is not too large: few texts, so that each is prepared once.
const ROWS: [usize; 4] = [64, 16, 4, 1];

/// Rows in slices of which there are few lengths, for statements that name each value: SQLite reads those
/// with less work than a list in JSON.
pub(super) fn slices<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = ROWS.into_iter().find(|length| *length <= all.len())?;
        let (some, rest) = all.split_at(length);
        all = rest;
        Some(some)
    })
}

/// What a write changes. Each topic has a revision that goes up with every change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Accounts,
    Keys,
    Models,
    Conditions,
    Homes,
}

impl Topic {
    pub(super) const ALL: [Self; 5] = [Self::Accounts, Self::Keys, Self::Models, Self::Conditions, Self::Homes];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Keys => "keys",
            Self::Models => "models",
            Self::Conditions => "conditions",
            Self::Homes => "homes",
        }
    }
}

impl Address {
    /// Reads `sqlite://PATH` or `postgres://…`; a server is used as `server` says.
    pub(super) fn parse(url: &SecretString, server: &Server) -> Result<Self> {
        let url = url.expose_secret();
        if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
            return sqlite_path(path).map(Self::Sqlite);
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The source is left out on purpose: a parser may quote what it could not read.
            let options = url.parse().map_err(|_: sqlx::Error| StoreError::Url {
                reason: "expected postgres://USER:PASSWORD@HOST:PORT/DATABASE",
            })?;
            let address = ServerAddress { options: server.apply(options), server: server.clone() };
            return Ok(Self::Postgres(Box::new(address)));
        }
        Err(StoreError::Url { reason: "expected sqlite://PATH or postgres://…" })
    }

    /// Opens the pools; makes a SQLite file that is not there.
    pub(super) async fn connect(&self) -> Result<Backend> {
        match self {
            Self::Sqlite(path) => {
                create_database(path)?;
                SqlitePools::open(path).await.map(Backend::Sqlite)
            }
            Self::Postgres(address) => {
                let ServerAddress { options, server } = &**address;
                let pool = PoolOptions::new()
                    .max_connections(server.pool_size)
                    .acquire_timeout(server.acquire_timeout)
                    .connect_with(options.clone())
                    .await;
                let (schema, size) = (server.schema.clone(), server.pool_size);
                pool.map(|pool| Backend::Postgres(PostgresPool { pool, schema, size, waits: Arc::default() }))
            }
        }
        .map_err(StoreError::Open)
    }
}

fn sqlite_path(path: &str) -> Result<PathBuf> {
    let reason = match path {
        "" => "sqlite:// needs a path",
        // Each connection would get a database of its own.
        ":memory:" => "a SQLite database in memory cannot be shared between connections; give a file",
        _ if path.contains('?') => "sqlite:// takes a path and no parameters",
        _ => return Ok(PathBuf::from(path)),
    };
    Err(StoreError::Url { reason })
}

/// The file is made here, not by SQLite, so that it is never readable by others; SQLite gives its
/// -wal and -shm the same mode.
fn create_database(path: &Path) -> Result<()> {
    let failed = |source| StoreError::Create { path: path.to_owned(), source };
    if path.exists() {
        return Ok(());
    }
    if let Some(directory) = files::parent(path) {
        files::create_private_directory(directory).map_err(failed)?;
    }
    match files::create_private_file(path) {
        Ok(_) => files::sync_directory_of(path).map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

impl SqlitePools {
    async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let shared = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
        let writer = shared
            .clone()
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Not NORMAL: in WAL mode that may lose the last commits in a power cut. A refresh token
            // that was answered and then lost is lost for good, because the old one is dead.
            .synchronous(SqliteSynchronous::Full);
        let writer = PoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(writer)
            .await?;
        let readers = PoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(shared.read_only(true))
            .await?;
        Ok(Self { writer, readers, waits: Arc::default() })
    }
}

// A pool's futures are in boxes: each has some 4 KB, and would be a part of every future that may come to
// need the database, which are those of all requests.
impl Backend {
    /// A connection for reading.
    pub(super) async fn read(&self) -> Result<Session> {
        let began = Instant::now();
        let session = match self {
            Self::Sqlite(pools) => Box::pin(pools.readers.acquire()).await.map(Session::Sqlite),
            Self::Postgres(server) => Box::pin(server.pool.acquire()).await.map(Session::Postgres),
        };
        self.waited(began);
        Ok(session?)
    }

    /// Has `tell` told how long each caller waits for a connection, from now on.
    pub(super) fn tell_waits(&self, tell: fn(Duration)) {
        // Whoever came first is told.
        let _ = self.waits().set(tell);
    }

    fn waits(&self) -> &OnceLock<fn(Duration)> {
        match self {
            Self::Sqlite(pools) => &pools.waits,
            Self::Postgres(server) => &server.waits,
        }
    }

    fn waited(&self, since: Instant) {
        if let Some(tell) = self.waits().get() {
            tell(since.elapsed());
        }
    }

    /// How many connections there are, how many of them are idle, and how many there may be.
    pub(super) fn connections(&self) -> (u32, usize, u32) {
        match self {
            Self::Sqlite(pools) => (
                pools.writer.size() + pools.readers.size(),
                pools.writer.num_idle() + pools.readers.num_idle(),
                1 + SQLITE_READERS,
            ),
            Self::Postgres(server) => (server.pool.size(), server.pool.num_idle(), server.size),
        }
    }

    /// Begins a transaction that changes `topics`, and bumps their revisions first.
    ///
    /// First, because the bump is also the lock: on Postgres, as on SQLite, one writer of a topic
    /// runs after the other, what a writer reads stays true until it commits, and revisions become
    /// visible in the order of their numbers. Topics must be given in the order of their
    /// declaration, so that two writers never wait for each other.
    pub(super) async fn write(&self, topics: &[Topic]) -> Result<Write> {
        let began = Instant::now();
        let write = match self {
            // Immediate: a transaction that reads first and then wants to write would otherwise be
            // refused at once when another process has written in between.
            Self::Sqlite(pools) => Box::pin(pools.writer.begin_with("BEGIN IMMEDIATE")).await.map(Write::Sqlite),
            Self::Postgres(server) => Box::pin(server.pool.begin()).await.map(Write::Postgres),
        };
        self.waited(began);
        let mut write = write?;
        for topic in topics {
            execute!(&mut write, "UPDATE revisions SET revision = revision + 1 WHERE topic = $1", topic.as_str(),)?;
        }
        Ok(write)
    }

    /// A connection for one statement that changes no topic: it is a transaction of its own, without the
    /// two journeys that a begin and a commit take.
    pub(super) async fn write_once(&self) -> Result<Session> {
        let began = Instant::now();
        let session = match self {
            Self::Sqlite(pools) => Box::pin(pools.writer.acquire()).await.map(Session::Sqlite),
            Self::Postgres(server) => Box::pin(server.pool.acquire()).await.map(Session::Postgres),
        };
        self.waited(began);
        Ok(session?)
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pools) => {
                // The writer last: the last connection to close folds the log into the file, and a
                // read-only one cannot.
                pools.readers.close().await;
                pools.writer.close().await;
            }
            Self::Postgres(server) => server.pool.close().await,
        }
    }
}

impl Write {
    /// Makes the changes durable and visible.
    pub(super) async fn commit(self) -> Result<()> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await?,
            Self::Postgres(transaction) => transaction.commit().await?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_commit_is_on_the_disk_and_not_only_in_the_log_of_the_system() {
        let directory = tempfile::tempdir().unwrap();
        let pools = SqlitePools::open(&{
            let path = directory.path().join("tollway.db");
            create_database(&path).unwrap();
            path
        })
        .await
        .unwrap();
        let pragma = async |sql: &'static str| {
            let row: (i64,) = sqlx::query_as(sql).fetch_one(&pools.writer).await.unwrap();
            row.0
        };
        let full = 2;
        assert_eq!(pragma("PRAGMA synchronous").await, full);
        assert_eq!(pragma("PRAGMA foreign_keys").await, 1);
        assert_eq!(pragma("PRAGMA busy_timeout").await, 5000);
    }

    #[tokio::test]
    async fn a_connection_does_not_lose_its_pages_to_the_others() {
        let pool = PoolOptions::<sqlx::Sqlite>::new().connect("sqlite::memory:").await.unwrap();
        let options: Vec<(String,)> = sqlx::query_as("PRAGMA compile_options").fetch_all(&pool).await.unwrap();
        assert!(options.len() > 10, "{options:?}");
        // Left out by `.cargo/config.toml`, which says why.
        assert!(!options.contains(&("ENABLE_MEMORY_MANAGEMENT".to_owned(),)));
    }
}
