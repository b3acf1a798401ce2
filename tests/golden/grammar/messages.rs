//! Checks a stream against Anthropic's grammar, and adds it up as an SDK does.

use crate::run::Answer;
use serde_json::{Value, json};

/// Why a message ends.
const STOP_REASONS: [&str; 7] =
    ["end_turn", "tool_use", "max_tokens", "stop_sequence", "pause_turn", "refusal", "model_context_window_exceeded"];

/// What a stream says in the end.
#[derive(Debug)]
pub(crate) struct Said {
    /// The complete content blocks; the input of calls parsed.
    pub(crate) content: Vec<Value>,
    /// `message_delta`'s, or `None` if the stream ended in an error.
    pub(crate) stop_reason: Option<String>,
    pub(crate) usage: Value,
}

/// Whether the stream is legal and says the same as the whole answer.
pub(crate) fn check(answer: &Answer) -> Result<(), String> {
    let said = read(&answer.stream)?;
    need(said.stop_reason.is_none() == answer.failed, "the stream and the whole answer do not end alike")?;
    if answer.failed {
        return Ok(());
    }
    let whole: Value = serde_json::from_str(&answer.whole).map_err(|e| e.to_string())?;
    let same = whole["content"] == Value::from(said.content.clone())
        && whole["stop_reason"].as_str() == said.stop_reason.as_deref()
        && whole["usage"]["output_tokens"] == said.usage["output_tokens"];
    if same { Ok(()) } else { Err(format!("the whole answer {whole} is not the stream's {said:?}")) }
}

/// Adds a stream up; an error says what is not legal.
pub(crate) fn read(stream: &str) -> Result<Said, String> {
    let mut reader = Reader::default();
    for frame in stream.split_terminator("\n\n") {
        let (name, data) = frame
            .strip_prefix("event: ")
            .and_then(|rest| rest.split_once("\ndata: "))
            .ok_or_else(|| format!("no frame: {frame}"))?;
        let event: Value = serde_json::from_str(data).map_err(|e| format!("{e}: {data}"))?;
        if event["type"] != name {
            return Err(format!("event {name} of type {}", event["type"]));
        }
        reader.take(name, &event).map_err(|fault| format!("{fault}: {data}"))?;
    }
    reader.end()
}

#[derive(Default)]
struct Reader {
    is_started: bool,
    is_over: bool,
    open: Option<(Value, String)>,
    content: Vec<Value>,
    stop_reason: Option<String>,
    usage: Value,
}

impl Reader {
    fn take(&mut self, name: &str, event: &Value) -> Result<(), String> {
        if self.is_over {
            return Err("an event after the last".into());
        }
        match name {
            "error" => {
                self.is_over = true;
                need(event["error"]["type"].is_string() && event["error"]["message"].is_string(), "no error object")
            }
            "message_start" => {
                need(!std::mem::replace(&mut self.is_started, true), "a second start")?;
                need(event["message"]["content"] == json!([]), "content at the start")?;
                need(event["message"]["usage"]["input_tokens"].is_u64(), "no usage at the start")
            }
            _ if !self.is_started => Err("an event before the start".into()),
            "ping" => Ok(()),
            "content_block_start" => {
                need(self.open.is_none() && self.stop_reason.is_none(), "a block inside a block")?;
                need(event["index"] == self.content.len(), "an index out of order")?;
                self.open = Some((event["content_block"].clone(), String::new()));
                Ok(())
            }
            "content_block_delta" => {
                need(event["index"] == self.content.len(), "a delta of another block")?;
                let (block, input) = self.open.as_mut().ok_or("a delta without a block")?;
                append(block, input, &event["delta"])
            }
            "content_block_stop" => {
                need(event["index"] == self.content.len(), "the end of another block")?;
                let (mut block, input) = self.open.take().ok_or("an end without a block")?;
                if !input.is_empty() {
                    let parsed = serde_json::from_str(&input).ok().filter(Value::is_object);
                    block["input"] = parsed.unwrap_or(json!({ "INVALID_JSON": input }));
                }
                need(block["type"] != "thinking" || block["signature"] != "", "thinking without a signature")?;
                need(block["type"] != "tool_use" || !input.is_empty(), "a call without input")?;
                self.content.push(block);
                Ok(())
            }
            "message_delta" => {
                need(self.open.is_none() && self.stop_reason.is_none(), "an end inside a block, or a second one")?;
                let reason = event["delta"]["stop_reason"].as_str().ok_or("no stop reason")?;
                need(STOP_REASONS.contains(&reason), "no such stop reason")?;
                let has_sequence = event["delta"]["stop_sequence"].is_string();
                need(has_sequence == (reason == "stop_sequence"), "a sequence that did not stop it, or none that did")?;
                self.stop_reason = Some(reason.to_owned());
                self.usage = event["usage"].clone();
                need(self.usage["output_tokens"].is_u64(), "no usage")
            }
            "message_stop" => {
                need(self.stop_reason.is_some(), "a stop without message_delta")?;
                self.is_over = true;
                Ok(())
            }
            _ => Err("an unknown event".into()),
        }
    }

    fn end(self) -> Result<Said, String> {
        need(self.is_over, "no last event")?;
        Ok(Said { content: self.content, stop_reason: self.stop_reason, usage: self.usage })
    }
}

fn append(block: &mut Value, input: &mut String, delta: &Value) -> Result<(), String> {
    let kind = (block["type"].as_str().unwrap_or_default().to_owned(), delta["type"].as_str().unwrap_or_default());
    let field = match (kind.0.as_str(), kind.1) {
        ("text", "text_delta") => "text",
        ("thinking", "thinking_delta") => "thinking",
        ("thinking", "signature_delta") => {
            need(block["signature"] == "", "a second signature")?;
            "signature"
        }
        ("text", "citations_delta") => {
            if block["citations"].is_null() {
                block["citations"] = json!([]);
            }
            block["citations"].as_array_mut().ok_or("no list")?.push(delta["citation"].clone());
            return Ok(());
        }
        ("tool_use" | "server_tool_use", "input_json_delta") => {
            input.push_str(delta["partial_json"].as_str().ok_or("no JSON")?);
            return Ok(());
        }
        _ => return Err("a delta of another kind".into()),
    };
    let whole = format!("{}{}", block[field].as_str().ok_or("no text")?, delta[field].as_str().ok_or("no text")?);
    block[field] = whole.into();
    Ok(())
}

fn need(holds: bool, fault: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(fault.to_owned()) }
}
