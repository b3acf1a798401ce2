//! Why accounts were chosen, for a while.

use serde_json::{Value, json};
use sqlx::{QueryBuilder, Sqlite};

use super::{
    KeyId, Store, UnixMillis,
    backend::{Dual, execute, execute_each, fetch_all, slices},
    error::Result,
};

/// One choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The request it was made for.
    pub request_id: String,
    /// Whose request it was.
    pub key: KeyId,
    /// When.
    pub at: UnixMillis,
    /// Candidates, scores, reasons: JSON.
    pub content: String,
}

/// Which decisions are wanted.
#[derive(Debug, Clone, Default)]
pub struct DecisionFilter {
    /// Of this request.
    pub request_id: Option<String>,
    /// Of this key.
    pub key: Option<KeyId>,
}

/// Decisions in the store; made by `Store::decisions`.
#[derive(Debug, Clone, Copy)]
pub struct DecisionStore<'a> {
    store: &'a Store,
}

impl<'a> DecisionStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps decisions.
    pub async fn record(&self, decisions: &[Decision]) -> Result<()> {
        let backend = &self.store.backend;
        if self.store.is_shared() {
            let rows = decisions.iter().map(|Decision { request_id, key, at, content }| {
                json!([uuid::Uuid::now_v7().to_string(), request_id, key.to_string(), at, content])
            });
            let rows = Value::Array(rows.collect()).to_string();
            execute_each!(
                &mut backend.write_once().await?,
                "INSERT INTO decisions (id, request_id, key_id, at, content)
                 SELECT value->>0, value->>1, value->>2, CAST(value->>3 AS BIGINT), value->>4 FROM",
                "",
                rows,
            )?;
        } else if let Dual::Sqlite(mut write) = backend.write(&[]).await? {
            for some in slices(decisions) {
                let mut query =
                    QueryBuilder::<Sqlite>::new("INSERT INTO decisions (id, request_id, key_id, at, content) ");
                query.push_values(some, |mut values, Decision { request_id, key, at, content }| {
                    values
                        .push_bind(uuid::Uuid::now_v7().to_string())
                        .push_bind(request_id.as_str())
                        .push_bind(key.to_string())
                        .push_bind(*at)
                        .push_bind(content.as_str());
                });
                query.build().execute(&mut *write).await?;
            }
            write.commit().await?;
        }
        Ok(())
    }

    /// The newest first, at most `limit`. The key of a row that no longer reads as one is nobody's.
    pub async fn list(&self, filter: &DecisionFilter, limit: u32) -> Result<Vec<Decision>> {
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            (String, String, UnixMillis, String),
            "SELECT request_id, key_id, at, content FROM decisions
             WHERE ($1 IS NULL OR request_id = $1) AND ($2 IS NULL OR key_id = $2)
             ORDER BY at DESC, id DESC LIMIT $3",
            filter.request_id.as_deref(),
            filter.key.map(|key| key.to_string()),
            i64::from(limit),
        )?;
        let decision = |(request_id, key, at, content): (String, String, UnixMillis, String)| Decision {
            request_id,
            key: key.parse().unwrap_or_else(|_| KeyId::nobody()),
            at,
            content,
        };
        Ok(rows.into_iter().map(decision).collect())
    }

    /// Forgets decisions from before.
    pub async fn forget(&self, before: UnixMillis) -> Result<u64> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(&mut write, "DELETE FROM decisions WHERE at < $1", before)?;
        write.commit().await?;
        Ok(gone)
    }
}
