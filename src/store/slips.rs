//! Slips: short notes, sealed, that end by themselves. What they say is the business of others.

use zeroize::Zeroizing;

use super::{
    Store, UnixMillis,
    backend::{Write, execute, fetch_optional},
    error::{Result, StoreError},
    vault::Place,
};

/// How long a slip lives that was laid down so that a change is made once.
const ONCE: i64 = 24 * 3_600_000;

/// Slips in the store; made by `Store::slips`.
#[derive(Debug, Clone, Copy)]
pub struct SlipStore<'a> {
    store: &'a Store,
}

fn place(id: &str) -> Place<'_> {
    Place { table: "slips", column: "content", row: id }
}

/// Lays down an empty slip; one that is there already is `Repeated`.
pub(super) async fn claim(store: &Store, write: &mut Write, id: &str, now: UnixMillis) -> Result<()> {
    execute!(write, "DELETE FROM slips WHERE id = $1 AND expires_at <= $2", id, now)?;
    let laid = execute!(
        write,
        "INSERT INTO slips (id, content, expires_at) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING",
        id,
        store.seal(place(id), b"")?,
        now.saturating_add(ONCE),
    )?;
    if laid == 0 { Err(StoreError::Repeated) } else { Ok(()) }
}

impl<'a> SlipStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Lays down a slip, or writes over the one of that id.
    pub async fn put(&self, id: &str, content: &[u8], expires_at: UnixMillis) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "INSERT INTO slips (id, content, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET content = excluded.content, expires_at = excluded.expires_at",
            id,
            self.store.seal(place(id), content)?,
            expires_at,
        )?;
        write.commit().await
    }

    /// What a slip says, if it is there and has not ended.
    pub async fn get(&self, id: &str, now: UnixMillis) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            (String,),
            "SELECT content FROM slips WHERE id = $1 AND expires_at > $2",
            id,
            now,
        )?;
        row.map(|(content,)| self.store.open_sealed(place(id), &content)).transpose()
    }

    /// What a slip says; it is gone afterwards. Of two who take it at once, one gets it.
    pub async fn take(&self, id: &str, now: UnixMillis) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let mut write = self.store.backend.write(&[]).await?;
        let row = fetch_optional!(
            &mut write,
            (String, UnixMillis),
            "DELETE FROM slips WHERE id = $1 RETURNING content, expires_at",
            id,
        )?;
        write.commit().await?;
        let valid = row.filter(|(_, expires_at)| *expires_at > now);
        valid.map(|(content, _)| self.store.open_sealed(place(id), &content)).transpose()
    }

    /// Throws a slip away.
    pub async fn drop(&self, id: &str) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(&mut write, "DELETE FROM slips WHERE id = $1", id)?;
        write.commit().await
    }

    /// Throws away those that have ended.
    pub async fn forget(&self, now: UnixMillis) -> Result<u64> {
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(&mut write, "DELETE FROM slips WHERE expires_at <= $1", now)?;
        write.commit().await?;
        Ok(gone)
    }
}
