//! The way of one request: choose an account, call the backend, translate, settle.
//!
//! This is the only room that knows the others. It keeps nothing of a request once its ticket is
//! dropped, and waits for no database: keys and accounts are read from memory.

mod affinity;
mod answer;
mod catalogue;
mod forward;
mod lesson;
mod passage;
mod policy;
mod reasoning;
mod routing;
mod standing;
mod ticket;

pub use catalogue::Listing;
pub use forward::{Passed, Passing, is_absent};
pub use passage::is_codex_cli;
pub use standing::{Pool, Standing};
pub use ticket::{Outcome, Ticket};

use crate::account::pool::{self, Choice, Reason};
use crate::account::{Accounts, InFlight, Member, TokenError};
use crate::codex::client::{Answer, Caller};
use crate::codex::limits::Limits;
use crate::codex::route::{OriginRule, Route};
use crate::codex::socket::Line;
use crate::codex::{Client, Failure, FailureKind};
use crate::dialect::{Dialect, Overflow, Prepared, Problem, ProblemKind};
use crate::store::{Account, AccountId, Credentials, GatewayKey, UnixMillis};
use crate::telemetry::{metrics, traces};
use affinity::Affinity;
use answer::{Begun, Pace, Relayed};
use lesson::Learn as _;

use bytes::Bytes;
use http::HeaderMap;
use policy::{Step, Tried};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// How the relay behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many accounts are tried for one request.
    pub max_attempts: u32,
    /// How long the first event of an answer may take once its head is there.
    pub first_event: Duration,
    /// After how much silence a stream's client is told that it is alive; never, if this is zero.
    pub keep_alive: Duration,
    /// How long a request may take in all; for ever, if this is zero.
    pub total: Duration,
    /// How long the first events of a stream are held back for an error that hides among them.
    pub hold: Duration,
    /// How long an account is left alone after a short-term limit without a delay.
    pub cooldown: Duration,
    /// How long a model catalogue is kept.
    pub models_ttl: Duration,
    /// How long an account is put aside when its quota is used up and nobody says until when.
    pub limit_without_reset: Duration,
    /// Where workspaces may live besides the backend's own address.
    pub workspace_origins: OriginRule,
}

/// Serves requests. One for the process.
pub struct Relay {
    accounts: Arc<Accounts>,
    client: Client,
    affinity: Affinity,
    shelf: catalogue::Shelf,
    routing: Arc<routing::Routing>,
    options: Options,
}

/// A request that has been authenticated and translated.
pub struct Call {
    /// The API that the client speaks.
    pub dialect: Dialect,
    /// Whether the client is a Codex CLI: its own headers pass through in both directions.
    pub codex_cli: bool,
    /// The client's headers.
    pub headers: HeaderMap,
    /// Whose key it came with.
    pub key: Arc<GatewayKey>,
    /// The request, as the backend takes it.
    pub prepared: Prepared,
}

/// An answer for the client.
pub struct Reply {
    /// Headers of the backend that the client is to see.
    pub headers: HeaderMap,
    /// The body.
    pub body: ReplyBody,
}

/// The body of an answer.
pub enum ReplyBody {
    /// JSON.
    Whole(Bytes),
    /// Server-sent events.
    Stream(futures_util::stream::BoxStream<'static, Bytes>),
}

/// A refusal, with the ticket of the request it refuses.
pub struct Refused(pub Problem, pub Ticket);

impl Relay {
    /// A relay over these accounts and this client.
    pub fn new(accounts: Arc<Accounts>, client: Client, options: Options) -> Self {
        Self {
            accounts,
            client,
            affinity: Affinity::default(),
            shelf: catalogue::Shelf::default(),
            routing: Arc::default(),
            options,
        }
    }

    /// After how much silence a stream's client is told that it is alive.
    pub fn keep_alive(&self) -> Option<Duration> {
        longer_than_nothing(self.options.keep_alive)
    }

    /// Serves one request. The answer's first byte is ready when this returns; until then a failure
    /// moves the request to the next account.
    pub async fn serve(&self, call: Call, ticket: Ticket) -> Result<Reply, Box<Refused>> {
        self.serve_over(None, call, ticket).await
    }

