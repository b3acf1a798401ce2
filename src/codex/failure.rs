//! What a failed call means: one table from (phase, status, code) to a kind (protocol.md 3, 5.3;
//! lessons.md 2–5).
//!
//! A failure says what happened. What follows (refresh, next account, give up) is the relay's.

use super::event::{ErrorBody, ErrorEvent, ResponseSummary};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::time::Duration;

/// A call to the backend that did not succeed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What it means.
    pub kind: FailureKind,
    /// The HTTP status, where there was one other than 200.
    pub status: Option<StatusCode>,
    /// The backend's code or type, e.g. `token_invalidated`.
    pub code: Option<String>,
    /// The backend's words, or ours when it had none. At most [`MESSAGE_LIMIT`] characters.
    pub message: String,
    /// When the limit resets, Unix seconds, if the backend said so.
    pub resets_at: Option<i64>,
    /// How long to wait, if the backend said so.
    pub retry_after: Option<Duration>,
    /// The backend's id of the request.
    pub request_id: Option<String>,
    /// The parameter to blame.
    pub param: Option<String>,
    /// The family of models whose own limit it was, where the backend says so (protocol.md 5.1).
    pub limit_family: Option<String>,
}

/// Longer messages of the backend are cut: an error page is not an error message.
pub const MESSAGE_LIMIT: usize = 2000;

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// 401: the access token is not accepted.
    Unauthorized,
    /// 403, as a rule a challenge page in front of the backend, or an account that may not.
    Forbidden,
    /// The account's quota is used up (`usage_limit_reached`, or a 429 with a window at 100%).
    UsageLimit,
    /// The account's plan does not serve at all (`usage_not_included`).
    NotIncluded,
    /// The account's plan does not offer the model.
    ModelNotOffered,
    /// A short-term limit.
    RateLimited,
    /// The backend is at capacity.
    Overloaded,
    /// 5xx, or an answer that is not one.
    ServerError,
    /// The connection could not be made or broke before the answer.
    Connection,
    /// No answer, or no event, within the bound.
    Timeout,
    /// The stream ended without a terminal event, or an event in it was not legible.
    StreamCut,
    /// The conversation is longer than the model takes.
    ContextLength,
    /// A policy of the backend refused the content.
    Policy,
    /// The backend does not accept the request: the caller's fault, no other account would.
    BadRequest,
    /// Reasoning in the request belongs to another account.
    ForeignReasoning,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::UsageLimit,
        Self::NotIncluded,
        Self::ModelNotOffered,
        Self::RateLimited,
        Self::Overloaded,
        Self::ServerError,
        Self::Connection,
        Self::Timeout,
        Self::StreamCut,
        Self::ContextLength,
        Self::Policy,
        Self::BadRequest,
        Self::ForeignReasoning,
    ];

    /// For metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::UsageLimit => "usage_limit",
            Self::NotIncluded => "not_included",
            Self::ModelNotOffered => "model_not_offered",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::StreamCut => "stream_cut",
            Self::ContextLength => "context_length",
            Self::Policy => "policy",
            Self::BadRequest => "bad_request",
            Self::ForeignReasoning => "foreign_reasoning",
        }
    }
}

/// The table for codes, whatever the status. The first match wins; `None` leaves it to the status.
fn kind_of_code(code: &str) -> Option<FailureKind> {
    use FailureKind as K;
    Some(match code {
        "usage_limit_reached"
        | "insufficient_quota"
        | "credit_balance_exhausted"
        | "organization_spend_limit_exceeded"
        | "project_spend_limit_exceeded"
        | "organization_usage_limit_exceeded" => K::UsageLimit,
        "usage_not_included" => K::NotIncluded,
        "rate_limit_exceeded" | "slow_down" => K::RateLimited,
        "server_is_overloaded" => K::Overloaded,
        "context_length_exceeded" => K::ContextLength,
        "cyber_policy" | "bio_policy" | "misalignment_policy_violation" | "content_policy_violation" => K::Policy,
        "invalid_prompt" => K::BadRequest,
        "invalid_encrypted_content" => K::ForeignReasoning,
        "token_invalidated" | "token_expired" | "token_revoked" | "account_deactivated" => K::Unauthorized,
        "server_error" | "internal_server_error" => K::ServerError,
        _ => return None,
    })
}

fn kind_of_status(status: StatusCode) -> FailureKind {
    use FailureKind as K;
    match status.as_u16() {
        401 => K::Unauthorized,
        402 => K::UsageLimit,
        403 => K::Forbidden,
        408 | 504 => K::Timeout,
        429 => K::RateLimited,
        503 | 529 => K::Overloaded,
        400..=499 => K::BadRequest,
        _ => K::ServerError,
    }
}

