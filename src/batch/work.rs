//! What is to be done next, and what becomes of it.

use super::request::Asked;
use super::{Batches, LEASE};
use crate::dialect::{Problem, ProblemKind};
use crate::store::{BatchOutcome, KeyId, StoreError};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;

/// A request that is being worked on.
#[derive(Debug, Clone)]
pub struct Work {
    place: String,
    /// How often it was put back.
    pub attempts: i64,
    custom_id: String,
    /// Whose it is.
    pub key: KeyId,
    /// The body of a `POST /v1/messages`.
    pub params: Bytes,
}

/// What a failure means for a request of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again after this time.
    Again(Duration),
    /// It is refused for good.
    Refused,
}

/// How often a request is tried again whose failure may be its own fault.
const TRIES: i64 = 8;
/// Before the first other try; twice as long before each other.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Never longer than this: accounts may be back before they said.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What a failure means for a request that was put back so many times.
pub fn judge(problem: &Problem, attempts: i64) -> Verdict {
    let doubled = u32::try_from(attempts.clamp(0, 10)).unwrap_or_default();
    let pause = problem.retry_after.unwrap_or(FIRST_PAUSE * 2_u32.pow(doubled)).min(LONGEST_PAUSE);
    match problem.kind {
        // Somebody's quota, or somebody's absence: it says nothing of the request.
        ProblemKind::UsageLimit
        | ProblemKind::RateLimited
        | ProblemKind::Overloaded
        | ProblemKind::ShuttingDown
        | ProblemKind::NoAccount => Verdict::Again(pause),
        kind if kind.status().is_server_error() && attempts < TRIES => Verdict::Again(pause),
        _ => Verdict::Refused,
    }
}

impl Batches {
    /// Waits until there may be something to do, or `pace` is over.
    pub async fn woken(&self, pace: Duration) {
        let _ = tokio::time::timeout(pace, self.wake.notified()).await;
    }

    /// Says that there may be something to do.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes up what a process that is gone has left.
    pub async fn begin(&self) -> Result<(), StoreError> {
        self.store.batches().begin(self.now()).await
    }

    /// The keys that have something to do, the one whose turn it is first.
    pub async fn keys_in_turn(&self) -> Result<Vec<KeyId>, StoreError> {
        let mut keys = self.store.batches().keys_with_work(self.now()).await?;
        keys.sort_unstable();
        let next = keys.iter().position(|key| *key > *self.turn()).unwrap_or_default();
        keys.rotate_left(next);
        Ok(keys.iter().filter_map(|key| key.parse().ok()).collect())
    }

    /// Begins the next request of this key.
    pub async fn claim(&self, key: KeyId) -> Result<Option<Work>, StoreError> {
        let now = self.now();
        let name = key.to_string();
        let Some(claimed) = self.store.batches().claim(&name, now, now + LEASE).await? else { return Ok(None) };
        *self.turn() = name;
        let Ok(asked) = serde_json::from_slice::<Asked<'_>>(&claimed.content) else {
            // Only what was read as a request was kept.
            tracing::error!(place = claimed.place, "a request of a batch is damaged");
            let line = given_up(&claimed.content, "errored");
            self.store.batches().finish(&claimed.place, BatchOutcome::Errored, &line, now).await?;
            return Ok(None);
        };
        let params = Bytes::copy_from_slice(asked.params.get().as_bytes());
        let custom_id = asked.custom_id;
        Ok(Some(Work { place: claimed.place, attempts: claimed.attempts, custom_id, key, params }))
    }

    /// Says again and again that this is being worked on; returns never.
    pub async fn hold(&self, work: &Work) {
        let pace = Duration::from_millis(LEASE.unsigned_abs()) / 4;
        loop {
            tokio::time::sleep(pace).await;
            if let Err(error) = self.store.batches().renew(&work.place, self.now() + LEASE).await {
                tracing::warn!(%error, "the lease of a batch's request was not renewed");
            }
        }
    }

    /// Keeps an answer: the body of a message.
    pub async fn succeed(&self, work: &Work, message: &[u8]) -> Result<(), StoreError> {
        let line = told(&work.custom_id, "succeeded", Some(("message", message)));
        self.store.batches().finish(&work.place, BatchOutcome::Succeeded, &line, self.now()).await.map(drop)
    }

    /// Keeps a refusal: the body of an error.
    pub async fn refuse(&self, work: &Work, error: &[u8]) -> Result<(), StoreError> {
        let line = told(&work.custom_id, "errored", Some(("error", error)));
        self.store.batches().finish(&work.place, BatchOutcome::Errored, &line, self.now()).await.map(drop)
    }

    /// Gives work back, to be done again after `pause`.
    pub async fn put_back(&self, work: &Work, pause: Duration) -> Result<(), StoreError> {
        let now = self.now();
        let not_before = now + super::millis(pause);
        self.store.batches().put_back(&work.place, work.attempts + 1, not_before, now).await
    }

    /// Gives work back that was only begun.
    pub async fn return_work(&self, work: &Work) -> Result<(), StoreError> {
        let now = self.now();
        self.store.batches().put_back(&work.place, work.attempts, now, now).await
    }
}

