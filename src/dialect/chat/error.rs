//! Errors in OpenAI's shape (clients.md 2).

use crate::dialect::{Problem, Rendered};
use bytes::Bytes;
use serde::Serialize;

/// `{"error":{"message","type","param","code"}}`; with `resets_at` where a limit is used up, which
/// the Codex CLI shows (protocol.md 5.3). No `plan_type`: it makes the CLI advise its user to buy a
/// bigger plan, and the account is not the user's.
#[derive(Serialize)]
pub(crate) struct ErrorObject<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_in_seconds: Option<u64>,
}

impl<'a> From<&'a Problem> for ErrorObject<'a> {
    fn from(problem: &'a Problem) -> Self {
        Self {
            message: &problem.message,
            kind: problem.kind.openai_type(),
            param: problem.param.as_deref(),
            code: problem.openai_code(),
            resets_at: problem.resets_at,
            resets_in_seconds: problem.resets_at.and(problem.retry_after).map(|wait| wait.as_secs()),
        }
    }
}

/// The error answer.
pub fn render(problem: &Problem) -> Rendered {
    Rendered { status: problem.kind.status(), body: Bytes::from(envelope(problem)) }
}

/// The error object as JSON text, for an answer or for a frame of a stream.
pub(crate) fn envelope(problem: &Problem) -> String {
    #[derive(Serialize)]
    struct Envelope<'a> {
        error: ErrorObject<'a>,
    }
    serde_json::to_string(&Envelope { error: problem.into() }).unwrap_or_default()
}
