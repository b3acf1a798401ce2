//! From a Messages body to the backend's request.
//!
//! Rule for what is not known: an unknown field is ignored and named; an unknown block becomes text
//! if it has some, else it is dropped and named; a known field of the wrong type is the client's
//! fault. `null` is the same as absent.

mod blocks;
mod client_tools;
mod content;
mod history;
pub(super) mod ignored;
mod options;
mod session;
mod tools;

use super::{Answer, Shape, Thinking, count};
use crate::codex::Request;
use crate::codex::raw::Raw;
use crate::codex::request::{InputPart, Text};
use crate::dialect::beginning::Beginning;
use crate::dialect::cut::Bounds;
use crate::dialect::names::Names;
use crate::dialect::responses::fields::Members;
use crate::dialect::{Context, ModelMap, Prepared, Problem, ProblemKind, Wish};
use blocks::{Content, invalid, required};
use bytes::Bytes;
use ignored::Ignored;
use options::{OutputConfig, ThinkingConfig};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use tools::{ToolChoice, WireTool};

/// A body as the backend takes it, with what the answer must know.
pub(super) struct Translated {
    pub(super) request: Request,
    model: String,
    names: Names,
    thinking: Thinking,
    bounds: Bounds,
    is_stream: bool,
    session: Option<String>,
    ignored: Vec<&'static str>,
}

/// Turns the body of `POST /v1/messages` into the backend's request.
///
/// Fails with [`ProblemKind::InvalidRequest`] only.
pub fn prepare(body: &Bytes, ctx: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let mut translated = translate(body, models)?;
    let session = translated.session.clone();
    let beginning = if session.is_none() { Beginning::of(&translated.request) } else { None };
    translated.request.prompt_cache_key = session.clone().or_else(|| beginning.clone());
    let request = &translated.request;
    let shape = Shape {
        request_id: ctx.request_id.clone(),
        model: translated.model.clone(),
        names: translated.names,
        thinking: translated.thinking,
        estimate: count::estimate(request),
        bounds: Arc::new(translated.bounds),
    };
    let wish = Wish::of(request, shape.bounds.limit());
    let upstream = request.to_json(body.len()).map_err(|e| Problem::new(ProblemKind::Internal, e.to_string()))?;
    Ok(Prepared {
        model: translated.request.model,
        requested_model: translated.model,
        stream: translated.is_stream,
        body: upstream,
        ignored: translated.ignored,
        session,
        beginning,
        wish,
        reply: Box::new(Answer(Arc::new(shape))),
    })
}

/// Reads the body field by field.
pub(super) fn translate(body: &[u8], models: &ModelMap) -> Result<Translated, Problem> {
    let mut fields = Fields::parse(body)?;
    let mut ignored = Ignored::default();
    let model: String = fields.take("model")?.ok_or_else(|| required("model"))?;
    if model.is_empty() {
        return Err(Problem::invalid("model", "model: String should have at least 1 character"));
    }
    let turns = fields.list("messages")?.ok_or_else(|| required("messages"))?;
    if turns.is_empty() {
        return Err(Problem::invalid("messages", "messages: at least one message is required"));
    }
    let resolved = models.resolve(&model);
    if fields.take::<Raw<'_>>("thread")?.is_some() {
        return Err(super::error::no_threads());
    }
    let mut request = Request::new(resolved.slug);
    let mut names = Names::default();

    request.instructions = match fields.take::<Raw<'_>>("system")? {
        Some(raw) => instructions(raw, &mut ignored)?,
        None => None,
    };
    request.input = history::translate(&turns, &mut ignored)?;
    if request.input.is_empty() {
        return Err(Problem::invalid("messages", "messages: at least one message must have content"));
    }

    let offered: Vec<WireTool<'_>> = fields.take("tools")?.unwrap_or_default();
    request.tools = tools::translate(&offered, &mut names, &mut ignored)?;
    let choice: Option<ToolChoice<'_>> = fields.take("tool_choice")?;
    if !request.tools.is_empty() {
        request.parallel_tool_calls = Some(!choice.as_ref().is_some_and(ToolChoice::is_serial));
        request.tool_choice = choice.map(|choice| choice.translate(&offered)).transpose()?;
    }

    let output: OutputConfig<'_> = fields.take("output_config")?.unwrap_or_default();
    let config: Option<ThinkingConfig<'_>> = fields.take("thinking")?;
    let thinking = config.as_ref().map_or(Thinking::Hidden, ThinkingConfig::shown);
    request.reasoning = options::reasoning(config.as_ref(), &output, resolved.effort, &mut ignored);
    // Older clients name the format at top level.
    let format = output.format.or(fields.take("output_format")?);
    request.text = options::format(format, &mut ignored)?.map(|format| Text { verbosity: None, format: Some(format) });

    let session = fields.take("metadata")?.and_then(|metadata| session::of(&metadata));
    request.prompt_cache_key.clone_from(&session);
    let bounds = options::bounds(fields.take("stop_sequences")?, fields.take("max_tokens")?)?;
    let is_stream = fields.take("stream")?.unwrap_or(false);
    fields.name_the_rest(&mut ignored);
    let ignored = ignored.into_names();
    Ok(Translated { request, model, names, thinking, bounds, is_stream, session, ignored })
}

/// The top level of a body. Taken apart by hand, so that an error names its field and nothing that
/// is not read needs to be legible.
struct Fields<'a>(HashMap<Cow<'a, str>, Raw<'a>>);

impl<'a> Fields<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Problem> {
        let members = Members::read(body).map_err(|e| {
            let message = if e.is_data() {
                "The request body must be a JSON object".to_owned()
            } else {
                format!("The request body is not valid JSON: {e}")
            };
            Problem::new(ProblemKind::InvalidRequest, message)
        })?;
        Ok(Self(members.0.into_iter().collect()))
    }

    /// The same of a list.
    fn list(&mut self, name: &str) -> Result<Option<Vec<Raw<'a>>>, Problem> {
        let Some(raw) = self.0.remove(name) else { return Ok(None) };
        raw.elements().map(Some).map_err(|e| invalid(name, &e))
    }

    /// The field's value, typed; `None` if it is absent or null.
    fn take<T: Deserialize<'a>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let Some(raw) = self.0.remove(name) else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|e| invalid(name, &e))
    }

    /// Notes what nobody took.
    fn name_the_rest(self, ignored: &mut Ignored) {
        for (name, value) in self.0 {
            if value.get() != "null" {
                ignored.add_field(&name);
            }
        }
    }
}

/// What Claude Code puts before the system prompt to attribute costs. It changes with each version,
/// which would spoil the prompt cache, and is no business of the backend (clients.md 8).
const ATTRIBUTION: &str = "x-anthropic-billing-header";

/// The system prompt as one text.
fn instructions(raw: Raw<'_>, ignored: &mut Ignored) -> Result<Option<String>, Problem> {
    let parts = Content::parse(raw, "system")?.parts("system", ignored)?;
    let texts: Vec<String> = parts
        .into_iter()
        .filter_map(|part| match part {
            InputPart::InputText { text } if !text.starts_with(ATTRIBUTION) => Some(text),
            _ => None,
        })
        .collect();
    Ok((!texts.is_empty()).then(|| texts.join("\n\n")))
}
