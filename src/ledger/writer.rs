//! Gathers rows and writes them in batches.

use crate::store::{Duty, Store, UnixMillis, UsageRow};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Rows in one transaction.
const BATCH: usize = 1000;
/// How long it is waited after a failure, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often old rows are forgotten, and how many at a time.
const SWEEP: Duration = Duration::from_mins(10);
const AT_A_TIME: u32 = 5000;

/// How the books are kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long a row waits for others at most: what `kill -9` may cost.
    pub flush_interval: Duration,
    /// How many rows may wait for the database before requests have to.
    pub buffer: usize,
    /// How long single requests are kept; for ever, if this is zero.
    pub retention: Duration,
    /// How long sums by the hour are kept; for ever, if this is zero.
    pub hourly_retention: Duration,
}

/// What waits to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many rows.
    pub rows: usize,
    /// How long the oldest has waited.
    pub oldest: Duration,
    /// Whether new requests have to wait.
    pub is_full: bool,
    /// How often a write has failed since the process began.
    pub failures: u64,
}

/// A row that waits longer than this is no matter of batches any more.
const LATE: Duration = Duration::from_secs(10);

impl Backlog {
    /// What an operator should see to, in words.
    pub fn fault(&self) -> Option<String> {
        let Self { rows, oldest, failures, .. } = self;
        let what = if self.is_full {
            "there is no room for more, and new requests wait".to_owned()
        } else if *oldest > LATE {
            format!("the oldest for {} s", oldest.as_secs())
        } else {
            return None;
        };
        Some(format!("the ledger is not written: {rows} rows wait, {what}; {failures} writes have failed"))
    }
}

/// What somebody wants done once all rows before it are written.
type Then = Box<dyn FnOnce(Store) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

enum Entry {
    /// A row, and since when it waits.
    Row(Box<UsageRow>, Instant),
    Then(Then),
}

/// The books of this process. One for the process.
pub struct Ledger {
    store: Store,
    options: Options,
    /// What is not written yet, in order.
    waiting: Mutex<VecDeque<Entry>>,
    /// Told when something has come in.
    filled: Notify,
    /// Told when something was written.
    written: Notify,
    /// How many writes have failed.
    failures: AtomicU64,
    /// How many wait for rows to be written.
    awaited: AtomicU64,
    /// Held while rows are being written.
    writing: tokio::sync::Mutex<()>,
    /// What this server is called among those that hold limits together.
    replica: OnceLock<String>,
}

impl Ledger {
    /// Books over this store.
    pub fn new(store: Store, options: Options) -> Arc<Self> {
        Arc::new(Self {
            store,
            options,
            waiting: Mutex::default(),
            filled: Notify::new(),
            written: Notify::new(),
            failures: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            writing: tokio::sync::Mutex::default(),
            replica: OnceLock::new(),
        })
    }

    /// From now on what is written is taken off what this server says that it has used beside the ledger.
    pub fn writes_as(&self, replica: &str) {
        // Said once, at the start.
        let _ = self.replica.set(replica.to_owned());
    }