impl Failure {
    /// A failure without an answer of the backend.
    pub fn of(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            code: None,
            message: message.into(),
            resets_at: None,
            retry_after: None,
            request_id: None,
            param: None,
            limit_family: None,
        }
    }

    /// Classifies an answer that is not a success. `now` is in Unix seconds.
    pub fn of_response(status: StatusCode, headers: &HeaderMap, body: &[u8], now: i64) -> Self {
        let error = ErrorAnswer::parse(body);
        let mut failure = Self::of_error(&error.body, now);
        failure.heed(status, headers, &error.body, now);
        if failure.message.is_empty() {
            failure.message = if error.is_page && body.windows(10).any(|w| w.eq_ignore_ascii_case(b"cloudflare")) {
                format!("the backend's front (Cloudflare) refused the request with status {}", status.as_u16())
            } else {
                format!("the backend answered with status {}", status.as_u16())
            };
        }
        failure
    }

    /// Classifies `response.failed` inside a stream that began with 200.
    pub fn of_failed(response: &ResponseSummary, now: i64) -> Self {
        Self::of_error(&response.error.clone().unwrap_or_default(), now)
    }

    /// Classifies an `error` event inside a stream that began with 200.
    pub fn of_error_event(event: &ErrorEvent<'_>, now: i64) -> Self {
        let mut body = event.error.clone().unwrap_or_default();
        body.code = body.code.or_else(|| event.code.as_deref().map(str::to_owned));
        body.message = body.message.or_else(|| event.message.as_deref().map(str::to_owned));
        let mut failure = Self::of_error(&body, now);
        if let Some(status) = event.status.and_then(|s| StatusCode::from_u16(s).ok()) {
            failure.heed(status, &event.header_map(), &body, now);
        }
        failure
    }

    /// What status and headers add to what the body says. The WebSocket transport wraps both in its
    /// error event (protocol.md 4).
    fn heed(&mut self, status: StatusCode, headers: &HeaderMap, body: &ErrorBody, now: i64) {
        self.status = Some(status);
        self.request_id = request_id(headers);
        self.retry_after = retry_after(headers).or(self.retry_after);
        let limits = super::limits::Limits::from_headers(headers, now);
        let by_code = [&body.code, &body.kind].into_iter().flatten().find_map(|c| kind_of_code(c));
        self.kind = match by_code.unwrap_or_else(|| kind_of_status(status)) {
            // A 429 means quota only with the code or a window at 100% (lessons.md 3).
            FailureKind::RateLimited if limits.exhausted_until().is_some() => FailureKind::UsageLimit,
            FailureKind::BadRequest if is_plan_refusal(&self.message) => FailureKind::ModelNotOffered,
            FailureKind::BadRequest if is_context_overflow(&self.message) => FailureKind::ContextLength,
            kind => kind,
        };
        if self.kind == FailureKind::UsageLimit {
            self.resets_at = self.resets_at.or(limits.exhausted_until());
            self.limit_family = limits.active_family;
        }
    }

    fn of_error(body: &ErrorBody, now: i64) -> Self {
        let message: String = body.message.as_deref().unwrap_or_default().chars().take(MESSAGE_LIMIT).collect();
        let by_code = [&body.code, &body.kind].into_iter().flatten().find_map(|c| kind_of_code(c));
        let kind = by_code.unwrap_or_else(|| {
            if is_overload(&message) {
                FailureKind::Overloaded
            } else if is_context_overflow(&message) {
                FailureKind::ContextLength
            } else {
                FailureKind::ServerError
            }
        });
        Self {
            kind,
            status: None,
            code: body.code.clone().or_else(|| body.kind.clone()),
            resets_at: body.resets_at.or_else(|| body.resets_in_seconds.map(|s| now.saturating_add(s))),
            retry_after: try_again_in(&message),
            message,
            request_id: None,
            param: body.param.clone(),
            limit_family: None,
        }
    }
}

/// A body in any of the shapes of protocol.md 5.3.
struct ErrorAnswer {
    body: ErrorBody,
    /// Whether it was not JSON at all.
    is_page: bool,
}

impl ErrorAnswer {
    fn parse(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            error: Option<ErrorOrText>,
            #[serde(default)]
            detail: Option<serde_json::Value>,
            #[serde(default)]
            message: Option<String>,
            #[serde(default)]
            code: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum ErrorOrText {
            Object(ErrorBody),
            Text(String),
        }
        let Ok(wire) = serde_json::from_slice::<Wire>(bytes) else {
            return Self { body: ErrorBody::default(), is_page: true };
        };
        let mut body = match wire.error {
            Some(ErrorOrText::Object(body)) => body,
            Some(ErrorOrText::Text(code)) => ErrorBody { code: Some(code), ..ErrorBody::default() },
            None => ErrorBody::default(),
        };
        body.code = body.code.or(wire.code);
        body.message = body.message.or(wire.message).or_else(|| wire.detail.map(detail_text));
        Self { body, is_page: false }
    }
}

