//! The HTTP client for the backend: the same connections for all accounts (lessons.md 14).

use super::failure::{Failure, FailureKind};
use super::lanes::Lanes;
use super::route::Route;
use super::socket::Transport;
use super::stream::EventStream;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;
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
    lanes: Arc<Lanes>,
    options: Options,
    /// Where nearly all requests go.
    responses: Url,
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

/// The path of the calls that generate.
pub(super) const RESPONSES: &str = "codex/responses";

const ROUTING: HeaderName = HeaderName::from_static("x-openai-account-routing-override");

/// An error body is read up to here; the rest says nothing more.
const ERROR_BODY_LIMIT: usize = 64 * 1024;
/// Ten large pictures in base64.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

impl Client {
    /// A client over these connections. They must not decompress: a stream passes as it is.
    pub fn new(lanes: Arc<Lanes>, options: Options) -> Self {
        let responses = below(&options.base_url, &options.base_url, RESPONSES);
        Self { lanes, options, responses, sockets: None }
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
        match caller.route.and_then(|route| route.origin.as_ref()) {
            None if path == RESPONSES => self.responses.clone(),
            origin => below(origin.unwrap_or(&self.options.base_url), &self.options.base_url, path),
        }
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
        let place = self.lanes.place().await;
        let mut request = reqwest::Request::new(http::Method::POST, self.at(caller, RESPONSES));
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        let mut response = tokio::time::timeout(self.options.first_byte_timeout, place.http.execute(request))
            .await
            .map_err(|_| Failure::of(FailureKind::Timeout, "the backend did not answer in time"))?
            .map_err(|error| of_transport(&error))?;
        if response.status() == StatusCode::OK {
            let headers = std::mem::take(response.headers_mut());
            let stream = EventStream::of_body(response, place, self.options.idle_timeout);
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
        let place = self.lanes.place().await;
        let request = place.http.get(url).headers(headers).timeout(self.options.first_byte_timeout).send();
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
        let place = self.lanes.place().await;
        let request = place.http.request(method, self.at(caller, path)).headers(headers).timeout(within);
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

/// A path below the base address, at this origin.
fn below(origin: &Url, base: &Url, path: &str) -> Url {
    let mut url = origin.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
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

/// A transport error in words without addresses or headers; the source chain has the cause.
pub(super) fn of_transport(error: &reqwest::Error) -> Failure {
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
