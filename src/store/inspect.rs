//! A look at a database before it is opened: which keys its secrets were sealed under. Reads only,
//! so that a start with the wrong key leaves no trace.

use std::{collections::BTreeSet, path::Path};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::{
    backend::{Address, Dual, fetch_all, fetch_one},
    error::{Result, StoreError},
};

/// An envelope is `tw1.<16 hex digits>.…`, so its key id starts at the fifth character. What does
/// not look like one is left to whoever opens it, and can name the row.
const KEY_IDS: &str = "WITH sealed (envelope) AS (
        SELECT access_token FROM credentials
        UNION ALL SELECT refresh_token FROM credentials
        UNION ALL SELECT id_token FROM credentials
        UNION ALL SELECT value FROM secrets
    )
    SELECT DISTINCT substr(envelope, 5, 16) FROM sealed WHERE envelope LIKE 'tw1.________________.%'";

const SQLITE_HAS_TABLES: &str =
    "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name IN ('credentials', 'secrets')";

const POSTGRES_HAS_TABLES: &str = "SELECT COUNT(to_regclass('credentials')) + COUNT(to_regclass('secrets'))";

/// The ids of all keys that something in the database is sealed under.
pub(super) async fn key_ids_in_use(address: &Address) -> Result<BTreeSet<String>> {
    let (mut connection, has_tables) = match address {
        Address::Sqlite(path) if !path.exists() => return Ok(BTreeSet::new()),
        Address::Sqlite(path) => {
            let connection = read_only(path).connect().await.map_err(StoreError::Open)?;
            (Dual::Sqlite(Box::new(connection)), SQLITE_HAS_TABLES)
        }
        Address::Postgres(options) => {
            let connection = options.connect().await.map_err(StoreError::Open)?;
            (Dual::Postgres(Box::new(connection)), POSTGRES_HAS_TABLES)
        }
    };
    let (tables,) = fetch_one!(&mut connection, (i64,), has_tables)?;
    let rows = match tables {
        2 => fetch_all!(&mut connection, (String,), KEY_IDS)?,
        _ => Vec::new(),
    };
    match connection {
        Dual::Sqlite(connection) => connection.close().await?,
        Dual::Postgres(connection) => connection.close().await?,
    }
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Without a log beside the file, nobody has it open and the file is all there is: then SQLite is
/// told so, because it would make a -wal and a -shm even for reading. With one, it must be read too.
fn read_only(path: &Path) -> SqliteConnectOptions {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    SqliteConnectOptions::new().filename(path).read_only(true).immutable(!Path::new(&log).exists())
}
