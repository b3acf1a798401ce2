//! A meter where several servers hold its limits together: requests are let in within this server's
//! slice, and what is known of the others shows in every number. Pure.

use super::super::period::{self, HOUR};
use super::super::slice::{self, Claim, Elsewhere, Room, Slice, asks, counts, limited};
use super::{Amount, Counted, Demand, Full, Gauge, Meter, SOON, Short, add, of};
use crate::store::{Budget, BudgetUnit, Limits, Parts, Share, Sight, UnixMillis};
use std::collections::BTreeMap;

/// Milliseconds: how often others are told and heard …
const PACE: i64 = 1_000;
/// … of holders that nobody uses …
const IDLE_PACE: i64 = 5_000;
/// … where somebody waits, here or elsewhere …
const WAITING_PACE: i64 = 50;
/// … and where a slice runs low.
const LOW_PACE: i64 = 100;
/// After so long without a request nobody uses it.
const IDLE: i64 = 10_000;
/// How often all sums of the ledger are read again; in between, those of the last hours.
const ALL_SUMS: i64 = 30_000;
const LAST_HOURS: i64 = 2;

/// What a meter says in an exchange.
#[derive(Debug)]
pub(in crate::tenant) struct Report {
    pub claim: Claim,
    /// Used, and not in the ledger.
    pub used: Amount,
    /// From which Unix hour on the ledger's sums are wanted.
    pub since: i64,
    /// Whether these are all that count.
    pub is_whole: bool,
    /// Whether there is nothing to keep.
    pub leaves: bool,
}

impl Meter {
    /// From now on its limits are held together with others.
    pub(in crate::tenant) fn share(&mut self, name: &str, limits: &Limits, now: UnixMillis) {
        let slice = self.slice.get_or_insert_with(Box::default);
        slice.active_at = now;
        if slice.name != name {
            name.clone_into(&mut slice.name);
        }
        let is_same = |a: &Limits, b: &Limits| {
            (a.requests_per_minute, a.tokens_per_minute, a.concurrent_requests, &a.budgets)
                == (b.requests_per_minute, b.tokens_per_minute, b.concurrent_requests, &b.budgets)
        };
        if !is_same(&slice.limits, limits) {
            slice.limits = limits.clone();
            // Budgets may reach further back.
            slice.is_whole = false;
        }
    }

    /// Whether the demand fits this server's slice; `is_void` when the slice does not hold any more.
    pub(in crate::tenant) fn fits_slice(
        &mut self,
        limits: &Limits,
        demand: &Demand,
        is_void: bool,
        now: UnixMillis,
    ) -> Result<(), Full> {
        // A budget that is spent is spent, whatever else there is.
        for budget in &limits.budgets {
            let gauge = self.budget_gauge(*budget, now);
            if gauge.used >= gauge.limit {
                let back_at = self.budget_back_at(*budget, now);
                return Err(Full { gauge, back_at, awaits_others: false, short: None });
            }
        }
        let taken = self.taken(now);
        let is_alone = self.in_flight == 0;
        let Some(slice) = &self.slice else { return Ok(()) };
        let asks = asks(demand, limits);
        let is_open = |part: &usize| {
            let is_budget = *part == slice::TOKENS || *part == slice::COST;
            let room = slice.has[*part].saturating_sub(taken[*part]);
            !is_void && (room >= asks[*part] || (is_budget && slice.sole && is_alone))
        };
        let Some(part) = limited(limits).find(|part| !is_open(part)) else { return Ok(()) };
        let short = Some(Short { round: slice.round, starves: slice.starves, spare: slice.spare[part], is_void });
        // What is known of all may say it better.
        let Err(full) = self.fits(limits, demand, now) else {
            let gauge = self.gauge_of(part, limits, now);
            return Err(Full { gauge, back_at: now + SOON, awaits_others: true, short });
        };
        Err(Full { short, ..full })
    }

    fn gauge_of(&mut self, part: usize, limits: &Limits, now: UnixMillis) -> Gauge {
        let is_it = |gauge: &Gauge| match gauge.what {
            Counted::Budget(budget) => part == part_of(budget),
            Counted::Concurrent => part == slice::CONCURRENT,
            Counted::Requests => part == slice::REQUESTS,
            Counted::Tokens => part == slice::MINUTE,
        };
        let nothing = Gauge { what: Counted::Concurrent, limit: 0, used: 0, held: 0, resets_at: now };
        self.gauges(limits, now).into_iter().find(is_it).unwrap_or(nothing)
    }

    /// What is taken of a slice.
    fn taken(&mut self, now: UnixMillis) -> Parts {
        let unreported = self.slice.as_ref().map(|slice| slice.unreported()).unwrap_or_default();
        [
            self.held.tokens.saturating_add(unreported.tokens),
            self.held.cost.saturating_add(unreported.cost),
            u64::from(self.in_flight),
            self.requests.used(now),
            self.tokens.used(now).saturating_add(self.held_likely),
        ]
    }

