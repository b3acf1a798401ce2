//! A request's place under its key's limits, and its bill: what may be used is kept free before the
//! backend is called, and what was used is settled and written down when the request is over.

use super::bill::Bill;
use super::{Call, Relay, Ticket, limit_words};
use crate::dialect::{Problem, ProblemKind};
use crate::ledger::{Ledger, Prices};
use crate::store::{GatewayKey, Limits, Slices, Store, StoreError, UnixMillis, Used};
use crate::telemetry::metrics;
use crate::tenant::{self, Amount, Counted, Demand, Exceeded, Full, Meters, Standing, Subject};
use http::HeaderMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How limits are held.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The output that is kept free in budgets for a request that names no limit, tokens.
    pub most_output: u64,
    /// How long a request waits for others to give back what they hold.
    pub patience: Duration,
}

/// The output that is kept free in the minute for a request that names no limit, tokens.
const LIKELY_OUTPUT: u64 = 2048;
/// A token has more bytes of JSON than this, as a rule: what is kept free is rather too much.
const BYTES_A_TOKEN: u64 = 3;
/// No model reads more than this, tokens: pictures have many bytes and few tokens.
const MOST_INPUT: u64 = 400_000;
/// How long a request waits for the books to take more rows.
const ROOM: Duration = Duration::from_secs(10);
/// How long it waits at least for an answer of the database about limits that servers hold together …
const ANSWER: Duration = Duration::from_secs(5);
/// … and for what others have of them and do not use.
const SPARE: Duration = Duration::from_secs(2);

/// Everything that counts and writes down. One for the process.
pub struct Books {
    /// Rows on their way to the database.
    pub ledger: Arc<Ledger>,
    /// What each holder has used.
    pub meters: Arc<Meters>,
    /// This server's part of limits that it holds together with others.
    pub slices: Option<Slices>,
    /// What it would cost.
    pub prices: Prices,
    /// How limits are held.
    pub bounds: Bounds,
    /// The clock.
    pub now: fn() -> UnixMillis,
}

/// A request as limits and books see it.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// The model that goes upstream; none for calls that name none.
    pub model: Option<String>,
    /// As the client named it.
    pub named: String,
    /// The effort that goes upstream, if the request names one.
    pub effort: Option<String>,
    /// The tier that goes upstream, if the request names one.
    pub tier: Option<String>,
    /// The most output that the client wants, tokens.
    pub most_output: Option<u64>,
    /// The size of what goes upstream, bytes.
    pub size: usize,
}

impl Asked {
    pub(super) fn of(call: &Call) -> Self {
        let prepared = &call.prepared;
        Self {
            model: Some(prepared.model.clone()),
            named: prepared.requested_model.clone(),
            effort: prepared.wish.effort.clone(),
            tier: prepared.wish.tier.clone(),
            most_output: prepared.wish.most_output,
            size: prepared.body.len(),
        }
    }

    /// Input tokens, rather too many.
    fn most_input(&self) -> u64 {
        (self.size as u64).div_ceil(BYTES_A_TOKEN).min(MOST_INPUT)
    }
}

impl Books {
    fn demand(&self, asked: &Asked, now: UnixMillis) -> Demand {
        let input = asked.most_input();
        let output = asked.most_output.unwrap_or(self.bounds.most_output);
        let used = Used { input, output, ..Used::default() };
        let model = asked.model.as_deref().unwrap_or_default();
        Demand {
            most: Amount {
                tokens: input.saturating_add(output),
                cost: self.prices.cost(model, asked.tier.as_deref(), &used, now).unwrap_or(0),
            },
            likely_tokens: input.saturating_add(asked.most_output.unwrap_or(LIKELY_OUTPUT).min(output)),
        }
    }

    /// Reads what a holder used before its hours were kept, once all that came before is written.
    pub async fn prime(&self, subject: Subject, limits: &Limits) -> Result<(), StoreError> {
        let (told, done) = oneshot::channel();
        let (meters, counted) = (Arc::clone(&self.meters), subject.clone());
        let since = tenant::first_hour_of_all(limits, (self.now)());
        let read = move |store: Store| async move {
            let read = store.ledger().hours(subject.holder, &subject.id, since).await;
            let primed = read.map(|hours| meters.prime(&subject, &hours));
            if primed.is_err() {
                meters.discount(&subject);
            }
            // Nobody waits any more at the end of the process.
            let _ = told.send(primed);
        };
        self.ledger.then(|| self.meters.count(counted), read);
        done.await.unwrap_or(Ok(()))
    }

