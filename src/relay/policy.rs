//! What follows from a failure before the client has seen a byte: one table (lessons.md 1–6).

use crate::codex::FailureKind;

/// What the relay does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Refresh the account's token and send the same request again, once.
    Refresh,
    /// The account's token was just refreshed and is still refused: take it out, try the next.
    Quarantine,
    /// The account's quota is used up: put it aside until the reset, try the next.
    PutAside,
    /// A short-term limit: let the account cool, try the next.
    Cool,
    /// Try the next account; this one is not to blame, or not for long.
    Next,
    /// Reasoning in the request belongs to another account: take it out, send again, once.
    StripReasoning,
    /// No account would do better: tell the client.
    GiveUp,
}

/// What was already done for this request on this account.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tried {
    /// The token was refreshed after a 401.
    pub refreshed: bool,
    /// Reasoning was taken out of the request.
    pub stripped: bool,
}

/// The table.
pub(super) fn step(kind: FailureKind, tried: Tried) -> Step {
    use FailureKind as K;
    match kind {
        K::Unauthorized if tried.refreshed => Step::Quarantine,
        K::Unauthorized => Step::Refresh,
        K::UsageLimit => Step::PutAside,
        K::RateLimited => Step::Cool,
        K::ForeignReasoning if !tried.stripped => Step::StripReasoning,
        K::Forbidden
        | K::NotIncluded
        | K::Overloaded
        | K::ServerError
        | K::Connection
        | K::Timeout
        | K::StreamCut
        | K::ForeignReasoning => Step::Next,
        K::ContextLength | K::Policy | K::BadRequest => Step::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_401_is_refreshed_once_and_never_loops() {
        assert_eq!(step(FailureKind::Unauthorized, Tried::default()), Step::Refresh);
        assert_eq!(step(FailureKind::Unauthorized, Tried { refreshed: true, stripped: false }), Step::Quarantine);
    }

    #[test]
    fn what_the_caller_did_wrong_is_not_tried_elsewhere() {
        for kind in [FailureKind::BadRequest, FailureKind::ContextLength, FailureKind::Policy] {
            assert_eq!(step(kind, Tried::default()), Step::GiveUp);
        }
    }

    #[test]
    fn foreign_reasoning_is_taken_out_once() {
        assert_eq!(step(FailureKind::ForeignReasoning, Tried::default()), Step::StripReasoning);
        assert_eq!(step(FailureKind::ForeignReasoning, Tried { refreshed: false, stripped: true }), Step::Next);
    }
}
