//! What requests must have and answers have. All take and may have more.

#![expect(dead_code, reason = "described, not built: the dialects write these themselves")]
#![expect(clippy::struct_field_names, reason = "the names are the vendors'")]

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A body of `POST /v1/responses`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "model": "gpt-6.1-sol", "input": "Hello" }))]
pub(in crate::server::data) struct ResponsesRequest {
    /// A model that `GET /v1/models` lists.
    model: String,
    /// A text or a list of items.
    input: TextOrList,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
    instructions: Option<String>,
    tools: Option<Vec<Value>>,
}

/// A body of `POST /v1/chat/completions`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "model": "gpt-6.1-sol", "messages": [{ "role": "user", "content": "Hello" }] }))]
pub(in crate::server::data) struct ChatRequest {
    /// A model that `GET /v1/models` lists.
    model: String,
    #[schema(min_items = 1)]
    messages: Vec<Message>,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
}

/// A body of `POST /v1/messages`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "model": "claude-sonnet-5", "max_tokens": 100, "messages": [{ "role": "user", "content": "Hello" }] }))]
pub(in crate::server::data) struct MessagesRequest {
    /// A model that `GET /v1/models` lists, or a name that an alias leads to one.
    model: String,
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    #[schema(min_items = 1)]
    messages: Vec<Message>,
    /// Whether the answer comes as server-sent events.
    stream: Option<bool>,
}

/// One message of a conversation.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct Message {
    role: Role,
    content: TextOrList,
}

/// Who speaks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum Role {
    System,
    User,
    Assistant,
}

/// A text, or a list of parts.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::server::data) enum TextOrList {
    Text(String),
    List(Vec<Value>),
}

/// A response of OpenAI's Responses API.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct ResponseObject {
    id: String,
    object: ResponseTag,
    created_at: i64,
    status: ResponseStatus,
    model: String,
    output: Vec<OutputItem>,
    #[schema(required)]
    usage: Option<ResponseUsage>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum ResponseTag {
    Response,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::server::data) enum ResponseStatus {
    Completed,
    Incomplete,
    Failed,
    InProgress,
    Cancelled,
    Queued,
}

/// One item of an output: a message, reasoning, a call.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct OutputItem {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct ResponseUsage {
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
}

/// A completion of OpenAI's Chat Completions API.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct ChatCompletion {
    id: String,
    object: CompletionTag,
    created: i64,
    model: String,
    #[schema(min_items = 1, max_items = 1)]
    choices: Vec<Choice>,
    usage: ChatUsage,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) enum CompletionTag {
    #[serde(rename = "chat.completion")]
    ChatCompletion,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct Choice {
    index: u64,
    message: AssistantMessage,
    finish_reason: FinishReason,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::server::data) enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    FunctionCall,
    ContentFilter,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct AssistantMessage {
    role: Role,
    #[schema(required)]
    content: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct ChatUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

/// A message of Anthropic's Messages API.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct MessageObject {
    id: String,
    #[serde(rename = "type")]
    kind: MessageTag,
    role: Role,
    model: String,
    content: Vec<ContentBlock>,
    #[schema(required)]
    stop_reason: Option<StopReason>,
    usage: MessageUsage,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum MessageTag {
    Message,
}

/// Text, thinking, a call of a tool.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct ContentBlock {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::server::data) enum StopReason {
    EndTurn,
    MaxTokens,
    StopSequence,
    ToolUse,
    Refusal,
    PauseTurn,
    ModelContextWindowExceeded,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct MessageUsage {
    input_tokens: u64,
    output_tokens: u64,
}

/// One event of a stream; `data` is JSON of the vendor's own making.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct ServerSentEvent {
    #[schema(required)]
    data: Option<String>,
    event: Option<String>,
}

/// How many tokens a request has.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct TokenCount {
    input_tokens: u64,
}

/// The models that a key may use, as the caller's vendor lists them; Anthropic's for a caller that says
/// `anthropic-version`, the Codex CLI's catalogue for one that says `client_version`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::server::data) enum ModelList {
    OpenAi(OpenAiModels),
    Anthropic(AnthropicModels),
    Codex(Catalogue),
}

/// One model, as the caller's vendor describes it.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::server::data) enum Model {
    OpenAi(OpenAiModel),
    Anthropic(AnthropicModel),
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct OpenAiModels {
    object: ListTag,
    data: Vec<OpenAiModel>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum ListTag {
    List,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct OpenAiModel {
    id: String,
    object: ModelTag,
    created: i64,
    owned_by: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum ModelTag {
    Model,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct AnthropicModels {
    data: Vec<AnthropicModel>,
    has_more: bool,
    #[schema(required)]
    first_id: Option<String>,
    #[schema(required)]
    last_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct AnthropicModel {
    #[serde(rename = "type")]
    kind: ModelTag,
    id: String,
    display_name: String,
    created_at: String,
}

/// The backend's own catalogue.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct Catalogue {
    models: Vec<Value>,
}

/// An error as OpenAI words it.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct OpenAiError {
    error: OpenAiErrorObject,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct OpenAiErrorObject {
    message: String,
    #[serde(rename = "type")]
    kind: String,
    #[schema(required)]
    param: Option<String>,
    #[schema(required)]
    code: Option<String>,
}

/// An error as Anthropic words it.
#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct AnthropicError {
    #[serde(rename = "type")]
    kind: ErrorTag,
    error: AnthropicErrorObject,
    request_id: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::server::data) enum ErrorTag {
    Error,
}

#[derive(Serialize, ToSchema)]
pub(in crate::server::data) struct AnthropicErrorObject {
    #[serde(rename = "type")]
    kind: String,
    message: String,
}
