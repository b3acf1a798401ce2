//! A request's bill: what each call of the backend used, and the row that becomes of it.

use super::books::{Asked, Books};
use super::ticket::Outcome;
use crate::codex::{Failure, Usage};
use crate::store::{AccountId, AttemptRow, GatewayKey, UnixMillis, UsageRow, Used};
use crate::tenant::{Amount, Reservation};
use std::sync::Arc;

/// A request has about this many bytes a token; for estimates.
const BYTES_A_TOKEN: u64 = 4;

/// What an attempt is called that nobody has seen the end of.
const ABANDONED: &str = "abandoned";

/// What is known of a request's use so far.
pub(super) struct Bill {
    books: Arc<Books>,
    /// What it may use at most, kept free for it.
    pub(super) place: Option<Reservation>,
    row: UsageRow,
    /// The request's own tokens, estimated.
    input: u64,
    /// Pieces of output that have passed: about a token each.
    streamed: u64,
}

/// How a request ended, for its row.
pub(super) struct Ending<'a> {
    pub request_id: &'a str,
    pub dialect: &'static str,
    pub route: &'static str,
    pub outcome: Outcome,
    pub status: u16,
    pub cause: Option<&'static str>,
    pub first_byte_ms: Option<u64>,
    pub duration_ms: u64,
    /// What the last attempt used, if that is known.
    pub usage: Option<Usage>,
    /// Whether that is an estimate.
    pub estimated: bool,
}

/// What a request has used in all, and whether some of it is an estimate.
pub(super) struct Total {
    pub usage: Option<Usage>,
    pub estimated: bool,
    /// What it would cost, millionths, if that is known.
    pub cost: Option<u64>,
}

impl Bill {
    /// Whose prices hold.
    pub(super) fn books(&self) -> Arc<Books> {
        Arc::clone(&self.books)
    }

    pub(super) fn new(books: Arc<Books>, key: &GatewayKey, asked: &Asked, began: UnixMillis) -> Self {
        let row = UsageRow {
            at: began,
            team_id: key.team.as_ref().map(|team| team.id.to_string()).unwrap_or_default(),
            user_id: key.user.as_ref().map(|user| user.id.to_string()).unwrap_or_default(),
            key_id: key.id.to_string(),
            model_asked: asked.named.clone(),
            model: asked.model.clone().unwrap_or_default(),
            effort: asked.effort.clone(),
            tier: asked.tier.clone(),
            // Nearly all are called once.
            attempts: Vec::with_capacity(1),
            ..UsageRow::default()
        };
        Self { books, place: None, row, input: asked.size as u64 / BYTES_A_TOKEN, streamed: 0 }
    }

    /// The backend is being called as this account.
    pub(super) fn attempt(&mut self, account: AccountId) {
        let account_id = account.to_string();
        self.row.account_id.clone_from(&account_id);
        let at = (self.books.now)();
        self.row.attempts.push(AttemptRow { account_id, at, outcome: ABANDONED.to_owned(), ..AttemptRow::default() });
    }

    /// It has begun to answer.
    pub(super) fn answered(&mut self) {
        let now = (self.books.now)();
        if let Some(attempt) = self.row.attempts.last_mut() {
            attempt.duration_ms = u64::try_from(now - attempt.at).unwrap_or(0);
            "ok".clone_into(&mut attempt.outcome);
        }
    }

    /// It has failed, and had used this much.
    pub(super) fn failed(&mut self, failure: &Failure, usage: Option<Usage>) {
        let now = (self.books.now)();
        if let Some(attempt) = self.row.attempts.last_mut() {
            if attempt.outcome == ABANDONED {
                attempt.duration_ms = u64::try_from(now - attempt.at).unwrap_or(0);
            }
            failure.kind.as_str().clone_into(&mut attempt.outcome);
            attempt.status = failure.status.map(|status| status.as_u16());
            attempt.upstream_id.clone_from(&failure.request_id);
            attempt.used = usage.map(used).unwrap_or_default();
        }
    }

    /// A piece of output has passed.
    pub(super) fn piece(&mut self) {
        self.streamed += 1;
    }

    /// Closes the bill: gives back what was kept free, and writes the row down.
    pub(super) fn close(mut self, ending: &Ending<'_>) -> Total {
        let usage = self.last_used(ending);
        let estimated = usage.is_some_and(|(_, estimated)| estimated);
        if let (Some((usage, _)), Some(attempt)) = (usage, self.row.attempts.last_mut()) {
            attempt.used = used(usage);
        }
        if let (Some(cause), Some(attempt)) = (ending.cause, self.row.attempts.last_mut())
            && attempt.outcome == "ok"
        {
            cause.clone_into(&mut attempt.outcome);
        }
        let row = &mut self.row;
        row.used = sum(&row.attempts);
        ending.request_id.clone_into(&mut row.id);
        ending.dialect.clone_into(&mut row.dialect);
        ending.route.clone_into(&mut row.endpoint);
        ending.outcome.as_str().clone_into(&mut row.outcome);
        row.cause = ending.cause.map(str::to_owned);
        row.status = ending.status;
        row.estimated = estimated;
        row.first_byte_ms = ending.first_byte_ms;
        row.duration_ms = ending.duration_ms;
        row.cost = self.books.prices.cost(&row.model, row.tier.as_deref(), &row.used, row.at);
        let (all, cost) = (row.used, row.cost);
        self.write_down();
        let known = usage.is_some() || all != Used::default();
        Total { usage: known.then(|| counted(&all)), estimated, cost }
    }

    /// What the last attempt used: as it was counted, or estimated where the backend has begun to
    /// work and has not said what that took.
    fn last_used(&self, ending: &Ending<'_>) -> Option<(Usage, bool)> {
        if let Some(usage) = ending.usage {
            return Some((usage, ending.estimated));
        }
        let is_open =
            matches!(self.row.attempts.last(), Some(last) if last.outcome == "ok" || last.outcome == ABANDONED);
        let is_cut = ending.outcome == Outcome::Cut || ending.outcome == Outcome::ClientGone;
        if !is_open || !is_cut {
            return None;
        }
        let (input, output) = (self.input, self.streamed);
        Some((Usage { input, output, total: input + output, ..Usage::default() }, true))
    }

    fn write_down(self) {
        let Self { books, place, row, .. } = self;
        let amount = Amount { tokens: row.used.input + row.used.output, cost: row.cost.unwrap_or(0) };
        let now = (books.now)();
        books.ledger.record(row, || {
            if let Some(place) = place {
                place.settle(amount, now);
            }
        });
    }
}

fn used(usage: Usage) -> Used {
    Used {
        input: usage.input,
        cached: usage.cached,
        cache_write: usage.cache_write.unwrap_or(0),
        output: usage.output,
        reasoning: usage.reasoning,
    }
}

fn counted(used: &Used) -> Usage {
    Usage {
        input: used.input,
        cached: used.cached,
        cache_write: (used.cache_write > 0).then_some(used.cache_write),
        output: used.output,
        reasoning: used.reasoning,
        total: used.input + used.output,
    }
}

fn sum(attempts: &[AttemptRow]) -> Used {
    attempts.iter().fold(Used::default(), |sum, attempt| Used {
        input: sum.input + attempt.used.input,
        cached: sum.cached + attempt.used.cached,
        cache_write: sum.cache_write + attempt.used.cache_write,
        output: sum.output + attempt.used.output,
        reasoning: sum.reasoning + attempt.used.reasoning,
    })
}