    /// How a key's limits stand.
    pub fn standings(&self, key: &GatewayKey) -> Vec<Standing> {
        self.meters.standings(key, (self.now)())
    }

    /// What a client is told of them in headers.
    pub fn headers(&self, dialect: &str, key: &GatewayKey) -> HeaderMap {
        let now = (self.now)();
        limit_words::headers(dialect, &self.meters.standings(key, now), now)
    }
}

impl Relay {
    /// Counts and writes down.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Lets a request in under its key's limits and opens its bill, or says what stands against it.
    /// From then on the request is on the books, also when it is refused.
    pub(super) async fn admit(&self, key: &Arc<GatewayKey>, asked: &Asked, ticket: &mut Ticket) -> Result<(), Problem> {
        // A request that is tried in two ways is one request.
        if ticket.bill.is_some() {
            return Ok(());
        }
        let books = &self.books;
        if !books.ledger.room(ROOM).await {
            let wait = Some(Duration::from_secs(5));
            let message = "The gateway cannot write down what is used, and takes no more requests until it can";
            return Err(Problem { retry_after: wait, ..Problem::new(ProblemKind::Overloaded, message) });
        }
        let began = (books.now)();
        ticket.bill = Some(Box::new(Bill::new(Arc::clone(books), key, asked, began)));
        tenant::allows(key, ticket.dialect, asked.model.as_deref(), asked.effort.as_deref()).map_err(
            |(level, forbidden)| {
                metrics::limit_refused(level.as_str(), "forbidden");
                limit_words::forbidden(level, &forbidden)
            },
        )?;
        let demand = books.demand(asked, began);
        let since = std::time::Instant::now();
        let reserved = self.reserve(key, demand).await;
        ticket.waited(since);
        let place = reserved.map_err(|exceeded| {
            metrics::limit_refused(exceeded.level.as_str(), exceeded.full.gauge.what.as_str());
            if exceeded.full.short.is_some_and(|short| short.is_void) {
                let wait = Some(Duration::from_secs(5));
                let message = "The limits of this key cannot be checked: the database does not answer";
                return Problem { retry_after: wait, ..Problem::new(ProblemKind::Overloaded, message) };
            }
            let now = (books.now)();
            let headers = books.headers(ticket.dialect, key);
            Problem {
                headers: Some(Box::new(headers)),
                ..limit_words::exceeded(&exceeded, books.prices.currency(), now)
            }
        })?;
        if let Some(bill) = &mut ticket.bill {
            bill.place = Some(place);
        }
        Ok(())
    }

    /// Takes a place; waits a while for one that only other requests, or other servers, stand in the way of.
    async fn reserve(&self, key: &GatewayKey, demand: Demand) -> Result<tenant::Reservation, Exceeded> {
        let (meters, now) = (&self.books.meters, self.books.now);
        let began = Instant::now();
        let mut waiting: Option<tenant::Waiting> = None;
        // Since when the database has not answered: not since the request came.
        let mut unanswered = None;
        loop {
            let mut released = std::pin::pin!(meters.released());
            // What is given back from here on is heard.
            released.as_mut().enable();
            let exceeded = match meters.reserve(key, demand, now()) {
                Ok(place) => return Ok(place),
                Err(exceeded) => exceeded,
            };
            if exceeded.full.short.is_some() && waiting.is_none() {
                waiting = Some(meters.wait(key, demand, now()));
            }
            let since = waiting.as_ref().map_or(0, |waiting| waiting.since);
            let deadline = if exceeded.full.short.is_some_and(|short| short.is_void) {
                *unanswered.get_or_insert_with(Instant::now) + ANSWER
            } else {
                unanswered = None;
                began + patience(&exceeded.full, since, self.books.bounds.patience)
            };
            if tokio::time::timeout_at(deadline, released).await.is_err() {
                return Err(exceeded);
            }
        }
    }
}

/// How long a request waits for room in all. `since` is the exchange with other servers that had begun
/// last when it came.
fn patience(full: &Full, since: u64, longest: Duration) -> Duration {
    let is_budget = matches!(full.gauge.what, Counted::Budget(_));
    match full.short {
        Some(short) if short.round <= since || !short.starves => longest.max(ANSWER),
        Some(short) if short.spare && !is_budget => SPARE,
        // How many requests may run at once is for the client to heed; it is told at once.
        _ if full.awaits_others && full.gauge.what != Counted::Concurrent => longest,
        _ => Duration::ZERO,
    }
}