    /// The same for a client on a WebSocket: over the line's own connection to the backend, where it
    /// has one or can have one.
    pub async fn serve_over(&self, line: Option<&Line>, call: Call, mut ticket: Ticket) -> Result<Reply, Box<Refused>> {
        let session = call.prepared.session.clone().or_else(|| passage::session(&call.headers));
        let mut journey = Journey {
            headers: if call.codex_cli {
                passage::up(&call.headers)
            } else {
                passage::up_for_session(call.prepared.session.as_deref())
            },
            body: call.prepared.body.clone(),
            line: line.cloned(),
            stripped: false,
            tried: HashSet::new(),
            deadline: longer_than_nothing(self.options.total).map(|total| tokio::time::Instant::now() + total),
        };
        ticket.model = Some(call.prepared.model.clone());
        if call.prepared.reply.counts_tokens() {
            build_vocabulary();
        }
        let mut last = None;
        while ticket.attempts < self.options.max_attempts && !journey.is_over() {
            let Some(in_flight) = self.choose(&call.key, session.as_deref(), &journey.tried, &ticket) else { break };
            let id = in_flight.member().manager.id();
            journey.tried.insert(id);
            match self.try_account(in_flight.member(), &call, &mut journey, &mut ticket).await {
                Ok((headers, served)) => {
                    if let Some(session) = &session {
                        self.affinity.settle(call.key.id, session, id, Instant::now());
                    }
                    return Ok(Reply {
                        headers: if call.codex_cli { self.down(&call.key, &headers) } else { HeaderMap::new() },
                        body: self.deliver(in_flight, &call, served, ticket, journey.deadline),
                    });
                }
                Err(End::Next(failure)) => last = Some(failure),
                Err(End::GiveUp(failure)) => {
                    let overflow = self.overflow(&call, &failure).await;
                    return Err(refused(&call, Problem { overflow, ..Problem::from(&failure) }, ticket));
                }
            }
        }
        let problem = self.exhausted(&call.key, call.codex_cli, last.as_ref());
        Err(refused(&call, problem, ticket))
    }

    /// By how much a request is too long, for a dialect that says so.
    async fn overflow(&self, call: &Call, failure: &Failure) -> Option<Overflow> {
        if failure.kind != FailureKind::ContextLength {
            return None;
        }
        let tokens = call.prepared.reply.request_tokens()?;
        let listing = self.catalogue(&call.key, None).await.ok()?;
        let maximum = crate::dialect::catalogue::context_window(&listing.body, &call.prepared.model)?;
        Some(Overflow { tokens, maximum })
    }

    /// The next account for a request, and a place on it: the conversation's own account, if it may
    /// serve, else the pool's best.
    fn choose(
        &self,
        key: &GatewayKey,
        session: Option<&str>,
        tried: &HashSet<AccountId>,
        ticket: &Ticket,
    ) -> Option<InFlight> {
        let Choice { mut ordered, excluded, .. } = self.look(key);
        ordered.retain(|id| !tried.contains(id) && !self.routing.is_barred(*id));
        let home = session.and_then(|s| self.affinity.home(key.id, s, Instant::now()));
        // Accounts that do not list the model come last: catalogues differ by plan.
        let lacks = |id: &AccountId| self.shelf.lacks(*id, ticket.model.as_deref());
        ordered.sort_by_cached_key(lacks);
        let home = home.filter(|id| ordered.contains(id) && (!lacks(id) || ordered.first().is_some_and(lacks)));
        let chosen = home.or(ordered.first().copied());
        tracing::debug!(
            parent: &ticket.span,
            candidates = ordered.len(),
            excluded = ?excluded.iter().map(|(id, reason)| format!("{id}: {}", reason.as_str())).collect::<Vec<_>>(),
            sticky = home.is_some() && home == chosen,
            account_id = chosen.map(|id| id.to_string()),
            "account choice"
        );
        chosen.and_then(|id| self.accounts.begin(id))
    }

    fn look(&self, key: &GatewayKey) -> Choice {
        pool::choose(&self.accounts.candidates(), &key.accounts, millis_from_now(Duration::ZERO))
    }

