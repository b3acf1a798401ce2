//! Rotation of the master key: reseals, under the keyring's first key, whatever is sealed under
//! another. May be stopped anywhere and started again, and runs beside a server that is working.
//!
//! The order for an operator: put the new key first and keep the old one behind it, restart every
//! server, rotate, and drop the old key once `remaining` is zero. A server that still seals under
//! the old key keeps `remaining` above zero.

use super::{
    Store,
    backend::{Write, execute, fetch_all, fetch_one},
    error::Result,
    vault::Place,
};

/// How a rotation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Values resealed in one transaction: the longest that other writers wait.
    pub batch: u32,
    /// Stop after so many values, at the end of a transaction; `None` runs to the end.
    pub stop_after: Option<u64>,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { batch: 100, stop_after: None }
    }
}

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RotationReport {
    /// Values that are now under the first key.
    pub resealed: u64,
    /// Values that were under it already.
    pub current: u64,
    /// Values that somebody else replaced meanwhile; theirs were kept and looked at again.
    pub raced: u64,
    /// Values still under another key. Above zero: run it again before dropping a key.
    pub remaining: u64,
}

/// A sealed column and its statements. `$1` is always the id of the first key.
struct SealedColumn {
    table: &'static str,
    column: &'static str,
    /// How many are under the first key, and under others.
    count: &'static str,
    /// The next `$3` after row `$2` that are not under the first key.
    next: &'static str,
    /// Replaces envelope `$2` of row `$1` by `$3`, if it is still there.
    swap: &'static str,
}

#[rustfmt::skip] // A statement reads as one only when it stands on few lines.
macro_rules! sealed_column {
    ($table:literal, $id:literal, $column:literal) => {
        SealedColumn {
            table: $table,
            column: $column,
            count: concat!(
                "SELECT COUNT(CASE WHEN substr(", $column, ", 5, 16) = $1 THEN 1 END),
                    COUNT(CASE WHEN substr(", $column, ", 5, 16) <> $1 THEN 1 END)
                 FROM ", $table,
            ),
            next: concat!(
                "SELECT ", $id, ", ", $column, " FROM ", $table,
                " WHERE substr(", $column, ", 5, 16) <> $1 AND ", $id, " > $2
                 ORDER BY ", $id, " LIMIT $3",
            ),
            swap: concat!(
                "UPDATE ", $table, " SET ", $column, " = $3
                 WHERE ", $id, " = $1 AND ", $column, " = $2",
            ),
        }
    };
}

/// Every sealed column there is.
const SEALED_COLUMNS: [SealedColumn; 9] = [
    sealed_column!("credentials", "account_id", "access_token"),
    sealed_column!("credentials", "account_id", "refresh_token"),
    sealed_column!("credentials", "account_id", "id_token"),
    sealed_column!("responses", "place", "content"),
    sealed_column!("conversations", "place", "content"),
    sealed_column!("conversation_items", "place", "content"),
    sealed_column!("batch_requests", "place", "content"),
    sealed_column!("secrets", "name", "value"),
    sealed_column!("slips", "id", "content"),
];

impl Store {
    /// Reseals everything that is not under the keyring's first key. What it changes is no change to
    /// a reader, so revisions stay.
    pub async fn rotate_keyring(&self, rotation: Rotation) -> Result<RotationReport> {
        let mut report = RotationReport { current: self.count_sealed().await?.0, ..Default::default() };
        // Again when something raced, because its replacement may be under an old key too.
        loop {
            let raced_before = report.raced;
            for column in &SEALED_COLUMNS {
                self.reseal_column(column, rotation, &mut report).await?;
            }
            if report.raced == raced_before || rotation.is_over(report) {
                break;
            }
        }
        report.remaining = self.count_sealed().await?.1;
        self.note_deed("keyring.rotate", self.keyring.sealing_key_id(), "keyring").await?;
        Ok(report)
    }

    async fn reseal_column(
        &self,
        column: &SealedColumn,
        rotation: Rotation,
        report: &mut RotationReport,
    ) -> Result<()> {
        let mut after = String::new();
        while !rotation.is_over(*report) {
            let mut write = self.backend.write(&[]).await?;
            let rows = fetch_all!(
                &mut write,
                (String, String),
                column.next,
                self.keyring.sealing_key_id(),
                after.as_str(),
                rotation.next_batch(*report),
            )?;
            let Some((last, _)) = rows.last() else { break };
            after.clone_from(last);
            for (row, envelope) in &rows {
                if self.reseal(&mut write, column, row, envelope).await? {
                    report.resealed += 1;
                } else {
                    report.raced += 1;
                }
            }
            write.commit().await?;
        }
        Ok(())
    }

    /// Returns whether the envelope was still there. A refresh that was stored since it was read is
    /// never overwritten.
    async fn reseal(&self, write: &mut Write, column: &SealedColumn, row: &str, envelope: &str) -> Result<bool> {
        let place = Place { table: column.table, column: column.column, row };
        let resealed = self.seal(place, &self.open_sealed(place, envelope)?)?;
        let swapped = execute!(write, column.swap, row, envelope, resealed)?;
        Ok(swapped > 0)
    }

    /// How many values are under the first key, and how many under others.
    async fn count_sealed(&self) -> Result<(u64, u64)> {
        let mut session = self.backend.read().await?;
        let mut total = (0, 0);
        for column in &SEALED_COLUMNS {
            let (current, other) = fetch_one!(&mut session, (i64, i64), column.count, self.keyring.sealing_key_id(),)?;
            total.0 += current.unsigned_abs();
            total.1 += other.unsigned_abs();
        }
        Ok(total)
    }
}

impl Rotation {
    fn is_over(self, report: RotationReport) -> bool {
        self.stop_after.is_some_and(|limit| report.resealed >= limit)
    }

    /// No more than is left until `stop_after`.
    fn next_batch(self, report: RotationReport) -> i64 {
        let left = self.stop_after.map_or(u64::MAX, |limit| limit.saturating_sub(report.resealed));
        i64::from(self.batch.max(1)).min(i64::try_from(left).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::store::{OpenOptions, vault::Keyring};

    #[tokio::test]
    async fn an_envelope_that_was_replaced_meanwhile_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("tollway.db").display()).into();
        let keyring = Keyring::generate().unwrap();
        let store = Store::open(OpenOptions { url, keyring }).await.unwrap();
        store.migrate().await.unwrap();
        let pepper = store.pepper().await.unwrap();
        let [.., column] = &SEALED_COLUMNS;
        let place = Place { table: column.table, column: column.column, row: "pepper" };
        // Sealed once more by itself: what a rotation has read and what is stored now differ.
        let read_before = store.seal(place, &[7; 32]).unwrap();

        let mut write = store.backend.write(&[]).await.unwrap();
        assert!(!store.reseal(&mut write, column, "pepper", &read_before).await.unwrap());
        write.commit().await.unwrap();
        assert_eq!(store.pepper().await.unwrap().expose_secret(), pepper.expose_secret());
    }
}
