//! The Codex backend as types, and the client that speaks to it.
//!
//! Request, event, failure and limits are the canonical model that every client dialect is
//! translated to and from. This room knows the wire (protocol.md 2–6) and nothing of tenants,
//! accounts in a pool, or client dialects.

pub mod client;
pub mod event;
pub mod failure;
mod item;
mod lanes;
pub mod limits;
pub mod raw;
pub mod request;
pub mod route;
pub(crate) mod skim;
pub mod socket;
pub mod sse;
pub mod stream;
pub(crate) mod text;

pub use client::Client;
pub use event::{Event, Usage};
pub use failure::{Failure, FailureKind};
pub use lanes::Lanes;
pub use request::Request;
