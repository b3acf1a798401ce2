//! From a Chat Completions body to the backend's request.
//!
//! Rule for what is not known: an unknown field is ignored and named; a known field of the wrong
//! type, and a content part that the model would have to see and cannot, are the client's fault.
//! `null` is the same as absent.

mod content;
pub(super) mod fields;
mod history;
mod options;
mod reasoning;
mod responses_shaped;
mod tools;

use super::{Answer, Shape};
use crate::codex::Request;
use crate::dialect::beginning::Beginning;
use crate::dialect::cut::Bounds;
use crate::dialect::messages::count;
use crate::dialect::names::Names;
use crate::dialect::responses::fields::Members;
use crate::dialect::{Context, ModelMap, Prepared, Problem, ProblemKind, Wish};
use bytes::Bytes;
use fields::{Fields, Ignored};
use history::Conversation;
use std::sync::Arc;

/// Turns the body of `POST /v1/chat/completions` into the backend's request.
///
/// Fails with [`ProblemKind::InvalidRequest`] only.
pub fn prepare(body: &Bytes, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let members = Members::read(body).map_err(|error| {
        Problem::new(ProblemKind::InvalidRequest, format!("The request body is not a JSON object: {error}"))
    })?;
    if members.get("messages").is_none() && members.get("input").is_some() {
        return match responses_shaped::messages(&members) {
            Some(members) => prepare_chat(members, body.len(), context, models),
            None => responses_shaped::prepare(&members, context, models),
        };
    }
    prepare_chat(members, body.len(), context, models)
}

fn prepare_chat(members: Members<'_>, size: usize, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let mut translated = translate(Fields::new(members), models)?;
    let session = translated.request.prompt_cache_key.clone();
    let beginning = if session.is_none() { Beginning::of(&translated.request) } else { None };
    translated.request.prompt_cache_key = session.clone().or_else(|| beginning.clone());
    let request = &translated.request;
    let shape = Shape {
        id: completion_id(context),
        created: context.now,
        model: translated.model.clone(),
        names: translated.names,
        is_legacy: translated.is_legacy,
        include_usage: translated.include_usage,
        bounds: Arc::new(translated.bounds),
        estimate: count::estimate(request),
    };
    let wish = Wish::of(request, shape.bounds.limit());
    let upstream = request.to_json(size).map_err(|e| Problem::new(ProblemKind::Internal, e.to_string()))?;
    Ok(Prepared {
        body: upstream,
        model: translated.request.model,
        requested_model: translated.model,
        stream: translated.is_stream,
        ignored: translated.ignored,
        session,
        beginning,
        wish,
        reply: Box::new(Answer(Arc::new(shape))),
    })
}

/// What OpenAI's ids look like, made of ours.
fn completion_id(context: &Context) -> String {
    format!("chatcmpl-{}", context.request_id.trim_start_matches("req_"))
}

/// A body as the backend takes it, with what the answer must know.
struct Translated {
    request: Request,
    model: String,
    names: Names,
    is_stream: bool,
    is_legacy: bool,
    include_usage: bool,
    bounds: Bounds,
    ignored: Vec<&'static str>,
}

/// Reads the body field by field.
fn translate(mut fields: Fields<'_>, models: &ModelMap) -> Result<Translated, Problem> {
    let wants_images = fields::refuse_what_cannot_be_done(&mut fields)?;
    let mut ignored = Ignored::default();
    let model: String = fields.take("model")?.unwrap_or_default();
    if model.is_empty() {
        return Err(Problem::invalid("model", "you must provide a model parameter"));
    }
    let messages = fields.list("messages")?.unwrap_or_default();
    if messages.is_empty() {
        return Err(Problem::invalid("messages", "`messages` must be a list with at least one message"));
    }
    let resolved = models.resolve(&model);
    let mut request = Request::new(resolved.slug);
    let mut names = Names::default();

    let text = options::text(&mut fields)?;
    let conversation = history::translate(&messages, &mut ignored)?;
    // The backend gives JSON objects only if a message speaks of JSON, and instructions are none.
    let keeps_instructions = !text.as_ref().is_some_and(options::is_json_object);
    let Conversation { instructions, items } = conversation.leading(keeps_instructions);
    request.instructions = instructions;
    request.input = items;
    if request.input.is_empty() {
        return Err(Problem::invalid("messages", "`messages` must hold something to answer"));
    }
    request.text = text;

    let is_legacy = tools::translate(&mut fields, &mut request, wants_images, &mut names)?;
    request.reasoning = options::reasoning(&mut fields, resolved.effort)?;
    request.service_tier = options::service_tier(&mut fields, &mut ignored)?;
    request.prompt_cache_key = fields.take("prompt_cache_key")?;
    let is_stream = fields.take("stream")?.unwrap_or(false);
    let include_usage = options::include_usage(&mut fields, &mut ignored)?;
    let bounds = options::bounds(&mut fields)?;
    fields.name_the_rest(&mut ignored);
    let ignored = ignored.into_names();
    Ok(Translated { request, model, names, is_stream, is_legacy, include_usage, bounds, ignored })
}
