//! OpenAI Chat Completions: what most clients speak that are not made by a model's vendor.
//!
//! `request` turns a body into the backend's request, `assembly` turns the backend's events into
//! pieces of one assistant message, and `stream` and `whole` write those pieces as chunks or as one
//! completion: the two cannot disagree, for they differ only in where the pieces go. Pure
//! translation, no I/O; this room knows nothing of accounts, keys or HTTP.

mod assembly;
mod ending;
pub mod error;
mod frames;
mod gate;
pub mod request;
mod stream;
mod whole;

pub use request::fields::{IGNORED, REFUSED};
pub use request::prepare;

use crate::dialect::cut::Bounds;
use crate::dialect::names::Names;
use crate::dialect::{Folder, Reply, Translator};
use std::sync::Arc;

/// What an answer must know of its request.
#[derive(Debug)]
struct Shape {
    /// `chatcmpl-…`, the same in every chunk.
    id: String,
    /// Unix seconds.
    created: i64,
    /// The model as the client named it.
    model: String,
    /// Tool names by the short form that went upstream.
    names: Names,
    /// Whether the client offered `functions` and so expects `function_call` instead of `tool_calls`.
    is_legacy: bool,
    /// Whether a stream ends with a chunk that holds nothing but usage.
    include_usage: bool,
    /// Where the client wants the answer to end.
    bounds: Arc<Bounds>,
    /// Input tokens, estimated, for the usage of an answer that was cut.
    estimate: u64,
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
}
