//! The four ways to order accounts.

use std::cmp::Ordering;

use super::{Candidate, Ranked, quota::Gauge};
use crate::store::{Strategy, UnixMillis};

/// Turns that a conversation living on an account is likely to take still: so much of the account
/// is spoken for.
const RESERVE: f64 = 2.0;
/// A window that resets within this share of its length is not told from one that resets now.
const INSTANT: f64 = 0.01;

/// Eligible candidates, best first. Equal ones by the longest idle, then by id, so that the order
/// of the input does not matter.
pub(super) fn order(eligible: &[&Candidate], strategy: Strategy, now: UnixMillis) -> Vec<Ranked> {
    let mut scored: Vec<(f64, &Candidate)> =
        eligible.iter().map(|candidate| (score(candidate, strategy, now), *candidate)).collect();
    scored.sort_unstable_by(|(a_score, a), (b_score, b)| {
        b.priority
            .cmp(&a.priority)
            .then_with(|| b_score.total_cmp(a_score))
            .then_with(|| match strategy {
                // The first account is emptied before the second is touched.
                Strategy::FillFirst => Ordering::Equal,
                _ => a.in_flight.cmp(&b.in_flight).then_with(|| a.last_used.cmp(&b.last_used)),
            })
            .then_with(|| a.id.cmp(&b.id))
    });
    scored.into_iter().map(|(score, candidate)| Ranked { id: candidate.id, score }).collect()
}

/// One that is compared with none.
pub(super) fn rank(candidate: &Candidate, strategy: Strategy, now: UnixMillis) -> Ranked {
    Ranked { id: candidate.id, score: score(candidate, strategy, now) }
}

fn score(candidate: &Candidate, strategy: Strategy, now: UnixMillis) -> f64 {
    let weight = f64::from(candidate.weight);
    match strategy {
        Strategy::Quota => weighted(quota_to_lose(candidate, now), weight),
        Strategy::RoundRobin => -candidate.turns,
        Strategy::FillFirst => weight,
        Strategy::LeastLoaded => -(f64::from(candidate.in_flight) + 1.0) / weight.max(f64::MIN_POSITIVE),
    }
}

/// A debt weighs more for a light account, as a surplus weighs less.
fn weighted(score: f64, weight: f64) -> f64 {
    if score < 0.0 { score / weight.max(f64::MIN_POSITIVE) } else { score * weight }
}

/// How fast the account's quota would have to be used so that none of it is lost, against the pace
/// that would last: remaining share by remaining time, on the window that allows least. What is
/// under way, and what conversations living there will take, is taken off first. The longest
/// window counts a little beside the tightest, for what is lost there is lost for longest.
fn quota_to_lose(candidate: &Candidate, now: UnixMillis) -> f64 {
    let taken = f64::from(candidate.in_flight) + f64::from(candidate.sessions) * RESERVE;
    let windows = candidate.windows.iter().flatten();
    let pace = |window: &Gauge| {
        let left = 1.0 - window.used_at(now) - taken * window.draw;
        left / window.time_left(now).max(INSTANT)
    };
    let tightest = windows.clone().map(pace).min_by(f64::total_cmp);
    let longest = windows.max_by_key(|window| window.length).map(pace);
    match (tightest, longest) {
        (Some(tightest), Some(longest)) => tightest + LONGEST * longest.max(0.0),
        _ => (1.0 - taken * UNKNOWN_DRAW) * (1.0 + LONGEST),
    }
}

/// What the longest window counts beside the tightest; found by simulation (docs/scheduling.md).
const LONGEST: f64 = 0.25;
/// The share of a window that nobody has told of that a turn takes.
const UNKNOWN_DRAW: f64 = 0.002;
