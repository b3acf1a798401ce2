//! The gateway's part: the production code, with the loop of the relay around it in virtual time.

use crate::world::Answer;
use std::time::Duration;
use tollway::account::pool::condition::{Condition, Defaults};
use tollway::account::pool::quota::Source;
use tollway::account::pool::remedy::{Then, remedy};
use tollway::account::pool::retries::RetryBudget;
use tollway::account::pool::sessions::{Session, Sessions};
use tollway::account::pool::{Ask, Candidate, Choice, Stay, choose};
use tollway::codex::limits::{Limits, Window};
use tollway::codex::{Failure, FailureKind};
use tollway::store::{AccountId, AccountScope, KeyId, Strategy};

const DEFAULTS: Defaults = Defaults { cooldown: Duration::from_secs(30), limit: Duration::from_mins(5) };
const MAX_ATTEMPTS: u32 = 4;

/// A way to choose.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Policy {
    pub(crate) strategy: Strategy,
    /// Whether conversations stay.
    pub(crate) stays: bool,
}

impl Policy {
    pub(crate) const ALL: [Self; 5] = [
        Self::of(Strategy::Quota),
        Self::of(Strategy::LeastLoaded),
        Self::of(Strategy::FillFirst),
        Self::of(Strategy::RoundRobin),
        Self { strategy: Strategy::RoundRobin, stays: false },
    ];

    pub(crate) const fn of(strategy: Strategy) -> Self {
        Self { strategy, stays: true }
    }
}

pub(crate) struct Gateway {
    policy: Policy,
    ids: Vec<AccountId>,
    conditions: Vec<Condition>,
    sessions: Sessions,
    retries: RetryBudget,
    scope: AccountScope,
}

/// Who served, and what became of the conversation.
pub(crate) struct Served {
    pub(crate) account: usize,
    pub(crate) moved: bool,
}

impl Gateway {
    pub(crate) fn new(policy: Policy, accounts: usize, now: i64) -> Self {
        let mut ids: Vec<_> = (0..accounts).map(|_| AccountId::new()).collect();
        ids.sort_unstable();
        Self {
            policy,
            ids,
            conditions: vec![Condition::default(); accounts],
            sessions: Sessions::new(100_000, 24 * crate::world::HOUR),
            retries: RetryBudget::new(now),
            scope: AccountScope::All,
        }
    }

    fn candidates(&self, now: i64) -> Vec<Candidate> {
        let describe = |(id, condition): (&AccountId, &Condition)| {
            let mut candidate = Candidate::new(*id);
            condition.describe(&mut candidate, None, now);
            candidate.sessions = self.sessions.living_on(*id);
            candidate
        };
        self.ids.iter().zip(&self.conditions).map(describe).collect()
    }

    fn choose(&self, session: Session, tried: &[AccountId], now: i64) -> Choice {
        let home = self.sessions.home(session, now).filter(|_| self.policy.stays);
        let ask = Ask {
            strategy: self.policy.strategy,
            home: home.map(|home| home.account),
            host: home.map(|home| home.served_by),
            tried,
            ..Ask::of(&self.scope, now)
        };
        choose(&self.candidates(now), &ask)
    }

    /// Has a turn served; `ask` is the backend. None: it was refused.
    pub(crate) fn serve(
        &mut self,
        session: usize,
        now: i64,
        random: &mut impl FnMut() -> f64,
        mut ask: impl FnMut(usize) -> Answer,
    ) -> Option<Served> {
        let session = Session::of(KeyId::nobody(), &session.to_string());
        self.retries.deposit();
        let (mut tried, mut charged) = (Vec::new(), 0);
        loop {
            let choice = self.choose(session, &tried, now);
            let id = choice.first()?;
            let is_last = choice.ordered.len() == 1;
            let account = self.ids.iter().position(|known| *known == id).expect("one of ours");
            tried.push(id);
            let is_trial = self.conditions[account].begin(1.0, now);
            let Err(failure) = self.turn(account, is_last, &mut ask) else {
                let moved = self.settle(session, id, choice.stay, now);
                return Some(Served { account, moved });
            };
            let remedy = remedy(failure.kind);
            self.conditions[account].suffer(remedy.account, &failure, None, DEFAULTS, now, random());
            self.conditions[account].end(is_trial);
            match remedy.then {
                Then::GiveUp => return None,
                Then::NextFree => {}
                Then::Next => {
                    charged += 1;
                    if charged >= MAX_ATTEMPTS || !self.retries.withdraw(now) {
                        return None;
                    }
                }
            }
        }
    }

    /// One account's turn: as in the relay, the last one is asked twice.
    fn turn(&mut self, account: usize, is_last: bool, ask: &mut impl FnMut(usize) -> Answer) -> Result<(), Failure> {
        let mut answer = ask(account);
        if matches!(answer, Answer::Broken | Answer::Overloaded) && is_last {
            answer = ask(account);
        }
        let failure = match answer {
            Answer::Served => {
                self.conditions[account].succeeded();
                return Ok(());
            }
            Answer::UsedUp(until) => {
                Failure { resets_at: Some(until / 1000), ..Failure::of(FailureKind::UsageLimit, "used up") }
            }
            Answer::Slower(wait) => {
                let wait = Duration::from_millis(u64::try_from(wait).expect("positive"));
                Failure { retry_after: Some(wait), ..Failure::of(FailureKind::RateLimited, "slower") }
            }
            Answer::Broken => Failure::of(FailureKind::ServerError, "broken"),
            Answer::Overloaded => Failure::of(FailureKind::Overloaded, "overloaded"),
        };
        Err(failure)
    }

    /// Says whether the conversation moved.
    fn settle(&mut self, session: Session, id: AccountId, stay: Stay, now: i64) -> bool {
        match stay {
            Stay::NoHome | Stay::Home => self.sessions.settle(session, id, 0, now),
            Stay::Detour(_) => return self.sessions.note_detour(session, id, 0, now),
            Stay::Moves(_) | Stay::Gone => {
                self.sessions.settle(session, id, 1, now);
                return true;
            }
        }
        false
    }

    /// A conversation lives there from now on.
    pub(crate) fn settle_directly(&mut self, session: i64, account: usize, now: i64) {
        self.sessions.settle(Session::of(KeyId::nobody(), &session.to_string()), self.ids[account], 1, now);
        if session % 10_000 == 0 {
            self.sessions.take_unwritten();
        }
    }

    pub(crate) fn conversations(&self) -> usize {
        self.sessions.len()
    }

    /// An answer has ended.
    pub(crate) fn ended(&mut self, account: usize) {
        self.conditions[account].end(false);
    }

    /// The backend tells of an account's windows, in whole percent.
    pub(crate) fn learn(&mut self, account: usize, windows: &[crate::world::Window; 2], source: Source, now: i64) {
        let said = |window: &crate::world::Window| {
            Some(Window {
                used_percent: window.percent().floor(),
                window_minutes: u64::try_from(window.length / crate::world::MINUTE).ok(),
                resets_at: Some(window.resets_at / 1000),
            })
        };
        let limits = Limits { primary: said(&windows[0]), secondary: said(&windows[1]), ..Limits::default() };
        self.conditions[account].learn(&limits, source, None, now);
    }

    pub(crate) fn sweep(&mut self, now: i64) {
        self.sessions.sweep(now);
    }
}
