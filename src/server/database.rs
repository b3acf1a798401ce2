//! How the gateway goes on while its database is away: for a stated time as if nothing were wrong,
//! then no longer. SQLite is a file beside the process: its absence is no passing matter.

use crate::dialect::Problem;
use crate::store::{Changes, Store};
use std::time::Duration;

/// What is wrong with the process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ailments {
    /// It must not be sent requests.
    pub faults: Vec<String>,
    /// It serves all the same, for a while.
    pub degraded: Vec<String>,
}

/// Something that is wrong, and whether requests can be served all the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ailment {
    Fault(String),
    Degraded(String),
}

/// Whether the database answers, and what follows.
#[derive(Debug)]
pub(super) struct Database {
    changes: Changes,
    /// For how long it may be away; none for a file.
    grace: Option<Duration>,
}

impl Ailments {
    pub(super) fn add(&mut self, ailment: Ailment) {
        match ailment {
            Ailment::Fault(text) => self.faults.push(text),
            Ailment::Degraded(text) => self.degraded.push(text),
        }
    }
}

impl Database {
    pub(super) fn new(changes: Changes, store: &Store, grace: Duration) -> Self {
        Self { changes, grace: store.is_shared().then_some(grace) }
    }

    /// What tells of changes.
    pub(super) fn changes(&self) -> Changes {
        self.changes.clone()
    }

    /// For how long the database has not answered; `None` while it does.
    pub(super) fn silence(&self) -> Option<Duration> {
        self.changes.silence()
    }

    /// What a problem of the database, as old as this, means for readiness.
    pub(super) fn ailment(&self, age: Duration, text: String) -> Ailment {
        match self.grace {
            Some(grace) if age < grace => {
                let left = grace.saturating_sub(age).as_secs();
                Ailment::Degraded(format!("{text}; requests with a known key are served for {left} s more"))
            }
            _ => Ailment::Fault(text),
        }
    }

    /// Whether requests are taken, with the oldest unwritten row of the ledger as old as this.
    pub(super) fn intake(&self, unwritten: Duration) -> Result<(), Problem> {
        let Some(grace) = self.grace else { return Ok(()) };
        if self.silence().is_some_and(|silence| silence >= grace) {
            return Err(Problem::unavailable(
                "The gateway's database has not answered for too long: keys cannot be checked any more",
            ));
        }
        if unwritten >= grace && !grace.is_zero() {
            return Err(Problem::unavailable(
                "The gateway cannot write down what is used, and takes no more requests until it can",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_mins(1);

    fn database(grace: Option<Duration>) -> Database {
        Database { changes: Changes::told().1, grace }
    }

    #[test]
    fn a_server_that_is_away_degrades_the_process_and_then_fails_it() {
        let server = database(Some(GRACE));
        let of = |seconds| server.ailment(Duration::from_secs(seconds), "away".to_owned());
        assert_eq!(of(10), Ailment::Degraded("away; requests with a known key are served for 50 s more".to_owned()));
        assert_eq!(of(60), Ailment::Fault("away".to_owned()));
        let file = database(None).ailment(Duration::ZERO, "away".to_owned());
        assert_eq!(file, Ailment::Fault("away".to_owned()));
    }

    #[test]
    fn intake_ends_when_the_books_are_not_written_for_too_long() {
        let server = database(Some(GRACE));
        assert!(server.intake(Duration::from_secs(59)).is_ok());
        let refused = server.intake(GRACE).expect_err("too late");
        assert_eq!((refused.kind.status().as_u16(), refused.retry_after.is_some()), (503, true));
        assert!(database(None).intake(GRACE).is_ok(), "the buffer's bound is a file's");
    }
}
