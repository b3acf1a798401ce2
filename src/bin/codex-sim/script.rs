//! What the simulated model answers: a pure function from a request to output items.
//!
//! Deterministic, so that a client program can be driven end to end by what its user types.
//! Knows nothing of events or HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::markers::Markers;
use crate::schema;
use crate::stages;
use crate::tools::{self, Call, Choice};

/// Longer user texts are echoed up to here, in characters.
const ECHO: usize = 4_000;

/// A real picture of one pixel.
pub(crate) const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// One output item, not yet rendered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// An assistant message in the pieces it is streamed in.
    Message { pieces: Vec<String>, phase: Option<&'static str>, cites: bool },
    /// An assistant message that refuses.
    Refusal(String),
    /// Reasoning with summary parts and, when asked for, sealed content.
    Reasoning { summary: Vec<String>, sealed: Option<String> },
    /// A function or custom tool call.
    Call(Call),
    /// A web search the backend ran itself.
    Search { query: String },
    /// A generated picture, by the tool that the request offers (an empty object where it offers none).
    Image(Value),
    /// The compacted history.
    Compaction { sealed: String },
}

/// The whole answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Script {
    /// In stream order.
    pub(crate) outputs: Vec<Output>,
    /// Ends with `response.incomplete` for `max_output_tokens`.
    pub(crate) incomplete: bool,
}

/// Writes the answer. `seal` makes a fresh `encrypted_content` for the calling account.
pub(crate) fn write(request: &Value, mut seal: impl FnMut() -> String) -> Script {
    let input = request.get("input").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let turn = Turn::of(input);
    if turn.compacts {
        return Script { outputs: vec![Output::Compaction { sealed: seal() }], incomplete: false };
    }
    let stage = stages::current(input);
    let markers = Markers::of(stage.as_deref().unwrap_or(&turn.text));
    let mut outputs = Vec::new();
    if markers.reason || wants_summary(request) {
        let includes = request.get("include").and_then(Value::as_array);
        let asked = includes.is_some_and(|all| all.iter().any(|one| one == "reasoning.encrypted_content"));
        outputs.push(Output::Reasoning { summary: thoughts(), sealed: asked.then(&mut seal) });
    }
    let offered = tools::offered(request);
    let hosted = |kind: &str| offered.iter().any(|tool| tool.kind.starts_with(kind));
    let forced = |kind: &str| matches!(tools::choice(request), Choice::Named(name) if name.starts_with(kind));
    let searched = (markers.search && hosted("web_search")) || forced("web_search");
    if searched {
        outputs.push(Output::Search { query: clip(&turn.text, 80) });
    }
    if (markers.image || forced("image_generation")) && !markers.refuse {
        outputs.push(Output::Image(generator(request)));
    }
    if offered.is_empty() {
        outputs.extend(words(request, &turn, &markers, searched));
    } else {
        match tools::calls(request, &offered, &markers.tools) {
            Ok(calls) if calls.is_empty() => {
                outputs.extend(words(request, &turn, &markers, searched));
            }
            Ok(calls) => outputs.extend(calls.into_iter().map(Output::Call)),
            Err(unknown) => outputs.push(message(&format!("I have no tool named {unknown}."))),
        }
    }
    Script { outputs, incomplete: markers.incomplete }
}

/// The picture tool at the top level of a request.
fn generator(request: &Value) -> Value {
    let tools = request.get("tools").and_then(Value::as_array).into_iter().flatten();
    let mut named = tools.filter(|tool| tool.get("type").is_some_and(|kind| kind == "image_generation"));
    named.next().cloned().unwrap_or_else(|| json!({}))
}

