//! The meters where several servers hold limits together: what goes into an exchange with the others,
//! and what comes of it.

use super::super::meter::{Amount, Demand, Full, Meter, Report};
use super::super::rules::limits;
use super::super::slice::counts;
use super::{Held, Meters, Spent, State, Subject, subject};
use crate::store::{Asked, GatewayKey, Limits, Share, Sight, UnixMillis};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many holders are in one exchange: the locks of all of them are held for its time.
const AT_ONCE: usize = 256;

/// What the server knows of its standing among others.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Until when its slices hold: by the clock that nobody sets, and by the one that goes on while the
    /// machine sleeps.
    holds_until: Option<(Instant, UnixMillis)>,
    /// The number of the last exchange.
    round: u64,
    /// The number of the last request that had to wait.
    waiter: u64,
}

impl Sharing {
    fn is_void(&self, now: UnixMillis) -> bool {
        self.holds_until.is_none_or(|(instant, at)| Instant::now() >= instant || now >= at)
    }
}

/// An exchange that has begun. Dropped without being kept, it has failed.
#[derive(Debug)]
pub struct Exchange {
    round: u64,
    began: (Instant, UnixMillis),
    reports: Vec<(Subject, Report)>,
}

/// A request that waits for what others have; it does not when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    meters: Arc<Meters>,
    subjects: Vec<Subject>,
    number: u64,
    /// The exchange that had begun last when it came.
    pub since: u64,
}

impl State {
    pub(super) fn fits(
        &mut self,
        subject: &Subject,
        name: &str,
        limits: &Limits,
        demand: &Demand,
        now: UnixMillis,
    ) -> Result<(), Full> {
        let meter = self.meters.entry(subject.clone()).or_default();
        match &self.sharing {
            Some(sharing) if counts(limits) => {
                meter.share(name, limits, now);
                meter.fits_slice(limits, demand, sharing.is_void(now), now)
            }
            _ => {
                // There were limits before.
                if let Some(slice) = &mut meter.slice {
                    slice.limits = limits.clone();
                }
                meter.fits(limits, demand, now)
            }
        }
    }

    /// Whether others should be asked soon about one of these.
    pub(super) fn is_low(&self, holders: &[Held]) -> bool {
        let is_low = |holder: &Held| self.meters.get(&holder.subject).is_some_and(Meter::is_low);
        self.sharing.is_some() && holders.iter().any(is_low)
    }

    /// Where there are many holders, each is asked about less often.
    fn crowd(&self) -> i64 {
        let shared = self.meters.values().filter(|meter| meter.is_shared()).count();
        1 + i64::try_from(shared / AT_ONCE).unwrap_or(0)
    }
}

impl Meters {
    /// Meters of limits that several servers hold together. Nobody gets in before an exchange.
    pub fn shared() -> Self {
        let meters = Self::default();
        meters.lock().sharing = Some(Sharing::default());
        meters
    }

    /// Whether several servers hold the limits together.
    pub fn is_shared(&self) -> bool {
        self.lock().sharing.is_some()
    }

    /// Notes that a request waits for what others may have.
    pub fn wait(self: &Arc<Self>, key: &GatewayKey, demand: Demand, now: UnixMillis) -> Waiting {
        let mut state = self.lock();
        let (number, since) = state.sharing.as_mut().map_or((0, 0), |sharing| {
            sharing.waiter += 1;
            (sharing.waiter, sharing.round)
        });
        let mut subjects = Vec::new();
        for (level, name, limits) in limits(key).filter(|(_, _, limits)| counts(limits)) {
            let subject = subject(key, level);
            let meter = state.meters.entry(subject.clone()).or_default();
            meter.share(name, limits, now);
            meter.wait(number, demand, now);
            subjects.push(subject);
        }
        drop(state);
        self.asks.notify_one();
        Waiting { meters: Arc::clone(self), subjects, number, since }
    }

    /// Sees to it that a key's numbers are those of all servers: gives the number of the exchange after
    /// which they are. `None` if they are now.
    pub fn look(&self, key: &GatewayKey, now: UnixMillis) -> Option<u64> {
        let mut state = self.lock();
        let round = state.sharing.as_ref()?.round;
        let mut is_old = false;
        for (level, name, limits) in limits(key).filter(|(_, _, limits)| counts(limits)) {
            let meter = state.meters.entry(subject(key, level)).or_default();
            meter.share(name, limits, now);
            is_old |= meter.is_old(now);
        }
        drop(state);
        self.asks.notify_one();
        is_old.then_some(round)
    }

