//! One holder's meter: what is under way, what was used in the last minute and in the hours of its
//! budgets, and whether more fits. Pure.

mod sharing;

pub(super) use sharing::Report;

use super::minute::Minute;
use super::period::{self, HOUR};
use super::slice::{Elsewhere, Slice};
use crate::store::{Budget, BudgetUnit, HourlySum, Limits, UnixMillis};
use std::collections::BTreeMap;

/// What a request may use at most, as far as that can be known, or has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Input and output tokens.
    pub tokens: u64,
    /// Notional money, millionths.
    pub cost: u64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// What it may use at most: kept free in budgets.
    pub most: Amount,
    /// The tokens that it will probably use: kept free in the minute.
    pub likely_tokens: u64,
}

/// A limit that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Requests within a minute.
    Requests,
    /// Tokens within a minute.
    Tokens,
    /// Requests under way.
    Concurrent,
    /// A budget.
    Budget(Budget),
}

impl Counted {
    /// A word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_minute",
            Self::Tokens => "tokens_per_minute",
            Self::Concurrent => "concurrent_requests",
            Self::Budget(_) => "budget",
        }
    }
}

/// How a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    /// Which limit.
    pub what: Counted,
    /// How much there is in all.
    pub limit: u64,
    /// How much is used.
    pub used: u64,
    /// How much is kept for requests under way.
    pub held: u64,
    /// When it is whole again: of a rolling budget, when the oldest use ends to count.
    pub resets_at: UnixMillis,
}

impl Gauge {
    /// What is neither used nor held.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used).saturating_sub(self.held)
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// The limit, as it stands.
    pub gauge: Gauge,
    /// When there will be room, if time alone brings it.
    pub back_at: UnixMillis,
    /// Whether there may be room as soon as a request that is under way ends.
    pub awaits_others: bool,
    /// What other servers have to do with it.
    pub short: Option<Short>,
}

/// There is no room in the slice of limits that several servers hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// The exchange that the slice comes from.
    pub round: u64,
    /// Whether there was not enough for all who waited here: else there will be when it is asked again.
    pub starves: bool,
    /// Whether others had more than they used.
    pub spare: bool,
    /// Whether the slice is void, because the database does not answer.
    pub is_void: bool,
}

/// What one holder uses.
#[derive(Debug, Default)]
pub(super) struct Meter {
    in_flight: u32,
    held: Amount,
    held_likely: u64,
    requests: Minute,
    tokens: Minute,
    /// By the Unix hour; only of holders with a budget, and only as far back as it reaches.
    hours: BTreeMap<i64, Amount>,
    /// What other servers use; nothing where there are none.
    pub(super) elsewhere: Elsewhere,
    /// This server's part, where there are others.
    pub(super) slice: Option<Box<Slice>>,
}

/// How long a client is told to wait for something that has no known end, milliseconds.
const SOON: i64 = 1000;

impl Meter {
    /// Whether the demand fits, now.
    pub(super) fn fits(&mut self, limits: &Limits, demand: &Demand, now: UnixMillis) -> Result<(), Full> {
        if let Some(limit) = limits.concurrent_requests
            && self.all_in_flight() >= u64::from(limit)
        {
            let gauge = self.concurrent(limit, now);
            return Err(Full { gauge, back_at: now + SOON, awaits_others: true, short: None });
        }
        if let Some(limit) = limits.requests_per_minute {
            let gauge = self.request_gauge(limit, now);
            if gauge.used >= gauge.limit {
                let back_at = self.requests_fall_at(gauge.limit, now);
                return Err(Full { gauge, back_at, awaits_others: false, short: None });
            }
        }
        if let Some(limit) = limits.tokens_per_minute {
            self.fits_minute(limit, demand.likely_tokens, now)?;
        }
        limits.budgets.iter().try_for_each(|budget| self.fits_budget(*budget, demand.most, now))
    }

    /// A request that is larger than the minute's limit waits for an empty minute.
    fn fits_minute(&mut self, limit: u64, likely: u64, now: UnixMillis) -> Result<(), Full> {
        let gauge = self.token_gauge(limit, now);
        let wanted = likely.min(limit);
        if gauge.remaining() >= wanted {
            return Ok(());
        }
        let room = limit - wanted;
        // What others hold may be given back; what was used must age.
        let back_at = if gauge.used > room { self.tokens_fall_at(room, now) } else { now + SOON };
        Err(Full { gauge, back_at, awaits_others: gauge.used <= room, short: None })
    }

