//! Who may call: gateway keys, and the directory that knows them without asking the database.
//!
//! This room must not know what a key is used for, nor how keys are stored beyond reading them.

mod directory;
mod key;

pub use directory::{KeyRefusal, Keys};
pub use key::{KeyFormatError, KeySecret};
