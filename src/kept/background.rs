//! Responses that run without their client: begun, asked after, followed, cancelled, and brought to
//! their end whatever happens to whoever makes them.

use super::queue::Write;
use super::record::{self, Record};
use super::run::{End, Follower, Run};
use super::{Draft, Kept, Lookup, items};
use crate::dialect::{Problem, ProblemKind};
use crate::store::KeyId;
use bytes::Bytes;
use serde_json::json;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many may wait for each that runs: what waits holds its request in memory.
const MOST_WAITING: usize = 8;
/// How many bytes of requests run and wait at most.
const MOST_BYTES: usize = 256 * 1024 * 1024;
/// For how long one that is worked on is believed to be, in milliseconds.
const LEASE: i64 = 60_000;
/// How often that is renewed.
const RENEWAL: Duration = Duration::from_secs(15);

/// How often it is looked whether one on another server has ended, for those who follow it here.
const ELSEWHERE: Duration = Duration::from_millis(500);

/// The responses of this process that run without their client.
pub(super) struct Background {
    runs: Mutex<HashMap<(KeyId, String), Held>>,
    /// How many run at once; the others wait.
    slots: Semaphore,
    most: usize,
    /// Tasks: the process waits for them at its end.
    pub(super) tasks: TaskTracker,
    /// The process ends.
    pub(super) ending: CancellationToken,
}

/// A run, and how many bytes its request has.
struct Held {
    run: Arc<Run>,
    size: usize,
}

impl Background {
    pub(super) fn new(at_once: u32) -> Self {
        let at_once = usize::try_from(at_once).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            runs: Mutex::default(),
            slots: Semaphore::new(at_once),
            most: at_once.saturating_mul(MOST_WAITING + 1),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }

    fn get(&self, key: KeyId, id: &str) -> Option<Arc<Run>> {
        self.lock().get(&(key, id.to_owned())).map(|held| held.run.clone())
    }

    /// Takes one more in, if there is room for a request of this size.
    fn admit(&self, run: &Arc<Run>, size: usize) -> bool {
        let mut runs = self.lock();
        let bytes: usize = runs.values().map(|held| held.size).sum();
        if runs.len() >= self.most || bytes.saturating_add(size) > MOST_BYTES {
            return false;
        }
        runs.insert((run.draft.key, run.id.clone()), Held { run: run.clone(), size });
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(KeyId, String), Held>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response that somebody is to have made. Brings it to its end when it is dropped, so that a client
/// that leaves too early, a panic or a stop ends it too.
pub struct Announced {
    kept: Arc<Kept>,
    run: Arc<Run>,
    end: End,
}

impl Announced {
    /// What comes of it.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.kept.settle(&self.run, self.end);
    }
}

impl Kept {
    /// A response that is to run in the background is kept before its client hears of it. `size` is
    /// that of its request, which is in memory until it has ended.
    pub async fn announce(
        self: &Arc<Self>,
        draft: Draft,
        object: Option<String>,
        size: usize,
    ) -> Result<Announced, Problem> {
        let (Some(id), Some(object)) = (draft.background.clone(), object.and_then(items::raw)) else {
            return Err(Problem::new(ProblemKind::Internal, "The response could not be begun"));
        };
        let run = Arc::new(Run::new(draft, id.clone(), object, self.options.max_size));
        if !self.background.admit(&run, size) {
            let message = "Too many background responses are waiting; try again later";
            return Err(Problem { retry_after: Some(RENEWAL), ..Problem::new(ProblemKind::RateLimited, message) });
        }
        let announced = Announced { kept: self.clone(), run: run.clone(), end: End::Cancelled };
        let mut record = run.record(self.expiry(), Some(self.now() + LEASE));
        // Who reads it there is another process, which cannot tell what waits from what runs.
        record.content.response =
            record::changed(&record.content.response, &[("status", json!("in_progress").to_string())]);
        self.queue.push(Write::Put(Arc::new(record)));
        self.queue.reached().await;
        Ok(announced)
    }

    /// Has a response made: `make` hands what comes to [`Run::take`], and is dropped when nobody wants
    /// the rest.
    pub fn launch<F>(&self, mut announced: Announced, make: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        announced.end = End::Interrupted;
        self.background.tasks.spawn(async move {
            let mut announced = announced;
            let (kept, run) = (announced.kept.clone(), announced.run.clone());
            let work = async {
                let _slot = kept.background.slots.acquire().await;
                make.await;
            };
            announced.end = tokio::select! {
                biased;
                () = run.cancelled.cancelled() => End::Cancelled,
                () = kept.background.ending.cancelled() => End::Interrupted,
                () = kept.renew(&run) => End::Lost,
                () = work => End::Made,
            };
        });
    }

