//! The WebSocket transport towards the backend (protocol.md 4): one connection, kept for the requests
//! of one client connection, so that the backend has the conversation before it and takes only what
//! is new.
//!
//! The request comes as HTTP would have it. What the backend has on the connection is compared with
//! it here; where the request does not simply continue it, all of it is sent.

mod request;

use super::client::{Answer, Caller, Client, RESPONSES, unix_now};
use super::event::{Depth, Event};
use super::failure::{Failure, FailureKind};
use super::request::can_be_sent_back;
use super::sse::MAX_FRAME;
use super::stream::EventStream;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use request::{IN_METADATA, Request, Said};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// The backend closes a connection after an hour; it is left before that.
const MAX_AGE: Duration = Duration::from_mins(55);
/// How often a connection is tested.
const PING: Duration = Duration::from_secs(30);
/// How many events are read ahead of the client.
const READ_AHEAD: usize = 32;
/// How long a backend that has no WebSockets is not asked again.
const NOT_SPOKEN: Duration = Duration::from_mins(5);
/// … and one that could not be reached this way.
const NOT_REACHED: Duration = Duration::from_secs(30);

const BETA: HeaderName = HeaderName::from_static("openai-beta");
const BETA_VALUE: HeaderValue = HeaderValue::from_static("responses_websockets=2026-02-06");
/// Whether and how WebSockets are used towards the backend.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    /// Never speaks HTTP/2, on which there is no such upgrade.
    http: reqwest::Client,
    /// Whether a refusal is remembered.
    remembers: bool,
    /// Until when none is tried.
    not_before: Arc<Mutex<Option<Instant>>>,
    hasher: RandomState,
}

impl Transport {
    pub(super) fn new(http: reqwest::Client, remembers: bool) -> Self {
        Self { http, remembers, not_before: Arc::default(), hasher: RandomState::new() }
    }

    fn name(&self, caller: Caller<'_>) -> u64 {
        // A workspace that turns out to live elsewhere is somebody else too.
        let origin = caller.route.and_then(|route| route.origin.as_ref());
        self.hasher.hash_one((caller.chatgpt_account_id, caller.access_token.expose_secret(), origin))
    }

    fn is_worth_a_try(&self) -> bool {
        let not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
        not_before.is_none_or(|until| Instant::now() >= until)
    }

    fn note(&self, refused: &Refused) {
        let pause = match refused {
            Refused::Status(status) if matches!(status.as_u16(), 404 | 405 | 426 | 501) => NOT_SPOKEN,
            // Of the account or of the moment: HTTP tells what it is.
            Refused::Status(_) => return,
            Refused::Unreached => NOT_REACHED,
        };
        if self.remembers {
            let mut not_before = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
            *not_before = Some(Instant::now() + pause);
        }
    }
}

/// Where the connection for one client connection is kept between its requests.
#[derive(Debug, Clone, Default)]
pub struct Line(Arc<Mutex<Option<Kept>>>);

impl Line {
    fn take(&self) -> Option<Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, kept: Kept) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }
}

/// An open connection and what was said on it.
#[derive(Debug)]
struct Kept {
    /// Account and token, hashed: another one gets another connection.
    caller: u64,
    opened: Instant,
    outgoing: mpsc::Sender<String>,
    incoming: mpsc::Receiver<Utf8Bytes>,
    said: Option<Said>,
}

impl Kept {
    fn serves(&self, caller: u64) -> bool {
        self.caller == caller && self.opened.elapsed() < MAX_AGE && !self.outgoing.is_closed()
    }
}

/// Why there is no connection.
enum Refused {
    Status(StatusCode),
    Unreached,
}

impl Client {
    /// `POST /codex/responses`, over the line's WebSocket where that can be: the one that it has, or a
    /// new one. Over HTTP where the backend has none, or where it breaks before its first event.
    pub async fn respond_over(
        &self,
        line: &Line,
        caller: Caller<'_>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        if let Some(transport) = self.sockets.as_ref().filter(|transport| transport.is_worth_a_try())
            && let Some(answer) = self.over_socket(transport, line, caller, &headers, &body).await?
        {
            return Ok(answer);
        }
        self.respond(caller, headers, body).await
    }

