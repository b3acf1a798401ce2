//! The chat dialect.

pub mod error;
