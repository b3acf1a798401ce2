//! The request that the backend takes, as translated dialects build it (protocol.md 2.2–2.4).
//!
//! Requests of Responses clients are not turned into this type: their bytes pass through with only
//! the top level touched (`dialect::responses`). What this type can say, the backend accepts.

mod json;

pub(crate) use json::quote;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Whether an item of an answer can be input again. The backend keeps nothing, so reasoning without its
/// sealed content would refer to what nobody has.
pub fn can_be_sent_back(item: &str) -> bool {
    #[derive(Default, serde::Deserialize)]
    struct Reasoning {
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        encrypted_content: Option<String>,
    }
    if !item.contains("\"reasoning\"") {
        return true;
    }
    let Reasoning { kind, encrypted_content } = serde_json::from_str(item).unwrap_or_default();
    kind != "reasoning" || encrypted_content.is_some_and(|sealed| !sealed.is_empty())
}

/// A request for `POST /codex/responses`. `stream` and `store` are not a choice (protocol.md 2.4).
#[derive(Debug)]
pub struct Request {
    /// The model's slug.
    pub model: String,
    /// The system prompt; left out when there is none.
    pub instructions: Option<String>,
    /// The conversation; always a list.
    pub input: Vec<InputItem>,
    /// The tools; left out when there are none.
    pub tools: Vec<Tool>,
    /// Which tool must be called, if any.
    pub tool_choice: Option<ToolChoice>,
    /// Whether several calls may come in one turn; only with tools.
    pub parallel_tool_calls: Option<bool>,
    /// How hard to think and what to show of it.
    pub reasoning: Option<Reasoning>,
    /// What to add to the reply.
    pub include: Vec<&'static str>,
    /// `priority`, or nothing.
    pub service_tier: Option<String>,
    /// Keeps turns with the same prefix on the same cache.
    pub prompt_cache_key: Option<String>,
    /// Format and verbosity of the text.
    pub text: Option<Text>,
}

/// A request `include`s this so that reasoning can be continued although nothing is stored.
pub const ENCRYPTED_REASONING: &str = "reasoning.encrypted_content";

impl Request {
    /// A request with nothing but a model and what every request carries.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            instructions: None,
            input: Vec::new(),
            tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            reasoning: None,
            include: vec![ENCRYPTED_REASONING],
            service_tier: None,
            prompt_cache_key: None,
            text: None,
        }
    }

    /// As JSON, which is likely to be about as long as the client's: `size` bytes.
    pub fn to_json(&self, size: usize) -> Result<Bytes, serde_json::Error> {
        let mut body = Vec::with_capacity(size + ROOM);
        body.extend_from_slice(b"{\"model\":");
        json::quote(&self.model, &mut body);
        if let Some(instructions) = &self.instructions {
            body.extend_from_slice(b",\"instructions\":");
            json::quote(instructions, &mut body);
        }
        body.extend_from_slice(b",\"input\":");
        json::list(&self.input, InputItem::write, &mut body);
        // The object of the rest goes on where this one stops. It always has members.
        let brace = body.len();
        serde_json::to_writer(&mut body, &Rest::of(self))?;
        body[brace] = b',';
        Ok(Bytes::from(body))
    }
}

/// What a request of ours may have more than its client's, bytes.
const ROOM: usize = 512;

/// What of a request is short.
#[derive(Serialize)]
struct Rest<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tools: &'a [Tool],
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'a ToolChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a Reasoning>,
    /// Always false: the backend keeps nothing.
    store: bool,
    /// Always true: the backend only streams.
    stream: bool,
    include: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a Text>,
}

impl<'a> Rest<'a> {
    fn of(request: &'a Request) -> Self {
        Self {
            tools: &request.tools,
            tool_choice: request.tool_choice.as_ref(),
            parallel_tool_calls: request.parallel_tool_calls,
            reasoning: request.reasoning.as_ref(),
            store: false,
            stream: true,
            include: &request.include,
            service_tier: request.service_tier.as_deref(),
            prompt_cache_key: request.prompt_cache_key.as_deref(),
            text: request.text.as_ref(),
        }
    }
}

/// One item of the conversation.
#[derive(Debug)]
pub enum InputItem {
    /// What somebody said.
    Message {
        /// Who.
        role: Role,
        /// What.
        content: Vec<InputPart>,
    },
    /// Reasoning of an earlier turn, given back to the account that made it.
    Reasoning {
        /// The readable summary, as it was.
        summary: Vec<InputPart>,
        /// The opaque form.
        encrypted_content: String,
    },
    /// A call the model made.
    FunctionCall {
        /// What the output refers to.
        call_id: String,
        /// The function's name.
        name: String,
        /// JSON text.
        arguments: String,
    },
    /// What a function returned.
    FunctionCallOutput {
        /// Which call.
        call_id: String,
        /// Text or parts.
        output: ToolOutput,
    },
    /// A call of a freeform tool the model made.
    CustomToolCall {
        /// What the output refers to.
        call_id: String,
        /// The tool's name.
        name: String,
        /// Freeform text.
        input: String,
    },
    /// What a freeform tool returned.
    CustomToolCallOutput {
        /// Which call.
        call_id: String,
        /// Text or parts.
        output: ToolOutput,
    },
    /// An item passed on as it came.
    Raw(Box<RawValue>),
}

