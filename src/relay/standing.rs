//! What the holder of a key may know of the accounts behind it: each one's standing, and all of them
//! as one pool.

use super::routing::Routing;
use super::{Relay, millis_from_now, passage};
use crate::account::pool::{self, Candidate, Reason};
use crate::account::{Accounts, Member};
use crate::codex::limits::{Limits, Window};
use crate::codex::sse::Frame;
use crate::store::{AccountId, AccountScope, GatewayKey, UnixMillis};
use futures_util::StreamExt;
use http::HeaderMap;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Windows older than this are asked for again when somebody wants to see them.
const FRESH: Duration = Duration::from_mins(1);
/// For all accounts together: clients wait for the answer before they start.
const PATIENCE: Duration = Duration::from_millis(2500);
const AT_ONCE: usize = 8;

/// One account.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The gateway's name for it.
    pub id: AccountId,
    /// The operator's name for it; may be an email.
    pub name: String,
    /// As the backend said last.
    pub plan: Option<String>,
    /// Why it is not to be had, if it is not.
    pub obstacle: Option<Reason>,
    /// In plain words, where somebody has to do something.
    pub detail: Option<String>,
    /// Its windows, as far as they are known.
    pub limits: Limits,
    /// When they were reported.
    pub limits_at: Option<UnixMillis>,
    /// When the access token ends.
    pub token_ends_at: Option<UnixMillis>,
    /// When it was renewed last.
    pub refreshed_at: UnixMillis,
    /// Whether its newest credentials are not stored yet.
    pub unpersisted: bool,
    /// Whether its workspace lives where nothing may be sent.
    pub barred: bool,
}

impl Standing {
    /// Whether it serves now.
    pub fn is_available(&self) -> bool {
        self.obstacle.is_none() && !self.barred
    }

    /// When it is back, where it is aside for a time only.
    pub fn back_at(&self) -> Option<UnixMillis> {
        self.part().back_at()
    }

    fn part(&self) -> Part {
        let (obstacle, barred) = (self.obstacle, self.barred);
        Part { obstacle, barred, windows: [self.limits.primary, self.limits.secondary] }
    }
}

/// What an account brings into a pool.
#[derive(Debug, Clone, Copy)]
struct Part {
    obstacle: Option<Reason>,
    barred: bool,
    windows: [Option<Window>; 2],
}

impl Part {
    fn of(candidate: &Candidate, now: UnixMillis) -> Self {
        Self {
            obstacle: pool::exclusion(candidate, &AccountScope::All, now),
            barred: candidate.barred,
            windows: candidate.windows.map(|gauge| gauge.map(|gauge| gauge.window(now))),
        }
    }

    /// Whether it counts as part of the pool: it serves, or will without anybody's doing.
    fn counts(&self) -> bool {
        !self.barred && self.obstacle.is_none_or(|reason| reason.until().is_some() || reason == Reason::OnTrial)
    }

    fn is_available(&self) -> bool {
        self.obstacle.is_none() && !self.barred
    }

    /// When it is back, where it is aside for a time only.
    fn back_at(&self) -> Option<UnixMillis> {
        match self.obstacle? {
            Reason::Limited(until) | Reason::Cooling(until) | Reason::Tripped(until) => Some(until),
            _ => None,
        }
    }

    fn is_used_up(&self) -> bool {
        matches!(self.obstacle, Some(Reason::Limited(_)))
            || self.windows.iter().flatten().any(|window| window.used_percent >= 100.0)
    }
}

/// Windows of one length.
#[derive(Default)]
struct Sum {
    count: u32,
    used_percent: f64,
    resets_at: Option<i64>,
}

impl Sum {
    fn add(&mut self, window: &Window, used_up: bool) {
        self.count += 1;
        self.used_percent += if used_up { 100.0 } else { window.used_percent.clamp(0.0, 100.0) };
        self.resets_at = [self.resets_at, window.resets_at].into_iter().flatten().min();
    }

    fn average(&self, minutes: u64, most: f64) -> Window {
        let used_percent = (self.used_percent / f64::from(self.count.max(1))).min(most);
        Window { used_percent, window_minutes: Some(minutes), resets_at: self.resets_at }
    }
}

/// The accounts that a key may use, as one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pool {
    /// How many serve now.
    pub available: usize,
    /// How many there are.
    pub total: usize,
    /// The shortest kind of window.
    pub primary: Option<Window>,
    /// The longest, where there is more than one kind.
    pub secondary: Option<Window>,
    /// The most frequent plan.
    pub plan: Option<String>,
    /// When the first account is back, Unix seconds, if none serves now and one will.
    pub resets_at: Option<i64>,
}

