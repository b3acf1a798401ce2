//! Where conversations live, so that a restart does not move them, and that all replicas agree.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::{
    AccountId, Store, UnixMillis,
    backend::{Topic, execute, execute_each, fetch_all, fetch_each, fetch_optional},
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

    /// Keeps homes, on accounts that are still there. Nobody moves by this: gives the homes of those that
    /// live on another account, by somebody else's word.
    pub async fn put(&self, homes: &[KeptSession]) -> Result<Vec<KeptSession>> {
        let mut write = self.store.backend.write_once().await?;
        let there = fetch_each!(
            &mut write,
            Row,
            "INSERT INTO sessions (session, account_id, last_at, foreign_items)
             SELECT value->>0, accounts.id, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT) FROM",
            "JOIN accounts ON accounts.id = value->>1 WHERE TRUE ORDER BY value->>0
             ON CONFLICT (session) DO UPDATE SET last_at = excluded.last_at, foreign_items = CASE
                WHEN sessions.account_id = excluded.account_id AND sessions.foreign_items < excluded.foreign_items
                THEN excluded.foreign_items ELSE sessions.foreign_items END
             RETURNING session, account_id, last_at, foreign_items",
            in_order(homes),
        )?;
        let ours: HashMap<&str, AccountId> = homes.iter().map(|home| (home.session.as_str(), home.account)).collect();
        let mut others = there.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        others.retain(|home| ours.get(home.session.as_str()) != Some(&home.account));
        Ok(others)
    }

    /// Keeps homes of conversations that have moved there, whoever said what before; others are told.
    pub async fn put_moved(&self, homes: &[KeptSession]) -> Result<()> {
        // The revision is counted up first, which is also the lock: who reads what has moved since one
        // misses nothing.
        let mut write = self.store.backend.write(&[Topic::Homes]).await?;
        execute_each!(
            &mut write,
            "INSERT INTO sessions (session, account_id, last_at, foreign_items, moved)
             SELECT value->>0, accounts.id, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT), revision FROM",
            "JOIN accounts ON accounts.id = value->>1 JOIN revisions ON topic = 'homes' WHERE TRUE ORDER BY value->>0
             ON CONFLICT (session) DO UPDATE SET account_id = excluded.account_id, last_at = excluded.last_at,
                foreign_items = excluded.foreign_items, moved = excluded.moved",
            in_order(homes),
        )?;
        write.commit().await
    }

    /// The homes of conversations that have moved after this revision of homes, the last ones last.
    pub async fn moved_since(&self, revision: i64) -> Result<Vec<KeptSession>> {
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT session, account_id, last_at, foreign_items FROM sessions
             WHERE moved > $1 AND moved > 0 ORDER BY moved",
            revision,
        )?;
        rows.into_iter().map(read).collect()
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

/// Homes as rows for one statement: the last word on each; in one order, so that two replicas that write
/// the same ones never wait for each other.
fn in_order(homes: &[KeptSession]) -> String {
    let homes: BTreeMap<&str, &KeptSession> = homes.iter().map(|home| (home.session.as_str(), home)).collect();
    let rows =
        homes.values().map(|home| json!([home.session, home.account.to_string(), home.last_at, home.foreign_items]));
    Value::Array(rows.collect()).to_string()
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
