//! What a response has used.

use crate::codex::skim;
use serde::{Deserialize, Deserializer, Serialize};

/// Tokens of one response. `input` includes `cached` and `cache_write`; `output` includes `reasoning`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// All input tokens.
    pub input: u64,
    /// Of these, read from the prompt cache.
    pub cached: u64,
    /// Of these, written to the prompt cache; `None` when the backend does not say.
    pub cache_write: Option<u64>,
    /// All output tokens.
    pub output: u64,
    /// Of these, spent on reasoning.
    pub reasoning: u64,
    /// Input and output together, as the backend says.
    pub total: u64,
}

impl Usage {
    /// Reads what responses say as a rule; `None` for the parser to judge.
    pub(super) fn skim(usage: &[u8]) -> Option<Self> {
        let [mut input, mut output, mut total] = [None; 3];
        let [mut input_details, mut output_details] = [None; 2];
        skim::members(usage, |name, value| match name {
            b"input_tokens" => count(&mut input, value),
            b"output_tokens" => count(&mut output, value),
            b"total_tokens" => count(&mut total, value),
            b"input_tokens_details" => input_details.replace(value).is_none().then_some(()),
            b"output_tokens_details" => output_details.replace(value).is_none().then_some(()),
            _ => Some(()),
        })?;
        let [mut cached, mut cache_write, mut reasoning] = [None; 3];
        // A name of the other details is for the parser, which knows what its value may be.
        skim::members(input_details.unwrap_or(b"{}"), |name, value| match name {
            b"cached_tokens" => count(&mut cached, value),
            b"cache_write_tokens" => count(&mut cache_write, value),
            b"reasoning_tokens" => None,
            _ => Some(()),
        })?;
        skim::members(output_details.unwrap_or(b"{}"), |name, value| match name {
            b"reasoning_tokens" => count(&mut reasoning, value),
            b"cached_tokens" | b"cache_write_tokens" => None,
            _ => Some(()),
        })?;
        let (input, output) = (input.unwrap_or(0), output.unwrap_or(0));
        Some(Self {
            input,
            cached: cached.unwrap_or(0),
            cache_write,
            output,
            reasoning: reasoning.unwrap_or(0),
            total: total.unwrap_or(input + output),
        })
    }
}

/// Of two, the parser has to say what that is.
fn count(place: &mut Option<u64>, value: &[u8]) -> Option<()> {
    place.replace(u64::from(skim::number(value)?)).is_none().then_some(())
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[expect(clippy::struct_field_names, reason = "the names of the wire")]
        struct Details {
            #[serde(default)]
            cached_tokens: Option<u64>,
            #[serde(default)]
            cache_write_tokens: Option<u64>,
            #[serde(default)]
            reasoning_tokens: Option<u64>,
        }
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            input_tokens: Option<u64>,
            #[serde(default)]
            output_tokens: Option<u64>,
            #[serde(default)]
            total_tokens: Option<u64>,
            #[serde(default)]
            input_tokens_details: Option<Details>,
            #[serde(default)]
            output_tokens_details: Option<Details>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let input_details = wire.input_tokens_details.unwrap_or_default();
        let input = wire.input_tokens.unwrap_or(0);
        let output = wire.output_tokens.unwrap_or(0);
        Ok(Self {
            input,
            cached: input_details.cached_tokens.unwrap_or(0),
            cache_write: input_details.cache_write_tokens,
            output,
            reasoning: wire.output_tokens_details.and_then(|d| d.reasoning_tokens).unwrap_or(0),
            total: wire.total_tokens.unwrap_or(input + output),
        })
    }
}
