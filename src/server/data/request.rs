//! From a request on the wire to what the relay takes: its ticket, its key, its body.

use super::reply;
use crate::dialect::{Dialect, Problem, ProblemKind};
use crate::relay::{Outcome, Ticket};
use crate::server::assemble::unix_millis;
use crate::server::origin;
use crate::server::state::State;
use crate::store::GatewayKey;
use crate::telemetry::traces;
use crate::tenant::KeyRefusal;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A request that has just arrived.
pub(super) struct Arrival {
    /// Everything that will be known of it.
    pub ticket: Ticket,
}

impl Arrival {
    /// Gives the request its id and its span, under the client's trace if it sent one.
    pub(super) fn new(state: &State, route: &'static str, headers: &HeaderMap) -> Self {
        let request_id = new_id();
        let span = traces::server_span(route, &request_id, headers);
        Self { ticket: Ticket::new(request_id, route, span, state.running.token()) }
    }

    /// Refuses the request in its dialect.
    pub(super) fn refuse(self, dialect: Dialect, problem: &Problem) -> Response {
        refuse(dialect, problem, self.ticket)
    }

    /// Who calls.
    pub(super) async fn authenticate(
        &mut self,
        state: &State,
        headers: &HeaderMap,
    ) -> Result<Arc<GatewayKey>, Problem> {
        if state.is_closing() {
            return Err(Problem {
                retry_after: Some(Duration::from_secs(1)),
                ..Problem::new(ProblemKind::ShuttingDown, "The gateway is shutting down")
            });
        }
        state.intake()?;
        let key = match presented(headers) {
            None if state.open => state.keys.anonymous(),
            None => return Err(refused(KeyRefusal::Missing)),
            Some(presented) => {
                let from = origin::of(headers);
                state.keys.authenticate(&presented, from, unix_millis()).await.map_err(refused)?
            }
        };
        self.ticket.belongs_to(&key);
        Ok(key)
    }
}

impl Arrival {
    /// The whole body; see [`read`].
    pub(super) async fn read(&mut self, state: &State, body: Body) -> Result<Bytes, Problem> {
        let body = read(state, body).await?;
        self.ticket.read();
        Ok(body)
    }

    /// Whether the key in these headers is still taken, for a connection that outlives its requests.
    pub(super) async fn is_welcome(state: &State, headers: &HeaderMap) -> bool {
        match presented(headers) {
            None => state.open,
            Some(presented) => state.keys.authenticate(&presented, origin::of(headers), unix_millis()).await.is_ok(),
        }
    }
}

/// What a request is called by.
pub(super) fn new_id() -> String {
    format!("req_{}", Uuid::now_v7().simple())
}

/// Ends a request with an error in its dialect.
pub(super) fn refuse(dialect: Dialect, problem: &Problem, mut ticket: Ticket) -> Response {
    let response = reply::refusal(dialect, problem, &ticket.request_id);
    ticket.begin(response.status().as_u16());
    ticket.fail(Outcome::Refused, problem);
    response
}

/// The credential in `Authorization: Bearer` or `x-api-key`. When both are there and differ, the
/// one that looks like a key of ours counts: some clients send a stale second one (clients.md 1.1).
fn presented(headers: &HeaderMap) -> Option<String> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let api_key = headers.get("x-api-key").and_then(|v| v.to_str().ok()).map(str::trim);
    let candidates = [bearer, api_key];
    let mut present = candidates.iter().flatten().filter(|c| !c.is_empty());
    present.clone().find(|c| c.starts_with("tw-")).or_else(|| present.next()).map(|c| (*c).to_owned())
}

fn refused(refusal: KeyRefusal) -> Problem {
    match refusal {
        // The key is right: another one would not help, and nobody is to be asked for one.
        KeyRefusal::Shut(_) => Problem::new(ProblemKind::PermissionDenied, refusal.to_string()),
        KeyRefusal::Unavailable => Problem::unavailable(refusal.to_string()),
        _ => Problem::new(ProblemKind::InvalidKey, refusal.to_string()),
    }
}

/// The whole body, decompressed, within the limit.
pub(super) async fn read(state: &State, body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, state.max_body).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::new(
            ProblemKind::TooLarge,
            format!("The request body is larger than {} bytes", state.max_body),
        )),
        Err(_) => Err(Problem::new(ProblemKind::InvalidRequest, "The request body could not be read")),
    }
}

/// The dialect that a client expects an error in, for paths that have none.
pub(super) fn dialect_of(path: &str, headers: &HeaderMap) -> Dialect {
    let says_anthropic = ["anthropic-version", "anthropic-beta", "x-api-key"].iter().any(|h| headers.contains_key(*h));
    let begins = |with: &str| path.starts_with(with);
    if begins("/v1/messages") {
        Dialect::Messages
    } else if begins("/v1/chat/") {
        Dialect::Chat
    } else if !begins("/v1/responses") && !begins("/backend-api/") && says_anthropic {
        Dialect::Messages
    } else {
        Dialect::Responses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), http::HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn a_key_is_found_in_either_header_and_ours_wins() {
        let of = |pairs| presented(&headers(pairs));
        assert_eq!(of(&[("authorization", "Bearer tw-1")]).as_deref(), Some("tw-1"));
        assert_eq!(of(&[("authorization", "bearer tw-1")]).as_deref(), Some("tw-1"));
        assert_eq!(of(&[("x-api-key", "tw-2")]).as_deref(), Some("tw-2"));
        assert_eq!(of(&[("authorization", "Bearer sk-old"), ("x-api-key", "tw-2")]).as_deref(), Some("tw-2"));
        assert_eq!(of(&[("authorization", "Basic dTpw")]), None);
        assert_eq!(of(&[("authorization", "Bearer ")]), None);
    }

    #[test]
    fn errors_on_unknown_paths_suit_the_caller() {
        assert_eq!(dialect_of("/v1/messages/batches", &HeaderMap::new()), Dialect::Messages);
        assert_eq!(dialect_of("/v1/files", &headers(&[("anthropic-version", "2023-06-01")])), Dialect::Messages);
        assert_eq!(dialect_of("/v1/files", &headers(&[("x-api-key", "tw-1")])), Dialect::Messages);
        assert_eq!(dialect_of("/v1/responses", &headers(&[("x-api-key", "tw-1")])), Dialect::Responses);
        assert_eq!(dialect_of("/v1/chat/completions/c_1", &HeaderMap::new()), Dialect::Chat);
        assert_eq!(dialect_of("/v1/threads/t_1/messages", &HeaderMap::new()), Dialect::Responses);
        assert_eq!(dialect_of("/v1/embeddings", &HeaderMap::new()), Dialect::Responses);
    }
}
