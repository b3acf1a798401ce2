//! All meters, in memory: a request takes its place on those of its key, its user and its team at
//! once or on none of them, and gives it back when it is over, whichever way it ends.
//!
//! What was used before the process began is read from the books, once, when a holder with a budget
//! is first seen.

use super::meter::{Amount, Demand, Full, Gauge, Meter};
use super::rules::{Level, limits};
use crate::store::{Budget, GatewayKey, Holder, HourlySum, Limits, UnixMillis};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

mod sharing;

use sharing::Sharing;
pub use sharing::{Exchange, Waiting};

/// Whose meter it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// A team, a user or a key.
    pub holder: Holder,
    /// Its id.
    pub id: String,
}

/// A limit that is used up, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The team's, the user's, or the key's own.
    pub level: Level,
    /// What operators call it.
    pub name: String,
    /// Which limit, and until when.
    pub full: Full,
}

/// A limit and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The team's, the user's, or the key's own.
    pub level: Level,
    /// What operators call it.
    pub name: String,
    /// How it stands.
    pub gauge: Gauge,
}

/// A budget that has just been used up, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// The team's, the user's, or the key's own.
    pub level: Level,
    /// The holder's id.
    pub id: String,
    /// What operators call it.
    pub name: String,
    /// The budget, as it stands.
    pub gauge: Gauge,
}

impl Spent {
    /// Found in an exchange with other servers.
    fn found(subject: &Subject, name: &str, gauge: Gauge) -> Self {
        let level = match subject.holder {
            Holder::Team => Level::Team,
            Holder::User => Level::User,
            Holder::Key => Level::Key,
        };
        Self { level, id: subject.id.clone(), name: name.to_owned(), gauge }
    }

    /// Whose budget it is.
    pub fn holder(&self) -> Holder {
        match self.level {
            Level::Team => Holder::Team,
            Level::User => Holder::User,
            Level::Key => Holder::Key,
        }
    }
}

/// The meters. One for the process.
#[derive(Debug, Default)]
pub struct Meters {
    state: Mutex<State>,
    /// Told whenever a request gives back what it held.
    released: Notify,
    /// Told whenever a budget was used up.
    crossed: Notify,
    /// Told when other servers are to be asked soon.
    asks: Notify,
}

#[derive(Debug, Default)]
struct State {
    meters: HashMap<Subject, Meter>,
    /// The holders whose hours are kept.
    counted: HashSet<Subject>,
    /// Budgets that were used up and that nobody has been told of.
    spent: Vec<Spent>,
    /// Where several servers hold the limits together.
    sharing: Option<Sharing>,
}

/// A request's place; dropped without being settled, it has used nothing.
#[derive(Debug)]
pub struct Reservation {
    meters: Arc<Meters>,
    /// Whose meters it is on.
    holders: Vec<Held>,
    demand: Demand,
    began: UnixMillis,
    open: bool,
}

/// A holder as a request found it: limits may change while it runs.
#[derive(Debug)]
struct Held {
    subject: Subject,
    level: Level,
    /// Empty where there is no budget to tell of.
    name: String,
    budgets: Vec<Budget>,
}

impl Held {
    fn new(subject: Subject, level: Level, name: &str, limits: &Limits) -> Self {
        let name = if limits.budgets.is_empty() { String::new() } else { name.to_owned() };
        Self { subject, level, name, budgets: limits.budgets.clone() }
    }

    fn spent(&self, gauge: Gauge) -> Spent {
        Spent { level: self.level, id: self.subject.id.clone(), name: self.name.clone(), gauge }
    }
}

impl Meters {
    /// Takes a place for a request that began `now`, or says which limit leaves no room.
    pub fn reserve(
        self: &Arc<Self>,
        key: &GatewayKey,
        demand: Demand,
        now: UnixMillis,
    ) -> Result<Reservation, Exceeded> {
        let mut state = self.lock();
        let mut holders = Vec::new();
        for (level, name, limits) in limits(key) {
            let subject = subject(key, level);
            let exceeded = |full| Exceeded { level, name: name.to_owned(), full };
            state.fits(&subject, name, limits, &demand, now).map_err(exceeded)?;
            holders.push(Held::new(subject, level, name, limits));
        }
        for holder in &holders {
            state.meters.entry(holder.subject.clone()).or_default().take(&demand, now);
        }
        let is_low = state.is_low(&holders);
        drop(state);
        if is_low {
            self.asks.notify_one();
        }
        Ok(Reservation { meters: Arc::clone(self), holders, demand, began: now, open: true })
    }

