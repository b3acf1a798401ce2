//! Errors in Anthropic's shape (clients.md 2).

use super::frames;
use crate::dialect::{Overflow, Problem, ProblemKind, Rendered};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use serde::Serialize;
use std::borrow::Cow;

/// The code by which the SDKs know that they must send the whole conversation.
const NO_THREADS: &str = "thread_unsupported_request";

/// The refusal of `thread`: a conversation kept by the server. The SDKs' tool runners ask for one, and
/// go on without it when they are told so in just this way; ignored, it would cost the conversation.
pub(super) fn no_threads() -> Problem {
    let message = "thread: no conversations are kept here; send the full conversation without `thread`";
    Problem { code: Some(NO_THREADS.to_owned()), ..Problem::invalid("thread", message) }
}

/// `{"type":"error","error":{"type","message"},"request_id"}`.
#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorObject<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

/// What a program may act on.
#[derive(Serialize)]
struct Details {
    error_code: &'static str,
    unsupported: [&'static str; 1],
}

/// The error answer.
pub fn render(problem: &Problem, request_id: &str) -> Rendered {
    let body = serde_json::to_vec(&envelope(problem, request_id, None)).unwrap_or_default();
    Rendered { status: status(problem.kind), body: Bytes::from(body) }
}

/// The error as the last event of a stream. `estimate` is the request's size in tokens.
pub(super) fn write(problem: &Problem, request_id: &str, estimate: Option<u64>, out: &mut BytesMut) {
    frames::write_frame("error", &envelope(problem, request_id, estimate), out);
}

fn envelope<'a>(problem: &'a Problem, request_id: &'a str, estimate: Option<u64>) -> Envelope<'a> {
    let message = match problem.kind {
        ProblemKind::ContextLength => Cow::Owned(too_long(&problem.message, estimate, problem.overflow)),
        _ => Cow::Borrowed(problem.message.as_str()),
    };
    let is_thread = problem.code.as_deref() == Some(NO_THREADS);
    let details = is_thread.then_some(Details { error_code: NO_THREADS, unsupported: ["thread"] });
    Envelope { kind: "error", error: ErrorObject { kind: error_type(problem.kind), message, details }, request_id }
}

/// The status: OpenAI's but for an overload, which has a number of its own here.
fn status(kind: ProblemKind) -> StatusCode {
    match kind {
        ProblemKind::Overloaded => StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        _ => kind.status(),
    }
}

fn error_type(kind: ProblemKind) -> &'static str {
    use ProblemKind as K;
    match kind {
        K::InvalidRequest | K::ContextLength | K::Policy | K::MethodNotAllowed | K::UnsupportedMediaType => {
            "invalid_request_error"
        }
        K::InvalidKey => "authentication_error",
        K::PermissionDenied => "permission_error",
        K::ModelNotFound | K::NotFound | K::Unsupported => "not_found_error",
        K::TooLarge => "request_too_large",
        K::UsageLimit | K::RateLimited => "rate_limit_error",
        K::Overloaded | K::ShuttingDown => "overloaded_error",
        K::UpstreamTimeout => "timeout_error",
        K::Unavailable | K::NoAccount | K::Upstream | K::Internal => "api_error",
    }
}

/// Claude Code compacts a conversation only on a message that begins just so (clients.md 1.1). The
/// numbers are the backend's; where it names none, our estimate stands in if it explains the refusal,
/// and the catalogue's maximum. The backend's word that it is too much stands above an estimate that
/// says otherwise: then it is one more than the maximum, at least.
fn too_long(message: &str, estimate: Option<u64>, overflow: Option<Overflow>) -> String {
    let mut numbers = token_counts(message);
    if let ([maximum], Some(estimate)) = (numbers.as_slice(), estimate)
        && estimate > *maximum
    {
        numbers.push(estimate);
    }
    match (numbers.iter().max(), numbers.iter().min()) {
        (Some(tokens), Some(maximum)) if tokens > maximum => {
            format!("prompt is too long: {tokens} tokens > {maximum} maximum")
        }
        _ => match overflow {
            Some(Overflow { tokens, maximum }) => {
                let maximum = numbers.first().copied().unwrap_or(maximum);
                format!("prompt is too long: {} tokens > {maximum} maximum", tokens.max(maximum.saturating_add(1)))
            }
            None => format!("prompt is too long: {message}"),
        },
    }
}

