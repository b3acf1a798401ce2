//! The condition of one account in this process, behind a lock that is held for a few field accesses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::directory::Member;
use super::pool::condition::Condition;
use crate::store::UnixMillis;

/// One account's live numbers.
#[derive(Default)]
pub(super) struct Live {
    load: Mutex<Load>,
}

/// What the lock guards.
#[derive(Default, Clone)]
pub(super) struct Load {
    /// What changes with every request.
    pub(super) condition: Condition,
    /// Limits that are known here and not yet stored; the row is older than they are.
    pub(super) unsaved_limits: u32,
    /// How many have been stored: a row that was read before the last one is older too.
    pub(super) saved_limits: u64,
    /// Whether the condition has changed since it was last written.
    pub(super) unwritten: bool,
    /// Whether others must know of it at once.
    pub(super) is_news: bool,
}

impl Live {
    /// A newcomer's: it has had `turns` so far, so that it is not given all of them at once.
    pub(super) fn new(turns: f64) -> Self {
        let mut condition = Condition::default();
        condition.turns = turns;
        Self { load: Mutex::new(Load { condition, ..Load::default() }) }
    }

    pub(super) fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the stored limit over, unless a newer one is on its way to the store, or has come there
    /// since it was read: `saved` is what [`Load::saved_limits`] was then.
    pub(super) fn observe(&self, until: Option<UnixMillis>, reason: Option<String>, saved: u64, now: UnixMillis) {
        let mut load = self.load();
        if load.unsaved_limits == 0 && load.saved_limits == saved {
            load.condition.observe_limit(until, reason, now);
        }
    }
}

/// A request that is under way on an account; counts until it is dropped.
pub struct InFlight {
    member: Arc<Member>,
    /// Whether it finds out if the account works again.
    is_trial: bool,
}

impl InFlight {
    pub(super) fn begin(member: Arc<Member>, now: UnixMillis) -> Self {
        let weight = member.weight();
        let is_trial = member.live.load().condition.begin(weight, now);
        if is_trial {
            member.manager.context.tidings.tell();
        }
        Self { member, is_trial }
    }

    /// The account that works.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.member.live.load().condition.end(self.is_trial);
        if self.is_trial {
            self.member.manager.context.tidings.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_was_read_before_a_limit_was_stored_does_not_lift_it() {
        let live = Live::default();
        live.observe(Some(5_000), None, 0, 1_000);
        // Read, then stored, then taken over: the row says nothing of the limit.
        live.load().saved_limits += 1;
        live.observe(None, None, 0, 1_001);
        assert_eq!(live.load().condition.limited_until(1_002), Some(5_000));
        live.observe(None, None, 1, 1_003);
        assert_eq!(live.load().condition.limited_until(1_004), None);
    }
}
