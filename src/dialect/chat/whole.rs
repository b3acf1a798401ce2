//! A turn as one completion.

use super::Shape;
use super::turn::{Call, Finish, Sink, Turn};
use crate::codex::event::Depth;
use crate::codex::{Event, Usage};
use crate::dialect::Folder;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Folds a turn into a completion.
pub(super) struct Completion {
    shape: Arc<Shape>,
    turn: Turn,
    message: Message,
}

impl Completion {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self { turn: Turn::new(shape.clone()), shape, message: Message::default() }
    }
}

impl Folder for Completion {
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>) {
        self.turn.event(event, &mut self.message);
    }

    fn finish(self: Box<Self>) -> Bytes {
        let Self { shape, turn, mut message } = *self;
        message.role = "assistant";
        // Without text and without calls there was an answer all the same: an empty one.
        if message.content.is_none() && message.tool_calls.is_empty() && message.refusal.is_none() {
            message.content = Some(String::new());
        }
        if shape.legacy
            && let Some(ToolCall::Function { function, .. }) = message.tool_calls.pop()
        {
            message.tool_calls.clear();
            message.function_call = Some(function);
        }
        let completion = Answer {
            id: shape.id(),
            object: "chat.completion",
            created: shape.context.now,
            model: &shape.model,
            choices: [Choice {
                index: 0,
                message,
                logprobs: (),
                finish_reason: turn.finish.unwrap_or(Finish::Stop).as_str(),
            }],
            usage: turn.usage.unwrap_or_default().into(),
            service_tier: turn.service_tier.as_deref(),
        };
        Bytes::from(serde_json::to_vec(&completion).unwrap_or_default())
    }
}

impl Sink for Message {
    fn text(&mut self, text: &str) {
        self.content.get_or_insert_default().push_str(text);
    }

    fn reasoning(&mut self, text: &str) {
        self.reasoning_content.get_or_insert_default().push_str(text);
    }

    fn refusal(&mut self, text: &str) {
        self.refusal.get_or_insert_default().push_str(text);
    }

    fn annotation(&mut self, annotation: &RawValue) {
        self.annotations.push(annotation.to_owned());
    }

    fn call(&mut self, _: usize, call: &Call) {
        let id = call.id.clone();
        let begun = if call.is_custom {
            ToolCall::Custom { id, custom: CustomCall { name: call.name.clone(), input: String::new() } }
        } else {
            ToolCall::Function { id, function: FunctionCall { name: call.name.clone(), arguments: String::new() } }
        };
        self.tool_calls.push(begun);
    }

    fn arguments(&mut self, index: usize, _: &Call, more: &str) {
        match self.tool_calls.get_mut(index) {
            Some(ToolCall::Function { function, .. }) => function.arguments.push_str(more),
            Some(ToolCall::Custom { custom, .. }) => custom.input.push_str(more),
            None => {}
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: [Choice; 1],
    usage: UsageObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
}

#[derive(Serialize)]
struct Choice {
    index: u32,
    message: Message,
    logprobs: (),
    finish_reason: &'static str,
}

#[derive(Default, Serialize)]
struct Message {
    role: &'static str,
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionCall>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ToolCall {
    Function { id: String, function: FunctionCall },
    Custom { id: String, custom: CustomCall },
}

#[derive(Serialize)]
struct FunctionCall {
    name: String,
    arguments: String,
}

#[derive(Serialize)]
struct CustomCall {
    name: String,
    input: String,
}

/// Tokens in OpenAI's words: the prompt includes what was cached, the completion what was reasoned.
#[derive(Serialize)]
pub(super) struct UsageObject {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.input,
            completion_tokens: usage.output,
            total_tokens: usage.total,
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached },
            completion_tokens_details: CompletionDetails { reasoning_tokens: usage.reasoning },
        }
    }
}
