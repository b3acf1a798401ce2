//! The shapes of Anthropic's replies: stream events, content blocks and the message object.
//!
//! Everything borrows: a delta is serialised from the backend's frame straight into the answer.

use crate::codex::request::quote;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;

/// One event of a stream.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum StreamEvent<'a> {
    MessageStart { message: Message<'a> },
    Ping,
    ContentBlockStart { index: u32, content_block: ContentBlock<'a> },
    ContentBlockDelta { index: u32, delta: BlockDelta<'a> },
    ContentBlockStop { index: u32 },
    MessageDelta { delta: MessageEnd, usage: Usage },
    MessageStop,
}

impl StreamEvent<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::Ping => "ping",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
        }
    }

    /// Appends the event as a frame.
    pub(super) fn write(&self, out: &mut BytesMut) {
        write_frame(self.name(), self, out);
    }
}

/// Appends a piece of a block, as [`StreamEvent::write`] would: most frames are one, and a serialiser takes longer
/// than all that comes before it.
pub(super) fn write_delta(index: u32, delta: BlockDelta<'_>, out: &mut BytesMut) {
    const BEFORE: &[u8] = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";
    let (kind, text): (&[u8], _) = match delta {
        BlockDelta::Text { text } => (br#","delta":{"type":"text_delta","text":"#, text),
        BlockDelta::Thinking { thinking } => (br#","delta":{"type":"thinking_delta","thinking":"#, thinking),
        BlockDelta::InputJson { partial_json } => {
            (br#","delta":{"type":"input_json_delta","partial_json":"#, partial_json)
        }
        BlockDelta::Citation { .. } | BlockDelta::Signature { .. } => {
            return StreamEvent::ContentBlockDelta { index, delta }.write(out);
        }
    };
    out.reserve(BEFORE.len() + kind.len() + text.len() + 16);
    out.extend_from_slice(BEFORE);
    match u8::try_from(index) {
        Ok(digit @ 0..10) => out.put_u8(b'0' + digit),
        _ => out.extend_from_slice(index.to_string().as_bytes()),
    }
    out.extend_from_slice(kind);
    quote(text, out);
    out.extend_from_slice(b"}}\n\n");
}

/// Appends one server-sent event.
pub(super) fn write_frame(name: &str, payload: &impl Serialize, out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    // Neither the buffer nor these types can fail to serialise.
    let _ = serde_json::to_writer(out.writer(), payload);
    out.extend_from_slice(b"\n\n");
}

/// The message object.
#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<ContentBlock<'a>>,
    #[serde(flatten)]
    pub(super) end: MessageEnd,
    pub(super) usage: Usage,
}

impl<'a> Message<'a> {
    pub(super) fn new(
        request_id: &str,
        model: &'a str,
        content: Vec<ContentBlock<'a>>,
        end: MessageEnd,
        usage: Usage,
    ) -> Self {
        Self { id: format!("msg_{request_id}"), kind: "message", role: "assistant", model, content, end, usage }
    }
}

/// How a message ended; both null while it has not.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct MessageEnd {
    pub(super) stop_reason: Option<StopReason>,
    /// Which of the request's sequences ended it, if one did.
    pub(super) stop_sequence: Option<String>,
}

/// Why a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StopReason {
    EndTurn,
    ToolUse,
    MaxTokens,
    StopSequence,
    /// The model would go on if it were asked again.
    PauseTurn,
    Refusal,
    ModelContextWindowExceeded,
}

/// Tokens as Anthropic counts them: `input_tokens` leaves out what was read from or written to the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    pub(super) input_tokens: u64,
    pub(super) cache_creation_input_tokens: u64,
    pub(super) cache_read_input_tokens: u64,
    pub(super) output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_tool_use: Option<ServerToolUsage>,
}

/// What the backend ran itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct ServerToolUsage {
    pub(super) web_search_requests: u64,
    /// Always 0, but the SDKs' types demand it.
    pub(super) web_fetch_requests: u64,
}

