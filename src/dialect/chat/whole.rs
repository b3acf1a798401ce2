//! Folds an answer into one completion.

use super::Shape;
use super::assembly::{Assembly, Family, Finish, Piece, Sink};
use super::frames::{Annotation, Call, Completion, Function, Message, Usage, WholeChoice, finish_reason};
use crate::codex::Event;
use crate::codex::event::Depth;
use crate::dialect::Folder;
use bytes::Bytes;
use serde_json::Value;
use std::sync::Arc;

/// A whole answer in the making.
pub(super) struct Whole {
    shape: Arc<Shape>,
    assembly: Assembly,
    said: Said,
}

impl Whole {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self { shape, assembly: Assembly::default(), said: Said::default() }
    }
}

/// The message so far.
#[derive(Default)]
struct Said {
    text: Option<String>,
    refusal: Option<String>,
    reasoning: Option<String>,
    citations: Vec<Value>,
    calls: Vec<Made>,
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
            Piece::Reasoning(text) => self.reasoning.get_or_insert_default().push_str(text),
            Piece::Citation(citation) => self.citations.push(citation.clone()),
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
    fn message<'a>(&'a self, shape: &'a Shape) -> Message<'a> {
        let has_nothing_else = self.calls.is_empty() && self.refusal.is_none();
        let function_call = self.calls.first().filter(|_| shape.is_legacy);
        let tool_calls = self.calls.iter().filter(|_| !shape.is_legacy);
        Message {
            role: "assistant",
            // Clients stumble over a message with nothing in it at all.
            content: self.text.as_deref().or(has_nothing_else.then_some("")),
            refusal: self.refusal.as_deref(),
            reasoning_content: self.reasoning.as_deref(),
            annotations: self.citations.iter().filter_map(Annotation::of).collect(),
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
        self.assembly.event(event, &mut self.said);
    }

    fn finish(self: Box<Self>) -> Bytes {
        let (shape, outcome) = (&*self.shape, self.assembly.outcome());
        let completion = Completion {
            id: &shape.id,
            object: "chat.completion",
            created: shape.created,
            model: &shape.model,
            choices: [WholeChoice {
                index: 0,
                message: self.said.message(shape),
                logprobs: (),
                finish_reason: finish_reason(outcome.map_or(Finish::Stop, |outcome| outcome.finish), shape.is_legacy),
            }],
            usage: outcome.and_then(|outcome| outcome.usage.as_ref()).map(Usage::from),
            service_tier: outcome.and_then(|outcome| outcome.service_tier.as_deref()),
        };
        Bytes::from(serde_json::to_vec(&completion).unwrap_or_default())
    }
}
