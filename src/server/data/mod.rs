//! The API that clients call. Handlers are thin: who calls, what they sent, hand over to the relay,
//! put the answer on the wire.

mod backend;
mod compact;
mod images;
mod linger;
mod models;
mod openapi;
mod reply;
mod request;
mod serve;
mod socket;
mod status;

use super::state::State;
use crate::dialect::{Dialect, Problem, ProblemKind};
use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::{any, get, post};
use request::Arrival;
use std::any::Any;
use std::sync::Arc;
use tower::util::MapRequestLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;

/// The routes of the API listener.
pub(super) fn router(state: Arc<State>) -> Router {
    let most = state.max_body;
    Router::new()
        .route("/v1/responses", post(serve::responses).get(socket::upgrade))
        .route("/backend-api/codex/responses", post(serve::codex_responses).get(socket::upgrade_codex))
        .route("/v1/chat/completions", post(serve::chat))
        .route("/v1/messages", post(serve::messages))
        .route("/v1/messages/count_tokens", post(serve::count_tokens))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/backend-api/codex/models", get(models::codex))
        .merge(codex_paths())
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(images::edits))
        .route("/v1/status", get(status::status))
        .route("/v1/auth/refresh", post(status::refresh))
        // Claude Code asks whether anybody is there before it sends a key.
        .route("/", get(root))
        .route("/api/hello", get(hello))
        .route("/openapi.json", get(openapi::document))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(RequestDecompressionLayer::new().gzip(true).zstd(true).pass_through_unaccepted(true))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(MapRequestLayer::new(move |request| linger::read_to_the_end(request, most)))
        .with_state(state)
}

/// What a Codex CLI calls besides its model (protocol.md 6).
fn codex_paths() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/responses/compact", post(compact::compact))
        .route("/backend-api/codex/responses/compact", post(compact::compact))
        .route("/backend-api/wham/accounts/check", get(backend::accounts_check))
        .route("/backend-api/wham/usage", get(backend::usage))
        .route("/backend-api/codex/usage", get(backend::usage))
        .route("/api/codex/usage", get(backend::usage))
        .route("/backend-api/codex/images/generations", post(backend::image_generations))
        .route("/backend-api/codex/images/edits", post(backend::image_edits))
        .route("/backend-api/codex/alpha/search", post(backend::search))
        .route("/v1/alpha/search", post(backend::search))
        .route("/backend-api/codex/memories/trace_summarize", post(backend::summarize))
        .route("/backend-api/codex/analytics-events/events", post(backend::analytics))
        .route("/backend-api/{*path}", any(backend::refused))
}

/// Whether anybody is there
#[utoipa::path(get, path = "/", tag = "Gateway", security(()), responses((status = 200, description = "Yes")))]
async fn root() -> StatusCode {
    StatusCode::OK
}

/// Whether anybody is there
#[utoipa::path(get, path = "/api/hello", tag = "Gateway", security(()), responses((status = 200, description = "Yes")))]
async fn hello() -> StatusCode {
    StatusCode::OK
}

async fn not_found(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let dialect = request::dialect_of(request.uri().path(), request.headers());
    let message = format!("There is no {} {} here", request.method(), request.uri().path());
    Arrival::new(&state, "other", request.headers()).refuse(dialect, &Problem::new(ProblemKind::NotFound, message))
}

async fn method_not_allowed(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let dialect = request::dialect_of(request.uri().path(), request.headers());
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    let problem = Problem::new(ProblemKind::MethodNotAllowed, message);
    Arrival::new(&state, "other", request.headers()).refuse(dialect, &problem)
}

/// A panic is a bug; its message may hold anything, so it goes nowhere but the panic hook's log.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let problem = Problem::new(ProblemKind::Internal, "The gateway failed to handle this request");
    reply::refusal(Dialect::Responses, &problem, "")
}
