//! What came in: the last requests, counts by path, how many at once.
//!
//! Knows nothing of what requests mean.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::state::lock;

/// Captured requests kept.
const KEPT: usize = 200;
/// Bodies kept, in bytes over all captured requests.
const KEPT_BYTES: usize = 64 << 20;

/// One request as it arrived.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Captured {
    /// Counts from one.
    pub(crate) number: u64,
    /// Unix milliseconds.
    pub(crate) at_ms: i128,
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// The account its token belongs to.
    pub(crate) account: Option<String>,
    /// Lower-case names; `authorization` holds the account and not the token.
    pub(crate) headers: BTreeMap<String, String>,
    /// Size after decompression, in bytes.
    pub(crate) body_bytes: usize,
    /// JSON, form fields as an object, or null.
    #[serde(serialize_with = "as_itself")]
    pub(crate) body: Arc<Value>,
}

fn as_itself<S: Serializer>(body: &Arc<Value>, serializer: S) -> Result<S::Ok, S::Error> {
    body.as_ref().serialize(serializer)
}

/// All traffic but the control API's.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    captured: Mutex<VecDeque<Captured>>,
    paths: Mutex<BTreeMap<String, PathCount>>,
    /// Requests so far.
    count: AtomicU64,
    /// Requests whose client left before the answer began.
    pub(crate) cancelled_early: AtomicU64,
    /// Refreshes with a token never issued.
    pub(crate) unknown_refreshes: AtomicU64,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
}

/// Requests of one method and path.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct PathCount {
    /// Requests.
    pub(crate) requests: u64,
    /// Answers by status; 0 is a connection closed on command.
    pub(crate) statuses: BTreeMap<u16, u64>,
}

impl Traffic {
    /// Counts a request and remembers it.
    pub(crate) fn capture(&self, mut request: Captured) {
        request.number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut captured = lock(&self.captured);
        captured.push_back(request);
        let mut bytes: usize = captured.iter().map(|one| one.body_bytes).sum();
        while captured.len() > KEPT || (bytes > KEPT_BYTES && captured.len() > 1) {
            bytes -= captured.pop_front().map_or(0, |oldest| oldest.body_bytes);
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, path: &str, status: u16) {
        let mut paths = lock(&self.paths);
        let count = paths.entry(path.to_owned()).or_default();
        count.requests += 1;
        *count.statuses.entry(status).or_default() += 1;
    }

    /// One more response in flight.
    pub(crate) fn take_off(&self) {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(now, Ordering::Relaxed);
    }

    /// One response fewer.
    pub(crate) fn land(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// In flight now, and the most at once.
    pub(crate) fn flights(&self) -> (u64, u64) {
        (self.in_flight.load(Ordering::Relaxed), self.max_in_flight.load(Ordering::Relaxed))
    }

    /// Requests so far.
    pub(crate) fn total(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The last `limit` requests, oldest first.
    pub(crate) fn recent(&self, limit: usize) -> Vec<Captured> {
        let captured = lock(&self.captured);
        captured.iter().skip(captured.len().saturating_sub(limit)).cloned().collect()
    }

    /// Counts by `METHOD /path`.
    pub(crate) fn paths(&self) -> BTreeMap<String, PathCount> {
        lock(&self.paths).clone()
    }

    /// Forgets all but what is in flight.
    pub(crate) fn clear(&self) {
        lock(&self.captured).clear();
        lock(&self.paths).clear();
        for counter in [&self.count, &self.cancelled_early, &self.unknown_refreshes, &self.max_in_flight] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}
