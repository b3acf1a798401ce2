//! How hard to think, what to show of it, and the format of the answer.

use super::blocks::required;
use super::ignored::{self, Ignored};
use super::tools::is_strict;
use crate::codex::request::{Reasoning, TextFormat};
use crate::dialect::Problem;
use crate::dialect::cut::Bounds;
use crate::dialect::messages::Thinking;
use crate::dialect::{effort, names};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The efforts that some model of the backend knows (protocol.md 7).
const EFFORTS: [&str; 8] = ["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"];

/// `thinking` of a request.
#[derive(Debug, Deserialize)]
pub(super) struct ThinkingConfig<'a> {
    /// `enabled`, `adaptive` or `disabled`.
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    budget_tokens: Option<u64>,
    /// `omitted` or `summarized`.
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    display: Option<Cow<'a, str>>,
}

impl ThinkingConfig<'_> {
    /// What the client wants to see.
    pub(super) fn shown(&self) -> Thinking {
        match (&*self.kind, self.display.as_deref()) {
            ("disabled", _) => Thinking::Hidden,
            (_, Some("omitted")) => Thinking::SignatureOnly,
            _ => Thinking::Summary,
        }
    }

    fn effort_of_budget(&self) -> Option<&'static str> {
        let budget = self.budget_tokens.filter(|_| self.kind == "enabled")?;
        Some(effort::of_budget(budget))
    }
}

/// `output_config` of a request.
#[derive(Debug, Default, Deserialize)]
pub(super) struct OutputConfig<'a> {
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    effort: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) format: Option<Format<'a>>,
    #[serde(default)]
    task_budget: Option<IgnoredAny>,
}

/// A format of the answer.
#[derive(Debug, Deserialize)]
pub(super) struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    schema: Option<&'a RawValue>,
}

/// The effort: what `output_config` says, else what the budget means, else what the alias carries,
/// else `low` if thinking is switched off, else the backend's default.
pub(super) fn reasoning(
    thinking: Option<&ThinkingConfig<'_>>,
    output: &OutputConfig<'_>,
    of_alias: Option<String>,
    ignored: &mut Ignored,
) -> Option<Reasoning> {
    if output.task_budget.is_some() {
        ignored.add(ignored::TASK_BUDGET);
    }
    let named = output.effort.as_deref().and_then(|effort| {
        let known = EFFORTS.contains(&effort);
        if !known {
            ignored.add(ignored::EFFORT);
        }
        known.then_some(effort)
    });
    let of_budget = || thinking.and_then(ThinkingConfig::effort_of_budget);
    let is_off = thinking.is_some_and(|thinking| thinking.kind == "disabled");
    let effort = named.or_else(of_budget).map(str::to_owned).or(of_alias).or_else(|| is_off.then(|| "low".to_owned()));
    let is_shown = thinking.is_some_and(|thinking| thinking.shown() == Thinking::Summary);
    let summary = is_shown.then(|| "auto".to_owned());
    (effort.is_some() || summary.is_some()).then_some(Reasoning { effort, summary })
}

/// More sequences than this are a mistake: each is looked for in every piece of the answer.
const MOST_STOPS: usize = 64;

/// Where the answer is to end. The backend takes neither, so it is cut on its way down.
pub(super) fn bounds(stops: Option<Vec<String>>, limit: Option<u64>) -> Result<Bounds, Problem> {
    let stops = stops.unwrap_or_default();
    if stops.len() > MOST_STOPS {
        let message = format!("stop_sequences: List should have at most {MOST_STOPS} items");
        return Err(Problem::invalid("stop_sequences", message));
    }
    if limit == Some(0) {
        return Err(Problem::invalid("max_tokens", "max_tokens: Input should be greater than or equal to 1"));
    }
    Ok(Bounds::new(stops, limit))
}

/// The format of the answer, if it is one the backend has.
pub(super) fn format(format: Option<Format<'_>>, ignored: &mut Ignored) -> Result<Option<TextFormat>, Problem> {
    const PATH: &str = "output_config.format";
    let Some(format) = format else { return Ok(None) };
    let schema = match (&*format.kind, format.schema) {
        ("json_schema", Some(schema)) => schema,
        ("json_schema", None) => return Err(required(&format!("{PATH}.schema"))),
        ("text", _) => return Ok(None),
        (other, _) => return Err(Problem::invalid(PATH, format!("{PATH}: unknown type '{other}'"))),
    };
    let strict = is_strict(schema);
    if !strict {
        ignored.add(ignored::FORMAT_STRICT);
    }
    let name = format.name.map_or_else(|| "output".to_owned(), Cow::into_owned);
    Ok(Some(TextFormat::JsonSchema {
        name: names::shorten(&name).into_owned(),
        description: None,
        strict,
        schema: schema.to_owned(),
    }))
}
