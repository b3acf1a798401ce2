//! The one loop in which the backend is called: as one account after the other, each failure
//! answered by the table in [`crate::account::pool::remedy`], within the budgets for retries. What is
//! called, and what counts as an answer, is the errand's.

use super::queue::Patience;
use super::reasoning::Foreign;
use super::scheduling::{Aim, Conversation};
use super::{Relay, Ticket, log_attempt, millis_from_now, without_token};
use crate::account::pool::remedy::{Consequence, Remedy, Same, Then, remedy};
use crate::account::{InFlight, Member};
use crate::codex::{Failure, FailureKind};
use crate::store::{AccountId, Credentials, GatewayKey};
use crate::telemetry::metrics;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The upper bound of the first pause before a call is repeated; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: somebody waits for the answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Something to be done as any account that may.
pub(super) trait Errand: Send {
    /// What success brings.
    type Good: Send;

    /// The model that is asked for, if one is.
    fn model(&self) -> Option<&str>;

    /// The account is chosen: takes what belongs to another one out of the request. Says whether
    /// there was anything.
    fn strip(&mut self, foreign: Foreign) -> bool;

    /// How long the conversation is, in items.
    fn items(&self) -> u32;

    /// Whether no time is left.
    fn is_over(&self) -> bool;

    /// One call.
    fn attempt(
        &mut self,
        relay: &Relay,
        member: &Arc<Member>,
        credentials: &Credentials,
        ticket: &mut Ticket,
    ) -> impl Future<Output = Result<Self::Good, Failure>> + Send;
}

/// Why nothing was brought.
pub(super) enum Lost {
    /// The client is to be told this: no account would do better, or retries are used up.
    Failed(Failure),
    /// No account is left; the last one's failure, if any was tried.
    Exhausted(Option<Failure>),
}

/// How an account's turn ended without an answer.
struct Ended {
    failure: Failure,
    then: Then,
}

/// What was done already on one account.
#[derive(Default)]
struct Done {
    refreshed: bool,
    again: bool,
}

impl Relay {
    /// Does an errand for a key; where no account is left and requests may wait, waits for one.
    pub(super) async fn run_or_wait<E: Errand>(
        &self,
        key: &Arc<GatewayKey>,
        conversation: Option<&Conversation>,
        errand: &mut E,
        ticket: &mut Ticket,
    ) -> Result<(E::Good, InFlight), Lost> {
        self.find_home(conversation, || errand.items()).await;
        let mut patience = Patience::default();
        loop {
            let lost = match self.run(key, conversation, errand, ticket).await {
                Err(Lost::Exhausted(last)) => Lost::Exhausted(last),
                settled => return settled,
            };
            let since = Instant::now();
            if errand.is_over() || !self.wait_in_line(key, errand.model(), &mut patience).await {
                return Err(lost);
            }
            ticket.waited(since);
        }
    }

    /// Does an errand for a key, as the first account that can. The guard keeps the place on that
    /// account.
    async fn run<E: Errand>(
        &self,
        key: &GatewayKey,
        conversation: Option<&Conversation>,
        errand: &mut E,
        ticket: &mut Ticket,
    ) -> Result<(E::Good, InFlight), Lost> {
        self.retries.deposit();
        let mut tried: Vec<AccountId> = Vec::new();
        let (mut charged, mut last) = (0, None);
        while !errand.is_over() {
            let Some(aim) = self.aim(key, conversation, &tried, errand.model(), ticket) else { break };
            tried.push(aim.account());
            errand.strip(aim.foreign);
            match self.turn(&aim, (key, &tried), errand, &mut charged, ticket).await {
                Ok(good) => {
                    self.settle(conversation, &aim, || errand.items());
                    return Ok((good, aim.in_flight));
                }
                Err(Ended { failure, then: Then::GiveUp }) => return Err(Lost::Failed(failure)),
                Err(Ended { failure, then: Then::NextFree }) => {
                    metrics::failover(failure.kind.as_str());
                    last = Some(failure);
                }
                Err(Ended { failure, then: Then::Next }) => {
                    charged += 1;
                    if !self.may_retry(charged) {
                        return Err(Lost::Failed(failure));
                    }
                    metrics::failover(failure.kind.as_str());
                    // Another account is another chance; the backend as a whole wants a pause.
                    if charged > 1 || failure.kind == FailureKind::Overloaded {
                        pause(charged).await;
                    }
                    last = Some(failure);
                }
            }
        }
        Err(Lost::Exhausted(last))
    }

    /// Whether a request that has failed so often at the backend may go on, and the gateway too.
    fn may_retry(&self, charged: u32) -> bool {
        if charged >= self.options.max_attempts {
            return false;
        }
        let allowed = self.retries.withdraw(millis_from_now(Duration::ZERO));
        if !allowed {
            metrics::retry_refused();
        }
        allowed
    }

    /// Calls the backend as one account, as often as the table allows.
    async fn turn<E: Errand>(
        &self,
        aim: &Aim,
        (key, tried): (&GatewayKey, &[AccountId]),
        errand: &mut E,
        charged: &mut u32,
        ticket: &mut Ticket,
    ) -> Result<E::Good, Ended> {
        let member = aim.in_flight.member();
        let manager = &member.manager;
        ticket.account = Some(member.name());
        let no_token = |error| Ended { failure: without_token(&error), then: Then::NextFree };
        let since = Instant::now();
        let credentials = manager.credentials().await;
        ticket.waited(since);
        let mut credentials = credentials.map_err(no_token)?;
        let mut done = Done::default();
        loop {
            ticket.attempt(manager.id());
            let failure = match errand.attempt(self, member, &credentials, ticket).await {
                Ok(good) => {
                    metrics::upstream_attempt("ok");
                    ticket.answered();
                    self.accounts.succeeded(manager.id());
                    return Ok(good);
                }
                Err(failure) => failure,
            };
            metrics::upstream_attempt(failure.kind.as_str());
            log_attempt(&failure, ticket);
            ticket.attempt_failed(&failure);
            let Remedy { same, account, then } = remedy(failure.kind);
            match same {
                Same::Refresh if !done.refreshed => {
                    done.refreshed = true;
                    credentials = manager.force_refresh(credentials.generation).await.map_err(no_token)?;
                    continue;
                }
                Same::StripReasoning if errand.strip(Foreign::All) => continue,
                // Another account is the better chance, if there is one.
                Same::Again if !done.again && !errand.is_over() && self.is_last(aim, key, tried, errand.model()) => {
                    done.again = true;
                    *charged += 1;
                    if self.may_retry(*charged) {
                        pause(*charged).await;
                        continue;
                    }
                }
                _ => {}
            }
            if account == Consequence::Quarantine {
                manager.quarantine(credentials.generation, failure.code.as_deref().unwrap_or("unauthorized"));
            } else {
                self.suffer(manager.id(), &failure, errand.model());
            }
            // Nobody offers the model: to be told so once is enough.
            let is_final = failure.kind == FailureKind::ModelNotOffered && !aim.is_offered;
            return Err(Ended { failure, then: if is_final { Then::GiveUp } else { then } });
        }
    }

    /// Has an account bear what a failure says of it.
    pub(super) fn suffer(&self, id: AccountId, failure: &Failure, model: Option<&str>) {
        if !super::answer::is_our_own(failure) {
            self.accounts.suffer(id, remedy(failure.kind).account, failure, model, self.options.defaults);
        }
    }
}

/// Waits before the backend is called again: full jitter, doubling.
async fn pause(charged: u32) {
    let longest = FIRST_PAUSE.saturating_mul(1 << charged.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
    tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
}
