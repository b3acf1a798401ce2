//! Operations: liveness, readiness and metrics, on a listener of their own.

use super::database::Ailments;
use super::state::State;
use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
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
/// ledger is written. Degraded is ready too: a database server is away, and requests are served all
/// the same for a while; a load balancer that took every replica out would end them at once.
async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    let Ailments { faults, degraded } = state.ailments().await;
    let (status, word) = match (faults.is_empty(), degraded.is_empty()) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let body = serde_json::json!({
        "status": word,
        "faults": faults,
        "degraded": degraded,
        "accounts": state.accounts_by_state(),
    });
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn metrics(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    state.refresh_gauges();
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (kind, page) = if accepts.into_iter().any(|kinds| kinds.contains("application/openmetrics-text")) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", state.telemetry.render_openmetrics())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", state.telemetry.render())
    };
    ([(header::CONTENT_TYPE, kind)], page).into_response()
}
