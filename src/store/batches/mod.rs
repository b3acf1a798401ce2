//! Message batches: sealed requests that wait, are worked on, and have exactly one outcome each. What
//! a request or a result is, is not known here.

mod work;

use zeroize::Zeroizing;

use super::{
    KeyId, Store, UnixMillis,
    backend::{Write, execute, fetch_all, fetch_one, fetch_optional},
    error::{Result, StoreError},
    vault::Place,
};

/// How many rows go into one transaction: the longest that other writers wait.
const CHUNK: usize = 500;

/// A batch to be kept.
#[derive(Debug, Clone, Copy)]
pub struct NewBatch<'a> {
    /// Whose it is.
    pub key: KeyId,
    /// Its id, as its client knows it.
    pub id: &'a str,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When requests that have not begun are given up.
    pub expires_at: UnixMillis,
}

/// A batch as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its id, as its client knows it.
    pub id: String,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When requests that have not begun are given up.
    pub expires_at: UnixMillis,
    /// When it was cancelled, if it was.
    pub cancel_initiated_at: Option<UnixMillis>,
    /// When its last request had an outcome.
    pub ended_at: Option<UnixMillis>,
    /// How many of its requests are in which state.
    pub counts: BatchCounts,
}

/// How many requests of a batch are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchCounts {
    /// Waiting, or being worked on.
    pub processing: u64,
    /// Answered.
    pub succeeded: u64,
    /// Refused for good.
    pub errored: u64,
    /// Given up because somebody cancelled the batch.
    pub canceled: u64,
    /// Given up because the batch's time was over.
    pub expired: u64,
}

/// How a request of a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Answered.
    Succeeded,
    /// Refused for good.
    Errored,
    /// Given up because somebody cancelled the batch.
    Canceled,
    /// Given up because the batch's time was over.
    Expired,
}

/// Which end of a list a page lies at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageSide<'a> {
    /// The newest.
    Newest,
    /// Those made before the one of this id.
    After(&'a str),
    /// Those made after the one of this id.
    Before(&'a str),
}

/// A request that somebody has begun to work on.
#[derive(Debug)]
pub struct ClaimedRequest {
    /// Where it is; what the other calls take.
    pub place: String,
    /// How often it was put back.
    pub attempts: i64,
    /// What was sealed of it.
    pub content: Zeroizing<Vec<u8>>,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// It has not ended.
    Refused,
    /// It was not there.
    Absent,
}

/// Batches in the store.
#[derive(Clone, Copy)]
pub struct BatchStore<'a> {
    store: &'a Store,
}

impl BatchOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Errored => "errored",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }

    fn parse(state: &str) -> Option<Self> {
        [Self::Succeeded, Self::Errored, Self::Canceled, Self::Expired].into_iter().find(|one| one.as_str() == state)
    }
}

