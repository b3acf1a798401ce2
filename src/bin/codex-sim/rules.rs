//! What the backend refuses before it answers (protocol.md 2.4).
//!
//! Strict on purpose: a request that passes here proves that the client in front sanitises.
//! Pure; knows accounts only through the check of sealed content handed in.

use serde_json::{Value, json};

use crate::catalogue::{self, Model};
use crate::items;
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
pub(crate) fn detail(text: impl Into<String>) -> Refusal {
    Refusal { status: 400, body: json!({"detail": text.into()}) }
}

/// The OpenAI shape, `{"error":{…}}`.
pub(crate) fn invalid(code: &str, param: &str, message: impl Into<String>) -> Refusal {
    let code = if code.is_empty() { Value::Null } else { json!(code) };
    Refusal {
        status: 400,
        body: json!({"error": {"message": message.into(), "type": "invalid_request_error", "param": param, "code": code}}),
    }
}

/// The outcome of one check.
pub(crate) type Checked = Result<(), Refusal>;

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
    items::check(input, &opens)
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
        if tool.kind == "image_generation" && tool.previews.is_some_and(|count| count > 3) {
            return Err(invalid(
                "integer_above_max_value",
                &format!("tools[{index}].partial_images"),
                format!("Invalid 'tools[{index}].partial_images': expected a value <= 3."),
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
        check(&request, None, |_| false).unwrap_err().body.to_string()
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
}
