//! Tollway: a multi-tenant gateway for a team's ChatGPT/Codex accounts.
//!
//! `ls src` is the architecture. Dependencies point one way:
//!
//! ```text
//! cli ─┐
//!      ├─> server ─> { relay, kept, batch } ─> { dialect, account, tenant, ledger } ─> { codex, oauth, store }
//! main ┘                 config and telemetry are read by whoever is built from them;
//!                        webhook takes what the server tells it to the outside
//!                        oidc is how the server lets people sign in
//!                        alarm is a timer that whoever waits for a connection sets
//! ```
//!
//! `dialect` knows only `codex` types and does no I/O; `store` knows the domain's plain types and
//! nobody's behaviour; nothing imports `server` or `cli`. `tests/architecture.rs` walks the imports
//! and fails on an arrow that points back.

pub mod account;
mod alarm;
pub mod batch;
pub mod cli;
pub mod codex;
pub mod config;
pub mod dialect;
pub mod kept;
pub mod ledger;
pub mod oauth;
pub mod oidc;
pub mod relay;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tenant;
pub mod webhook;
