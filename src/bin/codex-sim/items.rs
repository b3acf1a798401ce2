//! What the backend refuses inside `input`: item types, roles, ids, content parts, and calls
//! without their outputs (protocol.md 2.4).
//!
//! Pure, like [`crate::rules`], whose refusals it words.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::rules::{Checked, Refusal, detail, invalid};

/// Checks every item, and that calls and outputs belong together.
pub(crate) fn check(input: &[Value], opens: &impl Fn(&str) -> bool) -> Checked {
    for (index, item) in input.iter().enumerate() {
        check_item(item, index, input.len(), opens)?;
    }
    check_pairs(input)
}

/// Item types the backend takes as input (protocol.md 2.4), besides messages.
const ITEMS: [&str; 18] = [
    "agent_message",
    "reasoning",
    "local_shell_call",
    "local_shell_call_output",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
    "image_generation_call",
    "compaction",
    "compaction_summary",
    "context_compaction",
    "compaction_trigger",
    "configuration_update",
    "additional_tools",
];

fn check_item(item: &Value, index: usize, count: usize, opens: &impl Fn(&str) -> bool) -> Checked {
    let at = format!("input[{index}]");
    let text = |key| item.get(key).and_then(Value::as_str);
    let kind = text("type").unwrap_or("message");
    if kind == "message" {
        return check_message(item, &at);
    }
    if kind == "item_reference" {
        return Err(unstored(text("id").unwrap_or_default()));
    }
    if !ITEMS.contains(&kind) {
        return Err(invalid(
            "invalid_value",
            &at,
            format!("Invalid value: '{kind}'. Supported values are: 'message', '{}'.", ITEMS.join("', '")),
        ));
    }
    if kind == "compaction_trigger" && index + 1 != count {
        return Err(invalid("invalid_value", &at, "compaction_trigger must be the last input item."));
    }
    check_id(item, kind, &at)?;
    check_fields(item, kind, &at)?;
    match text("encrypted_content") {
        Some(sealed) if !opens(sealed) => {
            let head: String = sealed.chars().take(8).collect();
            Err(invalid(
                "invalid_encrypted_content",
                &at,
                format!(
                    "The encrypted content {head}... could not be verified. Reason: Encrypted content could not be decrypted or parsed."
                ),
            ))
        }
        None if kind == "reasoning" && text("id").is_some() => Err(unstored(text("id").unwrap_or_default())),
        _ => Ok(()),
    }
}

fn unstored(id: &str) -> Refusal {
    let message = format!("Item with id '{id}' not found. Items are not persisted when `store` is set to false.");
    Refusal { status: 404, ..invalid("", "input", message) }
}

/// An id, when there is one, begins as the kind demands.
fn check_id(item: &Value, kind: &str, at: &str) -> Checked {
    let prefix = match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "custom_tool_call" => "ctc",
        _ => return Ok(()),
    };
    match item.get("id").and_then(Value::as_str) {
        Some(id) if !id.starts_with(prefix) => {
            let message = format!("Invalid '{at}.id': '{id}'. Expected an ID that begins with '{prefix}'.");
            Err(invalid("invalid_value", &format!("{at}.id"), message))
        }
        _ => Ok(()),
    }
}

/// The fields a call and its output cannot do without.
fn check_fields(item: &Value, kind: &str, at: &str) -> Checked {
    let required: &[&str] = match kind {
        "function_call" => &["call_id", "name", "arguments"],
        "custom_tool_call" => &["call_id", "name", "input"],
        "function_call_output" | "custom_tool_call_output" => &["call_id", "output"],
        _ => &[],
    };
    for key in required {
        let value = item.get(*key);
        if value.is_none_or(Value::is_null) {
            return Err(invalid(
                "missing_required_parameter",
                &format!("{at}.{key}"),
                format!("Missing required parameter: '{at}.{key}'."),
            ));
        }
        let fits = value.is_some_and(|value| value.is_string() || (*key == "output" && value.is_array()));
        if !fits {
            return Err(invalid(
                "invalid_type",
                &format!("{at}.{key}"),
                format!("Invalid type for '{at}.{key}': expected a string."),
            ));
        }
    }
    let call_id = item.get("call_id").and_then(Value::as_str).unwrap_or_default();
    if call_id.len() > 64 {
        return Err(invalid(
            "string_above_max_length",
            &format!("{at}.call_id"),
            format!(
                "Invalid '{at}.call_id': string too long. Expected a string with maximum length 64, but got a string with length {} instead.",
                call_id.len()
            ),
        ));
    }
    let parts = item.get("output").and_then(Value::as_array).into_iter().flatten();
    parts.enumerate().try_for_each(|(index, part)| check_part(part, "user", &format!("{at}.output[{index}]")))
}

/// The fields of a message.
const MESSAGE: [&str; 7] =
    ["type", "id", "role", "content", "status", "phase", "internal_chat_message_metadata_passthrough"];

fn check_message(item: &Value, at: &str) -> Checked {
    let role = item.get("role").and_then(Value::as_str).unwrap_or_default();
    match role {
        "system" => return Err(detail("System messages are not allowed")),
        "user" | "developer" | "assistant" => {}
        _ => {
            return Err(invalid(
                "invalid_value",
                &format!("{at}.role"),
                format!("Invalid value: '{role}'. Supported values are: 'assistant', 'developer', and 'user'."),
            ));
        }
    }
    check_id(item, "message", at)?;
    let unknown = item.as_object().and_then(|fields| fields.keys().find(|key| !MESSAGE.contains(&key.as_str())));
    if let Some(unknown) = unknown {
        return Err(detail(format!("Unknown parameter: '{at}.{unknown}'.")));
    }
    match item.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => parts
            .iter()
            .enumerate()
            .try_for_each(|(index, part)| check_part(part, role, &format!("{at}.content[{index}]"))),
        _ => Err(invalid(
            "missing_required_parameter",
            &format!("{at}.content"),
            format!("Missing required parameter: '{at}.content'."),
        )),
    }
}

