//! From messages to the backend's conversation items.
//!
//! The backend refuses a call without output and an output without call. Clients send both: after
//! an interrupted turn, or when a conversation was shortened. So a call without result gets an
//! output that says so, and a result without call becomes text of the user.

use super::blocks::{Block, Content, ToolResult, ToolUse, invalid};
use super::content::{parts, text};
use super::ignored::{self, Ignored};
use crate::codex::raw::Raw;
use crate::codex::request::{InputItem, InputPart, Role, ToolOutput};
use crate::codex::skim;
use crate::dialect::Problem;
use crate::dialect::names;
use crate::dialect::signature;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// A message as clients write it.
#[derive(Debug, Deserialize)]
struct Turn<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Raw<'a>,
}

/// Stands for the result of a call that was never answered.
impl<'a> Turn<'a> {
    /// What long turns nearly always are is skimmed; of all others the parser says what they are.
    fn read(raw: Raw<'a>) -> Result<Self, serde_json::Error> {
        Self::skim(raw).map_or_else(|| serde_json::from_str(raw.get()), Ok)
    }

    fn skim(raw: Raw<'a>) -> Option<Self> {
        let (mut role, mut content) = (None, None);
        skim::members(raw.get().as_bytes(), |name, value| {
            let is_second = match name {
                b"role" => role.replace(skim::text(value)?).is_some(),
                b"content" => content.replace(Raw::skimmed(value)?).is_some(),
                _ => false,
            };
            (!is_second).then_some(())
        })?;
        Some(Self { role: role?, content: content? })
    }
}

const NO_RESULT: &str = "[no result: the call was interrupted]";

/// Goes before the images that the model made.
const DRAWN: &str = "[the images of the message before]";

/// Goes before the result of a tool that failed: the backend has no flag for it.
const FAILED: &str = "[the tool failed]";

/// All messages, in order.
pub(super) fn translate(turns: &[Raw<'_>], ignored: &mut Ignored) -> Result<Vec<InputItem>, Problem> {
    let mut history = History { items: Vec::with_capacity(turns.len()), unanswered: HashMap::new(), ignored };
    for (index, raw) in turns.iter().enumerate() {
        let turn = Turn::read(*raw).map_err(|e| invalid(&format!("messages.{index}"), &e))?;
        let path = format!("messages.{index}.content");
        let content = Content::parse(turn.content, &path)?;
        match &*turn.role {
            "user" => history.heard(Role::User, content, &path)?,
            // Claude Code gives instructions in the middle of a conversation (clients.md 8).
            "system" | "developer" => history.heard(Role::Developer, content, &path)?,
            "assistant" => history.said(content, &path)?,
            other => {
                let path = format!("messages.{index}.role");
                let message = format!("{path}: unexpected role '{other}'; it must be 'user', 'assistant' or 'system'");
                return Err(Problem::invalid(&path, message));
            }
        }
    }
    Ok(history.answered())
}

struct History<'i> {
    items: Vec<InputItem>,
    /// Calls that wait for their result: their place in `items` by call id.
    unanswered: HashMap<String, usize>,
    ignored: &'i mut Ignored,
}

