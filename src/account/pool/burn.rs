//! How fast windows are used up, and how long what is left of them lasts. Measured from one look at
//! the accounts to the next, over the last half hour.

use super::{Candidate, exclusion};
use crate::store::{AccountId, AccountScope, UnixMillis};
use std::collections::{BTreeMap, HashMap, VecDeque};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Over how long it is measured.
const MEASURED: i64 = 30 * MINUTE;
/// A shorter time says nothing: one long turn would look like a fire.
const SHORTEST: i64 = 5 * MINUTE;

/// An account's window, by its length in milliseconds.
type Of = (AccountId, i64);

/// What was used of late.
#[derive(Debug, Default)]
pub struct Burn {
    /// Since when it is measured.
    since: Option<UnixMillis>,
    /// The share used, as seen last.
    seen: HashMap<Of, f64>,
    /// What was used in each minute, the oldest first.
    minutes: VecDeque<(i64, HashMap<Of, f64>)>,
}

/// How some accounts' windows of one length stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// Their length, milliseconds.
    pub length: i64,
    /// The share that is left, of those that can be had.
    pub left: f64,
    /// The share that is used up in an hour.
    pub burn: f64,
    /// How long they last, seconds, with the resets that come before; infinity where they last.
    pub lasts: f64,
}

impl Burn {
    /// Looks at all accounts.
    pub fn look(&mut self, candidates: &[Candidate], now: UnixMillis) {
        self.since.get_or_insert(now);
        let minute = now / MINUTE;
        self.minutes.retain(|(then, _)| minute - then < MEASURED / MINUTE);
        if self.minutes.back().is_none_or(|(then, _)| *then != minute) {
            self.minutes.push_back((minute, HashMap::new()));
        }
        let mut seen = HashMap::new();
        for candidate in candidates {
            for window in candidate.windows.iter().flatten() {
                let (of, used) = ((candidate.id, window.length), window.used_at(now));
                seen.insert(of, used);
                let Some(before) = self.seen.get(&of) else { continue };
                // Less than before: it was reset, and what is used was used since.
                let more = if used >= *before { used - before } else { used };
                if more > 0.0
                    && let Some((_, minute)) = self.minutes.back_mut()
                {
                    *minute.entry(of).or_default() += more;
                }
            }
        }
        self.seen = seen;
    }

    /// How the accounts of a scope stand, the shortest windows first. What only a login brings back is
    /// left out.
    pub fn outlook(&self, candidates: &[Candidate], scope: &AccountScope, now: UnixMillis) -> Vec<Outlook> {
        let mut lengths: BTreeMap<i64, Level> = BTreeMap::new();
        for candidate in candidates.iter().filter(|candidate| scope.allows(candidate.id)) {
            let reason = exclusion(candidate, scope, now);
            let back = reason.map(|reason| reason.until().unwrap_or(now));
            if reason.is_some_and(|reason| reason.until().is_none() && !reason.is_passing(now)) {
                continue;
            }
            for window in candidate.windows.iter().flatten() {
                let level = lengths.entry(window.length).or_default();
                let used = window.used_at(now).clamp(0.0, 1.0);
                level.accounts += 1.0;
                level.burnt += self.burnt((candidate.id, window.length));
                match back {
                    None => level.left += 1.0 - used,
                    // What it has left is there when it is back.
                    Some(back) => level.refills.push((back, 1.0 - used)),
                }
                if used > 0.0 {
                    level.refills.push((window.resets_at, used));
                }
            }
        }
        let measured = self.since.map_or(SHORTEST, |since| (now - since).clamp(SHORTEST, MEASURED));
        lengths.into_iter().map(|(length, level)| level.outlook(length, measured, now)).collect()
    }

    fn burnt(&self, of: Of) -> f64 {
        self.minutes.iter().filter_map(|(_, minute)| minute.get(&of)).sum()
    }
}

/// Windows of one length, counted in whole windows.
#[derive(Default)]
struct Level {
    accounts: f64,
    left: f64,
    burnt: f64,
    /// When how much comes back.
    refills: Vec<(UnixMillis, f64)>,
}

impl Level {
    fn outlook(mut self, length: i64, measured: i64, now: UnixMillis) -> Outlook {
        #[expect(clippy::cast_precision_loss, reason = "half an hour in milliseconds")]
        let an_hour = self.burnt * HOUR as f64 / measured as f64;
        Outlook {
            length,
            left: self.left / self.accounts,
            burn: an_hour / self.accounts,
            lasts: self.lasts(an_hour / 3600.0, now),
        }
    }

