//! A response that runs without its client: what has come of it so far, for whoever asks, and its
//! events, for whoever follows.

use super::Draft;
use super::items::Item;
use super::record::{self, Record};
use crate::codex::sse::{Decoder, Frame};
use crate::store::UnixMillis;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A response in the background. Its events are kept while it runs if it is streamed.
pub struct Run {
    pub(super) draft: Draft,
    pub(super) id: String,
    progress: Mutex<Progress>,
    grown: watch::Sender<()>,
    pub(super) cancelled: CancellationToken,
    /// Whether it was deleted: nothing more is kept of it.
    is_unwanted: AtomicBool,
    /// How many bytes of events are kept.
    most: usize,
}

struct Progress {
    /// The response object, as it is now.
    response: Item,
    /// The events and their numbers, which grow.
    events: Vec<(u64, Bytes)>,
    size: usize,
    has_ended: bool,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Whoever makes the answer has made it.
    Made,
    /// Somebody cancelled it.
    Cancelled,
    /// The gateway stops, or whoever made the answer is gone.
    Interrupted,
    /// It was cancelled or deleted by another process: what that wrote stands.
    Lost,
}

/// More came of a run than is kept of a response.
const TOO_LARGE: &str = "The response is larger than what this gateway keeps of one (`responses.max_size`)";

/// An event, as far as it concerns a run.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    sequence_number: Option<u64>,
    #[serde(default)]
    response: Option<Box<RawValue>>,
}

impl Run {
    /// A response of which nothing has come yet.
    pub(super) fn new(draft: Draft, id: String, response: Item, most: usize) -> Self {
        let progress = Progress { response, events: Vec::new(), size: 0, has_ended: false };
        Self {
            draft,
            id,
            progress: Mutex::new(progress),
            grown: watch::Sender::new(()),
            cancelled: CancellationToken::new(),
            is_unwanted: AtomicBool::new(false),
            most,
        }
    }

    /// Takes what a client would be sent. Returns whether more is wanted.
    pub fn take(&self, written: Bytes) -> bool {
        let mut decoder = Decoder::new();
        decoder.push(written);
        let mut is_wanted = true;
        let mut progress = self.lock();
        while let Ok(Some(frame)) = decoder.next_frame() {
            progress.take(&frame, self.draft.is_streamed);
        }
        if progress.size + progress.response.get().len() > self.most {
            progress.events.clear();
            progress.fail(Some(("server_error", TOO_LARGE)), "failed", self.draft.is_streamed);
            is_wanted = false;
        }
        drop(progress);
        self.grown.send_replace(());
        is_wanted
    }

    /// The response object, as it is now.
    pub fn response(&self) -> String {
        self.lock().response.get().to_owned()
    }

    /// Ends it before its time.
    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Ends it, and nothing of it is kept.
    pub(super) fn abandon(&self) {
        self.is_unwanted.store(true, Ordering::Relaxed);
        self.cancel();
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.is_unwanted.load(Ordering::Relaxed)
    }

    /// Waits until it has ended and what is kept of it is on its way.
    pub(super) async fn ended(&self) {
        let mut grown = self.grown.subscribe();
        while !self.lock().has_ended && grown.changed().await.is_ok() {}
    }

    /// Nothing more comes: what has come is given a legal end, if it has none.
    pub(super) fn conclude(&self, end: End) {
        let mut progress = self.lock();
        if !record::is_over(&progress.response) {
            match end {
                End::Cancelled | End::Lost => progress.fail(None, "cancelled", self.draft.is_streamed),
                End::Made | End::Interrupted => {
                    let error = Some(("server_error", record::INTERRUPTED));
                    progress.fail(error, "failed", self.draft.is_streamed);
                }
            }
        }
    }

    /// Whether the response itself says that it has ended.
    pub(super) fn is_over(&self) -> bool {
        record::is_over(&self.lock().response)
    }

    /// Lets those go who wait for its end.
    pub(super) fn close(&self) {
        self.lock().has_ended = true;
        self.grown.send_replace(());
    }

    /// What is kept of it as it is now.
    pub(super) fn record(&self, expires_at: UnixMillis, lease_until: Option<UnixMillis>) -> Record {
        let progress = self.lock();
        let mut record = self.draft.record(progress.response.clone(), self.id.clone(), expires_at);
        record.lease_until = lease_until;
        if self.draft.is_streamed {
            // While it runs, none: that there will be some is all that others need to know.
            let events = if lease_until.is_none() { joined(&progress.events).to_vec() } else { Vec::new() };
            record.content.events = String::from_utf8(events).ok();
        }
        record
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn take(&mut self, frame: &Frame, keeps_events: bool) {
        // A comment keeps a connection alive, and there may be none.
        let Some(data) = frame.data() else { return };
        let Ok(told) = serde_json::from_slice::<Told>(&data) else { return };
        if let Some(response) = told.response {
            self.response = response;
        }
        if keeps_events {
            let number = told.sequence_number.unwrap_or_default().max(self.next_number());
            self.size += frame.raw().len();
            self.events.push((number, frame.raw().clone()));
        }
    }

    fn next_number(&self) -> u64 {
        self.events.last().map_or(0, |(number, _)| number.saturating_add(1))
    }

    /// Ends the response otherwise than by an event that came.
    fn fail(&mut self, error: Option<(&str, &str)>, status: &str, keeps_events: bool) {
        #[derive(Serialize)]
        struct Failed<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            sequence_number: u64,
            response: &'a RawValue,
        }
        self.response = record::ended(&self.response, status, error);
        if !keeps_events {
            return;
        }
        let number = self.next_number();
        let last = Failed { kind: "response.failed", sequence_number: number, response: &self.response };
        if let Ok(json) = serde_json::to_string(&last) {
            self.events.push((number, Bytes::from(format!("event: response.failed\ndata: {json}\n\n"))));
        }
    }
}

