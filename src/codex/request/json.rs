//! A conversation as JSON. Nearly all of a request is text in it, of which a serialiser looks at each byte
//! by itself; this looks at eight.

use super::{InputItem, InputPart, Role, ToolOutput};
use bytes::BufMut;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHEST: u64 = ONES << 7;

/// Writes a text with its quotes.
pub(crate) fn quote(text: &str, out: &mut impl BufMut) {
    out.put_u8(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = special(rest) {
        out.put_slice(&rest[..at]);
        escape(rest[at], out);
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
    out.put_u8(b'"');
}

/// Where the first byte is that a JSON string cannot have as it is.
fn special(text: &[u8]) -> Option<usize> {
    const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    // The highest bit of the first byte that is meant is set, and none of those before it.
    let below = |word: u64, bound: u64| word.wrapping_sub(bound) & !word & HIGHEST;
    let (chunks, rest) = text.as_chunks();
    for (place, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let found = below(word, SPACES) | below(word ^ QUOTES, ONES) | below(word ^ BACKSLASHES, ONES);
        if found != 0 {
            return Some(place * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|byte| matches!(byte, 0..=0x1F | b'"' | b'\\'))?;
    Some(chunks.len() * 8 + place)
}

fn escape(byte: u8, out: &mut impl BufMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0C => b'f',
        b'\r' => b'r',
        _ => {
            let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            out.put_slice(b"\\u00");
            return out.put_slice(&digits);
        }
    };
    out.put_slice(&[b'\\', letter]);
}

/// Writes a list.
pub(super) fn list<T>(all: &[T], write: impl Fn(&T, &mut Vec<u8>), out: &mut Vec<u8>) {
    out.push(b'[');
    for (place, one) in all.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(one, out);
    }
    out.push(b']');
}

impl InputItem {
    /// Writes it as the backend takes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let called = |kind: &str, call_id: &str, out: &mut Vec<u8>| {
            begin(kind, out);
            text("call_id", call_id, out);
        };
        match self {
            Self::Message { role, content } => {
                begin("message", out);
                text("role", role.as_str(), out);
                name("content", out);
                list(content, InputPart::write, out);
            }
            Self::Reasoning { summary, encrypted_content } => {
                begin("reasoning", out);
                name("summary", out);
                list(summary, InputPart::write, out);
                text("encrypted_content", encrypted_content, out);
            }
            Self::FunctionCall { call_id, name, arguments } => {
                called("function_call", call_id, out);
                text("name", name, out);
                text("arguments", arguments, out);
            }
            Self::FunctionCallOutput { call_id, output } => {
                called("function_call_output", call_id, out);
                output.write(out);
            }
            Self::CustomToolCall { call_id, name, input } => {
                called("custom_tool_call", call_id, out);
                text("name", name, out);
                text("input", input, out);
            }
            Self::CustomToolCallOutput { call_id, output } => {
                called("custom_tool_call_output", call_id, out);
                output.write(out);
            }
            Self::Raw(raw) => return out.extend_from_slice(raw.get().as_bytes()),
        }
        out.push(b'}');
    }
}

impl ToolOutput {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(whole) => text("output", whole, out),
            Self::Parts(parts) => {
                name("output", out);
                list(parts, InputPart::write, out);
            }
        }
    }
}

impl InputPart {
    fn write(&self, out: &mut Vec<u8>) {
        let optional = |key: &str, value: &Option<String>, out: &mut Vec<u8>| {
            if let Some(value) = value {
                text(key, value, out);
            }
        };
        match self {
            Self::InputText { text: whole } => {
                begin("input_text", out);
                text("text", whole, out);
            }
            Self::OutputText { text: whole } => {
                begin("output_text", out);
                text("text", whole, out);
            }
            Self::Refusal { refusal } => {
                begin("refusal", out);
                text("refusal", refusal, out);
            }
            Self::InputImage { image_url, detail } => {
                begin("input_image", out);
                text("image_url", image_url, out);
                optional("detail", detail, out);
            }
            Self::InputFile { filename, file_data, file_url } => {
                begin("input_file", out);
                optional("filename", filename, out);
                optional("file_data", file_data, out);
                optional("file_url", file_url, out);
            }
            Self::SummaryText { text: whole } => {
                begin("summary_text", out);
                text("text", whole, out);
            }
        }
        out.push(b'}');
    }
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Developer => "developer",
        }
    }
}

