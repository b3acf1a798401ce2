//! Whether what holders of keys are told of the accounts has changed, so that it need not be worked out
//! for every answer.

use std::sync::atomic::{AtomicU64, Ordering};

use super::pool::condition::Condition;
use super::pool::{Candidate, Reason, exclusion};
use crate::store::{AccountId, AccountScope, UnixMillis};

/// Goes up with each change that is to be told at once.
#[derive(Debug, Default)]
pub struct Tidings(AtomicU64);

impl Tidings {
    /// Something has changed, and can be read already.
    pub(super) fn tell(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// How often something has; to be read before what it is about.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What of an account's condition is told at once: whether and why it is aside, and how much of it is used
/// in whole percents, as the backend counts. Less than that, and a reset that moves by seconds with every
/// answer, may wait a moment.
#[derive(Debug, PartialEq)]
pub(super) struct Face {
    obstacle: Option<Reason>,
    windows: [Option<(f64, i64)>; 2],
}

impl Face {
    pub(super) fn of(id: AccountId, condition: &Condition, now: UnixMillis) -> Self {
        let mut candidate = Candidate::new(id);
        condition.describe(&mut candidate, None, now);
        Self {
            obstacle: exclusion(&candidate, &AccountScope::All, now),
            windows: candidate
                .windows
                .map(|gauge| gauge.map(|gauge| ((gauge.used_at(now) * 100.0).floor(), gauge.length))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::condition::Defaults;
    use super::super::pool::quota::Source;
    use super::super::pool::remedy::Consequence;
    use super::*;
    use crate::codex::limits::{Limits, Window};
    use crate::codex::{Failure, FailureKind};
    use std::time::Duration;

    const NOW: UnixMillis = 1_000_000_000_000;

    #[test]
    fn a_whole_percent_and_a_time_aside_are_seen_and_what_changes_with_every_answer_is_not() {
        let (id, mut condition) = (AccountId::new(), Condition::default());
        let mut is_seen = |change: &dyn Fn(&mut Condition)| {
            let before = Face::of(id, &condition, NOW);
            change(&mut condition);
            before != Face::of(id, &condition, NOW)
        };
        let read = |used_percent, seconds| {
            let resets_at = Some(NOW / 1000 + seconds);
            let primary = Some(Window { used_percent, window_minutes: Some(300), resets_at });
            let limits = Limits { primary, ..Limits::default() };
            move |condition: &mut Condition| {
                condition.learn(&limits, Source::Answer, None, NOW);
            }
        };
        assert!(is_seen(&read(40.2, 9000)), "the first reading");
        assert!(!is_seen(&read(40.7, 9001)));
        assert!(is_seen(&read(41.0, 9001)));
        let defaults = Defaults { cooldown: Duration::from_secs(9), limit: Duration::from_secs(9) };
        let suffer = |consequence| {
            let failure = Failure::of(FailureKind::UsageLimit, "no");
            move |condition: &mut Condition| condition.suffer(consequence, &failure, None, defaults, NOW, 0.0)
        };
        assert!(!is_seen(&suffer(Consequence::Counted)), "one failure is nothing");
        assert!(is_seen(&suffer(Consequence::Cool)));
        assert!(is_seen(&suffer(Consequence::Limit)));
        assert!(!is_seen(&suffer(Consequence::Limit)), "again");
    }
}
