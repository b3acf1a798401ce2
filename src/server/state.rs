//! What the handlers share.

use super::assemble::unix_millis;
use super::database::{Ailments, Database};
use super::models::Models;
use crate::account::Accounts;
use crate::account::pool::{self, Reason};
use crate::batch::Batches;
use crate::dialect::Problem;
use crate::kept::Kept;
use crate::relay::{Books, Relay};
use crate::store::{AccountScope, Duty, Store};
use crate::telemetry::Telemetry;
use crate::tenant::Keys;
use crate::webhook::Outbox;
use http::HeaderValue;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Shared by all handlers, for the life of the process.
pub(super) struct State {
    /// Where everything durable is; asked by readiness only.
    pub store: Store,
    /// Whether it answers, and for how long it may be away.
    pub database: Database,
    /// Whether this process does what one does for all replicas.
    pub duty: Duty,
    /// The accounts, in memory.
    pub accounts: Arc<Accounts>,
    /// The gateway keys, in memory.
    pub keys: Arc<Keys>,
    /// Serves requests.
    pub relay: Arc<Relay>,
    /// Limits and books.
    pub books: Arc<Books>,
    /// Whose word on where a request comes from is believed.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Tells operators' systems.
    pub outbox: Outbox,
    /// Keeps responses for their clients.
    pub kept: Arc<Kept>,
    /// Requests that are answered when there is room.
    pub batches: Arc<Batches>,
    /// What model names mean.
    pub models: Arc<Models>,
    /// The model that uses the backend's picture tool for `/v1/images`, as a client would name it.
    pub image_model: String,
    /// Renders the metrics.
    pub telemetry: Telemetry,
    /// The largest request body, in bytes, after decompression.
    pub max_body: usize,
    /// The origins whose pages may call; `*` for all; none where the switch is off.
    pub cors_origins: Vec<HeaderValue>,
    /// Whether requests without a key are served: only on loopback, by an explicit setting.
    pub open: bool,
    /// Requests that are being answered: shutdown waits for them.
    pub running: TaskTracker,
    /// Whether the process is on its way out.
    pub draining: AtomicBool,
    /// New requests are refused, and kept connections close when their answer is out.
    pub closing: CancellationToken,
    /// How WebSocket connections are kept.
    pub sockets: Sockets,
    /// How many there are: each keeps shutdown waiting, also while nothing is answered on it.
    pub connected: Counter,
}

/// Counts things that are there until they are dropped.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<AtomicUsize>);

/// One that is counted.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counter {
    /// Counts one more.
    pub(super) fn count(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.0.clone())
    }

    /// How many there are.
    pub(super) fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How WebSocket connections are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sockets {
    /// Whether there are any.
    pub on: bool,
    /// How long one may stay without a request.
    pub idle: Duration,
    /// How old one may become.
    pub max_age: Duration,
    /// How often a quiet one is tested, and its key with it.
    pub ping: Duration,
}

impl State {
    /// Whether load balancers are told to look elsewhere.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether new requests are refused: once load balancers have had time to look elsewhere.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// How many requests are being answered.
    pub(super) fn answering(&self) -> usize {
        self.running.len().saturating_sub(self.connected.now())
    }

    /// What is wrong with the process.
    pub(super) async fn ailments(&self) -> Ailments {
        let mut ailments = Ailments::default();
        if self.is_draining() {
            ailments.faults.push("shutting down".to_owned());
        }
        let answers = match tokio::time::timeout(Duration::from_secs(2), self.store.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the database does not answer: {error}")),
            Err(_) => Err("the database does not answer within 2 s".to_owned()),
        };
        if let Err(problem) = answers {
            ailments.add(self.database.ailment(self.database.silence().unwrap_or_default(), problem));
        } else if let Err(problem) = self.database.intake(Duration::ZERO) {
            // It answers again, and what was changed meanwhile has not been read.
            ailments.faults.push(problem.message);
        }
        for id in self.accounts.unpersisted() {
            ailments.faults.push(format!("the refreshed credentials of account {id} are not stored yet"));
        }
        let backlog = self.books.ledger.backlog();
        match backlog.fault() {
            Some(fault) if backlog.is_full => ailments.faults.push(fault),
            Some(fault) => ailments.add(self.database.ailment(backlog.oldest, fault)),
            None => {}
        }
        ailments
    }

    /// Why no request is taken although the process runs: the database has been away for too long,
    /// so that a key may have been revoked, or what is used cannot be written down.
    pub(super) fn intake(&self) -> Result<(), Problem> {
        self.database.intake(self.books.ledger.oldest())
    }

    /// How many accounts are in each state; every state is named.
    pub(super) fn accounts_by_state(&self) -> BTreeMap<&'static str, usize> {
        let states = [
            "active",
            "limited",
            "not_included",
            "cooling",
            "tripped",
            "paused",
            "needs_login",
            "quarantined",
            "barred",
        ];
        let mut count: BTreeMap<_, _> = states.into_iter().map(|state| (state, 0)).collect();
        let now = unix_millis();
        for candidate in self.relay.candidates(None) {
            let state = pool::exclusion(&candidate, &AccountScope::All, now).map_or("active", state_of);
            *count.entry(state).or_default() += 1;
        }
        count
    }
}

/// A state for operators: a trial is part of being tripped.
fn state_of(reason: Reason) -> &'static str {
    match reason {
        Reason::OnTrial => "tripped",
        reason => reason.as_str(),
    }
}
