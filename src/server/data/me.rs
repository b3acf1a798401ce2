//! What the holder of a key may know of it: its limits, what is used of them, and when they reset.

use super::local;
use super::openapi;
use crate::dialect::{Dialect, Problem, ProblemKind};
use crate::server::assemble::unix_millis;
use crate::server::standing;
use crate::server::state::State;
use crate::tenant;
use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::Response;
use std::sync::Arc;

/// This key: its limits, what is used of them, and when they reset
///
/// `GET /v1/me`. The numbers are those that requests are judged by at this moment.
#[utoipa::path(
    get, path = "/v1/me", tag = "Gateway",
    responses((status = 200, description = "The key", body = serde_json::Value), openapi::OpenAiErrors)
)]
pub(super) async fn me(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    local::answer(&state, Dialect::Responses, "/v1/me", &headers, async |id| {
        let gone = |error: tenant::KeyRefusal| Problem::new(ProblemKind::InvalidKey, error.to_string());
        let key = state.keys.holder(id, unix_millis()).map_err(gone)?;
        state.books.refresh(&key).await;
        Ok(standing::body(&key, &state.books.standings(&key), state.books.prices.currency()).to_string())
    })
    .await
}
