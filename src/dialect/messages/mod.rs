//! Anthropic Messages: what Claude Code and the Anthropic SDKs speak (clients.md 1.1, 8).
//!
//! `request` turns a body into the backend's request, `assembly` turns the backend's events into
//! content blocks, and `stream` and `whole` write those blocks as frames or as one message: the two
//! cannot disagree, for they differ only in where the blocks go. Pure translation, no I/O.

mod assembly;
pub mod count;
pub mod error;
mod frames;
pub mod request;
pub mod stream;
pub mod whole;

pub use count::count_tokens;
pub use request::prepare;

use crate::dialect::cut::Bounds;
use crate::dialect::names::Names;
use crate::dialect::{Folder, Reply, Translator};
use std::sync::Arc;

/// How much of the model's reasoning a client asked to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinking {
    /// No thinking blocks: the client did not ask for any.
    Hidden,
    /// Thinking blocks without text, which carry the encrypted reasoning from turn to turn.
    SignatureOnly,
    /// Thinking blocks with the summary.
    Summary,
}

/// What an answer must know of its request.
#[derive(Debug)]
struct Shape {
    /// Made into the message's id, and repeated in errors.
    request_id: String,
    /// The model as the client named it.
    model: String,
    /// Tool names by the short form that went upstream.
    names: Names,
    /// What to show of the reasoning.
    thinking: Thinking,
    /// Input tokens, estimated: the true number is known only at the end of a stream.
    estimate: u64,
    /// Where the client wants the answer to end.
    bounds: Arc<Bounds>,
}

/// Makes the translators of one answer.
struct Answer(Arc<Shape>);

impl Reply for Answer {
    fn stream(&self) -> Box<dyn Translator> {
        Box::new(stream::Stream::new(Arc::clone(&self.0)))
    }

    fn whole(&self) -> Box<dyn Folder> {
        Box::new(whole::Whole::new(Arc::clone(&self.0)))
    }

    fn counts_tokens(&self) -> bool {
        self.0.bounds.has_limit()
    }

    fn request_tokens(&self) -> Option<u64> {
        Some(self.0.estimate)
    }
}