    /// `None` where HTTP is to serve.
    async fn over_socket(
        &self,
        transport: &Transport,
        line: &Line,
        caller: Caller<'_>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Option<Answer>, Failure> {
        let Some(request) = Request::read(body, &transport.hasher) else { return Ok(None) };
        // The kept connection may have been lost or have forgotten; a new one is tried then.
        if let Some(kept) = line.take().filter(|kept| kept.serves(transport.name(caller)))
            && let Some(stream) = self.ask(transport, line, kept, &request, headers).await?
        {
            return Ok(Some(Answer { headers: HeaderMap::new(), stream }));
        }
        let (kept, answer) = match self.open_socket(transport, caller, headers.clone()).await {
            Ok(opened) => opened,
            Err(refused) => {
                transport.note(&refused);
                return Ok(None);
            }
        };
        let stream = self.ask(transport, line, kept, &request, headers).await?;
        Ok(stream.map(|stream| Answer { headers: answer, stream }))
    }

    /// Sends a request and waits for its first event; `None` if the connection is of no use.
    async fn ask(
        &self,
        transport: &Transport,
        line: &Line,
        mut kept: Kept,
        request: &Request<'_>,
        headers: &HeaderMap,
    ) -> Result<Option<EventStream>, Failure> {
        while kept.incoming.try_recv().is_ok() {}
        let said = kept.said.take();
        let after = said.as_ref().and_then(|said| Some((said.response.as_str(), request.continues(said)?)));
        if kept.outgoing.send(request.frame(after, headers)).await.is_err() {
            return Ok(None);
        }
        let first = tokio::time::timeout(self.options().first_byte_timeout, kept.incoming.recv())
            .await
            .map_err(|_| Failure::of(FailureKind::Timeout, "the backend did not answer in time"))?;
        let Some(first) = first else { return Ok(None) };
        if is_of_the_connection(&first) {
            return Ok(None);
        }
        let said = Said { rest: request.said.rest, items: request.said.items.clone(), ..Said::default() };
        let talk = Talk {
            kept: Some(kept),
            line: line.clone(),
            first: Some(first),
            said,
            hasher: transport.hasher.clone(),
            begun: false,
        };
        Ok(Some(EventStream::of_socket(talk, self.options().idle_timeout)))
    }

    async fn open_socket(
        &self,
        transport: &Transport,
        caller: Caller<'_>,
        headers: HeaderMap,
    ) -> Result<(Kept, HeaderMap), Refused> {
        let mut headers = self.identify(caller, headers);
        for (name, _) in IN_METADATA {
            headers.remove(name);
        }
        let key = generate_key();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        headers.insert("sec-websocket-key", HeaderValue::try_from(&key).map_err(|_| Refused::Unreached)?);
        if !headers.get(&BETA).is_some_and(|beta| beta.as_bytes().starts_with(b"responses_websockets")) {
            headers.insert(BETA, BETA_VALUE);
        }
        let request = transport.http.get(self.at(caller, RESPONSES)).version(Version::HTTP_11).headers(headers);
        let response = tokio::time::timeout(self.options().first_byte_timeout, request.send())
            .await
            .map_err(|_| Refused::Unreached)?
            .map_err(|_| Refused::Unreached)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refused::Status(response.status()));
        }
        let accepted = response.headers().get("sec-websocket-accept").map(HeaderValue::as_bytes);
        if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(Refused::Unreached);
        }
        let answer = response.headers().clone();
        let upgraded = response.upgrade().await.map_err(|_| Refused::Unreached)?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        let (outgoing, to_send) = mpsc::channel(1);
        let (received, incoming) = mpsc::channel(READ_AHEAD);
        tokio::spawn(pump(socket, to_send, received));
        let caller = transport.name(caller);
        Ok((Kept { caller, opened: Instant::now(), outgoing, incoming, said: None }, answer))
    }
}

/// Moves frames until either side ends: also between requests, so that pings are answered.
async fn pump(
    mut socket: WebSocketStream<reqwest::Upgraded>,
    mut to_send: mpsc::Receiver<String>,
    received: mpsc::Sender<Utf8Bytes>,
) {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    loop {
        tokio::select! {
            text = to_send.recv() => {
                let Some(text) = text else {
                    let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(None)).await;
                    return;
                };
                if socket.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    if received.send(text).await.is_err() {
                        return;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => return,
            },
            _ = pings.tick() => {
                if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The part of an error frame that says whose it is.
#[derive(Deserialize)]
struct ErrorFrame<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, alias = "status_code")]
    status: Option<u16>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(default)]
    headers: Map<String, Value>,
}

