//! Where conversations live, so that a restart does not move them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    AccountId, Store, UnixMillis,
    backend::{execute, execute_each, fetch_all, fetch_optional},
    error::{Result, StoreError},
};

/// A conversation's home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSession {
    /// A digest.
    pub session: String,
    /// Where it lives.
    pub account: AccountId,
    /// When it was last there, roughly.
    pub last_at: UnixMillis,
    /// How many of its items came from elsewhere.
    pub foreign_items: u32,
}

/// Homes in the store; made by `Store::sessions`.
#[derive(Debug, Clone, Copy)]
pub struct SessionStore<'a> {
    store: &'a Store,
}

type Row = (String, String, UnixMillis, i64);

impl<'a> SessionStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps homes, on accounts that are still there.
    pub async fn put(&self, homes: &[KeptSession]) -> Result<()> {
        // The last word on each; in one order, so that two replicas that write the same ones never wait
        // for each other.
        let homes: BTreeMap<&str, &KeptSession> = homes.iter().map(|home| (home.session.as_str(), home)).collect();
        let rows = homes
            .values()
            .map(|home| json!([home.session, home.account.to_string(), home.last_at, home.foreign_items]));
        let rows = Value::Array(rows.collect()).to_string();
        let mut write = self.store.backend.write_once().await?;
        execute_each!(
            &mut write,
            "INSERT INTO sessions (session, account_id, last_at, foreign_items)
             SELECT value->>0, accounts.id, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT) FROM",
            "JOIN accounts ON accounts.id = value->>1 WHERE TRUE ORDER BY value->>0
             ON CONFLICT (session) DO UPDATE SET account_id = excluded.account_id,
                last_at = excluded.last_at, foreign_items = excluded.foreign_items",
            rows,
        )?;
        Ok(())
    }

    /// The homes of conversations that went on since, the newest first, at most `limit`.
    pub async fn list(&self, since: UnixMillis, limit: u32) -> Result<Vec<KeptSession>> {
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT session, account_id, last_at, foreign_items FROM sessions
             WHERE last_at >= $1 ORDER BY last_at DESC LIMIT $2",
            since,
            i64::from(limit),
        )?;
        rows.into_iter().map(read).collect()
    }

    /// One conversation's home.
    pub async fn get(&self, session: &str) -> Result<Option<KeptSession>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT session, account_id, last_at, foreign_items FROM sessions WHERE session = $1",
            session,
        )?;
        row.map(read).transpose()
    }

    /// Forgets conversations that ended before.
    pub async fn forget(&self, before: UnixMillis) -> Result<u64> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(&mut write, "DELETE FROM sessions WHERE last_at < $1", before)?;
        write.commit().await?;
        Ok(gone)
    }
}

fn read((session, account, last_at, foreign_items): Row) -> Result<KeptSession> {
    let damaged = |problem| StoreError::Damaged { table: "sessions", row: session.clone(), problem };
    Ok(KeptSession {
        account: account.parse().map_err(|_| damaged("its account's id is not a UUID"))?,
        foreign_items: u32::try_from(foreign_items).map_err(|_| damaged("a number is out of range"))?,
        session,
        last_at,
    })
}
