//! The answers that are not what was asked for (protocol.md 5.3), and hanging up.
//!
//! Builds responses; decides nothing.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::faults::Kind;
use crate::grants::Shut;
use crate::state::now;

/// Marks a response that must never be sent: the connection closes instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HangUp;

/// Closes the connection before the headers.
pub(crate) fn hang_up() -> Response {
    let mut response = StatusCode::BAD_GATEWAY.into_response();
    response.extensions_mut().insert(HangUp);
    response
}

/// A JSON answer.
pub(crate) fn json_answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// `{"detail":…}`.
pub(crate) fn detail(status: u16, text: &str) -> Response {
    json_answer(status, &json!({"detail": text}))
}

/// `{"error":{…}}` with a code.
pub(crate) fn error(status: u16, kind: &str, code: &str, message: &str) -> Response {
    json_answer(
        status,
        &json!({"error": {"message": message, "type": kind, "param": null, "code": code}, "status": status}),
    )
}

/// 401 for an access token that does not open.
pub(crate) fn shut(why: Shut) -> Response {
    match why {
        Shut::Unknown => detail(401, "Could not parse your authentication token. Please try signing in again."),
        Shut::Expired => unauthorized("token_expired"),
        Shut::Invalidated => unauthorized("token_invalidated"),
        Shut::Revoked => unauthorized("token_revoked"),
    }
}

/// 401 with a code.
pub(crate) fn unauthorized(code: &str) -> Response {
    let message = match code {
        "token_expired" => "Provided authentication token is expired. Please try signing in again.",
        "account_deactivated" => "Your account has been deactivated.",
        _ => "Your authentication token has been invalidated. Please try signing in again.",
    };
    error(401, "invalid_request_error", code, message)
}

/// 429 `usage_limit_reached`.
pub(crate) fn usage_limit(plan: &str, resets_at: i64) -> Response {
    let body = json!({"error": {
        "type": "usage_limit_reached", "message": "The usage limit has been reached", "plan_type": plan,
        "resets_at": resets_at, "resets_in_seconds": (resets_at - now()).max(0), "eligible_promo": null,
    }});
    json_answer(429, &body)
}

/// The page Cloudflare shows to those it does not like.
const BLOCKED: &str = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head>\
<body><h1>Sorry, you have been blocked</h1><p>You are unable to access chatgpt.com (simulated)</p></body></html>";

/// The answer a fault gives in place of the real one; none when it lets the request through.
pub(crate) fn instead(kind: &Kind, plan: &str) -> Option<Response> {
    let answer = match kind {
        Kind::Status { status, body, headers } => {
            let mut answer = match body {
                Value::String(text) => (StatusCode::from_u16(*status).ok()?, text.clone()).into_response(),
                Value::Null => StatusCode::from_u16(*status).ok()?.into_response(),
                body => json_answer(*status, body),
            };
            for (name, value) in headers {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                    answer.headers_mut().insert(name, value);
                }
            }
            answer
        }
        Kind::UsageLimit { resets_in_seconds } => usage_limit(plan, now() + resets_in_seconds),
        Kind::RateLimit { retry_after } => {
            let mut answer =
                error(429, "rate_limit_exceeded", "rate_limit_exceeded", "Rate limit reached. Please slow down.");
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*retry_after));
            answer
        }
        Kind::Unauthorized { code } => unauthorized(code),
        Kind::ForbiddenHtml {} => {
            let headers = [
                ("content-type", "text/html; charset=UTF-8"),
                ("cf-ray", "8f0000000000simu-FRA"),
                ("server", "cloudflare"),
            ];
            (StatusCode::FORBIDDEN, headers, BLOCKED).into_response()
        }
        Kind::Overloaded {} => error(
            503,
            "server_error",
            "server_is_overloaded",
            "Our servers are currently overloaded. Please try again later.",
        ),
        Kind::ServerError {} => {
            error(500, "server_error", "server_error", "The server had an error while processing your request.")
        }
        Kind::Disconnect {} => hang_up(),
        _ => return None,
    };
    Some(answer)
}

/// 200 with a body that is no JSON.
pub(crate) fn malformed() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::from("{\"broken\": tru")).into_response()
}
