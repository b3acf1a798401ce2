//! Events that hold a whole object: a response, an item, a part. A response repeats what its request said, which may
//! be tens of kilobytes, and comes three times an answer: so it is skimmed.

use super::{ErrorBody, Item, Usage};
use crate::codex::raw::Raw;
use crate::codex::{skim, text};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::cell::OnceCell;

/// An item that was added or finished.
#[derive(Debug, Deserialize)]
pub struct ItemEvent<'a> {
    /// Named, so that a second one is an error; see `Unread`.
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// Index of the item in the response's output.
    #[serde(default)]
    pub output_index: u32,
    /// The item's bytes.
    #[serde(borrow, rename = "item")]
    pub raw: Raw<'a>,
}

impl<'a> ItemEvent<'a> {
    pub(super) fn read(data: &'a [u8]) -> Result<Self, serde_json::Error> {
        Self::skim(data).map_or_else(|| serde_json::from_slice(data), Ok)
    }

    /// The same for what such events nearly always are; `None` for the parser to judge.
    fn skim(data: &'a [u8]) -> Option<Self> {
        let (mut types, mut index, mut raw) = (0, None, None);
        skim::members(data, |name, value| {
            let is_second = match name {
                b"type" => std::mem::replace(&mut types, 1) == 1,
                b"output_index" => index.replace(skim::number(value)?).is_some(),
                b"item" => raw.replace(value).is_some(),
                _ => false,
            };
            (!is_second).then_some(())
        })?;
        (types == 1).then_some(Self { _kind: IgnoredAny, output_index: index.unwrap_or(0), raw: Raw::skimmed(raw?)? })
    }

    /// The item, typed; an unknown type is [`Item::Other`].
    pub fn item(&self) -> Result<Item, serde_json::Error> {
        serde_json::from_str(self.raw.get())
    }
}

/// A content part that was added or finished.
#[derive(Debug, Deserialize)]
pub struct PartEvent<'a> {
    /// Named, so that a second one is an error; see `Unread`.
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// Index of the item in the response's output.
    #[serde(default)]
    pub output_index: u32,
    /// Index of the part in the item's content.
    #[serde(default)]
    pub content_index: u32,
    /// The part's bytes.
    #[serde(borrow)]
    pub part: Raw<'a>,
}

impl<'a> PartEvent<'a> {
    pub(super) fn read(data: &'a [u8]) -> Result<Self, serde_json::Error> {
        Self::skim(data).map_or_else(|| serde_json::from_slice(data), Ok)
    }

    /// The same for what such events nearly always are; `None` for the parser to judge.
    fn skim(data: &'a [u8]) -> Option<Self> {
        let (mut types, mut output, mut content, mut part) = (0, None, None, None);
        skim::members(data, |name, value| {
            let is_second = match name {
                b"type" => std::mem::replace(&mut types, 1) == 1,
                b"output_index" => output.replace(skim::number(value)?).is_some(),
                b"content_index" => content.replace(skim::number(value)?).is_some(),
                b"part" => part.replace(value).is_some(),
                _ => false,
            };
            (!is_second).then_some(())
        })?;
        let (output_index, content_index) = (output.unwrap_or(0), content.unwrap_or(0));
        (types == 1).then_some(Self { _kind: IgnoredAny, output_index, content_index, part: Raw::skimmed(part?)? })
    }
}

/// The response object of a `created` or terminal event.
#[derive(Debug, Deserialize)]
pub struct ResponseRef<'a> {
    /// Named, so that a second one is an error; see `Unread`.
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// The object's bytes.
    #[serde(borrow, rename = "response")]
    pub raw: Raw<'a>,
    /// Read when it is wanted first; `None` in it where it is not legible.
    #[serde(skip)]
    summary: OnceCell<Option<Box<ResponseSummary>>>,
}

impl<'a> ResponseRef<'a> {
    pub(super) fn read(data: &'a [u8]) -> Result<Self, serde_json::Error> {
        Self::skim(data).map_or_else(|| serde_json::from_slice(data), Ok)
    }

    /// The same for what such events nearly always are; `None` for the parser to judge.
    fn skim(data: &'a [u8]) -> Option<Self> {
        let (mut types, mut raw) = (0, None);
        skim::members(data, |name, value| {
            let is_second = match name {
                b"type" => std::mem::replace(&mut types, 1) == 1,
                b"response" => raw.replace(value).is_some(),
                _ => false,
            };
            (!is_second).then_some(())
        })?;
        let summary = OnceCell::new();
        (types == 1).then_some(Self { _kind: IgnoredAny, raw: Raw::skimmed(raw?)?, summary })
    }

