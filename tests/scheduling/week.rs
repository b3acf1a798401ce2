//! One week under one policy.

use crate::gateway::{Gateway, Policy};
use crate::omniscient;
use crate::world::{Answer, CACHE, COLD, MINUTE, START, WEEK, World};
use fastrand::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tollway::account::pool::quota::Source;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) load: f64,
    pub(crate) policy: Policy,
    /// Work that was served, at the least that it could have cost.
    pub(crate) served: f64,
    /// The most that anybody could have served.
    pub(crate) most: f64,
    pub(crate) turns: usize,
    pub(crate) refused: usize,
    /// Refused although an account could have served.
    pub(crate) avoidable: usize,
    /// Turns whose conversation some cache held, and those that were served there.
    pub(crate) could_be_warm: usize,
    pub(crate) warm: usize,
    pub(crate) moves: usize,
    pub(crate) sessions: usize,
    /// Calls that an account refused because it was used up, and those of them that came after it
    /// had said so.
    pub(crate) stops: usize,
    pub(crate) after_stop: usize,
}

impl Report {
    pub(crate) fn served_share(&self) -> f64 {
        self.served / self.most
    }

    pub(crate) fn warm_share(&self) -> f64 {
        self.warm as f64 / self.could_be_warm.max(1) as f64
    }
}

/// What happens beside turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A turn on this account ends.
    End(usize),
    /// Usage is asked for, of every account.
    Poll,
    Sweep,
}

pub(crate) fn run(seed: u64, load: f64, policy: Policy) -> Report {
    let mut world = World::new(seed, load);
    let most = omniscient::most(&world);
    let mut week = Week {
        gateway: Gateway::new(policy, world.accounts.len(), START),
        rng: Rng::with_seed(seed ^ 0x5eed),
        events: BinaryHeap::new(),
        caches: vec![None; world.sessions],
        report: Report {
            load,
            policy,
            served: 0.0,
            most,
            turns: world.turns.len(),
            refused: 0,
            avoidable: 0,
            could_be_warm: 0,
            warm: 0,
            moves: 0,
            sessions: world.sessions,
            stops: 0,
            after_stop: 0,
        },
    };
    week.events.push(Reverse((START, Event::Poll)));
    week.events.push(Reverse((START, Event::Sweep)));
    for turn in std::mem::take(&mut world.turns) {
        week.until(turn.at, &mut world);
        week.turn(turn, &mut world);
    }
    week.until(START + WEEK, &mut world);
    week.report
}

struct Week {
    gateway: Gateway,
    rng: Rng,
    events: BinaryHeap<Reverse<(i64, Event)>>,
    /// Where each conversation is in the cache, and when it was last put there.
    caches: Vec<Option<(usize, i64)>>,
    report: Report,
}

impl Week {
    /// Lets everything happen that is due before then.
    fn until(&mut self, then: i64, world: &mut World) {
        while let Some(Reverse((at, event))) = self.events.pop_if_due(then) {
            match event {
                Event::End(account) => {
                    world.accounts[account].in_flight -= 1;
                    self.gateway.ended(account);
                    self.read(account, Source::Answer, at, world);
                }
                Event::Poll => {
                    for account in 0..world.accounts.len() {
                        self.read(account, Source::Usage, at, world);
                    }
                    self.events.push(Reverse((at + 5 * MINUTE, Event::Poll)));
                }
                Event::Sweep => {
                    self.gateway.sweep(at);
                    self.events.push(Reverse((at + MINUTE / 2, Event::Sweep)));
                }
            }
        }
    }

    fn read(&mut self, account: usize, source: Source, now: i64, world: &mut World) {
        let windows = &mut world.accounts[account].windows;
        for window in windows.iter_mut() {
            window.roll(now);
        }
        self.gateway.learn(account, windows, source, now);
    }

    fn turn(&mut self, turn: crate::world::Turn, world: &mut World) {
        let now = turn.at;
        let cached = self.caches[turn.session].filter(|(_, at)| now - at < CACHE).map(|(account, _)| account);
        // The head of an answer tells of the windows as they were before it.
        let before: Vec<_> = world.accounts.iter().map(|account| account.windows).collect();
        let (report, rng) = (&mut self.report, &mut self.rng);
        let mut dice = rng.fork();
        let ask = |account: usize| {
            let cost = if cached == Some(account) { turn.work } else { turn.work * COLD };
            let stopped_until = world.accounts[account].stopped_until;
            let answer = world.accounts[account].ask(cost, now, rng);
            if matches!(answer, Answer::UsedUp(_)) {
                report.stops += 1;
                report.after_stop += usize::from(stopped_until > now);
            }
            answer
        };
        let served = self.gateway.serve(turn.session, now, &mut || dice.f64(), ask);
        let report = &mut self.report;
        report.could_be_warm += usize::from(cached.is_some());
        let Some(served) = served else {
            report.refused += 1;
            report.avoidable += usize::from(world.accounts.iter_mut().any(|account| account.could_serve(now)));
            return;
        };
        report.served += turn.least();
        report.warm += usize::from(cached == Some(served.account));
        report.moves += usize::from(served.moved);
        let end = now + turn.takes;
        self.caches[turn.session] = Some((served.account, end));
        self.events.push(Reverse((end, Event::End(served.account))));
        let mut windows = before[served.account];
        for window in &mut windows {
            window.roll(now);
        }
        self.gateway.learn(served.account, &windows, Source::Answer, now);
    }
}

trait PopIfDue {
    fn pop_if_due(&mut self, then: i64) -> Option<Reverse<(i64, Event)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(i64, Event)>> {
    fn pop_if_due(&mut self, then: i64) -> Option<Reverse<(i64, Event)>> {
        self.peek().is_some_and(|Reverse((at, _))| *at <= then).then(|| self.pop()).flatten()
    }
}
