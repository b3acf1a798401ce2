//! One turn at an account's refresh token, from the look into the store to the stored result.
//!
//! It runs as a task of its own under the process's tracker, so that nobody who waits can cancel it.
//! What comes after what is decided in `protocol.rs`; this file does it, over the real store and
//! issuer. `persist.rs` has the way of an answer into the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::memory::Progress;
use super::ports::{RefreshEvent, RefreshOutcome, StoreFault};
use super::protocol::{Action, Cause, Ending, Event, Kept, Note, Rules, Seen, Sent, Turn, Urgency, Waiting};
use super::settings::backoff;
use super::snapshot::{has_ended, is_due};
use super::token_error::{TokenError, refusal};
use super::token_manager::TokenManager;
use super::verdict::{INTERRUPTED, Verdict};
use crate::oauth::{RefreshError, RefreshReason, Timely, TokenSet};
use crate::store::{Credentials, Lease, Trace};

/// How often a process looks whether another has come to the end of its turn: at first, and at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(300));

/// How long the verdict on an account may take to be stored before its lease is released.
const VERDICT: Duration = Duration::from_secs(2);

pub(super) type Renewed = Result<Arc<Credentials>, TokenError>;

/// What the steps of one turn share.
pub(super) struct Attempt {
    pub(super) reason: RefreshReason,
    pub(super) started: Instant,
    pub(super) progress: watch::Sender<Progress>,
    /// The generation in use when it began.
    began: i64,
    waits: u32,
    /// Whether the log says that it waits for the end of a doubt.
    warned: bool,
    lease: Option<Lease>,
    /// When the note was about to be written, by the monotonic clock and by the wall clock: a machine
    /// that was suspended shows it on one of them.
    noted: Option<(Instant, i64)>,
    /// What was sent, and what the issuer made of it.
    spent: Option<Arc<Credentials>>,
    answer: Option<Result<TokenSet, RefreshError>>,
}

impl TokenManager {
    /// The task. Its sender lives as long as it does: that is how callers know it is under way. `began` is the
    /// generation that somebody found too old: when the task gets its first turn there may be a newer one.
    pub(super) async fn fly(self: Arc<Self>, reason: RefreshReason, began: i64, progress: watch::Sender<Progress>) {
        let mut attempt = Attempt {
            reason,
            started: Instant::now(),
            progress,
            began,
            waits: 0,
            warned: false,
            lease: None,
            noted: None,
            spent: None,
            answer: None,
        };
        let (renewed, release) = self.take_turn(&mut attempt).await;
        attempt.progress.send_replace(Progress::Done(renewed));
        let lease = attempt.lease.take();
        // Nobody waits for the lease to be released.
        drop(attempt);
        if let (Some(lease), Some(trace)) = (lease, release) {
            self.release(&lease, trace).await;
        }
    }

    /// Lets the protocol decide and does what it says, until the end.
    async fn take_turn(self: &Arc<Self>, attempt: &mut Attempt) -> (Renewed, Option<Trace>) {
        let (mut turn, mut action) = Turn::new(self.rules(), attempt.began);
        loop {
            if let Action::End { ending, release } = action {
                return (self.conclude(attempt, ending), release.map(|(_, trace)| trace));
            }
            match self.perform(attempt, action).await {
                Ok(event) => action = turn.next(event),
                Err(error) => return (Err(error), turn.abandon().map(|(_, trace)| trace)),
            }
        }
    }

    fn rules(&self) -> Rules {
        let settings = &self.context.settings;
        Rules::new(self.context.issuer.longest(), settings.doubt, settings.resend_after_crash)
    }