    /// A request has come in.
    pub(super) fn took(&mut self, demand: &Demand, now: UnixMillis) {
        if self.slice.is_none() {
            return;
        }
        let taken = self.taken(now);
        if let Some(slice) = &mut self.slice {
            slice.took(demand, &taken, now);
        }
    }

    /// A request waits for more than there is here.
    pub(in crate::tenant) fn wait(&mut self, waiter: u64, demand: Demand, now: UnixMillis) {
        if let Some(slice) = &mut self.slice {
            slice.waiting.insert(waiter, (demand, now));
            slice.active_at = now;
            // To be asked at once.
            slice.asked_at = slice.asked_at.min(now - WAITING_PACE);
        }
    }

    /// It does not wait any more.
    pub(in crate::tenant) fn wait_no_more(&mut self, waiter: u64) {
        if let Some(slice) = &mut self.slice {
            slice.waiting.remove(&waiter);
        }
    }

    /// In how many milliseconds others are to be told and heard; `None` where nothing is shared. Where
    /// nothing presses, `crowd` times as much.
    pub(in crate::tenant) fn due_in(&self, now: UnixMillis, crowd: i64) -> Option<i64> {
        let slice = self.slice.as_ref()?;
        let pace = if !slice.waiting.is_empty() || (slice.wanted && has_spare(slice, self.in_flight)) {
            WAITING_PACE
        } else if slice.is_low {
            LOW_PACE
        } else if now - slice.active_at > IDLE {
            IDLE_PACE * crowd
        } else {
            PACE * crowd
        };
        // A clock that was set back must not keep anybody waiting.
        let age = (now - slice.asked_at).max(0);
        Some(if slice.asked_at > now { 0 } else { (pace - age).max(0) })
    }

    /// Whether somebody elsewhere waits for what was just given back here.
    pub(in crate::tenant) fn is_wanted(&self) -> bool {
        self.slice.as_ref().is_some_and(|slice| slice.wanted)
    }

    /// Whether others should be asked for more.
    pub(in crate::tenant) fn is_low(&self) -> bool {
        self.slice.as_ref().is_some_and(|slice| slice.is_low)
    }

    /// Whether what is known of others is older than it is where somebody uses it.
    pub(in crate::tenant) fn is_old(&self, now: UnixMillis) -> bool {
        self.slice.as_ref().is_some_and(|slice| slice.round == 0 || (now - slice.asked_at).abs() > PACE)
    }

    /// What operators call its holder.
    pub(in crate::tenant) fn name(&self) -> &str {
        self.slice.as_ref().map_or("", |slice| slice.name.as_str())
    }

    /// The exchange after which its numbers are.
    pub(in crate::tenant) fn round(&self) -> u64 {
        self.slice.as_ref().map_or(u64::MAX, |slice| slice.round)
    }

    /// An exchange begins; `unwritten` is what was used and is not in the ledger, by the Unix hour.
    pub(in crate::tenant) fn report(&mut self, unwritten: BTreeMap<i64, Amount>, now: UnixMillis) -> Option<Report> {
        let mut slice = self.slice.take()?;
        // Without the slice nothing unreported is among it: the ledger's rows are reported.
        let (mut taken, in_flight) = (self.taken(now), u64::from(self.in_flight));
        for (part, taken) in taken.iter_mut().enumerate() {
            if !limited(&slice.limits).any(|limited| limited == part) {
                *taken = 0;
            }
        }
        let is_idle = now - slice.active_at > IDLE && slice.waiting.is_empty();
        let used = slice::sum(&unwritten);
        let leaves = is_idle && in_flight == 0 && taken == Parts::default() && used == Amount::default();
        let claim = slice.claim(unwritten, &taken, in_flight, is_idle, now);
        slice.asked_at = now;
        let is_whole = !slice.is_whole || now - slice.settled_at > ALL_SUMS || now < slice.settled_at;
        let since = if slice.limits.budgets.is_empty() {
            i64::MAX
        } else if is_whole {
            slice.settled_at = now;
            period::first_hour_of_all(&slice.limits, now)
        } else {
            now.div_euclid(HOUR) - LAST_HOURS
        };
        self.slice = Some(slice);
        Some(Report { claim, used, since, is_whole, leaves })
    }