fn check_part(part: &Value, role: &str, at: &str) -> Checked {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let (kinds, fields): (&[&str], &[&str]) = if role == "assistant" {
        (&["output_text", "refusal"], &["type", "text", "annotations", "logprobs", "refusal"])
    } else {
        (
            &["input_text", "input_image", "input_file", "input_audio"],
            &["type", "text", "image_url", "detail", "file_id", "file_data", "file_url", "filename", "input_audio"],
        )
    };
    if !kinds.contains(&kind) {
        return Err(invalid(
            "invalid_value",
            at,
            format!("Invalid value: '{kind}'. Supported values are: '{}'.", kinds.join("', '")),
        ));
    }
    let unknown = part.as_object().and_then(|all| all.keys().find(|key| !fields.contains(&key.as_str())));
    match unknown.map(String::as_str) {
        Some("prompt_cache_breakpoint") => {
            return Err(Refusal {
                status: 400,
                body: json!({"error": {"message": "prompt_cache_breakpoint is not supported on this model"}}),
            });
        }
        Some(unknown) => return Err(detail(format!("Unknown parameter: '{at}.{unknown}'."))),
        None => {}
    }
    let needs = match kind {
        "input_text" | "output_text" => "text",
        "refusal" => "refusal",
        "input_image" if part.get("file_id").is_none() => "image_url",
        _ => return Ok(()),
    };
    match part.get(needs) {
        Some(Value::String(url)) if needs == "image_url" => check_picture(url, at),
        Some(Value::String(_)) => Ok(()),
        Some(_) => Err(invalid(
            "invalid_type",
            &format!("{at}.{needs}"),
            format!("Invalid type for '{at}.{needs}': expected a string."),
        )),
        None => Err(invalid(
            "missing_required_parameter",
            &format!("{at}.{needs}"),
            format!("Missing required parameter: '{at}.{needs}'."),
        )),
    }
}

fn check_picture(url: &str, at: &str) -> Checked {
    let inline = url.strip_prefix("data:image/").is_some_and(|rest| rest.contains(";base64,"));
    if inline || url.starts_with("https://") || url.starts_with("http://") {
        return Ok(());
    }
    Err(invalid(
        "invalid_value",
        &format!("{at}.image_url"),
        format!(
            "Invalid '{at}.image_url'. Expected a base64-encoded data URL with an image MIME type, or a valid URL."
        ),
    ))
}

/// Every call has its output and every output its call: nothing is stored.
fn check_pairs(input: &[Value]) -> Checked {
    let ids = |kinds: [&str; 2]| -> HashSet<&str> {
        let of_kind = input
            .iter()
            .filter(|item| item.get("type").and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind)));
        of_kind.filter_map(|item| item.get("call_id").and_then(Value::as_str)).collect()
    };
    let calls = ids(["function_call", "custom_tool_call"]);
    let outputs = ids(["function_call_output", "custom_tool_call_output"]);
    if let Some(lost) = outputs.difference(&calls).min() {
        return Err(invalid("", "input", format!("No tool call found for function call output with call_id {lost}.")));
    }
    if let Some(lost) = calls.difference(&outputs).min() {
        return Err(invalid("", "input", format!("No tool output found for function call {lost}.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The refusal of this input.
    fn refused(input: Value) -> String {
        let input: Vec<Value> = serde_json::from_value(input).unwrap();
        check(&input, &|sealed| sealed == "gAAAA-mine").unwrap_err().body.to_string()
    }

    #[test]
    fn foreign_input_items_are_refused() {
        let said = |content: Value| json!([{"role":"user","content":content}]);
        assert!(refused(json!([{"role":"system","content":"x"}])).contains("System messages"));
        assert!(refused(said(json!([{"type":"text","text":"x"}]))).contains("Invalid value: 'text'"));
        assert!(
            refused(said(json!([{"type":"input_text","text":"x","cache_control":{}}])))
                .contains("Unknown parameter: 'input[0].content[0].cache_control'")
        );
        assert!(refused(said(json!([{"type":"input_image","image_url":{"url":"x"}}]))).contains("expected a string"));
        assert!(
            refused(json!([{"type":"function_call_output","call_id":"c","output":"x"}])).contains("No tool call found")
        );
        assert!(
            refused(json!([{"type":"function_call","call_id":"c","name":"n","arguments":"{}"}]))
                .contains("No tool output found")
        );
        assert!(
            refused(json!([{"type":"function_call","id":"call_1","call_id":"c","name":"n","arguments":"{}"}]))
                .contains("begins with 'fc'")
        );
        assert!(
            refused(json!([{"type":"compaction_trigger"},{"role":"user","content":"x"}])).contains("must be the last")
        );
    }

    #[test]
    fn sealed_reasoning_opens_only_for_its_account() {
        let replay = |sealed: &str| json!([{"type":"reasoning","id":"rs_1","summary":[],"content":null,"encrypted_content":sealed}]);
        assert!(refused(replay("gAAAA-theirs")).contains("invalid_encrypted_content"));
        let mine: Vec<Value> = serde_json::from_value(replay("gAAAA-mine")).unwrap();
        assert_eq!(check(&mine, &|sealed| sealed == "gAAAA-mine"), Ok(()));
    }
}
