//! The responses dialect.

pub mod error;
