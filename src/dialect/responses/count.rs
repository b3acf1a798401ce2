//! How many tokens a request is, for `POST /v1/responses/input_tokens`: text and tools to the
//! tokenizer, images and documents by the rules of `dialect::tokens`.

use crate::dialect::tokens::{self, PER_ITEM, PER_TOOL, PRIMING, image};
use crate::dialect::{Problem, ProblemKind};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// What counts of a request.
#[derive(Deserialize)]
struct Counted<'a> {
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    instructions: Option<Cow<'a, str>>,
    #[serde(default)]
    input: Option<Value>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    text: Option<Value>,
}

/// Members of an item or a part that the model reads.
const READ: [&str; 12] = [
    "action",
    "arguments",
    "code",
    "content",
    "input",
    "name",
    "operation",
    "output",
    "refusal",
    "summary",
    "text",
    "tools",
];

/// The tokens of a request whose references to what is kept have been resolved.
///
/// Takes milliseconds for each 100 kB of text, and some hundred at the first call, which builds the
/// vocabulary: to be called where blocking is allowed.
pub fn input_tokens(body: &[u8]) -> Result<u64, Problem> {
    let wrong = |error: serde_json::Error| {
        Problem::new(ProblemKind::InvalidRequest, format!("The body is not a request: {error}"))
    };
    // A list would be taken for the members in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(ProblemKind::InvalidRequest, "The body is not a JSON object"));
    }
    let counted: Counted<'_> = serde_json::from_slice(body).map_err(wrong)?;
    let instructions = counted.instructions.map_or(0, |text| PER_ITEM + tokens::exact(&text));
    let input = match counted.input {
        None | Some(Value::Null) => 0,
        Some(Value::String(text)) => PER_ITEM + tokens::exact(&text),
        Some(Value::Array(items)) => items.iter().map(|item| PER_ITEM + read(item)).sum(),
        Some(_) => return Err(Problem::invalid("input", "`input` must be a string or a list of items")),
    };
    let tools: u64 = counted.tools.iter().flatten().map(|tool| PER_TOOL + of_tool(tool)).sum();
    let schema = counted.text.as_ref().and_then(|text| text.pointer("/format/schema"));
    let schema = schema.map_or(0, |schema| PER_TOOL + tokens::exact(&schema.to_string()));
    Ok(PRIMING + instructions + input + tools + schema)
}

/// What the model reads of an item, a part or a list of them.
fn read(value: &Value) -> u64 {
    match value {
        Value::String(text) => tokens::exact(text),
        Value::Array(parts) => parts.iter().map(read).sum(),
        Value::Object(members) => match value["type"].as_str() {
            Some("input_image" | "computer_screenshot") => {
                image::tokens(value["image_url"].as_str().unwrap_or_default())
            }
            Some("input_file") => tokens::of_file(value["file_data"].as_str()),
            Some("reasoning") => tokens::of_reasoning(value["encrypted_content"].as_str().unwrap_or_default()),
            _ => READ.iter().filter_map(|name| members.get(*name)).map(read).sum(),
        },
        _ => 0,
    }
}

/// A tool's name, description and schema; of a namespace also its tools'.
fn of_tool(tool: &Value) -> u64 {
    let words = ["name", "description"].iter().filter_map(|name| tool[*name].as_str());
    let words: u64 = words.map(tokens::exact).sum();
    let shapes = ["parameters", "format"].iter().filter(|name| tool[**name].is_object());
    let shapes: u64 = shapes.map(|name| tokens::exact(&tool[*name].to_string())).sum();
    let inner: u64 = tool["tools"].as_array().into_iter().flatten().map(|tool| PER_TOOL + of_tool(tool)).sum();
    words + shapes + inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn count(body: &Value) -> u64 {
        input_tokens(body.to_string().as_bytes()).expect("a request")
    }

    #[test]
    fn a_text_counts_alike_in_each_form() {
        let parts = json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello world"}]}]});
        assert_eq!(count(&json!({"input": "hello world"})), count(&parts));
        assert_eq!(count(&json!({"input": "hello world"})) - count(&json!({"input": "hello"})), 1);
    }

    #[test]
    fn instructions_tools_calls_and_schemas_count() {
        let plain = count(&json!({"input": "hi"}));
        let tool = json!({"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}});
        let call = json!([{"type": "function_call", "name": "f", "arguments": "{\"a\":1}", "call_id": "c"}]);
        let schema = json!({"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}});
        assert!(count(&json!({"input": "hi", "instructions": "be brief"})) > plain + PER_ITEM);
        assert!(count(&json!({"input": "hi", "tools": [tool]})) > plain + PER_TOOL);
        assert!(count(&json!({"input": "hi", "text": schema})) > plain + PER_TOOL);
        assert!(count(&json!({"input": call})) > PRIMING + PER_ITEM + 3);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for wrong in ["", "[]", r#"{"input":3}"#, r#"{"instructions":{}}"#] {
            assert!(input_tokens(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
