//! Kept responses: sealed, found by the gateway key and their id together, gone when their time is
//! over. What a response is, and what follows from another, is not known here.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    KeyId, Store, UnixMillis,
    backend::{Write, execute, execute_each, fetch_all, fetch_optional},
    error::Result,
    vault::Place,
};

/// A response to be kept.
#[derive(Debug, Clone, Copy)]
pub struct NewResponse<'a> {
    /// Whose it is.
    pub key: KeyId,
    /// Its id, as its client knows it.
    pub id: &'a str,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From when on it is as good as gone.
    pub expires_at: UnixMillis,
    /// Until when somebody is known to work on it; `None` for one that has ended.
    pub lease_until: Option<UnixMillis>,
    /// The ids of the items in it, by which later requests may refer to them.
    pub items: &'a [String],
    /// What is sealed.
    pub content: &'a [u8],
}

/// A response as it was kept.
#[derive(Debug)]
pub struct KeptResponse {
    /// When it was made.
    pub created_at: UnixMillis,
    /// From when on it is as good as gone.
    pub expires_at: UnixMillis,
    /// Until when somebody is known to work on it; `None` for one that has ended.
    pub lease_until: Option<UnixMillis>,
    /// What was sealed.
    pub content: Zeroizing<Vec<u8>>,
}

/// Kept responses in the store.
#[derive(Clone, Copy)]
pub struct ResponseStore<'a> {
    store: &'a Store,
}

const TABLE: &str = "responses";

