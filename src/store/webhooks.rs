//! What operators' systems are told, until they have taken it.

use super::{
    Store, UnixMillis,
    backend::{execute, fetch_all},
    error::Result,
};

/// A delivery that is to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same at each attempt.
    pub id: String,
    /// What happened.
    pub event: String,
    /// What is sent: JSON.
    pub body: String,
    /// How often it was tried before.
    pub attempts: i64,
}

/// Deliveries in the store; made by `Store::webhooks`.
#[derive(Debug, Clone, Copy)]
pub struct WebhookStore<'a> {
    store: &'a Store,
}

impl<'a> WebhookStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps a delivery, due at once.
    pub async fn add(&self, event: &str, body: &str, now: UnixMillis) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "INSERT INTO webhook_deliveries (id, event, body, created_at, attempts, next_at)
             VALUES ($1, $2, $3, $4, 0, $4)",
            uuid::Uuid::now_v7().to_string(),
            event,
            body,
            now,
        )?;
        write.commit().await
    }

    /// The deliveries that are due, oldest first, at most `limit`; until `lease` nobody else gets them.
    pub async fn claim(&self, now: UnixMillis, lease: UnixMillis, limit: u32) -> Result<Vec<Delivery>> {
        let due = fetch_all!(
            &mut self.store.backend.read().await?,
            (String, String, String, i64),
            "SELECT id, event, body, attempts FROM webhook_deliveries
             WHERE next_at <= $1 ORDER BY next_at, id LIMIT $2",
            now,
            i64::from(limit),
        )?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut write = self.store.backend.write(&[]).await?;
        let mut claimed = Vec::with_capacity(due.len());
        for (id, event, body, attempts) in due {
            // Whoever comes second changes nothing, and leaves it alone.
            let ours = execute!(
                &mut write,
                "UPDATE webhook_deliveries SET next_at = $2 WHERE id = $1 AND next_at <= $3",
                id.as_str(),
                lease,
                now,
            )?;
            if ours > 0 {
                claimed.push(Delivery { id, event, body, attempts });
            }
        }
        write.commit().await?;
        Ok(claimed)
    }

    /// A delivery was taken.
    pub async fn taken(&self, id: &str, now: UnixMillis) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = NULL, taken_at = $2, last_error = NULL
             WHERE id = $1",
            id,
            now,
        )?;
        write.commit().await
    }

    /// A delivery was not taken; it is tried again at `next`, or never.
    pub async fn failed(&self, id: &str, next: Option<UnixMillis>, why: &str) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = $2, last_error = $3 WHERE id = $1",
            id,
            next,
            why,
        )?;
        write.commit().await
    }

    /// Forgets deliveries that are over and were made before.
    pub async fn forget(&self, before: UnixMillis) -> Result<u64> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone =
            execute!(&mut write, "DELETE FROM webhook_deliveries WHERE next_at IS NULL AND created_at < $1", before)?;
        write.commit().await?;
        Ok(gone)
    }
}
