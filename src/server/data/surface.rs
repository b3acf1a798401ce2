//! What stands around the routes: body encodings, other origins, and the answer where nothing is served.

use super::reply;
use super::request::{self, Arrival};
use crate::dialect::{Dialect, Problem, ProblemKind};
use crate::server::state::State;
use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};
use tower_http::decompression::{DecompressionBody, RequestDecompressionLayer};

/// The encodings of bodies that are undone.
const ENCODINGS: [&[u8]; 3] = [b"gzip", b"deflate", b"zstd"];

/// How long a browser may remember what it may send.
const PREFLIGHT_LIFE: Duration = Duration::from_hours(1);

/// What the backend has nothing for, by the beginning of its path. A route of ours that begins alike
/// comes first.
const NOT_SERVED: [(&str, &str); 26] = [
    ("/v1/embeddings", "the Codex backend makes no embeddings"),
    ("/v1/audio", "the Codex backend neither hears nor speaks"),
    ("/v1/realtime", "the Codex backend has no realtime sessions for API clients"),
    ("/v1/moderations", "the Codex backend rates no content"),
    ("/v1/videos", "the Codex backend makes no videos"),
    ("/v1/images", "the Codex backend only generates and edits images"),
    ("/v1/completions", "the Codex backend has no text completions; use /v1/chat/completions or /v1/responses"),
    ("/v1/complete", "the Codex backend has no text completions; use /v1/messages"),
    ("/v1/edits", "the Codex backend has no edits; use /v1/chat/completions or /v1/responses"),
    ("/v1/chat/completions", "no chat completions are kept here; use /v1/responses to keep answers"),
    ("/v1/files", "no files are kept here; send a file's content within the request"),
    ("/v1/uploads", "no files are kept here; send a file's content within the request"),
    ("/v1/batches", "no files are kept here, which OpenAI's batches are made of; Anthropic's need none"),
    ("/v1/vector_stores", "no files are kept here to search in"),
    ("/v1/fine_tuning", "the models of the Codex backend cannot be trained"),
    ("/v1/assistants", "the Codex backend has no assistants; use /v1/responses"),
    ("/v1/threads", "the Codex backend has no threads; use /v1/responses"),
    ("/v1/evals", "the Codex backend runs no evaluations"),
    ("/v1/containers", "the Codex backend has no containers for API clients"),
    ("/v1/skills", "no skills are kept here"),
    ("/v1/chatkit", "the Codex backend has no chat sessions for API clients"),
    ("/v1/agents", "the Codex backend runs no agents for API clients"),
    ("/v1/memory_stores", "no memories are kept here"),
    ("/v1/organization", "accounts and keys are managed with the `tollway` command"),
    ("/v1/organizations", "accounts and keys are managed with the `tollway` command"),
    ("/v1/messages", "the Messages API has no such resource here"),
];

/// The routes, for pages of these origins too.
pub(super) fn for_pages(routes: Router, origins: &[HeaderValue]) -> Router {
    if origins.is_empty() { routes } else { Router::new().fallback_service(routes).layer(cors(origins)) }
}

/// Pages of these origins may call with a key of their user's. No cookies are involved, so a page can
/// do nothing that its user did not give it the key for.
fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
        .max_age(PREFLIGHT_LIFE)
}

