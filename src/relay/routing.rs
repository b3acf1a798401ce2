//! Where each account's workspace lives, as the backend said (protocol.md 6.6). Looked up beside the
//! requests, never for one: until an account's answer is there, the configured address serves it.

use super::{Relay, caller};
use crate::account::Member;
use crate::account::pool::Candidate;
use crate::codex::Failure;
use crate::codex::route::{Route, RouteError};
use crate::store::{AccountId, AccountState, Credentials, IdMap};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether an account is due.
const PACE: Duration = Duration::from_secs(1);
/// A workspace hardly ever moves.
const LIFETIME: Duration = Duration::from_hours(1);
/// When a look-up failed.
const AGAIN: Duration = Duration::from_secs(30);
/// For one look-up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Look-ups at one time.
const AT_ONCE: usize = 4;

/// What is known of an account's workspace.
#[derive(Debug, Clone)]
struct Known {
    /// Where it lives; an error bars the account.
    route: Result<Arc<Route>, RouteError>,
    /// When to ask again.
    due: Instant,
}

/// All of them. One entry an account.
#[derive(Debug, Default)]
pub(super) struct Routing {
    known: Mutex<IdMap<AccountId, Known>>,
}

impl Routing {
    /// Where the account's requests go, if that is known.
    pub(super) fn of(&self, id: AccountId) -> Option<Arc<Route>> {
        self.known().get(&id).and_then(|known| known.route.as_ref().ok().cloned())
    }

    /// Whether the account must not be used: its workspace lives where nothing may be sent.
    pub(super) fn is_barred(&self, id: AccountId) -> bool {
        self.known().get(&id).is_some_and(|known| known.route.is_err())
    }

    /// Marks the accounts that must not be used.
    pub(super) fn bar(&self, candidates: &mut [Candidate]) {
        let known = self.known();
        for candidate in candidates {
            candidate.barred = known.get(&candidate.id).is_some_and(|known| known.route.is_err());
        }
    }

    fn is_due(&self, id: AccountId, now: Instant) -> bool {
        self.known().get(&id).is_none_or(|known| known.due <= now)
    }

    /// A failed look-up leaves what was known in force.
    fn note(&self, id: AccountId, read: Option<Result<Route, RouteError>>, now: Instant) {
        let mut all = self.known();
        let old = all.get(&id).map(|known| known.route.clone());
        let known = match read {
            Some(route) => Known { route: route.map(Arc::new), due: now + LIFETIME },
            None => Known { route: old.unwrap_or_else(|| Ok(Arc::default())), due: now + AGAIN },
        };
        all.insert(id, known);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, IdMap<AccountId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Looks workspaces and catalogues up until `stop`, each account's when it is due.
    pub async fn survey(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look_around() => {}
            }
        }
    }

    async fn look_around(&self) {
        let now = Instant::now();
        let members = self.accounts.members();
        self.routing.known().retain(|id, _| members.contains_key(id));
        let due = members.iter().filter(|(id, _)| self.routing.is_due(**id, now));
        let due: Vec<_> = due.filter_map(|(_, member)| Some((member.clone(), living(member)?))).collect();
        let look_ups = futures_util::stream::iter(due.into_iter().map(|(member, credentials)| async move {
            self.look_up(&member, &credentials).await;
        }));
        look_ups.buffer_unordered(AT_ONCE).collect::<()>().await;
        self.survey_models(now).await;
    }

    async fn look_up(&self, member: &Member, credentials: &Credentials) {
        let account = member.manager.snapshot().account.clone();
        // Asked at the configured address, wherever the workspace lives.
        let who = caller(&account, credentials, None);
        let call = self.client.call(who, Method::GET, "wham/accounts/check", HeaderMap::new(), Bytes::new());
        let read = match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(called)) => {
                let base = self.client.base_url();
                Some(Route::read(&called.body, &account.chatgpt_account_id, base, &self.options.workspace_origins))
            }
            Ok(Err(failure)) => {
                log_unknown(&account.name, Some(&failure));
                None
            }
            Err(_) => {
                log_unknown(&account.name, None);
                None
            }
        };
        // A list that cannot be read says nothing about where the workspace lives.
        let read = read.filter(|read| !matches!(read, Err(RouteError::Illegible | RouteError::Unlisted)));
        if let Some(Err(error)) = &read {
            tracing::error!(account = %account.name, %error, "the account is not used");
        }
        self.routing.note(account.id, read, Instant::now());
    }
}

fn log_unknown(account: &str, failure: Option<&Failure>) {
    let cause = failure.map_or("no answer in time", |failure| failure.message.as_str());
    tracing::debug!(account, cause, "where the account's workspace lives could not be looked up");
}

/// The credentials of an account that works, if its token lives: a look-up is no reason to renew one.
pub(super) fn living(member: &Member) -> Option<Arc<Credentials>> {
    let snapshot = member.manager.snapshot();
    let ends = snapshot.credentials.access_expires_at;
    let lives = ends.is_none_or(|end| end > super::millis_from_now(Duration::from_secs(5)));
    (lives && snapshot.standing.state == AccountState::Active).then(|| snapshot.credentials.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_look_up_leaves_what_was_known_and_is_repeated_soon() {
        let (routing, id, now) = (Routing::default(), AccountId::new(), Instant::now());
        let forbidden = RouteError::Forbidden("https://x.example".into());
        assert!(routing.is_due(id, now) && !routing.is_barred(id));
        routing.note(id, Some(Err(forbidden)), now);
        assert!(routing.is_barred(id) && !routing.is_due(id, now + AGAIN));
        routing.note(id, None, now);
        assert!(routing.is_barred(id) && routing.is_due(id, now + AGAIN));
        routing.note(id, Some(Ok(Route::default())), now);
        assert!(!routing.is_barred(id) && routing.of(id).is_some());
    }
}
