//! What the gateway itself says on a WebSocket: errors, the answer to a prewarm, and what HTTP says in
//! headers. Pure.

use crate::codex::limits::{Limits, Window};
use crate::dialect::{Dialect, Problem};
use axum::http::{HeaderMap, HeaderName, header};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// What a Codex CLI reads from a `response.metadata` event, and over HTTP from the head.
const METADATA: [&str; 4] = ["x-codex-turn-state", "openai-model", "x-models-etag", "x-reasoning-included"];

/// An error as the Codex CLI reads it: exactly what HTTP would have answered (protocol.md 4).
pub(super) fn error(problem: &Problem, request_id: &str) -> String {
    let rendered = Dialect::Responses.render(problem, request_id);
    let body: Map<String, Value> = serde_json::from_slice(&rendered.body).unwrap_or_default();
    let mut headers = Map::new();
    headers.insert("x-request-id".to_owned(), json!(request_id));
    if let Some(wait) = problem.retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER.as_str().to_owned(), json!(seconds.to_string()));
    }
    json!({
        "type": "error", "status": rendered.status.as_u16(),
        "error": body.get("error").unwrap_or(&Value::Null), "headers": headers,
    })
    .to_string()
}

/// The connection is as old as it may become.
pub(super) fn too_old() -> String {
    let message = "This WebSocket connection has reached its age limit. Open a new one to continue.";
    json!({
        "type": "error", "status": 400, "headers": {},
        "error": {
            "type": "invalid_request_error", "code": "websocket_connection_limit_reached", "message": message,
            "param": null,
        },
    })
    .to_string()
}

/// The answer to a request that generates nothing: a response without output.
pub(super) fn prewarmed(id: &str, model: &str, now: i64) -> [String; 2] {
    let mut response = json!({
        "id": id, "object": "response", "created_at": now, "status": "in_progress", "error": null,
        "incomplete_details": null, "instructions": null, "metadata": {}, "model": model, "output": [],
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "temperature": null, "top_p": null,
        "usage": null,
    });
    let created = json!({"type": "response.created", "sequence_number": 0, "response": response});
    response["status"] = json!("completed");
    response["usage"] = json!({
        "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 0, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
    });
    let completed = json!({"type": "response.completed", "sequence_number": 1, "response": response});
    [created.to_string(), completed.to_string()]
}

/// What HTTP says in an answer's head: the backend's headers, and what could not be honoured.
pub(super) fn head(backend: &HeaderMap, ignored: &[&'static str], now: i64) -> Vec<String> {
    let mut frames = Vec::new();
    let mut headers: Map<String, Value> = METADATA
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), json!(text(backend, &HeaderName::from_static(name))?))))
        .collect();
    if !ignored.is_empty() {
        headers.insert("x-tollway-ignored".to_owned(), json!(ignored.join(", ")));
    }
    if !headers.is_empty() {
        frames.push(json!({"type": "response.metadata", "headers": headers}).to_string());
    }
    let limits = Limits::from_headers(backend, now);
    if !limits.is_empty() {
        let rate_limits = json!({"primary": limits.primary.map(window), "secondary": limits.secondary.map(window)});
        let event =
            json!({"type": "codex.rate_limits", "plan_type": limits.plan, "rate_limits": rate_limits, "credits": null});
        frames.push(event.to_string());
    }
    frames
}

fn window(window: Window) -> Value {
    json!({
        "used_percent": window.used_percent, "window_minutes": window.window_minutes, "reset_at": window.resets_at,
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// An event's payload as one text frame; `None` if it is not JSON in UTF-8.
pub(super) fn event(data: &[u8]) -> Option<String> {
    let data = std::str::from_utf8(data).ok()?;
    serde_json::from_str::<&RawValue>(data).ok().map(|_| data.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::ProblemKind;
    use axum::http::HeaderValue;
    use std::time::Duration;

    #[test]
    fn an_error_says_what_http_would_have_said() {
        let problem = Problem {
            resets_at: Some(7),
            retry_after: Some(Duration::from_millis(1500)),
            ..Problem::new(ProblemKind::UsageLimit, "used up")
        };
        let frame: Value = serde_json::from_str(&error(&problem, "req_1")).expect("JSON");
        assert_eq!((&frame["type"], &frame["status"]), (&json!("error"), &json!(429)));
        assert_eq!(frame["error"]["type"], "usage_limit_reached");
        assert_eq!((&frame["error"]["resets_at"], &frame["headers"]["retry-after"]), (&json!(7), &json!("2")));
    }

    #[test]
    fn the_head_becomes_events_and_nothing_else_of_it_passes() {
        let pairs = [("x-codex-turn-state", "ts"), ("set-cookie", "c"), ("x-codex-primary-used-percent", "42")];
        let headers: HeaderMap =
            pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect();
        let frames: Vec<Value> =
            head(&headers, &["user"], 0).iter().map(|f| serde_json::from_str(f).expect("JSON")).collect();
        assert_eq!(frames[0]["headers"], json!({"x-codex-turn-state": "ts", "x-tollway-ignored": "user"}));
        assert_eq!(frames[1]["rate_limits"]["primary"]["used_percent"], 42.0);
        assert!(head(&HeaderMap::new(), &[], 0).is_empty());
    }
}
