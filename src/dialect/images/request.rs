//! A request for pictures, held to the fields that the backend's call takes (protocol.md 6.5).

use crate::dialect::{Problem, ProblemKind};
use bytes::Bytes;
use serde_json::{Map, Value};

/// A request as the backend takes it.
#[derive(Debug)]
pub struct Pictures {
    /// The model that was asked for, if one was.
    pub model: Option<String>,
    /// JSON.
    pub body: Bytes,
    /// The fields that were left out.
    pub ignored: Vec<&'static str>,
}

const PASSED: [&str; 7] = ["prompt", "model", "background", "quality", "size", "n", "images"];

/// What is left out, and named: it changes how the picture is packed or who is said to ask.
const IGNORED: [&str; 8] = [
    "input_fidelity",
    "moderation",
    "output_compression",
    "output_format",
    "partial_images",
    "style",
    "user",
    "unknown-fields",
];

/// The most pictures that one request may ask for, as in OpenAI's API.
const MOST: u64 = 10;

/// Reads a request; with `edits`, one that shows pictures.
pub fn prepare(body: &[u8], edits: bool) -> Result<Pictures, Problem> {
    let mut asked: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        Problem::new(ProblemKind::InvalidRequest, format!("The request body is not a JSON object: {error}"))
    })?;
    asked.retain(|_, value| !value.is_null());
    if asked.get("prompt").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(Problem::invalid("prompt", "`prompt` must be a non-empty string"));
    }
    refuse(&asked, edits)?;
    let mut ignored = Vec::new();
    asked.retain(|name, _| {
        // What Tollway answers in any case was not ignored.
        let is_met = matches!(name.as_str(), "response_format" | "stream");
        let passes = PASSED.contains(&name.as_str());
        if !passes && !is_met {
            let named = IGNORED.iter().find(|known| *known == name).copied().unwrap_or("unknown-fields");
            if !ignored.contains(&named) {
                ignored.push(named);
            }
        }
        passes
    });
    let model = asked.get("model").and_then(Value::as_str).map(str::to_owned);
    Ok(Pictures { model, body: Bytes::from(Value::Object(asked).to_string()), ignored })
}

fn refuse(asked: &Map<String, Value>, edits: bool) -> Result<(), Problem> {
    let unsupported = |param: &str, why: &str| Problem {
        code: Some("unsupported_parameter".to_owned()),
        ..Problem::invalid(param, why)
    };
    if asked.get("stream") == Some(&Value::Bool(true)) {
        return Err(unsupported(
            "stream",
            "the backend's call for pictures does not stream: send the request without `stream`",
        ));
    }
    if asked.get("response_format").is_some_and(|format| format != "b64_json") {
        return Err(unsupported("response_format", "Tollway keeps no pictures: ask for `b64_json`, or leave it out"));
    }
    if asked.contains_key("mask") {
        return Err(unsupported("mask", "the backend's call takes no mask: say in the prompt what is to change"));
    }
    if asked.get("n").is_some_and(|n| n.as_u64().is_none_or(|n| n == 0 || n > MOST)) {
        return Err(Problem::invalid("n", format!("`n` must be a whole number from 1 to {MOST}")));
    }
    if edits && asked.get("images").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Err(Problem::invalid("images", "`images` must be a list of `{\"image_url\": …}`"));
    }
    match asked.get("model") {
        Some(Value::String(model)) if model.starts_with("dall-e") => {
            let message = format!("The model '{model}' does not exist here: pictures are made by `gpt-image` models");
            Err(Problem { param: Some("model".to_owned()), ..Problem::new(ProblemKind::ModelNotFound, message) })
        }
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err(Problem::invalid("model", "`model` must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn prepared(body: &Value) -> Result<Pictures, Problem> {
        prepare(body.to_string().as_bytes(), false)
    }

    #[test]
    fn what_the_backend_takes_passes_and_the_rest_is_named() {
        let asked = json!({"prompt": "a", "n": 2, "size": "1024x1024", "user": "u", "new": 1, "response_format": "b64_json", "style": null});
        let pictures = prepared(&asked).expect("legible");
        let body: Value = serde_json::from_slice(&pictures.body).expect("JSON");
        assert_eq!(body, json!({"prompt": "a", "n": 2, "size": "1024x1024"}));
        let mut ignored = pictures.ignored;
        ignored.sort_unstable();
        assert_eq!(ignored, ["unknown-fields", "user"]);
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_its_parameter() {
        for (field, value) in [
            ("prompt", json!("")),
            ("stream", json!(true)),
            ("response_format", json!("url")),
            ("mask", json!("data:")),
            ("n", json!(0)),
            ("n", json!(11)),
            ("model", json!("dall-e-3")),
        ] {
            let mut asked = json!({"prompt": "a"});
            asked[field] = value;
            assert_eq!(prepared(&asked).expect_err(field).param.as_deref(), Some(field));
        }
        assert_eq!(prepare(br#"{"prompt":"a"}"#, true).expect_err("no pictures").param.as_deref(), Some("images"));
        assert!(prepare(b"--boundary", false).is_err());
    }
}
