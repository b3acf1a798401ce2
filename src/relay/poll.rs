//! Asks the backend how much of each account is used: beside the requests, never for one. Each
//! account at its own times, so that a fleet is not asked in one second; seldom while nobody uses it;
//! at once when a window has reset; and while it is put aside, so that quota that is back early is
//! used (lessons.md 11).

use super::routing::living;
use super::{Relay, caller, millis, millis_from_now};
use crate::account::Member;
use crate::account::pool::quota::Source;
use crate::codex::limits::Limits;
use crate::codex::{Failure, FailureKind};
use crate::store::{AccountId, Duty, UnixMillis};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether an account is due.
const PACE: Duration = Duration::from_secs(1);
/// Accounts asked at one time.
const AT_ONCE: usize = 4;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// An account that was used within this time, milliseconds, is in use.
const IN_USE: i64 = 10 * 60 * 1000;
/// How soon an account of which nothing is known is asked, milliseconds.
const AT_START: i64 = 5_000;
/// How soon an account is asked again after a failure, milliseconds, doubled with each.
const AGAIN: i64 = 60_000;
/// How long after a window's reset its account is asked at the latest, milliseconds.
const AFTER_RESET: i64 = 15_000;

/// How often accounts are asked.
#[derive(Debug, Clone, Copy)]
pub struct Polling {
    /// One that is in use, or put aside; never, if this is zero.
    pub interval: Duration,
    /// One that is not.
    pub idle: Duration,
}

/// When an account is to be asked.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: UnixMillis,
    failures: u32,
}

impl Relay {
    /// Asks accounts when they are due, until `stop`, while it is ours to ask for all replicas: the
    /// others are told what was learnt.
    pub async fn poll_usage(self: Arc<Self>, duty: Duty, stop: CancellationToken) {
        if self.options.polling.interval.is_zero() {
            return;
        }
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut plan: HashMap<AccountId, Due> = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if !duty.is_ours() {
                // Whoever takes over plans from what is known then.
                plan.clear();
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.poll_round(&mut plan, &duty) => {}
            }
        }
    }

    async fn poll_round(&self, plan: &mut HashMap<AccountId, Due>, duty: &Duty) {
        let now = millis_from_now(Duration::ZERO);
        let members = self.accounts.members();
        plan.retain(|id, _| members.contains_key(id));
        let mut due = Vec::new();
        for (id, member) in &*members {
            let planned = *plan.entry(*id).or_insert_with(|| first(member, self.options.polling, now));
            // A clock that was set back must not silence the question.
            let at = planned.at.min(now + millis(self.options.polling.idle) * 2);
            if at <= now || has_reset(member, now) {
                due.push((member.clone(), planned));
            }
        }
        let asked = due.into_iter().map(|(member, planned)| async move {
            if !duty.is_ours() {
                return (member.manager.id(), planned.failures, planned.at);
            }
            let failures = match self.ask_usage(&member).await {
                Ok(()) => 0,
                Err(_) => planned.failures.saturating_add(1),
            };
            (member.manager.id(), failures, next(&member, failures, self.options.polling))
        });
        let asked: Vec<_> = asked.collect();
        let answers: Vec<_> = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        for (id, failures, at) in answers {
            plan.insert(id, Due { at, failures });
        }
    }

    /// Asks the backend for an account's usage now, and learns from the answer.
    pub async fn ask_usage(&self, member: &Member) -> Result<(), Failure> {
        let unusable = || Failure::of(FailureKind::Unauthorized, "the account has no token to ask with");
        let credentials = living(member).ok_or_else(unusable)?;
        let account = member.manager.snapshot().account.clone();
        let route = self.routing.of(account.id);
        let who = caller(&account, &credentials, route.as_deref());
        let call = self.client.call(who, Method::GET, "wham/usage", HeaderMap::new(), Bytes::new());
        let late = |_| Err(Failure::of(FailureKind::Timeout, "the backend did not answer in time"));
        let answer = tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(late).and_then(|called| {
            let illegible = || Failure::of(FailureKind::ServerError, "the backend's answer on usage is not legible");
            Limits::from_usage(&called.body).ok_or_else(illegible)
        });
        match &answer {
            Ok(limits) => self.accounts.note_limits(account.id, limits, Source::Usage, None),
            Err(failure) => {
                tracing::debug!(account = %account.name, cause = %failure.message, "usage could not be asked for");
            }
        }
        answer.map(drop)
    }
}

/// When an account is asked for the first time: at once if nothing is known of it.
fn first(member: &Member, polling: Polling, now: UnixMillis) -> Due {
    let at = match member.condition().quota.read_at() {
        None => now + jittered(AT_START, 1.0),
        Some(read_at) => read_at.max(now - millis(polling.interval)) + jittered(millis(polling.interval), 1.0),
    };
    Due { at, failures: 0 }
}

/// Whether a window has reset since the account was last asked, so that what is known is old.
fn has_reset(member: &Member, now: UnixMillis) -> bool {
    let quota = member.condition().quota;
    let reset = quota.windows().iter().flatten().map(|window| window.resets_at).filter(|at| *at <= now).max();
    let spread = i64::from(member.manager.id().to_string().bytes().map(u32::from).sum::<u32>()) % AFTER_RESET;
    reset.zip(quota.read_at()).is_some_and(|(reset, read_at)| read_at < reset && reset + spread <= now)
}

/// When an account is asked next.
fn next(member: &Member, failures: u32, polling: Polling) -> UnixMillis {
    let now = millis_from_now(Duration::ZERO);
    if failures > 0 {
        let pause = AGAIN.saturating_mul(1 << failures.min(6)).min(millis(polling.idle).max(AGAIN));
        return now + jittered(pause, 0.5);
    }
    let condition = member.condition();
    let is_used = condition.in_flight > 0 || condition.last_used.is_some_and(|at| now.saturating_sub(at) < IN_USE);
    let is_aside = condition.limited_until(now).is_some();
    let every = if is_used || is_aside { polling.interval } else { polling.idle };
    now + jittered(millis(every), 0.4)
}

/// `pause`, of which `share` is left to chance.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "hours in milliseconds")]
fn jittered(pause: i64, share: f64) -> i64 {
    (pause as f64 * (1.0 - share * fastrand::f64())) as i64
}
