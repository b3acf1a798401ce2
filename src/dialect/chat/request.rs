//! From a Chat Completions body to the backend's request.

use super::wire::{FormatKind, Request as Wire, ResponseFormat};
use super::{ChatReply, Shape, history, tools};
use crate::codex::Request;
use crate::codex::request::{Reasoning, Text, TextFormat, Tool};
use crate::dialect::names::Names;
use crate::dialect::responses;
use crate::dialect::{Context, ModelMap, Prepared, Problem, ProblemKind};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fields that the backend has no place for. Leaving them out changes how the model answers, not
/// what it is asked; each that a request has is named in `x-tollway-ignored`.
pub const IGNORED: [&str; 18] = [
    "audio",
    "frequency_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "metadata",
    "modalities",
    "prediction",
    "presence_penalty",
    "prompt_cache_retention",
    "safety_identifier",
    "seed",
    "stop",
    "store",
    "temperature",
    "top_k",
    "top_p",
    "user",
];

/// Reads a request. One that is shaped like a Responses request (some editors send these here) is
/// understood, and answered in this dialect.
pub fn prepare(body: &Bytes, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let present: Present<'_> = parse(body)?;
    if !present.has("messages") && present.has("input") {
        return responses_shaped(body, context, models);
    }
    let mut wire: Wire = parse(body)?;
    let requested = wire.model.take().filter(|name| !name.is_empty());
    let requested = requested.ok_or_else(|| Problem::invalid("model", "`model` is required"))?;
    refuse(&wire)?;
    let resolved = models.resolve(&requested);
    let (mut names, mut ignored) = (Names::default(), present.ignored());
    let mut request = Request::new(resolved.slug.clone());
    tools::translate(&mut wire, &mut request, &mut names, &mut ignored)?;
    history::translate(wire.messages.take().unwrap_or_default(), &mut request)?;
    options(&wire, &mut request, resolved.effort, &mut ignored);
    let shape = Shape {
        context: context.clone(),
        model: requested.clone(),
        names,
        include_usage: wire.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
        legacy: wire.functions.is_some(),
    };
    let body = serde_json::to_vec(&request).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?;
    Ok(Prepared {
        model: resolved.slug,
        requested_model: requested,
        stream: wire.stream.unwrap_or(false),
        body: Bytes::from(body),
        ignored,
        session: request.prompt_cache_key,
        reply: Box::new(ChatReply(Arc::new(shape))),
    })
}

/// The names of the fields that are there and not null.
#[derive(Deserialize)]
struct Present<'a>(#[serde(borrow)] BTreeMap<std::borrow::Cow<'a, str>, &'a RawValue>);

impl Present<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() != "null")
    }

    fn ignored(&self) -> Vec<&'static str> {
        IGNORED.into_iter().filter(|name| self.has(name)).collect()
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(ProblemKind::InvalidRequest, format!("The request body is not a chat completion request: {error}"))
    })
}

fn responses_shaped(body: &Bytes, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let prepared = responses::request::prepare(body, context, models, false)?;
    let shape = Shape {
        context: context.clone(),
        model: prepared.requested_model.clone(),
        names: Names::default(),
        include_usage: true,
        legacy: false,
    };
    Ok(Prepared { reply: Box::new(ChatReply(Arc::new(shape))), ..prepared })
}

/// What cannot be left out without answering another question.
fn refuse(wire: &Wire) -> Result<(), Problem> {
    if wire.messages.as_ref().is_none_or(Vec::is_empty) {
        return Err(Problem::invalid("messages", "`messages` must be a non-empty list"));
    }
    if wire.n.is_some_and(|n| n != 1) {
        return Err(Problem::invalid("n", "`n` must be 1: the backend gives one answer a request"));
    }
    if wire.logprobs == Some(true) || wire.top_logprobs.is_some_and(|n| n > 0) {
        return Err(Problem::invalid("logprobs", "`logprobs` are not available: the backend does not give them"));
    }
    Ok(())
}

fn options(wire: &Wire, request: &mut Request, alias_effort: Option<String>, ignored: &mut Vec<&'static str>) {
    let asked = wire.reasoning_effort.clone().or_else(|| wire.reasoning.as_ref().and_then(|r| r.effort.clone()));
    // The summary is what `reasoning_content` is made of.
    request.reasoning = Some(Reasoning { effort: asked.or(alias_effort), summary: Some("auto".to_owned()) });
    request.prompt_cache_key.clone_from(&wire.prompt_cache_key);
    match wire.service_tier.as_deref() {
        Some("priority" | "fast") => request.service_tier = Some("priority".to_owned()),
        Some("auto" | "default") | None => {}
        Some(_) => ignored.push("service_tier"),
    }
    let format = wire.response_format.as_ref().and_then(text_format);
    if format.is_some() || wire.verbosity.is_some() {
        request.text = Some(Text { verbosity: wire.verbosity.clone(), format });
    }
    if let Some(options) = &wire.web_search_options {
        let mut search = Map::new();
        for name in ["search_context_size", "user_location"] {
            if let Some(value) = options.get(name) {
                // Chat nests what Responses has flat.
                let value = value.get("approximate").map_or_else(|| value.clone(), |inner| with_type(inner.clone()));
                search.insert(name.to_owned(), value);
            }
        }
        request.tools.push(Tool::WebSearch(search));
    }
}

fn with_type(mut location: Value) -> Value {
    if let Some(fields) = location.as_object_mut() {
        fields.insert("type".to_owned(), Value::from("approximate"));
    }
    location
}

fn text_format(format: &ResponseFormat) -> Option<TextFormat> {
    match (format.kind, &format.json_schema) {
        (FormatKind::Text, _) => None,
        (FormatKind::JsonSchema, Some(json_schema)) => Some(TextFormat::JsonSchema {
            name: json_schema.name.clone().unwrap_or_else(|| "response".to_owned()),
            description: json_schema.description.clone(),
            strict: json_schema.strict.unwrap_or(false),
            schema: json_schema.schema.clone().unwrap_or_else(tools::any_object),
        }),
        (FormatKind::JsonObject | FormatKind::JsonSchema, _) => Some(TextFormat::JsonObject),
    }
}
