//! Requests shaped like Responses (`input` and no `messages`) that come to the chat path: some
//! editors send them there and expect chunks of Chat Completions back (clients.md 1.3).

use super::fields::{IGNORED, Ignored, is_neutral, refuse_what_cannot_be_done};
use super::{Fields, completion_id, options, tools};
use crate::codex::raw::Raw;
use crate::dialect::chat::{Answer, Shape};
use crate::dialect::names::Names;
use crate::dialect::responses::fields::Members;
use crate::dialect::{Context, ModelMap, Prepared, Problem, responses, tokens};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

/// Fields that this room reads itself, or that were refused if they ask for anything.
const READ: [&str; 9] = [
    "stream_options",
    "n",
    "logprobs",
    "audio",
    "modalities",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
];

/// The body with `input` for `messages`, if that is all that is Responses about it: every item is
/// written as Chat Completions writes a message, and at least one as only it does.
pub(super) fn messages<'a>(members: &Members<'a>) -> Option<Members<'a>> {
    let items: Vec<Raw<'_>> = serde_json::from_str(members.get("input")?.get()).ok()?;
    let readings: Vec<Reading> = items.into_iter().map(Reading::of).collect();
    if !readings.contains(&Reading::OnlyChat) || readings.contains(&Reading::OnlyResponses) {
        return None;
    }
    let renamed = members.0.iter().map(|(name, value)| {
        let name = if name == "input" { Cow::Borrowed("messages") } else { name.clone() };
        (name, *value)
    });
    Some(Members(renamed.collect()))
}

/// Whose an item of `input` is.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    Either,
    OnlyChat,
    OnlyResponses,
}

impl Reading {
    fn of(raw: Raw<'_>) -> Self {
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(borrow, rename = "type", default)]
            kind: Option<Cow<'a, str>>,
            #[serde(borrow)]
            role: Cow<'a, str>,
            #[serde(borrow, default)]
            content: Option<Raw<'a>>,
            #[serde(default)]
            tool_calls: Option<IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct Part<'a> {
            #[serde(borrow, rename = "type", default)]
            kind: Cow<'a, str>,
        }
        let Ok(item) = serde_json::from_str::<Item<'_>>(raw.get()) else { return Self::OnlyResponses };
        if item.kind.is_some_and(|kind| kind != "message") {
            return Self::OnlyResponses;
        }
        let parts: Vec<Part<'_>> =
            item.content.and_then(|content| serde_json::from_str(content.get()).ok()).unwrap_or_default();
        let is_chat = item.role == "tool"
            || item.tool_calls.is_some()
            || parts.iter().any(|part| ["text", "image_url", "file"].contains(&&*part.kind));
        if is_chat { Self::OnlyChat } else { Self::Either }
    }
}

/// Takes out what only Chat Completions knows, writes its nested tools flat, leaves the rest to the
/// Responses dialect, and answers in chunks.
pub(super) fn prepare(members: &Members<'_>, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let mut fields = Fields::new(Members(members.0.clone()));
    if refuse_what_cannot_be_done(&mut fields)? {
        return Err(Problem::invalid("modalities", "for images name the tool `image_generation` instead"));
    }
    let mut ignored = Ignored::default();
    let include_usage = options::include_usage(&mut fields, &mut ignored)?;
    let bounds = options::bounds(&mut fields)?;
    let mut names = Names::default();
    let mut body = String::from("{");
    for (name, value) in members.0.iter().map(|(name, value)| (name, *value)) {
        let of_chat = IGNORED.iter().find(|(known, _)| known == name && *known != "service_tier");
        let value = match (of_chat, &**name) {
            (Some((known, _)), name) => {
                if !is_neutral(name, value) {
                    ignored.add(known);
                }
                continue;
            }
            (None, name) if READ.contains(&name) => continue,
            (None, "tools") => flat_tools(value, &mut names)?,
            (None, "tool_choice") => flat_choice(value)?,
            (None, _) => Cow::Borrowed(value.get()),
        };
        let comma = if body.len() > 1 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(body, "{comma}{}:{value}", json!(name));
    }
    body.push('}');
    let estimate = tokens::rough(&body);
    let mut prepared = responses::request::prepare(&Bytes::from(body), context, models, false)?;
    prepared.ignored.iter().for_each(|name| ignored.add(name));
    prepared.ignored = ignored.into_names();
    prepared.reply = Box::new(Answer(Arc::new(Shape {
        id: completion_id(context),
        created: context.now,
        model: prepared.requested_model.clone(),
        names,
        is_legacy: false,
        include_usage,
        bounds: Arc::new(bounds),
        estimate,
    })));
    Ok(prepared)
}

/// What Chat Completions nests; flat tools have none of these.
#[derive(Deserialize)]
struct Nested {
    #[serde(default)]
    function: Option<IgnoredAny>,
    #[serde(default)]
    custom: Option<IgnoredAny>,
    #[serde(default)]
    allowed_tools: Option<IgnoredAny>,
}

impl Nested {
    fn is_nested(raw: Raw<'_>) -> bool {
        serde_json::from_str::<Self>(raw.get())
            .is_ok_and(|it| it.function.is_some() || it.custom.is_some() || it.allowed_tools.is_some())
    }
}

/// The tools, flat; those that are flat already go as they are, and so do their names.
fn flat_tools<'a>(raw: Raw<'a>, names: &mut Names) -> Result<Cow<'a, str>, Problem> {
    let Ok(wire) = raw.elements() else { return Ok(Cow::Borrowed(raw.get())) };
    if !wire.iter().any(|tool| Nested::is_nested(*tool)) {
        return Ok(Cow::Borrowed(raw.get()));
    }
    let mut flat = Vec::with_capacity(wire.len());
    for (at, tool) in wire.into_iter().enumerate() {
        flat.push(if Nested::is_nested(tool) {
            serde_json::to_string(&tools::tool(tool, &format!("tools[{at}]"), names)?).unwrap_or_default()
        } else {
            tool.get().to_owned()
        });
    }
    Ok(Cow::Owned(format!("[{}]", flat.join(","))))
}

fn flat_choice(raw: Raw<'_>) -> Result<Cow<'_, str>, Problem> {
    if !Nested::is_nested(raw) {
        return Ok(Cow::Borrowed(raw.get()));
    }
    let choice = tools::choice(raw)?;
    Ok(Cow::Owned(serde_json::to_string(&choice).unwrap_or_default()))
}
