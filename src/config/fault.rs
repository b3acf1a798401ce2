//! What is wrong with a configuration: every fault, each with its key, where the value came from,
//! and what was expected.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting, or the file that could not be read.
    pub key: String,
    /// Where the value came from: `env TOLLWAY_…`, a file, a flag.
    pub origin: String,
    /// What is wrong. Never holds a secret.
    pub problem: String,
}

impl Fault {
    pub(super) fn new(key: impl Into<String>, origin: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), origin: origin.into(), problem: problem.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.problem)
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.len();
        write!(f, "the configuration has {number} fault{}:", if number == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}
