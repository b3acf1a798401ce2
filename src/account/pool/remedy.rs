//! What follows from a failure of the backend: one table (lessons.md 1–6), the same for every
//! dialect, for calls that pass as they are, and for the simulation.
//!
//! Before the first byte a failure may be made good, by the same account or by another. After it
//! the stream belongs to its account and ends with the dialect's error; what the failure says of
//! the account holds all the same.

use crate::codex::FailureKind;

/// What is tried on the same account, once, before its turn is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// Nothing.
    No,
    /// The token is refreshed.
    Refresh,
    /// Encrypted reasoning is taken out of the request.
    StripReasoning,
    /// The same request again, after a pause, if no other account may serve: another is the better
    /// chance.
    Again,
}

/// What the failure means for the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing: it is not to blame.
    None,
    /// Its circuit breaker counts it.
    Counted,
    /// Left alone until the delay that was named, or the default one.
    Cool,
    /// Put aside until the reset that was named, or for the default time; only for the model where
    /// the limit is one of the model's family.
    Limit,
    /// Put aside for this model.
    CloseModel,
    /// Put aside, all of it, for as long.
    CloseAccount,
    /// Its tokens are not used any more.
    Quarantine,
}

/// What happens to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next account is tried. It costs nothing: the account said no at once, for its own part.
    NextFree,
    /// The next account is tried, after a pause, as long as the budgets for retries last.
    Next,
    /// The client is told.
    GiveUp,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remedy {
    /// First on the same account.
    pub same: Same,
    /// When that did not help.
    pub account: Consequence,
    /// And the request.
    pub then: Then,
}

/// How long an account is not asked for a model that its plan does not offer, or for anything when
/// its plan does not serve at all, milliseconds. Plans change.
pub const CLOSED: i64 = 3600 * 1000;

/// The table.
pub fn remedy(kind: FailureKind) -> Remedy {
    use FailureKind as K;
    let row = |same, account, then| Remedy { same, account, then };
    match kind {
        K::Unauthorized => row(Same::Refresh, Consequence::Quarantine, Then::NextFree),
        K::UsageLimit => row(Same::No, Consequence::Limit, Then::NextFree),
        K::NotIncluded => row(Same::No, Consequence::CloseAccount, Then::NextFree),
        K::ModelNotOffered => row(Same::No, Consequence::CloseModel, Then::NextFree),
        K::RateLimited => row(Same::No, Consequence::Cool, Then::NextFree),
        K::Overloaded => row(Same::Again, Consequence::None, Then::Next),
        K::ServerError | K::Connection => row(Same::Again, Consequence::Counted, Then::Next),
        K::Forbidden | K::Timeout | K::StreamCut => row(Same::No, Consequence::Counted, Then::Next),
        K::ForeignReasoning => row(Same::StripReasoning, Consequence::None, Then::GiveUp),
        K::ContextLength | K::Policy | K::BadRequest => row(Same::No, Consequence::None, Then::GiveUp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_did_wrong_is_neither_tried_elsewhere_nor_held_against_the_account() {
        for kind in [FailureKind::BadRequest, FailureKind::ContextLength, FailureKind::Policy] {
            assert_eq!(remedy(kind), Remedy { same: Same::No, account: Consequence::None, then: Then::GiveUp });
        }
    }

    #[test]
    fn only_what_an_account_says_at_once_is_free() {
        for kind in FailureKind::ALL {
            let Remedy { account, then, .. } = remedy(kind);
            let is_own = !matches!(account, Consequence::Counted);
            assert!(then != Then::NextFree || is_own, "{kind:?}");
        }
    }
}
