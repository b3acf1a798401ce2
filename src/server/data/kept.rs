//! Responses that are kept.

use super::local::answer;
use super::request::{self, Arrival, refuse};
use super::{background, openapi, reply};
use crate::dialect::{Context, Dialect, Problem, ProblemKind, responses};
use crate::kept::{AskedPage, Draft};
use crate::relay::{Call, Refused};
use crate::server::assemble::unix_millis;
use crate::server::state::State;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use axum::response::Response;
use axum::routing::{get, post};
use std::sync::Arc;

/// The routes of what is kept.
pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route(ONE, get(retrieve).delete(delete))
        .route(CANCEL, post(cancel))
        .route(INPUT_ITEMS, get(input_items))
        .route(INPUT_TOKENS, post(input_tokens))
}

const ONE: &str = "/v1/responses/{id}";
const CANCEL: &str = "/v1/responses/{id}/cancel";
const INPUT_TOKENS: &str = "/v1/responses/input_tokens";
const INPUT_ITEMS: &str = "/v1/responses/{id}/input_items";

/// What the relay goes by to find a conversation's account, where the client names none.
const SESSION: HeaderName = HeaderName::from_static("x-session-affinity");

/// `POST /v1/responses` of any client but the Codex CLI: what it builds on is fetched, and its
/// answer is kept if it is to be.
pub(super) async fn create(state: &Arc<State>, headers: HeaderMap, body: Body, mut arrival: Arrival) -> Response {
    let (call, background) = match admit(state, headers, body, &mut arrival).await {
        Ok(admitted) => admitted,
        Err(problem) => return arrival.refuse(Dialect::Responses, &problem),
    };
    if let Some(draft) = background {
        return background::start(state, call, draft, arrival.ticket).await;
    }
    let request_id = arrival.ticket.request_id.clone();
    let ignored = call.prepared.ignored.clone();
    match state.relay.serve(call, arrival.ticket).await {
        Ok(answer) => reply::success(Dialect::Responses, &request_id, &ignored, answer),
        Err(refused) => {
            let Refused(problem, ticket) = *refused;
            refuse(Dialect::Responses, &problem, ticket)
        }
    }
}

/// The call, and its draft if it is to run in the background.
async fn admit(
    state: &Arc<State>,
    mut headers: HeaderMap,
    body: Body,
    arrival: &mut Arrival,
) -> Result<(Call, Option<Draft>), Problem> {
    let key = arrival.authenticate(state, &headers).await?;
    let body = arrival.read(state, body).await?;
    let context = Context { request_id: arrival.ticket.request_id.clone(), now: unix_millis() / 1000 };
    let expanded = state.kept.expand(key.id, &body).await?;
    // A client's own name for its conversation comes before ours.
    if let Some(session) = expanded.session.as_deref().and_then(|name| HeaderValue::try_from(name).ok()) {
        headers.entry(SESSION).or_insert(session);
    }
    let models = state.models.serving(state.relay.served(&key));
    let (prepared, background) = state.kept.prepare(expanded, &context, &models)?;
    Ok((Call { dialect: Dialect::Responses, codex_cli: false, headers, key, prepared }, background))
}

/// A kept response
///
/// One that runs in the background as it is now; with `stream=true` the events of one that was made so.
#[utoipa::path(
    get, path = "/v1/responses/{id}", tag = "OpenAI Responses",
    params(
        ("id" = String, Path),
        ("stream" = Option<bool>, Query, description = "Its events, if it was made with `background` and `stream`"),
        ("starting_after" = Option<u64>, Query, description = "The number of the event after which to begin"),
    ),
    responses(
        (status = 200, description = "As its client saw it last", content(
            (openapi::ResponseObject = "application/json"), (openapi::ServerSentEvent = "text/event-stream"),
        )),
        openapi::OpenAiErrors,
    )
)]
pub(super) async fn retrieve(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match background::Resumed::of(query.as_deref()) {
        Ok(None) => {
            answer(&state, Dialect::Responses, ONE, &headers, async |key| state.kept.response(key, &id).await).await
        }
        resumed => background::follow(&state, ONE, &headers, &id, resumed).await,
    }
}

/// Cancels a response that runs in the background
#[utoipa::path(
    post, path = "/v1/responses/{id}/cancel", tag = "OpenAI Responses", params(("id" = String, Path)),
    responses((status = 200, description = "As it ended", body = openapi::ResponseObject), openapi::OpenAiErrors)
)]
pub(super) async fn cancel(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, Dialect::Responses, CANCEL, &headers, async |key| state.kept.cancel(key, &id).await).await
}

/// Deletes a kept response
#[utoipa::path(
    delete, path = "/v1/responses/{id}", tag = "OpenAI Responses", params(("id" = String, Path)),
    responses((status = 200, description = "It is gone", body = openapi::Deleted), openapi::OpenAiErrors)
)]
pub(super) async fn delete(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, Dialect::Responses, ONE, &headers, async |key| state.kept.delete(key, &id).await).await
}

/// The items of a kept response's request
#[utoipa::path(
    get, path = "/v1/responses/{id}/input_items", tag = "OpenAI Responses",
    params(
        ("id" = String, Path),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100),
        ("order" = Option<String>, Query, description = "`asc` or `desc`"),
        ("after" = Option<String>, Query, description = "The item that the page follows"),
        ("before" = Option<String>, Query, description = "The item that the page ends at"),
    ),
    responses((status = 200, description = "A page of them", body = openapi::ItemList), openapi::OpenAiErrors)
)]
pub(super) async fn input_items(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let page = asked(query.as_deref());
    answer(&state, Dialect::Responses, INPUT_ITEMS, &headers, async |key| state.kept.input_items(key, &id, &page).await)
        .await
}

/// The size of a request
///
/// Counted here, without the backend, with all that the request refers to.
#[utoipa::path(
    post, path = "/v1/responses/input_tokens", tag = "OpenAI Responses", request_body = openapi::CountRequest,
    responses((status = 200, description = "The count", body = openapi::InputTokens), openapi::OpenAiErrors)
)]
pub(super) async fn input_tokens(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    answer(&state, Dialect::Responses, INPUT_TOKENS, &head.headers, async |key| {
        let body = request::read(&state, body).await?;
        let expanded = state.kept.expand(key, &body).await?;
        // Counting a long conversation takes long enough to hold up other requests.
        let count = tokio::task::spawn_blocking(move || responses::count::input_tokens(&expanded.body)).await;
        let count = count.unwrap_or_else(|_| Err(Problem::new(ProblemKind::Internal, "The count failed")))?;
        Ok(serde_json::json!({ "object": "response.input_tokens", "input_tokens": count }).to_string())
    })
    .await
}

/// The page that a query asks for.
pub(super) fn asked(query: Option<&str>) -> AskedPage {
    AskedPage::of(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()))
}
