//! A request's ticket: what is known of it, from its arrival to its last byte. Dropping it settles:
//! metrics, the span's last attributes, and the one log line. It cannot be forgotten, whichever way
//! a request ends; a ticket dropped without an outcome is a client that hung up.

use super::bill::{Bill, Ending};
use crate::codex::{Failure, Usage};
use crate::dialect::Problem;
use crate::store::{AccountId, GatewayKey};
use crate::telemetry::{metrics, traces};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Span;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered in full.
    Ok,
    /// Refused or failed before the first byte.
    Refused,
    /// Failed after the first byte.
    Cut,
    /// The client hung up.
    ClientGone,
}

impl Outcome {
    /// For logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::ClientGone => "client_gone",
        }
    }
}

/// What is known of a request.
pub struct Ticket {
    /// What the client and the operator call the request by.
    pub request_id: String,
    /// The request's span: everything done for it is a child of this.
    pub span: Span,
    /// When the request's head had arrived.
    arrived: Instant,
    /// The dialect, for metrics; `other` before it is known.
    pub dialect: &'static str,
    /// The route's template.
    pub route: &'static str,
    /// Whose it is, once that is known.
    key: Option<Arc<GatewayKey>>,
    /// The model that goes upstream, once it is known.
    pub model: Option<String>,
    /// The account that serves, once it is chosen.
    pub account: Option<String>,
    /// How many times the backend was called.
    pub attempts: u32,
    /// When all of the request had arrived.
    read: Instant,
    /// What the gateway itself has spent on it since the backend was called first.
    own: Duration,
    /// What of the time before that was waiting.
    waited: Duration,
    /// When the backend was called first.
    called: Option<Instant>,
    /// From arrival to the first byte of the answer.
    first_byte: Option<Duration>,
    /// Tokens, as the backend reported them, or estimated.
    pub usage: Option<Usage>,
    /// Whether `usage` is an estimate: of an answer that was cut before the backend counted it.
    usage_is_estimated: bool,
    /// The status that the client gets.
    status: u16,
    /// How it ended, once it has.
    outcome: Option<Outcome>,
    /// Why, if it did not end well.
    cause: Option<String>,
    /// The same in one word, for the books.
    cause_kind: Option<&'static str>,
    /// What the request uses; none for requests that use nothing.
    pub(super) bill: Option<Box<Bill>>,
    /// Keeps shutdown waiting until the answer has left.
    _running: TaskTrackerToken,
}

impl Ticket {
    /// A request has arrived.
    pub fn new(request_id: String, route: &'static str, span: Span, running: TaskTrackerToken) -> Self {
        metrics::request_started();
        let arrived = Instant::now();
        Self {
            request_id,
            span,
            arrived,
            dialect: "other",
            route,
            key: None,
            model: None,
            account: None,
            attempts: 0,
            read: arrived,
            own: Duration::ZERO,
            waited: Duration::ZERO,
            called: None,
            first_byte: None,
            usage: None,
            usage_is_estimated: false,
            status: 0,
            outcome: None,
            cause: None,
            cause_kind: None,
            bill: None,
            _running: running,
        }
    }

    /// It is known whose it is.
    pub fn belongs_to(&mut self, key: &Arc<GatewayKey>) {
        self.span.record("tollway.key", key.name.as_str());
        if let Some(team) = &key.team {
            self.span.record("tollway.team", team.name.as_str());
        }
        self.key = Some(Arc::clone(key));
    }

    /// All of it has arrived: what comes before is the client's time.
    pub fn read(&mut self) {
        self.read = Instant::now();
    }

    /// Time passed in which the gateway had nothing to do for it.
    pub(super) fn waited(&mut self, since: Instant) {
        if self.called.is_none() {
            self.waited += since.elapsed();
        }
    }

    /// The gateway has worked on it since then.
    pub(super) fn worked(&mut self, since: Instant) {
        self.own += since.elapsed();
    }

    /// The answer's head leaves with this status.
    pub fn begin(&mut self, status: u16) {
        self.status = status;
        if self.first_byte.is_none() {
            self.first_byte = Some(self.arrived.elapsed());
            tracing::debug!(parent: &self.span, status, "first byte");
        }
    }

    /// The answer was cut where the client wanted it, and has used about this much. What the backend
    /// counted stands.
    pub fn note_spent(&mut self, estimate: Option<Usage>) {
        if let (None, Some(usage)) = (self.usage, estimate) {
            self.usage = Some(usage);
            self.usage_is_estimated = true;
        }
    }

    /// The request has ended.
    pub fn end(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// The backend is being called as this account.
    pub(super) fn attempt(&mut self, account: AccountId) {
        self.attempts += 1;
        self.called.get_or_insert_with(Instant::now);
        if let Some(bill) = &mut self.bill {
            bill.attempt(account);
        }
    }

    /// The backend has begun to answer.
    pub(super) fn answered(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.answered();
        }
    }

