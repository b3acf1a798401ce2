//! Client dialects: pure translation between a client's API and the `codex` types. No I/O.
//!
//! The same files stand in each dialect: `request`, `stream`, `whole`, `error`.

pub mod chat;
pub mod messages;
pub mod responses;
