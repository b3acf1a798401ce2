//! What somebody has to act on, told in the log and to the operator's webhook: an account needs a
//! login, a pool is nearly used up, a budget is used up.

use super::assemble::unix_millis;
use super::state::State;
use crate::account::keeper::Change;
use crate::account::pool::{Candidate, Reason, exclusion};
use crate::relay::Books;
use crate::store::{AccountScope, Period, UnixMillis};
use crate::tenant::{Counted, Spent};
use crate::webhook::{Event, Outbox};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often pools are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How much a pool must recover, in percent, before it can be nearly used up again: a share that
/// moves around the mark is told once.
const RECOVERY: f64 = 5.0;
/// How long a rolling budget that is used up is not told of again by another server, milliseconds.
const ROLLING: i64 = 30 * 60 * 1000;
/// The name of all accounts together; no pool's, for names have no spaces at their ends.
const ALL: &str = "";

/// Tells of changes of accounts.
pub(super) fn tell_changes(outbox: &Outbox, changes: &[Change]) {
    for Change { name, event, detail } in changes {
        let (was, became, reason) = (event.was.as_str(), event.became.as_str(), event.reason.as_deref());
        if detail.is_some() {
            tracing::error!(account = %name, was, became, reason, detail, "an account's state has changed");
        } else {
            tracing::info!(account = %name, was, became, reason, until = event.until, "an account's state has changed");
        }
        let is_dead = |state: &str| state == "needs_login" || state == "quarantined";
        let kind = match (is_dead(was), became) {
            (_, "needs_login") => "account.needs_login",
            (_, "quarantined") => "account.quarantined",
            (true, _) => "account.recovered",
            _ => continue,
        };
        let data = json!({
            "account_id": event.account.to_string(), "account": name, "was": was, "became": became,
            "reason": reason, "detail": detail,
        });
        outbox.put(Event { kind, data });
    }
}

/// Looks at pools until `stop`, while it is ours to do for all replicas. `mark` is the share of their
/// quota, in percent, below which they are nearly used up.
pub(super) async fn watch_pools(state: Arc<State>, outbox: Outbox, mark: f64, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !state.duty.is_ours() {
            // Whoever takes over tells of what is so then, as a process that starts does.
            told.clear();
            continue;
        }
        let pools = match state.store.pools().list().await {
            Ok(pools) => pools,
            Err(error) => {
                tracing::warn!(%error, "pools could not be read");
                continue;
            }
        };
        let (candidates, now) = (state.relay.candidates(None), unix_millis());
        let mut scopes: BTreeMap<String, AccountScope> = [(ALL.to_owned(), AccountScope::All)].into();
        scopes.extend(pools.into_iter().map(|pool| (pool.name, AccountScope::only(pool.members))));
        told.retain(|name| scopes.contains_key(name));
        for (name, scope) in scopes {
            let Some(level) = Level::of(&candidates, &scope, now) else { continue };
            if level.left < mark && told.insert(name.clone()) {
                level.tell(&name, &outbox);
            } else if level.left >= mark + RECOVERY {
                told.remove(&name);
            }
        }
    }
}

/// Tells of budgets that are used up, until `stop` and with what was used up by then.
pub(super) async fn watch_budgets(books: Arc<Books>, outbox: Outbox, stop: CancellationToken) {
    loop {
        let is_last = stop.is_cancelled();
        for spent in books.meters.take_spent() {
            if is_ours(&books, &spent).await {
                tell_spent(&spent, &outbox);
            }
        }
        if is_last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = books.meters.crossed() => {}
        }
    }
}

/// Whether it is this server that tells: others see the same.
async fn is_ours(books: &Books, spent: &Spent) -> bool {
    let (Some(slices), Counted::Budget(budget)) = (&books.slices, spent.gauge.what) else { return true };
    let now = unix_millis();
    let until = match budget.per {
        // It may fill again when its oldest hour has aged; who sees that does so within seconds.
        Period::Rolling { .. } => now + ROLLING,
        Period::Day | Period::Week | Period::Month => spent.gauge.resets_at,
    };
    match slices.claim_hit((spent.holder(), &spent.id), &budget.to_string(), now, until).await {
        Ok(is_ours) => is_ours,
        Err(error) => {
            tracing::warn!(%error, "whether another server tells of a spent budget is not known; it is told");
            true
        }
    }
}