    /// Its id, which the backend writes first.
    pub fn id(&self) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow, default, deserialize_with = "text::borrowed")]
            id: Option<Cow<'a, str>>,
        }
        let raw = self.raw.get();
        let first = super::leading(raw.as_bytes(), br#"{"id":""#).map(Cow::Borrowed);
        first.or_else(|| serde_json::from_str::<Named<'_>>(raw).ok()?.id)
    }

    /// What the gateway reads of it; `None` if it is not legible.
    pub fn summary(&self) -> Option<&ResponseSummary> {
        let read = || {
            let raw = self.raw.get();
            let summary = ResponseSummary::skim(raw.as_bytes()).or_else(|| serde_json::from_str(raw).ok());
            summary.map(Box::new)
        };
        self.summary.get_or_init(read).as_deref()
    }

    /// Its output, if it has one: items as they are written.
    pub fn output(&self) -> Option<Vec<Raw<'a>>> {
        let mut output = None;
        let skimmed = skim::members(self.raw.get().as_bytes(), |name, value| {
            // Of two, the parser has to say what that is.
            if name == b"output" && output.replace(value).is_some() { None } else { Some(()) }
        });
        match skimmed {
            Some(()) => Raw::skimmed(output?)?.elements().ok(),
            None => serde_json::from_str::<Output<'_>>(self.raw.get()).ok()?.output,
        }
    }
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow, default)]
    output: Option<Vec<Raw<'a>>>,
}

/// The fields of a response object that the gateway reads.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ResponseSummary {
    /// `resp_…`.
    #[serde(default)]
    pub id: Option<String>,
    /// The model that served.
    #[serde(default)]
    pub model: Option<String>,
    /// `completed`, `incomplete`, `failed`.
    #[serde(default)]
    pub status: Option<String>,
    /// The tier that served.
    #[serde(default)]
    pub service_tier: Option<String>,
    /// Tokens; may be null.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Why a failed response failed.
    #[serde(default)]
    pub error: Option<ErrorBody>,
    /// Whether the model has said all that it wanted; `false` if it would go on when it is asked again.
    #[serde(default)]
    pub end_turn: Option<bool>,
    /// Why an incomplete response ended.
    #[serde(default)]
    pub incomplete_details: Option<IncompleteDetails>,
}

impl ResponseSummary {
    /// Reads the few members that matter, each with a parser, and skims the others, which may be long.
    /// `None` for a parser to judge.
    fn skim(response: &[u8]) -> Option<Self> {
        let mut wanted: [(&[u8], Option<&[u8]>); 8] = [
            (b"id", None),
            (b"model", None),
            (b"status", None),
            (b"service_tier", None),
            (b"usage", None),
            (b"error", None),
            (b"end_turn", None),
            (b"incomplete_details", None),
        ];
        skim::members(response, |name, value| match wanted.iter_mut().find(|(wanted, _)| *wanted == name) {
            Some((_, found)) => found.replace(value).is_none().then_some(()),
            None => Some(()),
        })?;
        let [id, model, status, service_tier, usage, error, end_turn, incomplete_details] = wanted.map(|(_, it)| it);
        let mut summary = Self {
            usage: usage.and_then(Usage::skim).map_or_else(|| optional(usage), |usage| Some(Some(usage)))?,
            error: optional(error)?,
            end_turn: optional(end_turn)?,
            incomplete_details: optional(incomplete_details)?,
            ..Self::default()
        };
        let Self { id: its_id, model: its_model, status: its_status, service_tier: its_tier, .. } = &mut summary;
        for (place, value) in [(its_id, id), (its_model, model), (its_status, status), (its_tier, service_tier)] {
            if let Some(value) = value.filter(|value| *value != b"null") {
                *place = Some(skim::text(value)?.into_owned());
            }
        }
        Some(summary)
    }
}

/// A member that may be missing or, by its type, `null`; `None` where it is of another type.
fn optional<'a, T: Default + Deserialize<'a>>(value: Option<&'a [u8]>) -> Option<T> {
    value.map_or_else(|| Some(T::default()), |value| serde_json::from_slice(value).ok())
}

