//! OpenAI Images.
//!
//! The backend has two calls for pictures, which neither stream nor take every field, and a tool,
//! `image_generation`, that a model uses within a response. A request goes by the call where the call
//! can honour it, and its answer passes as it is; else by the tool, whose events `stream` and `whole`
//! tell in this dialect's words (protocol.md 3, 6.5).

mod answer;
mod error;
pub mod form;
mod request;
mod stream;
mod whole;

pub use request::{Asked, Pictures, prepare};

use crate::dialect::{Folder, Reply, Translator};
use answer::Shape;
use std::sync::Arc;

/// What a request wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// `/v1/images/generations`.
    Generate,
    /// `/v1/images/edits`.
    Edit,
}

/// Makes the translators of an answer of the tool.
struct Answer(Arc<Shape>);

impl Reply for Answer {
    fn stream(&self) -> Box<dyn Translator> {
        Box::new(stream::Stream::new(Arc::clone(&self.0)))
    }

    fn whole(&self) -> Box<dyn Folder> {
        Box::new(whole::Whole::new(Arc::clone(&self.0)))
    }
}