fn tell_spent(spent: &Spent, outbox: &Outbox) {
    let Spent { level, id, name, gauge } = spent;
    let Counted::Budget(budget) = gauge.what else { return };
    let (level, text) = (level.as_str(), budget.to_string());
    tracing::error!(level, id, name, budget = text, used = gauge.used, "a budget is used up");
    let data = json!({
        "level": level, "id": id, "name": name, "budget": text, "unit": budget.unit.as_str(),
        "limit": gauge.limit, "used": gauge.used, "resets_at": gauge.resets_at,
    });
    outbox.put(Event { kind: "budget.hit", data });
}

/// How much a pool has left.
#[derive(Debug, PartialEq)]
struct Level {
    /// In percent, each account counted alike; of its windows the fuller one.
    left: f64,
    /// Accounts that serve now.
    available: usize,
    /// Accounts whose quota is known.
    accounts: usize,
    /// When the first of those that are aside is back.
    back_at: Option<UnixMillis>,
}

impl Level {
    /// `None` where nothing is known of any account: that is not nearly used up.
    fn of(candidates: &[Candidate], scope: &AccountScope, now: UnixMillis) -> Option<Self> {
        let (mut left, mut available, mut accounts, mut back) = (0.0, 0, 0_u32, None::<UnixMillis>);
        for candidate in candidates.iter().filter(|candidate| scope.allows(candidate.id)) {
            let reason = exclusion(candidate, scope, now);
            let until = reason.and_then(Reason::until);
            back = match (back, until) {
                (Some(back), Some(until)) => Some(back.min(until)),
                (back, until) => back.or(until),
            };
            let used = candidate.windows.iter().flatten().map(|window| window.used_at(now)).reduce(f64::max);
            // An account that needs a login has nothing to give.
            let (Some(used), true) = (used, reason.is_none() || until.is_some()) else { continue };
            accounts += 1;
            available += usize::from(reason.is_none());
            left += if reason.is_none() { (1.0 - used).max(0.0) } else { 0.0 };
        }
        let accounts_known = usize::try_from(accounts).unwrap_or(usize::MAX);
        (accounts > 0).then(|| Self {
            left: left / f64::from(accounts) * 100.0,
            available,
            accounts: accounts_known,
            back_at: back,
        })
    }

    fn tell(&self, pool: &str, outbox: &Outbox) {
        let Self { available, accounts, back_at, .. } = self;
        // People read it: a tenth of a percent is fine enough.
        let left = (self.left * 10.0).round() / 10.0;
        let name = if pool == ALL { "all accounts" } else { pool };
        tracing::error!(pool = name, left_percent = left, available, accounts, back_at, "a pool is nearly used up");
        let data = json!({
            "pool": (pool != ALL).then_some(pool), "left_percent": left, "accounts_available": available,
            "accounts": accounts, "next_back_at": back_at,
        });
        outbox.put(Event { kind: "pool.nearly_exhausted", data });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::pool::quota::Gauge;
    use crate::store::AccountId;

    fn candidate(used: f64) -> Candidate {
        let gauge = Gauge { used, resets_at: 1_000, length: 1_000, draw: 0.0, read_at: 0 };
        let mut candidate = Candidate::new(AccountId::new());
        candidate.windows = [Some(gauge), None];
        candidate
    }

    #[test]
    fn what_is_left_is_what_can_be_had() {
        let limited = Candidate { limited_until: Some(500), ..candidate(0.2) };
        let paused = Candidate { paused: true, ..candidate(0.0) };
        let unknown = Candidate { windows: [None; 2], ..candidate(0.0) };
        let all = [candidate(0.9), limited, paused, unknown];
        let level = Level::of(&all, &AccountScope::All, 100).expect("known");
        assert!((level.left - 5.0).abs() < 1e-9, "{level:?}");
        assert_eq!((level.available, level.accounts, level.back_at), (1, 2, Some(500)));
        assert_eq!(Level::of(&[unknown, paused], &AccountScope::All, 100), None);
        let only = AccountScope::only([all[0].id]);
        assert!(Level::of(&all, &only, 100).is_some_and(|level| (level.left - 10.0).abs() < 1e-9));
    }
}