impl<'a> ErrorFrame<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let frame: Self = text.contains("\"error\"").then(|| serde_json::from_str(text).ok())??;
        (frame.kind == "error").then_some(frame)
    }

    /// The failure that HTTP would have told with the same status, headers and body.
    fn failure(&self) -> Option<Failure> {
        let status = StatusCode::from_u16(self.status?).ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        let body = format!("{{\"error\":{}}}", self.error.map_or("null", RawValue::get));
        Some(Failure::of_response(status, &headers, body.as_bytes(), unix_now()))
    }
}

/// Errors that say that the connection is too old or has forgotten: another one serves.
fn is_of_the_connection(text: &str) -> bool {
    const CODES: [&str; 2] = ["previous_response_not_found", "websocket_connection_limit_reached"];
    #[derive(Deserialize)]
    struct Coded {
        #[serde(default)]
        code: Option<String>,
    }
    let Some(error) = ErrorFrame::read(text).and_then(|frame| frame.error) else { return false };
    let coded: Option<Coded> = serde_json::from_str(error.get()).ok();
    coded.and_then(|coded| coded.code).is_some_and(|code| CODES.contains(&code.as_str()))
}

/// One response on a connection. Dropped before its end, it takes the connection with it: that is how
/// the backend learns that nobody listens any more.
#[derive(Debug)]
pub(super) struct Talk {
    kept: Option<Kept>,
    /// Where the connection goes when the response is complete.
    line: Line,
    /// The event that has been read already.
    first: Option<Utf8Bytes>,
    /// What the backend has by the end of the response.
    said: Said,
    hasher: RandomState,
    /// Whether the response has begun: an error after that is an event of it.
    begun: bool,
}

impl Talk {
    /// The next event as a frame of an event stream; `None` at the end. Safe to cancel.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let text = match (self.first.take(), &mut self.kept) {
            (Some(first), _) => first,
            (None, None) => return Ok(None),
            (None, Some(kept)) => {
                let Some(text) = kept.incoming.recv().await else {
                    self.kept = None;
                    return Ok(None);
                };
                text
            }
        };
        if !self.begun
            && let Some(failure) = ErrorFrame::read(&text).and_then(|frame| frame.failure())
        {
            self.kept = None;
            return Err(failure);
        }
        self.note(&text);
        Ok(Some(frame(&text)))
    }

    fn note(&mut self, text: &str) {
        match Event::parse(text.as_bytes(), Depth::Control) {
            Ok(Event::Created(_)) => self.begun = true,
            Ok(Event::ItemDone(done)) if can_be_sent_back(done.raw.get()) => {
                self.said.items.push(self.hasher.hash_one(done.raw.get()));
            }
            Ok(Event::Completed(response) | Event::Incomplete(response)) => {
                let id = response.summary().and_then(|summary| summary.id.clone());
                if let (Some(mut kept), Some(response)) = (self.kept.take(), id) {
                    kept.said = Some(Said { response, ..std::mem::take(&mut self.said) });
                    self.line.put(kept);
                }
            }
            Ok(Event::Failed(_) | Event::Error(_)) => self.kept = None,
            _ => {}
        }
    }
}

/// A text frame as a server-sent event. A line break in JSON is white space between its tokens.
fn frame(text: &str) -> Bytes {
    let mut frame = BytesMut::with_capacity(text.len() + 8);
    frame.extend_from_slice(b"data: ");
    frame.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    frame.extend_from_slice(b"\n\n");
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_frame_is_the_failure_that_http_would_have_told() {
        let text = json!({
            "type": "error", "status": 429, "error": {"type": "usage_limit_reached", "message": "m"},
            "headers": {"x-codex-primary-used-percent": "100", "x-codex-primary-reset-at": 77},
        });
        let text = text.to_string();
        let failure = ErrorFrame::read(&text).and_then(|frame| frame.failure()).expect("a failure");
        assert_eq!((failure.kind, failure.resets_at), (FailureKind::UsageLimit, Some(77)));
        assert!(!is_of_the_connection(&text));
        let text = json!({"type": "error", "status": 400, "error": {"code": "previous_response_not_found"}});
        assert!(is_of_the_connection(&text.to_string()));
        assert!(ErrorFrame::read(r#"{"type":"response.created","response":{"error":null}}"#).is_none());
    }

    #[test]
    fn a_text_frame_with_line_breaks_is_one_event() {
        assert_eq!(frame("{\n\"a\": 1\r\n}"), Bytes::from_static(b"data: { \"a\": 1  }\n\n"));
    }
}
