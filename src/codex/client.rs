//! The HTTP client for the backend: one pool and one TLS context for all accounts (lessons.md 14).

use super::failure::{Failure, FailureKind};
use super::route::Route;
use super::socket::{Talk, Transport};
use super::sse::{Decoder, Frame};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Where the backend is and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `https://chatgpt.com/backend-api`.
    pub base_url: Url,
    /// Who Tollway says it is, for clients other than the Codex CLI.
    pub originator: HeaderValue,
    /// The same as a user agent.
    pub user_agent: HeaderValue,
    /// The client version that `/codex/models` is asked for (protocol.md 6.2).
    pub client_version: String,
    /// From the request's last byte to the answer's headers.
    pub first_byte_timeout: Duration,
    /// Between two reads of a stream.
    pub idle_timeout: Duration,
}

/// The account that a call is made as.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The bearer token.
    pub access_token: &'a SecretString,
    /// The workspace.
    pub chatgpt_account_id: &'a str,
    /// Whether the workspace is on the FedRAMP deployment (protocol.md 1.8).
    pub fedramp: bool,
    /// Where its workspace lives, if that is known.
    pub route: Option<&'a Route>,
}

/// Speaks to the backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    options: Options,
    /// WebSockets, where they are used.
    pub(super) sockets: Option<Transport>,
}

/// The model catalogue of an account.
#[derive(Debug, Clone)]
pub enum Catalogue {
    /// It is as it was.
    NotModified,
    /// `{"models":[…]}` as it came, with its entity tag.
    Fresh {
        /// JSON.
        body: Bytes,
        /// The `ETag`.
        etag: Option<HeaderValue>,
    },
}

const ACCOUNT_ID: HeaderName = HeaderName::from_static("chatgpt-account-id");
const ORIGINATOR: HeaderName = HeaderName::from_static("originator");
const FEDRAMP: HeaderName = HeaderName::from_static("x-openai-fedramp");

const ROUTING: HeaderName = HeaderName::from_static("x-openai-account-routing-override");

/// hyper polls a body that is pending twice in one turn of its task: the next poll after these is in
/// another turn.
const POLLS_A_TURN: u32 = 2;

/// An error body is read up to here; the rest says nothing more.
const ERROR_BODY_LIMIT: usize = 64 * 1024;
/// Ten large pictures in base64.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

impl Client {
    /// A client over a connection pool. The pool must not decompress: a stream passes as it is.
    pub fn new(http: reqwest::Client, options: Options) -> Self {
        Self { http, options, sockets: None }
    }

    /// With WebSockets too, over a pool that never speaks HTTP/2. `remembers` leaves a backend that
    /// refused one alone for a while.
    #[must_use]
    pub fn with_sockets(mut self, http: reqwest::Client, remembers: bool) -> Self {
        self.sockets = Some(Transport::new(http, remembers));
        self
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// A path of the backend, at the origin where the caller's workspace lives.
    pub(super) fn at(&self, caller: Caller<'_>, path: &str) -> Url {
        let base = &self.options.base_url;
        let origin = caller.route.and_then(|route| route.origin.as_ref());
        let mut url = origin.unwrap_or(base).clone();
        url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
        url
    }

    /// The configured address.
    pub fn base_url(&self) -> &Url {
        &self.options.base_url
    }

    /// The backend's host and port, for traces.
    pub fn address(&self) -> (&str, u16) {
        let url = &self.options.base_url;
        (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443))
    }

    /// `POST /codex/responses`. `headers` are what passes from the client; credentials among them
    /// are overwritten. Ends in an answer with status 200, or a failure.
    pub async fn respond(&self, caller: Caller<'_>, headers: HeaderMap, body: Bytes) -> Result<Answer, Failure> {
        let mut headers = self.identify(caller, headers);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = self.http.post(self.at(caller, "codex/responses")).headers(headers).body(body).send();
        let response = tokio::time::timeout(self.options.first_byte_timeout, request)
            .await
            .map_err(|_| Failure::of(FailureKind::Timeout, "the backend did not answer in time"))?
            .map_err(|error| of_transport(&error))?;
        if response.status() == StatusCode::OK {
            let headers = response.headers().clone();
            let stream = EventStream {
                source: Source::Body(response),
                decoder: Decoder::new(),
                idle_timeout: self.options.idle_timeout,
                silent_since: None,
                alarm: Alarm::default(),
                ended: false,
            };
            return Ok(Answer { headers, stream });
        }
        Err(self.refusal(response).await)
    }

