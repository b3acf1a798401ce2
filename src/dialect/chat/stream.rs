//! Writes an answer as chunks.
//!
//! The grammar: one chunk with the role, chunks that add, one chunk with the finish reason, one with
//! nothing but usage if it was asked for, `[DONE]`; or an error object in place of everything that
//! is left. After an error there is no finish reason and no `[DONE]`, for both say that all is well.

use super::assembly::{Assembly, Piece, Sink};
use super::ending::Ending;
use super::frames::{Annotation, AnnotationDelta, Call, CallDelta, Delta, Function, Image, ReasoningDetail, TextChunk};
use super::gate::Gate;
use super::{Shape, error};
use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::codex::{self, Event};
use crate::dialect::cut::Cutter;
use crate::dialect::{Problem, ProblemKind, Translator, signature};
use bytes::BytesMut;
use std::borrow::Cow;
use std::sync::Arc;

/// A streamed answer in the making.
pub(super) struct Stream {
    shape: Arc<Shape>,
    assembly: Assembly,
    cutter: Cutter,
    /// How text is written, once there was some.
    text: Option<TextChunk>,
    /// Citations that were written: the next one's index.
    citations: u32,
    /// Whether the chunk with the role was written.
    has_begun: bool,
}

impl Stream {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        let cutter = Cutter::new(Arc::clone(&shape.bounds));
        Self { shape, assembly: Assembly::default(), cutter, text: None, citations: 0, has_begun: false }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.has_begun, true) {
            let role = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
            self.shape.write_delta(role, None, None, out);
        }
    }
}

impl Translator for Stream {
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>, _frame: &Frame, out: &mut BytesMut) {
        match event {
            Event::Failed(_) | Event::Error(_) | Event::RateLimits(_) | Event::Other(_) => {}
            _ if self.is_done() => {}
            _ => {
                self.begin(out);
                let mut chunks =
                    Chunks { shape: &self.shape, text: &mut self.text, citations: &mut self.citations, out };
                let mut gate = Gate { cutter: &mut self.cutter, sink: &mut chunks };
                self.assembly.event(event, &mut gate);
                if self.assembly.outcome().is_some() {
                    gate.release();
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.cutter.cut().is_some()
    }

    fn spent(&self) -> Option<codex::Usage> {
        let is_counted = self.assembly.outcome().is_some_and(|outcome| outcome.usage.is_some());
        (self.is_done() && !is_counted).then(|| self.cutter.spent(self.shape.estimate))
    }

    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut) {
        let cut;
        let ending = Ending::of(&self.assembly, &self.cutter, &self.shape);
        let failure = match (failure, ending) {
            (None, Some(ending)) => {
                let (shape, tier) = (&self.shape, ending.service_tier);
                shape.write_delta(Delta::default(), Some(ending.finish_reason), tier, out);
                if let Some(usage) = ending.usage.filter(|_| shape.include_usage) {
                    shape.write_usage(usage, tier, out);
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
                return;
            }
            (Some(failure), _) => failure,
            (None, None) => {
                cut = Problem::new(ProblemKind::Upstream, "the backend's stream ended before the answer was complete");
                &cut
            }
        };
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(error::envelope(failure).as_bytes());
        out.extend_from_slice(b"\n\n");
    }
}

/// Pieces as chunks.
struct Chunks<'a> {
    shape: &'a Shape,
    text: &'a mut Option<TextChunk>,
    citations: &'a mut u32,
    out: &'a mut BytesMut,
}

impl Sink for Chunks<'_> {
    fn take(&mut self, piece: Piece<'_>) {
        let shape = self.shape;
        let delta = match piece {
            Piece::Text(text) => {
                return self.text.get_or_insert_with(|| TextChunk::new(shape)).write(text, self.out);
            }
            Piece::Refusal(text) => Delta { refusal: Some(text), ..Delta::default() },
            Piece::Reasoning { text, thought } => {
                let reasoning_details = thought.map(|thought| [ReasoningDetail::legible(thought, text)]);
                Delta { reasoning_content: Some(text), reasoning_details, ..Delta::default() }
            }
            Piece::Encrypted { thought, encrypted } => {
                let sealed = Cow::Owned(signature::seal(Some(encrypted)));
                Delta { reasoning_details: Some([ReasoningDetail::encrypted(thought, sealed)]), ..Delta::default() }
            }
            Piece::Image { index, format, data } => {
                Delta { images: Some([Image::new(index, format, data)]), ..Delta::default() }
            }
            Piece::Citation { citation, origin } => {
                let Some(annotation) = Annotation::of(citation, origin) else { return };
                let index = *self.citations;
                *self.citations += 1;
                Delta { annotations: Some([AnnotationDelta { index, annotation }]), ..Delta::default() }
            }
            // The older form has room for one call.
            Piece::Call { index, .. } | Piece::Arguments { index, .. } if shape.is_legacy && index > 0 => return,
            Piece::Call { name, .. } if shape.is_legacy => {
                let name = Some(shape.names.restore(name));
                Delta { function_call: Some(Function { name, arguments: "" }), ..Delta::default() }
            }
            Piece::Arguments { text, .. } if shape.is_legacy => {
                Delta { function_call: Some(Function { name: None, arguments: text }), ..Delta::default() }
            }
            Piece::Call { index, id, name, family } => {
                let call = Call::new(family, Some(id), Some(shape.names.restore(name)), "");
                Delta { tool_calls: Some([CallDelta { index, call }]), ..Delta::default() }
            }
            Piece::Arguments { index, family, text } => {
                let call = Call::new(family, None, None, text);
                Delta { tool_calls: Some([CallDelta { index, call }]), ..Delta::default() }
            }
        };
        shape.write_delta(delta, None, None, self.out);
    }
}
