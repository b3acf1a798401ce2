//! Works on message batches, when there is room: a batch's request begins while nobody else is being
//! answered, or when it has waited long enough, and while its key's accounts have quota to spare.

use super::state::{Counter, State};
use crate::batch::{Verdict, Work, judge};
use crate::dialect::{Context, Dialect, Problem, ProblemKind, messages};
use crate::relay::{Call, Outcome, Pool, Refused, Reply, ReplyBody, Ticket};
use crate::store::{GatewayKey, KeyId, StoreError};
use crate::telemetry::{metrics, traces};
use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

/// How batches are worked on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// How many requests at once.
    pub concurrency: u32,
    /// For how long a request waits for others.
    pub patience: Duration,
    /// What is left of the accounts' windows for others, in percent.
    pub spare: f64,
}

/// What the ticket of a batch's request says of where it came from.
const ROUTE: &str = "batch";
/// How often somebody looks whether there is something to do that nobody told of: what was put back,
/// and what another process has left.
const LOOK: Duration = Duration::from_secs(1);
/// The same where other processes are at work too: whoever has taken a batch in begins it, and only
/// what one of them has left is looked for.
const LOOK_SHARED: Duration = Duration::from_secs(5);
/// … and whether those have gone who come first.
const YIELD: Duration = Duration::from_millis(50);

/// Works until `stop`.
pub(super) async fn work(state: Arc<State>, pace: Pace, stop: CancellationToken) {
    if pace.concurrency == 0 {
        return;
    }
    let mut desk = Desk::new(state, pace, stop);
    loop {
        let pause = match desk.begin_some().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "batches could not be looked at");
                LOOK
            }
        };
        tokio::select! {
            () = desk.stop.cancelled() => break,
            () = desk.state.batches.woken(pause) => {}
        }
    }
    desk.tasks.close();
    desk.tasks.wait().await;
}

struct Desk {
    state: Arc<State>,
    pace: Pace,
    stop: CancellationToken,
    slots: Arc<Semaphore>,
    /// How many requests of batches are being worked on.
    active: Counter,
    last_begun: Instant,
    tasks: TaskTracker,
}

