//! Errors in OpenAI's shape: the same object as Chat Completions (clients.md 2).

use crate::dialect::{Problem, Rendered};

/// The error answer.
pub fn render(problem: &Problem) -> Rendered {
    crate::dialect::chat::error::render(problem)
}
