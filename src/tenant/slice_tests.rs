//! Several servers and a database, in any order of events: what they let in together.

use super::super::meter::{Counted, Meter};
use super::*;
use crate::store::{Budget, BudgetUnit, Period, Sight};
use proptest::prelude::*;

/// Thursday 2023-11-16 00:26:40 UTC.
const T: UnixMillis = 1_700_094_400_000;
const HOUR: i64 = 3_600_000;
/// The largest request.
const LARGEST: u64 = 200;

fn demand(tokens: u64) -> Demand {
    Demand { most: Amount { tokens, cost: tokens }, likely_tokens: tokens }
}

/// What the database has of one server.
#[derive(Debug, Clone, Default)]
struct Row {
    share: Share,
    used: u64,
    seen_at: UnixMillis,
    is_dead: bool,
}

#[derive(Debug, Default)]
struct Server {
    meter: Meter,
    under_way: Vec<Demand>,
    /// Rows of the ledger on their way.
    unwritten: Vec<u64>,
}

#[derive(Debug)]
struct World {
    limits: Limits,
    now: UnixMillis,
    settled: u64,
    rows: Vec<Option<Row>>,
    servers: Vec<Server>,
    round: u64,
    waiter: u64,
    let_in: Vec<UnixMillis>,
}

impl World {
    fn new(servers: usize, limits: Limits) -> Self {
        Self {
            limits,
            now: T,
            settled: 0,
            rows: vec![None; servers],
            servers: (0..servers).map(|_| Server::default()).collect(),
            round: 0,
            waiter: 0,
            let_in: Vec::new(),
        }
    }

    /// A request comes in, or waits.
    fn ask(&mut self, at: usize, tokens: u64) -> bool {
        let server = &mut self.servers[at];
        server.meter.share("t", &self.limits, self.now);
        let demand = demand(tokens);
        let fits = server.meter.fits_slice(&self.limits, &demand, false, self.now);
        if fits.is_ok() {
            server.meter.take(&demand, self.now);
            server.under_way.push(demand);
            self.let_in.push(self.now);
        } else {
            self.waiter += 1;
            server.meter.wait(self.waiter, demand, self.now);
        }
        fits.is_ok()
    }

    fn give_up(&mut self, at: usize) {
        for waiter in 0..=self.waiter {
            self.servers[at].meter.wait_no_more(waiter);
        }
    }

    fn settle(&mut self, at: usize) {
        let server = &mut self.servers[at];
        if server.under_way.is_empty() {
            return;
        }
        let demand = server.under_way.remove(0);
        server.meter.settle(&demand, demand.most, Some(self.now), &self.limits.budgets, self.now);
        server.unwritten.push(demand.most.tokens);
    }

    /// The ledger is written.
    fn write(&mut self, at: usize) {
        let written: u64 = self.servers[at].unwritten.drain(..).sum();
        self.settled += written;
        if let Some(row) = &mut self.rows[at] {
            row.used = row.used.saturating_sub(written);
        }
    }

    /// An exchange that is kept or not, and whose outcome is known to the server or not.
    fn exchange(&mut self, at: usize, is_kept: bool, is_known: bool) {
        let unwritten: u64 = self.servers[at].unwritten.iter().sum();
        let amount = Amount { tokens: unwritten, cost: unwritten };
        let hours = [(T / HOUR, amount)].into_iter().filter(|(_, amount)| amount.tokens > 0).collect();
        let Some(report) = self.servers[at].meter.report(hours, self.now) else { return };
        self.round += 1;
        let others = self.rows.iter().enumerate().filter(|(other, _)| *other != at);
        let others = others.filter_map(|(_, row)| row.as_ref()).map(|row| Other {
            share: row.share.clone(),
            used: (row.used, row.used),
            silent: self.now - row.seen_at,
            is_dead: row.is_dead,
        });
        let sight = Sight { hours: vec![(T / HOUR, self.settled, self.settled)], others: others.collect() };
        let (share, _) = self.servers[at].meter.decide(&report, &sight, self.now, self.now);
        if is_kept {
            let row = |share| Row { share, used: report.used.tokens, seen_at: self.now, is_dead: false };
            self.rows[at] = share.clone().map(row);
            if is_known {
                self.servers[at].meter.grant(share.as_ref(), self.round);
            }
        }
    }

    /// As often as it takes: a request for more, others who hear of it and give back, and the answer.
    fn exchange_all(&mut self) {
        for _ in 0..3 {
            for at in 0..self.servers.len() {
                self.exchange(at, true, true);
            }
        }
    }

    /// Killed, and known to be dead; another is started.
    fn crash(&mut self, at: usize) {
        self.servers[at] = Server::default();
        if let Some(mut row) = self.rows[at].take() {
            row.is_dead = true;
            self.rows.push(Some(row));
        }
    }

    fn used(&self) -> u64 {
        let of = |server: &Server| {
            server
                .under_way
                .iter()
                .map(|demand| demand.most.tokens)
                .chain(server.unwritten.iter().copied())
                .sum::<u64>()
        };
        self.settled + self.servers.iter().map(of).sum::<u64>()
    }

    fn in_flight(&self) -> usize {
        self.servers.iter().map(|server| server.under_way.len()).sum()
    }