impl InputItem {
    /// For a message with a text of more than `most` bytes: one that is cut there, whose JSON begins with
    /// the same `most` bytes.
    pub fn cut(&self, most: usize) -> Option<Self> {
        let Self::Message { role, content } = self else { return None };
        let (at, longest) = content.iter().enumerate().find_map(|(at, part)| match part {
            InputPart::InputText { text } | InputPart::OutputText { text } if text.len() > most => Some((at, text)),
            _ => None,
        })?;
        let text = longest[..longest.ceil_char_boundary(most)].to_owned();
        let last = match &content[at] {
            InputPart::OutputText { .. } => InputPart::OutputText { text },
            _ => InputPart::InputText { text },
        };
        let content = content[..at].iter().cloned().chain([last]).collect();
        Some(Self::Message { role: *role, content })
    }
}

/// Who speaks. `system` is not among them: the backend refuses it (protocol.md 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Assistant,
    /// Whoever built the tool.
    Developer,
}

/// A part of a message or of a tool's output.
#[derive(Debug, Clone)]
pub enum InputPart {
    /// Text for the model.
    InputText {
        /// The text.
        text: String,
    },
    /// Text of the model.
    OutputText {
        /// The text.
        text: String,
    },
    /// What the model declined, in its words.
    Refusal {
        /// The words.
        refusal: String,
    },
    /// An image for the model.
    InputImage {
        /// A `data:` or `https:` address.
        image_url: String,
        /// `low`, `high`, `auto`, `original`.
        detail: Option<String>,
    },
    /// A document for the model.
    InputFile {
        /// Its name.
        filename: Option<String>,
        /// A `data:` address.
        file_data: Option<String>,
        /// An `https:` address.
        file_url: Option<String>,
    },
    /// Part of a reasoning summary.
    SummaryText {
        /// The text.
        text: String,
    },
}

/// What a tool returned.
#[derive(Debug, Clone)]
pub enum ToolOutput {
    /// Plain text.
    Text(String),
    /// Text and images.
    Parts(Vec<InputPart>),
}

/// A tool the model may call.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Tool {
    /// A function with a JSON schema.
    Function {
        /// Its name: at most 64 characters of `[A-Za-z0-9_-]`.
        name: String,
        /// What it does.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Whether arguments must match the schema exactly.
        strict: bool,
        /// The schema of its arguments, as the client wrote it.
        parameters: Box<RawValue>,
    },
    /// A tool that takes freeform text.
    Custom {
        /// Its name.
        name: String,
        /// What it does.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// `{"type":"text"}` or a grammar.
        #[serde(skip_serializing_if = "Option::is_none")]
        format: Option<Value>,
    },
    /// The backend's own search.
    WebSearch(Map<String, Value>),
    /// The backend's own image generator.
    ImageGeneration(Map<String, Value>),
}

/// Which tool must be called.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ToolChoice {
    /// `auto`, `none` or `required`.
    Mode(&'static str),
    /// One tool: `{"type":"function","name":…}`; a set: `{"type":"allowed_tools",…}`; a hosted one.
    Object(Value),
}

/// How hard to think and what to show of it.
#[derive(Debug, Default, Serialize)]
pub struct Reasoning {
    /// `low` … `ultra`, as the model offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// `auto`, `concise`, `detailed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// Format and verbosity of the text.
#[derive(Debug, Default, Serialize)]
pub struct Text {
    /// `low`, `medium`, `high`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbosity: Option<String>,
    /// Structured output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
}

/// Structured output.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TextFormat {
    /// Any JSON object.
    JsonObject,
    /// JSON that matches a schema.
    JsonSchema {
        /// The schema's name.
        name: String,
        /// What it is for.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// Whether the output must match exactly.
        strict: bool,
        /// The schema, as the client wrote it.
        schema: Box<RawValue>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_the_backend_demands_and_nothing_it_was_not_told() {
        let mut request = Request::new("gpt-5.5");
        request
            .input
            .push(InputItem::Message { role: Role::User, content: vec![InputPart::InputText { text: "hi".into() }] });
        let raw = RawValue::from_string(r#"{"type":"compaction","encrypted_content":"x"}"#.into()).expect("valid");
        request.input.push(InputItem::Raw(raw));
        assert_eq!(
            request.to_json(0).expect("serialises"),
            r#"{"model":"gpt-5.5","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]},{"type":"compaction","encrypted_content":"x"}],"store":false,"stream":true,"include":["reasoning.encrypted_content"]}"#
        );
    }
}
