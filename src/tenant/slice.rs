//! A server's slice of somebody's limits, where several servers hold them together: how much may be
//! under way here, how much of it is kept, wanted and given back. Pure.
//!
//! What is settled, what is used and not yet in the ledger, and all slices together are never more
//! than the limit. A server lets requests in within its slice and asks nobody. It hands over what it
//! does not need in exchanges, which the database puts into an order ([`divide`]): one after the
//! other, each sees what all before it have left.
//!
//! A slice grows only when an exchange is known to have been kept, and shrinks before it begins: in
//! doubt a server believes in less than others know it to have.

use super::meter::{Amount, Demand};
use crate::store::{Limits, Other, Parts, Share, UnixMillis};
use std::collections::BTreeMap;

/// Tokens of budgets.
pub(super) const TOKENS: usize = 0;
/// Money of budgets.
pub(super) const COST: usize = 1;
/// Requests under way.
pub(super) const CONCURRENT: usize = 2;
/// Requests in the minute.
pub(super) const REQUESTS: usize = 3;
/// Tokens in the minute.
pub(super) const MINUTE: usize = 4;
const PARTS: usize = 5;

/// A server that has not been heard of for this long holds nobody up who waits, milliseconds.
const HEARD: i64 = 2_500;

/// How much there is of each thing, beyond what is used of budgets; `None` where nothing limits it.
pub(super) type Room = [Option<u64>; PARTS];

/// What others use, as they last said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// Used, and not in the ledger.
    pub used: Amount,
    /// Kept free for requests under way, and their number.
    pub held: Amount,
    pub in_flight: u64,
    /// In the minute.
    pub requests: u64,
    pub minute_tokens: u64,
    /// When the first of the requests, and of the tokens, in the minute end to count, and the last.
    pub falls_at: [Option<UnixMillis>; 2],
    pub ends_at: [UnixMillis; 2],
}

impl Elsewhere {
    pub(super) fn of(others: &[Other]) -> Self {
        let mut sum = Self::default();
        for Other { share, used, is_dead, .. } in others {
            sum.requests += share.holds[REQUESTS];
            sum.minute_tokens += share.holds[MINUTE];
            for kind in 0..2 {
                let falls_at = Some(share.minute_falls_at[kind]).filter(|at| *at > 0);
                sum.falls_at[kind] = sum.falls_at[kind].into_iter().chain(falls_at).min();
                sum.ends_at[kind] = sum.ends_at[kind].max(share.minute_ends_at[kind]);
            }
            if *is_dead {
                continue;
            }
            sum.used.tokens = sum.used.tokens.saturating_add(used.0);
            sum.used.cost = sum.used.cost.saturating_add(used.1);
            sum.held.tokens = sum.held.tokens.saturating_add(share.holds[TOKENS]);
            sum.held.cost = sum.held.cost.saturating_add(share.holds[COST]);
            sum.in_flight += share.in_flight;
        }
        sum
    }
}

/// What a server says in an exchange.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// It may have let requests in up to this, and goes on doing so until it knows how this ends.
    pub keeps: Parts,
    /// What of it is taken.
    pub holds: Parts,
    /// What it would have.
    pub wants: Parts,
    /// With how much the smallest request gets in that waits, if one does.
    pub needs: Option<Parts>,
    /// How long the first of those has waited, milliseconds.
    pub waited: i64,
    /// Whether it goes on letting in a request that is larger than what it has.
    pub keeps_sole: bool,
    pub in_flight: u64,
}

/// Divides what there is between a server and the others: its share from now on.
pub(super) fn divide(room: &Room, claim: &Claim, others: &[Other], now: UnixMillis) -> Share {
    let since = claim.needs.map(|_| now - claim.waited);
    let waits = |other: &&Other| !other.is_dead && other.silent <= HEARD && other.share.waits_since.is_some();
    // Who does not wait comes after all who do.
    let is_before = |other: &&Other| since.is_none_or(|since| other.share.waits_since.is_some_and(|at| at < since));
    let first: Vec<&Share> = others.iter().filter(waits).filter(is_before).map(|other| &other.share).collect();
    let available = |part: usize| {
        let owed = first.iter().map(|share| share.needs[part].saturating_sub(share.has[part])).sum::<u64>();
        free(room, others, part).saturating_sub(owed)
    };
    let mut share = Share {
        has: claim.keeps,
        holds: claim.holds,
        wants: claim.wants,
        needs: claim.needs.unwrap_or_default(),
        sole: claim.keeps_sole,
        in_flight: claim.in_flight,
        ..Share::default()
    };
    let limited: Vec<usize> = (0..PARTS).filter(|part| room[*part].is_some()).collect();
    let needs = claim.needs.unwrap_or(claim.keeps);
    let gets_in = |part: &usize| needs[*part] <= claim.keeps[*part].max(available(*part));
    if limited.iter().all(gets_in) && (claim.needs.is_some() || first.is_empty()) {
        for part in limited {
            let fair = level(room[part].unwrap_or_default(), claim.wants[part], others, part);
            let most = claim.wants[part].min(fair).max(needs[part]).min(available(part));
            share.has[part] = share.has[part].max(most);
        }
    } else if since.is_some() {
        share.waits_since = since;
        let is_idle = |other: &Other| other.is_dead || is_idle(&other.share);
        let is_of_budgets = |part: &usize| *part == TOKENS || *part == COST;
        let others_in = limited.iter().filter(|part| !is_of_budgets(part)).all(gets_in);
        let is_open = limited.iter().filter(|part| is_of_budgets(part)).all(|part| room[*part] > Some(0));
        // The last of a budget goes to one request at a time, wherever it comes in.
        if first.is_empty() && others_in && is_open && others.iter().all(is_idle) {
            share.sole = true;
            share.waits_since = None;
            for part in limited {
                let given = if is_of_budgets(&part) { available(part) } else { needs[part].min(available(part)) };
                share.has[part] = share.has[part].max(given);
            }
        }
    }
    share
}

