//! The shapes of Chat Completions' answers: chunks, the completion, usage.
//!
//! Everything borrows: a delta is serialised from the backend's frame straight into the answer.

use super::Shape;
use super::assembly::{Family, Finish, Thought};
use crate::codex::request::quote;
use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;

/// One chunk of a stream.
#[derive(Debug, Serialize)]
pub(super) struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Tokens::is_absent")]
    usage: Tokens,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
}

/// `usage` of a chunk: absent unless asked for, else null in every chunk but the last.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Tokens {
    Absent,
    Null,
    Known(Usage),
}

impl Tokens {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// The one choice of a chunk.
#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: (),
    finish_reason: Option<&'static str>,
}

/// What a chunk adds to the message.
#[derive(Debug, Default, Serialize)]
pub(super) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_details: Option<[ReasoningDetail<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<[AnnotationDelta<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) images: Option<[Image; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tool_calls: Option<[CallDelta<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) function_call: Option<Function<'a>>,
}

/// Part of a call: its beginning has id, type and name, the rest has none of them.
#[derive(Debug, Serialize)]
pub(super) struct CallDelta<'a> {
    pub(super) index: u32,
    #[serde(flatten)]
    pub(super) call: Call<'a>,
}

/// A call, or part of one.
#[derive(Debug, Serialize)]
pub(super) struct Call<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Function<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<Custom<'a>>,
}

impl<'a> Call<'a> {
    /// A call with what is known of it; `text` is arguments or input.
    pub(super) fn new(family: Family, id: Option<&'a str>, name: Option<&'a str>, text: &'a str) -> Self {
        let is_custom = family == Family::Custom;
        Self {
            id,
            kind: id.map(|_| if is_custom { "custom" } else { "function" }),
            function: (!is_custom).then_some(Function { name, arguments: text }),
            custom: is_custom.then_some(Custom { name, input: text }),
        }
    }
}

/// The function of a call, or part of it.
#[derive(Debug, Serialize)]
pub(super) struct Function<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a str>,
    pub(super) arguments: &'a str,
}

#[derive(Debug, Serialize)]
struct Custom<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    input: &'a str,
}

/// Reasoning in the form of clients that send it back (OpenRouter's): pieces of one index belong
/// together. OpenAI's SDK joins whatever two pieces of one index have, so what is no text stands in
/// the first only.
#[derive(Debug, Serialize)]
pub(super) struct ReasoningDetail<'a> {
    #[serde(flatten)]
    pub(super) said: ReasoningPart<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    /// Whose encrypted form it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<&'static str>,
    pub(super) index: u32,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(super) enum ReasoningPart<'a> {
    #[serde(rename = "reasoning.summary")]
    Summary { summary: &'a str },
    #[serde(rename = "reasoning.text")]
    Text { text: &'a str },
    #[serde(rename = "reasoning.encrypted")]
    Encrypted { data: Cow<'a, str> },
}

impl<'a> ReasoningDetail<'a> {
    /// Reasoning that may be read.
    pub(super) fn legible(thought: Thought<'a>, text: &'a str) -> Self {
        let said =
            if thought.is_summary { ReasoningPart::Summary { summary: text } } else { ReasoningPart::Text { text } };
        Self::of(thought, said)
    }

    /// Reasoning for the backend, sealed.
    pub(super) fn encrypted(thought: Thought<'a>, sealed: Cow<'a, str>) -> Self {
        Self::of(thought, ReasoningPart::Encrypted { data: sealed })
    }

    fn of(thought: Thought<'a>, said: ReasoningPart<'a>) -> Self {
        let format = thought.is_new.then_some("openai-responses-v1");
        Self { said, id: thought.id.filter(|_| thought.is_new), format, index: thought.index }
    }
}

/// An image of the assistant, in the form that clients know from OpenRouter.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Image {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "image_url")]
    address: Address,
    index: u32,
}

#[derive(Debug, Clone, Serialize)]
struct Address {
    url: String,
}

impl Image {
    pub(super) fn new(index: u32, format: &str, data: &str) -> Self {
        Self { kind: "image_url", address: Address { url: format!("data:image/{format};base64,{data}") }, index }
    }
}

/// A citation in a stream. OpenAI's SDK adds lists up by the index of their entries.
#[derive(Debug, Serialize)]
pub(super) struct AnnotationDelta<'a> {
    pub(super) index: u32,
    #[serde(flatten)]
    pub(super) annotation: Annotation<'a>,
}

/// A citation. Chat Completions nests what the backend has flat.
#[derive(Debug, Serialize)]
pub(super) struct Annotation<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    url_citation: UrlCitation<'a>,
}

#[derive(Debug, Serialize)]
struct UrlCitation<'a> {
    url: &'a str,
    title: &'a str,
    start_index: u64,
    end_index: u64,
}

