//! A look at a database before it is opened: which keys its secrets were sealed under. Reads only,
//! so that a start with the wrong key leaves no trace.

use std::{collections::BTreeSet, path::Path};

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::{
    backend::{Address, Dual, fetch_all, fetch_one},
    error::{Result, StoreError},
};

/// The sealed columns, by table; a table of a later version is not there yet in an older database.
/// An envelope is `tw1.<16 hex digits>.…`, so its key id starts at the fifth character.
const KEY_IDS: [(&str, &str); 7] = [
    (
        "credentials",
        "SELECT substr(access_token, 5, 16) FROM credentials
         UNION SELECT substr(refresh_token, 5, 16) FROM credentials
         UNION SELECT substr(id_token, 5, 16) FROM credentials WHERE id_token IS NOT NULL",
    ),
    ("slips", "SELECT DISTINCT substr(content, 5, 16) FROM slips"),
    ("secrets", "SELECT DISTINCT substr(value, 5, 16) FROM secrets"),
    // Out of an index on just this, for these tables grow large.
    ("responses", "SELECT DISTINCT substr(content, 5, 16) FROM responses"),
    ("conversations", "SELECT DISTINCT substr(content, 5, 16) FROM conversations"),
    ("conversation_items", "SELECT DISTINCT substr(content, 5, 16) FROM conversation_items"),
    ("batch_requests", "SELECT DISTINCT substr(content, 5, 16) FROM batch_requests"),
];

const SQLITE_HAS_TABLE: &str = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1";

const POSTGRES_HAS_TABLE: &str = "SELECT COUNT(to_regclass($1))";

/// The ids of all keys that something in the database is sealed under.
pub(super) async fn key_ids_in_use(address: &Address) -> Result<BTreeSet<String>> {
    let (mut connection, has_table) = match address {
        Address::Sqlite(path) if !path.exists() => return Ok(BTreeSet::new()),
        Address::Sqlite(path) => {
            let connection = read_only(path).connect().await.map_err(StoreError::Open)?;
            (Dual::Sqlite(Box::new(connection)), SQLITE_HAS_TABLE)
        }
        Address::Postgres(address) => {
            let connection = address.options.connect().await.map_err(StoreError::Open)?;
            (Dual::Postgres(Box::new(connection)), POSTGRES_HAS_TABLE)
        }
    };
    let mut ids = BTreeSet::new();
    for (table, query) in KEY_IDS {
        let (tables,) = fetch_one!(&mut connection, (i64,), has_table, table)?;
        if tables > 0 {
            let rows = fetch_all!(&mut connection, (String,), query)?;
            // What does not look like one is left to whoever opens it, and can name the row.
            ids.extend(rows.into_iter().map(|(id,)| id).filter(|id| is_key_id(id)));
        }
    }
    match connection {
        Dual::Sqlite(connection) => connection.close().await?,
        Dual::Postgres(connection) => connection.close().await?,
    }
    Ok(ids)
}

fn is_key_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Without a log beside the file, nobody has it open and the file is all there is: then SQLite is
/// told so, because it would make a -wal and a -shm even for reading. With one, it must be read too.
fn read_only(path: &Path) -> SqliteConnectOptions {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    SqliteConnectOptions::new().filename(path).read_only(true).immutable(!Path::new(&log).exists())
}