/// Undoes the encoding of a body; refuses one that nobody here can read. Most bodies have none, and
/// nothing is put around those.
pub(super) async fn decode(Shared(state): Shared<Arc<State>>, request: Request<Body>, next: Next) -> Response {
    if !request.headers().contains_key(CONTENT_ENCODING) {
        return next.run(request).await;
    }
    let unknown = |encoding: &&HeaderValue| !ENCODINGS.contains(&encoding.as_bytes());
    if let Some(encoding) = request.headers().get_all(CONTENT_ENCODING).iter().find(unknown) {
        let message = format!(
            "The content-encoding '{}' is not understood here; send gzip, deflate, zstd or none",
            encoding.to_str().unwrap_or("?")
        );
        let dialect = request::dialect_of(request.uri().path(), request.headers());
        let problem = Problem::new(ProblemKind::UnsupportedMediaType, message);
        return Arrival::new(&state, "other", request.headers()).refuse(dialect, &problem);
    }
    let inner = service_fn(move |request: Request<DecompressionBody<Body>>| {
        let next = next.clone();
        async move { Ok::<_, Infallible>(next.run(request.map(Body::new)).await) }
    });
    let layer = RequestDecompressionLayer::new().gzip(true).deflate(true).zstd(true).pass_through_unaccepted(true);
    match layer.layer(inner).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// There is nothing at this address.
pub(super) async fn not_found(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let problem = match not_served(path) {
        // 404 and not 501: what retries every 5xx would retry this.
        Some(why) => Problem::new(ProblemKind::Unsupported, format!("Tollway does not serve {method} {path}: {why}")),
        None => Problem::new(ProblemKind::NotFound, format!("There is no {method} {path} here")),
    };
    let dialect = request::dialect_of(path, request.headers());
    Arrival::new(&state, "other", request.headers()).refuse(dialect, &problem)
}

/// There is something, but not for this method. The router adds `Allow`.
pub(super) async fn method_not_allowed(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let dialect = request::dialect_of(request.uri().path(), request.headers());
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    let problem = Problem::new(ProblemKind::MethodNotAllowed, message);
    Arrival::new(&state, "other", request.headers()).refuse(dialect, &problem)
}

/// Answers for a handler that panics, in the caller's dialect.
pub(super) async fn catch_panics(request: Request<Body>, next: Next) -> Response {
    let dialect = request::dialect_of(request.uri().path(), request.headers());
    or_panic(dialect, next.run(request)).await
}

/// A handler's answer, or ours if it panics. A panic is a bug; its message may hold anything, so it goes
/// nowhere but the panic hook's log.
pub(super) fn or_panic(dialect: Dialect, answer: impl Future<Output = Response>) -> impl Future<Output = Response> {
    // No `async`, which would keep a second place for the future that it is given, and that is a large one.
    // Nothing of the request is looked at again; what handlers share holds no lock across a panic.
    AssertUnwindSafe(answer).catch_unwind().map(move |answer| {
        answer.unwrap_or_else(|_| {
            let problem = Problem::new(ProblemKind::Internal, "The gateway failed to handle this request");
            reply::refusal(dialect, &problem, &request::new_id())
        })
    })
}

/// Why an address is not served that other servers of these APIs have.
fn not_served(path: &str) -> Option<&'static str> {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    NOT_SERVED.iter().find(|(prefix, _)| below(prefix)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use http_body_util::BodyExt as _;

    #[test]
    fn what_is_not_served_has_a_reason_and_what_nobody_has_none() {
        for path in ["/v1/embeddings", "/v1/audio/speech", "/v1/threads/t_1/messages", "/v1/chat/completions/c_1"] {
            assert!(not_served(path).is_some(), "{path}");
        }
        for path in ["/v1/embedding", "/v1/filesystem", "/v1", "/metrics"] {
            assert_eq!(not_served(path), None, "{path}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_told_in_the_callers_dialect() {
        async fn broken() {
            panic!("a secret");
        }
        let routes = Router::new()
            .route("/v1/messages", post(broken))
            .route("/v1/responses", post(broken))
            .layer(from_fn(catch_panics));
        for (path, expected) in [("/v1/messages", "api_error"), ("/v1/responses", "server_error")] {
            let request = Request::post(path).body(Body::empty()).expect("a request");
            let response = routes.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body["error"]["type"], expected);
            assert!(!body.to_string().contains("a secret"));
        }
    }

    #[test]
    fn the_compatibility_page_names_all_that_is_not_served() {
        let page = include_str!("../../../docs/compatibility.md");
        for (path, _) in NOT_SERVED {
            assert!(page.contains(&format!("`{path}")), "docs/compatibility.md does not name {path}");
        }
    }
}