/// Whether a server has nothing of budgets that it could use.
fn is_idle(share: &Share) -> bool {
    share.in_flight == 0 && share.has[TOKENS] == 0 && share.has[COST] == 0 && !share.sole
}

/// What others have not got.
fn free(room: &Room, others: &[Other], part: usize) -> u64 {
    let counts = |other: &&Other| !other.is_dead || part == REQUESTS || part == MINUTE;
    let theirs = |other: &Other| if other.is_dead { other.share.holds[part] } else { other.share.has[part] };
    let taken = others.iter().filter(counts).map(theirs).fold(0, u64::saturating_add);
    room[part].unwrap_or_default().saturating_sub(taken)
}

/// The most that anybody gets so that everybody has what they want, or the same.
fn level(room: u64, mine: u64, others: &[Other], part: usize) -> u64 {
    let theirs = others.iter().filter(|other| !other.is_dead).map(|other| other.share.wants[part]);
    let mut wants: Vec<u64> = theirs.chain([mine]).collect();
    wants.sort_unstable();
    let (mut left, mut heads) = (room, wants.len() as u64);
    for want in wants {
        if want.saturating_mul(heads) > left {
            return left / heads;
        }
        left -= want;
        heads -= 1;
    }
    u64::MAX
}

/// Whether others hold more of something than they use.
pub(super) fn spare(others: &[Other]) -> [bool; PARTS] {
    std::array::from_fn(|part| {
        others.iter().any(|other| !other.is_dead && other.share.has[part] > other.share.holds[part])
    })
}

/// Whether somebody waits elsewhere.
pub(super) fn is_wanted(others: &[Other]) -> bool {
    others.iter().any(|other| !other.is_dead && other.silent <= HEARD && other.share.waits_since.is_some())
}

/// A server's slice, as it knows it.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are true and false independently of each other")]
pub(super) struct Slice {
    /// Requests are let in up to this.
    pub has: Parts,
    /// Whether one that is larger may be let in while no other is under way.
    pub sole: bool,
    /// Used since the last exchange, by the Unix hour: the slice stands for it too.
    pub unreported: BTreeMap<i64, Amount>,
    /// What the ledger said, whether that is as much as the limits look back, and when all of it was
    /// asked for.
    pub settled: BTreeMap<i64, Amount>,
    pub is_whole: bool,
    pub settled_at: UnixMillis,
    /// Used here, and not in the ledger at the last exchange.
    pub unwritten: BTreeMap<i64, Amount>,
    /// Requests that wait, the oldest first: what they ask for, and since when.
    pub waiting: BTreeMap<u64, (Demand, UnixMillis)>,
    /// The most that was taken, and the most that one request asked for, since the last exchange …
    pub peak: Parts,
    pub largest: Parts,
    /// … and before it; and what was taken at it.
    pub before: (Parts, Parts),
    pub base: Parts,
    /// Whether somebody waits elsewhere, whether there was not enough for who waits here, and whether
    /// others have more than they use.
    pub wanted: bool,
    pub starves: bool,
    pub spare: [bool; PARTS],
    /// The exchange that it comes from, and when that was.
    pub round: u64,
    pub asked_at: UnixMillis,
    /// When it was last used.
    pub active_at: UnixMillis,
    /// Whether it should be asked about soon.
    pub is_low: bool,
    /// The limits, and what operators call their holder, as the last request found them.
    pub limits: Limits,
    pub name: String,
}

