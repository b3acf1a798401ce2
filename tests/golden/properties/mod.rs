//! What holds for any input.

mod chat;
mod messages;
