//! Token counts: a deterministic function of the content, so that a ledger can be checked.
//!
//! Pure. Four characters are a token, a picture is 85.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use serde_json::{Value, json};

use crate::script::Output;

const PICTURE: u64 = 85;

/// What one answer costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    /// All input tokens, cached ones too.
    pub(crate) input: u64,
    /// Those of `input` that were cached.
    pub(crate) cached: u64,
    /// All output tokens, reasoning too.
    pub(crate) output: u64,
    /// Those of `output` spent on reasoning.
    pub(crate) reasoning: u64,
}

impl Usage {
    /// The `usage` object of the final event (protocol.md 3).
    pub(crate) fn report(self) -> Value {
        json!({
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        })
    }

    /// Adds another answer's cost.
    pub(crate) fn add(&mut self, other: Self) {
        self.input += other.input;
        self.cached += other.cached;
        self.output += other.output;
        self.reasoning += other.reasoning;
    }
}

/// The tokens of a text.
pub(crate) fn of_text(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

fn of_value(value: &Value) -> u64 {
    match value {
        Value::String(text) if text.starts_with("data:image/") => PICTURE,
        Value::String(text) => of_text(text),
        Value::Array(items) => items.iter().map(of_value).sum(),
        Value::Object(fields) => fields.values().map(of_value).sum(),
        _ => 1,
    }
}

/// A request's prompt as a chain: each link is the hash of everything up to there and the
/// tokens up to there. Two requests share a prefix as long as their links agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prompt(Vec<(u64, u64)>);

impl Prompt {
    /// The prompt of a request: instructions and tools first, then each input item.
    pub(crate) fn of(request: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut tokens = 0;
        let head = ["instructions", "tools"].into_iter().filter_map(|key| request.get(key));
        for value in head {
            hash(value, &mut hasher);
            tokens += of_value(value);
        }
        let mut links = vec![(hasher.finish(), tokens)];
        for item in request.get("input").and_then(Value::as_array).into_iter().flatten() {
            hash(item, &mut hasher);
            tokens += of_value(item);
            links.push((hasher.finish(), tokens));
        }
        Self(links)
    }

    /// All tokens of the prompt.
    pub(crate) fn tokens(&self) -> u64 {
        self.0.last().map_or(0, |link| link.1)
    }

    /// The tokens of the prefix shared with an earlier prompt.
    pub(crate) fn shared_with(&self, earlier: &Self) -> u64 {
        let same = self.0.iter().zip(&earlier.0).take_while(|(mine, theirs)| mine == theirs);
        same.last().map_or(0, |(link, _)| link.1)
    }
}

fn hash(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::String(text) => text.hash(hasher),
        Value::Array(items) => items.iter().for_each(|item| hash(item, hasher)),
        Value::Object(fields) => {
            // Ids and metadata differ between replays of one item; the prompt does not.
            let content = fields.iter().filter(|(key, _)| {
                !matches!(key.as_str(), "id" | "status" | "internal_chat_message_metadata_passthrough")
            });
            for (key, field) in content {
                key.hash(hasher);
                hash(field, hasher);
            }
        }
        other => other.to_string().hash(hasher),
    }
}

/// Output tokens and, of these, reasoning tokens.
pub(crate) fn of_outputs(outputs: &[Output]) -> (u64, u64) {
    let mut total = 0;
    let mut reasoning = 0;
    for output in outputs {
        total += match output {
            Output::Message { pieces, .. } => of_text(&pieces.concat()),
            Output::Refusal(text) => of_text(text),
            Output::Call(call) => of_text(&call.name) + of_text(&call.input),
            Output::Reasoning { summary, .. } => {
                let thought = 16 + of_text(&summary.concat());
                reasoning += thought;
                thought
            }
            Output::Search { .. } => 8,
            Output::Image(_) => 32,
            Output::Compaction { .. } => 64,
        };
    }
    (total, reasoning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(texts: &[&str]) -> Prompt {
        let items: Vec<Value> = texts.iter().map(|text| json!({"role":"user","content":text})).collect();
        Prompt::of(&json!({"instructions":"be brief, please","input":items}))
    }

    #[test]
    fn a_longer_prompt_shares_all_of_the_earlier_one() {
        let first = prompt(&["hello there"]);
        let second = prompt(&["hello there", "and again"]);
        assert_eq!(second.shared_with(&first), first.tokens());
        assert!(second.tokens() > first.tokens());
    }

    #[test]
    fn a_changed_first_item_shares_only_the_instructions() {
        assert_eq!(prompt(&["a"]).shared_with(&prompt(&["b"])), of_text("be brief, please"));
    }

    #[test]
    fn pictures_cost_the_same_whatever_their_size() {
        assert_eq!(of_value(&json!("data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAA")), PICTURE);
        assert_eq!(of_text("12345"), 2);
    }
}
