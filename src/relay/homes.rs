//! Where conversations live, carried over a restart: written beside the requests, read at the start.

use super::{Relay, SESSIONS, millis};
use crate::account::pool::sessions::{Home, Session};
use crate::store::{KeptSession, Store, StoreError, UnixMillis};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often homes are written: a crash moves only conversations that are younger.
const WRITE: Duration = Duration::from_secs(2);
/// Homes written in one transaction.
const AT_ONCE: usize = 1000;
/// How often those that are over are forgotten, and those that are awake counted.
const SWEEP: Duration = Duration::from_secs(30);

impl Relay {
    /// Takes over where conversations lived.
    pub async fn restore_sessions(&self, store: &Store, now: UnixMillis) -> Result<(), StoreError> {
        let since = now.saturating_sub(millis(self.options.session_lifetime));
        let kept = store.sessions().list(since, u32::try_from(SESSIONS).unwrap_or(u32::MAX)).await?;
        let mut sessions = self.sessions();
        for home in kept {
            let KeptSession { session, account, last_at: last, foreign_items } = home;
            if let Some(session) = Session::parse(&session) {
                sessions.restore(session, Home { account, last, foreign_items, served_by: account, away_since: None });
            }
        }
        sessions.sweep(now);
        Ok(())
    }

    /// Writes homes until `stop`, and once more then.
    pub async fn keep_sessions(self: Arc<Self>, store: Store, now: fn() -> UnixMillis, stop: CancellationToken) {
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
                    if let Err(error) = store.sessions().forget(over).await {
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