fn joined(events: &[(u64, Bytes)]) -> Bytes {
    let mut all = BytesMut::with_capacity(events.iter().map(|(_, event)| event.len()).sum());
    for (_, event) in events {
        all.extend_from_slice(event);
    }
    all.freeze()
}

/// Reads a run's events, from any place in them to its end.
pub struct Follower {
    run: Arc<Run>,
    /// The number of the last event that was read.
    after: Option<u64>,
    grown: watch::Receiver<()>,
}

impl Follower {
    /// Reads on after the event of this number; from the beginning without one.
    pub fn new(run: Arc<Run>, after: Option<u64>) -> Self {
        Self { grown: run.grown.subscribe(), run, after }
    }

    /// The next events, as they were sent; `None` at the end. Nothing is lost when it is given up.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            {
                let progress = self.run.lock();
                let is_read = |(number, _): &(u64, Bytes)| Some(*number) <= self.after;
                let new = &progress.events[progress.events.partition_point(is_read)..];
                if let Some((number, _)) = new.last() {
                    self.after = Some(*number);
                    return Some(joined(new));
                }
                if progress.has_ended {
                    return None;
                }
            }
            self.grown.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::items;
    use super::*;
    use serde_json::{Value, json};

    fn run(is_streamed: bool, most: usize) -> Arc<Run> {
        let draft = Draft {
            key: crate::store::KeyId::new(),
            is_stored: true,
            input: Vec::new(),
            previous: None,
            conversation: None,
            session: String::new(),
            cache_key: None,
            background: Some("resp_1".to_owned()),
            is_streamed,
            to_extend: Vec::new(),
            created_at: 0,
        };
        let object = json!({"id": "resp_1", "status": "queued", "error": null}).to_string();
        Arc::new(Run::new(draft, "resp_1".to_owned(), items::raw(object).expect("JSON"), most))
    }

    fn frame(data: &Value) -> Bytes {
        Bytes::from(format!("data: {data}\n\n"))
    }

    fn status(run: &Run) -> String {
        let response: Value = serde_json::from_str(&run.response()).expect("an object");
        response["status"].as_str().expect("a status").to_owned()
    }

    async fn rest(mut follower: Follower) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(bytes) = follower.next().await {
            let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
            let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
            all.extend(lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
        all
    }

    #[tokio::test]
    async fn a_follower_reads_from_any_place_to_the_end() {
        let run = run(true, 10_000);
        let followed = tokio::spawn(rest(Follower::new(run.clone(), None)));
        let late = tokio::spawn(rest(Follower::new(run.clone(), Some(1))));
        let object = json!({"id": "resp_1", "status": "in_progress"});
        assert!(run.take(frame(&json!({"type": "response.created", "sequence_number": 0, "response": object}))));
        assert_eq!(status(&run), "in_progress");
        assert!(run.take(Bytes::from_static(b": keep-alive\n\n")));
        assert!(run.take(frame(&json!({"type": "a.delta", "sequence_number": 1}))));
        let object = json!({"id": "resp_1", "status": "completed"});
        assert!(run.take(frame(&json!({"type": "response.completed", "sequence_number": 2, "response": object}))));
        run.conclude(End::Made);
        run.close();
        let all = followed.await.expect("read");
        assert_eq!(all.iter().map(|event| &event["sequence_number"]).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(late.await.expect("read"), all[2..]);
        assert_eq!(rest(Follower::new(run.clone(), Some(7))).await, Vec::<Value>::new());
        assert_eq!(status(&run), "completed");
    }

    #[tokio::test]
    async fn what_has_no_end_is_given_one() {
        for (end, status_then) in [(End::Cancelled, "cancelled"), (End::Interrupted, "failed"), (End::Made, "failed")] {
            let run = run(true, 10_000);
            run.take(frame(&json!({"type": "a.delta", "sequence_number": 4})));
            run.conclude(end);
            run.close();
            let all = rest(Follower::new(run.clone(), Some(4))).await;
            assert_eq!((all.len(), &all[0]["type"]), (1, &json!("response.failed")), "{end:?}");
            assert_eq!((&all[0]["sequence_number"], &all[0]["response"]["status"]), (&json!(5), &json!(status_then)));
        }
    }

    #[test]
    fn more_than_is_kept_ends_it() {
        let run = run(true, 300);
        assert!(run.take(frame(&json!({"type": "a.delta", "delta": "x".repeat(100)}))));
        assert!(!run.take(frame(&json!({"type": "a.delta", "delta": "x".repeat(200)}))));
        assert_eq!(status(&run), "failed");
    }
}
