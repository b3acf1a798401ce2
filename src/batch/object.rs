//! What a client reads of a batch, as Anthropic writes it. Pure.

use super::request::Page;
use crate::store::{StoredBatch, UnixMillis};
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};

/// A batch.
#[derive(Serialize)]
pub(super) struct Object {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    processing_status: &'static str,
    request_counts: Counts,
    created_at: String,
    expires_at: String,
    ended_at: Option<String>,
    cancel_initiated_at: Option<String>,
    archived_at: Option<String>,
    results_url: Option<String>,
}

#[derive(Serialize)]
struct Counts {
    processing: u64,
    succeeded: u64,
    errored: u64,
    canceled: u64,
    expired: u64,
}

impl Object {
    /// As its client reads it; the address of its results begins with `origin`.
    pub(super) fn of(batch: &StoredBatch, origin: &str) -> Self {
        let counts = batch.counts;
        Self {
            id: batch.id.clone(),
            kind: "message_batch",
            processing_status: match (batch.ended_at, batch.cancel_initiated_at) {
                (Some(_), _) => "ended",
                (None, Some(_)) => "canceling",
                (None, None) => "in_progress",
            },
            request_counts: Counts {
                processing: counts.processing,
                succeeded: counts.succeeded,
                errored: counts.errored,
                canceled: counts.canceled,
                expired: counts.expired,
            },
            created_at: time(batch.created_at),
            expires_at: time(batch.expires_at),
            ended_at: batch.ended_at.map(time),
            cancel_initiated_at: batch.cancel_initiated_at.map(time),
            archived_at: None,
            results_url: batch.ended_at.map(|_| format!("{origin}{}", results_path(&batch.id))),
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Where the results of a batch are.
pub fn results_path(id: &str) -> String {
    format!("/v1/messages/batches/{id}/results")
}

/// A page of batches, of which one more was looked for than is shown.
pub(super) fn list(mut batches: Vec<StoredBatch>, page: &Page, origin: &str) -> String {
    let limit = page.limit as usize;
    let has_more = batches.len() > limit;
    if has_more && page.is_backwards() {
        batches.remove(0);
    }
    batches.truncate(limit);
    let data: Vec<_> = batches.iter().map(|batch| Object::of(batch, origin)).collect();
    let name = |batch: Option<&StoredBatch>| batch.map(|batch| batch.id.clone());
    let (first, last) = (name(batches.first()), name(batches.last()));
    json!({"data": data, "has_more": has_more, "first_id": first, "last_id": last}).to_string()
}

/// What is said of a batch that is gone.
pub(super) fn deleted(id: &str) -> String {
    json!({"id": id, "type": "message_batch_deleted"}).to_string()
}

fn time(at: UnixMillis) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.unsigned_abs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::BatchCounts;
    use serde_json::Value;

    fn batch(id: &str) -> StoredBatch {
        StoredBatch {
            id: id.to_owned(),
            created_at: 1_700_000_000_000,
            expires_at: 1_700_086_400_000,
            cancel_initiated_at: None,
            ended_at: None,
            counts: BatchCounts { processing: 2, ..BatchCounts::default() },
        }
    }

    fn read(batch: &StoredBatch) -> Value {
        serde_json::from_str(&Object::of(batch, "http://here").to_json()).expect("JSON")
    }

    #[test]
    fn a_batch_has_results_when_it_has_ended() {
        let mut one = batch("msgbatch_1");
        let running = read(&one);
        assert_eq!((&running["processing_status"], &running["results_url"]), (&json!("in_progress"), &Value::Null));
        assert_eq!(running["created_at"], "2023-11-14T22:13:20.000Z");
        one.cancel_initiated_at = Some(1);
        assert_eq!(read(&one)["processing_status"], "canceling");
        one.ended_at = Some(2);
        let ended = read(&one);
        assert_eq!(ended["processing_status"], "ended");
        assert_eq!(ended["results_url"], "http://here/v1/messages/batches/msgbatch_1/results");
    }

    #[test]
    fn a_page_says_whether_there_is_more_on_its_far_side() {
        let three = || vec![batch("c"), batch("b"), batch("a")];
        let page = |query: &[(&str, &str)]| Page::of(query.iter().copied()).expect("a page");
        let read = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
        let newest = read(list(three(), &page(&[("limit", "2")]), ""));
        assert_eq!(
            (&newest["first_id"], &newest["last_id"], &newest["has_more"]),
            (&json!("c"), &json!("b"), &json!(true))
        );
        let before = read(list(three(), &page(&[("limit", "2"), ("before_id", "0")]), ""));
        assert_eq!((&before["first_id"], &before["last_id"]), (&json!("b"), &json!("a")));
        let none = read(list(Vec::new(), &page(&[]), ""));
        assert_eq!((&none["first_id"], &none["has_more"]), (&Value::Null, &json!(false)));
    }
}
