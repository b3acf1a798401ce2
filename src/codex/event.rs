//! The backend's stream events, borrowed from the frame they came in (protocol.md 3).
//!
//! Rule for the unknown: an event type that is not listed is [`Event::Other`]; an unknown field is
//! not looked at; a known event that lacks what its type promises is an error of the backend.

use super::raw::Raw;
use super::{skim, text};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem::Finder;
use memchr::{memchr_iter, memchr2};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::sync::LazyLock;

mod delta;
mod usage;
mod whole;

pub use super::item::{ContentPart, Item};
pub use delta::Delta;
pub use usage::Usage;
pub use whole::{IncompleteDetails, ItemEvent, PartEvent, ResponseRef, ResponseSummary};

/// One event of a Responses stream.
#[derive(Debug)]
pub enum Event<'a> {
    /// `response.created`.
    Created(ResponseRef<'a>),
    /// `response.in_progress` (and `response.queued`).
    InProgress,
    /// `response.output_item.added`.
    ItemAdded(ItemEvent<'a>),
    /// `response.output_item.done`: the item as it stands; the truth for whole replies.
    ItemDone(ItemEvent<'a>),
    /// `response.content_part.added`.
    PartAdded(PartEvent<'a>),
    /// `response.content_part.done`.
    PartDone(PartEvent<'a>),
    /// `response.output_text.delta`.
    TextDelta(Delta<'a>),
    /// `response.output_text.annotation.added`.
    Annotation(AnnotationEvent<'a>),
    /// `response.refusal.delta`.
    RefusalDelta(Delta<'a>),
    /// `response.reasoning_summary_part.added`.
    SummaryPartAdded(Position<'a>),
    /// `response.reasoning_summary_text.delta`.
    SummaryDelta(Delta<'a>),
    /// `response.reasoning_text.delta`: raw reasoning, rare.
    ReasoningDelta(Delta<'a>),
    /// `response.function_call_arguments.delta`.
    ArgumentsDelta(Delta<'a>),
    /// `response.function_call_arguments.done`.
    ArgumentsDone(ArgumentsDone<'a>),
    /// `response.custom_tool_call_input.delta`.
    CustomInputDelta(Delta<'a>),
    /// `response.custom_tool_call_input.done`.
    CustomInputDone(InputDone<'a>),
    /// `response.image_generation_call.partial_image`.
    PartialImage(PartialImage<'a>),
    /// `response.completed` (also spelled `response.done`).
    Completed(ResponseRef<'a>),
    /// `response.incomplete`.
    Incomplete(ResponseRef<'a>),
    /// `response.failed`.
    Failed(ResponseRef<'a>),
    /// `error`: an error outside a response object.
    Error(ErrorEvent<'a>),
    /// `codex.rate_limits` (protocol.md 5.2): the payload as it came.
    RateLimits(&'a [u8]),
    /// Anything else; the type.
    Other(Cow<'a, str>),
}

/// Where in the output an event belongs.
#[derive(Debug, Deserialize)]
pub struct Position<'a> {
    /// The item's id. May be missing or differ from the added item's: fall back on `output_index`.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub item_id: Option<Cow<'a, str>>,
    /// Index of the item in the response's output.
    #[serde(default)]
    pub output_index: u32,
    /// Index of the part in the item's content.
    #[serde(default)]
    pub content_index: u32,
    /// Index of the summary part of a reasoning item.
    #[serde(default)]
    pub summary_index: u32,
}

/// The whole of a function call's arguments.
#[derive(Debug, Deserialize)]
pub struct ArgumentsDone<'a> {
    /// The item's id, where given.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub item_id: Option<Cow<'a, str>>,
    /// Index of the item in the response's output.
    #[serde(default)]
    pub output_index: u32,
    /// The function's name: some backends give it only here.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub name: Option<Cow<'a, str>>,
    /// JSON text.
    #[serde(borrow, default)]
    pub arguments: Cow<'a, str>,
}

/// The whole of a custom tool call's input.
#[derive(Debug, Deserialize)]
pub struct InputDone<'a> {
    /// The item's id, where given.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub item_id: Option<Cow<'a, str>>,
    /// Index of the item in the response's output.
    #[serde(default)]
    pub output_index: u32,
    /// Freeform text.
    #[serde(borrow, default)]
    pub input: Cow<'a, str>,
}

/// A citation or file reference attached to a text part.
#[derive(Debug, Deserialize)]
pub struct AnnotationEvent<'a> {
    /// Index of the item in the response's output.
    #[serde(default)]
    pub output_index: u32,
    /// Index of the part in the item's content.
    #[serde(default)]
    pub content_index: u32,
    /// The annotation's bytes, `{"type":"url_citation",…}`.
    #[serde(borrow)]
    pub annotation: Raw<'a>,
}

/// A preview of an image that is being generated.
#[derive(Debug, Deserialize)]
pub struct PartialImage<'a> {
    /// Index of the item in the response's output.
    #[serde(default)]
    pub output_index: u32,
    /// Which preview this is, from 0.
    #[serde(default)]
    pub partial_image_index: u32,
    /// Base64.
    #[serde(borrow, default)]
    pub partial_image_b64: Cow<'a, str>,
    /// `transparent`, `opaque`.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub background: Option<Cow<'a, str>>,
    /// `png`, `jpeg`, `webp`.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub output_format: Option<Cow<'a, str>>,
    /// `low`, `medium`, `high`.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub quality: Option<Cow<'a, str>>,
    /// `1024x1024`.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub size: Option<Cow<'a, str>>,
}

/// `{"type":"error",…}`; the fields stand at top level or under `error`.
#[derive(Debug, Deserialize)]
pub struct ErrorEvent<'a> {
    /// Named, so that a second one is an error; see `Unread`.
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// HTTP status, on the WebSocket transport.
    #[serde(default, alias = "status_code")]
    pub status: Option<u16>,
    /// Machine-readable code.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub code: Option<Cow<'a, str>>,
    /// Human-readable message.
    #[serde(borrow, default, deserialize_with = "text::borrowed")]
    pub message: Option<Cow<'a, str>>,
    /// The nested form.
    #[serde(default)]
    pub error: Option<ErrorBody>,
    /// The headers that an HTTP answer would have, on the WebSocket transport (protocol.md 4).
    #[serde(default)]
    pub headers: Option<serde_json::Map<String, serde_json::Value>>,
}

impl ErrorEvent<'_> {
    /// Its headers, those that are legible.
    pub fn header_map(&self) -> HeaderMap {
        let pairs = self.headers.iter().flatten().filter_map(|(name, value)| {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(text).ok()?))
        });
        pairs.collect()
    }
}

/// An error object: of a failed response, of an `error` event, or of an HTTP body.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ErrorBody {
    /// Machine-readable code, e.g. `context_length_exceeded`.
    #[serde(default)]
    pub code: Option<String>,
    /// Type, e.g. `usage_limit_reached`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Human-readable message.
    #[serde(default)]
    pub message: Option<String>,
    /// The parameter to blame.
    #[serde(default)]
    pub param: Option<String>,
    /// When the limit resets, Unix seconds.
    #[serde(default)]
    pub resets_at: Option<i64>,
    /// In how many seconds the limit resets.
    #[serde(default)]
    pub resets_in_seconds: Option<i64>,
    /// The plan of the account that was refused.
    #[serde(default)]
    pub plan_type: Option<String>,
}

/// How much of an event a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Everything: the reader translates deltas.
    Full,
    /// Items, terminals, errors and limits; deltas come out as [`Event::Other`] without being read.
    Control,
}

impl<'a> Event<'a> {
    /// Decodes the payload of one frame.
    pub fn parse(data: &'a [u8], depth: Depth) -> Result<Self, serde_json::Error> {
        let kind = kind(data)?;
        if let Some(event) = Self::control(&kind, data) {
            return event;
        }
        if depth == Depth::Control {
            return Self::other(kind, data);
        }
        match Self::delta(&kind, data) {
            Some(delta) => delta,
            None => Self::content(kind, data),
        }
    }

    fn delta(kind: &str, data: &'a [u8]) -> Option<Result<Self, serde_json::Error>> {
        let variant: fn(Delta<'a>) -> Self = match kind {
            "response.output_text.delta" => Self::TextDelta,
            "response.function_call_arguments.delta" => Self::ArgumentsDelta,
            "response.reasoning_summary_text.delta" => Self::SummaryDelta,
            "response.reasoning_text.delta" => Self::ReasoningDelta,
            "response.custom_tool_call_input.delta" => Self::CustomInputDelta,
            "response.refusal.delta" => Self::RefusalDelta,
            _ => return None,
        };
        Some(Delta::read(data).map(variant))
    }

    /// Whether this is one of the events that an answer opens with, legible and with its response: they tell nothing of how
    /// it goes on, nor of the account.
    pub fn is_opening(data: &[u8]) -> bool {
        let opens =
            matches!(kind(data).as_deref(), Ok("response.created" | "response.in_progress" | "response.queued"));
        opens && skim::has_one(data, &[b"type", b"response"])
    }

    fn control(kind: &str, data: &'a [u8]) -> Option<Result<Self, serde_json::Error>> {
        let event = match kind {
            "response.created" => ResponseRef::read(data).map(Self::Created),
            "response.in_progress" | "response.queued" => unread(data).map(|()| Self::InProgress),
            "response.output_item.added" => ItemEvent::read(data).map(Self::ItemAdded),
            "response.output_item.done" => ItemEvent::read(data).map(Self::ItemDone),
            "response.completed" | "response.done" => ResponseRef::read(data).map(Self::Completed),
            "response.incomplete" => ResponseRef::read(data).map(Self::Incomplete),
            "response.failed" => ResponseRef::read(data).map(Self::Failed),
            "error" => serde_json::from_slice(data).map(Self::Error),
            "codex.rate_limits" => unread(data).map(|()| Self::RateLimits(data)),
            _ => return None,
        };
        Some(event)
    }

    fn content(kind: Cow<'a, str>, data: &'a [u8]) -> Result<Self, serde_json::Error> {
        // A part has a type of its own: these look for a second one of the event's themselves.
        match &*kind {
            "response.content_part.added" => return PartEvent::read(data).map(Self::PartAdded),
            "response.content_part.done" => return PartEvent::read(data).map(Self::PartDone),
            _ => {}
        }
        // A reader of everything may pass the bytes on all the same.
        if may_name_a_second_type(data) {
            unread(data)?;
        }
        match &*kind {
            "response.function_call_arguments.done" => serde_json::from_slice(data).map(Self::ArgumentsDone),
            "response.reasoning_summary_part.added" => serde_json::from_slice(data).map(Self::SummaryPartAdded),
            "response.custom_tool_call_input.done" => serde_json::from_slice(data).map(Self::CustomInputDone),
            "response.output_text.annotation.added" => serde_json::from_slice(data).map(Self::Annotation),
            "response.image_generation_call.partial_image" => serde_json::from_slice(data).map(Self::PartialImage),
            _ => Self::other(kind, data),
        }
    }

    /// An event that nobody reads must be legible all the same: a client would stumble over it.
    fn other(kind: Cow<'a, str>, data: &'a [u8]) -> Result<Self, serde_json::Error> {
        unread(data).map(|()| Self::Other(kind))
    }

    /// Whether the stream has nothing more to say after this event.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Completed(_) | Self::Incomplete(_) | Self::Failed(_) | Self::Error(_))
    }

    /// Whether the model has begun to answer, so that the stream can no longer move to another account.
    pub fn is_output(&self) -> bool {
        !matches!(self, Self::Created(_) | Self::InProgress | Self::RateLimits(_) | Self::Other(_))
            && !self.is_terminal()
    }
}

/// An event of which nothing is read. It has one type: of two, another reader may take the second one, and
/// see an end where there is none.
#[derive(Deserialize)]
struct Unread {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
}

/// Whether an event of which nothing is read is legible.
fn unread(data: &[u8]) -> Result<(), serde_json::Error> {
    if skim::has_one(data, &[b"type"]) { Ok(()) } else { serde_json::from_slice::<Unread>(data).map(drop) }
}

/// Whether it is worth looking: nearly no delta has the word twice, or a letter written as its number.
/// Where the type does not come first, [`kind`] has looked already.
fn may_name_a_second_type(data: &[u8]) -> bool {
    static WORD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""type""#));
    let Some(rest) = data.strip_prefix(br#"{"type""#) else { return false };
    let is_number = |at: usize| rest.get(at + 1) == Some(&b'u');
    memchr_iter(b'\\', rest).any(is_number) || WORD.find(rest).is_some()
}

/// The event's place in its stream, where it has one: right after its type, as a rule.
pub fn sequence_number(data: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        #[serde(default)]
        sequence_number: Option<u64>,
    }
    if let Some(number) = second_number(data) {
        return Some(number);
    }
    let mut number = None;
    let read = skim::members(data, |name, value| {
        if name == b"sequence_number" {
            number = Some(skim::number(value)?);
        }
        Some(())
    });
    match read {
        Some(()) => number.map(u64::from),
        None => serde_json::from_slice::<Numbered>(data).ok()?.sequence_number,
    }
}

fn second_number(data: &[u8]) -> Option<u64> {
    let kind = leading(data, br#"{"type":""#)?;
    let number = data.get(br#"{"type":""#.len() + kind.len()..)?.strip_prefix(br#"","sequence_number":"#)?;
    let end = number.iter().take(10).position(|byte| *byte == b',' || *byte == b'}')?;
    skim::number(&number[..end]).map(u64::from)
}

/// The text that follows `prefix` at the beginning, up to its quote; `None` if it has escapes.
fn leading<'a>(data: &'a [u8], prefix: &[u8]) -> Option<&'a str> {
    let rest = data.strip_prefix(prefix)?;
    let end = memchr2(b'"', b'\\', rest).filter(|end| rest[*end] == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// The event's `type`. The backend writes it first; then the rest is not read for it.
fn kind(data: &[u8]) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
    }
    if let Some(kind) = leading(data, br#"{"type":""#) {
        return Ok(Cow::Borrowed(kind));
    }
    serde_json::from_slice::<Tag<'_>>(data).map(|tag| tag.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_borrows_from_the_frame() {
        let data = br#"{"type":"response.output_text.delta","item_id":"msg_1","output_index":2,"content_index":0,"delta":"hi"}"#;
        let Event::TextDelta(delta) = Event::parse(data, Depth::Full).expect("valid") else { panic!("a text delta") };
        assert!(matches!(delta.delta, Cow::Borrowed("hi")));
        assert!(matches!(delta.item_id, Some(Cow::Borrowed("msg_1"))));
        assert_eq!(delta.output_index, 2);
    }

    #[test]
    fn a_reader_of_control_events_does_not_pay_for_deltas() {
        let data = br#"{"type":"response.output_text.delta","delta":"hi"}"#;
        assert!(
            matches!(Event::parse(data, Depth::Control).expect("valid"), Event::Other(kind) if kind == "response.output_text.delta")
        );
    }

    #[test]
    fn usage_may_be_null_or_lack_its_details() {
        let data = br#"{"type":"response.completed","response":{"id":"r","usage":{"input_tokens":3,"input_tokens_details":null,"output_tokens":2}}}"#;
        let Event::Completed(response) = Event::parse(data, Depth::Control).expect("valid") else {
            panic!("completed")
        };
        let usage = response.summary().expect("valid").usage.expect("usage");
        assert_eq!(usage, Usage { input: 3, output: 2, total: 5, ..Usage::default() });
    }

    #[test]
    fn unknown_events_and_items_are_carried_not_refused() {
        assert!(matches!(
            Event::parse(br#"{"type":"response.new_thing","x":[1]}"#, Depth::Full).expect("valid"),
            Event::Other(_)
        ));
        let data = br#"{"type":"response.output_item.done","output_index":0,"item":{"type":"hologram","y":1}}"#;
        let Event::ItemDone(done) = Event::parse(data, Depth::Full).expect("valid") else { panic!("item") };
        assert!(matches!(done.item().expect("valid"), Item::Other));
        assert_eq!(done.raw.get(), r#"{"type":"hologram","y":1}"#);
    }

    #[test]
    fn an_answer_does_not_open_without_its_response() {
        for kind in ["response.created", "response.in_progress", "response.queued"] {
            assert!(Event::is_opening(format!(r#"{{"type":"{kind}","response":{{}}}}"#).as_bytes()));
            for rest in ["", r#","response":{},"response":{}"#, r#","response":{"#, r#","response":{},"type":"x""#] {
                let data = format!(r#"{{"type":"{kind}"{rest}}}"#);
                assert!(!Event::is_opening(data.as_bytes()), "{data}");
            }
        }
        assert!(!Event::is_opening(br#"{"type":"response.failed","response":{}}"#), "it has to be read");
    }

    #[test]
    fn a_payload_without_a_type_is_an_error() {
        assert!(Event::parse(br#"{"delta":"x"}"#, Depth::Full).is_err());
        assert!(Event::parse(b"[DONE]", Depth::Full).is_err());
    }

    #[test]
    fn an_event_has_one_type_at_every_depth() {
        let control =
            ["response.created", "response.queued", "response.output_item.done", "error", "codex.rate_limits"];
        for kind in control.into_iter().chain(["response.output_text.delta", "response.content_part.done", "x"]) {
            let rest = r#""response":{},"item":{},"part":{"type":"output_text"},"delta":"hi\n""#;
            let once = format!(r#"{{"type":"{kind}",{rest}}}"#);
            for depth in [Depth::Full, Depth::Control] {
                Event::parse(once.as_bytes(), depth).expect("legible");
                for second in ["type", "\\u0074ype"] {
                    let twice = format!(r#"{{"type":"{kind}",{rest},"{second}":"response.completed"}}"#);
                    assert!(Event::parse(twice.as_bytes(), depth).is_err(), "{depth:?}: {twice}");
                }
            }
        }
    }

    #[test]
    fn an_event_that_is_cut_is_an_error_at_every_depth() {
        let whole = br#"{"type":"response.output_text.delta","delta":"hi"}"#;
        for depth in [Depth::Full, Depth::Control] {
            assert!(Event::parse(whole, depth).is_ok());
            for end in 0..whole.len() {
                assert!(Event::parse(&whole[..end], depth).is_err(), "{depth:?}, {end} bytes");
            }
        }
        assert!(Event::parse(br#"{"type":"response.in_progress","response":{"#, Depth::Control).is_err());
    }
}
