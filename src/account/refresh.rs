//! One exchange, from the look into the store to the stored result.
//!
//! It runs as a task of its own under the process's tracker: refresh tokens rotate, so once the
//! issuer has answered, the old one is dead and the new one must reach the store, whatever happens
//! to those who wait. The order is: read the store again (another process may have been faster),
//! exchange, store, and only then let anybody use the result.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::memory::Progress;
use super::ports::{Context, RefreshEvent, RefreshOutcome, StoreFault};
use super::settings::backoff;
use super::snapshot::{Standing, has_ended, is_due};
use super::token_error::{TokenError, permitted, refusal};
use super::token_manager::TokenManager;
use super::verdict::Verdict;
use crate::oauth::{RefreshError, RefreshReason, TokenSet};
use crate::store::{Credentials, NewCredentials, Saved};

/// After the shutdown signal, writes are repeated at least this often.
const LAST_PACE: Duration = Duration::from_millis(250);

type Renewed = Result<Arc<Credentials>, TokenError>;

/// What the steps of one exchange share.
struct Attempt {
    reason: RefreshReason,
    started: Instant,
    progress: watch::Sender<Progress>,
}

/// What the store had to say before or after an exchange.
enum Look {
    /// Nothing newer.
    Same,
    /// Somebody else has stored a credential set that can be used.
    Adopted(Arc<Credentials>),
}

impl TokenManager {
    /// The task. Its sender lives as long as it does: that is how callers know it is under way.
    pub(super) async fn fly(self: Arc<Self>, reason: RefreshReason, progress: watch::Sender<Progress>) {
        let attempt = Attempt { reason, started: Instant::now(), progress };
        let renewed = self.renew(&attempt).await;
        attempt.progress.send_replace(Progress::Done(renewed));
    }

    async fn renew(self: &Arc<Self>, attempt: &Attempt) -> Renewed {
        if let Look::Adopted(credentials) = self.look(attempt).await? {
            return Ok(credentials);
        }
        let spent = Arc::clone(&self.snapshot().credentials);
        let exchange = self.context.issuer.refresh(&spent.refresh_token, attempt.reason);
        match exchange.await {
            Ok(set) => self.keep(attempt, &spent, &set).await,
            Err(RefreshError::Permanent { code, message, .. }) => {
                self.refused(attempt, &spent, &code, message.as_deref()).await
            }
            Err(RefreshError::Transient { code, detail, retry_after, ambiguous }) => {
                self.report(attempt, RefreshOutcome::Transient, code.as_deref());
                Err(self.put_off(detail, retry_after, ambiguous))
            }
        }
    }

    /// Reads the store and adopts what is newer there.
    async fn look(self: &Arc<Self>, attempt: &Attempt) -> Result<Look, TokenError> {
        let stored = match self.context.store.load(self.id()).await {
            Ok(Some(stored)) => stored,
            Ok(None) => {
                self.retire();
                return Err(TokenError::Removed);
            }
            Err(fault) => {
                // Without the store an exchange would burn a token whose successor has no home.
                self.report(attempt, RefreshOutcome::Transient, Some("store"));
                let detail = format!("the store cannot be read: {fault}");
                return Err(self.put_off(detail, None, false));
            }
        };
        let newer = stored.credentials.generation > self.snapshot().generation();
        self.observe(stored.account, Some(stored.credentials));
        let snapshot = self.snapshot();
        permitted(&snapshot.standing, attempt.reason == RefreshReason::Forced)?;
        let context = &self.context;
        if newer && !is_due(&snapshot.credentials, context.now(), &context.settings) {
            self.report(attempt, RefreshOutcome::Adopted, None);
            return Ok(Look::Adopted(Arc::clone(&snapshot.credentials)));
        }
        Ok(Look::Same)
    }

    /// The issuer has answered: from here on the only way is to store the answer.
    async fn keep(self: &Arc<Self>, attempt: &Attempt, spent: &Credentials, set: &TokenSet) -> Renewed {
        let new = succession(spent, set, self.context.now());
        let mut write = 0;
        let mut deadline = None;
        loop {
            match self.save(attempt, spent.generation, &new).await {
                Ok(renewed) => {
                    self.set_unpersisted(false);
                    return renewed;
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
    ) -> Result<Renewed, StoreFault> {
        let now = self.context.now();
        let store = &self.context.store;
        match store.save_refreshed(self.id(), expected, new, now).await? {
            Saved::Stored { generation } => {
                let credentials = self.publish(stored_form(new, generation, now), attempt.reason);
                self.report(attempt, RefreshOutcome::Ok, None);
                Ok(self.fit_for_use(credentials))
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
                self.report(attempt, RefreshOutcome::Adopted, None);
                let snapshot = self.snapshot();
                let standing = permitted(&snapshot.standing, false);
                Ok(standing.and_then(|()| self.fit_for_use(Arc::clone(&snapshot.credentials))))
            }
        }
    }

    /// Guards against a token that needs the next exchange as soon as it is there.
    fn fit_for_use(&self, credentials: Arc<Credentials>) -> Renewed {
        let now = self.context.now();
        if has_ended(&credentials, now) {
            let detail = "the issuer gave no access token that is still valid; is this machine's \
                          clock right?";
            return Err(self.put_off(detail.to_owned(), None, false));
        }
        if is_due(&credentials, now, &self.context.settings) {
            let end = credentials.access_expires_at.unwrap_or(now);
            let left = u64::try_from(end.saturating_sub(now)).unwrap_or_default();
            self.rest(Duration::from_millis(left / 2));
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

    /// The issuer said no. Before that is believed, the store is asked twice whether another
    /// process was faster: its commit may come a moment after the issuer's answer to us.
    async fn refused(
        self: &Arc<Self>,
        attempt: &Attempt,
        spent: &Credentials,
        code: &str,
        message: Option<&str>,
    ) -> Renewed {
        for wait in [Duration::ZERO, self.context.settings.second_look] {
            sleep(wait).await;
            if let Look::Adopted(credentials) = self.look(attempt).await? {
                return Ok(credentials);
            }
        }
        let doubtful = self.is_doubtful(spent.generation);
        let now = self.context.now();
        let verdict = Verdict::needs_login(spent.generation, code, message, doubtful, now);
        let error = refusal(&verdict.standing);
        if !self.pronounce_current(verdict) {
            let detail = "newer credentials were stored by somebody else".to_owned();
            return Err(self.put_off(detail, None, false));
        }
        self.report(attempt, RefreshOutcome::Permanent, Some(code));
        Err(error)
    }

    /// Stores a standing, again and again until it is stored, void, or the process stops.
    pub(super) fn store_standing(self: &Arc<Self>, generation: i64, standing: Standing) {
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
        });
    }

    fn report(&self, attempt: &Attempt, outcome: RefreshOutcome, code: Option<&str>) {
        let snapshot = self.snapshot();
        let event = RefreshEvent {
            account: self.id(),
            name: &snapshot.account.name,
            reason: attempt.reason,
            outcome,
            code,
            took: attempt.started.elapsed(),
        };
        tracing::info!(
            account = %event.name,
            account_id = %event.account,
            generation = snapshot.generation(),
            reason = attempt.reason.as_str(),
            outcome = outcome.as_str(),
            code,
            "token refresh"
        );
        self.context.observer.refresh(&event);
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