/// The messages that end an answer without tool calls.
fn words(request: &Value, turn: &Turn, markers: &Markers, cites: bool) -> Vec<Output> {
    if markers.refuse {
        return vec![Output::Refusal("I'm sorry, I cannot help with that.".to_owned())];
    }
    let mut said = Vec::new();
    if markers.commentary {
        let pieces = pieces("Let me think about it.");
        said.push(Output::Message { pieces, phase: Some("commentary"), cites: false });
    }
    let pieces = match (markers.long, structured(request)) {
        (Some(count), _) => (0..count).map(|index| format!("word{index} ")).collect(),
        (None, Some(json)) => pieces(&json),
        (None, None) => pieces(&turn.answer()),
    };
    said.push(Output::Message { pieces, phase: markers.commentary.then_some("final_answer"), cites });
    said
}

fn message(text: &str) -> Output {
    Output::Message { pieces: pieces(text), phase: None, cites: false }
}

fn wants_summary(request: &Value) -> bool {
    let summary = request.pointer("/reasoning/summary").and_then(Value::as_str);
    summary.is_some_and(|level| level != "none")
}

fn thoughts() -> Vec<String> {
    vec!["**Reading the request**\n\nThe user wants an answer.".to_owned(), "**Answering** – naïvely".to_owned()]
}

/// The JSON text when `text.format` asks for JSON.
fn structured(request: &Value) -> Option<String> {
    let format = request.pointer("/text/format")?;
    match format.get("type").and_then(Value::as_str)? {
        "json_schema" => Some(schema::minimal(format.get("schema")?).to_string()),
        "json_object" => Some(json!({"answer": "text"}).to_string()),
        _ => None,
    }
}

/// Cuts a text into the deltas it is streamed in: words, long ones in parts, never inside a
/// character; and never much more than 256 of them.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    let longest = text.chars().count().div_ceil(256).max(6);
    let mut cut = Vec::new();
    let mut piece = String::new();
    let mut length = 0;
    for letter in text.chars() {
        if length >= longest || (letter == ' ' && length * 2 >= longest) {
            cut.push(std::mem::take(&mut piece));
            length = 0;
        }
        piece.push(letter);
        length += 1;
    }
    if !piece.is_empty() {
        cut.push(piece);
    }
    cut
}

/// What the last turn of the input holds.
#[derive(Debug, Default)]
struct Turn {
    /// The last user message's text.
    text: String,
    /// What tools said since the model's last output.
    tools: Vec<String>,
    /// Descriptions of pictures in this turn.
    images: Vec<String>,
    /// Whether the last item is a compaction trigger.
    compacts: bool,
}

impl Turn {
    /// Reads the items behind the model's last output.
    fn of(input: &[Value]) -> Self {
        let mut turn = Self { compacts: kind(input.last()) == "compaction_trigger", ..Self::default() };
        let own = |item: &Value| {
            matches!(kind(Some(item)), "reasoning" | "function_call" | "custom_tool_call" | "web_search_call")
                || item.get("role").and_then(Value::as_str) == Some("assistant")
        };
        let start = input.iter().rposition(own).map_or(0, |last| last + 1);
        for item in &input[start..] {
            match kind(Some(item)) {
                "function_call_output" | "custom_tool_call_output" => {
                    let said = turn.read(item.get("output"));
                    turn.tools.push(said);
                }
                "message" if item.get("role").and_then(Value::as_str) == Some("user") => {
                    turn.text = turn.read(item.get("content"));
                }
                _ => {}
            }
        }
        turn
    }

    /// The text of a content list or string; pictures are noted on the way.
    fn read(&mut self, content: Option<&Value>) -> String {
        match content {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                let mut texts = Vec::new();
                for part in parts {
                    if let Some(text) = part.get("text").and_then(Value::as_str) {
                        texts.push(text);
                    } else if let Some(url) = part.get("image_url").and_then(Value::as_str) {
                        self.images.push(picture(url));
                    }
                }
                texts.join("\n")
            }
            _ => String::new(),
        }
    }

    fn answer(&self) -> String {
        let mut answer = String::new();
        if !self.images.is_empty() {
            let plural = if self.images.len() == 1 { "" } else { "s" };
            answer = format!("I see {} image{plural} ({}). ", self.images.len(), self.images.join("; "));
        }
        // Some clients add reminders of their own behind a tool's answer; the answer counts more.
        let said = if self.tools.is_empty() {
            format!("You said: {}", clip(&self.text, ECHO))
        } else {
            format!("Tool said: {}", clip(&self.tools.join(" | "), ECHO))
        };
        answer + &said
    }
}

