//! The OpenAI Responses dialect, which the Codex CLI speaks too. The backend speaks nearly the same,
//! so requests are edited at their top level only and events pass through as bytes.

mod bound;
mod bounded;
pub mod compact;
pub mod count;
mod echo;
pub mod error;
pub(crate) mod fields;
pub mod incremental;
pub mod request;
mod stream;
mod whole;

pub use echo::Echo;
pub use fields::{DROPPED, REFUSED};

#[cfg(test)]
mod tests;
