//! Who works on what: a request is claimed, and ends or is put back. And what ends by itself, in time.

use super::{BatchOutcome, BatchStore, ClaimedRequest, batch_of, end, lock, sealed_at};
use crate::store::{
    UnixMillis,
    backend::{execute, fetch_all, fetch_optional},
    error::Result,
};

impl BatchStore<'_> {
    /// The keys that have requests to be worked on.
    pub async fn keys_with_work(&self, now: UnixMillis) -> Result<Vec<String>> {
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            (String,),
            "SELECT DISTINCT key_id FROM batches WHERE ended_at IS NULL AND total IS NOT NULL AND EXISTS (
                SELECT 1 FROM batch_requests WHERE batch = batches.place
                AND ((state = 'waiting' AND not_before <= $1) OR (state = 'running' AND lease_until <= $1)))
             ORDER BY key_id",
            now,
        )?;
        Ok(rows.into_iter().map(|(key,)| key).collect())
    }

    /// Begins to work on the next request of this key, its oldest batch first: nobody else does until
    /// `lease_until`. `None` if there is none, or somebody else was faster.
    pub async fn claim(&self, key: &str, now: UnixMillis, lease_until: UnixMillis) -> Result<Option<ClaimedRequest>> {
        let mut write = self.store.backend.write(&[]).await?;
        let next = fetch_optional!(
            &mut write,
            (String, i64, String),
            "SELECT batch_requests.place, attempts, content FROM batches
             JOIN batch_requests ON batch_requests.batch = batches.place
             WHERE key_id = $1 AND ended_at IS NULL AND total IS NOT NULL
                AND ((state = 'waiting' AND not_before <= $2) OR (state = 'running' AND lease_until <= $2))
             ORDER BY created_at, position LIMIT 1",
            key,
            now,
        )?;
        let Some((place, attempts, envelope)) = next else { return Ok(None) };
        let mine = execute!(
            &mut write,
            "UPDATE batch_requests SET state = 'running', lease_until = $3
             WHERE place = $1 AND (state = 'waiting' OR (state = 'running' AND lease_until <= $2))",
            place.as_str(),
            now,
            lease_until,
        )?;
        write.commit().await?;
        if mine == 0 {
            return Ok(None);
        }
        let content = self.store.open_sealed(sealed_at(&place), &envelope)?;
        Ok(Some(ClaimedRequest { place, attempts, content }))
    }

    /// Says that a request is still being worked on.
    pub async fn renew(&self, place: &str, lease_until: UnixMillis) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        execute!(
            &mut write,
            "UPDATE batch_requests SET lease_until = $2 WHERE place = $1 AND state = 'running'",
            place,
            lease_until,
        )?;
        write.commit().await
    }

    /// Keeps the outcome of a request that was claimed, the first one for good. Returns whether it was
    /// this one.
    pub async fn finish(&self, place: &str, outcome: BatchOutcome, result: &[u8], now: UnixMillis) -> Result<bool> {
        let envelope = self.store.seal(sealed_at(place), result)?;
        let mut write = self.store.backend.write(&[]).await?;
        lock(&mut write, batch_of(place)).await?;
        let kept = execute!(
            &mut write,
            "UPDATE batch_requests SET state = $2, content = $3, lease_until = NULL
             WHERE place = $1 AND state = 'running'",
            place,
            outcome.as_str(),
            envelope,
        )?;
        end(&mut write, batch_of(place), now).await?;
        write.commit().await?;
        Ok(kept > 0)
    }

    /// Gives a claimed request back, for another try from `not_before` on. In a batch that was
    /// cancelled meanwhile there is none.
    pub async fn put_back(&self, place: &str, attempts: i64, not_before: UnixMillis, now: UnixMillis) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        lock(&mut write, batch_of(place)).await?;
        execute!(
            &mut write,
            "UPDATE batch_requests SET attempts = $2, not_before = $3, lease_until = NULL, state = CASE WHEN EXISTS (
                SELECT 1 FROM batches WHERE batches.place = batch AND cancel_initiated_at IS NOT NULL)
                THEN 'canceled' ELSE 'waiting' END
             WHERE place = $1 AND state = 'running'",
            place,
            attempts,
            not_before,
        )?;
        end(&mut write, batch_of(place), now).await?;
        write.commit().await
    }

    /// Gives back everything that is being worked on, where no other process can be at work: a SQLite
    /// file has one server. Batches that were never written to their end go.
    pub async fn begin(&self, now: UnixMillis) -> Result<()> {
        if self.store.is_shared() {
            return Ok(());
        }
        let mut write = self.store.backend.write(&[]).await?;
        execute!(&mut write, "UPDATE batch_requests SET lease_until = $1 WHERE state = 'running'", now)?;
        execute!(&mut write, "DELETE FROM batches WHERE total IS NULL")?;
        write.commit().await
    }

    /// Gives up what has not begun when its batch's time is over, and deletes up to `limit` batches
    /// that were made before `oldest`. Returns how many were deleted.
    pub async fn sweep(&self, now: UnixMillis, oldest: UnixMillis, limit: u32) -> Result<u64> {
        let over = fetch_all!(
            &mut self.store.backend.read().await?,
            (String,),
            "SELECT place FROM batches WHERE ended_at IS NULL AND total IS NOT NULL AND expires_at <= $1",
            now,
        )?;
        for (batch,) in over {
            let mut write = self.store.backend.write(&[]).await?;
            lock(&mut write, &batch).await?;
            execute!(
                &mut write,
                "UPDATE batch_requests SET state = 'expired' WHERE batch = $1
                    AND (state = 'waiting' OR (state = 'running' AND lease_until <= $2))",
                batch.as_str(),
                now,
            )?;
            end(&mut write, &batch, now).await?;
            write.commit().await?;
        }
        let old = fetch_all!(
            &mut self.store.backend.read().await?,
            (String,),
            "SELECT place FROM batches WHERE created_at <= $1 ORDER BY created_at LIMIT $2",
            oldest,
            i64::from(limit),
        )?;
        let mut gone = 0;
        for (batch,) in old {
            let mut write = self.store.backend.write(&[]).await?;
            gone += execute!(&mut write, "DELETE FROM batches WHERE place = $1", batch)?;
            write.commit().await?;
        }
        Ok(gone)
    }
}
