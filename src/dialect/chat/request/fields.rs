//! The top level of a body, and what of it cannot be honoured: one table, which is also the one in
//! docs/compatibility.md.

use crate::codex::raw::Raw;
use crate::dialect::Problem;
use crate::dialect::responses::fields::Members;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) const REASONING_DETAILS: &str = "messages.reasoning_details";
pub(super) const REASONING_CONTENT: &str = "messages.reasoning_content";
pub(super) const SERVICE_TIER: &str = "service_tier";
pub(super) const MESSAGE_AUDIO: &str = "messages.audio";
pub(super) const MESSAGE_NAME: &str = "messages.name";
pub(super) const OBFUSCATION: &str = "stream_options.include_obfuscation";
const UNKNOWN: &str = "unknown-fields";

/// Each name that `x-tollway-ignored` can carry, and why.
pub const IGNORED: [(&str, &str); 24] = [
    ("frequency_penalty", "the backend has no such parameter"),
    ("logit_bias", "the backend has no such parameter"),
    (MESSAGE_AUDIO, "Tollway keeps no audio; send a transcript as text"),
    (MESSAGE_NAME, "the backend knows no names of participants; a tool's name is used"),
    (REASONING_CONTENT, "a summary is not the reasoning; the backend cannot continue from it"),
    (REASONING_DETAILS, "reasoning that another provider sealed, which the backend cannot read"),
    ("metadata", "the backend refuses it"),
    ("moderation", "the backend applies its own"),
    ("prediction", "the backend has no such parameter"),
    ("presence_penalty", "the backend has no such parameter"),
    ("prompt_cache_options", "the backend refuses it"),
    ("prompt_cache_retention", "the backend refuses it"),
    ("safety_identifier", "the backend refuses it"),
    ("seed", "the backend has no such parameter"),
    (SERVICE_TIER, "the backend has only its default and `priority`"),
    ("store", "Tollway keeps no completions"),
    (OBFUSCATION, "the backend decides"),
    ("temperature", "the backend refuses it"),
    ("top_k", "the backend has no such parameter"),
    ("top_logprobs", "the backend gives no probabilities"),
    ("top_p", "the backend refuses it"),
    ("truncation", "the backend refuses it"),
    ("user", "the backend refuses it"),
    (UNKNOWN, "fields that this version does not know"),
];

/// Fields that ask for another answer than the backend can give: refused with 400, code
/// `unsupported_parameter`, unless they have this neutral value (or null).
pub const REFUSED: [(&str, &str, &str); 3] = [
    ("n", "1", "Tollway gives one choice: leave `n` out or send 1, and ask again for another answer"),
    ("logprobs", "false", "the backend gives no probabilities: leave `logprobs` out"),
    ("audio", "null", "the backend does not speak: leave `audio` out"),
];

/// Refuses what [`REFUSED`] names, and modalities other than text and images. Whether images are
/// among them: that names the backend's generator, as its tool does.
pub(super) fn refuse_what_cannot_be_done(fields: &mut Fields<'_>) -> Result<bool, Problem> {
    let unsupported =
        |name, reason| Problem { code: Some("unsupported_parameter".to_owned()), ..Problem::invalid(name, reason) };
    for (name, neutral, reason) in REFUSED {
        if fields.0.remove(name).is_some_and(|value| value.get() != neutral && value.get() != "null") {
            return Err(unsupported(name, reason));
        }
    }
    let modalities: Vec<String> = fields.take("modalities")?.unwrap_or_default();
    if modalities.iter().any(|modality| modality != "text" && modality != "image") {
        return Err(unsupported("modalities", "the backend answers in text and images only"));
    }
    Ok(modalities.iter().any(|modality| modality == "image"))
}

/// The fields that nobody has read yet; where a name comes twice, the last one counts.
pub(super) struct Fields<'a>(BTreeMap<String, Raw<'a>>);

impl<'a> Fields<'a> {
    pub(super) fn new(members: Members<'a>) -> Self {
        Self(members.0.into_iter().map(|(name, value)| (name.into_owned(), value)).collect())
    }

    /// Takes a field that is a list; `None` where it is absent or `null`.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<Raw<'a>>>, Problem> {
        match self.0.remove(name).filter(|raw| raw.get() != "null") {
            None => Ok(None),
            Some(raw) => raw.elements().map(Some).map_err(|error| wrong(name, &error)),
        }
    }

    /// The field's value, typed; `None` if it is absent or null.
    pub(super) fn take<T: Deserialize<'a>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        self.0.remove(name).map_or(Ok(None), |raw| parse(raw, name))
    }

    /// Notes what nobody took.
    pub(super) fn name_the_rest(self, ignored: &mut Ignored) {
        for (name, value) in self.0 {
            if !is_neutral(&name, value) {
                ignored.add(IGNORED.iter().find(|(known, _)| *known == name).map_or(UNKNOWN, |(known, _)| known));
            }
        }
    }
}

/// A value, typed; `path` is to blame if it is of another type.
pub(super) fn parse<'a, T: Deserialize<'a>>(raw: Raw<'a>, path: &str) -> Result<T, Problem> {
    serde_json::from_str(raw.get()).map_err(|error| wrong(path, &error))
}

/// A field of the wrong type.
pub(super) fn wrong(path: &str, error: &serde_json::Error) -> Problem {
    Problem::invalid(path, format!("Invalid value for `{path}`: {}", reason(&error.to_string())))
}

/// A name or an id. Some clients write a number or an object; its JSON text is as good a name, and
/// the same one wherever it stands.
pub(super) fn word<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    let raw = <Raw<'de>>::deserialize(deserializer)?;
    Ok(match raw.get() {
        "null" => Cow::Borrowed(""),
        text if text.starts_with('"') => serde_json::from_str(text).map(Cow::Owned).map_err(D::Error::custom)?,
        other => Cow::Borrowed(other),
    })
}

/// Serde's words without what only we understand: a position inside the value, names of our types.
fn reason(words: &str) -> String {
    let words = words.split(" at line ").next().unwrap_or_default();
    match words.split_once(", expected struct ") {
        Some((found, _)) => format!("{found}, expected an object"),
        None if words.contains("untagged enum") => "it has none of the known forms".to_owned(),
        None => words.to_owned(),
    }
}

/// Whether a field asks for nothing that would not be so without it.
pub(super) fn is_neutral(name: &str, value: Raw<'_>) -> bool {
    value.get() == "null" || (name == "store" && value.get() == "false")
}

/// What one request asked for in vain.
#[derive(Debug, Default)]
pub(super) struct Ignored(Vec<&'static str>);

impl Ignored {
    /// Adds one of the table's names.
    pub(super) fn add(&mut self, name: &'static str) {
        if !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    pub(super) fn into_names(mut self) -> Vec<&'static str> {
        self.0.sort_unstable();
        self.0
    }
}
