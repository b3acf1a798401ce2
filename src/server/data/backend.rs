//! The paths of the ChatGPT backend that a Codex CLI calls besides its model (protocol.md 6): those
//! that ask about its account are answered for the key, with the pool in the account's place; those
//! that do work pass to an account; the rest belong to one person's account and are refused.

use super::reply;
use super::request::{Arrival, refuse};
use crate::codex::limits::Window;
use crate::dialect::{Dialect, Problem, ProblemKind};
use crate::relay::{Outcome, Passed, Passing, Pool, Refused, Ticket};
use crate::server::assemble::unix_millis;
use crate::server::state::State;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::Instrument;

const DIALECT: Dialect = Dialect::Responses;

/// `GET /backend-api/wham/accounts/check`: one workspace, which is the gateway. It answers to the
/// name that the client has for its own account, and constrains nothing: the client stays where it is.
pub(super) async fn accounts_check(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    let mut arrival = Arrival::new(&state, "/backend-api/wham/accounts/check", &headers);
    let key = match arrival.authenticate(&state, &headers).await {
        Ok(key) => key,
        Err(problem) => return arrival.refuse(DIALECT, &problem),
    };
    let own = headers.get("chatgpt-account-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let id = own.unwrap_or("tollway");
    let plan = Pool::of(&state.relay.standings(&key).await).plan;
    let body = json!({
        "accounts": [{
            "id": id, "name": "Tollway", "structure": "personal", "plan_type": plan.as_deref().unwrap_or("unknown"),
            "workspace_backend_origin": "NO_CONSTRAINT", "account_routing_override": "NO_CONSTRAINT",
            "is_deactivated": false, "can_access_with_session": true, "sso_connection_name": null,
            "is_fedramp_compliant_workspace": false, "profile_picture_url": null,
        }],
        "account_ordering": [id],
        "default_account_id": id,
    });
    answer(arrival.ticket, &body)
}

/// `GET /backend-api/wham/usage` and its other names: the pool as this key may use it.
pub(super) async fn usage(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    let mut arrival = Arrival::new(&state, "/backend-api/wham/usage", &headers);
    let key = match arrival.authenticate(&state, &headers).await {
        Ok(key) => key,
        Err(problem) => return arrival.refuse(DIALECT, &problem),
    };
    let pool = Pool::of(&state.relay.standings(&key).await);
    let body = usage_of(&pool, &key.id.to_string(), unix_millis() / 1000);
    answer(arrival.ticket, &body)
}

/// In the backend's shape, so that what reads an account's usage reads the pool's.
fn usage_of(pool: &Pool, key: &str, now: i64) -> Value {
    let window = |window: Option<Window>| {
        window.map(|window| {
            json!({
                "used_percent": window.used_percent,
                "limit_window_seconds": window.window_minutes.unwrap_or_default() * 60,
                "reset_after_seconds": window.resets_at.map_or(0, |at| (at - now).max(0)),
                "reset_at": window.resets_at.unwrap_or(now),
            })
        })
    };
    let exhausted = pool.is_exhausted();
    json!({
        "user_id": key, "account_id": key, "email": null,
        "plan_type": pool.plan.as_deref().unwrap_or("unknown"),
        "rate_limit": {
            "allowed": !exhausted, "limit_reached": exhausted,
            "primary_window": window(pool.primary), "secondary_window": window(pool.secondary),
        },
        "code_review_rate_limit": null, "additional_rate_limits": null,
        // Credits are an account's own, and the pool has none.
        "credits": null, "spend_control": {"reached": false, "individual_limit": null},
        "rate_limit_reached_type": exhausted.then(|| json!({"type": "rate_limit_reached", "details": null})),
        "rate_limit_upsell": null, "promo": null, "rate_limit_reset_credits": {"available_count": 0},
    })
}

/// `POST /backend-api/codex/analytics-events/events`: taken and dropped, for it tells of the client's
/// machine and would be booked on an account that is not the client's.
pub(super) async fn analytics() -> Response {
    reply::json(StatusCode::OK, Body::from("{}"))
}

/// Makes a handler that passes a call to an account of the key.
macro_rules! passing {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $(
            $(#[$doc])*
            pub(super) async fn $name(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
                pass(&state, concat!("/backend-api/", $path), $path, request).await
            }
        )*
    };
}

passing! {
    /// Pictures, by the CLI's own tool.
    image_generations = "codex/images/generations";
    /// The same from pictures.
    image_edits = "codex/images/edits";
    /// Searches, by the CLI's own tool.
    search = "codex/alpha/search";
    /// Older CLIs' memories.
    summarize = "codex/memories/trace_summarize";
}

async fn pass(state: &Arc<State>, route: &'static str, path: &'static str, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let mut arrival = Arrival::new(state, route, &head.headers);
    arrival.ticket.dialect = DIALECT.as_str();
    let span = arrival.ticket.span.clone();
    let work = async {
        let admitted = async {
            let key = arrival.authenticate(state, &head.headers).await?;
            let body = arrival.read(state, body).await?;
            Ok(Passing { path, headers: head.headers, body, key })
        };
        let passing = match admitted.await {
            Ok(passing) => passing,
            Err(problem) => return arrival.refuse(DIALECT, &problem),
        };
        match state.relay.forward_or_refuse(&passing, arrival.ticket).await {
            Ok((passed, ticket)) => passed_on(passed, &ticket),
            Err(refused) => {
                let Refused(problem, ticket) = *refused;
                refuse(DIALECT, &problem, ticket)
            }
        }
    };
    work.instrument(span).await
}

/// An answer of the backend, as it came.
pub(super) fn passed_on(passed: Passed, ticket: &Ticket) -> Response {
    let Passed { status, headers, body } = passed;
    let mut response = reply::json(status, Body::from(body));
    response.headers_mut().extend(headers);
    reply::identify(DIALECT, &ticket.request_id, response.headers_mut());
    response
}

/// Everything else below `/backend-api/`.
pub(super) async fn refused(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let message = format!(
        "{} {} is not served: it belongs to one ChatGPT account, and Tollway shares several",
        request.method(),
        request.uri().path()
    );
    let arrival = Arrival::new(&state, "/backend-api/{*path}", request.headers());
    arrival.refuse(DIALECT, &Problem::new(ProblemKind::NotFound, message))
}

/// A JSON answer of the gateway's own.
pub(super) fn answer(mut ticket: Ticket, body: &Value) -> Response {
    ticket.begin(200);
    ticket.end(Outcome::Ok);
    let mut response = reply::json(StatusCode::OK, Body::from(body.to_string()));
    reply::identify(DIALECT, &ticket.request_id, response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_tells_of_the_pool_and_of_nobody_in_it() {
        let primary = Some(Window { used_percent: 40.0, window_minutes: Some(300), resets_at: Some(1_060) });
        let pool = Pool { available: 1, total: 2, primary, plan: Some("plus".into()), ..Pool::default() };
        let usage = usage_of(&pool, "key-1", 1_000);
        assert_eq!(usage["rate_limit"]["allowed"], true);
        assert_eq!(
            usage["rate_limit"]["primary_window"],
            json!({"used_percent": 40.0, "limit_window_seconds": 18_000, "reset_after_seconds": 60, "reset_at": 1_060})
        );
        assert_eq!((&usage["account_id"], &usage["email"]), (&json!("key-1"), &Value::Null));
    }
}