    async fn perform(self: &Arc<Self>, attempt: &mut Attempt, action: Action) -> Result<Event, TokenError> {
        let store = &self.context.store;
        match action {
            Action::Look => self.look(attempt).await.map(Event::Seen),
            Action::Wait(waiting) => self.wait(attempt, waiting).await,
            Action::Yield { trace, waiting, .. } => {
                if let Some(lease) = attempt.lease.take() {
                    self.release(&lease, trace).await;
                }
                self.wait(attempt, waiting).await
            }
            Action::SecondLook => {
                sleep(self.context.settings.second_look).await;
                Ok(Event::Waited)
            }
            Action::Take => {
                let taken = store.take(self.id(), &self.context.holder, self.rules().lease).await;
                attempt.lease = taken.map_err(|fault| self.without_store(attempt, &fault))?;
                Ok(Event::Taken(attempt.lease.as_ref().map(|lease| lease.fence)))
            }
            Action::Note { generation, .. } => {
                let Some(lease) = &attempt.lease else { return Ok(Event::Noted(false)) };
                attempt.noted = Some((Instant::now(), self.context.now()));
                let noted = store.note(self.id(), lease, generation, self.rules().lease).await;
                Ok(Event::Noted(noted.map_err(|fault| self.without_store(attempt, &fault))?))
            }
            Action::Send { generation } => Ok(Event::Sent(self.send(attempt, generation).await)),
            Action::Keep { .. } => match (&attempt.spent, &attempt.answer) {
                (Some(spent), Some(Ok(set))) => self.keep(attempt, spent, set).await.map(Event::Kept),
                _ => Ok(Event::Kept(Kept::Overtaken)),
            },
            Action::Condemn { generation, cause, .. } => {
                self.condemn(attempt, generation, cause).await.map(Event::Condemned)
            }
            // Ends are not performed; a turn that is given this for an event ends.
            Action::End { .. } => Ok(Event::Waited),
        }
    }

    /// Reads the store and takes over what is newer there.
    async fn look(self: &Arc<Self>, attempt: &Attempt) -> Result<Seen, TokenError> {
        let store = &self.context.store;
        let read = async {
            let turn = store.turn(self.id()).await?;
            Ok(turn.zip(store.load(self.id()).await?))
        };
        // Without the store an exchange would burn a token whose successor has no home.
        let read = read.await.map_err(|fault| self.without_store(attempt, &fault))?;
        let Some((turn, stored)) = read else {
            self.retire();
            return Err(TokenError::Removed);
        };
        self.observe(stored.account, Some(stored.credentials));
        let snapshot = self.snapshot();
        let forced = attempt.reason == RefreshReason::Forced;
        self.permitted(&snapshot.standing, forced)?;
        let (now, rejected) = (self.context.now(), attempt.reason == RefreshReason::UnauthorizedRecovery);
        let due = is_due(&snapshot.credentials, now, &self.context.settings);
        Ok(Seen {
            generation: snapshot.generation(),
            usable: snapshot.generation() > attempt.began && !due,
            urgency: if rejected || has_ended(&snapshot.credentials, now) {
                Urgency::Ended
            } else if due || forced {
                Urgency::Pressing
            } else {
                Urgency::Ahead
            },
            taken: turn.lease.is_some_and(|lease| !lease.left.is_zero()),
            note: turn.exchange.map(|exchange| Note {
                generation: exchange.generation,
                fence: exchange.fence,
                age: exchange.age,
                lost: exchange.lost,
            }),
        })
    }

    fn without_store(&self, attempt: &Attempt, fault: &StoreFault) -> TokenError {
        self.report(attempt, RefreshOutcome::Transient, Some("store"));
        self.put_off(format!("the store cannot be used: {fault}"), None)
    }

    /// Lets others work. Gives up when that takes longer than any of them may take.
    async fn wait(&self, attempt: &mut Attempt, waiting: Waiting) -> Result<Event, TokenError> {
        let rules = self.rules();
        if let Waiting::Doubt(left) = waiting
            && !std::mem::replace(&mut attempt.warned, true)
        {
            let name = &self.snapshot().account.name;
            tracing::warn!(account = %name, account_id = %self.id(), ?left, "a refresh was begun and its outcome is not known; the refresh token is left alone for a while");
        }
        if attempt.started.elapsed() > rules.lease * 2 + rules.doubt {
            self.report(attempt, RefreshOutcome::Transient, Some("busy"));
            return Err(self.rest("another process is refreshing the account", LOOKS.1));
        }
        let random = (self.context.random)();
        let pause = LOOKS.0 + backoff(LOOKS.0, LOOKS.1, attempt.waits, random);
        attempt.waits = attempt.waits.saturating_add(1);
        tokio::select! {
            () = sleep(pause) => Ok(Event::Waited),
            () = self.context.shutdown.cancelled() => {
                Err(self.rest("the gateway is stopping", self.context.settings.backoff_base))
            }
        }
    }