    /// Room for all that the request may use, or, for a single request, any room: else the rest of a
    /// budget could never be used.
    fn fits_budget(&mut self, budget: Budget, most: Amount, now: UnixMillis) -> Result<(), Full> {
        let gauge = self.budget_gauge(budget, now);
        let wanted = of(most, budget.unit);
        let is_alone = self.all_in_flight() == 0;
        if gauge.used < gauge.limit && (is_alone || gauge.remaining() >= wanted) {
            return Ok(());
        }
        let is_spent = gauge.used >= gauge.limit;
        let back_at = if is_spent { self.budget_back_at(budget, now) } else { now + SOON };
        Err(Full { gauge, back_at, awaits_others: !is_spent, short: None })
    }

    /// A request begins.
    pub(super) fn take(&mut self, demand: &Demand, now: UnixMillis) {
        self.in_flight += 1;
        self.held.tokens = self.held.tokens.saturating_add(demand.most.tokens);
        self.held.cost = self.held.cost.saturating_add(demand.most.cost);
        self.held_likely = self.held_likely.saturating_add(demand.likely_tokens);
        self.requests.add(1, now);
        self.took(demand, now);
    }

    /// It is over, and has used this much. Budgets count it where it began, as the books do; those of
    /// `budgets` that it has used up are given back.
    pub(super) fn settle(
        &mut self,
        demand: &Demand,
        used: Amount,
        began: Option<UnixMillis>,
        budgets: &[Budget],
        now: UnixMillis,
    ) -> Vec<Gauge> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.held.tokens = self.held.tokens.saturating_sub(demand.most.tokens);
        self.held.cost = self.held.cost.saturating_sub(demand.most.cost);
        self.held_likely = self.held_likely.saturating_sub(demand.likely_tokens);
        self.tokens.add(used.tokens, now);
        let Some(began) = began else { return Vec::new() };
        let gauges =
            |meter: &Self| budgets.iter().map(|budget| meter.budget_gauge(*budget, now)).collect::<Vec<Gauge>>();
        let before = gauges(self);
        self.spend(began.div_euclid(HOUR), used);
        if let Some(slice) = &mut self.slice {
            slice.used(began.div_euclid(HOUR), used);
        }
        let is_crossed = |(before, after): &(Gauge, Gauge)| before.used < before.limit && after.used >= after.limit;
        before.into_iter().zip(gauges(self)).filter(is_crossed).map(|(_, after)| after).collect()
    }

    fn spend(&mut self, hour: i64, used: Amount) {
        add(&mut self.hours, hour, used);
    }

    /// Adds what the books say of the time before the meter ran.
    pub(super) fn prime(&mut self, before: &[HourlySum]) {
        for (hour, tokens, cost) in before {
            self.spend(*hour, Amount { tokens: *tokens, cost: *cost });
        }
    }

    /// Forgets hours that no budget reaches.
    pub(super) fn prune(&mut self, limits: &Limits, now: UnixMillis) {
        let reach = limits.budgets.iter().map(|budget| period::longest(budget.per)).max().unwrap_or(0);
        self.hours = self.hours.split_off(&(now.div_euclid(HOUR) - reach - 1));
    }

    /// Whether nothing is to be remembered.
    pub(super) fn is_idle(&mut self, now: UnixMillis) -> bool {
        self.in_flight == 0
            && self.slice.is_none()
            && self.hours.is_empty()
            && self.requests.used(now) == 0
            && self.tokens.used(now) == 0
    }

    /// How all limits stand.
    pub(super) fn gauges(&mut self, limits: &Limits, now: UnixMillis) -> Vec<Gauge> {
        let mut gauges = Vec::new();
        gauges.extend(limits.requests_per_minute.map(|limit| self.request_gauge(limit, now)));
        gauges.extend(limits.tokens_per_minute.map(|limit| self.token_gauge(limit, now)));
        gauges.extend(limits.concurrent_requests.map(|limit| self.concurrent(limit, now)));
        gauges.extend(limits.budgets.iter().map(|budget| self.budget_gauge(*budget, now)));
        gauges
    }

    /// Here and elsewhere.
    fn all_in_flight(&self) -> u64 {
        u64::from(self.in_flight) + self.elsewhere.in_flight
    }

    fn concurrent(&self, limit: u32, now: UnixMillis) -> Gauge {
        let (limit, used) = (u64::from(limit), self.all_in_flight());
        Gauge { what: Counted::Concurrent, limit, used, held: 0, resets_at: now }
    }

    fn request_gauge(&mut self, limit: u32, now: UnixMillis) -> Gauge {
        let resets_at = self.requests.falls_to(0, now).max(self.elsewhere.ends_at[0]);
        let used = self.requests.used(now) + self.elsewhere.requests;
        Gauge { what: Counted::Requests, limit: u64::from(limit), used, held: 0, resets_at }
    }

    fn token_gauge(&mut self, limit: u64, now: UnixMillis) -> Gauge {
        let resets_at = self.tokens.falls_to(0, now).max(self.elsewhere.ends_at[1]);
        let used = self.tokens.used(now) + self.elsewhere.minute_tokens;
        Gauge { what: Counted::Tokens, limit, used, held: self.held_likely, resets_at }
    }

    /// When there is room for a request in the minute. Of others it is known when the first of their
    /// requests ends to count.
    fn requests_fall_at(&mut self, limit: u64, now: UnixMillis) -> UnixMillis {
        let most = limit.saturating_sub(1).saturating_sub(self.elsewhere.requests);
        earlier(self.requests.falls_to(most, now), self.elsewhere.falls_at[0], now)
    }

    fn tokens_fall_at(&mut self, room: u64, now: UnixMillis) -> UnixMillis {
        let most = room.saturating_sub(self.elsewhere.minute_tokens);
        earlier(self.tokens.falls_to(most, now), self.elsewhere.falls_at[1], now)
    }

    fn budget_gauge(&self, budget: Budget, now: UnixMillis) -> Gauge {
        let first = period::first_hour(budget.per, now);
        let counted = || self.hours.range(first..).filter(|(_, spent)| of(**spent, budget.unit) > 0);
        let elsewhere = of(self.elsewhere.used, budget.unit);
        let used = counted().map(|(_, spent)| of(*spent, budget.unit)).fold(elsewhere, u64::saturating_add);
        let oldest = counted().next().map(|(hour, _)| *hour);
        let resets_at = period::end(budget.per, now)
            .unwrap_or_else(|| oldest.map_or(now, |hour| (hour + period::longest(budget.per) + 1) * HOUR));
        let held = of(self.held, budget.unit).saturating_add(of(self.elsewhere.held, budget.unit));
        Gauge { what: Counted::Budget(budget), limit: budget.amount, used, held, resets_at }
    }

    /// When a spent budget has room again.
    fn budget_back_at(&self, budget: Budget, now: UnixMillis) -> UnixMillis {
        if let Some(end) = period::end(budget.per, now) {
            return end;
        }
        let mut left = self.budget_gauge(budget, now).used;
        for (hour, spent) in self.hours.range(period::first_hour(budget.per, now)..) {
            left = left.saturating_sub(of(*spent, budget.unit));
            if left < budget.amount {
                return (hour + period::longest(budget.per) + 1) * HOUR;
            }
        }
        // A budget of nothing never has room; the longest wait there is.
        now + period::longest(budget.per) * HOUR
    }
}

/// The first moment at which something comes back, here or elsewhere.
fn earlier(here: UnixMillis, elsewhere: Option<UnixMillis>, now: UnixMillis) -> UnixMillis {
    match elsewhere.filter(|at| *at > now) {
        Some(at) if here > now => here.min(at),
        Some(at) => at,
        None => here,
    }
}

pub(super) fn add(hours: &mut BTreeMap<i64, Amount>, hour: i64, more: Amount) {
    let sum = hours.entry(hour).or_default();
    sum.tokens = sum.tokens.saturating_add(more.tokens);
    sum.cost = sum.cost.saturating_add(more.cost);
}

pub(super) fn of(amount: Amount, unit: BudgetUnit) -> u64 {
    match unit {
        BudgetUnit::Tokens => amount.tokens,
        BudgetUnit::Cost => amount.cost,
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
