//! The two kinds of answer under an output limit.

use super::bound::Bound;
use super::fields::Members;
use super::stream::{Passthrough, number, write};
use super::whole::Whole;
use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::codex::{Event, Usage};
use crate::dialect::{Folder, Problem, Translator};
use bytes::{Bytes, BytesMut};
use serde_json::json;

/// A stream that passes through up to its limit.
pub(super) struct BoundedStream {
    pub inner: Passthrough,
    pub bound: Bound,
    pub is_cut: bool,
}

impl BoundedStream {
    /// Writes the end, in place of this frame and all that follow.
    fn end(&mut self, frame: &Frame, out: &mut BytesMut) {
        let mut at = number(frame).unwrap_or_else(|| self.inner.frames());
        if let Some((kind, json)) = shortened(frame, self.bound.allowed()) {
            write(&kind, &json, out);
            at += 1;
        }
        for mut event in self.bound.closing() {
            event["sequence_number"] = json!(at);
            write(event["type"].as_str().unwrap_or_default(), &event.to_string(), out);
            at += 1;
        }
        if let Some(response) = self.bound.response(self.inner.response_id()) {
            self.inner.incomplete(at, &self.bound.items(), &response, out);
        }
    }
}

/// A delta with less in it; `None` for one of which nothing is left, and for what is no delta.
fn shortened(frame: &Frame, allowed: &str) -> Option<(String, String)> {
    if allowed.is_empty() {
        return None;
    }
    let data = frame.data()?;
    let members = Members::read(&data).ok()?;
    members.get("delta")?;
    let kind = serde_json::from_str(members.get("type")?.get()).ok()?;
    Some((kind, members.with(&[("delta", json!(allowed).to_string())])))
}

impl Translator for BoundedStream {
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>, frame: &Frame, out: &mut BytesMut) {
        if self.is_cut {
            return;
        }
        if !self.bound.ends_in(event) {
            return self.inner.event(event, frame, out);
        }
        self.is_cut = true;
        self.end(frame, out);
    }

    fn is_done(&self) -> bool {
        self.is_cut
    }

    fn spent(&self) -> Option<Usage> {
        self.is_cut.then(|| self.bound.spent())
    }

    fn keep_alive(&self) -> Bytes {
        self.inner.keep_alive()
    }

    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut) {
        if !self.is_cut {
            self.inner.finish(failure, out);
        }
    }
}

/// An answer in one piece, up to its limit.
pub(super) struct BoundedWhole {
    pub inner: Whole,
    pub bound: Bound,
    pub is_cut: bool,
}

impl Folder for BoundedWhole {
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>) {
        if self.is_cut {
            return;
        }
        if !self.bound.ends_in(event) {
            return self.inner.event(event);
        }
        self.is_cut = true;
        if let Some(response) = self.bound.response("") {
            self.inner.incomplete(&self.bound.items(), (&*response).into());
        }
    }

    fn is_done(&self) -> bool {
        self.is_cut
    }

    fn spent(&self) -> Option<Usage> {
        self.is_cut.then(|| self.bound.spent())
    }

    fn finish(self: Box<Self>) -> Bytes {
        Box::new(self.inner).finish()
    }
}