    /// Walks from refill to refill, at so much a second.
    fn lasts(&mut self, burn: f64, now: UnixMillis) -> f64 {
        if burn <= 0.0 {
            return f64::INFINITY;
        }
        self.refills.sort_by_key(|(at, _)| *at);
        let (mut left, mut passed) = (self.left, 0.0);
        for (at, amount) in &self.refills {
            #[expect(clippy::cast_precision_loss, reason = "a month in milliseconds")]
            let until = ((at - now).max(0) as f64 / 1000.0).max(passed);
            let end = passed + left / burn;
            if end < until {
                return end;
            }
            left += amount - burn * (until - passed);
            passed = until;
        }
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::super::quota::Gauge;
    use super::*;
    use crate::store::AccountState;

    const T: UnixMillis = 1_700_000_000_000;

    fn candidate(used: f64, resets_in: i64) -> Candidate {
        let gauge = Gauge { used, resets_at: T + resets_in, length: 5 * HOUR, draw: 0.0, read_at: T };
        Candidate { windows: [Some(gauge), None], ..Candidate::new(AccountId::new()) }
    }

    fn with(candidate: Candidate, used: f64) -> Candidate {
        let gauge = candidate.windows[0].map(|gauge| Gauge { used, ..gauge });
        Candidate { windows: [gauge, None], ..candidate }
    }

    fn near(found: f64, wanted: f64) {
        assert!(
            (found - wanted).abs() < 1e-6 || (found.is_infinite() && wanted.is_infinite()),
            "{found}, not {wanted}"
        );
    }

    #[test]
    fn what_is_used_between_two_looks_is_the_burn_and_says_how_long_the_rest_lasts() {
        let (one, two) = (candidate(0.2, 4 * HOUR), candidate(0.5, 3 * HOUR));
        let mut burn = Burn::default();
        burn.look(&[one, two], T);
        near(burn.outlook(&[one, two], &AccountScope::All, T)[0].lasts, f64::INFINITY);
        // In half an hour a fifth of one window: 0.4 of a window an hour, 1.1 windows are left.
        let later = [with(one, 0.4), two];
        let now = T + MEASURED - 1;
        burn.look(&later, now);
        let outlook = burn.outlook(&later, &AccountScope::All, T + MEASURED)[0];
        near(outlook.left, 0.55);
        near(outlook.burn, 0.2);
        // It would last 2.75 h from then on, but after 2.5 h half a window comes back.
        near(outlook.lasts, f64::INFINITY);
    }

    #[test]
    fn a_window_that_ends_before_its_reset_says_when() {
        let one = candidate(0.5, 4 * HOUR);
        let mut burn = Burn::default();
        burn.look(&[one], T);
        let now = T + 10 * MINUTE;
        let later = [with(one, 0.7)];
        burn.look(&later, now);
        // A fifth in ten minutes: the other 0.3 last a quarter of an hour.
        near(burn.outlook(&later, &AccountScope::All, now)[0].lasts, 900.0);
        let scope = AccountScope::only([AccountId::new()]);
        assert_eq!(burn.outlook(&later, &scope, now), []);
    }

    #[test]
    fn a_reset_is_no_burn_and_a_first_reading_is_none_either() {
        let one = candidate(0.9, HOUR);
        let mut burn = Burn::default();
        burn.look(&[Candidate { windows: [None; 2], ..one }], T);
        burn.look(&[one], T + MINUTE);
        burn.look(&[with(one, 0.0)], T + 2 * MINUTE);
        near(burn.outlook(&[with(one, 0.0)], &AccountScope::All, T + 2 * MINUTE)[0].burn, 0.0);
        burn.look(&[with(one, 0.1)], T + 3 * MINUTE);
        // Three minutes count as five.
        near(burn.outlook(&[with(one, 0.1)], &AccountScope::All, T + 3 * MINUTE)[0].burn, 1.2);
    }

    #[test]
    fn what_needs_a_login_is_left_out_and_what_is_aside_counts_when_it_is_back() {
        let dead = Candidate { state: AccountState::NeedsLogin, ..candidate(0.0, HOUR) };
        let aside = Candidate { limited_until: Some(T + HOUR), ..candidate(1.0, HOUR) };
        let outlook = Burn::default().outlook(&[dead, aside, candidate(0.5, HOUR)], &AccountScope::All, T);
        near(outlook[0].left, 0.25);
    }
}