impl Pool {
    /// See [`Pool::join`].
    pub fn of(standings: &[Standing]) -> Self {
        let plan = most_frequent(standings.iter().filter_map(|one| one.plan.as_deref()));
        Self { plan, ..Self::join(standings.iter().map(Standing::part)) }
    }

    /// Windows of one length are averaged: equal accounts are one larger account. An account that is
    /// used up counts as used up in all its windows, for what is left in them cannot be had. While
    /// any account serves, no window of the pool is full. Plans are not looked at.
    fn join(parts: impl Iterator<Item = Part>) -> Self {
        let (mut total, mut available, mut first_back) = (0, 0, None);
        let mut lengths: BTreeMap<u64, Sum> = BTreeMap::new();
        for part in parts {
            total += 1;
            if !part.counts() {
                continue;
            }
            available += usize::from(part.is_available());
            first_back = [first_back, part.back_at()].into_iter().flatten().min();
            for window in part.windows.iter().flatten() {
                let Some(minutes) = window.window_minutes else { continue };
                lengths.entry(minutes).or_default().add(window, part.is_used_up());
            }
        }
        let most = if available > 0 { 99.0 } else { 100.0 };
        let mut windows = lengths.into_iter().map(|(minutes, sum)| sum.average(minutes, most));
        let (primary, secondary) = (windows.next(), windows.next_back());
        let resets_at = first_back.filter(|_| available == 0).map(|millis| millis.div_euclid(1000));
        let mut pool = Self { available, total, primary, secondary, plan: None, resets_at };
        if available == 0
            && let Some(primary) = &mut pool.primary
        {
            primary.used_percent = 100.0;
            primary.resets_at = pool.resets_at.or(primary.resets_at);
        }
        pool
    }

    /// The event by which the backend tells of limits within a stream (protocol.md 5.2).
    pub(super) fn event(&self) -> Option<Frame> {
        let told = |window: &Window| {
            let Window { used_percent, window_minutes, resets_at } = window;
            json!({"used_percent": used_percent, "window_minutes": window_minutes, "reset_at": resets_at})
        };
        let event = json!({
            "type": "codex.rate_limits", "plan_type": self.plan, "metered_limit_name": "codex", "limit_name": null,
            "rate_limits": {"primary": self.primary.as_ref().map(told), "secondary": self.secondary.as_ref().map(told)},
            "credits": null,
        });
        Frame::of("codex.rate_limits", &event.to_string())
    }

    /// Whether nothing serves now.
    pub fn is_exhausted(&self) -> bool {
        self.available == 0
    }
}

fn most_frequent<'a>(plans: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for plan in plans {
        *count.entry(plan).or_default() += 1;
    }
    count.into_iter().max_by_key(|(_, count)| *count).map(|(plan, _)| plan.to_owned())
}

impl Relay {
    /// The accounts that this key may use, by name; windows that are old are asked for first.
    pub async fn standings(&self, key: &GatewayKey) -> Vec<Standing> {
        let now = millis_from_now(Duration::ZERO);
        let members = self.accounts.members();
        let mut old: Vec<Arc<Member>> = members.values().cloned().collect();
        old.retain(|member| key.accounts.allows(member.manager.id()));
        old.retain(|member| member.limits(now).is_none_or(|(_, at)| is_old(at, now)));
        let asked = old.into_iter().map(|member| async move { drop(self.ask_usage(&member).await) });
        let asked = futures_util::stream::iter(asked);
        // Whoever has not answered by then is shown as it was.
        let _ = tokio::time::timeout(PATIENCE, asked.buffer_unordered(AT_ONCE).collect::<()>()).await;
        known_standings(&self.accounts, &self.routing, key)
    }

    /// The backend's headers that a Codex CLI is to see, its limits those of the pool and not of the
    /// account that happened to serve.
    pub(super) fn down(&self, key: &GatewayKey, backend: &HeaderMap) -> HeaderMap {
        let mut headers = passage::down(backend);
        self.notices.of(&key.accounts).head(&mut headers);
        self.shelf.label(key.id, &mut headers);
        headers
    }
}