    /// The database has answered, and nobody else asks it at this moment: learns from it, and says what
    /// this server's share shall be. `there` is the database's time.
    pub(in crate::tenant) fn decide(
        &mut self,
        report: &Report,
        sight: &Sight,
        there: UnixMillis,
        now: UnixMillis,
    ) -> (Option<Share>, Vec<Gauge>) {
        let Some(mut slice) = self.slice.take() else { return (None, Vec::new()) };
        let budgets = slice.limits.budgets.clone();
        let before: Vec<Gauge> = budgets.iter().map(|budget| self.budget_gauge(*budget, now)).collect();
        let is_first = !slice.is_whole;
        self.learn(&mut slice, report, sight, now);
        let after: Vec<Gauge> = budgets.iter().map(|budget| self.budget_gauge(*budget, now)).collect();
        let room = Self::room(&slice, &after);
        slice.wanted = slice::is_wanted(&sight.others);
        slice.spare = slice::spare(&sight.others);
        self.slice = Some(slice);
        // What was used up before anybody here looked is not news.
        let is_crossed = |(before, after): &(&Gauge, &Gauge)| before.used < before.limit && after.used >= after.limit;
        let crossed = before.iter().zip(&after).filter(|_| !is_first).filter(is_crossed).map(|(_, after)| *after);
        let crossed = crossed.collect();
        if report.leaves {
            return (None, crossed);
        }
        let share = slice::divide(&room, &report.claim, &sight.others, there);
        (
            Some(Share {
                minute_falls_at: self.minute_falls_at(now),
                minute_ends_at: self.minute_ends_at(now),
                ..share
            }),
            crossed,
        )
    }

    fn learn(&mut self, slice: &mut Slice, report: &Report, sight: &Sight, now: UnixMillis) {
        slice.is_whole |= report.is_whole;
        slice.settled.split_off(&report.since);
        for (hour, tokens, cost) in &sight.hours {
            slice.settled.insert(*hour, Amount { tokens: *tokens, cost: *cost });
        }
        self.hours = slice.settled.clone();
        for more in [&slice.unwritten, &slice.unreported] {
            for (hour, amount) in more {
                add(&mut self.hours, *hour, *amount);
            }
        }
        self.prune(&slice.limits, now);
        self.elsewhere = Elsewhere::of(&sight.others);
    }

    /// What there is for all servers: of budgets what is not used.
    fn room(slice: &Slice, budgets: &[Gauge]) -> Room {
        // What was used here since the exchange began is a matter of the slice.
        let unreported = slice.unreported();
        let of_budgets = |wanted: BudgetUnit| {
            let rooms = budgets.iter().filter_map(|gauge| match gauge.what {
                Counted::Budget(budget) if budget.unit == wanted => {
                    Some(gauge.limit.saturating_sub(gauge.used.saturating_sub(of(unreported, wanted))))
                }
                _ => None,
            });
            rooms.min()
        };
        [
            of_budgets(BudgetUnit::Tokens),
            of_budgets(BudgetUnit::Cost),
            slice.limits.concurrent_requests.map(u64::from),
            slice.limits.requests_per_minute.map(u64::from),
            slice.limits.tokens_per_minute,
        ]
    }

    fn minute_falls_at(&mut self, now: UnixMillis) -> [UnixMillis; 2] {
        let (requests, tokens) = (self.requests.used(now), self.tokens.used(now));
        [
            if requests > 0 { self.requests.falls_to(requests - 1, now) } else { 0 },
            if tokens > 0 { self.tokens.falls_to(tokens - 1, now) } else { 0 },
        ]
    }

    fn minute_ends_at(&mut self, now: UnixMillis) -> [UnixMillis; 2] {
        [self.requests.falls_to(0, now), self.tokens.falls_to(0, now)]
    }

    /// The exchange was kept: this is what there is from now on.
    pub(in crate::tenant) fn grant(&mut self, share: Option<&Share>, round: u64) {
        let Some(slice) = &mut self.slice else { return };
        match share {
            Some(share) => {
                for (has, granted) in slice.has.iter_mut().zip(share.has) {
                    *has = (*has).max(granted);
                }
                slice.sole = share.sole;
                slice.starves = share.waits_since.is_some();
                slice.round = round;
            }
            None if slice.waiting.is_empty() && self.in_flight == 0 => {
                self.slice = None;
                self.hours.clear();
                self.elsewhere = Elsewhere::default();
            }
            // Somebody has come in the meantime, and asks anew.
            None => slice.asked_at = 0,
        }
    }

    /// Whether its limits are held together with others and count anything.
    pub(in crate::tenant) fn is_shared(&self) -> bool {
        self.slice.as_ref().is_some_and(|slice| counts(&slice.limits))
    }
}

/// Whether there is more than what is taken, of budgets or places.
fn has_spare(slice: &Slice, in_flight: u32) -> bool {
    slice.has[slice::CONCURRENT] > u64::from(in_flight) || slice.has[slice::TOKENS] > 0 || slice.has[slice::COST] > 0
}

fn part_of(budget: Budget) -> usize {
    match budget.unit {
        BudgetUnit::Tokens => slice::TOKENS,
        BudgetUnit::Cost => slice::COST,
    }
}
