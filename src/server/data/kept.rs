//! Responses that are kept, and conversations.

use super::reply;
use super::request::{self, Arrival, refuse};
use crate::dialect::{Context, Dialect, Problem};
use crate::kept::AskedPage;
use crate::relay::{Call, Outcome, Refused};
use crate::server::assemble::unix_millis;
use crate::server::state::State;
use crate::store::KeyId;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use std::sync::Arc;
use tracing::Instrument;

/// The routes of what is kept.
pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route(ONE, get(retrieve).delete(delete))
        .route(INPUT_ITEMS, get(input_items))
        .route(CONVERSATIONS, axum::routing::post(create_conversation))
        .route(CONVERSATION, get(conversation).post(update_conversation).delete(delete_conversation))
        .route(ITEMS, get(list_items).post(add_items))
        .route(ITEM, get(one_item).delete(delete_item))
}

const ONE: &str = "/v1/responses/{id}";
const INPUT_ITEMS: &str = "/v1/responses/{id}/input_items";
const CONVERSATIONS: &str = "/v1/conversations";
const CONVERSATION: &str = "/v1/conversations/{id}";
const ITEMS: &str = "/v1/conversations/{id}/items";
const ITEM: &str = "/v1/conversations/{id}/items/{item}";

/// What the relay goes by to find a conversation's account, where the client names none.
const SESSION: HeaderName = HeaderName::from_static("x-session-affinity");

/// `POST /v1/responses` of any client but the Codex CLI: what it builds on is fetched, and its
/// answer is kept if it is to be.
pub(super) async fn create(state: &Arc<State>, headers: HeaderMap, body: Body, mut arrival: Arrival) -> Response {
    let call = match admit(state, headers, body, &mut arrival).await {
        Ok(call) => call,
        Err(problem) => return arrival.refuse(Dialect::Responses, &problem),
    };
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

async fn admit(state: &Arc<State>, mut headers: HeaderMap, body: Body, arrival: &mut Arrival) -> Result<Call, Problem> {
    let key = arrival.authenticate(state, &headers).await?;
    let body = request::read(state, body).await?;
    let context = Context { request_id: arrival.ticket.request_id.clone(), now: unix_millis() / 1000 };
    let expanded = state.kept.expand(key.id, &body).await?;
    // A client's own name for its conversation comes before ours.
    if let Some(session) = expanded.session.as_deref().and_then(|name| HeaderValue::try_from(name).ok()) {
        headers.entry(SESSION).or_insert(session);
    }
    let prepared = state.kept.prepare(expanded, &context, &state.models)?;
    Ok(Call { dialect: Dialect::Responses, codex_cli: false, headers, key, prepared })
}

async fn retrieve(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, ONE, &headers, async |key| state.kept.response(key, &id).await).await
}

async fn delete(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, ONE, &headers, async |key| state.kept.delete(key, &id).await).await
}

async fn input_items(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    Query(page): Query<AskedPage>,
    headers: HeaderMap,
) -> Response {
    answer(&state, INPUT_ITEMS, &headers, async |key| state.kept.input_items(key, &id, &page).await).await
}

async fn create_conversation(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = request::read(&state, body).await;
    answer(&state, CONVERSATIONS, &head.headers, async |key| {
        state.kept.create_conversation(key, body.as_ref().map_err(Clone::clone)?).await
    })
    .await
}

async fn conversation(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, CONVERSATION, &headers, async |key| state.kept.conversation(key, &id).await).await
}

async fn update_conversation(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    let body = request::read(&state, body).await;
    answer(&state, CONVERSATION, &head.headers, async |key| {
        state.kept.update_conversation(key, &id, body.as_ref().map_err(Clone::clone)?).await
    })
    .await
}

async fn delete_conversation(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    answer(&state, CONVERSATION, &headers, async |key| state.kept.delete_conversation(key, &id).await).await
}

async fn list_items(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    Query(page): Query<AskedPage>,
    headers: HeaderMap,
) -> Response {
    answer(&state, ITEMS, &headers, async |key| state.kept.list_conversation(key, &id, &page).await).await
}

async fn add_items(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = request::read(&state, body).await;
    answer(&state, ITEMS, &head.headers, async |key| {
        state.kept.extend_conversation(key, &id, body.as_ref().map_err(Clone::clone)?).await
    })
    .await
}

async fn one_item(
    Shared(state): Shared<Arc<State>>,
    Path((id, item)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    answer(&state, ITEM, &headers, async |key| state.kept.conversation_item(key, &id, &item).await).await
}

async fn delete_item(
    Shared(state): Shared<Arc<State>>,
    Path((id, item)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    answer(&state, ITEM, &headers, async |key| state.kept.delete_conversation_item(key, &id, &item).await).await
}

/// Asks who calls, and answers with JSON that is there or cannot be had.
async fn answer(
    state: &Arc<State>,
    route: &'static str,
    headers: &HeaderMap,
    work: impl AsyncFnOnce(KeyId) -> Result<String, Problem>,
) -> Response {
    let mut arrival = Arrival::new(state, route, headers);
    arrival.ticket.dialect = Dialect::Responses.as_str();
    let span = arrival.ticket.span.clone();
    let done = async {
        let key = arrival.authenticate(state, headers).await?;
        work(key.id).await
    };
    match done.instrument(span).await {
        Err(problem) => arrival.refuse(Dialect::Responses, &problem),
        Ok(body) => {
            let mut ticket = arrival.ticket;
            ticket.begin(200);
            ticket.end(Outcome::Ok);
            let mut response = reply::json(StatusCode::OK, Body::from(body));
            reply::identify(Dialect::Responses, &ticket.request_id, response.headers_mut());
            response
        }
    }
}