/// `incomplete_details` of a response.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct IncompleteDetails {
    /// `max_output_tokens`, `content_filter`, …
    #[serde(default)]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_responses_are_skimmed_as_the_parser_reads_them() {
        let events = [
            r#"{"type":"x","sequence_number":3,"output_index":2,"content_index":1,"item":{"id":"a"},"part":{"type":"t"},"response":{"id":"r"}}"#,
            r#"{"item": {"a": [1, "}"]} , "response": null, "part": [], "type": "x"}"#,
            r#"{"type":"x","output_index":-1,"content_index":0,"item":1,"part":1,"response":1}"#,
            r#"{"type":"x","output_index":0,"content_index":1.5,"item":1,"part":1,"response":1}"#,
            r#"{"type":"x","output_index":4294967295,"content_index":4294967295,"item":1,"part":1,"response":1}"#,
            r#"{"type":"x","content_index":1,"content_index":2,"item":1,"part":1,"response":1}"#,
            r#"{"type":"x","type":"y","item":1,"part":1,"response":1}"#,
            r#"{"type":"x","item":1,"item":2,"part":1,"part":2,"response":1,"response":2}"#,
            r#"{"type":"x"}"#,
            r#"{"item":1,"part":1,"response":1}"#,
            r#"{"type":"x","item":1,"part":1,"response":1"#,
        ];
        for text in events {
            let item = ItemEvent::read(text.as_bytes()).map(|item| (item.output_index, item.raw)).ok();
            let parsed = serde_json::from_str::<ItemEvent<'_>>(text).map(|item| (item.output_index, item.raw)).ok();
            assert_eq!(item, parsed, "{text}");
            let told = |part: PartEvent<'_>| format!("{part:?}");
            let part = PartEvent::read(text.as_bytes()).map(told).ok();
            assert_eq!(part, serde_json::from_str(text).map(told).ok(), "{text}");
            let response = ResponseRef::read(text.as_bytes()).map(|response| response.raw).ok();
            let parsed = serde_json::from_str::<ResponseRef<'_>>(text).map(|response| response.raw).ok();
            assert_eq!(response, parsed, "{text}");
        }
    }

    #[test]
    fn what_is_read_of_a_response_is_what_the_parser_reads() {
        let responses = [
            r#"{"id":"r","model":"m","status":"completed","usage":{"input_tokens":1,"output_tokens":2},"output":[{"a":1}, 2],"tools":[{}]}"#,
            r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"error":null,"output":null}"#,
            r#"{"status":"failed","error":{"code":"c","message":"m"},"end_turn":false,"service_tier":null}"#,
            r#"{"status":1}"#,
            r#"{"id":"\u0061\n","model":null,"status":"\ud83e"}"#,
            r#"{"model":"a\"b","usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":3,"cache_write_tokens":2},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":12,"more":[]}}"#,
            r#"{"usage":{"input_tokens":12345678901,"output_tokens":2,"input_tokens_details":null}}"#,
            r#"{"usage":{"input_tokens":1,"input_tokens":2}}"#,
            r#"{"usage":{"input_tokens":null,"input_tokens_details":{"cached_tokens":null}}}"#,
            r#"{"usage":{"input_tokens_details":{"cached_tokens":1},"input_tokens_details":{"cached_tokens":2}}}"#,
            r#"{"usage":{"input_tokens":1.5}}"#,
            r#"{"usage":{"input_tokens_details":{"reasoning_tokens":"x"},"output_tokens_details":{"cached_tokens":3}}}"#,
            r#"{"usage":{"input_tokens_details":7}}"#,
            r#"{"usage":null}"#,
            r#"{"usage":{}}"#,
            r#"{"usage":[]}"#,
            r#"{"id":"a","id":"b","output":[],"output":[1]}"#,
            r"{}",
            "1",
        ];
        for text in responses {
            let event = format!(r#"{{"type":"response.completed","response":{text}}}"#);
            let response = ResponseRef::read(event.as_bytes()).expect("an event");
            let parsed = serde_json::from_str::<ResponseSummary>(text).map(|parsed| format!("{parsed:?}"));
            let summary = response.summary().map(|summary| format!("{summary:?}"));
            assert_eq!(summary, parsed.ok(), "{text}");
            let output = serde_json::from_str::<Output<'_>>(text).ok().and_then(|parsed| parsed.output);
            assert_eq!(response.output(), output, "{text}");
        }
    }
}