impl Usage {
    /// What is known when a stream begins.
    pub(super) fn at_start(estimate: u64) -> Self {
        Self { input_tokens: estimate, ..Self::default() }
    }

    /// From the backend's count, whose input includes everything cached.
    pub(super) fn of(usage: &crate::codex::Usage) -> Self {
        let written = usage.cache_write.unwrap_or(0);
        Self {
            input_tokens: usage.input.saturating_sub(usage.cached).saturating_sub(written),
            cache_creation_input_tokens: written,
            cache_read_input_tokens: usage.cached,
            output_tokens: usage.output,
            server_tool_use: None,
        }
    }

    /// Adds the searches that the backend ran.
    pub(super) fn with_searches(self, count: u64) -> Self {
        let server_tool_use =
            (count > 0).then_some(ServerToolUsage { web_search_requests: count, web_fetch_requests: 0 });
        Self { server_tool_use, ..self }
    }
}

/// A block of content: as it begins in a stream, or complete in a message.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ContentBlock<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        citations: &'a [Citation],
    },
    Thinking {
        thinking: &'a str,
        signature: &'a str,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: Json<'a>,
    },
    ServerToolUse {
        id: &'a str,
        name: &'static str,
        input: Json<'a>,
    },
    WebSearchToolResult {
        tool_use_id: &'a str,
        content: &'a SearchResults,
    },
    Image {
        source: ImageSource<'a>,
    },
}

/// An image that the backend made. Anthropic's models make none, so this is the form in which
/// clients send images.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct ImageSource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    pub(super) media_type: &'a str,
    pub(super) data: &'a str,
}

impl<'a> ImageSource<'a> {
    pub(super) fn new(media_type: &'a str, data: &'a str) -> Self {
        Self { kind: "base64", media_type, data }
    }
}

/// What is appended to the open block.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(super) enum BlockDelta<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "citations_delta")]
    Citation { citation: &'a Citation },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

/// JSON text, put out as JSON. Text that is no object is wrapped as Anthropic advises for partial
/// input, so that the client gets an object and nothing is lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'a>(pub(super) &'a str);

impl Serialize for Json<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Invalid<'a> {
            #[serde(rename = "INVALID_JSON")]
            text: &'a str,
        }
        match serde_json::from_str::<&RawValue>(self.0) {
            Ok(raw) if raw.get().starts_with('{') => raw.serialize(serializer),
            _ => Invalid { text: self.0 }.serialize(serializer),
        }
    }
}

/// Where a statement comes from. The backend names the page, not the passage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Citation {
    #[serde(rename = "type")]
    kind: &'static str,
    cited_text: &'static str,
    url: String,
    title: Option<String>,
    encrypted_index: &'static str,
}

impl Citation {
    pub(super) fn web(url: String, title: Option<String>) -> Self {
        Self { kind: "web_search_result_location", cited_text: "", url, title, encrypted_index: "" }
    }
}

/// The outcome of a search that the backend ran.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(super) enum SearchResults {
    Found(Vec<SearchHit>),
    Failed(SearchError),
}

/// One page that a search found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SearchHit {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) url: String,
    pub(super) title: String,
    pub(super) encrypted_content: &'static str,
    pub(super) page_age: Option<&'static str>,
}

/// A search that failed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SearchError {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) error_code: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_written_as_the_serialiser_writes_it() {
        for text in ["", "plain", "a \"b\" \\ c\n\u{1}\u{8}é🦀 and so on, for longer than a word"] {
            for index in [0, 9, 10, u32::MAX] {
                let deltas = || {
                    [
                        BlockDelta::Text { text },
                        BlockDelta::Thinking { thinking: text },
                        BlockDelta::Signature { signature: text },
                        BlockDelta::InputJson { partial_json: text },
                    ]
                };
                for (one, other) in deltas().into_iter().zip(deltas()) {
                    let (mut written, mut serialised) = (BytesMut::new(), BytesMut::new());
                    write_delta(index, one, &mut written);
                    StreamEvent::ContentBlockDelta { index, delta: other }.write(&mut serialised);
                    assert_eq!(written, serialised);
                }
            }
        }
    }
}