fn kind(item: Option<&Value>) -> &str {
    let Some(item) = item else { return "" };
    // A bare `{role, content}` is a message too.
    item.get("type").and_then(Value::as_str).unwrap_or("message")
}

fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `image/png, 70 bytes` for a data URL, the address itself otherwise.
fn picture(url: &str) -> String {
    let Some((media, data)) = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) else {
        return clip(url, 200);
    };
    let size = STANDARD.decode(data).map_or(0, |bytes| bytes.len());
    format!("{media}, {size} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &Value) -> Vec<Output> {
        write(request, || "gAAAA-sealed".to_owned()).outputs
    }

    fn text(request: &Value) -> String {
        match answer(request).pop() {
            Some(Output::Message { pieces, .. }) => pieces.concat(),
            other => panic!("not a message: {other:?}"),
        }
    }

    fn asks(text: &str) -> Value {
        json!({"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":text}]}]})
    }

    #[test]
    fn the_user_is_echoed_in_several_whole_characters() {
        let request = asks("Grüße, 世界 🌍 and more");
        assert_eq!(text(&request), "You said: Grüße, 世界 🌍 and more");
        let Some(Output::Message { pieces, .. }) = answer(&request).pop() else { panic!() };
        assert!(pieces.len() > 3);
    }

    #[test]
    fn tool_outputs_are_quoted_even_behind_reminders() {
        let request = json!({"input":[
            {"role":"user","content":"[tool:ls {}]"},
            {"type":"function_call","call_id":"c","name":"ls","arguments":"{}"},
            {"type":"function_call_output","call_id":"c","output":"a.txt"},
            {"role":"user","content":"a reminder"},
            {"type":"configuration_update"}],
            "tools":[{"type":"function","name":"ls"}]});
        assert_eq!(text(&request), "Tool said: a.txt");
    }

    #[test]
    fn pictures_are_counted_and_measured() {
        let mut request = asks("look");
        let url = format!("data:image/png;base64,{PIXEL}");
        request["input"][0]["content"].as_array_mut().unwrap().push(json!({"type":"input_image","image_url":url}));
        assert_eq!(text(&request), "I see 1 image (image/png, 70 bytes). You said: look");
    }

    #[test]
    fn reasoning_is_sealed_only_when_included() {
        let mut request = asks("[reason] hi");
        let sealed = |request: &Value| match &answer(request)[0] {
            Output::Reasoning { sealed, .. } => sealed.is_some(),
            other => panic!("{other:?}"),
        };
        assert!(!sealed(&request));
        request["include"] = json!(["reasoning.encrypted_content"]);
        assert!(sealed(&request));
    }

    #[test]
    fn a_trailing_trigger_compacts_and_nothing_else() {
        let request = json!({"input":[{"role":"user","content":"[reason]"},{"type":"compaction_trigger"}]});
        assert_eq!(answer(&request), [Output::Compaction { sealed: "gAAAA-sealed".into() }]);
    }

    #[test]
    fn structured_output_and_long_texts() {
        let mut request = asks("x");
        request["text"] = json!({"format":{"type":"json_schema","schema":{"type":"object","required":["a"],"properties":{"a":{"type":"integer"}}}}});
        assert_eq!(text(&request), r#"{"a":0}"#);
        let Some(Output::Message { pieces, .. }) = answer(&asks("[long 12]")).pop() else { panic!() };
        assert_eq!(pieces.len(), 12);
    }
}
