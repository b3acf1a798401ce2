//! The way of one request: choose an account, call the backend, translate, settle.
//!
//! This is the only room that knows the others. It keeps nothing of a request once its ticket is
//! dropped, and waits for no database: keys and accounts are read from memory.

mod answer;
mod attempts;
mod backend_call;
mod bill;
mod books;
mod catalogue;
mod decisions;
mod exchange;
mod forward;
mod homes;
mod lesson;
mod limit_words;
mod notice;
mod passage;
mod poll;
mod queue;
mod reasoning;
mod routing;
mod scheduling;
mod shelf;
mod standing;
mod ticket;

pub use books::{Books, Bounds};
pub use catalogue::Listing;
pub use decisions::Explanation;
pub use forward::{Passed, Passing, is_absent};
pub use passage::is_codex_cli;
pub use poll::Polling;
pub use queue::Waiting;
pub use standing::{Pool, Standing};
pub use ticket::{Outcome, Ticket};

use crate::account::pool::Reason;
use crate::account::pool::condition::Defaults;
use crate::account::pool::retries::RetryBudget;
use crate::account::pool::sessions::{Session, Sessions};
use crate::account::{Accounts, InFlight, Member, TokenError};
use crate::codex::client::{Answer, Caller};
use crate::codex::limits::Limits;
use crate::codex::route::{OriginRule, Route};
use crate::codex::socket::Line;
use crate::codex::{Client, Failure, FailureKind};
use crate::dialect::{Dialect, Overflow, Prepared, Problem, ProblemKind};
use crate::store::{Account, Credentials, GatewayKey, Store, Strategy, UnixMillis};
use crate::telemetry::traces;
use answer::{Begun, Pace, Relayed};
use books::Asked;
use lesson::Learn as _;

use attempts::{Errand, Lost};
use backend_call::BackendCall;
use bytes::Bytes;
use decisions::Recorder;
use http::HeaderMap;
use queue::Queue;
use reasoning::Foreign;
use scheduling::Conversation;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Instrument;

/// How the relay behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often a request may fail at the backend before its client is told.
    pub max_attempts: u32,
    /// How accounts are ordered, for keys that are bound to no pool.
    pub strategy: Strategy,
    /// How long a conversation is remembered after its last turn.
    pub session_lifetime: Duration,
    /// How requests wait when no account is left.
    pub waiting: Waiting,
    /// How often accounts are asked how much of them is used.
    pub polling: Polling,
    /// How long it is kept why an account was chosen.
    pub decisions: Duration,
    /// How long the first event of an answer may take once its head is there.
    pub first_event: Duration,
    /// After how much silence a stream's client is told that it is alive; never, if this is zero.
    pub keep_alive: Duration,
    /// How long a request may take in all; for ever, if this is zero.
    pub total: Duration,
    /// How long the first events of a stream are held back for an error that hides among them.
    pub hold: Duration,
    /// How long accounts are put aside when the backend does not say for how long.
    pub defaults: Defaults,
    /// How long a model catalogue is kept.
    pub models_ttl: Duration,
    /// Where workspaces may live besides the backend's own address.
    pub workspace_origins: OriginRule,
}

/// Conversations that are remembered, at about 100 bytes each.
const SESSIONS: usize = 100_000;

/// Serves requests. One for the process.
pub struct Relay {
    accounts: Arc<Accounts>,
    client: Client,
    sessions: Mutex<Sessions>,
    retries: RetryBudget,
    recorder: Recorder,
    queue: Queue,
    shelf: shelf::Shelf,
    routing: Arc<routing::Routing>,
    notices: Arc<notice::Notices>,
    books: Arc<Books>,
    /// Where conversations that began on other replicas are looked for, if there are any.
    elsewhere: Option<homes::Elsewhere>,
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
    pub fn new(accounts: Arc<Accounts>, client: Client, books: Arc<Books>, options: Options) -> Self {
        let routing = Arc::<routing::Routing>::default();
        Self {
            notices: Arc::new(notice::Notices::new(accounts.clone(), routing.clone())),
            accounts,
            client,
            sessions: Mutex::new(Sessions::new(SESSIONS, millis(options.session_lifetime))),
            retries: RetryBudget::new(millis_from_now(Duration::ZERO)),
            recorder: Recorder::new(options.decisions),
            queue: Queue::new(options.waiting),
            shelf: shelf::Shelf::default(),
            routing,
            books,
            elsewhere: None,
            options,
        }
    }