impl Slice {
    /// Notes a request that came in, and what is taken with it.
    pub(super) fn took(&mut self, demand: &Demand, taken: &Parts, now: UnixMillis) {
        if counts(&self.limits) {
            self.active_at = now;
        }
        let asks = asks(demand, &self.limits);
        self.peak = std::array::from_fn(|part| self.peak[part].max(taken[part]));
        self.largest = std::array::from_fn(|part| self.largest[part].max(asks[part]));
        self.is_low |=
            limited(&self.limits).any(|part| self.has[part].saturating_sub(taken[part]) < self.largest[part]);
    }

    /// Counts what was used beside the ledger.
    pub(super) fn used(&mut self, hour: i64, used: Amount) {
        let sum = self.unreported.entry(hour).or_default();
        sum.tokens = sum.tokens.saturating_add(used.tokens);
        sum.cost = sum.cost.saturating_add(used.cost);
    }

    /// What was used since the last exchange.
    pub(super) fn unreported(&self) -> Amount {
        sum(&self.unreported)
    }

    /// An exchange begins. From now on the slice is what the claim keeps, and what was used so far is
    /// not its matter any more: `unwritten` is what was used and is not in the ledger at this moment.
    /// `taken` is what is taken, without that.
    pub(super) fn claim(
        &mut self,
        unwritten: BTreeMap<i64, Amount>,
        taken: &Parts,
        in_flight: u64,
        is_idle: bool,
        now: UnixMillis,
    ) -> Claim {
        let reported = self.unreported();
        self.unreported.clear();
        self.unwritten = unwritten;
        self.has[TOKENS] = self.has[TOKENS].saturating_sub(reported.tokens);
        self.has[COST] = self.has[COST].saturating_sub(reported.cost);
        let wants = if is_idle { *taken } else { self.wants(taken) };
        self.base = *taken;
        let keeps = std::array::from_fn(|part| {
            let aim = match self.has[part] {
                _ if self.wanted || is_idle => taken[part],
                has if has / 2 > wants[part] => wants[part],
                has => has,
            };
            aim.min(self.has[part]).max(taken[part])
        });
        self.has = keeps;
        self.sole &= !self.wanted && !is_idle;
        self.before = (self.peak, self.largest);
        (self.peak, self.largest) = (*taken, Parts::default());
        self.is_low = false;
        let first = self.waiting.values().map(|(_, since)| *since).min();
        Claim {
            keeps,
            holds: *taken,
            wants,
            needs: self.needs(taken),
            waited: first.map_or(0, |since| (now - since).max(0)),
            keeps_sole: self.sole,
            in_flight,
        }
    }

    /// What was taken lately at most, and room for more: for a while like the last, and another.
    fn wants(&self, taken: &Parts) -> Parts {
        std::array::from_fn(|part| {
            let peak = self.peak[part].max(self.before.0[part]).max(taken[part]);
            let waiting = || self.waiting.values().map(|(demand, _)| asks(demand, &self.limits)[part]);
            let largest = waiting().fold(self.largest[part].max(self.before.1[part]), u64::max);
            let growth = self.peak[part].saturating_sub(self.base[part]);
            let more = largest
                .max(peak / 4)
                .max(growth.saturating_mul(2))
                .saturating_add(waiting().fold(0, u64::saturating_add));
            peak.saturating_add(more)
        })
    }

    fn needs(&self, taken: &Parts) -> Option<Parts> {
        let smallest = self.waiting.values().map(|(demand, _)| demand).min_by_key(|demand| demand.most.tokens)?;
        let asks = asks(smallest, &self.limits);
        Some(std::array::from_fn(|part| taken[part].saturating_add(asks[part])))
    }
}

/// What a request asks for of each thing.
pub(super) fn asks(demand: &Demand, limits: &Limits) -> Parts {
    let minute = demand.likely_tokens.min(limits.tokens_per_minute.unwrap_or(u64::MAX));
    [demand.most.tokens, demand.most.cost, 1, 1, minute]
}

/// Whether there is anything to count.
pub(super) fn counts(limits: &Limits) -> bool {
    limited(limits).next().is_some()
}

/// The things that are limited.
pub(super) fn limited(limits: &Limits) -> impl Iterator<Item = usize> {
    use crate::store::BudgetUnit::{Cost, Tokens};
    let has = |unit| limits.budgets.iter().any(|budget| budget.unit == unit);
    let all = [
        has(Tokens),
        has(Cost),
        limits.concurrent_requests.is_some(),
        limits.requests_per_minute.is_some(),
        limits.tokens_per_minute.is_some(),
    ];
    (0..PARTS).filter(move |part| all[*part])
}

pub(super) fn sum(hours: &BTreeMap<i64, Amount>) -> Amount {
    hours.values().fold(Amount::default(), |sum, more| Amount {
        tokens: sum.tokens.saturating_add(more.tokens),
        cost: sum.cost.saturating_add(more.cost),
    })
}

#[cfg(test)]
#[path = "slice_tests.rs"]
mod tests;