    /// How a key's limits stand, its own first.
    pub fn standings(&self, key: &GatewayKey, now: UnixMillis) -> Vec<Standing> {
        let mut state = self.lock();
        let mut standings = Vec::new();
        for (level, name, limits) in limits(key) {
            let meter = state.meters.entry(subject(key, level)).or_default();
            let standing = |gauge| Standing { level, name: name.to_owned(), gauge };
            standings.extend(meter.gauges(limits, now).into_iter().map(standing));
        }
        standings
    }

    /// Waits until some request gives back what it held. To be called, and polled, before the look
    /// that it follows.
    pub fn released(&self) -> tokio::sync::futures::Notified<'_> {
        self.released.notified()
    }

    /// Waits until a budget was used up that nobody was told of by [`Meters::take_spent`].
    pub async fn crossed(&self) {
        self.crossed.notified().await;
    }

    /// The budgets that requests have used up since this was asked last: each once in its period, or,
    /// of a rolling one, each time that it fills. What the books said at the start is not news.
    pub fn take_spent(&self) -> Vec<Spent> {
        std::mem::take(&mut self.lock().spent)
    }

    /// The holders among these keys' that have budgets whose hours are not kept yet, with the limits.
    pub fn uncounted(&self, keys: &[Arc<GatewayKey>]) -> Vec<(Subject, Limits)> {
        let state = self.lock();
        let mut found: HashMap<Subject, Limits> = HashMap::new();
        if state.sharing.is_some() {
            // The first exchange reads what was used before.
            return Vec::new();
        }
        for key in keys {
            for (level, _, limits) in limits(key) {
                let subject = subject(key, level);
                if !limits.budgets.is_empty() && !state.counted.contains(&subject) {
                    found.entry(subject).or_insert_with(|| limits.clone());
                }
            }
        }
        found.into_iter().collect()
    }

    /// From now on this holder's hours are kept.
    pub fn count(&self, subject: Subject) {
        self.lock().counted.insert(subject);
    }

    /// Its hours could not be read: they are not kept.
    pub fn discount(&self, subject: &Subject) {
        self.lock().counted.remove(subject);
    }

    /// What the books say of the time before.
    pub fn prime(&self, subject: &Subject, before: &[HourlySum]) {
        self.lock().meters.entry(subject.clone()).or_default().prime(before);
        self.released.notify_waiters();
    }

    /// Forgets what no limit needs any more.
    pub fn tidy(&self, keys: &[Arc<GatewayKey>], now: UnixMillis) {
        let mut state = self.lock();
        let mut known: HashMap<Subject, &Limits> = HashMap::new();
        for key in keys {
            known.extend(limits(key).map(|(level, _, limits)| (subject(key, level), limits)));
        }
        let State { meters, counted, .. } = &mut *state;
        counted.retain(|subject| known.get(subject).is_some_and(|limits| !limits.budgets.is_empty()));
        let nothing = Limits::default();
        meters.retain(|subject, meter| {
            meter.prune(known.get(subject).copied().unwrap_or(&nothing), now);
            !meter.is_idle(now)
        });
    }

    fn settle(&self, reservation: &Reservation, used: Amount, now: UnixMillis) {
        let mut state = self.lock();
        let State { meters, counted, spent, .. } = &mut *state;
        let mut is_wanted = false;
        for holder in &reservation.holders {
            if let Some(meter) = meters.get_mut(&holder.subject) {
                let is_counted = meter.is_shared() || counted.contains(&holder.subject);
                let began = is_counted.then_some(reservation.began);
                is_wanted |= meter.is_wanted();
                let crossed = meter.settle(&reservation.demand, used, began, &holder.budgets, now);
                spent.extend(crossed.into_iter().map(|gauge| holder.spent(gauge)));
            }
        }
        let is_news = !spent.is_empty();
        drop(state);
        self.released.notify_waiters();
        if is_news {
            self.crossed.notify_one();
        }
        if is_wanted {
            self.asks.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The request is over and has used this much.
    pub fn settle(mut self, used: Amount, now: UnixMillis) {
        self.open = false;
        self.meters.settle(&self, used, now);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            self.meters.settle(self, Amount::default(), self.began);
        }
    }
}

