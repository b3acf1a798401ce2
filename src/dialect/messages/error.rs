//! Errors in Anthropic's shape (clients.md 2).

use crate::dialect::{Problem, Rendered};
use bytes::Bytes;

/// The error answer.
pub fn render(problem: &Problem, request_id: &str) -> Rendered {
    let body = serde_json::json!({"type": "error", "error": {"type": "api_error", "message": problem.message}, "request_id": request_id});
    Rendered { status: problem.kind.status(), body: Bytes::from(body.to_string()) }
}
