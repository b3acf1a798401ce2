//! Conversations.

use super::kept::asked;
use super::local::answer;
use super::{openapi, request};
use crate::dialect::Dialect;
use crate::server::state::State;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use axum::routing::{get, post};
use std::sync::Arc;

/// The routes of conversations.
pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route(CONVERSATIONS, post(create))
        .route(CONVERSATION, get(one).post(update).delete(delete))
        .route(ITEMS, get(items).post(add))
        .route(ITEM, get(item).delete(delete_item))
}

const CONVERSATIONS: &str = "/v1/conversations";
const CONVERSATION: &str = "/v1/conversations/{id}";
const ITEMS: &str = "/v1/conversations/{id}/items";
const ITEM: &str = "/v1/conversations/{id}/items/{item}";

/// Makes a conversation
#[utoipa::path(
    post, path = "/v1/conversations", tag = "OpenAI Conversations", request_body = openapi::NewConversation,
    responses((status = 200, description = "The conversation", body = openapi::Conversation), openapi::OpenAiErrors)
)]
pub(super) async fn create(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    answer(&state, Dialect::Responses, CONVERSATIONS, &head.headers, async |key| {
        let body = request::read(&state, body).await?;
        state.kept.create_conversation(key, &body).await
    })
    .await
}

/// A conversation
#[utoipa::path(
    get, path = "/v1/conversations/{id}", tag = "OpenAI Conversations", params(("id" = String, Path)),
    responses((status = 200, description = "The conversation", body = openapi::Conversation), openapi::OpenAiErrors)
)]
pub(super) async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, Dialect::Responses, CONVERSATION, &headers, async |key| state.kept.conversation(key, &id).await)
        .await
}

/// Gives a conversation new metadata
#[utoipa::path(
    post, path = "/v1/conversations/{id}", tag = "OpenAI Conversations", params(("id" = String, Path)), request_body = openapi::NewConversation,
    responses((status = 200, description = "The conversation", body = openapi::Conversation), openapi::OpenAiErrors)
)]
pub(super) async fn update(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let (head, body) = request.into_parts();
    answer(&state, Dialect::Responses, CONVERSATION, &head.headers, async |key| {
        let body = request::read(&state, body).await?;
        state.kept.update_conversation(key, &id, &body).await
    })
    .await
}

/// Deletes a conversation with its items
#[utoipa::path(
    delete, path = "/v1/conversations/{id}", tag = "OpenAI Conversations", params(("id" = String, Path)),
    responses((status = 200, description = "It is gone", body = openapi::Deleted), openapi::OpenAiErrors)
)]
pub(super) async fn delete(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, Dialect::Responses, CONVERSATION, &headers, async |key| {
        state.kept.delete_conversation(key, &id).await
    })
    .await
}

/// The items of a conversation
#[utoipa::path(
    get, path = "/v1/conversations/{id}/items", tag = "OpenAI Conversations", params(("id" = String, Path), ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("order" = Option<String>, Query), ("after" = Option<String>, Query), ("before" = Option<String>, Query)),
    responses((status = 200, description = "A page of them", body = openapi::ItemList), openapi::OpenAiErrors)
)]
pub(super) async fn items(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let page = asked(query.as_deref());
    answer(&state, Dialect::Responses, ITEMS, &headers, async |key| state.kept.list_conversation(key, &id, &page).await)
        .await
}

/// Adds items to a conversation
#[utoipa::path(
    post, path = "/v1/conversations/{id}/items", tag = "OpenAI Conversations", params(("id" = String, Path)), request_body = openapi::NewItems,
    responses((status = 200, description = "The items that were added", body = openapi::ItemList), openapi::OpenAiErrors)
)]
pub(super) async fn add(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    answer(&state, Dialect::Responses, ITEMS, &head.headers, async |key| {
        let body = request::read(&state, body).await?;
        state.kept.extend_conversation(key, &id, &body).await
    })
    .await
}

/// An item of a conversation
#[utoipa::path(
    get, path = "/v1/conversations/{id}/items/{item}", tag = "OpenAI Conversations", params(("id" = String, Path), ("item" = String, Path)),
    responses((status = 200, description = "The item", body = serde_json::Value), openapi::OpenAiErrors)
)]
pub(super) async fn item(
    Shared(state): Shared<Arc<State>>,
    Path((id, item)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    answer(&state, Dialect::Responses, ITEM, &headers, async |key| state.kept.conversation_item(key, &id, &item).await)
        .await
}

/// Takes an item out of a conversation
#[utoipa::path(
    delete, path = "/v1/conversations/{id}/items/{item}", tag = "OpenAI Conversations", params(("id" = String, Path), ("item" = String, Path)),
    responses((status = 200, description = "The conversation", body = openapi::Conversation), openapi::OpenAiErrors)
)]
pub(super) async fn delete_item(
    Shared(state): Shared<Arc<State>>,
    Path((id, item)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    answer(&state, Dialect::Responses, ITEM, &headers, async |key| {
        state.kept.delete_conversation_item(key, &id, &item).await
    })
    .await
}
