//! What was used within the last minute, by the second: never more than a minute's worth, in any
//! minute, and exact times at which room comes back. Pure.

use crate::store::UnixMillis;
use std::collections::VecDeque;

/// How long something counts, seconds. One more than a minute has, so that what began within a second
/// counts for a whole minute.
const SPAN: i64 = 61;

/// A sliding minute. At most [`SPAN`] entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Minute {
    /// Unix second and amount, in the order of time.
    seconds: VecDeque<(i64, u64)>,
    sum: u64,
}

impl Minute {
    /// What counts now.
    pub(super) fn used(&mut self, now: UnixMillis) -> u64 {
        let oldest = second(now) - SPAN;
        while let Some((_, amount)) = self.seconds.pop_front_if(|(at, _)| *at <= oldest) {
            self.sum = self.sum.saturating_sub(amount);
        }
        self.sum
    }

    /// Counts more.
    pub(super) fn add(&mut self, amount: u64, now: UnixMillis) {
        self.used(now);
        self.sum = self.sum.saturating_add(amount);
        // A clock that was set back adds to the latest second that there is.
        match self.seconds.back_mut() {
            Some((at, there)) if *at >= second(now) => *there = there.saturating_add(amount),
            _ => self.seconds.push_back((second(now), amount)),
        }
    }

    /// When no more than `most` of it counts any more.
    pub(super) fn falls_to(&mut self, most: u64, now: UnixMillis) -> UnixMillis {
        let mut left = self.used(now);
        for (at, amount) in &self.seconds {
            if left <= most {
                break;
            }
            left = left.saturating_sub(*amount);
            if left <= most {
                return (at + SPAN) * 1000;
            }
        }
        now
    }
}

fn second(now: UnixMillis) -> i64 {
    now.div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: UnixMillis = 1_700_000_000_000;

    #[test]
    fn room_comes_back_at_the_time_that_is_told() {
        let mut minute = Minute::default();
        minute.add(3, T + 500);
        minute.add(2, T + 10_000);
        assert_eq!(minute.used(T + 20_000), 5);
        assert_eq!(minute.falls_to(5, T + 20_000), T + 20_000);
        let back = minute.falls_to(4, T + 20_000);
        assert_eq!(back, T + 61_000);
        assert_eq!((minute.used(back - 1), minute.used(back)), (5, 2));
        assert_eq!(minute.falls_to(0, back), T + 71_000);
    }

    proptest! {
        #[test]
        fn no_minute_ever_has_more_than_was_let_through(limit in 1_u64..20, steps in prop::collection::vec(0_i64..5_000, 1..300)) {
            let (mut minute, mut now, mut let_through) = (Minute::default(), T, Vec::new());
            for step in steps {
                now += step;
                if minute.used(now) < limit {
                    minute.add(1, now);
                    let_through.push(now);
                } else {
                    let back = minute.falls_to(limit - 1, now);
                    prop_assert!(back > now && back <= now + 61_000);
                }
            }
            for start in &let_through {
                let within = let_through.iter().filter(|at| **at >= *start && **at < *start + 60_000).count();
                prop_assert!(within as u64 <= limit);
            }
        }
    }
}
