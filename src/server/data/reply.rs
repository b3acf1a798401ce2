//! Answers on the wire.

use crate::dialect::{Dialect, Problem};
use crate::relay::{Reply, ReplyBody};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt;
use std::convert::Infallible;
use std::time::Duration;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// The SDKs of both vendors read these two before anything else they know of a status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const IGNORED: HeaderName = HeaderName::from_static("x-tollway-ignored");
/// Keeps nginx from collecting a stream before it passes it on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A problem in the dialect's words, with the headers that clients act on.
pub(super) fn refusal(dialect: Dialect, problem: &Problem, request_id: &str) -> Response {
    let rendered = dialect.render(problem, request_id);
    let mut response = json(rendered.status, Body::from(rendered.body));
    identify(dialect, request_id, response.headers_mut());
    let headers = response.headers_mut();
    if let Some(wait) = problem.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        if let Ok(millis) = u64::try_from(wait.as_millis()) {
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
        }
    }
    headers.extend(problem.headers.as_deref().cloned().unwrap_or_default());
    if let Some(retry) = problem.should_retry() {
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if retry { "true" } else { "false" }));
    }
    response
}

/// The relay's answer.
pub(super) fn success(dialect: Dialect, request_id: &str, ignored: &[&'static str], reply: Reply) -> Response {
    let Reply { headers, body } = reply;
    let mut response = match body {
        ReplyBody::Whole(body) => json(StatusCode::OK, Body::from(body)),
        ReplyBody::Stream(stream) => {
            let mut response = Response::new(Body::from_stream(stream.map(Ok::<_, Infallible>)));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
            response
        }
    };
    response.headers_mut().extend(headers);
    identify(dialect, request_id, response.headers_mut());
    name_ignored(ignored, response.headers_mut());
    response
}

/// Tells the client what could not be honoured.
pub(super) fn name_ignored(ignored: &[&'static str], headers: &mut HeaderMap) {
    if !ignored.is_empty()
        && let Ok(names) = HeaderValue::try_from(ignored.join(", "))
    {
        headers.insert(IGNORED, names);
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Tells the client what to call the request by, in the header its SDK reads.
pub(super) fn identify(dialect: Dialect, request_id: &str, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::try_from(request_id) {
        if dialect == Dialect::Messages {
            headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
        }
        headers.insert(REQUEST_ID, id);
    }
}

/// Rounded up: a client that waits this long waits long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}