/// Whose meter a level is.
fn subject(key: &GatewayKey, level: Level) -> Subject {
    let (holder, id) = match level {
        Level::Key => (Holder::Key, Some(key.id.to_string())),
        Level::User => (Holder::User, key.user.as_ref().map(|user| user.id.to_string())),
        Level::Team => (Holder::Team, key.team.as_ref().map(|team| team.id.to_string())),
    };
    Subject { holder, id: id.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BudgetUnit, Period};
    use crate::tenant::testing::{key, team};

    const T: UnixMillis = 1_700_094_400_000;

    fn at_once(requests: u32) -> Limits {
        Limits { concurrent_requests: Some(requests), ..Limits::default() }
    }

    #[test]
    fn a_place_is_taken_at_every_level_or_at_none_and_always_given_back() {
        let meters = Arc::new(Meters::default());
        let team = team(at_once(1));
        let (one, two) = (key(at_once(5), None, Some(team.clone())), key(at_once(5), None, Some(team)));
        let place = meters.reserve(&one, Demand::default(), T).unwrap();
        let refused = meters.reserve(&two, Demand::default(), T).unwrap_err();
        assert_eq!((refused.level, refused.name.as_str()), (Level::Team, "t"));
        let used = |key: &GatewayKey| meters.standings(key, T).iter().map(|one| one.gauge.used).collect::<Vec<_>>();
        assert_eq!((used(&one), used(&two)), (vec![1, 1], vec![0, 1]));
        drop(place);
        assert_eq!(used(&one), [0, 0]);
        meters.reserve(&two, Demand::default(), T).unwrap().settle(Amount::default(), T);
        assert_eq!(used(&two), [0, 0]);
    }

    #[test]
    fn the_books_and_what_followed_are_counted_once() {
        let meters = Arc::new(Meters::default());
        let budget = Budget { unit: BudgetUnit::Tokens, amount: 100, per: Period::Day };
        let one = Arc::new(key(Limits { budgets: vec![budget], ..Limits::default() }, None, None));
        let keys = [Arc::clone(&one)];
        let spend = |tokens| {
            let place = meters.reserve(&one, Demand::default(), T).unwrap();
            place.settle(Amount { tokens, cost: 0 }, T);
        };
        spend(7); // Before its hours are kept: the books know it.
        let [(subject, _)] = &meters.uncounted(&keys)[..] else { panic!("one holder") };
        meters.count(subject.clone());
        spend(5);
        meters.prime(subject, &[(T / 3_600_000, 7, 0)]);
        spend(1);
        assert_eq!(meters.standings(&one, T)[0].gauge.used, 13);
        assert_eq!(meters.uncounted(&keys), []);
        meters.tidy(&keys, T);
        assert_eq!(meters.standings(&one, T)[0].gauge.used, 13);
        meters.tidy(&[], T + 100 * 86_400_000);
        assert_eq!(meters.uncounted(&keys).len(), 1, "a holder that comes back is read anew");
    }

    #[test]
    fn a_budget_is_told_by_the_request_that_uses_it_up_and_by_no_other() {
        let meters = Arc::new(Meters::default());
        let day = |amount| Budget { unit: BudgetUnit::Tokens, amount, per: Period::Day };
        let team = team(Limits { budgets: vec![day(30)], ..Limits::default() });
        let one = Arc::new(key(Limits { budgets: vec![day(10), day(20)], ..Limits::default() }, None, Some(team)));
        for (subject, _) in meters.uncounted(&[Arc::clone(&one)]) {
            meters.count(subject.clone());
            meters.prime(&subject, &[]);
        }
        let spend = |tokens, now| {
            // All at once: what is under way when a budget is used up does not use it up again.
            let places = [(); 2].map(|()| meters.reserve(&one, Demand::default(), now).unwrap());
            for place in places {
                place.settle(Amount { tokens, cost: 0 }, now);
            }
            meters.take_spent().into_iter().map(|one| (one.level, one.gauge.limit, one.gauge.used)).collect::<Vec<_>>()
        };
        assert_eq!(spend(4, T), []);
        assert_eq!(spend(5, T), [(Level::Key, 10, 13)]);
        assert_eq!(meters.reserve(&one, Demand::default(), T).unwrap_err().level, Level::Key);
        assert_eq!(spend(5, T + 86_400_000), [(Level::Key, 10, 10)], "the next day");
        // What the books say at a start was told before.
        let again = Arc::new(Meters::default());
        for (subject, _) in again.uncounted(&[Arc::clone(&one)]) {
            again.count(subject.clone());
            again.prime(&subject, &[(T / 3_600_000, 18, 0)]);
        }
        assert!(again.reserve(&one, Demand::default(), T).is_err() && again.take_spent().is_empty());
    }
}
