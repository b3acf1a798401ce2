//! Takes requests in: reads the body, notes what came, and follows each call to its answer.
//!
//! Knows nothing of what requests mean beyond whose token they carry.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::grants::Shut;
use crate::mishap::{self, HangUp};
use crate::state::{Sim, now};
use crate::traffic::Captured;

/// Largest body after decompression, in bytes.
const LARGEST: usize = 64 << 20;

/// The `content-encoding` a body came in with, before it was decoded.
#[derive(Debug, Clone)]
pub(crate) struct WireEncoding(pub(crate) String);

/// Carries the account from the handler back to the counters around it.
#[derive(Debug, Clone, Default)]
struct Trail(Arc<OnceLock<String>>);

/// A request, read to its end and captured.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// The body as JSON; form fields are an object of strings; null when it is neither.
    pub(crate) body: Arc<Value>,
    trail: Trail,
}

impl FromRequest<Arc<Sim>> for Intake {
    type Rejection = Response;

    async fn from_request(request: Request, sim: &Arc<Sim>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let bytes = match Limited::new(body, LARGEST).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(mishap::detail(413, "Request body too large"));
            }
            Err(_) => return Err(mishap::detail(400, "Could not read the request body")),
        };
        let body = Arc::new(parse(&parts.headers, &bytes));
        let trail = parts.extensions.get::<Trail>().cloned().unwrap_or_default();
        let account = bearer(&parts.headers).and_then(|token| match sim.world().grants.open(token, now()) {
            Ok(account) | Err((_, Some(account))) => Some(account.to_owned()),
            Err((_, None)) => None,
        });
        let encoding = parts.extensions.get::<WireEncoding>();
        sim.traffic.capture(Captured {
            number: 0,
            at_ms: OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000,
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            headers: plain_headers(&parts.headers, account.as_deref(), encoding),
            account,
            body_bytes: bytes.len(),
            body: Arc::clone(&body),
        });
        Ok(Self { uri: parts.uri, headers: parts.headers, body, trail })
    }
}

fn parse(headers: &HeaderMap, bytes: &Bytes) -> Value {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        let fields: Map<String, Value> = url::form_urlencoded::parse(bytes)
            .map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())))
            .collect();
        return Value::Object(fields);
    }
    serde_json::from_slice(bytes).unwrap_or(Value::Null)
}

fn plain_headers(
    headers: &HeaderMap,
    account: Option<&str>,
    encoding: Option<&WireEncoding>,
) -> BTreeMap<String, String> {
    let mut plain: BTreeMap<String, String> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    if let Some(authorization) = plain.get_mut("authorization") {
        *authorization = account.map_or("unknown".to_owned(), |account| format!("account {account}"));
    }
    if let Some(WireEncoding(encoding)) = encoding {
        plain.insert("content-encoding".to_owned(), encoding.clone());
    }
    plain
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

impl Intake {
    /// Notes a frame that came on the WebSocket that this request opened, as a request of its own.
    pub(crate) fn capture_frame(&self, sim: &Sim, frame: &Value, bytes: usize) {
        let account = bearer(&self.headers).and_then(|token| match sim.world().grants.open(token, now()) {
            Ok(account) | Err((_, Some(account))) => Some(account.to_owned()),
            Err((_, None)) => None,
        });
        sim.traffic.capture(Captured {
            number: 0,
            at_ms: OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000,
            method: "WS".to_owned(),
            path: self.uri.to_string(),
            headers: plain_headers(&self.headers, account.as_deref(), None),
            account,
            body_bytes: bytes,
            body: Arc::new(frame.clone()),
        });
    }

    /// A text field of the body.
    pub(crate) fn field(&self, key: &str) -> &str {
        self.body.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Books this call on an account.
    pub(crate) fn belongs_to(&self, account: &str) {
        // A second call finds it set to the same account.
        let _ = self.trail.0.set(account.to_owned());
    }

    /// The account the bearer token opens, if `chatgpt-account-id` agrees.
    pub(crate) fn authenticate(&self, sim: &Sim) -> Result<String, Denied> {
        let token = bearer(&self.headers).ok_or(Denied::NoToken)?;
        let world = sim.world();
        let id = match world.grants.open(token, now()) {
            Ok(id) => id,
            Err((why, owner)) => {
                if let Some(owner) = owner {
                    self.belongs_to(owner);
                }
                return Err(Denied::Shut(why));
            }
        };
        self.belongs_to(id);
        let account = world.accounts.get(id).ok_or(Denied::NoToken)?;
        if account.deactivated {
            return Err(Denied::Deactivated);
        }
        match self.header("chatgpt-account-id") {
            None => Err(Denied::NoAccount),
            Some(given) if given != account.chatgpt_account_id => Err(Denied::OtherAccount),
            Some(_) => Ok(id.to_owned()),
        }
    }
}

/// Why a call of the backend is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    NoToken,
    Shut(Shut),
    Deactivated,
    NoAccount,
    OtherAccount,
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Self::NoToken => mishap::detail(401, "Unauthorized"),
            Self::Shut(why) => mishap::shut(why),
            Self::Deactivated => mishap::unauthorized("account_deactivated"),
            Self::NoAccount => mishap::detail(401, "Missing chatgpt-account-id header"),
            Self::OtherAccount => mishap::detail(403, "The chatgpt-account-id header does not match the token"),
        }
    }
}

/// Counts a call's answer, or that its client left before there was one.
pub(crate) async fn follow(
    State(sim): State<Arc<Sim>>,
    method: Method,
    uri: Uri,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let trail = Trail::default();
    request.extensions_mut().insert(trail.clone());
    let mut pending = Pending { sim: &sim, answered: false };
    let response = next.run(request).await;
    pending.answered = true;
    // A hang-up has no status: nothing goes out.
    let hung_up = response.extensions().get::<HangUp>().is_some();
    let status = if hung_up { 0 } else { response.status().as_u16() };
    sim.traffic.answered(&format!("{method} {}", uri.path()), status);
    if let Some(id) = trail.0.get()
        && let Some(account) = sim.world().accounts.get_mut(id)
    {
        *account.counters.statuses.entry(status).or_default() += 1;
    }
    response
}

struct Pending<'a> {
    sim: &'a Sim,
    answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.sim.traffic.cancelled_early.fetch_add(1, Ordering::Relaxed);
        }
    }
}
