//! Folds an answer into one completion.

use super::Shape;
use super::assembly::{Assembly, Family, Piece, Sink, Thought};
use super::ending::Ending;
use super::frames::{Annotation, Call, Completion, Function, Image, Message, ReasoningDetail, WholeChoice};
use super::gate::Gate;
use crate::codex::event::Depth;
use crate::codex::{self, Event};
use crate::dialect::cut::Cutter;
use crate::dialect::{Folder, signature};
use bytes::Bytes;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// A whole answer in the making.
pub(super) struct Whole {
    shape: Arc<Shape>,
    assembly: Assembly,
    cutter: Cutter,
    said: Said,
}

impl Whole {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        let cutter = Cutter::new(Arc::clone(&shape.bounds));
        Self { shape, assembly: Assembly::default(), cutter, said: Said::default() }
    }
}

/// The message so far.
#[derive(Default)]
struct Said {
    text: Option<String>,
    refusal: Option<String>,
    reasoning: Option<String>,
    thoughts: Vec<Thinking>,
    /// Citations, and from where their places count.
    citations: Vec<(Value, u64)>,
    images: Vec<Image>,
    calls: Vec<Made>,
}

/// Reasoning, a piece of one kind.
struct Thinking {
    index: u32,
    id: Option<String>,
    is_summary: bool,
    is_encrypted: bool,
    /// What may be read, or what is sealed.
    text: String,
}

/// A call and what it is made with.
struct Made {
    family: Family,
    id: String,
    name: String,
    text: String,
}

impl Sink for Said {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Text(text) => self.text.get_or_insert_default().push_str(text),
            Piece::Refusal(text) => self.refusal.get_or_insert_default().push_str(text),
            Piece::Reasoning { text, thought } => {
                self.reasoning.get_or_insert_default().push_str(text);
                if let Some(thought) = thought {
                    self.think(thought, text);
                }
            }
            Piece::Encrypted { thought, encrypted } => self.thoughts.push(Thinking {
                index: thought.index,
                id: thought.id.map(str::to_owned),
                is_summary: thought.is_summary,
                is_encrypted: true,
                text: signature::seal(Some(encrypted)),
            }),
            Piece::Image { index, format, data } => self.images.push(Image::new(index, format, data)),
            Piece::Citation { citation, origin } => self.citations.push((citation.clone(), origin)),
            Piece::Call { id, name, family, .. } => {
                self.calls.push(Made { family, id: id.to_owned(), name: name.to_owned(), text: String::new() });
            }
            Piece::Arguments { index, text, .. } => {
                if let Some(call) = usize::try_from(index).ok().and_then(|at| self.calls.get_mut(at)) {
                    call.text.push_str(text);
                }
            }
        }
    }
}

impl Said {
    /// More reasoning: of the thought that is being said, or of the next.
    fn think(&mut self, thought: Thought<'_>, text: &str) {
        match self.thoughts.iter_mut().rfind(|known| known.index == thought.index) {
            Some(last) => last.text.push_str(text),
            None => self.thoughts.push(Thinking {
                index: thought.index,
                id: thought.id.map(str::to_owned),
                is_summary: thought.is_summary,
                is_encrypted: false,
                text: text.to_owned(),
            }),
        }
    }

    fn message<'a>(&'a self, shape: &'a Shape) -> Message<'a> {
        let has_nothing_else = self.calls.is_empty() && self.refusal.is_none();
        let detail = |thinking: &'a Thinking| {
            let id = thinking.id.as_deref();
            let thought = Thought { index: thinking.index, id, is_summary: thinking.is_summary, is_new: true };
            if thinking.is_encrypted {
                ReasoningDetail::encrypted(thought, Cow::Borrowed(&thinking.text))
            } else {
                ReasoningDetail::legible(thought, &thinking.text)
            }
        };
        let function_call = self.calls.first().filter(|_| shape.is_legacy);
        let tool_calls = self.calls.iter().filter(|_| !shape.is_legacy);
        Message {
            role: "assistant",
            // Clients stumble over a message with nothing in it at all.
            content: self.text.as_deref().or(has_nothing_else.then_some("")),
            refusal: self.refusal.as_deref(),
            reasoning_content: self.reasoning.as_deref(),
            reasoning_details: self.thoughts.iter().map(detail).collect(),
            annotations: self
                .citations
                .iter()
                .filter_map(|(citation, origin)| Annotation::of(citation, *origin))
                .collect(),
            images: &self.images,
            tool_calls: tool_calls
                .map(|call| Call::new(call.family, Some(&call.id), Some(shape.names.restore(&call.name)), &call.text))
                .collect(),
            function_call: function_call
                .map(|call| Function { name: Some(shape.names.restore(&call.name)), arguments: &call.text }),
        }
    }
}

impl Folder for Whole {
    /// Everything: the completion is what the stream would have said, delta by delta.
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>) {
        if self.is_done() {
            return;
        }
        let mut gate = Gate { cutter: &mut self.cutter, sink: &mut self.said };
        self.assembly.event(event, &mut gate);
        if self.assembly.outcome().is_some() {
            gate.release();
        }
    }

    fn is_done(&self) -> bool {
        self.cutter.cut().is_some()
    }

    fn spent(&self) -> Option<codex::Usage> {
        let is_counted = self.assembly.outcome().is_some_and(|outcome| outcome.usage.is_some());
        (self.is_done() && !is_counted).then(|| self.cutter.spent(self.shape.estimate))
    }

    fn finish(self: Box<Self>) -> Bytes {
        let shape = &*self.shape;
        let ending = Ending::of(&self.assembly, &self.cutter, shape);
        let completion = Completion {
            id: &shape.id,
            object: "chat.completion",
            created: shape.created,
            model: &shape.model,
            choices: [WholeChoice {
                index: 0,
                message: self.said.message(shape),
                logprobs: (),
                finish_reason: ending.as_ref().map_or("stop", |ending| ending.finish_reason),
            }],
            usage: ending.as_ref().and_then(|ending| ending.usage),
            service_tier: ending.as_ref().and_then(|ending| ending.service_tier),
        };
        Bytes::from(serde_json::to_vec(&completion).unwrap_or_default())
    }
}
