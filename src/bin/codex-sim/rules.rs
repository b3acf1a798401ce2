//! What the backend refuses before it answers (protocol.md 2.4).
//!
//! Strict on purpose: a request that passes here proves that the client in front sanitises.
//! Pure; knows accounts only through the check of sealed content handed in.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::catalogue::{self, Model};
use crate::tools::{self, Choice};

/// A refusal: the status and the body that go out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// JSON body, in one of the backend's two shapes (protocol.md 5.3).
    pub(crate) body: Value,
}

/// The short shape, `{"detail":"…"}`.
fn detail(text: impl Into<String>) -> Refusal {
    Refusal { status: 400, body: json!({"detail": text.into()}) }
}

/// The OpenAI shape, `{"error":{…}}`.
fn invalid(code: &str, param: &str, message: impl Into<String>) -> Refusal {
    let code = if code.is_empty() { Value::Null } else { json!(code) };
    Refusal {
        status: 400,
        body: json!({"error": {"message": message.into(), "type": "invalid_request_error", "param": param, "code": code}}),
    }
}

type Checked = Result<(), Refusal>;

/// The parameters the backend takes; every other one is refused by name.
const PARAMETERS: [&str; 16] = [
    "model",
    "stream",
    "input",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "store",
    "include",
    "prompt_cache_key",
    "text",
    "client_metadata",
    "instructions",
    "service_tier",
    "stream_options",
    "access_programs",
];

/// Checks a whole request. `opens` says whether an `encrypted_content` belongs to the caller.
pub(crate) fn check(request: &Value, allowed: Option<&[String]>, opens: impl Fn(&str) -> bool) -> Checked {
    let Some(fields) = request.as_object() else {
        return Err(detail("Input should be a valid dictionary"));
    };
    if let Some(unknown) = fields.keys().find(|key| !PARAMETERS.contains(&key.as_str())) {
        return Err(detail(format!("Unsupported parameter: {unknown}")));
    }
    if fields.get("stream") != Some(&json!(true)) {
        return Err(detail("Stream must be set to true"));
    }
    if fields.get("store") != Some(&json!(false)) {
        return Err(detail("Store must be set to false"));
    }
    if fields.get("instructions").is_some_and(|text| !text.is_string()) {
        return Err(detail("Instructions are not valid"));
    }
    let model = check_model(request, allowed)?;
    check_options(request, model)?;
    check_tools(request)?;
    let Some(input) = fields.get("input").and_then(Value::as_array) else {
        return Err(detail("Input must be a list"));
    };
    for (index, item) in input.iter().enumerate() {
        check_item(item, index, input.len(), &opens)?;
    }
    check_pairs(input)
}

fn check_model(request: &Value, allowed: Option<&[String]>) -> Result<&'static Model, Refusal> {
    let slug = request.get("model").and_then(Value::as_str).unwrap_or_default();
    let may = allowed.is_none_or(|list| list.iter().any(|one| one == slug));
    catalogue::find(slug)
        .filter(|_| may)
        .ok_or_else(|| detail(format!("The '{slug}' model is not supported when using Codex with a ChatGPT account.")))
}

fn check_options(request: &Value, model: &Model) -> Checked {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str);
    let one_of = |pointer: &str, known: &[&str]| match text(pointer) {
        Some(value) if !known.contains(&value) => {
            let param = pointer.trim_start_matches('/').replace('/', ".");
            let message = format!(
                "Unsupported value: '{value}' is not supported with the '{}' model. Supported values are: {}.",
                model.slug,
                known.join(", ")
            );
            Err(invalid("unsupported_value", &param, message))
        }
        _ => Ok(()),
    };
    one_of("/reasoning/effort", model.efforts())?;
    one_of("/reasoning/summary", &["auto", "concise", "detailed", "none"])?;
    one_of("/text/verbosity", &["low", "medium", "high"])?;
    one_of("/text/format/type", &["text", "json_schema", "json_object"])?;
    if text("/text/format/type") == Some("json_schema") {
        for key in ["name", "schema"] {
            if request.pointer(&format!("/text/format/{key}")).is_none_or(Value::is_null) {
                return Err(invalid(
                    "missing_required_parameter",
                    &format!("text.format.{key}"),
                    format!("Missing required parameter: 'text.format.{key}'."),
                ));
            }
        }
    }
    if let Some(tier) = text("/service_tier").filter(|tier| *tier != "priority") {
        return Err(detail(format!("Unsupported service_tier: {tier}")));
    }
    let options = request.get("stream_options").and_then(Value::as_object);
    if let Some(unknown) = options.and_then(|all| all.keys().find(|key| *key != "reasoning_summary_delivery")) {
        return Err(detail(format!("Unsupported parameter: stream_options.{unknown}")));
    }
    let metadata = request.get("client_metadata").and_then(Value::as_object);
    if let Some((key, _)) = metadata.and_then(|all| all.iter().find(|(_, value)| !value.is_string())) {
        return Err(invalid(
            "invalid_type",
            &format!("client_metadata.{key}"),
            format!("Invalid type for 'client_metadata.{key}': expected a string."),
        ));
    }
    Ok(())
}

