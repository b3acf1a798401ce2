//! What is to be written, in order: no answer waits for the database. Readers look here first, so
//! that a response can be followed the moment it has ended.
//!
//! Bounded by bytes and by number: a database that falls behind costs new responses their being
//! kept, which their clients are told, and not the gateway its memory.

use super::items::{self, Item};
use super::record::Record;
use crate::store::{KeyId, NewItem, NewResponse, Store, StoreError, UnixMillis};
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How much may wait: about as much as a busy minute brings.
const MOST_BYTES: usize = 128 * 1024 * 1024;
const MOST_WRITES: usize = 4096;
/// How much goes into one transaction.
const BATCH: usize = 256;
/// How long the first of them waits for others. On this server nobody notices, for readers look here
/// first; on others see [`LATEST`].
const GATHER: Duration = Duration::from_millis(200);
/// After how long another server's response is in the database, unless the database is slow: so long
/// is looked for one that is not there.
pub(super) const LATEST: Duration = Duration::from_millis(600);
/// How often a write that fails is tried again, at most.
const TRIES: u32 = 8;
/// How long to wait before the first of these tries; twice as long before each other.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long a reader waits for the writes before it.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Something to be written.
pub(super) enum Write {
    /// A response, over one of the same id.
    Put(Arc<Record>),
    /// The end of a response that is being worked on, unless it has ended otherwise.
    Finish(Arc<Record>),
    /// Responses that a later one builds on live as long as that.
    Extend { key: KeyId, ids: Vec<String>, expires_at: UnixMillis },
    /// New items of a conversation.
    Append { key: KeyId, conversation: String, items: Vec<Item>, now: UnixMillis, expires_at: UnixMillis },
    /// A response goes.
    Delete { key: KeyId, id: String, now: UnixMillis, done: oneshot::Sender<Result<bool, StoreError>> },
    /// Everything before this has been written.
    Reached(oneshot::Sender<()>),
}

/// The queue. One for the process.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Told when somebody waits for what is there to be written.
    wanted: Notify,
}

#[derive(Default)]
struct Waiting {
    writes: VecDeque<Write>,
    /// The newest version of each response that is not written yet.
    records: HashMap<(KeyId, String), Arc<Record>>,
    /// The size of the records above.
    bytes: usize,
}

impl Queue {
    /// Whether there is room for another response.
    pub(super) fn has_room(&self) -> bool {
        let waiting = self.lock();
        waiting.bytes < MOST_BYTES && waiting.writes.len() < MOST_WRITES
    }

    /// Takes something to be written.
    pub(super) fn push(&self, write: Write) {
        let mut waiting = self.lock();
        match &write {
            Write::Put(record) | Write::Finish(record) => waiting.show(record.clone()),
            Write::Delete { key, id, .. } => waiting.hide(*key, id),
            Write::Extend { .. } | Write::Append { .. } | Write::Reached(_) => {}
        }
        let is_awaited = matches!(write, Write::Delete { .. } | Write::Reached(_));
        waiting.writes.push_back(write);
        drop(waiting);
        self.arrived.notify_one();
        if is_awaited {
            self.wanted.notify_one();
        }
    }

    /// Waits until everything that was pushed before has been written.
    pub(super) async fn reached(&self) {
        let (done, reached) = oneshot::channel();
        self.push(Write::Reached(done));
        // In vain if the database does not answer, or the process is at its end: what is read then is
        // what the database has.
        let _ = tokio::time::timeout(LONGEST_WAIT, reached).await;
    }

    /// The response of this key and id, if it waits to be written.
    pub(super) fn get(&self, key: KeyId, id: &str) -> Option<Arc<Record>> {
        self.lock().records.get(&(key, id.to_owned())).cloned()
    }

    /// A response of this key that has an item of this id, if it waits to be written.
    pub(super) fn with_item(&self, key: KeyId, item: &str) -> Option<Arc<Record>> {
        let of_key: Vec<_> = self.lock().records.values().filter(|record| record.key == key).cloned().collect();
        of_key.into_iter().find(|record| record.item(item).is_some())
    }

    /// Writes until everything that is written has `ended`, and then what is left.
    pub(super) async fn write(&self, store: &Store, ended: impl Future<Output = ()>) {
        let mut ended = pin!(ended);
        loop {
            let mut stopping = tokio::select! {
                () = self.arrived.notified() => false,
                () = &mut ended => true,
            };
            if !stopping {
                // Others may come: one transaction for all of them.
                stopping = tokio::select! {
                    () = tokio::time::sleep(GATHER) => false,
                    () = self.wanted.notified() => false,
                    () = &mut ended => true,
                };
            }
            self.drain(store, stopping).await;
            if stopping {
                return;
            }
        }
    }

