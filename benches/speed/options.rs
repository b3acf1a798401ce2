//! What the kit is asked to do.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};

/// The arguments.
pub(crate) struct Options {
    /// Scenarios by name; none: all that need not be named.
    wanted: Vec<String>,
    pub(crate) rounds: usize,
    pub(crate) soak_minutes: u64,
    pub(crate) ledger_rows: i64,
    /// Whether the page is written.
    pub(crate) write: bool,
    /// Where this process is to send unknown keys to, and nothing else.
    pub(crate) flood: Option<SocketAddr>,
    /// In front of which backend this process is to be the bare program, and nothing else.
    pub(crate) bare: Option<SocketAddr>,
}

impl Options {
    pub(crate) fn read() -> Result<Self> {
        let mut options = Self {
            wanted: Vec::new(),
            rounds: 3,
            soak_minutes: 60,
            ledger_rows: 10_000_000,
            write: false,
            flood: None,
            bare: None,
        };
        // `--bench` is Cargo's.
        for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
            options.take(&argument).context(argument)?;
        }
        Ok(options)
    }

    fn take(&mut self, argument: &str) -> Result<()> {
        match argument.split_once('=') {
            None if argument == "--write" => self.write = true,
            None if !argument.starts_with("--") => self.wanted.push(argument.to_owned()),
            Some(("--rounds", value)) => self.rounds = value.parse()?,
            Some(("--soak-minutes", value)) => self.soak_minutes = value.parse()?,
            Some(("--ledger-rows", value)) => self.ledger_rows = value.parse()?,
            Some(("--flood", value)) => self.flood = Some(value.parse()?),
            Some(("--bare", value)) => self.bare = Some(value.parse()?),
            _ => bail!("is no argument of this kit"),
        }
        Ok(())
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.names(name)
    }

    /// For what takes long, or more than many a machine has to spare.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted == name)
    }
}