    /// Calls the backend as one account, as often as the table allows.
    async fn try_account(
        &self,
        member: &Arc<Member>,
        call: &Call,
        journey: &mut Journey,
        ticket: &mut Ticket,
    ) -> Result<(HeaderMap, Served), End> {
        let mut tried = Tried { refreshed: false, stripped: journey.stripped };
        let manager = &member.manager;
        ticket.account = Some(manager.snapshot().account.name.clone());
        let mut credentials = manager.credentials().await.map_err(|error| End::Next(without_token(&error)))?;
        loop {
            ticket.attempts += 1;
            let failure = match self.attempt(member, &credentials, call, journey, ticket).await {
                Ok(served) => {
                    metrics::upstream_attempt("ok");
                    return Ok(served);
                }
                Err(failure) => failure,
            };
            metrics::upstream_attempt(failure.kind.as_str());
            log_attempt(&failure, ticket);
            match policy::step(failure.kind, tried) {
                Step::Refresh => {
                    tried.refreshed = true;
                    credentials = manager
                        .force_refresh(credentials.generation)
                        .await
                        .map_err(|error| End::Next(without_token(&error)))?;
                }
                Step::StripReasoning => {
                    let Some(body) = reasoning::strip(&journey.body) else { return Err(End::GiveUp(failure)) };
                    journey.body = body;
                    (tried.stripped, journey.stripped) = (true, true);
                }
                Step::Quarantine => {
                    manager.quarantine(credentials.generation, failure.code.as_deref().unwrap_or("unauthorized"));
                    return Err(End::Next(failure));
                }
                Step::PutAside => {
                    self.put_aside(manager.id(), &failure);
                    return Err(End::Next(failure));
                }
                Step::Cool => {
                    let wait = failure.retry_after.unwrap_or(self.options.cooldown);
                    self.accounts.cool_down(manager.id(), millis_from_now(wait));
                    return Err(End::Next(failure));
                }
                Step::Next => return Err(End::Next(failure)),
                Step::GiveUp => return Err(End::GiveUp(failure)),
            }
        }
    }

    /// One call of the backend, up to the first output, or to the end where the answer is whole.
    async fn attempt(
        &self,
        member: &Member,
        credentials: &Credentials,
        call: &Call,
        journey: &Journey,
        ticket: &mut Ticket,
    ) -> Result<(HeaderMap, Served), Failure> {
        let (address, port) = self.client.address();
        let span = traces::upstream_span(&ticket.span, &call.prepared.model, address, port, ticket.attempts);
        let account = member.manager.snapshot().account.clone();
        let lesson = self.lesson(account.id, &call.key);
        let work = async {
            let mut headers = journey.headers.clone();
            traces::inject(&mut headers);
            let route = self.routing.of(account.id);
            let caller = caller(&account, credentials, route.as_deref());
            let body = journey.body.clone();
            let Answer { headers, stream } = match &journey.line {
                Some(line) => self.client.respond_over(line, caller, headers, body).await?,
                None => self.client.respond(caller, headers, body).await?,
            };
            lesson.limits(&Limits::from_headers(&headers, unix_now()));
            let begun = answer::begin(stream, self.options.first_event, self.options.hold, &lesson).await?;
            if call.prepared.stream {
                return Ok((headers, Served::Stream(Box::new(begun))));
            }
            let body = answer::fold(begun, call.prepared.reply.whole(), ticket, &lesson).await?;
            Ok((headers, Served::Whole(body)))
        };
        let work = work.instrument(span.clone());
        let result: Result<_, Failure> = match journey.deadline {
            Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(answer::too_long())),
            None => work.await,
        };
        if let Err(failure) = &result {
            span.record("error.type", failure.kind.as_str());
            span.record("otel.status_code", "ERROR");
        }
        result
    }

    fn put_aside(&self, id: AccountId, failure: &Failure) {
        let until = match failure.resets_at {
            Some(seconds) => seconds.saturating_mul(1000),
            None => millis_from_now(self.options.limit_without_reset),
        };
        self.accounts.mark_limited(id, until, failure.code.as_deref().unwrap_or("usage_limit_reached"));
    }

    /// Hands the answer out. A stream keeps its place on the account until it is over.
    fn deliver(
        &self,
        in_flight: InFlight,
        call: &Call,
        served: Served,
        mut ticket: Ticket,
        deadline: Option<tokio::time::Instant>,
    ) -> ReplyBody {
        ticket.begin(200);
        match served {
            Served::Whole(body) => {
                ticket.end(Outcome::Ok);
                ReplyBody::Whole(body)
            }
            Served::Stream(begun) => {
                let learn = self.lesson(in_flight.member().manager.id(), &call.key);
                let translator = call.prepared.reply.stream();
                let pace = Pace { keep_alive: self.keep_alive(), deadline };
                let relayed =
                    Relayed { begun: *begun, translator, ticket, learn, pace, finished: false, _in_flight: in_flight };
                ReplyBody::Stream(Box::pin(futures_util::stream::unfold(relayed, |mut relayed| async move {
                    relayed.next_write().await.map(|bytes| (bytes, relayed))
                })))
            }
        }
    }