    /// Waits until no row is being written; none is until the guard is dropped.
    pub async fn still(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// Looks at the rows that are not written. Like `alongside` of [`Ledger::record`] it runs at one
    /// point of the order.
    pub fn unwritten<R>(&self, look: impl FnOnce(&mut dyn Iterator<Item = &UsageRow>) -> R) -> R {
        let waiting = self.lock();
        let mut rows = waiting.iter().filter_map(|entry| match entry {
            Entry::Row(row, _) => Some(&**row),
            Entry::Then(_) => None,
        });
        look(&mut rows)
    }

    /// Takes a row; never waits and never drops. `alongside` runs at the same point of the order, so
    /// that who counts beside the books can tell what comes before a [`Ledger::then`] from what
    /// comes after.
    pub fn record(&self, row: UsageRow, alongside: impl FnOnce()) {
        let mut waiting = self.lock();
        alongside();
        waiting.push_back(Entry::Row(Box::new(row), Instant::now()));
        let length = waiting.len();
        drop(waiting);
        // Rows in between change nothing: the writer waits until the first is due, or there are enough.
        if length == 1 || length >= self.enough() {
            self.filled.notify_one();
        }
    }

    /// Runs `at_once` now, and `work` when all rows that came before are written.
    pub fn then<F>(&self, at_once: impl FnOnce(), work: impl FnOnce(Store) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut waiting = self.lock();
        at_once();
        self.awaited.fetch_add(1, Ordering::Relaxed);
        waiting.push_back(Entry::Then(Box::new(|store| Box::pin(work(store)))));
        drop(waiting);
        self.filled.notify_one();
    }

    /// Waits until there is room for another request's row, but no longer than `patience`; says
    /// whether there is.
    pub async fn room(&self, patience: Duration) -> bool {
        if self.len() < self.options.buffer {
            return true;
        }
        let deadline = Instant::now() + patience;
        loop {
            let written = self.written.notified();
            if self.len() < self.options.buffer {
                return true;
            }
            if tokio::time::timeout_at(deadline, written).await.is_err() {
                return false;
            }
        }
    }

    /// How long the oldest row has waited.
    pub fn oldest(&self) -> Duration {
        let waiting = self.lock();
        let since = waiting.iter().find_map(|entry| match entry {
            Entry::Row(_, since) => Some(*since),
            Entry::Then(_) => None,
        });
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How many rows are not written yet.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether all is written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits, and for how long.
    pub fn backlog(&self) -> Backlog {
        let waiting = self.lock();
        let mut since = waiting.iter().filter_map(|entry| match entry {
            Entry::Row(_, since) => Some(*since),
            Entry::Then(_) => None,
        });
        let oldest = since.next();
        Backlog {
            rows: usize::from(oldest.is_some()) + since.count(),
            oldest: oldest.map_or(Duration::ZERO, |since| since.elapsed()),
            is_full: waiting.len() >= self.options.buffer,
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Writes until `stop`, and then what is left: after `stop` every request is over.
    pub async fn write(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = AGAIN.0;
        loop {
            let stopping = stop.is_cancelled();
            let filled = self.filled.notified();
            if self.is_empty() {
                if stopping {
                    return;
                }
                tokio::select! {
                    () = filled => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            if !stopping {
                self.gather(&stop).await;
            }
            if self.write_some().await {
                pause = AGAIN.0;
                continue;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    /// How many rows are not waited with.
    fn enough(&self) -> usize {
        BATCH.min(self.options.buffer)
    }

    /// Waits until what stands in front is due: others may come, and one transaction is for all of
    /// them. Also while rows come without a pause, or there would be a transaction for each few.
    async fn gather(&self, stop: &CancellationToken) {
        let enough = self.enough();
        loop {
            let filled = self.filled.notified();
            let due = {
                let waiting = self.lock();
                match waiting.front() {
                    Some(Entry::Row(_, since)) if waiting.len() < enough && !self.is_awaited() => {
                        *since + self.options.flush_interval
                    }
                    _ => return,
                }
            };
            tokio::select! {
                // It may be enough now.
                () = filled => {}
                () = tokio::time::sleep_until(due) => return,
                () = stop.cancelled() => return,
            }
        }
    }

    fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed) > 0
    }

    /// Writes all that there is.
    pub async fn finish(&self) {
        while !self.is_empty() {
            if !self.write_some().await {
                tokio::time::sleep(AGAIN.0).await;
            }
        }
    }

    /// Writes what stands in front. Rows leave the buffer only when they are in the database.
    async fn write_some(&self) -> bool {
        // Until the rows are no more among those that are not written.
        let guard = self.writing.lock().await;
        let rows: Vec<UsageRow> = {
            let entries = self.lock();
            let rows = entries.iter().take(BATCH).map_while(|entry| match entry {
                Entry::Row(row, _) => Some((**row).clone()),
                Entry::Then(_) => None,
            });
            rows.collect()
        };
        if !rows.is_empty() {
            let replica = self.replica.get().map(String::as_str);
            if let Err(error) = self.store.ledger().append_as(replica, &rows).await {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, waiting = self.len(), "usage could not be written; it waits");
                return false;
            }
            self.lock().drain(..rows.len());
            drop(guard);
            self.written.notify_waiters();
        }
        loop {
            let next = self.lock().pop_front_if(|entry| matches!(entry, Entry::Then(_)));
            let Some(Entry::Then(work)) = next else { return true };
            self.awaited.fetch_sub(1, Ordering::Relaxed);
            work(self.store.clone()).await;
            self.written.notify_waiters();
        }
    }

    /// Forgets what is old, until `stop`, while it is ours to do for all replicas.
    pub async fn sweep(self: Arc<Self>, duty: Duty, now: fn() -> UnixMillis, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let before = |kept: Duration| match i64::try_from(kept.as_millis()) {
                Ok(0) | Err(_) => i64::MIN,
                Ok(kept) => now().saturating_sub(kept),
            };
            while duty.is_ours() {
                let (requests, hours) = (before(self.options.retention), before(self.options.hourly_retention));
                match self.store.ledger().forget(requests, hours, AT_A_TIME).await {
                    Ok(gone) if (gone.requests == u64::from(AT_A_TIME) || gone.sums > 0) && !stop.is_cancelled() => {
                        // Others write too.
                        tokio::time::sleep(AGAIN.0).await;
                    }
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "old usage was not forgotten");
                        break;
                    }
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Entry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_a_fault_when_it_is_late_or_full() {
        let some = Backlog { rows: 12, oldest: Duration::from_secs(9), ..Backlog::default() };
        assert_eq!(some.fault(), None);
        let late = Backlog { oldest: Duration::from_secs(11), failures: 3, ..some };
        assert_eq!(
            late.fault().as_deref(),
            Some("the ledger is not written: 12 rows wait, the oldest for 11 s; 3 writes have failed")
        );
        assert!(Backlog { is_full: true, ..some }.fault().is_some_and(|fault| fault.contains("no room")));
    }
}
