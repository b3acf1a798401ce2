//! From messages to the backend's conversation items.
//!
//! The backend refuses a call without output and an output without call. Clients send both: after
//! an interrupted turn, or when a conversation was shortened. So a call without result gets an
//! output that says so, and a result that no call waits for becomes text of the user. Ids may be used
//! again in a later round; within a round the first call with an id is the one.

use super::fields::{self, Ignored, parse, word};
use super::{content, reasoning};
use crate::codex::raw::Raw;
use crate::codex::request::{InputItem, InputPart, Role, ToolOutput};
use crate::codex::skim;
use crate::dialect::Problem;
use crate::dialect::chat::assembly::Family;
use crate::dialect::names;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// A message as clients write it.
#[derive(Debug, Default, Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Option<Raw<'a>>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow, default)]
    function_call: Option<Called<'a>>,
    #[serde(borrow, default, deserialize_with = "word")]
    tool_call_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "word")]
    name: Cow<'a, str>,
    #[serde(default)]
    reasoning_content: Option<IgnoredAny>,
    /// What the model said aloud, by an id.
    #[serde(default)]
    audio: Option<IgnoredAny>,
    /// Reasoning as we gave it out, or another provider.
    #[serde(borrow, default)]
    reasoning_details: Option<Vec<Raw<'a>>>,
    /// Images that the model made.
    #[serde(borrow, default)]
    images: Option<Raw<'a>>,
}

impl<'a> Message<'a> {
    /// What long messages nearly always are is skimmed; of all others the parser says what they are.
    fn read(raw: Raw<'a>, path: &str) -> Result<Self, Problem> {
        Self::skim(raw).map_or_else(|| parse(raw, path), Ok)
    }

    fn skim(raw: Raw<'a>) -> Option<Self> {
        let (mut role, mut content, mut tool_call_id) = (None, None, None);
        skim::members(raw.get().as_bytes(), |name, value| {
            let is_second = match name {
                b"role" => role.replace(skim::text(value)?).is_some(),
                b"content" => content.replace(Raw::skimmed(value)?).is_some(),
                b"tool_call_id" => tool_call_id.replace(skim::text(value)?).is_some(),
                _ => return None,
            };
            (!is_second).then_some(())
        })?;
        Some(Self {
            role: role.unwrap_or_default(),
            content: content.filter(|content| content.get() != "null"),
            tool_call_id: tool_call_id.unwrap_or_default(),
            ..Self::default()
        })
    }
}

/// A call that the model made.
#[derive(Debug, Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    function: Option<Called<'a>>,
    #[serde(borrow, default)]
    custom: Option<Called<'a>>,
}

/// What was called, and with what.
#[derive(Debug, Deserialize)]
struct Called<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    name: Cow<'a, str>,
    /// Of a function: JSON text, though some clients send the object itself.
    #[serde(borrow, default)]
    arguments: Option<Raw<'a>>,
    /// Of a custom tool.
    #[serde(default)]
    input: Option<String>,
}

impl Called<'_> {
    fn arguments(&self) -> String {
        let Some(raw) = self.arguments.filter(|raw| raw.get() != "null") else { return "{}".to_owned() };
        match serde_json::from_str::<String>(raw.get()) {
            Ok(text) if text.trim().is_empty() => "{}".to_owned(),
            Ok(text) => text,
            Err(_) => raw.get().to_owned(),
        }
    }
}

/// Stands for the result of a call that was never answered.
const NO_RESULT: &str = "[no result: the call was interrupted]";

/// Goes before the images that the model made.
const DRAWN: &str = "[the images of the message before]";

/// A conversation as the backend takes it.
pub(super) struct Conversation {
    pub(super) instructions: Option<String>,
    pub(super) items: Vec<InputItem>,
}

/// A conversation whose system prompt has not found its place yet.
pub(super) struct History {
    /// What the system said before anybody else.
    system: Vec<String>,
    items: Vec<InputItem>,
    unanswered: Vec<Unanswered>,
    /// Messages of the model so far.
    round: usize,
}

