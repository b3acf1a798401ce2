//! The endpoints that generate.

use super::request::{self, Arrival};
use super::{kept, local, openapi, reply, request::refuse};
use crate::dialect::{Context, Dialect, ModelMap, Prepared, Problem, ProblemKind, chat, messages, responses};
use crate::relay::{Call, Refused, is_codex_cli};
use crate::server::assemble::unix_millis;
use crate::server::state::State;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use bytes::Bytes;
use std::sync::Arc;
use tracing::Instrument;

const RESPONSES: &str = "/v1/responses";
const CODEX: &str = "/backend-api/codex/responses";
const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// `POST /v1/responses`.
#[utoipa::path(
    post, path = "/v1/responses", tag = "OpenAI Responses", request_body = openapi::ResponsesRequest,
    responses(
        (status = 200, description = "The answer; events if `stream` is true", content(
            (openapi::ResponseObject = "application/json"), (openapi::ServerSentEvent = "text/event-stream"),
        )),
        openapi::OpenAiErrors,
    )
)]
pub(super) async fn responses(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    handle(&state, Dialect::Responses, RESPONSES, request).await
}

/// `POST /backend-api/codex/responses`: the Codex CLI's own path; others may call it too.
#[utoipa::path(
    post, path = "/backend-api/codex/responses", tag = "Codex CLI", request_body = openapi::ResponsesRequest,
    responses(
        (status = 200, description = "The answer; events if `stream` is true", content(
            (openapi::ResponseObject = "application/json"), (openapi::ServerSentEvent = "text/event-stream"),
        )),
        openapi::OpenAiErrors,
    )
)]
pub(super) async fn codex_responses(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    handle(&state, Dialect::Responses, CODEX, request).await
}

/// `POST /v1/chat/completions`.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI Chat Completions", request_body = openapi::ChatRequest,
    responses(
        (status = 200, description = "The answer; events if `stream` is true", content(
            (openapi::ChatCompletion = "application/json"), (openapi::ServerSentEvent = "text/event-stream"),
        )),
        openapi::OpenAiErrors,
    )
)]
pub(super) async fn chat(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    handle(&state, Dialect::Chat, CHAT, request).await
}

/// `POST /v1/messages`.
#[utoipa::path(
    post, path = "/v1/messages", tag = "Anthropic Messages", request_body = openapi::MessagesRequest,
    responses(
        (status = 200, description = "The answer; events if `stream` is true", content(
            (openapi::MessageObject = "application/json"), (openapi::ServerSentEvent = "text/event-stream"),
        )),
        openapi::AnthropicErrors,
    )
)]
pub(super) async fn messages(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    handle(&state, Dialect::Messages, MESSAGES, request).await
}

/// `POST /v1/messages/count_tokens`: answered here, without the backend.
#[utoipa::path(
    post, path = "/v1/messages/count_tokens", tag = "Anthropic Messages", request_body = openapi::MessagesRequest,
    responses((status = 200, description = "The count", body = openapi::TokenCount), openapi::AnthropicErrors)
)]
pub(super) async fn count_tokens(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    local::answer(&state, Dialect::Messages, "/v1/messages/count_tokens", &head.headers, async |_| {
        let body = request::read(&state, body).await?;
        // Counting a long conversation takes long enough to hold up other requests.
        let count = tokio::task::spawn_blocking(move || messages::count::count_tokens(&body)).await;
        let count = count.unwrap_or_else(|_| Err(Problem::new(ProblemKind::Internal, "The count failed")))?;
        Ok(serde_json::json!({ "input_tokens": count }).to_string())
    })
    .await
}

/// What is generated at an address, and its route.
pub(super) fn generates(path: &str) -> Option<(Dialect, &'static str)> {
    match path {
        RESPONSES => Some((Dialect::Responses, RESPONSES)),
        CODEX => Some((Dialect::Responses, CODEX)),
        CHAT => Some((Dialect::Chat, CHAT)),
        MESSAGES => Some((Dialect::Messages, MESSAGES)),
        _ => None,
    }
}

/// Serves a request.
pub(super) async fn handle(
    state: &Arc<State>,
    dialect: Dialect,
    route: &'static str,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    let codex_cli = dialect == Dialect::Responses && is_codex_cli(&head.headers);
    let mut arrival = Arrival::new(state, route, &head.headers);
    arrival.ticket.dialect = dialect.as_str();
    let span = arrival.ticket.span.clone();
    if dialect == Dialect::Responses && !codex_cli {
        return kept::create(state, head.headers, body, arrival).instrument(span).await;
    }
    let work = async {
        let call = match admit(state, dialect, codex_cli, head.headers, body, &mut arrival).await {
            Ok(call) => call,
            Err(problem) => return arrival.refuse(dialect, &problem),
        };
        let request_id = arrival.ticket.request_id.clone();
        let ignored = call.prepared.ignored.clone();
        match state.relay.serve(call, arrival.ticket).await {
            Ok(answer) => reply::success(dialect, &request_id, &ignored, answer),
            Err(refused) => {
                let Refused(problem, ticket) = *refused;
                refuse(dialect, &problem, ticket)
            }
        }
    };
    work.instrument(span).await
}

/// Authenticates, reads and translates.
async fn admit(
    state: &State,
    dialect: Dialect,
    codex_cli: bool,
    headers: HeaderMap,
    body: Body,
    arrival: &mut Arrival,
) -> Result<Call, Problem> {
    let key = arrival.authenticate(state, &headers).await?;
    let body = arrival.read(state, body).await?;
    let context = Context { request_id: arrival.ticket.request_id.clone(), now: unix_millis() / 1000 };
    let models = state.models.serving(state.relay.served(&key));
    let prepared = prepare(&models, dialect, codex_cli, &body, &context)?;
    Ok(Call { dialect, codex_cli, headers, key, prepared })
}

fn prepare(
    models: &ModelMap,
    dialect: Dialect,
    codex_cli: bool,
    body: &Bytes,
    context: &Context,
) -> Result<Prepared, Problem> {
    match dialect {
        Dialect::Responses => responses::request::prepare(body, context, models, codex_cli),
        Dialect::Chat => chat::request::prepare(body, context, models),
        Dialect::Messages => messages::request::prepare(body, context, models),
    }
}