    /// The same, which finds conversations that began on other replicas.
    #[must_use]
    pub fn beside_others(mut self, store: &Store) -> Self {
        self.elsewhere = store.is_shared().then(|| homes::Elsewhere::new(store.clone()));
        self
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
        let conversation = conversation(&call);
        ticket.model = Some(call.prepared.model.clone());
        if let Err(problem) = self.admit(&call.key, &Asked::of(&call), &mut ticket).await {
            return Err(refused(&call, problem, ticket));
        }
        if call.prepared.reply.counts_tokens() {
            build_vocabulary();
        }
        let mut journey = Journey::new(&call, line, longer_than_nothing(self.options.total));
        match self.run_or_wait(&call.key, conversation.as_ref(), &mut journey, &mut ticket).await {
            Ok(((headers, served), in_flight)) => {
                let deadline = journey.deadline;
                let mut headers = if call.codex_cli { self.down(&call.key, &headers) } else { HeaderMap::new() };
                headers.extend(self.books.headers(ticket.dialect, &call.key));
                Ok(Reply { headers, body: self.deliver(in_flight, &call, served, ticket, deadline) })
            }
            Err(Lost::Failed(failure)) => {
                let overflow = self.overflow(&call, &failure).await;
                Err(refused(&call, Problem { overflow, ..with_wait(Problem::from(&failure)) }, ticket))
            }
            Err(Lost::Exhausted(last)) => {
                let model = Some(call.prepared.model.as_str());
                let problem = self.exhausted(&call.key, model, call.codex_cli, last.as_ref());
                Err(refused(&call, problem, ticket))
            }
        }
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
            Served::Stream(begun, backend_call) => {
                let learn = self.lesson(in_flight.member().manager.id(), &call.key, &call.prepared.model);
                let translator = call.prepared.reply.stream();
                let pace = Pace { keep_alive: self.keep_alive(), deadline };
                let relayed = Relayed {
                    begun: *begun,
                    call: backend_call,
                    translator,
                    ticket,
                    learn,
                    pace,
                    finished: false,
                    written: 0,
                    has_ended: false,
                    _in_flight: in_flight,
                };
                ReplyBody::Stream(Box::pin(futures_util::stream::unfold(relayed, |mut relayed| async move {
                    relayed.next_write().await.map(|bytes| (bytes, relayed))
                })))
            }
        }
    }

    /// Why no account could serve (lessons.md 4): a limit that passes, or a matter for the operator.
    fn exhausted(&self, key: &GatewayKey, model: Option<&str>, codex_cli: bool, last: Option<&Failure>) -> Problem {
        let choice = self.look(key, model);
        if choice.ordered.is_empty()
            && let Some((until, reason)) = choice.soonest_back()
        {
            let (kind, message) = match reason {
                Reason::Limited(_) => {
                    (ProblemKind::UsageLimit, "The usage limit of every account that could serve has been reached")
                }
                Reason::NotIncluded(_) => {
                    (ProblemKind::NoAccount, "The plan of every account that could serve does not include Codex")
                }
                Reason::ModelLimited(_) => (
                    ProblemKind::UsageLimit,
                    "The usage limit of this model has been reached on every account that could serve it",
                ),
                _ => (ProblemKind::RateLimited, "Every account that could serve is rate limited for the moment"),
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

/// Which conversation a call belongs to: as the request names it, else its headers, else by how it
/// begins.
fn conversation(call: &Call) -> Option<Conversation> {
    let Prepared { session, beginning, .. } = &call.prepared;
    let name = session.clone().or_else(|| passage::session(&call.headers)).or_else(|| beginning.clone())?;
    Some(Conversation(Session::of(call.key.id, &name)))
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
struct Journey<'a> {
    call: &'a Call,
    /// Headers for the backend.
    headers: HeaderMap,
    /// The body for the backend: the call's own, or what is left of it.
    body: Bytes,
    /// The connection to the backend that belongs to the client's, if it has one.
    line: Option<Line>,
    /// When the answer must be complete.
    deadline: Option<tokio::time::Instant>,
}

impl<'a> Journey<'a> {
    fn new(call: &'a Call, line: Option<&Line>, total: Option<Duration>) -> Self {
        Self {
            call,
            headers: if call.codex_cli {
                passage::up(&call.headers)
            } else {
                passage::up_for_session(call.prepared.session.as_deref())
            },
            body: call.prepared.body.clone(),
            line: line.cloned(),
            deadline: total.map(|total| tokio::time::Instant::now() + total),
        }
    }
}

impl Errand for Journey<'_> {
    type Good = (HeaderMap, Served);

    fn model(&self) -> Option<&str> {
        Some(&self.call.prepared.model)
    }

    fn strip(&mut self, foreign: Foreign) -> bool {
        reasoning::leave_behind(&mut self.headers, &mut self.body, foreign)
    }

    fn items(&self) -> u32 {
        reasoning::items(&self.call.prepared.body)
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|at| at <= tokio::time::Instant::now())
    }

    /// One call of the backend, up to the first output, or to the end where the answer is whole.
    async fn attempt(
        &mut self,
        relay: &Relay,
        member: &Arc<Member>,
        credentials: &Credentials,
        ticket: &mut Ticket,
    ) -> Result<(HeaderMap, Served), Failure> {
        let (call, options) = (self.call, &relay.options);
        let (address, port) = relay.client.address();
        let prepared = &call.prepared;
        let mut backend_call = BackendCall::begin(ticket, &prepared.model, address, port, prepared.stream);
        let span = backend_call.span().clone();
        let account = member.manager.snapshot().account.clone();
        let lesson = relay.lesson(account.id, &call.key, &prepared.model);
        let observed = &mut *backend_call;
        let work = async {
            let mut headers = self.headers.clone();
            traces::inject(&mut headers);
            let route = relay.routing.of(account.id);
            let caller = caller(&account, credentials, route.as_deref());
            let body = self.body.clone();
            let Answer { headers, stream } = match &self.line {
                Some(line) => relay.client.respond_over(line, caller, headers, body).await?,
                None => relay.client.respond(caller, headers, body).await?,
            };
            lesson.limits(&Limits::from_headers(&headers, unix_now()));
            let begun = answer::begin(stream, options.first_event, options.hold, &lesson).await?;
            if prepared.stream {
                return Ok((headers, Begins::Stream(Box::new(begun))));
            }
            let body = answer::fold(begun, prepared.reply.whole(), ticket, observed, &lesson).await?;
            Ok((headers, Begins::Whole(body)))
        };
        let deadline = self.deadline;
        let work = work.instrument(span);
        let result: Result<_, Failure> = match deadline {
            Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(answer::too_long())),
            None => work.await,
        };
        match result {
            Ok((headers, Begins::Stream(begun))) => Ok((headers, Served::Stream(begun, backend_call))),
            Ok((headers, Begins::Whole(body))) => {
                backend_call.ended();
                Ok((headers, Served::Whole(body)))
            }
            Err(failure) => {
                backend_call.failed(&failure);
                Err(failure)
            }
        }
    }
}

/// What an attempt has brought so far.
enum Begins {
    Whole(Bytes),
    Stream(Box<Begun>),
}

/// A duration for which zero means that there is none.
fn longer_than_nothing(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// What a successful attempt brought.
enum Served {
    Whole(Bytes),
    Stream(Box<Begun>, Box<BackendCall>),
}

fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn millis_from_now(wait: Duration) -> UnixMillis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from((since + wait).as_millis()).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