    /// The one place where a refresh token leaves this process.
    async fn send(&self, attempt: &mut Attempt, generation: i64) -> Sent {
        let held = Arc::clone(&self.snapshot().credentials);
        let Some(noted) = attempt.noted.filter(|_| held.generation == generation) else { return Sent::TooLate };
        let (departure, clock) = (self.rules().departure(), Arc::clone(&self.context.clock));
        let timely: Timely = Arc::new(move || {
            let (then, wall) = noted;
            let by_wall = Duration::from_millis(u64::try_from(clock() - wall).unwrap_or_default());
            then.elapsed().max(by_wall) < departure
        });
        let answer = self.context.issuer.refresh(&held.refresh_token, attempt.reason, timely).await;
        let sent = match &answer {
            Ok(_) => Sent::Answered,
            Err(RefreshError::Permanent { .. }) => Sent::Refused,
            Err(RefreshError::Transient { ambiguous: true, .. }) => Sent::Unknown,
            Err(RefreshError::Transient { ambiguous: false, .. }) => Sent::Untouched,
            Err(RefreshError::Withheld) => Sent::TooLate,
        };
        attempt.spent = Some(held);
        // A turn that comes again does not forget what the issuer has said.
        if sent != Sent::TooLate {
            attempt.answer = Some(answer);
        }
        sent
    }

    /// Says that the account needs a login, if the lease is still ours.
    async fn condemn(self: &Arc<Self>, attempt: &Attempt, generation: i64, cause: Cause) -> Result<bool, TokenError> {
        let now = self.context.now();
        let verdict = match (cause, &attempt.answer) {
            (Cause::Interrupted, _) => Verdict::interrupted(generation, now),
            (Cause::Refused { doubtful }, Some(Err(RefreshError::Permanent { code, message, .. }))) => {
                Verdict::needs_login(generation, code, message.as_deref(), doubtful, now)
            }
            (Cause::Refused { .. }, _) => return Ok(false),
        };
        let Some(lease) = &attempt.lease else { return Ok(false) };
        let renewed = self.context.store.renew(lease, self.rules().lease).await;
        if !renewed.map_err(|fault| self.without_store(attempt, &fault))? {
            return Ok(false);
        }
        let Some(stored) = self.pronounce_current(verdict) else { return Ok(false) };
        // Others must find the verdict when they find the lease free. If that takes long, they find
        // the note, and leave the token alone.
        let _ = timeout(VERDICT, stored).await;
        Ok(true)
    }

    /// What the callers get.
    fn conclude(self: &Arc<Self>, attempt: &Attempt, ending: Ending) -> Renewed {
        let snapshot = self.snapshot();
        match ending {
            Ending::Renewed => {
                self.report(attempt, RefreshOutcome::Ok, None);
                self.fit_for_use(Arc::clone(&snapshot.credentials))
            }
            Ending::Adopted => {
                self.report(attempt, RefreshOutcome::Adopted, None);
                self.permitted(&snapshot.standing, attempt.reason == RefreshReason::Forced)?;
                self.fit_for_use(Arc::clone(&snapshot.credentials))
            }
            Ending::Failed => {
                let (code, detail, retry_after) = match &attempt.answer {
                    Some(Err(RefreshError::Transient { code, detail, retry_after, .. })) => {
                        (code.as_deref(), detail.clone(), *retry_after)
                    }
                    _ => (None, "the refresh did not succeed".to_owned(), None),
                };
                self.report(attempt, RefreshOutcome::Transient, code);
                Err(self.put_off(detail, retry_after))
            }
            Ending::InDoubt(left) => {
                self.report(attempt, RefreshOutcome::Transient, Some("in_doubt"));
                let why = "a refresh was begun and its outcome is not known; its refresh token is left alone";
                Err(self.rest(why, left.min(self.rules().lease)))
            }
            Ending::Condemned => {
                let code = match &attempt.answer {
                    Some(Err(RefreshError::Permanent { code, .. })) => Some(code.as_str()),
                    _ => Some(INTERRUPTED),
                };
                self.report(attempt, RefreshOutcome::Permanent, code);
                Err(refusal(&snapshot.standing))
            }
        }
    }

    /// Releases the lease. One that is not released ends by itself; but a note that stays open costs the
    /// login, so what became of it is written as soon as the store is back.
    async fn release(self: &Arc<Self>, lease: &Lease, trace: Trace) {
        let Err(fault) = self.context.store.release(self.id(), lease, trace).await else { return };
        tracing::warn!(account_id = %self.id(), error = %fault, "the account's lease could not be released; it ends by itself");
        if trace != Trace::Stays {
            let (manager, lease) = (Arc::clone(self), lease.clone());
            self.context.tasks.spawn(async move { manager.release_at_last(&lease, trace).await });
        }
    }

    pub(super) fn report(&self, attempt: &Attempt, outcome: RefreshOutcome, code: Option<&str>) {
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

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