    /// Why no account could serve (lessons.md 4): a limit that passes, or a matter for the operator.
    fn exhausted(&self, key: &GatewayKey, codex_cli: bool, last: Option<&Failure>) -> Problem {
        let choice = self.look(key);
        if choice.ordered.is_empty()
            && let Some((until, kind)) = soonest_back(&choice)
        {
            let message = match kind {
                ProblemKind::UsageLimit => "The usage limit of every account that could serve has been reached",
                _ => "Every account that could serve is rate limited for the moment",
            };
            let wait = Duration::from_millis(u64::try_from(until - millis_from_now(Duration::ZERO)).unwrap_or(0));
            // The Codex CLI shows this time to its user.
            let resets_at = (kind == ProblemKind::UsageLimit).then_some(until / 1000);
            return Problem { retry_after: Some(wait), resets_at, ..Problem::new(kind, message) };
        }
        match last {
            Some(failure) if codex_cli => with_wait(Problem::from(failure)).final_for_codex_cli(),
            Some(failure) => with_wait(Problem::from(failure)),
            None => Problem::new(
                ProblemKind::NoAccount,
                "No account that this key may use is able to serve; the operator can see why with `tollway account list`",
            ),
        }
    }
}

/// Who calls, for the backend.
fn caller<'a>(account: &'a Account, credentials: &'a Credentials, route: Option<&'a Route>) -> Caller<'a> {
    Caller {
        access_token: &credentials.access_token,
        chatgpt_account_id: &account.chatgpt_account_id,
        fedramp: account.fedramp,
        route,
    }
}

/// When the first account that is only aside for a time is back, and what keeps it aside.
fn soonest_back(choice: &Choice) -> Option<(UnixMillis, ProblemKind)> {
    let aside = choice.excluded.iter().filter_map(|(_, reason)| match reason {
        Reason::Limited(until) => Some((*until, ProblemKind::UsageLimit)),
        Reason::Cooling(until) => Some((*until, ProblemKind::RateLimited)),
        _ => None,
    });
    aside.min_by_key(|(until, _)| *until)
}

/// A refusal as this client is to see it.
fn refused(call: &Call, problem: Problem, ticket: Ticket) -> Box<Refused> {
    Box::new(Refused(if call.codex_cli { problem.final_for_codex_cli() } else { problem }, ticket))
}

/// With the wait that a reset's time amounts to.
fn with_wait(mut problem: Problem) -> Problem {
    if let (None, Some(at)) = (problem.retry_after, problem.resets_at) {
        problem.retry_after = u64::try_from(at.saturating_sub(unix_now())).ok().map(Duration::from_secs);
    }
    problem
}

/// An account that has no token to call with: another one may.
fn without_token(error: &TokenError) -> Failure {
    let mut failure = Failure::of(FailureKind::Unauthorized, error.to_string());
    if let TokenError::Unavailable { retry_after, .. } = error {
        failure.retry_after = Some(*retry_after);
    }
    failure
}

/// Has the tokenizer ready by the time that the first answer may need it, without holding anybody up.
fn build_vocabulary() {
    static BEGUN: std::sync::Once = std::sync::Once::new();
    BEGUN.call_once(|| drop(tokio::task::spawn_blocking(crate::dialect::build_vocabulary)));
}

fn log_attempt(failure: &Failure, ticket: &Ticket) {
    tracing::warn!(
        parent: &ticket.span,
        account = ticket.account.as_deref(),
        kind = failure.kind.as_str(),
        status = failure.status.map(|s| s.as_u16()),
        code = failure.code.as_deref(),
        upstream_request_id = failure.request_id.as_deref(),
        cause = %failure.message,
        "the backend call failed"
    );
}

/// What a request carries from attempt to attempt.
struct Journey {
    /// Headers for the backend.
    headers: HeaderMap,
    /// The body for the backend.
    body: Bytes,
    /// The connection to the backend that belongs to the client's, if it has one.
    line: Option<Line>,
    /// Whether reasoning was taken out of the body.
    stripped: bool,
    /// The accounts that were tried.
    tried: HashSet<AccountId>,
    /// When the answer must be complete.
    deadline: Option<tokio::time::Instant>,
}

impl Journey {
    /// Whether there is no time left.
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|at| at <= tokio::time::Instant::now())
    }
}

/// A duration for which zero means that there is none.
fn longer_than_nothing(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// What a successful attempt brought.
enum Served {
    Whole(Bytes),
    Stream(Box<Begun>),
}

/// How an account's turn ended without an answer.
enum End {
    Next(Failure),
    GiveUp(Failure),
}

fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn millis_from_now(wait: Duration) -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from((since + wait).as_millis()).unwrap_or(i64::MAX)
}