    /// Whether an exchange about this key has begun, and ended, since that one.
    pub fn has_heard(&self, key: &GatewayKey, round: u64) -> bool {
        let state = self.lock();
        let mut subjects = limits(key).filter(|(_, _, limits)| counts(limits)).map(|(level, _, _)| subject(key, level));
        subjects.all(|subject| state.meters.get(&subject).is_none_or(|meter| meter.round() > round))
    }

    /// Waits until somebody is to be asked about.
    pub async fn asks(&self) {
        self.asks.notified().await;
    }

    /// In how long the next exchange is due.
    pub fn due_in(&self, now: UnixMillis) -> Option<Duration> {
        let state = self.lock();
        let crowd = state.crowd();
        let first = state.meters.values().filter_map(|meter| meter.due_in(now, crowd)).min()?;
        Some(Duration::from_millis(u64::try_from(first).unwrap_or(0)))
    }

    /// Begins an exchange about those who are due. `unwritten` is what was used, by anybody, and is not
    /// in the ledger at this moment, and must be nothing else.
    pub fn begin(
        &self,
        unwritten: &mut HashMap<Subject, BTreeMap<i64, Amount>>,
        now: UnixMillis,
    ) -> Option<(Exchange, Vec<Asked>)> {
        let mut state = self.lock();
        let crowd = state.crowd();
        let State { meters, sharing, .. } = &mut *state;
        let sharing = sharing.as_mut()?;
        let due = meters.iter_mut().filter(|(_, meter)| meter.due_in(now, crowd) == Some(0)).take(AT_ONCE);
        let reports: Vec<(Subject, Report)> = due
            .filter_map(|(subject, meter)| {
                let unwritten = unwritten.remove(subject).unwrap_or_default();
                Some((subject.clone(), meter.report(unwritten, now)?))
            })
            .collect();
        if reports.is_empty() {
            return None;
        }
        sharing.round += 1;
        let asked = reports.iter().map(|(subject, report)| Asked {
            holder: subject.holder,
            id: subject.id.clone(),
            since: report.since,
            used: (report.used.tokens, report.used.cost),
        });
        let asked = asked.collect();
        Some((Exchange { round: sharing.round, began: (Instant::now(), now), reports }, asked))
    }

    /// The database has answered. Says what the server's shares shall be.
    pub fn decide(
        &self,
        exchange: &Exchange,
        there: UnixMillis,
        sights: &[Sight],
        now: UnixMillis,
    ) -> Vec<Option<Share>> {
        let mut state = self.lock();
        let State { meters, spent, .. } = &mut *state;
        let mut shares = Vec::with_capacity(sights.len());
        for ((subject, report), sight) in exchange.reports.iter().zip(sights) {
            let Some(meter) = meters.get_mut(subject) else {
                shares.push(None);
                continue;
            };
            let (share, crossed) = meter.decide(report, sight, there, now);
            spent.extend(crossed.into_iter().map(|gauge| Spent::found(subject, meter.name(), gauge)));
            shares.push(share);
        }
        let is_news = !spent.is_empty();
        drop(state);
        if is_news {
            self.crossed.notify_one();
        }
        shares
    }

    /// The exchange was kept: the shares hold, for as long as `lease` from its begin.
    pub fn keep(&self, exchange: &Exchange, shares: &[Option<Share>], lease: Duration) {
        let mut state = self.lock();
        let State { meters, sharing, .. } = &mut *state;
        for ((subject, _), share) in exchange.reports.iter().zip(shares) {
            if let Some(meter) = meters.get_mut(subject) {
                meter.grant(share.as_ref(), exchange.round);
            }
        }
        if let Some(sharing) = sharing {
            let (instant, at) = exchange.began;
            let millis = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 4);
            sharing.holds_until = Some((instant + lease, at + millis));
        }
        drop(state);
        self.released.notify_waiters();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.meters.lock();
        for subject in &self.subjects {
            if let Some(meter) = state.meters.get_mut(subject) {
                meter.wait_no_more(self.number);
            }
        }
    }
}
