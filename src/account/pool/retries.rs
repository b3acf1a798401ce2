//! The gateway's budget for retries: an outage of the backend must not be multiplied by it.
//!
//! A token bucket that requests fill and retries empty: however ill the backend is, at most one
//! call in [`SHARE`] is a retry, beyond a small number that is always allowed so that an idle
//! gateway may retry at all.

use std::sync::{Mutex, PoisonError};

use crate::store::UnixMillis;

/// Requests that pay for one retry.
const SHARE: f64 = 5.0;
/// Retries that a gateway without requests has saved up, and that a busy one may save at most.
const SAVED: f64 = 20.0;
/// Retries a second that nobody has to pay for.
const FREE: f64 = 1.0;

/// The bucket.
#[derive(Debug)]
pub struct RetryBudget {
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Retries that may be made now.
    left: f64,
    /// Up to when the free ones were added.
    filled_at: UnixMillis,
}

impl RetryBudget {
    /// A full one.
    pub fn new(now: UnixMillis) -> Self {
        Self { bucket: Mutex::new(Bucket { left: SAVED, filled_at: now }) }
    }

    /// A request has come.
    pub fn deposit(&self) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.left = (bucket.left + 1.0 / SHARE).min(SAVED);
    }

    /// Whether one more retry may be made at `now`; it is counted if so.
    pub fn withdraw(&self, now: UnixMillis) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_sub(bucket.filled_at);
        bucket.filled_at = now;
        // A clock that jumps fills nothing, nor more than the bucket holds.
        #[expect(clippy::cast_precision_loss, reason = "a bucket is full within a minute")]
        let gained = passed.clamp(0, 60_000) as f64 / 1000.0 * FREE;
        bucket.left = (bucket.left + gained).min(SAVED);
        let allowed = bucket.left >= 1.0;
        if allowed {
            bucket.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_an_outage_at_most_one_call_in_five_is_a_retry() {
        let budget = RetryBudget::new(0);
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.deposit();
            for _ in 0..3 {
                retries += u32::from(budget.withdraw(0));
            }
        }
        assert!((1_990..=2_030).contains(&retries), "{retries}");
    }

    #[test]
    fn an_idle_gateway_may_retry_and_a_clock_that_jumps_changes_nothing() {
        let budget = RetryBudget::new(1_000_000);
        let spend = |now| (0..100).filter(|_| budget.withdraw(now)).count();
        assert_eq!(spend(1_000_000), 20);
        assert_eq!(spend(0), 0, "set back");
        assert_eq!(spend(5_000), 5);
        assert_eq!(spend(i64::MAX), 20, "set forward");
    }
}
