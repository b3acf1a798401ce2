//! Where conversations live, carried over a restart: written beside the requests, read at the start.
//! Where replicas share a database, a conversation that began on another one is looked for there, and one
//! that moves to another account is told to all.

use super::scheduling::Conversation;
use super::{Relay, SESSIONS, millis, millis_from_now};
use crate::account::pool::sessions::{Home, Session};
use crate::store::{Changes, Duty, KeptSession, Revision, Store, StoreError, UnixMillis};
use crate::telemetry::metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// How often homes are written: a crash moves only conversations that are younger.
const WRITE: Duration = Duration::from_secs(2);
/// How long moves wait for more of them, before they are written and when they are heard of: together well
/// below a second, and a storm of moves is a few statements a second.
const GATHER: Duration = Duration::from_millis(200);
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
    /// The revision of homes up to which moves of others are known here.
    heard: AtomicI64,
    /// Something has moved here that others do not know.
    moves: Notify,
}

impl Elsewhere {
    pub(super) fn new(store: Store) -> Self {
        Self { store, again_at: AtomicI64::new(i64::MIN), heard: AtomicI64::new(0), moves: Notify::new() }
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

    /// A conversation has moved: others that remember its old home are to know soon.
    pub(super) fn tell_of_moves(&self) {
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.moves.notify_one();
        }
    }

    /// Waits until something has moved that others must know of.
    async fn moves(&self) {
        match &self.elsewhere {
            Some(elsewhere) => elsewhere.moves.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Takes over what has moved on other replicas, if they have told of something since.
    async fn hear_of_moves(&self, told: Option<Revision>) {
        let (Some(elsewhere), Some(Revision { homes: told, .. })) = (&self.elsewhere, told) else { return };
        let heard = elsewhere.heard.load(Ordering::Relaxed);
        if told <= heard {
            return;
        }
        match elsewhere.store.sessions().moved_since(heard).await {
            Ok(moved) => {
                self.adopt(&moved);
                elsewhere.heard.store(told, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "what has moved on other replicas could not be read; it will be tried again");
            }
        }
    }

    fn adopt(&self, homes: &[KeptSession]) {
        let mut sessions = self.sessions();
        for home in homes {
            if let Some(session) = Session::parse(&home.session) {
                sessions.adopt(session, as_home(home));
            }
        }
    }

    /// Takes over where conversations lived.
    pub async fn restore_sessions(&self, store: &Store, now: UnixMillis) -> Result<(), StoreError> {
        if let Some(elsewhere) = &self.elsewhere {
            // Before the homes: what moves meanwhile is heard of.
            elsewhere.heard.store(store.revision().await?.homes, Ordering::Relaxed);
        }
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

    /// Writes homes until `stop`, and once more then; takes over those that have moved elsewhere.
    pub async fn keep_sessions(
        self: Arc<Self>,
        store: Store,
        mut changes: Changes,
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
                () = self.moves() => {
                    sleep(GATHER).await;
                    self.write_moves(&store).await;
                    continue;
                }
                () = changes.next() => {
                    if self.is_behind(changes.latest()) {
                        sleep(GATHER).await;
                        self.hear_of_moves(changes.latest()).await;
                    }
                    continue;
                }
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
            self.write_moves(&store).await;
            self.write_sessions(&store).await;
            // One that could not be read is not told again.
            self.hear_of_moves(changes.latest()).await;
            if is_last {
                return;
            }
        }
    }

    async fn write_moves(&self, store: &Store) {
        let moved = self.sessions().take_moved();
        for some in moved.chunks(AT_ONCE) {
            if let Err(error) = store.sessions().put_moved(&as_kept(some)).await {
                tracing::warn!(%error, "where conversations have moved to was not written; it will be tried again");
                self.sessions().put_back_moved(some.iter().map(|(session, _)| *session));
            }
        }
    }

    async fn write_sessions(&self, store: &Store) {
        let unwritten = self.sessions().take_unwritten();
        for some in unwritten.chunks(AT_ONCE) {
            match store.sessions().put(&as_kept(some)).await {
                // Two replicas met the same conversation at once, or a move was missed.
                Ok(elsewhere) => self.adopt(&elsewhere),
                Err(error) => {
                    tracing::warn!(%error, "where conversations live was not written; it will be tried again");
                    self.sessions().put_back(some.iter().map(|(session, _)| *session));
                }
            }
        }
    }

    /// Whether others have told of moves that are not known here.
    fn is_behind(&self, told: Option<Revision>) -> bool {
        let heard = self.elsewhere.as_ref().map(|elsewhere| elsewhere.heard.load(Ordering::Relaxed));
        heard.zip(told).is_some_and(|(heard, told)| told.homes > heard)
    }
}

fn as_kept(homes: &[(Session, Home)]) -> Vec<KeptSession> {
    let kept = |(session, home): &(Session, Home)| KeptSession {
        session: session.to_text(),
        account: home.account,
        last_at: home.last,
        foreign_items: home.foreign_items,
    };
    homes.iter().map(kept).collect()
}

fn as_home(kept: &KeptSession) -> Home {
    let KeptSession { account, last_at: last, foreign_items, .. } = *kept;
    Home { account, last, foreign_items, served_by: account, away_since: None }
}