fn detail_text(detail: serde_json::Value) -> String {
    match detail {
        serde_json::Value::String(text) => text,
        serde_json::Value::Object(map) => map
            .get("message")
            .and_then(|m| m.as_str())
            .map_or_else(|| serde_json::Value::Object(map.clone()).to_string(), str::to_owned),
        other => other.to_string(),
    }
}

fn is_plan_refusal(message: &str) -> bool {
    message.contains("is not supported when using Codex with a ChatGPT account")
}

fn is_context_overflow(message: &str) -> bool {
    message.contains("exceeds the context window") || message.contains("maximum context length")
}

/// "Overloaded" can come without a code (lessons.md 5).
fn is_overload(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    lower.contains("overloaded") || lower.contains("at capacity")
}

/// The delay that a message names: `try again in 2.5s`, `… in 300ms`, `… in 3 seconds` (protocol.md 3).
fn try_again_in(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let rest = lower.split_once("try again in ")?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let number: f64 = rest[..end].parse().ok()?;
    let unit = rest[end..].trim_start();
    let seconds = if unit.starts_with("ms") {
        number / 1000.0
    } else if unit.starts_with('s') {
        number
    } else {
        return None;
    };
    Duration::try_from_secs_f64(seconds).ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The backend's id of a request, in the order of protocol.md 5.3.
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    ["x-request-id", "x-oai-request-id", "cf-ray"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use FailureKind as K;

    fn failure(status: u16, body: &str) -> Failure {
        Failure::of_response(StatusCode::from_u16(status).expect("status"), &HeaderMap::new(), body.as_bytes(), 1000)
    }

    #[test]
    fn the_table_holds_row_by_row() {
        let rows: &[(u16, &str, K)] = &[
            (401, r#"{"error":{"code":"token_expired","message":"x"}}"#, K::Unauthorized),
            (401, r#"{"detail":"Unauthorized"}"#, K::Unauthorized),
            (403, "<html>Cloudflare: blocked</html>", K::Forbidden),
            (429, r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":60}}"#, K::UsageLimit),
            (429, r#"{"error":{"type":"usage_not_included"}}"#, K::NotIncluded),
            (429, r#"{"error":{"code":"rate_limit_exceeded"}}"#, K::RateLimited),
            (429, "", K::RateLimited),
            (400, r#"{"detail":"Unsupported parameter: user"}"#, K::BadRequest),
            (
                400,
                r#"{"detail":"The 'x' model is not supported when using Codex with a ChatGPT account."}"#,
                K::ModelNotOffered,
            ),
            (400, r#"{"error":{"code":"context_length_exceeded","message":"too long"}}"#, K::ContextLength),
            (400, r#"{"error":{"code":"invalid_encrypted_content"}}"#, K::ForeignReasoning),
            (404, "", K::BadRequest),
            (503, r#"{"error":{"code":"server_is_overloaded"}}"#, K::Overloaded),
            (500, "oops", K::ServerError),
            (520, "", K::ServerError),
            (504, "", K::Timeout),
        ];
        for (status, body, kind) in rows {
            assert_eq!(failure(*status, body).kind, *kind, "{status} {body}");
        }
    }

    #[test]
    fn a_429_is_quota_when_a_window_is_full() {
        let headers: HeaderMap = [("x-codex-primary-used-percent", "100"), ("x-codex-primary-reset-at", "9000")]
            .iter()
            .map(|(k, v)| (http::HeaderName::from_static(k), http::HeaderValue::from_static(v)))
            .collect();
        let failure = Failure::of_response(StatusCode::TOO_MANY_REQUESTS, &headers, b"{}", 1000);
        assert_eq!((failure.kind, failure.resets_at), (K::UsageLimit, Some(9000)));
    }

    #[test]
    fn reset_times_come_from_either_field() {
        assert_eq!(
            failure(429, r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":60}}"#).resets_at,
            Some(1060)
        );
        assert_eq!(failure(429, r#"{"error":{"type":"usage_limit_reached","resets_at":5000}}"#).resets_at, Some(5000));
    }

    #[test]
    fn a_delay_is_read_from_the_message() {
        for (message, ms) in
            [("Please try again in 2.5s.", 2500), ("try again in 300ms", 300), ("Try again in 3 seconds", 3000)]
        {
            assert_eq!(try_again_in(message), Some(Duration::from_millis(ms)), "{message}");
        }
        assert_eq!(try_again_in("try again in a while"), None);
    }

    #[test]
    fn an_overload_without_a_code_is_an_overload() {
        let response = ResponseSummary {
            error: Some(ErrorBody {
                message: Some("Our servers are currently overloaded. Please try again later.".into()),
                ..ErrorBody::default()
            }),
            ..ResponseSummary::default()
        };
        assert_eq!(Failure::of_failed(&response, 0).kind, K::Overloaded);
    }
}
