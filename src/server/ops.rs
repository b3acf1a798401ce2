//! Operations: liveness, readiness and metrics, on a listener of their own.

use super::state::State;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// The routes of the operations listener.
pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

/// Ready: requests are taken, the database answers, no refreshed token waits to be stored, and the
/// ledger is written.
async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let faults = state.faults().await;
    let status = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "status": if faults.is_empty() { "ready" } else { "not ready" },
        "faults": faults,
        "accounts": state.accounts_by_state(),
    });
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    state.refresh_gauges();
    let page = state.telemetry.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}