    /// Writes what is there; what comes meanwhile too, if it is the end.
    async fn drain(&self, store: &Store, is_end: bool) {
        let mut left = if is_end { usize::MAX } else { self.lock().writes.len() };
        loop {
            let batch: Vec<Write> = {
                let mut waiting = self.lock();
                let count = waiting.writes.len().min(BATCH).min(left);
                waiting.writes.drain(..count).collect()
            };
            if batch.is_empty() {
                return;
            }
            left -= batch.len();
            let mut puts = Vec::new();
            for write in batch {
                match write {
                    Write::Put(record) => puts.push(record),
                    other => {
                        self.put(store, &mut puts).await;
                        self.one(store, other).await;
                    }
                }
            }
            self.put(store, &mut puts).await;
        }
    }

    /// Writes responses in one transaction; each by itself if that fails.
    async fn put(&self, store: &Store, records: &mut Vec<Arc<Record>>) {
        let records = std::mem::take(records);
        if records.is_empty() {
            return;
        }
        if put(store, &records).await.is_err() {
            for record in &records {
                patiently(store, &Write::Put(record.clone())).await;
            }
        }
        self.lock().written(&records);
    }

    async fn one(&self, store: &Store, write: Write) {
        match write {
            Write::Delete { key, id, now, done } => {
                // Whoever asked may have gone; it is deleted all the same.
                let _ = done.send(store.responses().delete(key, &id, now).await);
            }
            Write::Reached(done) => {
                let _ = done.send(());
            }
            write => {
                patiently(store, &write).await;
                if let Write::Finish(record) = write {
                    self.lock().written(std::slice::from_ref(&record));
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn show(&mut self, record: Arc<Record>) {
        self.bytes += record.size();
        if let Some(old) = self.records.insert((record.key, record.id.clone()), record) {
            self.bytes -= old.size();
        }
    }

    fn hide(&mut self, key: KeyId, id: &str) {
        if let Some(old) = self.records.remove(&(key, id.to_owned())) {
            self.bytes -= old.size();
        }
    }

    /// These are in the database now; a newer version that waits stays.
    fn written(&mut self, records: &[Arc<Record>]) {
        for record in records {
            let at = (record.key, record.id.clone());
            if self.records.get(&at).is_some_and(|newest| Arc::ptr_eq(newest, record)) {
                self.hide(record.key, &record.id);
            }
        }
    }
}

async fn put(store: &Store, records: &[Arc<Record>]) -> Result<(), StoreError> {
    let sealed: Vec<_> = records.iter().filter_map(|record| Some((record, encoded(record)?))).collect();
    let rows: Vec<_> = sealed.iter().map(|(record, (items, content))| row(record, items, content)).collect();
    store.responses().put(&rows).await
}

async fn finish(store: &Store, record: &Record) -> Result<(), StoreError> {
    let Some((items, content)) = encoded(record) else { return Ok(()) };
    store.responses().finish(&row(record, &items, &content)).await.map(|_| ())
}

async fn append(
    store: &Store,
    key: KeyId,
    conversation: &str,
    items: &[Item],
    (now, expires_at): (UnixMillis, UnixMillis),
) -> Result<(), StoreError> {
    let named: Vec<_> = items.iter().filter_map(|item| Some((items::id(item)?, item.get()))).collect();
    let new: Vec<_> = named.iter().map(|(id, item)| NewItem { id, content: item.as_bytes() }).collect();
    store.conversations().append(key, conversation, &new, now, expires_at).await.map(|_| ())
}

async fn attempt(store: &Store, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Put(record) => put(store, std::slice::from_ref(record)).await,
        Write::Finish(record) => finish(store, record).await,
        Write::Extend { key, ids, expires_at } => store.responses().extend(*key, ids, *expires_at).await,
        Write::Append { key, conversation, items, now, expires_at } => {
            append(store, *key, conversation, items, (*now, *expires_at)).await
        }
        Write::Delete { .. } | Write::Reached(_) => Ok(()),
    }
}

fn encoded(record: &Record) -> Option<(Vec<String>, Vec<u8>)> {
    Some((record.item_ids(), serde_json::to_vec(&record.content).ok()?))
}

fn row<'a>(record: &'a Record, items: &'a [String], content: &'a [u8]) -> NewResponse<'a> {
    let Record { key, created_at, expires_at, lease_until, .. } = *record;
    NewResponse { key, id: &record.id, created_at, expires_at, lease_until, items, content }
}

/// Tries a write again while the database does not take it. What is given up is told in the log.
async fn patiently(store: &Store, write: &Write) {
    let mut pause = FIRST_PAUSE;
    for tries in 1..=TRIES {
        match attempt(store, write).await {
            Ok(()) => return,
            Err(error) if tries == TRIES => tracing::error!(%error, "a response was not kept: the database refused it"),
            Err(error) => {
                tracing::warn!(%error, tries, "a response could not be written; trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }
}
