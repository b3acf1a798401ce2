//! What holds for any input.

mod chat;
mod cuts;
mod messages;
mod requests;
mod streams;