    fn step(&mut self, choice: u8, at: usize, size: u64) {
        match choice {
            0..=6 => drop(self.ask(at, size)),
            7..=10 => self.settle(at),
            11..=17 => self.exchange(at, true, true),
            18 => self.exchange(at, true, false),
            19 => self.exchange(at, false, false),
            20..=22 => self.write(at),
            23 => self.crash(at),
            24 => self.give_up(at),
            25 => self.now += 11_000,
            _ => self.now += 40,
        }
    }

    /// Everything under way ends and is written.
    fn calm_down(&mut self) {
        for at in 0..self.servers.len() {
            while !self.servers[at].under_way.is_empty() {
                self.settle(at);
            }
            self.write(at);
            self.give_up(at);
        }
    }
}

fn budget(amount: u64) -> Limits {
    let budget = |unit| Budget { unit, amount, per: Period::Day };
    Limits { budgets: vec![budget(BudgetUnit::Tokens), budget(BudgetUnit::Cost)], ..Limits::default() }
}

fn steps() -> impl Strategy<Value = Vec<(u8, usize, u64)>> {
    prop::collection::vec((0_u8..28, 0_usize..3, 1_u64..LARGEST), 1..300)
}

proptest! {
    /// As with one server: a budget is overshot by one request at most, in the whole cluster; and what
    /// is left of it can be had at any of them.
    #[test]
    fn a_budget_is_overshot_by_one_request_in_the_cluster_and_can_be_used_up_anywhere(
        amount in 1_u64..2_000, steps in steps(), last in 0_usize..3,
    ) {
        let mut world = World::new(3, budget(amount));
        for (choice, at, size) in steps {
            world.step(choice, at, size);
            prop_assert!(world.used() < amount + LARGEST, "{} of {amount}", world.used());
        }
        world.calm_down();
        let is_spent = world.settled >= amount;
        for _ in 0..2 {
            if !world.ask(last, LARGEST) {
                world.exchange_all();
            }
        }
        prop_assert_eq!(world.in_flight() > 0, !is_spent, "{} of {}: {:#?}", world.settled, amount, world.rows);
    }

    #[test]
    fn places_are_never_exceeded_and_can_all_be_had_anywhere(limit in 1_u32..12, steps in steps(), last in 0_usize..3) {
        let mut world = World::new(3, Limits { concurrent_requests: Some(limit), ..Limits::default() });
        for (choice, at, size) in steps {
            world.step(choice, at, size);
            prop_assert!(world.in_flight() <= limit as usize, "{} of {limit}", world.in_flight());
        }
        world.calm_down();
        for _ in 0..limit {
            if !world.ask(last, 1) {
                world.exchange_all();
                world.give_up(last);
                prop_assert!(world.ask(last, 1), "{:#?}", world.rows);
            }
        }
    }

    /// No error upwards: never more than the limit within a minute, as with one server.
    #[test]
    fn no_minute_has_more_requests_than_the_limit(limit in 1_u32..20, steps in steps()) {
        let mut world = World::new(3, Limits { requests_per_minute: Some(limit), ..Limits::default() });
        for (choice, at, size) in steps {
            // What a killed server let in counts as its last exchange had it: see docs/limits.md.
            world.step(if choice == 23 { 7 } else { choice }, at, size);
        }
        for start in &world.let_in {
            let within = world.let_in.iter().filter(|at| **at >= *start && **at < *start + 60_000).count();
            prop_assert!(within <= limit as usize, "{within} of {limit}");
        }
    }
}

#[test]
fn a_slice_grows_with_use_and_is_given_back_when_somebody_waits_or_nobody_uses_it() {
    let mut world = World::new(2, budget(1_000));
    assert!(!world.ask(0, 100), "nothing before an exchange");
    world.exchange(0, true, true);
    world.give_up(0);
    assert!(world.ask(0, 100) && world.ask(0, 100));
    world.settle(0);
    world.settle(0);
    // All but 200 are free, and another server asks for more than is free.
    assert!(!world.ask(1, 790));
    world.exchange_all();
    world.give_up(1);
    assert!(world.ask(1, 790), "{:#?}", world.rows);
    world.settle(1);
    for at in [0, 1, 0, 1] {
        world.write(at);
        world.exchange(at, true, true);
    }
    world.now += 11_000;
    for at in [0, 1, 0, 1] {
        world.exchange(at, true, true);
    }
    assert!(world.rows.iter().all(Option::is_none), "{:#?}", world.rows);
}

#[test]
fn what_others_use_shows_in_every_number() {
    let mut world = World::new(2, budget(1_000));
    for at in [0, 1] {
        assert!(!world.ask(at, 300));
        world.exchange(at, true, true);
        world.give_up(at);
        assert!(world.ask(at, 300));
    }
    world.settle(0);
    world.exchange(0, true, true);
    world.exchange(1, true, true);
    let limits = world.limits.clone();
    let gauge = |world: &mut World, at: usize| {
        let gauges = world.servers[at].meter.gauges(&limits, world.now);
        let found = gauges.into_iter().find(|gauge| matches!(gauge.what, Counted::Budget(_)));
        found.map(|gauge| (gauge.used, gauge.held, gauge.remaining()))
    };
    assert_eq!(gauge(&mut world, 1), Some((300, 300, 400)));
    // Once more when the ledger has it, and not twice.
    world.write(0);
    world.exchange(1, true, true);
    assert_eq!(gauge(&mut world, 1), Some((300, 300, 400)));
}
