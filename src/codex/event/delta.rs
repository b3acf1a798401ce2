//! Pieces of output: most of all events, so they are skimmed.

use super::{may_name_a_second_type, unread};
use crate::codex::{skim, text};
use serde::Deserialize;
use std::borrow::Cow;

/// A piece of text, of arguments or of freeform input.
#[derive(Debug, Deserialize)]
pub struct Delta<'a> {
    /// The item's id, where given.
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
    /// What is to be appended.
    #[serde(borrow, default)]
    pub delta: Cow<'a, str>,
}

impl<'a> Delta<'a> {
    /// Reads a delta whose type is known.
    pub(super) fn read(data: &'a [u8]) -> Result<Self, serde_json::Error> {
        if let Some(delta) = Self::skim(data) {
            return Ok(delta);
        }
        // A reader of everything may pass the bytes on all the same.
        if may_name_a_second_type(data) {
            unread(data)?;
        }
        serde_json::from_slice(data)
    }

    /// The same for what deltas nearly always are; `None` for the parser to judge.
    fn skim(data: &'a [u8]) -> Option<Self> {
        let mut seen = [false; 6];
        let mut delta =
            Self { item_id: None, output_index: 0, content_index: 0, summary_index: 0, delta: Cow::Borrowed("") };
        skim::members(data, |name, value| {
            let place = match name {
                b"type" => 0,
                b"item_id" => {
                    delta.item_id = if value == b"null" { None } else { Some(skim::text(value)?) };
                    1
                }
                b"output_index" => {
                    delta.output_index = skim::number(value)?;
                    2
                }
                b"content_index" => {
                    delta.content_index = skim::number(value)?;
                    3
                }
                b"summary_index" => {
                    delta.summary_index = skim::number(value)?;
                    4
                }
                b"delta" => {
                    delta.delta = skim::text(value)?;
                    5
                }
                _ => return Some(()),
            };
            // Of two, the parser has to say what that is.
            (!std::mem::replace(&mut seen[place], true)).then_some(())
        })?;
        seen[0].then_some(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delta_is_read_as_the_parser_reads_it() {
        let deltas = [
            r#""item_id":"msg_1","output_index":2,"content_index":1,"summary_index":3,"delta":"hi","logprobs":[]"#,
            r#""item_id":"m\u0073g","delta":"a\n\"b\" \ud83e\udd80 é"#,
            r#""item_id":null,"delta":"\ud83e""#,
            r#""item_id":null,"delta":"""#,
            r#""item_id":"msg_1""#,
            r#""delta":null"#,
            r#""delta":7"#,
            r#""delta":"a","delta":"b""#,
            r#""output_index":4294967295,"delta":"a""#,
            r#""output_index":4294967296,"delta":"a""#,
            r#""output_index":-1,"delta":"a""#,
            r#""output_index":1.0,"delta":"a""#,
            r#""output_index":null,"delta":"a""#,
            r#""delt\u0061":"a""#,
            r#""delta":{"delta":"b"}"#,
        ];
        for rest in deltas {
            for closed in ["", "\""] {
                let data = format!(r#"{{"type":"response.output_text.delta",{rest}{closed}}}"#);
                let parsed = serde_json::from_str::<Delta<'_>>(&data).ok().map(|delta| format!("{delta:?}"));
                let read = Delta::read(data.as_bytes()).ok().map(|delta| format!("{delta:?}"));
                assert_eq!(read, parsed, "{data}");
            }
        }
        let invalid = b"{\"type\":\"response.output_text.delta\",\"delta\":\"\xff\"}";
        assert!(Delta::read(invalid).is_err(), "no text");
    }
}
