//! The bodies of what is kept: pages of items, conversations, and what is said of the deleted.

#![expect(dead_code, reason = "described, not built: the dialects write these themselves")]
#![expect(clippy::struct_field_names, reason = "the names are OpenAI's")]

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A page of items.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct ItemList {
    object: ItemListTag,
    data: Vec<Map<String, Value>>,
    first_id: String,
    last_id: String,
    has_more: bool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum ItemListTag {
    List,
}

/// A conversation without its items.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct Conversation {
    id: String,
    object: ConversationTag,
    created_at: i64,
    metadata: Map<String, Value>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum ConversationTag {
    Conversation,
}

/// What was deleted.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct Deleted {
    id: String,
    object: String,
    deleted: bool,
}

/// A body of `POST /v1/conversations`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "metadata": { "topic": "demo" }, "items": [{ "role": "user", "content": "Hello" }] }))]
pub(in crate::server::data) struct NewConversation {
    metadata: Option<Map<String, Value>>,
    items: Option<Vec<Map<String, Value>>>,
}

/// A body of `POST /v1/conversations/{id}/items`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "items": [{ "role": "user", "content": "Hello" }] }))]
pub(in crate::server::data) struct NewItems {
    items: Vec<Map<String, Value>>,
}

/// A body of `POST /v1/responses/input_tokens`: a request, of which only the size is asked.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "model": "gpt-6.1-sol", "input": "Hello" }))]
pub(in crate::server::data) struct CountRequest {
    model: Option<String>,
    input: Option<Value>,
    instructions: Option<String>,
    tools: Option<Vec<Map<String, Value>>>,
    previous_response_id: Option<String>,
}

/// The size of a request.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct InputTokens {
    object: InputTokensTag,
    input_tokens: u64,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) enum InputTokensTag {
    #[serde(rename = "response.input_tokens")]
    InputTokens,
}
