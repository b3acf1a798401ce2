//! What a token manager remembers between two exchanges, behind its lock. Decides nothing that
//! needs the network or the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::snapshot::{Snapshot, Standing};
use super::token_error::TokenError;
use super::verdict::Verdict;
use crate::oauth::RefreshReason;
use crate::store::{Account, AccountState, Credentials};

/// How far an exchange is.
#[derive(Clone)]
pub(super) enum Progress {
    /// The issuer is being asked, or the store.
    Exchanging,
    /// The issuer has answered, and a write of the answer has failed; it is being repeated.
    Unsaved,
    /// The end, for everybody who waits.
    Done(Result<Arc<Credentials>, TokenError>),
}

/// What a caller wants, which decides whether an exchange has to begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// A token with some life left.
    Valid,
    /// Anything newer than this generation, before it is needed.
    Ahead(i64),
    /// Anything newer than this generation, which the backend has refused.
    Newer(i64),
    /// A new token, because an operator says so.
    Operator,
}

/// The pause after an exchange.
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) detail: String,
    /// Whether a failure is the cause, and not a new token that is short-lived or another's turn.
    pub(super) failed: bool,
}

/// What the lock guards.
#[derive(Default)]
pub(super) struct Memory {
    /// The exchange under way; over as soon as its sender is gone.
    pub(super) flight: Option<watch::Receiver<Progress>>,
    pub(super) pause: Option<Pause>,
    /// Transient failures in a row; the exponent of the backoff.
    pub(super) failures: u32,
    pub(super) verdict: Option<Verdict>,
    /// The generation that the last recovery from a 401 made, and when.
    pub(super) recovered: Option<(i64, Instant)>,
    pub(super) removed: bool,
}

impl Need {
    pub(super) fn reason(self, snapshot: &Snapshot) -> RefreshReason {
        match self {
            Self::Newer(_) => RefreshReason::UnauthorizedRecovery,
            Self::Operator => RefreshReason::Forced,
            Self::Valid | Self::Ahead(_) if snapshot.credentials.access_expires_at.is_none() => {
                RefreshReason::Scheduled
            }
            Self::Valid | Self::Ahead(_) => RefreshReason::ProactiveExpiry,
        }
    }
}

impl Memory {
    pub(super) fn flight(&self) -> Option<watch::Receiver<Progress>> {
        let flight = self.flight.as_ref()?;
        // An error says that the sender is gone: the exchange is over, or it has panicked.
        flight.has_changed().is_ok().then(|| flight.clone())
    }

    pub(super) fn pause_for(&self, need: Need) -> Option<TokenError> {
        let pause = self.pause.as_ref()?;
        let left = pause.until.saturating_duration_since(Instant::now());
        let ignored = match need {
            Need::Operator => true,
            Need::Newer(_) => !pause.failed,
            Need::Valid | Need::Ahead(_) => false,
        };
        (!ignored && !left.is_zero())
            .then(|| TokenError::Unavailable { detail: pause.detail.clone(), retry_after: left })
    }

    pub(super) fn recovered_within(&self, generation: i64, window: Duration) -> bool {
        self.recovered.is_some_and(|(fruit, at)| fruit == generation && at.elapsed() < window)
    }

    /// New credentials: whatever was known about the old ones is void.
    pub(super) fn forget_the_past(&mut self) {
        self.pause = None;
        self.failures = 0;
        self.verdict = None;
        self.recovered = None;
    }

    /// The verdict of this process, where it is about these credentials; else what the row says.
    /// An operator lifts a quarantine in the store; a dead refresh token nobody can revive.
    pub(super) fn standing(&mut self, account: &Account, generation: i64) -> Standing {
        let row = Standing::of(account);
        self.verdict = self.verdict.take().filter(|verdict| {
            let lifted = verdict.standing.state == AccountState::Quarantined
                && row.state == AccountState::Active
                && row.since > verdict.standing.since;
            verdict.generation == generation && !lifted
        });
        match &self.verdict {
            Some(verdict) => verdict.standing.clone(),
            None => row,
        }
    }
}
