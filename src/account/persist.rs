//! What the issuer gave, and what was found out about an account, on its way into the store.
//!
//! Refresh tokens rotate: once the issuer has answered, the old one is dead and the new one must be
//! stored, whatever happens to those who wait. Only what is stored is used.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::memory::Progress;
use super::ports::{Context, RefreshOutcome, StoreFault};
use super::protocol::Kept;
use super::refresh::{Attempt, Renewed};
use super::settings::backoff;
use super::snapshot::{Standing, has_ended, is_due};
use super::token_error::TokenError;
use super::token_manager::TokenManager;
use crate::oauth::TokenSet;
use crate::store::{Credentials, Lease, NewCredentials, Saved, Trace};

/// After the shutdown signal, writes are repeated at least this often.
const LAST_PACE: Duration = Duration::from_millis(250);

impl TokenManager {
    /// The issuer has answered: from here on the only way is to store the answer.
    pub(super) async fn keep(
        self: &Arc<Self>,
        attempt: &Attempt,
        spent: &Credentials,
        set: &TokenSet,
    ) -> Result<Kept, TokenError> {
        let new = succession(spent, set, self.context.now());
        let mut write = 0;
        let mut deadline = None;
        loop {
            match self.save(attempt, spent.generation, &new).await {
                Ok(kept) => {
                    self.set_unpersisted(false);
                    return kept;
                }
                Err(fault) => self.unsaved(attempt, write, &fault),
            }
            let Some(pause) = self.pause_before_write(write, &mut deadline).await else {
                tracing::error!(
                    account = %self.snapshot().account.name,
                    account_id = %self.id(),
                    "stopping with credentials that could not be stored; the account will need a login"
                );
                return Err(TokenError::Unavailable {
                    detail: "the gateway is stopping".to_owned(),
                    retry_after: self.context.settings.backoff_base,
                });
            };
            sleep(pause).await;
            write += 1;
        }
    }

    /// One write. An inner result is final; an outer error means: again.
    async fn save(
        self: &Arc<Self>,
        attempt: &Attempt,
        expected: i64,
        new: &NewCredentials,
    ) -> Result<Result<Kept, TokenError>, StoreFault> {
        let now = self.context.now();
        let store = &self.context.store;
        match store.save_refreshed(self.id(), expected, new, now).await? {
            Saved::Stored { generation } => {
                self.publish(stored_form(new, generation, now), attempt.reason);
                Ok(Ok(Kept::Stored))
            }
            Saved::Gone => {
                self.retire();
                Ok(Err(TokenError::Removed))
            }
            Saved::Stale => {
                // Somebody logged in meanwhile, or our own write succeeded although it said it had
                // failed. Either way the store's set is the one that lives.
                let Some(stored) = store.load(self.id()).await? else {
                    self.retire();
                    return Ok(Err(TokenError::Removed));
                };
                self.observe(stored.account, Some(stored.credentials));
                Ok(Ok(Kept::Overtaken))
            }
        }
    }

    /// Guards against a token that needs the next exchange as soon as it is there.
    pub(super) fn fit_for_use(&self, credentials: Arc<Credentials>) -> Renewed {
        let now = self.context.now();
        if has_ended(&credentials, now) {
            let detail = "the issuer gave no access token that is still valid; is this machine's \
                          clock right?";
            return Err(self.put_off(detail.to_owned(), None));
        }
        if is_due(&credentials, now, &self.context.settings) {
            let end = credentials.access_expires_at.unwrap_or(now);
            let left = u64::try_from(end.saturating_sub(now)).unwrap_or_default();
            self.rest("the issuer's tokens are short-lived", Duration::from_millis(left / 2));
        }
        Ok(credentials)
    }

    fn unsaved(&self, attempt: &Attempt, write: u32, fault: &StoreFault) {
        self.set_unpersisted(true);
        attempt.progress.send_replace(Progress::Unsaved);
        self.report(attempt, RefreshOutcome::PersistFailed, None);
        tracing::error!(
            account = %self.snapshot().account.name,
            account_id = %self.id(),
            write,
            error = %fault,
            "new credentials could not be stored; they are kept in memory and tried again"
        );
    }

    /// How long to wait before the next write; none when a stopping server has waited enough.
    async fn pause_before_write(&self, write: u32, deadline: &mut Option<Instant>) -> Option<Duration> {
        let Context { settings, shutdown, .. } = &*self.context;
        let (base, cap) = (settings.persist_base, settings.persist_cap);
        let pause = backoff(base, cap, write, (self.context.random)());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let end = *deadline.get_or_insert_with(|| Instant::now() + settings.shutdown_grace);
                (Instant::now() < end).then(|| pause.min(LAST_PACE))
            }
            () = sleep(pause) => Some(Duration::ZERO),
        }
    }

    /// Writes what became of an exchange, again and again until it is written or the process stops.
    pub(super) async fn release_at_last(&self, lease: &Lease, trace: Trace) {
        let mut deadline = None;
        for attempt in 0.. {
            let Some(pause) = self.pause_before_write(attempt, &mut deadline).await else {
                tracing::error!(account_id = %self.id(), "stopping, and the end of a refresh that has failed could not be written; the account may need a login");
                return;
            };
            sleep(pause).await;
            if self.context.store.release(self.id(), lease, trace).await.is_ok() {
                return;
            }
        }
    }

    /// Stores a standing, again and again until it is stored, void, or the process stops.
    pub(super) fn store_standing(self: &Arc<Self>, generation: i64, standing: Standing) -> JoinHandle<()> {
        let manager = Arc::clone(self);
        self.context.tasks.spawn(async move {
            let context = &manager.context;
            for attempt in 0.. {
                let stored = context.store.set_state(
                    manager.id(),
                    generation,
                    standing.state,
                    standing.reason.as_deref(),
                    standing.detail.as_deref(),
                    standing.since,
                );
                let Err(fault) = stored.await else { return };
                tracing::warn!(account_id = %manager.id(), error = %fault, "the account's state could not be stored");
                let settings = &context.settings;
                let (base, cap) = (settings.persist_base, settings.persist_cap);
                let pause = backoff(base, cap, attempt, (context.random)());
                tokio::select! {
                    () = sleep(pause) => {}
                    () = context.shutdown.cancelled() => return,
                }
            }
        })
    }
}

/// What is to be stored: each field of the answer replaces the old one (protocol.md 1.4).
fn succession(spent: &Credentials, set: &TokenSet, now: i64) -> NewCredentials {
    let or = |new: &Option<_>, old: &secrecy::SecretString| new.clone().unwrap_or_else(|| old.clone());
    NewCredentials {
        access_token: or(&set.access_token, &spent.access_token),
        refresh_token: or(&set.refresh_token, &spent.refresh_token),
        id_token: set.id_token.clone().or_else(|| spent.id_token.clone()),
        access_expires_at: match set.access_token {
            Some(_) => set.access_expires_at(now),
            None => spent.access_expires_at,
        },
    }
}

/// The set as the store now has it.
fn stored_form(new: &NewCredentials, generation: i64, now: i64) -> Credentials {
    Credentials {
        access_token: new.access_token.clone(),
        refresh_token: new.refresh_token.clone(),
        id_token: new.id_token.clone(),
        access_expires_at: new.access_expires_at,
        last_refresh_at: now,
        generation,
    }
}
