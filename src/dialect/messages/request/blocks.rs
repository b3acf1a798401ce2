//! Content blocks as clients write them.
//!
//! Blocks are read one by one from their bytes, by their type: a long image is copied once, and an
//! error names the block. Content inside a block is kept as bytes and read only where a block of
//! that kind may stand, so that nesting is bounded by the grammar and not by the client.

use crate::codex::raw::Raw;
use crate::dialect::Problem;
use serde::Deserialize;
use std::borrow::Cow;

/// Text, or blocks.
#[derive(Debug)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Blocks(Vec<Raw<'a>>),
}

impl<'a> Content<'a> {
    /// `path` is for errors.
    pub(super) fn parse(raw: Raw<'a>, path: &str) -> Result<Self, Problem> {
        let text = raw.get();
        let parsed = match text.as_bytes().first() {
            Some(b'"') => serde_json::from_str(text).map(Self::Text),
            Some(b'[') => raw.elements().map(Self::Blocks),
            Some(b'n') => Ok(Self::Blocks(Vec::new())),
            _ => return Err(Problem::invalid(path, format!("{path}: Input should be a valid string or array"))),
        };
        parsed.map_err(|e| invalid(path, &e))
    }
}

/// A block.
#[derive(Debug)]
pub(super) enum Block<'a> {
    Text(Cow<'a, str>),
    Image(Image<'a>),
    Document(Document<'a>),
    SearchResult(SearchResult<'a>),
    ToolReference(ToolReference<'a>),
    ToolUse(ToolUse<'a>),
    ToolResult(ToolResult<'a>),
    Thinking(Cow<'a, str>),
    RedactedThinking(Cow<'a, str>),
    /// A step that a server ran in an earlier turn, and its result.
    ServerStep,
    /// A type this version does not know; its text, if it has some.
    Unknown(Option<Cow<'a, str>>),
}

#[derive(Debug, Deserialize)]
pub(super) struct Image<'a> {
    #[serde(borrow)]
    pub(super) source: Source<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Document<'a> {
    #[serde(borrow)]
    pub(super) source: Source<'a>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    pub(super) title: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    pub(super) context: Option<Cow<'a, str>>,
}

/// Where an image or a document is: `base64`, `url`, `text`, `content` or `file`.
#[derive(Debug, Deserialize)]
pub(super) struct Source<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    pub(super) media_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    pub(super) data: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    pub(super) url: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) content: Option<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct SearchResult<'a> {
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    pub(super) title: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    pub(super) source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) content: Option<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToolReference<'a> {
    #[serde(borrow)]
    pub(super) tool_name: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToolUse<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) input: Option<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToolResult<'a> {
    #[serde(borrow)]
    pub(super) tool_use_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) content: Option<Raw<'a>>,
    #[serde(default)]
    pub(super) is_error: Option<bool>,
}

impl<'a> Block<'a> {
    pub(super) fn parse(raw: Raw<'a>) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Text<'a> {
            #[serde(borrow)]
            text: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Thinking<'a> {
            #[serde(borrow, default)]
            signature: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Redacted<'a> {
            #[serde(borrow, default)]
            data: Cow<'a, str>,
        }
        let json = raw.get();
        let block = match &*kind(json)? {
            "text" => Self::Text(serde_json::from_str::<Text<'_>>(json)?.text),
            "image" => Self::Image(serde_json::from_str(json)?),
            "document" => Self::Document(serde_json::from_str(json)?),
            "search_result" => Self::SearchResult(serde_json::from_str(json)?),
            "tool_reference" => Self::ToolReference(serde_json::from_str(json)?),
            "tool_use" => Self::ToolUse(serde_json::from_str(json)?),
            "tool_result" => Self::ToolResult(serde_json::from_str(json)?),
            "thinking" => Self::Thinking(serde_json::from_str::<Thinking<'_>>(json)?.signature),
            "redacted_thinking" => Self::RedactedThinking(serde_json::from_str::<Redacted<'_>>(json)?.data),
            "server_tool_use" | "mcp_tool_use" => Self::ServerStep,
            other if other.ends_with("_tool_result") => Self::ServerStep,
            _ => Self::Unknown(serde_json::from_str::<Text<'_>>(json).ok().map(|block| block.text)),
        };
        Ok(block)
    }
}

/// A block's type. Clients write it first; then the rest is not read for it.
fn kind(block: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    let first = block.strip_prefix(r#"{"type":"#).map(str::trim_start).and_then(|rest| rest.strip_prefix('"'));
    let is_plain = |kind: &&str| kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if let Some(kind) = first.and_then(|rest| Some(rest.split_once('"')?.0)).filter(is_plain) {
        return Ok(Cow::Borrowed(kind));
    }
    serde_json::from_str::<Tag<'_>>(block).map(|tag| tag.kind)
}

/// What is wrong at `path`, in the words that Anthropic's SDKs show.
pub(super) fn invalid(path: &str, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    // The position counts from the start of a fragment and would mislead.
    let reason = text.split_once(" at line ").map_or(&*text, |(reason, _)| reason);
    let missing = reason.strip_prefix("missing field `").and_then(|field| field.strip_suffix('`'));
    match missing {
        Some(field) => required(&format!("{path}.{field}")),
        None => Problem::invalid(path, format!("{path}: {reason}")),
    }
}

/// A field that must be there is not.
pub(super) fn required(path: &str) -> Problem {
    Problem::invalid(path, format!("{path}: Field required"))
}
