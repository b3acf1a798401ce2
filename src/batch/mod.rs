//! Message batches (Anthropic's `/v1/messages/batches`): many requests handed in at once, worked on when
//! there is room, their results fetched in the end.
//!
//! This room must not know how an answer comes about: it hands out work and takes results. Every
//! request has one outcome, whatever stops in between; what was being worked on is done again.

mod object;
mod request;
mod work;

pub use object::results_path;
pub use request::Page;
pub use work::{Verdict, Work, judge};

use crate::dialect::{Problem, ProblemKind};
use crate::store::{BatchOutcome, Deletion, Duty, KeyId, NewBatch, Store, StoreError, StoredBatch, UnixMillis};
use bytes::{Bytes, BytesMut};
use object::Object;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What is kept, and for how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long after its making a batch is given up and what has not begun expires.
    pub expiry: Duration,
    /// How long after its making a batch and its results are deleted.
    pub retention: Duration,
    /// How many requests of one key may be without an outcome.
    pub max_requests: u32,
}

/// Batches. One for the process.
pub struct Batches {
    store: Store,
    options: Options,
    /// Hands out the time.
    clock: fn() -> UnixMillis,
    /// There may be something to do.
    wake: Notify,
    /// The key that was served last: the next one's turn comes after it.
    last_served: Mutex<String>,
}

/// For how long work is believed to be done without a sign, in milliseconds.
const LEASE: i64 = 60_000;
/// How often what is over is looked for.
const SWEEP_PACE: Duration = Duration::from_secs(15);
/// How much is deleted at once.
const SWEEP_BATCH: u32 = 20;
/// How many results are read at once.
const RESULTS_AT_ONCE: u32 = 100;

impl Batches {
    /// Batches in this store.
    pub fn new(store: Store, options: Options, clock: fn() -> UnixMillis) -> Arc<Self> {
        Arc::new(Self { store, options, clock, wake: Notify::new(), last_served: Mutex::default() })
    }

    /// Takes a batch. `origin` begins the address of its results, here and below.
    pub async fn create(&self, key: KeyId, body: &Bytes, origin: &str) -> Result<String, Problem> {
        let requests = request::requests(body)?;
        let waiting = self.store.batches().unended(key).await.map_err(|error| unreadable(&error))?;
        let most = u64::from(self.options.max_requests);
        if waiting + requests.len() as u64 > most {
            let message = format!(
                "This key may have {most} requests in unfinished batches; {waiting} are, and this batch has {} more",
                requests.len()
            );
            return Err(Problem::new(ProblemKind::RateLimited, message));
        }
        let now = self.now();
        let id = format!("msgbatch_{}", Uuid::now_v7().simple());
        let batch = NewBatch { key, id: &id, created_at: now, expires_at: now + millis(self.options.expiry) };
        let contents: Vec<&[u8]> = requests.iter().map(|one| one.get().as_bytes()).collect();
        self.store.batches().put(&batch, &contents).await.map_err(|error| unreadable(&error))?;
        self.wake.notify_one();
        self.get(key, &id, origin).await
    }

    /// The batch of this key and id.
    pub async fn get(&self, key: KeyId, id: &str, origin: &str) -> Result<String, Problem> {
        Ok(Object::of(&self.known(key, id).await?, origin).to_json())
    }

    /// A page of the key's batches, newest first.
    pub async fn list(&self, key: KeyId, page: &Page, origin: &str) -> Result<String, Problem> {
        let found = self.store.batches().list(key, page.side(), page.limit + 1).await;
        Ok(object::list(found.map_err(|error| unreadable(&error))?, page, origin))
    }

    /// Gives up what has not begun of a batch.
    pub async fn cancel(&self, key: KeyId, id: &str, origin: &str) -> Result<String, Problem> {
        let is_there = self.store.batches().cancel(key, id, self.now()).await.map_err(|error| unreadable(&error))?;
        if is_there { self.get(key, id, origin).await } else { Err(unknown(id)) }
    }

    /// Deletes a batch that has ended.
    pub async fn delete(&self, key: KeyId, id: &str) -> Result<String, Problem> {
        match self.store.batches().delete(key, id).await.map_err(|error| unreadable(&error))? {
            Deletion::Done => Ok(object::deleted(id)),
            Deletion::Absent => Err(unknown(id)),
            Deletion::Refused => {
                let message = format!("The batch {id} has not ended: cancel it, and delete it when it has ended");
                Err(Problem::new(ProblemKind::InvalidRequest, message))
            }
        }
    }

    /// Whether the results of a batch can be read.
    pub async fn expect_results(&self, key: KeyId, id: &str) -> Result<(), Problem> {
        if self.known(key, id).await?.ended_at.is_some() {
            return Ok(());
        }
        let message = format!("The batch {id} has no results before it has ended");
        Err(Problem::new(ProblemKind::InvalidRequest, message))
    }

    /// Results from a position on, one a line, and the position after them; `None` behind the last.
    pub async fn results(&self, key: KeyId, id: &str, from: u64) -> Result<Option<(Bytes, u64)>, StoreError> {
        let outcomes = self.store.batches().outcomes(key, id, from, RESULTS_AT_ONCE).await?;
        let Some((last, _, _)) = outcomes.last() else { return Ok(None) };
        let next = last + 1;
        let mut lines = BytesMut::new();
        for (_, outcome, content) in &outcomes {
            match outcome {
                BatchOutcome::Succeeded | BatchOutcome::Errored => lines.extend_from_slice(content),
                BatchOutcome::Canceled => lines.extend_from_slice(&work::given_up(content, "canceled")),
                BatchOutcome::Expired => lines.extend_from_slice(&work::given_up(content, "expired")),
            }
            lines.extend_from_slice(b"\n");
        }
        Ok(Some((lines.freeze(), next)))
    }

    /// Gives up what has expired and deletes what is old, until `stop`.
    pub async fn sweep(self: Arc<Self>, duty: Duty, stop: CancellationToken) {
        let pace = (self.options.expiry / 4).clamp(Duration::from_millis(100), SWEEP_PACE);
        loop {
            let now = self.now();
            let oldest = now - millis(self.options.retention);
            if duty.is_ours()
                && let Err(error) = self.store.batches().sweep(now, oldest, SWEEP_BATCH).await
            {
                tracing::warn!(%error, "batches whose time is over could not be swept");
            }
            tokio::select! {
                () = tokio::time::sleep(pace) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn known(&self, key: KeyId, id: &str) -> Result<StoredBatch, Problem> {
        let found = self.store.batches().get(key, id).await.map_err(|error| unreadable(&error))?;
        found.ok_or_else(|| unknown(id))
    }

    fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, String> {
        self.last_served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// No batch of this id for this key; whether another key has one is nobody's business.
fn unknown(id: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("There is no batch {id}"))
}

/// The store does not do its part; why is for the operator.
fn unreadable(error: &StoreError) -> Problem {
    tracing::error!(%error, "batches could not be read or written");
    if error.is_outage() {
        return Problem::unavailable("Batches cannot be read or written now: the gateway's database does not answer");
    }
    Problem::new(ProblemKind::Internal, "The gateway could not reach its batches")
}