/// The numbers in a message that can be counts of tokens, with or without separators.
fn token_counts(message: &str) -> Vec<u64> {
    message
        .split(|c: char| !c.is_ascii_digit() && c != ',' && c != '_')
        .filter_map(|word| word.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok())
        .filter(|number| *number >= 1000)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProblemKind as K;

    #[test]
    fn each_kind_has_anthropics_status_and_type() {
        let rows = [
            (K::InvalidRequest, 400, "invalid_request_error"),
            (K::ContextLength, 400, "invalid_request_error"),
            (K::Policy, 400, "invalid_request_error"),
            (K::InvalidKey, 401, "authentication_error"),
            (K::PermissionDenied, 403, "permission_error"),
            (K::ModelNotFound, 404, "not_found_error"),
            (K::NotFound, 404, "not_found_error"),
            (K::MethodNotAllowed, 405, "invalid_request_error"),
            (K::TooLarge, 413, "request_too_large"),
            (K::UnsupportedMediaType, 415, "invalid_request_error"),
            (K::Unsupported, 404, "not_found_error"),
            (K::UsageLimit, 429, "rate_limit_error"),
            (K::RateLimited, 429, "rate_limit_error"),
            (K::Internal, 500, "api_error"),
            (K::Upstream, 502, "api_error"),
            (K::NoAccount, 503, "api_error"),
            (K::UpstreamTimeout, 504, "timeout_error"),
            (K::Overloaded, 529, "overloaded_error"),
        ];
        for (kind, status, name) in rows {
            let rendered = render(&Problem::new(kind, "words"), "req_1");
            let body: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
            assert_eq!(rendered.status.as_u16(), status, "{kind:?}");
            assert_eq!(body["error"]["type"], name, "{kind:?}");
            assert_eq!(body["request_id"], "req_1");
        }
    }

    #[test]
    fn a_thread_is_refused_so_that_the_sdks_send_the_whole_conversation() {
        let rendered = render(&no_threads(), "req_1");
        let body: serde_json::Value = serde_json::from_slice(&rendered.body).expect("JSON");
        assert_eq!(rendered.status.as_u16(), 400);
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(
            body["error"]["details"],
            serde_json::json!({"error_code": "thread_unsupported_request", "unsupported": ["thread"]})
        );
    }

    #[test]
    fn an_overflow_is_worded_so_that_claude_code_compacts() {
        let say = |message: &str, estimate| too_long(message, estimate, None);
        assert_eq!(
            say("maximum context length is 272000 tokens, however you requested 300,123 tokens", None),
            "prompt is too long: 300123 tokens > 272000 maximum"
        );
        assert_eq!(
            say("exceeds the limit of 272000 tokens", Some(280_000)),
            "prompt is too long: 280000 tokens > 272000 maximum"
        );
        for (message, estimate) in [("exceeds the limit of 272000 tokens", Some(200_000)), ("too big", Some(1))] {
            assert!(!say(message, estimate).contains('>'), "an estimate that explains nothing is not named");
        }
        assert_eq!(
            say("Your input exceeds the context window of this model.", None),
            "prompt is too long: Your input exceeds the context window of this model."
        );
        let silent = "Your input exceeds the context window of this model.";
        let known = |tokens| too_long(silent, None, Some(Overflow { tokens, maximum: 272_000 }));
        assert_eq!(known(300_000), "prompt is too long: 300000 tokens > 272000 maximum");
        assert_eq!(known(200_000), "prompt is too long: 272001 tokens > 272000 maximum", "the backend knows better");
    }
}
