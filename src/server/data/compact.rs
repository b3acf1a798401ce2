//! Compaction as one call (`/responses/compact`), which older Codex CLIs and the SDKs make. Newer CLIs
//! compact inside a stream, which passes like any other.

use super::backend::passed_on;
use super::request::{Arrival, refuse};
use super::{openapi, reply};
use crate::dialect::{Context, Dialect, responses};
use crate::relay::{Call, Outcome, Passing, Refused, Ticket, is_absent, is_codex_cli};
use crate::server::assemble::unix_millis;
use crate::server::state::State;
use crate::store::GatewayKey;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use bytes::Bytes;
use std::sync::Arc;
use tracing::Instrument;

const DIALECT: Dialect = Dialect::Responses;

/// Compact a conversation
///
/// `POST /v1/responses/compact` and `POST /backend-api/codex/responses/compact`. A Codex CLI's goes to
/// the backend as it is; where the backend has no such call, and for everybody else, it is made of a
/// response with a compaction in its stream.
#[utoipa::path(
    post, path = "/v1/responses/compact", tag = "OpenAI Responses", request_body = openapi::ResponsesRequest,
    responses((status = 200, description = "The conversation, compacted", body = serde_json::Value), openapi::OpenAiErrors)
)]
pub(super) async fn compact(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let mut arrival = Arrival::new(&state, "/v1/responses/compact", &head.headers);
    arrival.ticket.dialect = DIALECT.as_str();
    let span = arrival.ticket.span.clone();
    let work = async {
        let admitted = async {
            let key = arrival.authenticate(&state, &head.headers).await?;
            Ok((key, arrival.read(&state, body).await?))
        };
        match admitted.await {
            Ok((key, body)) => serve(&state, key, head.headers, body, arrival.ticket).await,
            Err(problem) => arrival.refuse(DIALECT, &problem),
        }
    };
    work.instrument(span).await
}

async fn serve(state: &State, key: Arc<GatewayKey>, headers: HeaderMap, body: Bytes, mut ticket: Ticket) -> Response {
    let models = state.models.serving(state.relay.served(&key));
    let codex_cli = is_codex_cli(&headers);
    if codex_cli {
        let prepared = match responses::request::prepare(&body, &context(&ticket), &models, true) {
            Ok(prepared) => prepared,
            Err(problem) => return refuse(DIALECT, &problem, ticket),
        };
        ticket.model = Some(prepared.model);
        let path = "codex/responses/compact";
        let passing = Passing { path, headers: headers.clone(), body: prepared.body, key: key.clone() };
        match state.relay.forward(&passing, &mut ticket).await {
            Ok(passed) => {
                ticket.begin(passed.status.as_u16());
                ticket.end(Outcome::Ok);
                return passed_on(passed, &ticket);
            }
            Err((problem, status)) if !is_absent(&problem, status) => return refuse(DIALECT, &problem, ticket),
            Err(_) => ticket.attempts = 0,
        }
    }
    let prepared = match responses::compact::prepare(&body, &context(&ticket), &models) {
        Ok(prepared) => prepared,
        Err(problem) => return refuse(DIALECT, &problem, ticket),
    };
    let (request_id, ignored) = (ticket.request_id.clone(), prepared.ignored.clone());
    match state.relay.serve(Call { dialect: DIALECT, codex_cli, headers, key, prepared }, ticket).await {
        Ok(answer) => reply::success(DIALECT, &request_id, &ignored, answer),
        Err(refused) => {
            let Refused(problem, ticket) = *refused;
            refuse(DIALECT, &problem, ticket)
        }
    }
}

fn context(ticket: &Ticket) -> Context {
    Context { request_id: ticket.request_id.clone(), now: unix_millis() / 1000 }
}