impl<'a> ResponseStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps responses, each over one of the same id that may be there, all in one transaction.
    pub async fn put(&self, responses: &[NewResponse<'_>]) -> Result<()> {
        // The last word on each; in one order, so that two replicas never wait for each other.
        let last: BTreeMap<String, &NewResponse<'_>> =
            responses.iter().map(|response| (place_of(response.key, response.id), response)).collect();
        // Sealed before the transaction begins: it holds up other writers as short as can be.
        let (mut rows, mut items) = (Vec::new(), Vec::new());
        for (place, response) in &last {
            let content = self.store.seal(sealed_at(place), response.content)?;
            rows.push(json!([place, response.created_at, response.expires_at, response.lease_until, content]));
            items.extend(response.items.iter().map(|item| json!([place_of(response.key, item), place])));
        }
        let mut write = self.store.backend.write(&[]).await?;
        execute_each!(
            &mut write,
            "INSERT INTO responses (place, created_at, expires_at, lease_until, content)
             SELECT value->>0, CAST(value->>1 AS BIGINT), CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT),
                value->>4 FROM",
            "WHERE TRUE
             ON CONFLICT (place) DO UPDATE SET created_at = excluded.created_at,
                expires_at = excluded.expires_at, lease_until = excluded.lease_until, content = excluded.content",
            Value::Array(rows).to_string(),
        )?;
        note_items(&mut write, items).await?;
        write.commit().await
    }

    /// Replaces a response that is being worked on by its end; does nothing when it has ended
    /// already, or was deleted meanwhile. Returns whether it was replaced.
    pub async fn finish(&self, response: &NewResponse<'_>) -> Result<bool> {
        let place = place_of(response.key, response.id);
        let content = self.store.seal(sealed_at(&place), response.content)?;
        let mut write = self.store.backend.write(&[]).await?;
        let changed = execute!(
            &mut write,
            "UPDATE responses SET expires_at = $2, lease_until = NULL, content = $3
             WHERE place = $1 AND lease_until IS NOT NULL",
            place.as_str(),
            response.expires_at,
            content.as_str(),
        )?;
        if changed > 0 {
            let items = response.items.iter().map(|item| json!([place_of(response.key, item), place]));
            note_items(&mut write, items.collect()).await?;
        }
        write.commit().await?;
        Ok(changed > 0)
    }

    /// Says that a response is still being worked on. Returns whether it is there and has not ended.
    pub async fn renew(&self, key: KeyId, id: &str, lease_until: UnixMillis) -> Result<bool> {
        let mut write = self.store.backend.write(&[]).await?;
        let changed = execute!(
            &mut write,
            "UPDATE responses SET lease_until = $2 WHERE place = $1 AND lease_until IS NOT NULL",
            place_of(key, id),
            lease_until,
        )?;
        write.commit().await?;
        Ok(changed > 0)
    }

    /// Ends every lease, where no other process can be at work: a SQLite file has one server.
    pub async fn end_leases(&self) -> Result<()> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut write = self.store.backend.write(&[]).await?;
        execute!(&mut write, "UPDATE responses SET lease_until = 0 WHERE lease_until IS NOT NULL")?;
        write.commit().await
    }

    /// The response of this key and id, unless its time is over.
    pub async fn get(&self, key: KeyId, id: &str, now: UnixMillis) -> Result<Option<KeptResponse>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT place, created_at, expires_at, lease_until, content FROM responses
             WHERE place = $1 AND expires_at > $2",
            place_of(key, id),
            now,
        )?;
        row.map(|row| self.open(row)).transpose()
    }

    /// The response of this key that has an item of this id.
    pub async fn with_item(&self, key: KeyId, item: &str, now: UnixMillis) -> Result<Option<KeptResponse>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT responses.place, created_at, expires_at, lease_until, content
             FROM response_items JOIN responses ON responses.place = response_items.response
             WHERE response_items.place = $1 AND expires_at > $2 ORDER BY created_at DESC LIMIT 1",
            place_of(key, item),
            now,
        )?;
        row.map(|row| self.open(row)).transpose()
    }

    /// Deletes a response. Returns whether it was there.
    pub async fn delete(&self, key: KeyId, id: &str, now: UnixMillis) -> Result<bool> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(
            &mut write,
            "DELETE FROM responses WHERE place = $1 AND expires_at > $2",
            place_of(key, id),
            now,
        )?;
        write.commit().await?;
        Ok(gone > 0)
    }

    /// Lets responses live at least until `expires_at`: a later one builds on them.
    pub async fn extend(&self, key: KeyId, ids: &[String], expires_at: UnixMillis) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        // In order of ids: two replicas that extend the same ones never wait for each other.
        let mut ids: Vec<&String> = ids.iter().collect();
        ids.sort_unstable();
        for id in ids {
            execute!(
                &mut write,
                "UPDATE responses SET expires_at = $2 WHERE place = $1 AND expires_at < $2",
                place_of(key, id),
                expires_at,
            )?;
        }
        write.commit().await
    }

    /// Deletes up to `limit` responses whose time is over. Returns how many.
    pub async fn sweep(&self, now: UnixMillis, limit: u32) -> Result<u64> {
        let mut session = self.store.backend.read().await?;
        let over = fetch_all!(
            &mut session,
            (String,),
            "SELECT place FROM responses WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2",
            now,
            i64::from(limit),
        )?;
        drop(session);
        if over.is_empty() {
            return Ok(0);
        }
        let mut gone = 0;
        let mut write = self.store.backend.write(&[]).await?;
        for (place,) in over {
            gone += execute!(&mut write, "DELETE FROM responses WHERE place = $1 AND expires_at <= $2", place, now)?;
        }
        write.commit().await?;
        Ok(gone)
    }

    fn open(self, row: Row) -> Result<KeptResponse> {
        let Row { place, created_at, expires_at, lease_until, content } = row;
        let content = self.store.open_sealed(sealed_at(&place), &content)?;
        Ok(KeptResponse { created_at, expires_at, lease_until, content })
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    place: String,
    created_at: UnixMillis,
    expires_at: UnixMillis,
    lease_until: Option<UnixMillis>,
    content: String,
}

/// Notes which items are in which response: pairs of places.
async fn note_items(write: &mut Write, pairs: Vec<Value>) -> Result<()> {
    if pairs.is_empty() {
        return Ok(());
    }
    execute_each!(
        write,
        "INSERT INTO response_items (place, response) SELECT value->>0, value->>1 FROM",
        "WHERE TRUE ORDER BY value->>0, value->>1 ON CONFLICT (place, response) DO NOTHING",
        Value::Array(pairs).to_string(),
    )?;
    Ok(())
}

fn place_of(key: KeyId, id: &str) -> String {
    format!("{key}/{id}")
}

fn sealed_at(place: &str) -> Place<'_> {
    Place { table: TABLE, column: "content", row: place }
}
