//! A Chat Completions request as clients send it. Lenient: unknown fields are not looked at.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Deserialize)]
pub(super) struct Request {
    pub model: Option<String>,
    pub messages: Option<Vec<Message>>,
    #[serde(default)]
    pub stream: Option<bool>,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    #[serde(default)]
    pub tools: Option<Vec<Tool>>,
    #[serde(default)]
    pub tool_choice: Option<Value>,
    #[serde(default)]
    pub parallel_tool_calls: Option<bool>,
    #[serde(default)]
    pub functions: Option<Vec<Function>>,
    #[serde(default)]
    pub function_call: Option<Value>,
    #[serde(default)]
    pub reasoning_effort: Option<String>,
    #[serde(default)]
    pub reasoning: Option<Reasoning>,
    #[serde(default)]
    pub verbosity: Option<String>,
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
    #[serde(default)]
    pub n: Option<u64>,
    #[serde(default)]
    pub logprobs: Option<bool>,
    #[serde(default)]
    pub top_logprobs: Option<u64>,
    #[serde(default)]
    pub prompt_cache_key: Option<String>,
    #[serde(default)]
    pub service_tier: Option<String>,
    #[serde(default)]
    pub web_search_options: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct StreamOptions {
    #[serde(default)]
    pub include_usage: Option<bool>,
}

/// OpenRouter's spelling of the effort, which some clients use.
#[derive(Deserialize)]
pub(super) struct Reasoning {
    #[serde(default)]
    pub effort: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Message {
    pub role: String,
    #[serde(default)]
    pub content: Option<Content>,
    #[serde(default)]
    pub refusal: Option<String>,
    #[serde(default)]
    pub tool_calls: Option<Vec<ToolCall>>,
    #[serde(default)]
    pub function_call: Option<CalledFunction>,
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// The function's name in an answer of the legacy `function` role.
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part {
    #[serde(alias = "input_text", alias = "output_text")]
    Text {
        text: String,
    },
    Refusal {
        refusal: String,
    },
    #[serde(alias = "input_image")]
    ImageUrl {
        image_url: ImageUrl,
    },
    #[serde(alias = "input_file")]
    File {
        file: File,
    },
    InputAudio {},
    #[serde(other)]
    Unknown,
}

/// Some clients send the address alone.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum ImageUrl {
    Object {
        url: String,
        #[serde(default)]
        detail: Option<String>,
    },
    Address(String),
}

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default, rename = "filename")]
    pub name: Option<String>,
    #[serde(default, rename = "file_data")]
    pub data: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ToolCall {
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default)]
    pub function: Option<CalledFunction>,
    #[serde(default)]
    pub custom: Option<CalledCustom>,
}

#[derive(Deserialize)]
pub(super) struct CalledFunction {
    pub name: String,
    /// JSON text; some clients send the object itself.
    #[serde(default)]
    pub arguments: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct CalledCustom {
    pub name: String,
    #[serde(default)]
    pub input: String,
}

/// One of the two is there, or the type is one that Chat Completions does not have. Not a tagged
/// enum: raw values do not go through one.
#[derive(Deserialize)]
pub(super) struct Tool {
    #[serde(default)]
    pub function: Option<Function>,
    #[serde(default)]
    pub custom: Option<Custom>,
}

#[derive(Deserialize)]
pub(super) struct Function {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub parameters: Option<Box<RawValue>>,
    #[serde(default)]
    pub strict: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct Custom {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub format: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct ResponseFormat {
    #[serde(rename = "type")]
    pub kind: FormatKind,
    #[serde(default)]
    pub json_schema: Option<JsonSchema>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FormatKind {
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Deserialize)]
pub(super) struct JsonSchema {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub strict: Option<bool>,
    #[serde(default)]
    pub schema: Option<Box<RawValue>>,
}