/// A call that waits for its result.
struct Unanswered {
    call_id: String,
    name: String,
    family: Family,
    round: usize,
    /// The place after the call, where its output goes if none comes.
    after: usize,
}

/// All messages, in order.
pub(super) fn translate(messages: &[Raw<'_>], ignored: &mut Ignored) -> Result<History, Problem> {
    let mut history =
        History { system: Vec::new(), items: Vec::with_capacity(messages.len()), unanswered: Vec::new(), round: 0 };
    for (at, raw) in messages.iter().copied().enumerate() {
        let path = format!("messages[{at}]");
        let message = Message::read(raw, &path)?;
        let in_path = |name: &str| format!("{path}.{name}");
        if !message.name.is_empty() && !["tool", "function"].contains(&&*message.role) {
            ignored.add(fields::MESSAGE_NAME);
        }
        if message.audio.is_some() {
            ignored.add(fields::MESSAGE_AUDIO);
        }
        match &*message.role {
            "system" | "developer" => {
                history.instructed(content::parts(message.content, false, &in_path("content"))?);
            }
            "user" => {
                let parts = content::parts(message.content, false, &in_path("content"))?;
                history.push(Role::User, parts);
            }
            "assistant" => history.said(message, &path, ignored)?,
            "tool" | "function" => {
                let parts = content::output(message.content, &in_path("content"))?;
                history.returned(&message.tool_call_id, &message.name, parts);
            }
            other => {
                let path = in_path("role");
                let roles = "'system', 'developer', 'user', 'assistant', 'tool' or 'function'";
                return Err(Problem::invalid(&path, format!("`{path}` is '{other}'; it must be {roles}")));
            }
        }
    }
    history.answer_the_rest();
    Ok(history)
}

impl History {
    /// What the system said first becomes `instructions`: they stand at the very beginning of the
    /// cached prefix, and models weigh them as the system prompt. What it says later stays in its
    /// place as a developer's message. Where `as_instructions` is false the first stays in its place
    /// too, and where nobody else spoke: the backend wants input.
    pub(super) fn leading(self, as_instructions: bool) -> Conversation {
        let Self { system, mut items, .. } = self;
        if system.is_empty() {
            return Conversation { instructions: None, items };
        }
        let text = system.join("\n\n");
        if as_instructions && !items.is_empty() {
            return Conversation { instructions: Some(text), items };
        }
        items.insert(0, InputItem::Message { role: Role::Developer, content: vec![InputPart::InputText { text }] });
        Conversation { instructions: None, items }
    }

    fn push(&mut self, role: Role, content: Vec<InputPart>) {
        if !content.is_empty() {
            self.items.push(InputItem::Message { role, content });
        }
    }

    fn instructed(&mut self, parts: Vec<InputPart>) {
        let is_text = parts.iter().all(|part| matches!(part, InputPart::InputText { .. }));
        if !self.items.is_empty() || !is_text {
            return self.push(Role::Developer, parts);
        }
        for part in parts {
            if let InputPart::InputText { text } = part
                && !text.is_empty()
            {
                self.system.push(text);
            }
        }
    }

    fn said(&mut self, message: Message<'_>, path: &str, ignored: &mut Ignored) -> Result<(), Problem> {
        self.round += 1;
        let before = self.items.len();
        let details = message.reasoning_details.unwrap_or_default();
        self.items.extend(reasoning::items(&details, ignored));
        // Who gives back the reasoning gives its summary only for people to read.
        if message.reasoning_content.is_some() && self.items.len() == before {
            ignored.add(fields::REASONING_CONTENT);
        }
        let thoughts = self.items.len();
        let mut parts = content::parts(message.content, true, &format!("{path}.content"))?;
        // Next to calls many clients send an empty text, which says nothing.
        parts.retain(|part| !matches!(part, InputPart::OutputText { text } if text.is_empty()));
        parts.extend(message.refusal.map(|refusal| InputPart::Refusal { refusal }));
        self.push(Role::Assistant, parts);
        for call in message.tool_calls.into_iter().flatten() {
            match call {
                ToolCall { id, function: Some(called), .. } => self.called(&id, Family::Function, &called),
                ToolCall { id, custom: Some(called), .. } => self.called(&id, Family::Custom, &called),
                ToolCall { .. } => {}
            }
        }
        if let Some(called) = &message.function_call {
            self.called("", Family::Function, called);
        }
        // Reasoning that led to nothing, as after an interruption, is refused.
        if self.items.len() == thoughts {
            self.items.truncate(before);
        }
        self.drew(message.images, &format!("{path}.images"))
    }

    /// The model's images. The backend takes none of an assistant's, so the user shows them.
    fn drew(&mut self, images: Option<Raw<'_>>, path: &str) -> Result<(), Problem> {
        let mut parts = content::parts(images, false, path)?;
        if !parts.is_empty() {
            parts.insert(0, InputPart::InputText { text: DRAWN.to_owned() });
        }
        self.push(Role::User, parts);
        Ok(())
    }

    fn called(&mut self, id: &str, family: Family, called: &Called<'_>) {
        // The place in the conversation is an id that the next turn finds again.
        let call_id =
            if id.is_empty() { format!("call_{}", self.items.len()) } else { names::call_id(id).into_owned() };
        match self.unanswered.iter().position(|call| call.call_id == call_id) {
            Some(at) if self.unanswered[at].round == self.round => return,
            Some(at) => self.answer_as_interrupted(at),
            None => {}
        }
        let name = names::shorten(&called.name).into_owned();
        self.items.push(match family {
            Family::Function => {
                InputItem::FunctionCall { call_id: call_id.clone(), name: name.clone(), arguments: called.arguments() }
            }
            Family::Custom => InputItem::CustomToolCall {
                call_id: call_id.clone(),
                name: name.clone(),
                input: called.input.clone().unwrap_or_default(),
            },
        });
        self.unanswered.push(Unanswered { call_id, name, family, round: self.round, after: self.items.len() });
    }

    /// A tool's result. One without an id belongs to the call of that name, else to the first that waits.
    fn returned(&mut self, id: &str, name: &str, mut parts: Vec<InputPart>) {
        let waits = &self.unanswered;
        let first = || waits.iter().position(|call| call.round == self.round);
        let at = match (id, name) {
            ("", "") => first(),
            ("", name) => waits.iter().position(|call| call.name == names::shorten(name)).or_else(first),
            (id, _) => waits.iter().position(|call| call.call_id == names::call_id(id)),
        };
        let Some(at) = at else {
            let id = if id.is_empty() { "without an id" } else { id };
            let note = format!("[result of a tool call that does not wait for one: {id}]");
            parts.insert(0, InputPart::InputText { text: note });
            return self.push(Role::User, parts);
        };
        let output = match parts.as_mut_slice() {
            [] => ToolOutput::Text(String::new()),
            [InputPart::InputText { text }] => ToolOutput::Text(std::mem::take(text)),
            _ => ToolOutput::Parts(parts),
        };
        let call = self.unanswered.remove(at);
        self.items.push(call.answer(output));
    }

    /// Says of the calls that have no result that they have none.
    fn answer_the_rest(&mut self) {
        while !self.unanswered.is_empty() {
            self.answer_as_interrupted(0);
        }
    }

    fn answer_as_interrupted(&mut self, at: usize) {
        let call = self.unanswered.remove(at);
        let after = call.after;
        self.items.insert(after, call.answer(ToolOutput::Text(NO_RESULT.to_owned())));
        for later in self.unanswered.iter_mut().filter(|other| other.after > after) {
            later.after += 1;
        }
    }
}

impl Unanswered {
    fn answer(self, output: ToolOutput) -> InputItem {
        let call_id = self.call_id;
        match self.family {
            Family::Function => InputItem::FunctionCallOutput { call_id, output },
            Family::Custom => InputItem::CustomToolCallOutput { call_id, output },
        }
    }
}