/// An object of this type, up to its type.
fn begin(kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
}

/// A further member's name, which needs no escapes.
fn name(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A further member.
fn text(key: &str, value: &str, out: &mut Vec<u8>) {
    name(key, out);
    quote(value, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    proptest! {
        #[test]
        fn texts_are_written_as_the_library_writes_them(text in prop_oneof![any::<String>(), "[\\x00-\\x7f é🦀]{0,80}"]) {
            let mut out = Vec::new();
            quote(&text, &mut out);
            prop_assert_eq!(String::from_utf8(out).expect("text"), Value::from(text).to_string());
        }
    }

    #[test]
    fn each_item_is_written_with_all_its_members() {
        let said = |text: &str| vec![InputPart::InputText { text: text.to_owned() }];
        let (id, name) = (|| "c\"1".to_owned(), || "f".to_owned());
        let raw = RawValue::from_string(r#"{"type":"compaction", "z":1}"#.to_owned()).expect("JSON");
        let all = [
            (
                InputItem::Message {
                    role: Role::Assistant,
                    content: vec![
                        InputPart::OutputText { text: "a".into() },
                        InputPart::Refusal { refusal: "no".into() },
                    ],
                },
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}]}),
            ),
            (
                InputItem::Message {
                    role: Role::User,
                    content: vec![
                        InputPart::InputImage { image_url: "data:x".into(), detail: None },
                        InputPart::InputImage { image_url: "data:y".into(), detail: Some("low".into()) },
                        InputPart::InputFile {
                            filename: Some("n".into()),
                            file_data: Some("data:".into()),
                            file_url: None,
                        },
                        InputPart::InputFile { filename: None, file_data: None, file_url: Some("https:".into()) },
                    ],
                },
                json!({"type": "message", "role": "user", "content": [
                    {"type": "input_image", "image_url": "data:x"}, {"type": "input_image", "image_url": "data:y", "detail": "low"},
                    {"type": "input_file", "filename": "n", "file_data": "data:"}, {"type": "input_file", "file_url": "https:"},
                ]}),
            ),
            (
                InputItem::Message { role: Role::Developer, content: Vec::new() },
                json!({"type": "message", "role": "developer", "content": []}),
            ),
            (
                InputItem::Reasoning {
                    summary: vec![InputPart::SummaryText { text: "s".into() }],
                    encrypted_content: "e".into(),
                },
                json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "e"}),
            ),
            (
                InputItem::FunctionCall { call_id: id(), name: name(), arguments: "{}".into() },
                json!({"type": "function_call", "call_id": "c\"1", "name": "f", "arguments": "{}"}),
            ),
            (
                InputItem::FunctionCallOutput { call_id: id(), output: ToolOutput::Text("o".into()) },
                json!({"type": "function_call_output", "call_id": "c\"1", "output": "o"}),
            ),
            (
                InputItem::CustomToolCall { call_id: id(), name: name(), input: "i".into() },
                json!({"type": "custom_tool_call", "call_id": "c\"1", "name": "f", "input": "i"}),
            ),
            (
                InputItem::CustomToolCallOutput { call_id: id(), output: ToolOutput::Parts(said("o")) },
                json!({"type": "custom_tool_call_output", "call_id": "c\"1", "output": [{"type": "input_text", "text": "o"}]}),
            ),
            (InputItem::Raw(raw), json!({"type": "compaction", "z": 1})),
        ];
        for (item, expected) in all {
            let mut out = Vec::new();
            item.write(&mut out);
            assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON"), expected);
        }
    }
}