/// The line of a request that has no result.
pub(super) fn given_up(request: &[u8], how: &str) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Named {
        custom_id: String,
    }
    let name = serde_json::from_slice::<Named>(request).map(|named| named.custom_id).unwrap_or_default();
    told(&name, how, None)
}

/// A line of results.
fn told(custom_id: &str, how: &str, what: Option<(&str, &[u8])>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        custom_id: &'a str,
        result: std::collections::BTreeMap<&'a str, &'a RawValue>,
    }
    let kind = serde_json::value::to_raw_value(how).ok();
    // The error stands in an envelope of its own, as it would have over HTTP.
    let what = what.and_then(|(name, body)| Some((name, serde_json::from_slice::<&RawValue>(body).ok()?)));
    let kind = kind.as_deref().map(|kind| ("type", kind));
    let line = Line { custom_id, result: kind.into_iter().chain(what).collect() };
    serde_json::to_vec(&line).unwrap_or_else(|_| json!({"custom_id": custom_id}).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_says_nothing_of_the_request_is_tried_again_for_as_long_as_it_takes() {
        for kind in [ProblemKind::UsageLimit, ProblemKind::RateLimited, ProblemKind::Overloaded, ProblemKind::NoAccount]
        {
            for attempts in [0, 100] {
                assert!(matches!(judge(&Problem::new(kind, ""), attempts), Verdict::Again(_)), "{kind:?}");
            }
        }
        let upstream = Problem::new(ProblemKind::Upstream, "");
        assert_eq!(judge(&upstream, 0), Verdict::Again(FIRST_PAUSE));
        assert_eq!(judge(&upstream, 2), Verdict::Again(FIRST_PAUSE * 4));
        assert_eq!(judge(&upstream, TRIES), Verdict::Refused);
        for kind in [ProblemKind::InvalidRequest, ProblemKind::ModelNotFound, ProblemKind::ContextLength] {
            assert_eq!(judge(&Problem::new(kind, ""), 0), Verdict::Refused);
        }
    }

    #[test]
    fn a_pause_is_what_the_backend_says_within_bounds() {
        let after = |wait| Problem { retry_after: Some(wait), ..Problem::new(ProblemKind::UsageLimit, "") };
        assert_eq!(judge(&after(Duration::from_secs(7)), 3), Verdict::Again(Duration::from_secs(7)));
        assert_eq!(judge(&after(Duration::from_hours(5)), 0), Verdict::Again(LONGEST_PAUSE));
    }

    #[test]
    fn a_line_has_its_name_and_what_came_of_it() {
        let read = |line: Vec<u8>| serde_json::from_slice::<Value>(&line).expect("JSON");
        let message = read(told("a", "succeeded", Some(("message", br#"{"id":"msg_1"}"#))));
        assert_eq!(message, json!({"custom_id": "a", "result": {"type": "succeeded", "message": {"id": "msg_1"}}}));
        let expired = read(given_up(br#"{"custom_id":"b","params":{}}"#, "expired"));
        assert_eq!(expired, json!({"custom_id": "b", "result": {"type": "expired"}}));
    }
}
