//! The API that clients call. Handlers are thin: who calls, what they sent, hand over to the relay,
//! put the answer on the wire.

mod address;
mod backend;
mod background;
mod batches;
mod compact;
mod conversations;
mod front;
mod images;
mod kept;
mod linger;
mod local;
mod me;
mod models;
mod openapi;
mod reply;
mod request;
mod serve;
mod socket;
mod status;
mod surface;

use super::state::State;
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get, post};
use front::Front;
use std::sync::Arc;
use tower::util::MapRequestLayer;

/// The API, for its listener.
pub(super) fn front(state: Arc<State>) -> Front {
    let routes = surface::for_pages(routes(state.clone()), &state.cors_origins);
    let is_open = state.cors_origins.is_empty();
    Front::new(routes, state, is_open)
}

fn routes(state: Arc<State>) -> Router {
    let most = state.max_body;
    Router::new()
        .route("/v1/responses", post(serve::responses).get(socket::upgrade))
        .route("/backend-api/codex/responses", post(serve::codex_responses).get(socket::upgrade_codex))
        .merge(kept::routes())
        .merge(batches::routes())
        .merge(conversations::routes())
        .route("/v1/chat/completions", post(serve::chat))
        .route("/v1/messages", post(serve::messages))
        .route("/v1/messages/count_tokens", post(serve::count_tokens))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/backend-api/codex/models", get(models::codex))
        .merge(codex_paths())
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(images::edits))
        .route("/v1/me", get(me::me))
        .route("/v1/status", get(status::status))
        .route("/v1/auth/refresh", post(status::refresh))
        // Claude Code asks whether anybody is there before it sends a key.
        .route("/", get(root))
        .route("/api/hello", get(hello))
        .route("/openapi.json", get(openapi::document))
        .fallback(surface::not_found)
        .method_not_allowed_fallback(surface::method_not_allowed)
        .layer(from_fn_with_state(state.clone(), surface::decode))
        .layer(from_fn(surface::catch_panics))
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
