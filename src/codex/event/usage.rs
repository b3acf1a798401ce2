//! What a response has used.

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
