//! The bodies of message batches.

#![expect(dead_code, reason = "described, not built: the batch room writes these itself")]

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A body of `POST /v1/messages/batches`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "requests": [{ "custom_id": "first", "params": {
    "model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{ "role": "user", "content": "Hello" }]
} }] }))]
pub(in crate::server::data) struct NewBatch {
    requests: Vec<BatchRequest>,
}

/// One request of a batch.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct BatchRequest {
    /// Its name within the batch.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9_-]{1,64}$")]
    custom_id: String,
    /// A body of `POST /v1/messages`.
    params: Map<String, Value>,
}

/// A batch.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct MessageBatch {
    id: String,
    r#type: MessageBatchTag,
    processing_status: ProcessingStatus,
    request_counts: RequestCounts,
    created_at: String,
    expires_at: String,
    #[schema(required)]
    ended_at: Option<String>,
    #[schema(required)]
    cancel_initiated_at: Option<String>,
    #[schema(required)]
    archived_at: Option<String>,
    #[schema(required)]
    results_url: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::server::data) enum MessageBatchTag {
    MessageBatch,
}

/// Where a batch stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::server::data) enum ProcessingStatus {
    InProgress,
    Canceling,
    Ended,
}

/// How many of its requests are in which state.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct RequestCounts {
    processing: u64,
    succeeded: u64,
    errored: u64,
    canceled: u64,
    expired: u64,
}

/// A page of batches.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct BatchList {
    data: Vec<MessageBatch>,
    has_more: bool,
    #[schema(required)]
    first_id: Option<String>,
    #[schema(required)]
    last_id: Option<String>,
}

/// A batch that is gone.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct DeletedBatch {
    id: String,
    r#type: DeletedBatchTag,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::server::data) enum DeletedBatchTag {
    MessageBatchDeleted,
}