/// The accounts of a scope as one, as they are known.
pub(super) fn pool(accounts: &Accounts, routing: &Routing, scope: &AccountScope) -> Pool {
    let now = millis_from_now(Duration::ZERO);
    let mut candidates = accounts.candidates_of(scope, None);
    routing.bar(&mut candidates);
    let plans: Vec<_> = candidates.iter().filter_map(|one| accounts.get(one.id)?.plan()).collect();
    let plan = most_frequent(plans.iter().map(String::as_str));
    Pool { plan, ..Pool::join(candidates.iter().map(|one| Part::of(one, now))) }
}

/// The accounts that a key may use, as they are known.
fn known_standings(accounts: &Accounts, routing: &Routing, key: &GatewayKey) -> Vec<Standing> {
    let now = millis_from_now(Duration::ZERO);
    let members = accounts.members();
    let mine = members.values().filter(|one| key.accounts.allows(one.manager.id()));
    let mut standings: Vec<_> = mine.map(|member| standing(routing, key, member, now)).collect();
    standings.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
    standings
}

fn standing(routing: &Routing, key: &GatewayKey, member: &Arc<Member>, now: UnixMillis) -> Standing {
    let snapshot = member.manager.snapshot();
    let (limits, limits_at) = member.limits(now).map_or((Limits::default(), None), |(limits, at)| (limits, Some(at)));
    Standing {
        id: snapshot.account.id,
        name: snapshot.account.name.clone(),
        plan: limits.plan.clone().or_else(|| snapshot.account.plan.clone()),
        obstacle: pool::exclusion(&member.candidate(None, now), &key.accounts, now),
        detail: snapshot.standing.detail.clone(),
        limits,
        limits_at,
        token_ends_at: snapshot.credentials.access_expires_at,
        refreshed_at: snapshot.credentials.last_refresh_at,
        unpersisted: member.manager.is_unpersisted(),
        barred: routing.is_barred(snapshot.account.id),
    }
}

fn is_old(at: UnixMillis, now: UnixMillis) -> bool {
    now.saturating_sub(at) > i64::try_from(FRESH.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(used_percent: f64, minutes: u64, resets_at: i64) -> Window {
        Window { used_percent, window_minutes: Some(minutes), resets_at: Some(resets_at) }
    }

    fn standing(short: f64, long: f64) -> Standing {
        Standing {
            id: AccountId::new(),
            name: "a".into(),
            plan: Some("plus".into()),
            obstacle: None,
            detail: None,
            limits: Limits {
                primary: Some(window(short, 300, 5000)),
                secondary: Some(window(long, 10_080, 9000)),
                ..Limits::default()
            },
            limits_at: Some(0),
            token_ends_at: None,
            refreshed_at: 0,
            unpersisted: false,
            barred: false,
        }
    }

    #[test]
    fn windows_of_one_length_are_averaged_and_the_shortest_is_primary() {
        let month = Standing {
            limits: Limits { primary: Some(window(30.0, 43_200, 1)), ..Limits::default() },
            plan: Some("free".into()),
            ..standing(0.0, 0.0)
        };
        let pool = Pool::of(&[standing(10.0, 50.0), standing(30.0, 70.0), month]);
        assert_eq!((pool.available, pool.total, pool.plan.as_deref()), (3, 3, Some("plus")));
        assert_eq!(pool.primary, Some(window(20.0, 300, 5000)));
        assert_eq!(pool.secondary, Some(window(30.0, 43_200, 1)));
    }

    #[test]
    fn an_account_that_is_used_up_counts_as_full_but_the_pool_is_not_while_another_serves() {
        let limited = Standing { obstacle: Some(Reason::Limited(7_000_000)), ..standing(0.0, 100.0) };
        let pool = Pool::of(&[limited.clone(), standing(20.0, 0.0)]);
        assert_eq!((pool.is_exhausted(), pool.resets_at), (false, None));
        assert_eq!(pool.primary, Some(window(60.0, 300, 5000)));
        let full = Pool::of(&[limited.clone(), limited.clone(), Standing { obstacle: None, ..limited }]);
        assert_eq!(full.primary.map(|w| w.used_percent), Some(99.0));
    }

    #[test]
    fn when_nothing_serves_the_pool_is_full_until_the_first_account_is_back() {
        let until = |millis| Standing { obstacle: Some(Reason::Limited(millis)), ..standing(0.0, 100.0) };
        let dead = Standing { obstacle: Some(Reason::NeedsLogin), ..standing(0.0, 0.0) };
        let pool = Pool::of(&[until(8_000_000), until(7_000_000), dead]);
        assert_eq!((pool.is_exhausted(), pool.resets_at), (true, Some(7_000)));
        assert_eq!(pool.primary, Some(window(100.0, 300, 7_000)));
    }
}
