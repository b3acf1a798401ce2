//! OpenAI Images. The backend has the same two calls, so a request is held to what those take, and
//! the answer passes as it is.

mod request;

pub use request::{Pictures, prepare};
