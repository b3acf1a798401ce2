//! Where conversations live, carried over a restart: written beside the requests, read at the start.
//! Where replicas share a database, a conversation that began on another one is looked for there.

use super::scheduling::Conversation;
use super::{Relay, SESSIONS, millis, millis_from_now};
use crate::account::pool::sessions::{Home, Session};
use crate::store::{Duty, KeptSession, Store, StoreError, UnixMillis};
use crate::telemetry::metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often homes are written: a crash moves only conversations that are younger.
const WRITE: Duration = Duration::from_secs(2);
/// Homes written in one transaction.
const AT_ONCE: usize = 1000;
/// How often those that are over are forgotten, and those that are awake counted.
const SWEEP: Duration = Duration::from_secs(30);

/// How long a look for a conversation's home may take: its request waits.
const LOOK: Duration = Duration::from_millis(50);
/// How long a database that did not answer in time is not asked, milliseconds.
const LEFT_ALONE: i64 = 5_000;
/// A request of no more items is a conversation's first, and has no home.
const FIRST_TURN: u32 = 2;

/// Where the homes of conversations are that began on other replicas.
pub(super) struct Elsewhere {
    store: Store,
    /// It is not asked before then.
    again_at: AtomicI64,
}

impl Elsewhere {
    pub(super) fn new(store: Store) -> Self {
        Self { store, again_at: AtomicI64::new(i64::MIN) }
    }

    /// The home of a conversation, if there is one and the database says so in time.
    async fn home(&self, session: Session, now: UnixMillis) -> Option<KeptSession> {
        if now < self.again_at.load(Ordering::Relaxed) {
            metrics::home_lookup("failed");
            return None;
        }
        let (sessions, name) = (self.store.sessions(), session.to_text());
        let look = sessions.get(&name);
        if let Ok(Ok(found)) = tokio::time::timeout(LOOK, look).await {
            metrics::home_lookup(if found.is_some() { "found" } else { "none" });
            return found;
        }
        metrics::home_lookup("failed");
        self.again_at.store(now.saturating_add(LEFT_ALONE), Ordering::Relaxed);
        None
    }
}

impl Relay {
    /// Looks for the home of a conversation that goes on and is not known here: its beginning was on
    /// another replica. `items` is how long it is.
    pub(super) async fn find_home(&self, conversation: Option<&Conversation>, items: impl FnOnce() -> u32) {
        let (Some(elsewhere), Some(Conversation(session))) = (&self.elsewhere, conversation) else { return };
        let now = millis_from_now(Duration::ZERO);
        if self.sessions().home(*session, now).is_some() || items() <= FIRST_TURN {
            return;
        }
        if let Some(home) = elsewhere.home(*session, now).await {
            self.sessions().restore(*session, as_home(&home));
        }
    }

    /// Takes over where conversations lived.
    pub async fn restore_sessions(&self, store: &Store, now: UnixMillis) -> Result<(), StoreError> {
        let since = now.saturating_sub(millis(self.options.session_lifetime));
        let kept = store.sessions().list(since, u32::try_from(SESSIONS).unwrap_or(u32::MAX)).await?;
        let mut sessions = self.sessions();
        for home in kept {
            if let Some(session) = Session::parse(&home.session) {
                sessions.restore(session, as_home(&home));
            }
        }
        sessions.sweep(now);
        Ok(())
    }

    /// Writes homes until `stop`, and once more then.
    pub async fn keep_sessions(
        self: Arc<Self>,
        store: Store,
        duty: Duty,
        now: fn() -> UnixMillis,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(WRITE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval(SWEEP);
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                _ = ticks.tick() => false,
                _ = sweep.tick() => {
                    self.sessions().sweep(now());
                    let over = now().saturating_sub(millis(self.options.session_lifetime));
                    if duty.is_ours()
                        && let Err(error) = store.sessions().forget(over).await
                    {
                        tracing::warn!(%error, "conversations that are over were not forgotten");
                    }
                    false
                }
            };
            self.write_sessions(&store).await;
            if is_last {
                return;
            }
        }
    }

    async fn write_sessions(&self, store: &Store) {
        let unwritten = self.sessions().take_unwritten();
        for some in unwritten.chunks(AT_ONCE) {
            let homes = some.iter().map(|(session, home)| KeptSession {
                session: session.to_text(),
                account: home.account,
                last_at: home.last,
                foreign_items: home.foreign_items,
            });
            if let Err(error) = store.sessions().put(&homes.collect::<Vec<_>>()).await {
                tracing::warn!(%error, "where conversations live was not written; it will be tried again");
                self.sessions().put_back(some.iter().map(|(session, _)| *session));
            }
        }
    }
}

fn as_home(kept: &KeptSession) -> Home {
    let KeptSession { account, last_at: last, foreign_items, .. } = *kept;
    Home { account, last, foreign_items, served_by: account, away_since: None }
}
