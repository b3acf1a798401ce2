//! How hard to think, how to write, which tier.

use super::fields::{self, Fields, Ignored};
use crate::codex::request::{Reasoning, Text, TextFormat};
use crate::dialect::cut::Bounds;
use crate::dialect::{Problem, effort};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// `reasoning`, as some clients write what Chat Completions calls `reasoning_effort`: OpenAI's members
/// of it in Responses, and OpenRouter's.
#[derive(Debug, Default, Deserialize)]
struct WireReasoning {
    #[serde(default)]
    effort: Option<String>,
    #[serde(default)]
    summary: Option<String>,
    /// A budget, which stands for an effort.
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    enabled: Option<bool>,
    /// Whether reasoning is not to be shown.
    #[serde(default)]
    exclude: Option<bool>,
}

/// The effort: what the request says, else what its budget means, else what the alias carries, else
/// `low` if reasoning is switched off, else the backend's default. Who names any of these knows of
/// reasoning and is shown a summary of it; nobody else pays for one.
pub(super) fn reasoning(fields: &mut Fields<'_>, of_alias: Option<String>) -> Result<Option<Reasoning>, Problem> {
    let effort: Option<String> = fields.take("reasoning_effort")?;
    let wire: Option<WireReasoning> = fields.take("reasoning")?;
    let is_known = effort.is_some() || wire.is_some();
    let wire = wire.unwrap_or_default();
    let is_off = wire.enabled == Some(false);
    let effort = effort.or(wire.effort).or_else(|| wire.max_tokens.map(|budget| effort::of_budget(budget).to_owned()));
    let is_shown = is_known && !is_off && wire.exclude != Some(true) && effort.as_deref() != Some("none");
    let summary = wire.summary.or_else(|| is_shown.then(|| "auto".to_owned()));
    let effort = effort.or(of_alias).or_else(|| is_off.then(|| "low".to_owned()));
    Ok((effort.is_some() || summary.is_some()).then_some(Reasoning { effort, summary }))
}

/// `response_format`.
#[derive(Debug, Deserialize)]
struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    json_schema: Option<Schema<'a>>,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the wire")]
struct Schema<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    strict: Option<bool>,
    #[serde(borrow, default)]
    schema: Option<&'a RawValue>,
}

/// Verbosity and format of the answer.
pub(super) fn text(fields: &mut Fields<'_>) -> Result<Option<Text>, Problem> {
    let verbosity = fields.take("verbosity")?;
    let format = fields.take::<Format<'_>>("response_format")?.map(format).transpose()?.flatten();
    Ok((verbosity.is_some() || format.is_some()).then_some(Text { verbosity, format }))
}

pub(super) fn is_json_object(text: &Text) -> bool {
    matches!(text.format, Some(TextFormat::JsonObject))
}

fn format(format: Format<'_>) -> Result<Option<TextFormat>, Problem> {
    const PATH: &str = "response_format";
    match (&*format.kind, format.json_schema) {
        ("text", _) => Ok(None),
        ("json_object", _) => Ok(Some(TextFormat::JsonObject)),
        ("json_schema", Some(Schema { name, description, strict, schema: Some(schema) })) => {
            Ok(Some(TextFormat::JsonSchema {
                name: name.unwrap_or_else(|| "output".to_owned()),
                description,
                strict: strict.unwrap_or(false),
                schema: schema.to_owned(),
            }))
        }
        ("json_schema", _) => Err(Problem::invalid(PATH, "`response_format.json_schema.schema` is required")),
        (other, _) => Err(Problem::invalid(PATH, format!("`response_format.type`: unknown type '{other}'"))),
    }
}

/// The backend knows one tier besides its default; `fast` is that tier's name among people.
pub(super) fn service_tier(fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<Option<String>, Problem> {
    let tier: Option<String> = fields.take("service_tier")?;
    match tier.as_deref() {
        Some("priority" | "fast") => return Ok(Some("priority".to_owned())),
        Some("auto" | "default") | None => {}
        Some(_) => ignored.add(fields::SERVICE_TIER),
    }
    Ok(None)
}

/// `stop`: one sequence, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

/// More sequences than this are a mistake: each is looked for in every piece of the answer.
const MOST_STOPS: usize = 64;

/// Where the answer is to end: `stop`, and the output limit under any of its names. A negative limit
/// is how some clients say that there is none.
pub(super) fn bounds(fields: &mut Fields<'_>) -> Result<Bounds, Problem> {
    let stops = match fields.take::<Stop>("stop")? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Several(stops)) if stops.len() > MOST_STOPS => {
            return Err(Problem::invalid("stop", format!("`stop` must be at most {MOST_STOPS} sequences")));
        }
        Some(Stop::Several(stops)) => stops,
    };
    let mut limit = None;
    for name in ["max_completion_tokens", "max_tokens", "max_output_tokens"] {
        let tokens: Option<i64> = fields.take(name)?;
        if tokens == Some(0) {
            return Err(Problem::invalid(name, format!("`{name}` must be at least 1")));
        }
        limit = limit.or(tokens.and_then(|tokens| u64::try_from(tokens).ok()));
    }
    Ok(Bounds::new(stops, limit))
}

/// Whether a stream is to end with usage.
pub(super) fn include_usage(fields: &mut Fields<'_>, ignored: &mut Ignored) -> Result<bool, Problem> {
    #[derive(Default, Deserialize)]
    struct StreamOptions {
        #[serde(default)]
        include_usage: Option<bool>,
        #[serde(default)]
        include_obfuscation: Option<bool>,
    }
    let options: StreamOptions = fields.take("stream_options")?.unwrap_or_default();
    if options.include_obfuscation == Some(true) {
        ignored.add(fields::OBFUSCATION);
    }
    Ok(options.include_usage.unwrap_or(false))
}
