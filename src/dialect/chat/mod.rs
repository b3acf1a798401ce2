//! OpenAI Chat Completions (clients.md 1.3, 5, 8).
//!
//! `request` turns a body into the backend's request; `turn` turns the backend's events into pieces
//! of an assistant's turn; `stream` and `whole` write these pieces as chunks or as one completion,
//! so that the two cannot disagree.

pub mod error;
mod history;
pub mod request;
mod stream;
mod tools;
mod turn;
mod whole;
mod wire;

pub use request::IGNORED;

use crate::dialect::names::Names;
use crate::dialect::{Context, Folder, Reply, Translator};
use std::sync::Arc;

/// What an answer must know of its request.
#[derive(Debug)]
struct Shape {
    /// Ids and the time of creation are made of it.
    context: Context,
    /// The model as the client named it.
    model: String,
    /// Tool names by the short form that went upstream.
    names: Names,
    /// Whether a stream ends with a chunk of usage.
    include_usage: bool,
    /// Whether tools came as `functions`, so that calls go back as `function_call`.
    legacy: bool,
}

impl Shape {
    fn id(&self) -> String {
        format!("chatcmpl-{}", self.context.request_id.trim_start_matches("req_"))
    }
}

/// Makes the translators of one answer.
struct ChatReply(Arc<Shape>);

impl Reply for ChatReply {
    fn stream(&self) -> Box<dyn Translator> {
        Box::new(stream::Chunks::new(self.0.clone()))
    }

    fn whole(&self) -> Box<dyn Folder> {
        Box::new(whole::Completion::new(self.0.clone()))
    }
}

#[cfg(test)]
mod tests;