impl History<'_> {
    /// A message to the model. Results go before the rest, next to their calls.
    fn heard(&mut self, role: Role, content: Content<'_>, path: &str) -> Result<(), Problem> {
        let blocks = match content {
            Content::Text(whole) => {
                self.push_message(role, text(whole).into_iter().collect());
                return Ok(());
            }
            Content::Blocks(blocks) => blocks,
        };
        let mut rest = Vec::new();
        for (index, raw) in blocks.into_iter().enumerate() {
            let path = || format!("{path}.{index}");
            match Block::parse(raw).map_err(|e| invalid(&path(), &e))? {
                Block::ToolResult(result) => rest.extend(self.result(&result, &path)?),
                block => rest.extend(parts(block, &path, self.ignored)?),
            }
        }
        self.push_message(role, rest);
        Ok(())
    }

    /// A tool's result; what is returned belongs into the message, for no call waits for it.
    fn result(&mut self, result: &ToolResult<'_>, path: &dyn Fn() -> String) -> Result<Vec<InputPart>, Problem> {
        let mut content = match result.content {
            Some(raw) => {
                let path = format!("{}.content", path());
                Content::parse(raw, &path)?.parts(&path, self.ignored)?
            }
            None => Vec::new(),
        };
        if result.is_error == Some(true) {
            match content.first_mut() {
                Some(InputPart::InputText { text }) => *text = format!("{FAILED} {text}"),
                _ => content.insert(0, InputPart::InputText { text: FAILED.to_owned() }),
            }
        }
        let call_id = names::call_id(&result.tool_use_id).into_owned();
        if self.unanswered.remove(&call_id).is_none() {
            let note = format!("[result of a tool call that is no longer in the conversation: {call_id}]");
            content.insert(0, InputPart::InputText { text: note });
            return Ok(content);
        }
        let output = match content.as_mut_slice() {
            [] => ToolOutput::Text(String::new()),
            [InputPart::InputText { text }] => ToolOutput::Text(std::mem::take(text)),
            _ => ToolOutput::Parts(content),
        };
        self.items.push(InputItem::FunctionCallOutput { call_id, output });
        Ok(Vec::new())
    }

    /// A message of the model, block by block.
    fn said(&mut self, content: Content<'_>, path: &str) -> Result<(), Problem> {
        let mut texts = Vec::new();
        let mut drawn = Vec::new();
        let said =
            |whole: Cow<'_, str>| (!whole.is_empty()).then(|| InputPart::OutputText { text: whole.into_owned() });
        let blocks = match content {
            Content::Text(whole) => {
                self.push_message(Role::Assistant, said(whole).into_iter().collect());
                return Ok(());
            }
            Content::Blocks(blocks) => blocks,
        };
        for (index, raw) in blocks.into_iter().enumerate() {
            let path = || format!("{path}.{index}");
            match Block::parse(raw).map_err(|e| invalid(&path(), &e))? {
                Block::Text(whole) | Block::Unknown(Some(whole)) => texts.extend(said(whole)),
                Block::ToolUse(call) => {
                    self.push_message(Role::Assistant, std::mem::take(&mut texts));
                    self.call(&call);
                }
                Block::Thinking(sealed) | Block::RedactedThinking(sealed) => {
                    self.push_message(Role::Assistant, std::mem::take(&mut texts));
                    self.reasoning(&sealed);
                }
                image @ Block::Image(_) => drawn.extend(parts(image, &path, self.ignored)?),
                // What the search found is in the text that follows it.
                Block::ServerStep => {}
                _ => self.ignored.add(ignored::BLOCK_TYPE),
            }
        }
        self.push_message(Role::Assistant, texts);
        // Reasoning that led to nothing, as after an interruption, is refused.
        while matches!(self.items.last(), Some(InputItem::Reasoning { .. })) {
            self.items.pop();
        }
        // The backend takes no images of the assistant, so the user shows them.
        if !drawn.is_empty() {
            drawn.insert(0, InputPart::InputText { text: DRAWN.to_owned() });
            self.push_message(Role::User, drawn);
        }
        Ok(())
    }

    fn call(&mut self, call: &ToolUse<'_>) {
        let call_id = names::call_id(&call.id).into_owned();
        if self.unanswered.contains_key(&call_id) {
            // The same id twice in one turn: the first stands, for a result fits only one.
            return;
        }
        self.unanswered.insert(call_id.clone(), self.items.len());
        let arguments = call.input.map_or("{}", Raw::get).to_owned();
        let name = names::shorten(&call.name).into_owned();
        self.items.push(InputItem::FunctionCall { call_id, name, arguments });
    }

    fn reasoning(&mut self, sealed: &str) {
        match signature::open(sealed) {
            // The summary is for people; the encrypted form is all the backend needs.
            Some(encrypted) => {
                let encrypted_content = encrypted.to_owned();
                self.items.push(InputItem::Reasoning { summary: Vec::new(), encrypted_content });
            }
            None => self.ignored.add(ignored::SIGNATURE),
        }
    }

    fn push_message(&mut self, role: Role, content: Vec<InputPart>) {
        if !content.is_empty() {
            self.items.push(InputItem::Message { role, content });
        }
    }

    /// The items, with an output after each run of calls for those that have none.
    fn answered(self) -> Vec<InputItem> {
        if self.unanswered.is_empty() {
            return self.items;
        }
        let unanswered: HashSet<usize> = self.unanswered.into_values().collect();
        let mut items = Vec::with_capacity(self.items.len() + unanswered.len());
        let mut owed = Vec::new();
        for (index, item) in self.items.into_iter().enumerate() {
            match &item {
                InputItem::FunctionCall { call_id, .. } => {
                    if unanswered.contains(&index) {
                        owed.push(call_id.clone());
                    }
                }
                _ => items.extend(owed.drain(..).map(no_result)),
            }
            items.push(item);
        }
        items.extend(owed.into_iter().map(no_result));
        items
    }
}

fn no_result(call_id: String) -> InputItem {
    InputItem::FunctionCallOutput { call_id, output: ToolOutput::Text(NO_RESULT.to_owned()) }
}
