//! One account's credentials: what is cached, who waits, and when an exchange begins.
//!
//! This file is the callers' side; the exchange itself, which no caller can cancel, is in
//! `refresh.rs`. Every decision is taken under one short lock, so that of any number of callers
//! exactly one begins an exchange and the others join it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use super::memory::{Memory, Need, Pause, Progress};
use super::ports::{Context, Stored};
use super::settings::backoff;
use super::snapshot::{Snapshot, Standing, has_ended, is_due};
use super::token_error::{TokenError, permitted, refusal};
use super::verdict::{UNAUTHORIZED_AFTER_REFRESH, Verdict};
use crate::oauth::RefreshReason;
use crate::store::{Account, AccountId, AccountState, Credentials};

/// What a caller gets at once.
enum Begin {
    Ready(Arc<Credentials>),
    Wait(watch::Receiver<Progress>),
    Refused(TokenError),
}

/// The token manager of one account.
pub struct TokenManager {
    id: AccountId,
    /// Read by every request; written under the lock.
    snapshot: ArcSwap<Snapshot>,
    memory: Mutex<Memory>,
    /// New credentials exist in memory only; readiness is red meanwhile.
    unpersisted: AtomicBool,
    pub(super) context: Arc<Context>,
}

impl TokenManager {
    /// A manager that starts with what is stored.
    pub fn new(stored: Stored, context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            id: stored.account.id,
            snapshot: ArcSwap::from_pointee(Snapshot {
                standing: Standing::of(&stored.account),
                account: Arc::new(stored.account),
                credentials: Arc::new(stored.credentials),
            }),
            memory: Mutex::default(),
            unpersisted: AtomicBool::new(false),
            context,
        })
    }

    /// Whose.
    pub fn id(&self) -> AccountId {
        self.id
    }

    /// What is known now: one atomic load.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Whether new credentials could not be stored yet.
    pub fn is_unpersisted(&self) -> bool {
        self.unpersisted.load(Ordering::Acquire)
    }

    /// Credentials with some life left, renewed if need be. While renewing fails or takes long, a
    /// token that still lives is given.
    pub async fn credentials(self: &Arc<Self>) -> Result<Arc<Credentials>, TokenError> {
        let flight = match self.begin(Need::Valid) {
            Begin::Ready(credentials) => return Ok(credentials),
            Begin::Refused(error) => return self.living_or(error),
            Begin::Wait(flight) => self.land(flight),
        };
        let renewed = if has_ended(&self.snapshot().credentials, self.context.now()) {
            flight.await
        } else {
            let patience = self.context.settings.patience;
            timeout(patience, flight).await.unwrap_or_else(|_| {
                Err(TokenError::Unavailable { detail: "the refresh takes long".to_owned(), retry_after: patience })
            })
        };
        renewed.or_else(|error| self.living_or(error))
    }

    /// Newer credentials than those of generation `rejected`, which the backend has answered with
    /// a 401. However many callers report the same generation, there is one exchange; when the
    /// generation is itself the fruit of such a recovery, the account goes into quarantine.
    pub async fn force_refresh(self: &Arc<Self>, rejected: i64) -> Result<Arc<Credentials>, TokenError> {
        self.begin_and_land(Need::Newer(rejected)).await
    }

    /// Renews because an operator asks, also out of quarantine and in a pause.
    pub async fn refresh_now(self: &Arc<Self>) -> Result<Arc<Credentials>, TokenError> {
        self.begin_and_land(Need::Operator).await
    }

    /// Begins to renew generation `aging`, if nothing stands against it, and does not wait. Says
    /// whether an exchange is under way.
    pub fn refresh_ahead(self: &Arc<Self>, aging: i64) -> bool {
        matches!(self.begin(Need::Ahead(aging)), Begin::Wait(_))
    }

    /// Puts a verdict in force if its credentials are still the ones in use.
    /// Gives the task that stores it.
    pub(super) fn pronounce_current(self: &Arc<Self>, verdict: Verdict) -> Option<JoinHandle<()>> {
        let mut memory = self.lock();
        let current = self.snapshot().generation() == verdict.generation;
        current.then(|| self.pronounce(&mut memory, verdict))
    }

    /// Takes the account out of use because the backend refuses generation `rejected` although it
    /// is freshly renewed. Says whether it did: newer credentials make the report void.
    pub fn quarantine(self: &Arc<Self>, rejected: i64, reason: &str) -> bool {
        let mut memory = self.lock();
        let snapshot = self.snapshot();
        let current = snapshot.generation() == rejected;
        if !current || snapshot.standing.state != AccountState::Active {
            return false;
        }
        let verdict = Verdict::quarantined(rejected, reason, self.context.now());
        drop(self.pronounce(&mut memory, verdict));
        true
    }

    /// Takes over what the store has: the row if it is not of an older generation, the credentials
    /// if they are newer. New credentials end every pause and verdict.
    pub fn observe(&self, account: Account, credentials: Option<Credentials>) {
        let mut memory = self.lock();
        let held = self.snapshot();
        let newer = credentials.filter(|new| new.generation > held.generation());
        let account =
            if account.generation >= held.account.generation { Arc::new(account) } else { Arc::clone(&held.account) };
        let credentials = match newer {
            Some(new) => {
                memory.forget_the_past();
                Arc::new(new)
            }
            None => Arc::clone(&held.credentials),
        };
        self.show(Snapshot { standing: memory.standing(&account, credentials.generation), account, credentials });
    }

    /// The account is gone; nothing is begun any more.
    pub fn retire(&self) {
        self.lock().removed = true;
    }

    async fn begin_and_land(self: &Arc<Self>, need: Need) -> Result<Arc<Credentials>, TokenError> {
        match self.begin(need) {
            Begin::Ready(credentials) => Ok(credentials),
            Begin::Refused(error) => Err(error),
            Begin::Wait(flight) => self.land(flight).await,
        }
    }

    /// Decides, under the lock, between what is there, joining, beginning and refusing.
    fn begin(self: &Arc<Self>, need: Need) -> Begin {
        let snapshot = self.snapshot();
        let now = self.context.now();
        let settings = &self.context.settings;
        // The hot path: one atomic load and no lock.
        if need == Need::Valid
            && snapshot.standing.state == AccountState::Active
            && !is_due(&snapshot.credentials, now, settings)
        {
            return Begin::Ready(Arc::clone(&snapshot.credentials));
        }
        let mut memory = self.lock();
        let snapshot = self.snapshot();
        if memory.removed {
            return Begin::Refused(TokenError::Removed);
        }
        if let Err(error) = self.permitted(&snapshot.standing, need == Need::Operator) {
            return Begin::Refused(error);
        }
        let enough = match need {
            Need::Valid => !is_due(&snapshot.credentials, now, settings),
            Need::Newer(old) | Need::Ahead(old) => snapshot.generation() > old,
            Need::Operator => false,
        };
        if enough {
            return Begin::Ready(Arc::clone(&snapshot.credentials));
        }
        if matches!(need, Need::Newer(_)) && memory.recovered_within(snapshot.generation(), settings.quarantine_window)
        {
            let verdict = Verdict::quarantined(snapshot.generation(), UNAUTHORIZED_AFTER_REFRESH, now);
            let error = refusal(&verdict.standing);
            drop(self.pronounce(&mut memory, verdict));
            return Begin::Refused(error);
        }
        if let Some(flight) = memory.flight() {
            return Begin::Wait(flight);
        }
        match memory.pause_for(need) {
            Some(error) => Begin::Refused(error),
            None => Begin::Wait(self.take_off(&mut memory, need.reason(&snapshot))),
        }
    }

    fn take_off(self: &Arc<Self>, memory: &mut Memory, reason: RefreshReason) -> watch::Receiver<Progress> {
        let (progress, flight) = watch::channel(Progress::Exchanging);
        memory.flight = Some(flight.clone());
        let task = Arc::clone(self).fly(reason, self.snapshot().generation(), progress);
        // A child of the request that found the token due, though that request may be gone before it.
        let span = tracing::info_span!(
            "token refresh",
            otel.kind = "client",
            tollway.account_id = %self.id,
            tollway.refresh_reason = reason.as_str(),
        );
        self.context.tasks.spawn(task.instrument(span));
        flight
    }

    /// Waits for the end of an exchange. Dropping this future changes nothing for the exchange.
    async fn land(&self, mut flight: watch::Receiver<Progress>) -> Result<Arc<Credentials>, TokenError> {
        let patience = self.context.settings.persist_patience;
        let later = |detail: &str| TokenError::Unavailable { detail: detail.to_owned(), retry_after: patience };
        let exchanged = flight
            .wait_for(|progress| !matches!(progress, Progress::Exchanging))
            .await
            .map(|progress| progress.clone());
        match exchanged {
            Ok(Progress::Done(result)) => return result,
            Ok(_) => {}
            Err(_) => return Err(later("the refresh was abandoned")),
        }
        let done = flight.wait_for(|progress| matches!(progress, Progress::Done(_)));
        match timeout(patience, done).await {
            Ok(Ok(progress)) => match &*progress {
                Progress::Done(result) => result.clone(),
                _ => Err(later("the refresh was abandoned")),
            },
            Ok(Err(_)) => Err(later("the refresh was abandoned")),
            Err(_) => Err(later("new credentials could not be stored yet")),
        }
    }

    /// The held token, if the failure is passing and the token still lives.
    fn living_or(&self, error: TokenError) -> Result<Arc<Credentials>, TokenError> {
        let snapshot = self.snapshot();
        let passing = matches!(error, TokenError::Unavailable { .. });
        if passing && !has_ended(&snapshot.credentials, self.context.now()) {
            self.permitted(&snapshot.standing, false)?;
            return Ok(Arc::clone(&snapshot.credentials));
        }
        Err(error)
    }

    pub(super) fn permitted(&self, standing: &Standing, operator: bool) -> Result<(), TokenError> {
        permitted(standing, operator, self.context.settings.resend_after_crash)
    }

    /// The lock is held for a few field accesses and never across an await; a panic inside leaves
    /// nothing half-written.
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a verdict in force here at once, and in the store by a task.
    fn pronounce(self: &Arc<Self>, memory: &mut Memory, verdict: Verdict) -> JoinHandle<()> {
        let mut snapshot = Snapshot::clone(&self.snapshot());
        snapshot.standing = verdict.standing.clone();
        tracing::error!(
            account = %snapshot.account.name,
            account_id = %self.id,
            generation = verdict.generation,
            state = ?verdict.standing.state,
            reason = verdict.standing.reason.as_deref(),
            detail = verdict.standing.detail.as_deref(),
            "the account is out of use"
        );
        self.show(snapshot);
        let stored = self.store_standing(verdict.generation, verdict.standing.clone());
        memory.verdict = Some(verdict);
        stored
    }

    /// Puts stored credentials in use.
    pub(super) fn publish(self: &Arc<Self>, credentials: Credentials, reason: RefreshReason) {
        let mut memory = self.lock();
        let held = self.snapshot();
        let credentials = Arc::new(credentials);
        // Equal when the directory was faster in reading our own write than we in publishing it.
        if credentials.generation < held.generation() {
            return;
        }
        let mut account = Account::clone(&held.account);
        account.generation = credentials.generation;
        account.access_expires_at = credentials.access_expires_at;
        account.last_refresh_at = credentials.last_refresh_at;
        let released = reason == RefreshReason::Forced && held.standing.state == AccountState::Quarantined;
        // The store has ended it with the same write: the answer came after others had given it up.
        let disproved = account.state == AccountState::NeedsLogin;
        if released || disproved {
            account.state = AccountState::Active;
            account.state_reason = None;
            account.state_detail = None;
            account.state_since = self.context.now();
        }
        if released {
            drop(self.store_standing(credentials.generation, Standing::of(&account)));
        }
        memory.forget_the_past();
        if reason == RefreshReason::UnauthorizedRecovery {
            memory.recovered = Some((credentials.generation, Instant::now()));
        }
        self.show(Snapshot { standing: Standing::of(&account), account: Arc::new(account), credentials });
    }

    /// Puts in force what is known from now on.
    fn show(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.context.tidings.tell();
    }

    /// Notes a transient failure and how long to leave the issuer alone.
    pub(super) fn put_off(&self, detail: String, at_least: Option<Duration>) -> TokenError {
        let settings = &self.context.settings;
        let mut memory = self.lock();
        let (base, cap) = (settings.backoff_base, settings.backoff_cap);
        let jittered = backoff(base, cap, memory.failures, (self.context.random)());
        let retry_after = jittered.max(at_least.unwrap_or_default().min(cap));
        memory.failures = memory.failures.saturating_add(1);
        memory.pause = Some(Pause { until: Instant::now() + retry_after, detail: detail.clone(), failed: true });
        TokenError::Unavailable { detail, retry_after }
    }

    /// Leaves the issuer alone for a while that is no failure's fault.
    pub(super) fn rest(&self, why: &str, pause: Duration) -> TokenError {
        let detail = why.to_owned();
        self.lock().pause = Some(Pause { until: Instant::now() + pause, detail: detail.clone(), failed: false });
        TokenError::Unavailable { detail, retry_after: pause }
    }

    pub(super) fn set_unpersisted(&self, unpersisted: bool) {
        self.unpersisted.store(unpersisted, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "token_manager_tests.rs"]
mod tests;
