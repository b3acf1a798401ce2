//! Listens to an answer on its way to the client, and keeps its end.

use super::{Draft, Kept};
use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::codex::{Event, Failure, Usage};
use crate::dialect::{Folder, Problem, Reply, Translator};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Makes the translators of an answer that is to be kept.
pub(super) struct KeptReply {
    inner: Box<dyn Reply>,
    draft: Arc<Draft>,
    kept: Arc<Kept>,
}

impl KeptReply {
    pub(super) fn new(inner: Box<dyn Reply>, draft: Draft, kept: Arc<Kept>) -> Self {
        Self { inner, draft: Arc::new(draft), kept }
    }
}

impl Reply for KeptReply {
    fn stream(&self) -> Box<dyn Translator> {
        let (draft, kept) = (self.draft.clone(), self.kept.clone());
        Box::new(KeptStream { inner: self.inner.stream(), draft, kept, is_kept: false })
    }

    fn whole(&self) -> Box<dyn Folder> {
        Box::new(KeptWhole { inner: self.inner.whole(), draft: self.draft.clone(), kept: self.kept.clone() })
    }

    fn counts_tokens(&self) -> bool {
        self.inner.counts_tokens()
    }
}

struct KeptStream {
    inner: Box<dyn Translator>,
    draft: Arc<Draft>,
    kept: Arc<Kept>,
    /// Whether the answer's end has been seen: it is kept once.
    is_kept: bool,
}

impl KeptStream {
    /// Keeps the response object in the frame that was written last.
    fn keep(&mut self, written: &[u8]) {
        if let Some(response) = last_response(written).filter(|_| !self.is_kept) {
            self.is_kept = true;
            self.kept.keep(&self.draft, &response);
        }
    }
}

impl Translator for KeptStream {
    fn depth(&self) -> Depth {
        self.inner.depth()
    }

    fn event(&mut self, event: &Event<'_>, frame: &Frame, out: &mut BytesMut) {
        let before = out.len();
        self.inner.event(event, frame, out);
        if event.is_terminal() || self.inner.is_done() {
            self.keep(&out[before..]);
        }
    }

    fn is_done(&self) -> bool {
        self.inner.is_done()
    }

    fn spent(&self) -> Option<Usage> {
        self.inner.spent()
    }

    fn shortfall(&self) -> Option<Failure> {
        self.inner.shortfall()
    }

    fn keep_alive(&self) -> Bytes {
        self.inner.keep_alive()
    }

    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut) {
        let before = out.len();
        self.inner.finish(failure, out);
        self.keep(&out[before..]);
    }
}

struct KeptWhole {
    inner: Box<dyn Folder>,
    draft: Arc<Draft>,
    kept: Arc<Kept>,
}

impl Folder for KeptWhole {
    fn depth(&self) -> Depth {
        self.inner.depth()
    }

    fn event(&mut self, event: &Event<'_>) {
        self.inner.event(event);
    }

    fn is_done(&self) -> bool {
        self.inner.is_done()
    }

    fn spent(&self) -> Option<Usage> {
        self.inner.spent()
    }

    fn shortfall(&self) -> Option<Failure> {
        self.inner.shortfall()
    }

    fn finish(self: Box<Self>) -> Bytes {
        let Self { inner, draft, kept } = *self;
        let body = inner.finish();
        match serde_json::from_slice::<&RawValue>(&body) {
            Ok(response) => kept.keep(&draft, response),
            Err(error) => tracing::warn!(%error, "a response that is not legible was not kept"),
        }
        body
    }
}

/// The response object in the last of the frames.
fn last_response(frames: &[u8]) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Ended {
        response: Box<RawValue>,
    }
    let text = std::str::from_utf8(frames).ok()?;
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data:"))?;
    serde_json::from_str::<Ended>(data.trim()).ok().map(|ended| ended.response)
}