    /// The call of the backend has failed: what it used stays on the bill.
    pub(super) fn attempt_failed(&mut self, failure: &Failure) {
        let usage = self.usage.take();
        if let Some(bill) = &mut self.bill {
            bill.failed(failure, usage);
        }
    }

    /// A piece of output has passed.
    pub(super) fn piece(&mut self) {
        if let Some(bill) = &mut self.bill {
            bill.piece();
        }
    }

    /// The request has ended, and not well.
    pub fn fail(&mut self, outcome: Outcome, problem: &Problem) {
        self.cause.get_or_insert_with(|| problem.message.clone());
        self.cause_kind.get_or_insert(problem.kind.as_str());
        self.end(outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or(Outcome::ClientGone);
        // nginx's number for a client that closed the request.
        let status = if self.status == 0 { 499 } else { self.status };
        let duration = self.arrived.elapsed();
        let books = self.bill.as_ref().map(|bill| bill.books());
        let cost = self.close_bill(outcome, status, duration);
        metrics::request_finished(&metrics::RequestFinished {
            dialect: self.dialect,
            model: self.model.as_deref(),
            holder: self.key.as_deref().map(|key| metrics::Holder {
                key: &key.name,
                user: key.user.as_ref().map(|user| user.name.as_str()),
                team: key.team.as_ref().map(|team| team.name.as_str()),
            }),
            outcome: outcome.as_str(),
            status,
            duration,
            first_byte: self.first_byte,
            overhead: self.overhead(),
            usage: self.usage,
            estimated: self.usage_is_estimated,
            cost: cost
                .zip(books.as_ref())
                .map(|(micros, books)| metrics::Cost { micros, currency: books.prices.currency() }),
            trace: &self.span,
        });
        self.record_span(outcome, status);
        self.log(outcome, status, duration);
        traces::end(&self.span);
    }
}

impl Ticket {
    /// What the gateway has added, if it has called the backend.
    fn overhead(&self) -> Option<Duration> {
        let before = self.called?.saturating_duration_since(self.read).saturating_sub(self.waited);
        Some(before + self.own)
    }

    /// Gives what it would cost, millionths.
    fn close_bill(&mut self, outcome: Outcome, status: u16, duration: Duration) -> Option<u64> {
        let bill = self.bill.take()?;
        let total = bill.close(&Ending {
            request_id: &self.request_id,
            dialect: self.dialect,
            route: self.route,
            outcome,
            status,
            cause: self.cause_kind,
            first_byte_ms: self.first_byte.map(milliseconds),
            duration_ms: milliseconds(duration),
            usage: self.usage,
            estimated: self.usage_is_estimated,
        });
        self.usage = total.usage;
        self.usage_is_estimated = total.estimated;
        total.cost
    }

    fn record_span(&self, outcome: Outcome, status: u16) {
        let span = &self.span;
        span.record("http.response.status_code", i64::from(status));
        span.record("tollway.attempts", i64::from(self.attempts));
        span.record("tollway.outcome", outcome.as_str());
        if let Some(account) = &self.account {
            span.record("tollway.account", account.as_str());
        }
        if let Some(model) = &self.model {
            span.record("gen_ai.operation.name", "chat");
            span.record("gen_ai.request.model", model.as_str());
        }
        if let Some(usage) = self.usage {
            traces::record_usage(span, usage);
        }
        if outcome == Outcome::Cut || status >= 500 {
            span.record("otel.status_code", "ERROR");
        }
        if outcome != Outcome::Ok {
            span.record("error.type", self.cause_kind.unwrap_or(outcome.as_str()));
        }
    }

    fn log(&self, outcome: Outcome, status: u16, duration: Duration) {
        let usage = self.usage.unwrap_or_default();
        tracing::info!(
            parent: &self.span,
            request_id = %self.request_id,
            route = self.route,
            dialect = self.dialect,
            status,
            outcome = outcome.as_str(),
            key = self.key.as_ref().map(|key| key.name.as_str()),
            model = self.model.as_deref(),
            account = self.account.as_deref(),
            attempts = self.attempts,
            input_tokens = usage.input,
            cached_tokens = usage.cached,
            output_tokens = usage.output,
            reasoning_tokens = usage.reasoning,
            usage_estimated = self.usage_is_estimated,
            first_byte_ms = self.first_byte.map(milliseconds),
            overhead_ms = self.overhead().map(|overhead| overhead.as_secs_f64() * 1000.0),
            duration_ms = milliseconds(duration),
            cause = self.cause.as_deref(),
            "request",
        );
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