/// The tool types the backend knows (protocol.md 2.4).
const TOOLS: [&str; 6] = ["function", "custom", "web_search", "image_generation", "tool_search", "local_shell"];

fn check_tools(request: &Value) -> Checked {
    let offered = tools::offered(request);
    for (index, tool) in offered.iter().enumerate() {
        if !TOOLS.contains(&tool.kind) {
            return Err(detail(format!("Unsupported tool type: {}", tool.kind)));
        }
        // The kind stands in for a missing name: the nested shape of chat completions ends here.
        if tool.callable() && tool.name == tool.kind {
            return Err(invalid(
                "missing_required_parameter",
                &format!("tools[{index}].name"),
                format!("Missing required parameter: 'tools[{index}].name'."),
            ));
        }
        let named = tool.name.len() <= 128
            && tool.name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'));
        if tool.callable() && !named {
            return Err(invalid(
                "invalid_value",
                &format!("tools[{index}].name"),
                format!("Invalid 'tools[{index}].name': string does not match pattern '^[a-zA-Z0-9_-]+$'."),
            ));
        }
        let shaped =
            tool.parameters.is_none_or(|schema| schema.get("type") == Some(&json!("object")) || schema.is_null());
        if tool.kind == "function" && !shaped {
            return Err(invalid(
                "invalid_function_parameters",
                &format!("tools[{index}].parameters"),
                format!("Invalid schema for function '{}': schema must be of type 'object'.", tool.name),
            ));
        }
    }
    match tools::choice(request) {
        Choice::Named(name) if !offered.iter().any(|tool| tool.is(name) || tool.kind == name) => {
            Err(invalid("", "tool_choice", format!("Tool choice '{name}' not found in 'tools' parameter.")))
        }
        _ => Ok(()),
    }
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

    fn good() -> Value {
        json!({"model":"gpt-5.5","stream":true,"store":false,"input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]}]})
    }

    /// The refusal's text after one field was set.
    fn refused(key: &str, value: Value) -> String {
        let mut request = good();
        request[key] = value;
        check(&request, None, |sealed| sealed == "gAAAA-mine").unwrap_err().body.to_string()
    }

    #[test]
    fn a_minimal_request_passes() {
        assert_eq!(check(&good(), None, |_| false), Ok(()));
    }

    #[test]
    fn refused_parameters_are_named() {
        for key in [
            "max_output_tokens",
            "temperature",
            "top_p",
            "truncation",
            "user",
            "metadata",
            "safety_identifier",
            "prompt_cache_retention",
            "context_management",
            "previous_response_id",
        ] {
            assert_eq!(refused(key, json!(1)), format!("{{\"detail\":\"Unsupported parameter: {key}\"}}"));
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        assert!(refused("stream", json!(false)).contains("Stream must be set to true"));
        assert!(refused("store", json!(true)).contains("Store must be set to false"));
        assert!(refused("input", json!("hi")).contains("Input must be a list"));
        assert!(refused("model", json!("gpt-4o")).contains("The 'gpt-4o' model is not supported"));
        assert!(refused("reasoning", json!({"effort":"minimal"})).contains("reasoning.effort"));
        assert!(refused("service_tier", json!("flex")).contains("Unsupported service_tier: flex"));
        assert!(refused("tools", json!([{"type":"function","function":{"name":"x"}}])).contains("tools[0].name"));
        assert!(refused("tool_choice", json!({"type":"function","name":"x"})).contains("not found"));
    }

    #[test]
    fn foreign_input_items_are_refused() {
        let said = |content: Value| json!([{"role":"user","content":content}]);
        assert!(refused("input", json!([{"role":"system","content":"x"}])).contains("System messages"));
        assert!(refused("input", said(json!([{"type":"text","text":"x"}]))).contains("Invalid value: 'text'"));
        assert!(
            refused("input", said(json!([{"type":"input_text","text":"x","cache_control":{}}])))
                .contains("Unknown parameter: 'input[0].content[0].cache_control'")
        );
        assert!(
            refused("input", said(json!([{"type":"input_image","image_url":{"url":"x"}}])))
                .contains("expected a string")
        );
        assert!(
            refused("input", json!([{"type":"function_call_output","call_id":"c","output":"x"}]))
                .contains("No tool call found")
        );
        assert!(
            refused("input", json!([{"type":"function_call","call_id":"c","name":"n","arguments":"{}"}]))
                .contains("No tool output found")
        );
        assert!(
            refused("input", json!([{"type":"function_call","id":"call_1","call_id":"c","name":"n","arguments":"{}"}]))
                .contains("begins with 'fc'")
        );
        assert!(
            refused("input", json!([{"type":"compaction_trigger"},{"role":"user","content":"x"}]))
                .contains("must be the last")
        );
    }

    #[test]
    fn sealed_reasoning_opens_only_for_its_account() {
        let replay = |sealed: &str| json!([{"type":"reasoning","id":"rs_1","summary":[],"content":null,"encrypted_content":sealed}]);
        assert!(refused("input", replay("gAAAA-theirs")).contains("invalid_encrypted_content"));
        let mut request = good();
        request["input"] = replay("gAAAA-mine");
        assert_eq!(check(&request, None, |sealed| sealed == "gAAAA-mine"), Ok(()));
    }
}