    /// `GET /codex/models`, for `client_version` or the configured one.
    pub async fn models(
        &self,
        caller: Caller<'_>,
        client_version: Option<&str>,
        known: Option<&HeaderValue>,
    ) -> Result<Catalogue, Failure> {
        let mut headers = self.identify(caller, HeaderMap::new());
        if let Some(etag) = known {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        let version = client_version.unwrap_or(&self.options.client_version);
        let mut url = self.at(caller, "codex/models");
        url.query_pairs_mut().append_pair("client_version", version);
        let request = self.http.get(url).headers(headers).timeout(self.options.first_byte_timeout).send();
        let response = request.await.map_err(|error| of_transport(&error))?;
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(Catalogue::NotModified),
            StatusCode::OK => {
                let etag = response.headers().get(ETAG).cloned();
                let body = response.bytes().await.map_err(|error| of_transport(&error))?;
                Ok(Catalogue::Fresh { body, etag })
            }
            _ => Err(self.refusal(response).await),
        }
    }

    /// One of the backend's smaller calls, its answer read to the end. `path` is below the base
    /// address; `headers` as in [`Client::respond`]. Ends in a success, or a failure.
    pub async fn call(
        &self,
        caller: Caller<'_>,
        method: http::Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Called, Failure> {
        let headers = self.identify(caller, headers);
        // Compaction and pictures take as long as an answer does.
        let within = self.options.idle_timeout;
        let request = self.http.request(method, self.at(caller, path)).headers(headers).timeout(within);
        let mut response = request.body(body).send().await.map_err(|error| of_transport(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| of_transport(&error))? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(Failure::of(FailureKind::ServerError, "the backend's answer is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Called { status, headers, body: body.freeze() })
    }

    /// Sets what says who calls: the account's credentials always, Tollway's name unless the
    /// headers carry a real Codex CLI's own.
    pub(super) fn identify(&self, caller: Caller<'_>, mut headers: HeaderMap) -> HeaderMap {
        let bearer = format!("Bearer {}", caller.access_token.expose_secret());
        // A token that is not a header value is refused by the backend as an empty one would be.
        let mut bearer = HeaderValue::try_from(bearer).unwrap_or(HeaderValue::from_static("Bearer"));
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        if let Ok(id) = HeaderValue::try_from(caller.chatgpt_account_id) {
            headers.insert(ACCOUNT_ID, id);
        }
        if let Some(choice) = caller.route.and_then(|route| route.routing_override.as_ref()) {
            headers.insert(ROUTING, choice.clone());
        }
        if caller.fedramp {
            headers.insert(FEDRAMP, HeaderValue::from_static("true"));
        }
        headers.entry(ORIGINATOR).or_insert_with(|| self.options.originator.clone());
        headers.entry(USER_AGENT).or_insert_with(|| self.options.user_agent.clone());
        headers
    }

    async fn refusal(&self, mut response: reqwest::Response) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                body.extend_from_slice(&chunk);
                if body.len() > ERROR_BODY_LIMIT {
                    break;
                }
            }
        };
        // Whatever has come by then is enough to classify by.
        let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
        Failure::of_response(status, &headers, &body, unix_now())
    }
}

/// The answer of [`Client::call`].
#[derive(Debug)]
pub struct Called {
    /// A success.
    pub status: StatusCode,
    /// The backend's headers.
    pub headers: HeaderMap,
    /// To its end.
    pub body: Bytes,
}

/// An answer with status 200.
#[derive(Debug)]
pub struct Answer {
    /// The backend's headers: limits, turn state, request id.
    pub headers: HeaderMap,
    /// Its events.
    pub stream: EventStream,
}

/// The events of an answer. Dropping it cancels the request at the backend.
#[derive(Debug)]
pub struct EventStream {
    source: Source,
    decoder: Decoder,
    idle_timeout: Duration,
    /// Since when a read is waited for. Outlives a call of `next` that was given up, so that somebody
    /// who looks in between does not make the backend's silence shorter.
    silent_since: Option<Instant>,
    alarm: Alarm,
    /// Whether the body has ended.
    ended: bool,
}

/// What has come of a stream.
#[derive(Debug)]
pub enum Came {
    /// An event.
    Frame(Frame),
    /// No more is to come.
    End,
    /// Nothing, in the time that was given.
    Nothing,
}

/// A timer that is set for each event and hardly ever goes off: it is put later only when it does.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<tokio::time::Sleep>>>);

impl Alarm {
    fn poll(&mut self, context: &mut Context<'_>, until: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
        Poll::Pending
    }
}

/// Where events come from.
#[derive(Debug)]
enum Source {
    /// The body of an answer.
    Body(reqwest::Response),
    /// A WebSocket.
    Socket(Box<Talk>),
}

impl Source {
    /// The next bytes; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Body(response) => {
                let chunk = response.chunk().await;
                chunk.map_err(|error| Failure { kind: FailureKind::StreamCut, ..of_transport(&error) })
            }
            Self::Socket(talk) => talk.chunk().await,
        }
    }
}

