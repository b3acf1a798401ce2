//! The messages dialect.

pub mod error;
