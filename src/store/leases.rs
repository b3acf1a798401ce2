//! Leases: what several processes on one database take turns in, each for a time.
//!
//! A lease ends by the database's clock, never by a process's. Its fencing number goes up each time
//! it is taken, so that what somebody does under an old number can be told from what the present
//! holder does. No call waits for the holder.

use std::time::Duration;

use super::{
    Store, UnixMillis,
    backend::{execute, fetch_optional},
    error::Result,
};

/// A lease that was taken. Worth nothing once it has ended, which only the database can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for: `refresh:<account id>`, `leader:usage` ….
    pub name: String,
    /// Who took it; one word for one run of one process.
    pub holder: String,
    /// The fencing number.
    pub fence: i64,
    /// When it ends, by the database's clock.
    pub expires_at: UnixMillis,
}

/// Who has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Who took it last.
    pub holder: String,
    /// The fencing number.
    pub fence: i64,
    /// How long it will last if it is not renewed; zero when it is free.
    pub left: Duration,
}

/// Leases in the store; made by `Store::leases`.
#[derive(Debug, Clone, Copy)]
pub struct LeaseStore<'a> {
    store: &'a Store,
}

impl<'a> LeaseStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Takes a lease for `ttl`, if nobody has it, not even `holder`. Of any number who try at once,
    /// one gets it.
    pub async fn take(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Lease>> {
        let mut write = self.store.backend.write(&[]).await?;
        // "WHERE true": without it SQLite takes ON for the condition of a join. The right side of the
        // last condition is the time that was read for this statement.
        let taken = fetch_optional!(
            &mut write,
            (i64, UnixMillis),
            "INSERT INTO leases (name, holder, fence, expires_at)
             SELECT $1, $2, 1, now_ms + $3 FROM database_clock WHERE true
             ON CONFLICT (name) DO UPDATE SET
                holder = excluded.holder, fence = leases.fence + 1, expires_at = excluded.expires_at
             WHERE leases.expires_at <= excluded.expires_at - $3
             RETURNING fence, expires_at",
            name,
            holder,
            millis(ttl),
        )?;
        write.commit().await?;
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Ok(taken.map(|(fence, expires_at)| Lease { name, holder, fence, expires_at }))
    }

    /// Makes a lease last for `ttl` from now. `false`: it has ended or was released, and the holder
    /// must behave as if somebody else had it.
    pub async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        let mut write = self.store.backend.write(&[]).await?;
        let renewed = execute!(
            &mut write,
            "UPDATE leases SET expires_at = (SELECT now_ms FROM database_clock) + $3
             WHERE name = $1 AND fence = $2 AND expires_at > (SELECT now_ms FROM database_clock)",
            lease.name.as_str(),
            lease.fence,
            millis(ttl),
        )?;
        write.commit().await?;
        Ok(renewed > 0)
    }

    /// Gives a lease back before its end. Does nothing when somebody else has taken it since.
    pub async fn release(&self, lease: &Lease) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "UPDATE leases SET expires_at = 0 WHERE name = $1 AND fence = $2",
            lease.name.as_str(),
            lease.fence,
        )?;
        write.commit().await
    }

    /// Who has, or had, a lease; `None` when it was never taken.
    pub async fn look(&self, name: &str) -> Result<Option<Holding>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            (String, i64, i64),
            "SELECT holder, fence, expires_at - now_ms FROM leases, database_clock WHERE name = $1",
            name,
        )?;
        Ok(row.map(|(holder, fence, left)| {
            let left = Duration::from_millis(u64::try_from(left).unwrap_or_default());
            Holding { holder, fence, left }
        }))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
}