impl EventStream {
    pub(super) fn of_socket(talk: Talk, idle_timeout: Duration) -> Self {
        Self {
            source: Source::Socket(Box::new(talk)),
            decoder: Decoder::new(),
            idle_timeout,
            silent_since: None,
            alarm: Alarm::default(),
            ended: false,
        }
    }

    /// The next frame; `None` at the end of the body. Safe to cancel: nothing that was read is lost.
    pub async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        match self.next_by(None).await? {
            Came::Frame(frame) => Ok(Some(frame)),
            Came::End | Came::Nothing => Ok(None),
        }
    }

    /// What comes next, until `by`. Safe to cancel.
    pub async fn next_by(&mut self, by: Option<Instant>) -> Result<Came, Failure> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Came::Frame(frame));
            }
            if self.ended {
                return Ok(Came::End);
            }
            let silent = *self.silent_since.get_or_insert_with(Instant::now) + self.idle_timeout;
            let until = by.map_or(silent, |by| by.min(silent));
            let came = {
                let Self { source, alarm, .. } = &mut *self;
                let mut chunk = std::pin::pin!(source.chunk());
                std::future::poll_fn(|context| match chunk.as_mut().poll(context) {
                    Poll::Ready(chunk) => Poll::Ready(Some(chunk)),
                    Poll::Pending => alarm.poll(context, until).map(|()| None),
                })
                .await
            };
            match came {
                Some(chunk) => self.arrived(chunk?),
                None if until == silent => {
                    return Err(Failure::of(FailureKind::Timeout, "the backend's stream fell silent"));
                }
                None => return Ok(Came::Nothing),
            }
        }
    }

    /// A frame that is there; `None` where nothing is. Not only what was read before counts, but what
    /// the connection has to hand over: it does so piece by piece, each in a turn of its own on the
    /// scheduler, so it is given one. Safe to cancel.
    pub async fn at_hand(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.ended {
                return Ok(None);
            }
            match a_turn(self.source.chunk()).await.transpose()? {
                Some(chunk) => self.arrived(chunk),
                None => return Ok(None),
            }
        }
    }

    fn arrived(&mut self, chunk: Option<Bytes>) {
        self.silent_since = None;
        match chunk {
            Some(chunk) => self.decoder.push(chunk),
            None => self.ended = true,
        }
    }

    /// A frame that has been read already.
    fn buffered(&mut self) -> Result<Option<Frame>, Failure> {
        self.decoder.next_frame().map_err(|error| Failure::of(FailureKind::StreamCut, error.to_string()))
    }
}

/// What a future has now, or once every other task that is ready has had its turn.
async fn a_turn<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut polls = 0;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if polls == POLLS_A_TURN => Poll::Ready(None),
        Poll::Pending => {
            polls += 1;
            // A task that wakes itself goes to the end of the line; tokio's `yield_now` would ask the
            // operating system for events first.
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// A transport error in words without addresses or headers; the source chain has the cause.
fn of_transport(error: &reqwest::Error) -> Failure {
    let kind = if error.is_timeout() { FailureKind::Timeout } else { FailureKind::Connection };
    let mut message = String::from(match kind {
        FailureKind::Timeout => "the backend did not answer in time",
        _ => "the connection to the backend failed",
    });
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    Failure::of(kind, message)
}

pub(super) fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
