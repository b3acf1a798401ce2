//! Writes an answer as Anthropic's stream of events.
//!
//! The grammar: `message_start`, `ping`, blocks one after the other (start, deltas, stop, indexes
//! from 0), `message_delta`, `message_stop`; or `error` in place of everything that is left.

use super::assembly::{Assembly, Sink};
use super::frames::{BlockDelta, ContentBlock, Message, MessageEnd, StreamEvent, Usage, write_delta};
use super::{Shape, error};
use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::codex::{self, Event};
use crate::dialect::{Problem, ProblemKind, Translator};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// A streamed answer in the making.
#[derive(Debug)]
pub(super) struct Stream {
    shape: Arc<Shape>,
    assembly: Assembly,
    /// Whether `message_start` was written.
    started: bool,
}

impl Stream {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self { assembly: Assembly::new(Arc::clone(&shape)), shape, started: false }
    }

    fn start(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let usage = Usage::at_start(self.shape.estimate);
        let (id, model) = (&self.shape.request_id, &self.shape.model);
        let message = Message::new(id, model, Vec::new(), MessageEnd::default(), usage);
        StreamEvent::MessageStart { message }.write(out);
        StreamEvent::Ping.write(out);
    }
}

impl Translator for Stream {
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>, _frame: &Frame, out: &mut BytesMut) {
        match event {
            Event::Failed(_) | Event::Error(_) | Event::RateLimits(_) | Event::Other(_) => {}
            _ => {
                self.start(out);
                self.assembly.event(event, &mut FrameSink(out));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.assembly.is_cut()
    }

    fn spent(&self) -> Option<codex::Usage> {
        self.assembly.spent()
    }

    /// The SDKs and Claude Code count events; this one they skip wherever it stands.
    fn keep_alive(&self) -> Bytes {
        Bytes::from_static(b"event: ping\ndata: {\"type\":\"ping\"}\n\n")
    }

    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut) {
        let cut;
        let failure = match (failure, self.assembly.outcome()) {
            (None, Some(outcome)) => {
                StreamEvent::MessageDelta { delta: outcome.end.clone(), usage: outcome.usage }.write(out);
                return StreamEvent::MessageStop.write(out);
            }
            (Some(failure), _) => failure,
            (None, None) => {
                cut = Problem::new(ProblemKind::Upstream, "the backend's stream ended before the answer was complete");
                &cut
            }
        };
        error::write(failure, &self.shape.request_id, Some(self.shape.estimate), out);
    }
}

/// Blocks as frames.
struct FrameSink<'a>(&'a mut BytesMut);

impl Sink for FrameSink<'_> {
    fn start(&mut self, index: u32, content_block: ContentBlock<'_>) {
        StreamEvent::ContentBlockStart { index, content_block }.write(self.0);
    }

    fn delta(&mut self, index: u32, delta: BlockDelta<'_>) {
        write_delta(index, delta, self.0);
    }

    fn stop(&mut self, index: u32) {
        StreamEvent::ContentBlockStop { index }.write(self.0);
    }
}
