//! From messages to the backend's input items.
//!
//! Rules: system and developer messages that stand at the beginning become `instructions`, later ones
//! stay where they are as developer messages (the backend refuses the role `system`). A tool's output
//! without the call it answers is left out, and so is a second output of the same call, for the
//! backend refuses both. An assistant's message gives its text first and then its calls.

use super::wire::{CalledFunction, Content, ImageUrl, Message, Part, ToolCall};
use crate::codex::Request;
use crate::codex::request::{InputItem, InputPart, Role, ToolOutput};
use crate::dialect::Problem;
use crate::dialect::names::{call_id, shorten};
use serde_json::Value;
use std::collections::VecDeque;

pub(super) fn translate(messages: Vec<Message>, request: &mut Request) -> Result<(), Problem> {
    let mut history = History::default();
    let mut instructions = Vec::new();
    for (at, message) in messages.into_iter().enumerate() {
        let is_system = matches!(message.role.as_str(), "system" | "developer");
        if is_system && history.items.is_empty() {
            instructions.push(plain(message.content, at)?);
        } else {
            history.message(message, at)?;
        }
    }
    instructions.retain(|text| !text.is_empty());
    request.instructions = (!instructions.is_empty()).then(|| instructions.join("\n\n"));
    request.input = history.items;
    // A request of system messages alone still asks for an answer.
    if request.input.is_empty()
        && let Some(text) = request.instructions.take()
    {
        request.input.push(InputItem::Message { role: Role::Developer, content: vec![InputPart::InputText { text }] });
    }
    Ok(())
}

#[derive(Default)]
struct History {
    items: Vec<InputItem>,
    /// Calls that wait for their output, in order.
    open: VecDeque<OpenCall>,
}

struct OpenCall {
    /// As it went upstream.
    id: String,
    /// The function's name: what a legacy answer refers to.
    name: String,
    is_custom: bool,
}

impl History {
    fn message(&mut self, message: Message, at: usize) -> Result<(), Problem> {
        match message.role.as_str() {
            "user" => self.say(Role::User, parts(message.content, at, Side::User)?),
            "system" | "developer" => self.say(Role::Developer, parts(message.content, at, Side::User)?),
            "assistant" => self.assistant(message, at)?,
            "tool" | "function" => self.output(message, at)?,
            role => return Err(invalid(at, "role", format!("`{role}` is not a role"))),
        }
        Ok(())
    }

    fn say(&mut self, role: Role, content: Vec<InputPart>) {
        if !content.is_empty() {
            self.items.push(InputItem::Message { role, content });
        }
    }

    fn assistant(&mut self, message: Message, at: usize) -> Result<(), Problem> {
        let mut content = parts(message.content, at, Side::Assistant)?;
        if let Some(refusal) = message.refusal.filter(|text| !text.is_empty()) {
            content.push(InputPart::Refusal { refusal });
        }
        self.say(Role::Assistant, content);
        for call in message.tool_calls.unwrap_or_default() {
            self.call(call);
        }
        if let Some(function) = message.function_call {
            // The legacy form has no ids; one of our own ties the answer to the call.
            let id = Some(format!("call_{at}"));
            self.call(ToolCall { id, function: Some(function), custom: None });
        }
        Ok(())
    }

    fn call(&mut self, call: ToolCall) {
        let id = call_id(&call.id.unwrap_or_default()).into_owned();
        if let Some(function) = call.function {
            let name = shorten(&function.name).into_owned();
            self.open.push_back(OpenCall { id: id.clone(), name: name.clone(), is_custom: false });
            self.items.push(InputItem::FunctionCall { call_id: id, name, arguments: arguments(function) });
        } else if let Some(custom) = call.custom {
            let name = shorten(&custom.name).into_owned();
            self.open.push_back(OpenCall { id: id.clone(), name: name.clone(), is_custom: true });
            self.items.push(InputItem::CustomToolCall { call_id: id, name, input: custom.input });
        }
    }

    fn output(&mut self, message: Message, at: usize) -> Result<(), Problem> {
        let place = match (&message.tool_call_id, &message.name) {
            (Some(id), _) => {
                let id = call_id(id);
                self.open.iter().position(|call| call.id == id)
            }
            (None, Some(name)) => self.open.iter().position(|call| call.name == *shorten(name)),
            (None, None) => (!self.open.is_empty()).then_some(0),
        };
        let output = tool_output(message.content, at)?;
        if let Some(call) = place.and_then(|place| self.open.remove(place)) {
            let call_id = call.id;
            self.items.push(if call.is_custom {
                InputItem::CustomToolCallOutput { call_id, output }
            } else {
                InputItem::FunctionCallOutput { call_id, output }
            });
        }
        Ok(())
    }
}

fn arguments(function: CalledFunction) -> String {
    match function.arguments {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => "{}".to_owned(),
        Some(object) => object.to_string(),
    }
}

/// Whose words they are decides how the backend spells a text part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    User,
    Assistant,
}

fn parts(content: Option<Content>, at: usize, side: Side) -> Result<Vec<InputPart>, Problem> {
    let text = |text: String| match side {
        Side::User => InputPart::InputText { text },
        Side::Assistant => InputPart::OutputText { text },
    };
    match content {
        None => Ok(Vec::new()),
        Some(Content::Text(words)) if words.is_empty() => Ok(Vec::new()),
        Some(Content::Text(words)) => Ok(vec![text(words)]),
        Some(Content::Parts(parts)) => parts
            .into_iter()
            .map(|part| match part {
                Part::Text { text: words } => Ok(text(words)),
                Part::Refusal { refusal } => Ok(InputPart::Refusal { refusal }),
                Part::ImageUrl { image_url } => Ok(image(image_url)),
                Part::File { file } => match file.data {
                    Some(data) => {
                        Ok(InputPart::InputFile { filename: file.name, file_data: Some(data), file_url: None })
                    }
                    None => Err(invalid(at, "content", "a file must carry `file_data`: Tollway keeps no files")),
                },
                Part::InputAudio {} => Err(invalid(at, "content", "audio is not available on this backend")),
                Part::Unknown => Err(invalid(at, "content", "a part is of a type that is not known")),
            })
            .collect(),
    }
}

fn image(image: ImageUrl) -> InputPart {
    let (image_url, detail) = match image {
        ImageUrl::Object { url, detail } => (url, detail),
        ImageUrl::Address(url) => (url, None),
    };
    InputPart::InputImage { image_url, detail }
}

/// Text alone stays text: most models were taught on that.
fn tool_output(content: Option<Content>, at: usize) -> Result<ToolOutput, Problem> {
    match content {
        None => Ok(ToolOutput::Text(String::new())),
        Some(Content::Text(text)) => Ok(ToolOutput::Text(text)),
        content => {
            let parts = parts(content, at, Side::User)?;
            let texts: Option<Vec<&str>> = parts
                .iter()
                .map(|part| match part {
                    InputPart::InputText { text } => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            Ok(texts.map(|texts| texts.concat()).map_or_else(|| ToolOutput::Parts(parts.clone()), ToolOutput::Text))
        }
    }
}

fn plain(content: Option<Content>, at: usize) -> Result<String, Problem> {
    match tool_output(content, at)? {
        ToolOutput::Text(text) => Ok(text),
        ToolOutput::Parts(_) => Err(invalid(at, "content", "a system message must be text")),
    }
}

fn invalid(at: usize, field: &str, message: impl Into<String>) -> Problem {
    Problem::invalid(&format!("messages[{at}].{field}"), message)
}
