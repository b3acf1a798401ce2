//! Which refresh token is being spent, and by whom: what one process writes down before it sends a
//! token, so that the others know of it whatever becomes of that process.

use std::time::Duration;

use super::{
    AccountId, Lease, Store,
    backend::{Write, execute, fetch_optional},
    error::Result,
    leases::{Holding, millis},
};

/// An exchange that was begun and whose outcome is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The credentials whose refresh token was about to be sent.
    pub generation: i64,
    /// Under which number of the account's lease.
    pub fence: i64,
    /// By whom.
    pub holder: String,
    /// How long ago.
    pub age: Duration,
    /// It is over, and its sender has seen no answer and never will.
    pub lost: bool,
}

/// What there is to know before a refresh token is spent, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The generation that is stored.
    pub generation: i64,
    /// Who has the account's lease, or had it last.
    pub lease: Option<Holding>,
    /// The last exchange that was begun; `None` if it was taken back.
    pub exchange: Option<Exchange>,
}

/// What becomes of the note of an exchange when its lease is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trace {
    /// It stays: newer credentials are stored and make it void, or it was somebody else's.
    Stays,
    /// It is taken back: the token was not sent, or the issuer has declined to look at it.
    Goes,
    /// It stays as one of which the sender has seen no answer, and waits for none.
    Lost,
}

/// Exchanges in the store; made by `Store::exchanges`.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeStore<'a> {
    store: &'a Store,
}

/// A row of `Turn`.
type TurnRow = (
    i64,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<i64>,
    Option<bool>,
);

impl<'a> ExchangeStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// The name of an account's lease.
    pub fn lease_name(account: AccountId) -> String {
        format!("refresh:{account}")
    }

    /// What there is to know before a refresh; `None` when the account was removed.
    pub async fn turn(&self, account: AccountId) -> Result<Option<Turn>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            TurnRow,
            "SELECT c.generation, l.holder, l.fence, l.expires_at - k.now_ms,
                e.generation, e.fence, e.holder, k.now_ms - e.begun_at, e.lost
             FROM credentials c CROSS JOIN database_clock k
             LEFT JOIN leases l ON l.name = $2
             LEFT JOIN exchanges e ON e.account_id = c.account_id
             WHERE c.account_id = $1",
            account.to_string(),
            Self::lease_name(account),
        )?;
        Ok(row.map(Turn::from))
    }

    /// Notes, durably, that the refresh token of `generation` is about to be sent under `lease`, which
    /// lasts for `ttl` from now. `false`, and nothing was written: the lease is not the holder's any
    /// more, or other credentials are stored. The token must not be sent then.
    pub async fn begin(&self, account: AccountId, lease: &Lease, generation: i64, ttl: Duration) -> Result<bool> {
        let mut write = self.store.backend.write(&[]).await?;
        // The lease's row first: it is the lock, so that no other process can take the lease and look
        // for a note between this statement and the commit.
        let held = execute!(
            &mut write,
            "UPDATE leases SET expires_at = (SELECT now_ms FROM database_clock) + $3
             WHERE name = $1 AND fence = $2 AND expires_at > (SELECT now_ms FROM database_clock)",
            lease.name.as_str(),
            lease.fence,
            millis(ttl),
        )?;
        if held == 0 {
            return Ok(false);
        }
        let noted = execute!(
            &mut write,
            "INSERT INTO exchanges (account_id, generation, fence, holder, begun_at, lost)
             SELECT account_id, generation, $3, $4, now_ms, FALSE FROM credentials, database_clock
             WHERE account_id = $1 AND generation = $2
             ON CONFLICT (account_id) DO UPDATE SET generation = excluded.generation, fence = excluded.fence,
                holder = excluded.holder, begun_at = excluded.begun_at, lost = FALSE",
            account.to_string(),
            generation,
            lease.fence,
            lease.holder.as_str(),
        )?;
        if noted == 0 {
            return Ok(false);
        }
        write.commit().await?;
        Ok(true)
    }

    /// Ends a turn: says what becomes of the exchange noted under `lease`, and releases it. Both do
    /// nothing where somebody else has had the lease since.
    pub async fn end(&self, account: AccountId, lease: &Lease, trace: Trace) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "UPDATE leases SET expires_at = 0 WHERE name = $1 AND fence = $2",
            lease.name.as_str(),
            lease.fence,
        )?;
        let account = account.to_string();
        match trace {
            Trace::Stays => {}
            Trace::Goes => {
                let sql = "DELETE FROM exchanges WHERE account_id = $1 AND fence = $2";
                execute!(&mut write, sql, account.as_str(), lease.fence)?;
            }
            Trace::Lost => {
                let sql = "UPDATE exchanges SET lost = TRUE WHERE account_id = $1 AND fence = $2";
                execute!(&mut write, sql, account.as_str(), lease.fence)?;
            }
        }
        write.commit().await
    }

    /// Frees what holders whose names begin with `prefix` have left behind. Only for a database of
    /// which the caller knows that none of them runs: there is nothing to wait for, so open exchanges
    /// become as old as can be. They stay open, for nobody has seen how they ended.
    pub async fn abandon(&self, prefix: &str) -> Result<()> {
        let pattern = format!("{prefix}%");
        let mut write = self.store.backend.write(&[]).await?;
        execute!(&mut write, "UPDATE leases SET expires_at = 0 WHERE holder LIKE $1", pattern.as_str())?;
        let sql = "UPDATE exchanges SET begun_at = 0 WHERE holder LIKE $1 AND lost = FALSE";
        execute!(&mut write, sql, pattern.as_str())?;
        write.commit().await
    }
}

/// A removed account leaves no lease behind; its id never comes again.
pub(super) async fn forget(write: &mut Write, account: &str) -> Result<()> {
    execute!(write, "DELETE FROM leases WHERE name = $1", format!("refresh:{account}"))?;
    Ok(())
}

impl From<TurnRow> for Turn {
    fn from(row: TurnRow) -> Self {
        let (generation, holder, fence, left, spent, spent_fence, spender, age, lost) = row;
        let time = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or_default());
        let lease = holder.zip(fence).zip(left);
        let exchange = spent.zip(spent_fence).zip(spender.zip(age).zip(lost));
        Self {
            generation,
            lease: lease.map(|((holder, fence), left)| Holding { holder, fence, left: time(left) }),
            exchange: exchange.map(|((generation, fence), ((holder, age), lost))| Exchange {
                generation,
                fence,
                holder,
                age: time(age),
                lost,
            }),
        }
    }
}