impl<'a> BatchStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Keeps a batch with its requests. Nobody sees it before all of them are there.
    pub async fn put(&self, batch: &NewBatch<'_>, requests: &[&[u8]]) -> Result<()> {
        let place = place_of(batch.key, batch.id);
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "INSERT INTO batches (place, key_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
            place.as_str(),
            batch.key.to_string(),
            batch.created_at,
            batch.expires_at,
        )?;
        write.commit().await?;
        for (number, chunk) in requests.chunks(CHUNK).enumerate() {
            self.insert(&place, number * CHUNK, chunk).await?;
        }
        let mut write = self.store.backend.write(&[]).await?;
        let total = i64::try_from(requests.len()).unwrap_or(i64::MAX);
        execute!(&mut write, "UPDATE batches SET total = $2 WHERE place = $1", place.as_str(), total)?;
        write.commit().await
    }

    async fn insert(&self, batch: &str, first: usize, requests: &[&[u8]]) -> Result<()> {
        // Sealed before the transaction begins: it holds up other writers as short as can be.
        let seal = |(number, content): (usize, &&[u8])| {
            let position = first + number;
            let place = format!("{batch}/{position:06}");
            let envelope = self.store.seal(sealed_at(&place), content)?;
            Ok((place, position, envelope))
        };
        let sealed: Vec<_> = requests.iter().enumerate().map(seal).collect::<Result<_>>()?;
        let mut write = self.store.backend.write(&[]).await?;
        for (place, position, envelope) in &sealed {
            execute!(
                &mut write,
                "INSERT INTO batch_requests (place, batch, position, state, attempts, not_before, content)
                 VALUES ($1, $2, $3, 'waiting', 0, 0, $4)",
                place.as_str(),
                batch,
                i64::try_from(*position).unwrap_or(i64::MAX),
                envelope.as_str(),
            )?;
        }
        write.commit().await
    }

    /// How many requests of this key have no outcome yet, counting whole batches.
    pub async fn unended(&self, key: KeyId) -> Result<u64> {
        let (waiting,) = fetch_one!(
            &mut self.store.backend.read().await?,
            (i64,),
            "SELECT CAST(COALESCE(SUM(total), 0) AS BIGINT) FROM batches WHERE key_id = $1 AND ended_at IS NULL",
            key.to_string(),
        )?;
        Ok(waiting.unsigned_abs())
    }

    /// The batch of this key and id.
    pub async fn get(&self, key: KeyId, id: &str) -> Result<Option<StoredBatch>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT place, created_at, expires_at, cancel_initiated_at, ended_at FROM batches
             WHERE place = $1 AND total IS NOT NULL",
            place_of(key, id),
        )?;
        match row {
            Some(row) => self.counted(row).await.map(Some),
            None => Ok(None),
        }
    }

    /// Up to `limit` batches of this key, newest first. A page beside one that is not there is empty.
    pub async fn list(&self, key: KeyId, side: PageSide<'_>, limit: u32) -> Result<Vec<StoredBatch>> {
        let mut rows = match side {
            PageSide::Newest => self.page_after(key, (i64::MAX, String::new()), limit).await?,
            PageSide::After(id) => match self.mark(key, id).await? {
                Some(mark) => self.page_after(key, mark, limit).await?,
                None => Vec::new(),
            },
            PageSide::Before(id) => match self.mark(key, id).await? {
                Some(mark) => self.page_before(key, mark, limit).await?,
                None => Vec::new(),
            },
        };
        if matches!(side, PageSide::Before(_)) {
            rows.reverse();
        }
        let mut batches = Vec::with_capacity(rows.len());
        for row in rows {
            batches.push(self.counted(row).await?);
        }
        Ok(batches)
    }

    async fn mark(&self, key: KeyId, id: &str) -> Result<Option<(UnixMillis, String)>> {
        let place = place_of(key, id);
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            (UnixMillis,),
            "SELECT created_at FROM batches WHERE place = $1",
            place.as_str(),
        )?;
        Ok(row.map(|(created_at,)| (created_at, place)))
    }

    async fn page_after(&self, key: KeyId, (created_at, place): (UnixMillis, String), limit: u32) -> Result<Vec<Row>> {
        fetch_all!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT place, created_at, expires_at, cancel_initiated_at, ended_at FROM batches
             WHERE key_id = $1 AND total IS NOT NULL AND (created_at < $2 OR (created_at = $2 AND place < $3))
             ORDER BY created_at DESC, place DESC LIMIT $4",
            key.to_string(),
            created_at,
            place.as_str(),
            i64::from(limit),
        )
        .map_err(StoreError::from)
    }

    async fn page_before(&self, key: KeyId, (created_at, place): (UnixMillis, String), limit: u32) -> Result<Vec<Row>> {
        fetch_all!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT place, created_at, expires_at, cancel_initiated_at, ended_at FROM batches
             WHERE key_id = $1 AND total IS NOT NULL AND (created_at > $2 OR (created_at = $2 AND place > $3))
             ORDER BY created_at, place LIMIT $4",
            key.to_string(),
            created_at,
            place.as_str(),
            i64::from(limit),
        )
        .map_err(StoreError::from)
    }

    async fn counted(&self, row: Row) -> Result<StoredBatch> {
        let states = fetch_all!(
            &mut self.store.backend.read().await?,
            (String, i64),
            "SELECT state, COUNT(*) FROM batch_requests WHERE batch = $1 GROUP BY state",
            row.place.as_str(),
        )?;
        let mut counts = BatchCounts::default();
        for (state, count) in states {
            let count = count.unsigned_abs();
            match BatchOutcome::parse(&state) {
                None => counts.processing += count,
                Some(BatchOutcome::Succeeded) => counts.succeeded += count,
                Some(BatchOutcome::Errored) => counts.errored += count,
                Some(BatchOutcome::Canceled) => counts.canceled += count,
                Some(BatchOutcome::Expired) => counts.expired += count,
            }
        }
        let Row { place, created_at, expires_at, cancel_initiated_at, ended_at } = row;
        let id = place.split_once('/').map_or_else(String::new, |(_, id)| id.to_owned());
        Ok(StoredBatch { id, created_at, expires_at, cancel_initiated_at, ended_at, counts })
    }

    /// Gives up what has not begun of a batch. One that was cancelled before, or has ended, stays as it
    /// is. Returns whether the batch is there.
    pub async fn cancel(&self, key: KeyId, id: &str, now: UnixMillis) -> Result<bool> {
        let place = place_of(key, id);
        let mut write = self.store.backend.write(&[]).await?;
        // First, because it is also the lock of the batch.
        let there = execute!(
            &mut write,
            "UPDATE batches SET cancel_initiated_at =
                CASE WHEN ended_at IS NULL THEN COALESCE(cancel_initiated_at, $2) ELSE cancel_initiated_at END
             WHERE place = $1 AND total IS NOT NULL",
            place.as_str(),
            now,
        )?;
        execute!(
            &mut write,
            "UPDATE batch_requests SET state = 'canceled' WHERE batch = $1 AND state = 'waiting'",
            place.as_str(),
        )?;
        end(&mut write, &place, now).await?;
        write.commit().await?;
        Ok(there > 0)
    }

    /// Deletes a batch that has ended, with its results.
    pub async fn delete(&self, key: KeyId, id: &str) -> Result<Deletion> {
        let place = place_of(key, id);
        let mut write = self.store.backend.write(&[]).await?;
        let gone = execute!(
            &mut write,
            "DELETE FROM batches WHERE place = $1 AND ended_at IS NOT NULL AND total IS NOT NULL",
            place.as_str(),
        )?;
        write.commit().await?;
        Ok(match gone {
            0 if self.get(key, id).await?.is_some() => Deletion::Refused,
            0 => Deletion::Absent,
            _ => Deletion::Done,
        })
    }

    /// Up to `limit` outcomes from this position on, in order: what was sealed of each, which for one
    /// that was given up is its request. Requests without an outcome are left out.
    pub async fn outcomes(
        &self,
        key: KeyId,
        id: &str,
        from: u64,
        limit: u32,
    ) -> Result<Vec<(u64, BatchOutcome, Zeroizing<Vec<u8>>)>> {
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            (String, i64, String, String),
            "SELECT place, position, state, content FROM batch_requests
             WHERE batch = $1 AND position >= $2 AND state NOT IN ('waiting', 'running') ORDER BY position LIMIT $3",
            place_of(key, id),
            i64::try_from(from).unwrap_or(i64::MAX),
            i64::from(limit),
        )?;
        let open = |(place, position, state, envelope): (String, i64, String, String)| {
            let content = self.store.open_sealed(sealed_at(&place), &envelope)?;
            Ok(BatchOutcome::parse(&state).map(|outcome| (position.unsigned_abs(), outcome, content)))
        };
        rows.into_iter().filter_map(|row| open(row).transpose()).collect()
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    place: String,
    created_at: UnixMillis,
    expires_at: UnixMillis,
    cancel_initiated_at: Option<UnixMillis>,
    ended_at: Option<UnixMillis>,
}

/// One writer of a batch comes after the other, so that the last one sees that it is the last.
async fn lock(write: &mut Write, batch: &str) -> Result<()> {
    execute!(write, "UPDATE batches SET total = total WHERE place = $1", batch)?;
    Ok(())
}

/// Notes the end of a batch, if this was its last request. The batch is locked.
async fn end(write: &mut Write, batch: &str, now: UnixMillis) -> Result<()> {
    execute!(
        write,
        "UPDATE batches SET ended_at = $2 WHERE place = $1 AND ended_at IS NULL AND total IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM batch_requests WHERE batch = $1 AND state IN ('waiting', 'running'))",
        batch,
        now,
    )?;
    Ok(())
}

fn place_of(key: KeyId, id: &str) -> String {
    format!("{key}/{id}")
}

fn batch_of(place: &str) -> &str {
    place.rsplit_once('/').map_or(place, |(batch, _)| batch)
}

fn sealed_at(place: &str) -> Place<'_> {
    Place { table: "batch_requests", column: "content", row: place }
}
