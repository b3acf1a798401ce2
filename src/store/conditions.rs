//! What was known of accounts besides their rows, and the history of their states.

use super::{
    AccountId, Store, UnixMillis,
    backend::{Topic, execute, fetch_all, fetch_optional},
    error::{Result, StoreError},
};

/// A change of an account's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    /// Whose.
    pub account: AccountId,
    /// When.
    pub at: UnixMillis,
    /// The state before: `active`, `limited`, `cooling` ….
    pub was: String,
    /// The state after.
    pub became: String,
    /// Why, as a code.
    pub reason: Option<String>,
    /// When it is to be over, if time alone ends it.
    pub until: Option<UnixMillis>,
}

/// Conditions and history in the store; made by `Store::conditions`.
#[derive(Debug, Clone, Copy)]
pub struct ConditionStore<'a> {
    store: &'a Store,
}

impl<'a> ConditionStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps what is known of accounts, as JSON; of those that are still there. Where something is
    /// kept already, `merge` makes one of it and of what comes, so that of two processes neither
    /// undoes what the other has learnt. `tell` tells others of it, as of a change.
    pub async fn put(
        &self,
        known: &[(AccountId, String)],
        merge: impl Fn(&str, &str) -> String,
        tell: bool,
        now: UnixMillis,
    ) -> Result<()> {
        let topics: &[Topic] = if tell { &[Topic::Conditions] } else { &[] };
        // In one order: two that write the same ones never wait for each other.
        let mut known: Vec<_> = known.iter().map(|(id, content)| (id.to_string(), content)).collect();
        known.sort_unstable();
        let mut write = self.store.backend.write(topics).await?;
        for (account, content) in known {
            // An update locks the row on either database.
            let kept = fetch_optional!(
                &mut write,
                (String,),
                "UPDATE account_conditions SET updated_at = $2 WHERE account_id = $1 RETURNING content",
                account.as_str(),
                now,
            )?;
            let content = match kept {
                Some((kept,)) => {
                    let merged = merge(&kept, content);
                    if merged == kept {
                        continue;
                    }
                    merged
                }
                None => content.clone(),
            };
            execute!(
                &mut write,
                "INSERT INTO account_conditions (account_id, content, updated_at)
                 SELECT id, $2, $3 FROM accounts WHERE id = $1
                 ON CONFLICT (account_id) DO UPDATE SET content = excluded.content, updated_at = excluded.updated_at",
                account.as_str(),
                content.as_str(),
                now,
            )?;
        }
        write.commit().await
    }

    /// What was kept, and when.
    pub async fn list(&self) -> Result<Vec<(AccountId, String, UnixMillis)>> {
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            (String, String, UnixMillis),
            "SELECT account_id, content, updated_at FROM account_conditions",
        )?;
        let damaged =
            |row: &str| StoreError::Damaged { table: "account_conditions", row: row.to_owned(), problem: "no UUID" };
        rows.into_iter().map(|(id, content, at)| Ok((id.parse().map_err(|_| damaged(&id))?, content, at))).collect()
    }

    /// Adds to the history, of accounts that are still there.
    pub async fn record(&self, events: &[AccountEvent]) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        for event in events {
            execute!(
                &mut write,
                "INSERT INTO account_events (id, account_id, at, was, became, reason, until)
                 SELECT $2, id, $3, $4, $5, $6, $7 FROM accounts WHERE id = $1",
                event.account.to_string(),
                uuid::Uuid::now_v7().to_string(),
                event.at,
                event.was.as_str(),
                event.became.as_str(),
                event.reason.as_deref(),
                event.until,
            )?;
        }
        write.commit().await
    }

    /// An account's history, the newest first, at most `limit`.
    pub async fn history(&self, account: AccountId, limit: u32) -> Result<Vec<AccountEvent>> {
        type Row = (UnixMillis, String, String, Option<String>, Option<UnixMillis>);
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT at, was, became, reason, until FROM account_events
             WHERE account_id = $1 ORDER BY at DESC, id DESC LIMIT $2",
            account.to_string(),
            i64::from(limit),
        )?;
        let event = |(at, was, became, reason, until)| AccountEvent { account, at, was, became, reason, until };
        Ok(rows.into_iter().map(event).collect())
    }

    /// The history of one account or all, the newest first, each event with its id: at most `limit`,
    /// and only those before the one that is `before`.
    pub async fn events(
        &self,
        account: Option<AccountId>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, AccountEvent)>> {
        type Row = (String, String, UnixMillis, String, String, Option<String>, Option<UnixMillis>);
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT id, account_id, at, was, became, reason, until FROM account_events
             WHERE ($1 IS NULL OR account_id = $1) AND ($2 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
            account.map(|account| account.to_string()),
            before,
            i64::from(limit),
        )?;
        let event = |(id, account, at, was, became, reason, until): Row| {
            let damaged =
                |_| StoreError::Damaged { table: "account_events", row: id.clone(), problem: "its account is no UUID" };
            let account = account.parse().map_err(damaged)?;
            Ok((id, AccountEvent { account, at, was, became, reason, until }))
        };
        rows.into_iter().map(event).collect()
    }

    /// Forgets history from before.
    pub async fn forget(&self, before: UnixMillis) -> Result<u64> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(&mut write, "DELETE FROM account_events WHERE at < $1", before)?;
        write.commit().await?;
        Ok(gone)
    }
}