impl<'a> Annotation<'a> {
    /// `None` for what is not a citation of a page: Chat Completions has no other. Its places count
    /// from `origin`: the content is all text of the answer, and the backend counts in one part of it.
    pub(super) fn of(citation: &'a Value, origin: u64) -> Option<Self> {
        let text = |name: &str| citation.get(name).and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| citation.get(name).and_then(Value::as_u64).map_or(0, |at| at.saturating_add(origin));
        (text("type") == "url_citation").then(|| Self {
            kind: "url_citation",
            url_citation: UrlCitation {
                url: text("url"),
                title: text("title"),
                start_index: number("start_index"),
                end_index: number("end_index"),
            },
        })
    }
}

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Usage {
    #[serde(rename = "prompt_tokens")]
    input: u64,
    #[serde(rename = "completion_tokens")]
    output: u64,
    #[serde(rename = "total_tokens")]
    total: u64,
    prompt_tokens_details: InputDetails,
    completion_tokens_details: OutputDetails,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct InputDetails {
    #[serde(rename = "cached_tokens")]
    cached: u64,
    #[serde(rename = "cache_write_tokens", skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct OutputDetails {
    #[serde(rename = "reasoning_tokens")]
    reasoning: u64,
}

impl From<&crate::codex::Usage> for Usage {
    fn from(usage: &crate::codex::Usage) -> Self {
        Self {
            input: usage.input,
            output: usage.output,
            total: usage.total,
            prompt_tokens_details: InputDetails { cached: usage.cached, written: usage.cache_write },
            completion_tokens_details: OutputDetails { reasoning: usage.reasoning },
        }
    }
}

/// The completion object.
#[derive(Debug, Serialize)]
pub(super) struct Completion<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: i64,
    pub(super) model: &'a str,
    pub(super) choices: [WholeChoice<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service_tier: Option<&'a str>,
}

/// The one choice of a completion.
#[derive(Debug, Serialize)]
pub(super) struct WholeChoice<'a> {
    pub(super) index: u32,
    pub(super) message: Message<'a>,
    pub(super) logprobs: (),
    pub(super) finish_reason: &'static str,
}

/// The assistant's message.
#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    pub(super) role: &'static str,
    pub(super) content: Option<&'a str>,
    pub(super) refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) reasoning_details: Vec<ReasoningDetail<'a>>,
    pub(super) annotations: Vec<Annotation<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) images: &'a [Image],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<Call<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) function_call: Option<Function<'a>>,
}

/// `finish_reason` on the wire.
pub(super) fn finish_reason(finish: Finish, is_legacy: bool) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Calls if is_legacy => "function_call",
        Finish::Calls => "tool_calls",
        Finish::Length => "length",
        Finish::ContentFilter => "content_filter",
    }
}

impl Shape {
    /// Writes a chunk that adds to the message or ends it.
    pub(super) fn write_delta(
        &self,
        delta: Delta<'_>,
        finish_reason: Option<&'static str>,
        tier: Option<&str>,
        out: &mut BytesMut,
    ) {
        let choices = [Choice { index: 0, delta, logprobs: (), finish_reason }];
        let usage = if self.include_usage { Tokens::Null } else { Tokens::Absent };
        self.write(&choices, usage, tier, out);
    }

    /// Writes the chunk that holds nothing but usage.
    pub(super) fn write_usage(&self, usage: Usage, tier: Option<&str>, out: &mut BytesMut) {
        self.write(&[], Tokens::Known(usage), tier, out);
    }

    fn write(&self, choices: &[Choice<'_>], usage: Tokens, tier: Option<&str>, out: &mut BytesMut) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage,
            service_tier: tier,
        };
        out.extend_from_slice(b"data: ");
        // Neither the buffer nor these types can fail to serialise.
        let _ = serde_json::to_writer(out.writer(), &chunk);
        out.extend_from_slice(b"\n\n");
    }
}

/// A chunk of text: all that stands around the text is the same in each of a stream.
pub(super) struct TextChunk {
    before: Bytes,
    after: Bytes,
}

impl TextChunk {
    pub(super) fn new(shape: &Shape) -> Self {
        let empty = br#""content":"""#;
        let mut chunk = BytesMut::new();
        shape.write_delta(Delta { content: Some(""), ..Delta::default() }, None, None, &mut chunk);
        // What the client has named comes before it.
        let end = memmem::rfind(&chunk, empty).map_or(0, |at| at + empty.len());
        let after = chunk.split_off(end).freeze();
        chunk.truncate(end.saturating_sub(2));
        Self { before: chunk.freeze(), after }
    }

    pub(super) fn write(&self, text: &str, out: &mut BytesMut) {
        out.reserve(self.before.len() + text.len() + self.after.len() + 2);
        out.extend_from_slice(&self.before);
        quote(text, out);
        out.extend_from_slice(&self.after);
    }
}