impl Desk {
    fn new(state: Arc<State>, pace: Pace, stop: CancellationToken) -> Self {
        let slots = usize::try_from(pace.concurrency).unwrap_or(1).min(Semaphore::MAX_PERMITS);
        Self {
            state,
            pace,
            stop,
            slots: Arc::new(Semaphore::new(slots)),
            active: Counter::default(),
            last_begun: Instant::now(),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins what may begin now. Returns when to look again.
    async fn begin_some(&mut self) -> Result<Duration, StoreError> {
        while !self.state.is_draining() {
            let Ok(slot) = self.slots.clone().try_acquire_owned() else { return Ok(LOOK) };
            let keys = self.state.batches.keys_in_turn().await?;
            if keys.is_empty() {
                return Ok(if self.state.store.is_shared() { LOOK_SHARED } else { LOOK });
            }
            if self.must_yield() {
                return Ok(YIELD);
            }
            let Some(work) = self.next(keys).await? else { return Ok(LOOK) };
            self.last_begun = Instant::now();
            self.begin(work, slot);
        }
        Ok(LOOK)
    }

    /// Whether others are being answered who come first.
    fn must_yield(&self) -> bool {
        let others = self.state.answering().saturating_sub(self.active.now());
        others > 0 && self.last_begun.elapsed() < self.pace.patience
    }

    /// The next request of the first key whose accounts have quota to spare.
    async fn next(&self, keys: Vec<KeyId>) -> Result<Option<Work>, StoreError> {
        for key in keys {
            if let Ok(holder) = self.holder(key)
                && !self.has_room(&holder).await
            {
                continue;
            }
            if let Some(work) = self.state.batches.claim(key).await? {
                return Ok(Some(work));
            }
        }
        Ok(None)
    }

    fn holder(&self, key: KeyId) -> Result<Arc<GatewayKey>, Problem> {
        holder(&self.state, key)
    }

    async fn has_room(&self, key: &GatewayKey) -> bool {
        let pool = Pool::of(&self.state.relay.standings(key).await);
        let most = 100.0 - self.pace.spare;
        let has_room = [&pool.primary, &pool.secondary].into_iter().flatten().all(|window| window.used_percent < most);
        !pool.is_exhausted() && has_room
    }

    fn begin(&self, work: Work, slot: OwnedSemaphorePermit) {
        let (state, stop) = (self.state.clone(), self.stop.clone());
        let busy = self.active.count();
        self.tasks.spawn(async move {
            if let Err(error) = handle(&state, &work, &stop).await {
                // It is claimed again when its lease is over, or at the next start.
                tracing::error!(%error, "the outcome of a batch's request could not be written");
            }
            drop((busy, slot));
            state.batches.wake();
        });
    }
}

fn holder(state: &State, key: KeyId) -> Result<Arc<GatewayKey>, Problem> {
    let now = super::assemble::unix_millis();
    state.keys.holder(key, now).map_err(|refusal| Problem::new(ProblemKind::InvalidKey, refusal.to_string()))
}

/// Has a request answered, and keeps what came of it. Only the answer is given up at a stop: one that
/// has come was paid for, and is written.
async fn handle(state: &Arc<State>, work: &Work, stop: &CancellationToken) -> Result<(), StoreError> {
    let request_id = format!("req_{}", Uuid::now_v7().simple());
    let span = traces::server_span(ROUTE, &request_id, &HeaderMap::new());
    let ticket = Ticket::new(request_id.clone(), ROUTE, span.clone(), state.running.token());
    let answered = tokio::select! {
        () = stop.cancelled() => return state.batches.return_work(work).await,
        () = state.batches.hold(work) => return Ok(()),
        answered = answer(state, work, ticket).instrument(span) => answered,
    };
    match answered {
        Ok(message) => {
            metrics::batch_request("succeeded");
            state.batches.succeed(work, &message).await
        }
        Err(problem) => match judge(&problem, work.attempts) {
            Verdict::Again(pause) => {
                metrics::batch_request("put_back");
                state.batches.put_back(work, pause).await
            }
            Verdict::Refused => {
                metrics::batch_request("errored");
                state.batches.refuse(work, &Dialect::Messages.render(&problem, &request_id).body).await
            }
        },
    }
}

async fn answer(state: &Arc<State>, work: &Work, mut ticket: Ticket) -> Result<Bytes, Problem> {
    ticket.dialect = Dialect::Messages.as_str();
    let (call, ticket) = match call(state, work, &mut ticket) {
        Ok(call) => (call, ticket),
        Err(problem) => return Err(refused(problem, ticket)),
    };
    match state.relay.serve(call, ticket).await {
        Ok(Reply { body: ReplyBody::Whole(body), .. }) => Ok(body),
        Ok(Reply { body: ReplyBody::Stream(_), .. }) => {
            Err(Problem::new(ProblemKind::Internal, "The answer was a stream"))
        }
        Err(end) => {
            let Refused(problem, ticket) = *end;
            Err(refused(problem, ticket))
        }
    }
}

fn call(state: &Arc<State>, work: &Work, ticket: &mut Ticket) -> Result<Call, Problem> {
    let key = holder(state, work.key)?;
    ticket.belongs_to(&key);
    let context = Context { request_id: ticket.request_id.clone(), now: super::assemble::unix_millis() / 1000 };
    let models = state.models.serving(state.relay.served(&key));
    let prepared = messages::request::prepare(&work.params, &context, &models)?;
    if prepared.stream {
        return Err(Problem::invalid("stream", "stream: requests of a batch cannot be streamed"));
    }
    Ok(Call { dialect: Dialect::Messages, codex_cli: false, headers: HeaderMap::new(), key, prepared })
}

fn refused(problem: Problem, mut ticket: Ticket) -> Problem {
    ticket.begin(problem.kind.status().as_u16());
    ticket.fail(Outcome::Refused, &problem);
    problem
}
