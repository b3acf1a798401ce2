//! What an answer is made of: output items and their parts (protocol.md 3).
//!
//! Rule for the unknown: a type that is not listed is `Other`; an unknown field is not looked at.

use serde::Deserialize;

/// A finished or just added output item.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// Text, or a refusal, of the assistant.
    Message {
        /// `msg_…`.
        #[serde(default)]
        id: Option<String>,
        /// Its parts.
        #[serde(default)]
        content: Vec<ContentPart>,
        /// `commentary`, `partial_answer` or `final_answer`.
        #[serde(default)]
        phase: Option<String>,
    },
    /// Reasoning: a readable summary and an encrypted form that the same account can continue.
    Reasoning {
        /// `rs_…`.
        #[serde(default)]
        id: Option<String>,
        /// The summary's parts.
        #[serde(default)]
        summary: Vec<ContentPart>,
        /// Raw reasoning, rare.
        #[serde(default)]
        content: Option<Vec<ContentPart>>,
        /// Opaque; bound to the account that made it.
        #[serde(default)]
        encrypted_content: Option<String>,
    },
    /// A call of a function tool.
    FunctionCall {
        /// `fc_…`.
        #[serde(default)]
        id: Option<String>,
        /// `call_…`: what the tool's output refers to.
        #[serde(default)]
        call_id: Option<String>,
        /// The function's name; may be missing on `added`.
        #[serde(default)]
        name: Option<String>,
        /// The namespace of a namespaced tool.
        #[serde(default)]
        namespace: Option<String>,
        /// JSON text; empty on `added`.
        #[serde(default)]
        arguments: String,
    },
    /// A call of a freeform tool.
    CustomToolCall {
        /// `ctc_…`.
        #[serde(default)]
        id: Option<String>,
        /// `call_…`.
        #[serde(default)]
        call_id: Option<String>,
        /// The tool's name.
        #[serde(default)]
        name: Option<String>,
        /// Freeform text; empty on `added`.
        #[serde(default)]
        input: String,
    },
    /// A search that the backend ran itself.
    WebSearchCall {
        /// `ws_…`.
        #[serde(default)]
        id: Option<String>,
        /// `completed`, `failed`, …
        #[serde(default)]
        status: Option<String>,
        /// `{"type":"search","query":…}`, `{"type":"open_page","url":…}`, …
        #[serde(default)]
        action: Option<serde_json::Value>,
    },
    /// An image that the backend generated.
    ImageGenerationCall {
        /// `ig_…`.
        #[serde(default)]
        id: Option<String>,
        /// Base64.
        #[serde(default)]
        result: Option<String>,
        /// `png`, `jpeg`, `webp`.
        #[serde(default)]
        output_format: Option<String>,
        /// `transparent`, `opaque`.
        #[serde(default)]
        background: Option<String>,
        /// `low`, `medium`, `high`.
        #[serde(default)]
        quality: Option<String>,
        /// `1024x1024`.
        #[serde(default)]
        size: Option<String>,
        /// The prompt as the backend rewrote it.
        #[serde(default)]
        revised_prompt: Option<String>,
    },
    /// A type this build does not know.
    #[serde(other)]
    Other,
}

/// A part of a message, a reasoning summary or raw reasoning.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentPart {
    /// Text of a message.
    OutputText {
        /// The text.
        #[serde(default)]
        text: String,
        /// Citations, as they came.
        #[serde(default)]
        annotations: Vec<serde_json::Value>,
    },
    /// The model declined.
    Refusal {
        /// Its words.
        #[serde(default)]
        refusal: String,
    },
    /// Part of a reasoning summary.
    SummaryText {
        /// The text.
        #[serde(default)]
        text: String,
    },
    /// Raw reasoning.
    ReasoningText {
        /// The text.
        #[serde(default)]
        text: String,
    },
    /// A type this build does not know.
    #[serde(other)]
    Other,
}
