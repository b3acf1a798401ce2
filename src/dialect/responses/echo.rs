//! What a response object repeats of its request. The backend is not told everything that a client
//! asked (it keeps nothing, and refuses some parameters), so its object says otherwise, or nothing.

use super::fields::Members;
use serde_json::json;
use std::borrow::Cow;

/// Fields that the backend is not told: the object says what the client said.
const WITHHELD: [&str; 11] = [
    "metadata",
    "temperature",
    "top_p",
    "max_output_tokens",
    "max_tool_calls",
    "top_logprobs",
    "truncation",
    "user",
    "safety_identifier",
    "prompt_cache_retention",
    "prompt",
];

/// Fields that the backend is told: its own word counts where it says one.
const TOLD: [&str; 8] = [
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "prompt_cache_key",
    "service_tier",
];

/// What a response object must say, and what it says where the backend says nothing.
#[derive(Debug, Clone, Default)]
pub struct Echo {
    /// Said whatever the backend says.
    over: Vec<(&'static str, String)>,
    /// Said where the backend says nothing, or null.
    under: Vec<(&'static str, String)>,
}

impl Echo {
    /// Nothing to repeat yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The object says this, JSON, whatever the backend says.
    #[must_use]
    pub fn saying(mut self, name: &'static str, value: String) -> Self {
        self.over.retain(|(known, _)| *known != name);
        self.over.push((name, value));
        self
    }

    /// With what stands in the request, and with what the SDKs' types require of a response object.
    pub(super) fn of(mut self, request: &Members<'_>, model: &str, created_at: i64) -> Self {
        let said = |name: &'static str| {
            let value = request.get(name)?.get();
            (value != "null").then(|| (name, compact(value)))
        };
        self.over.extend(WITHHELD.into_iter().filter_map(said));
        self.under.extend(TOLD.into_iter().filter_map(said));
        let required: [(&'static str, String); 13] = [
            ("object", json!("response").to_string()),
            ("created_at", created_at.to_string()),
            ("model", json!(model).to_string()),
            ("error", "null".to_owned()),
            ("incomplete_details", "null".to_owned()),
            ("instructions", "null".to_owned()),
            ("metadata", "{}".to_owned()),
            ("parallel_tool_calls", "true".to_owned()),
            ("temperature", "1.0".to_owned()),
            ("tool_choice", json!("auto").to_string()),
            ("tools", "[]".to_owned()),
            ("top_p", "1.0".to_owned()),
            ("output", "[]".to_owned()),
        ];
        let is_new = |name: &str| self.under.iter().all(|(known, _)| *known != name);
        let required: Vec<_> = required.into_iter().filter(|(name, _)| is_new(name)).collect();
        self.under.extend(required);
        self
    }

    /// The response object as it is to be read, with `more` in it; `None` where nothing changes.
    pub(super) fn apply(&self, response: &Members<'_>, more: Vec<(&'static str, String)>) -> Option<String> {
        let mut changed: Vec<_> = more.into_iter().map(|(name, value)| (name, Cow::Owned(value))).collect();
        let is_in =
            |changed: &[(&'static str, Cow<'_, str>)], name: &str| changed.iter().any(|(known, _)| *known == name);
        for (name, value) in &self.over {
            if response.get(name).is_none_or(|told| told.get() != value) && !is_in(&changed, name) {
                changed.push((name, Cow::Borrowed(value)));
            }
        }
        let is_over = |name: &str| self.over.iter().any(|(known, _)| *known == name);
        for (name, value) in &self.under {
            let is_told = response.get(name).is_some_and(|told| told.get() != "null" || value == "null");
            if !is_told && !is_in(&changed, name) && !is_over(name) {
                changed.push((name, Cow::Borrowed(value)));
            }
        }
        if changed.is_empty() {
            return None;
        }
        Some(response.with(&changed))
    }
}

/// JSON without the white space between its parts: a line break would end an event's data.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut is_text, mut is_escaped) = (false, false);
    for letter in json.chars() {
        if is_text {
            is_text = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
        } else if matches!(letter, ' ' | '\t' | '\r' | '\n') {
            continue;
        } else {
            is_text = letter == '"';
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_space_between_parts_goes() {
        let json = "{\n  \"a b\" : [ 1, \"x \\\" y\\\\\" ,\ttrue ]\r\n}";
        assert_eq!(compact(json), r#"{"a b":[1,"x \" y\\",true]}"#);
    }
}