    /// Says again and again that a run is worked on; returns when another process has ended it.
    async fn renew(&self, run: &Run) {
        let (key, id) = (run.draft.key, run.id.as_str());
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.store.responses().renew(key, id, self.now() + LEASE).await {
                Ok(true) => {}
                // A database that is behind has not heard of it yet.
                Ok(false) if self.queue.get(key, id).is_some() => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, response = id, "the lease of a response was not renewed");
                }
            }
        }
    }

    /// Keeps how a run ended.
    fn settle(&self, run: &Arc<Run>, end: End) {
        run.conclude(end);
        if end != End::Lost && !run.is_unwanted() {
            let record = run.record(self.expiry(), None);
            self.keep_beside(&run.draft, &record.content.response);
            self.queue.push(Write::Finish(Arc::new(record)));
        }
        self.background.lock().remove(&(run.draft.key, run.id.clone()));
        run.close();
    }

    /// The run of this key and id as what would be read of it.
    pub(super) fn running(&self, key: KeyId, id: &str) -> Option<Arc<Record>> {
        let run = self.background.get(key, id)?;
        // Who has read that it is over may continue from it, also before its task is at its end.
        let lease_until = (!run.is_over()).then(|| self.now() + LEASE);
        Some(Arc::new(run.record(self.expiry(), lease_until)))
    }

    /// Ends a run that is to be deleted.
    pub(super) fn abandon(&self, key: KeyId, id: &str) {
        if let Some(run) = self.background.get(key, id) {
            run.abandon();
        }
    }

    /// Cancels a response that runs in the background; one that has ended stays as it is. Returns the
    /// response object.
    pub async fn cancel(&self, key: KeyId, id: &str) -> Result<String, Problem> {
        if let Some(run) = self.background.get(key, id) {
            run.cancel();
            run.ended().await;
            return Ok(run.response());
        }
        let record = self.known(key, id).await?;
        if !record.content.background {
            let message = "Only responses that were made with `background` set to true can be cancelled";
            return Err(Problem::new(ProblemKind::InvalidRequest, message));
        }
        if !record.is_running(self.now()) {
            return Ok(record.response(self.now()).get().to_owned());
        }
        // Another process runs it: it stops when it sees that its response has ended.
        let mut ended = (*record).clone();
        ended.content.response = record::ended(&ended.content.response, "cancelled", None);
        ended.lease_until = None;
        let response = ended.content.response.get().to_owned();
        self.queue.push(Write::Finish(Arc::new(ended)));
        self.queue.reached().await;
        Ok(response)
    }

    /// The events of a streamed background response, after the one of this number.
    pub async fn follow(self: &Arc<Self>, key: KeyId, id: &str, after: Option<u64>) -> Result<Follower, Problem> {
        let unstreamed = || {
            let message =
                "Only responses that were made with `background` and `stream` set to true can be streamed again";
            Problem::invalid("stream", message)
        };
        if let Some(run) = self.background.get(key, id) {
            return if run.draft.is_streamed { Ok(Follower::new(run, after)) } else { Err(unstreamed()) };
        }
        let record = self.known(key, id).await?;
        let Some(events) = &record.content.events else { return Err(unstreamed()) };
        let draft = Draft::of(&record);
        let run = Arc::new(Run::new(draft, record.id.clone(), record.content.response.clone(), usize::MAX));
        if record.is_running(self.now()) {
            tokio::spawn(Arc::clone(self).await_end(Arc::clone(&run)));
        } else {
            replay(&run, events);
        }
        Ok(Follower::new(run, after))
    }

    /// Waits for the end of a run on another server, and gives its events to those who read here.
    async fn await_end(self: Arc<Self>, run: Arc<Run>) {
        let key = run.draft.key;
        // As long as somebody reads besides this.
        while Arc::strong_count(&run) > 1 {
            tokio::select! {
                () = tokio::time::sleep(ELSEWHERE) => {}
                // Who follows goes on elsewhere, from the last event that was read.
                () = self.background.ending.cancelled() => return run.close(),
            }
            match self.find(key, &run.id).await {
                Ok(Lookup::Found(record)) if record.is_running(self.now()) => {}
                Ok(Lookup::Found(record)) => return replay(&run, record.content.events.as_deref().unwrap_or_default()),
                Ok(Lookup::Absent) => return replay(&run, ""),
                // The database is away: it may be back in a moment.
                Err(_) => {}
            }
        }
    }
}

/// Lets those who follow a run read its events, and its end whatever became of it.
fn replay(run: &Run, events: &str) {
    run.take(Bytes::copy_from_slice(events.as_bytes()));
    run.conclude(End::Interrupted);
    run.close();
}
