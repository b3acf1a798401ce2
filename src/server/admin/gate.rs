//! Lets callers in: by an admin key, or by the session of somebody who signed in. Counts failures, so
//! that guessing is slow and costs the database nothing.

use super::Admin;
use super::caller::Caller;
use super::problem::Fault;
use super::sign_in::SignIn;
use crate::server::assemble::unix_millis;
use crate::server::origin;
use crate::store::{Role, TeamId, UnixMillis};
use crate::tenant::KeySecret;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use uuid::Uuid;

/// The cookie of a session, and the same over TLS: a browser takes the latter from this very host only.
pub(super) const SESSION: &str = "tollway_session";
pub(super) const HOST_SESSION: &str = "__Host-tollway_session";
/// How a page proves that a change comes from it.
pub(super) const CSRF: &str = "x-csrf-token";
/// Failures from one address within [`WINDOW`] seconds, after which it has to wait.
const FAILURES: u32 = 10;
const WINDOW: u64 = 60;
/// Addresses that are remembered at most.
const REMEMBERED: usize = 10_000;

/// A session as its slip says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Session {
    /// `person:SUBJECT`.
    pub(super) id: String,
    /// What people call them.
    pub(super) name: String,
    /// What they may do.
    pub(super) role: Role,
    /// The only team whose objects they see.
    pub(super) team: Option<TeamId>,
    /// What a page must send with changes.
    pub(super) csrf: String,
    /// When it ends.
    pub(super) expires_at: UnixMillis,
}

/// The slip of a session; its id says nothing about the cookie.
pub(super) fn slip_of(token: &str) -> String {
    format!("session:{}", URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())))
}

/// Counts by address: failures, or what else there must not be too much of.
#[derive(Debug)]
pub(super) struct Guard {
    most: u32,
    seen: Mutex<HashMap<Option<IpAddr>, (Instant, u32)>>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new(FAILURES)
    }
}

impl Guard {
    /// One that lets so many pass within [`WINDOW`] seconds.
    pub(super) fn new(most: u32) -> Self {
        Self { most, seen: Mutex::default() }
    }

    /// How many seconds an address has to wait.
    pub(super) fn shut(&self, from: Option<IpAddr>) -> Option<u64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = seen.get(&from)?;
        let left = WINDOW.saturating_sub(since.elapsed().as_secs());
        (*count >= self.most && left > 0).then_some(left)
    }

    /// One more.
    pub(super) fn count(&self, from: Option<IpAddr>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED {
            seen.retain(|_, (since, _)| since.elapsed().as_secs() < WINDOW);
            if seen.len() >= REMEMBERED {
                seen.clear();
            }
        }
        let entry = seen.entry(from).or_insert_with(|| (Instant::now(), 0));
        if entry.0.elapsed().as_secs() >= WINDOW {
            *entry = (Instant::now(), 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

/// The answer to an address that has failed too often.
pub(super) fn wait(seconds: u64) -> Fault {
    let detail = format!("too many attempts from this address; try again in {seconds} s");
    let mut fault = Fault::new("too_many_attempts", detail);
    fault.retry_after = Some(seconds);
    fault
}

/// A request as the log tells of it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    began: Instant,
    method: Method,
    path: String,
    /// The request's id.
    pub(super) request_id: String,
    /// Where it comes from.
    pub(super) source: Option<IpAddr>,
}

/// Whose request it turned out to be, in an answer's extensions.
#[derive(Debug, Clone)]
pub(super) struct Whose(pub(super) String);

impl Asked {
    fn of(request: &Request<Body>) -> Self {
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            request_id: format!("req_{}", Uuid::now_v7().simple()),
            source: origin::of(request.headers()),
        }
    }

    /// Logs what was answered to whom.
    fn answered(self, actor: &str, mut response: Response) -> Response {
        let Self { began, method, path, request_id, source } = self;
        let status = response.status().as_u16();
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let source = source.map(|address| address.to_string());
        tracing::info!(%method, path, status, actor, source, request_id, duration_ms, "admin request");
        if let Ok(id) = HeaderValue::try_from(&request_id) {
            response.headers_mut().insert("x-request-id", id);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Lets everybody in, and logs what they did: for signing in, which nobody known does.
pub(super) async fn watch(mut request: Request<Body>, next: Next) -> Response {
    let asked = Asked::of(&request);
    request.extensions_mut().insert(asked.clone());
    let mut response = next.run(request).await;
    let actor = response.extensions_mut().remove::<Whose>();
    asked.answered(actor.as_ref().map_or("", |whose| &whose.0), response)
}

/// Lets in whoever is known, and logs what they did.
pub(super) async fn admit(Shared(admin): Shared<Arc<Admin>>, mut request: Request<Body>, next: Next) -> Response {
    let asked = Asked::of(&request);
    let identified = identify(&admin, request.headers(), &asked.method, asked.source, &asked.request_id).await;
    let (actor, response) = match identified {
        Ok(caller) => {
            let actor = caller.id.clone();
            request.extensions_mut().insert(caller);
            (actor, next.run(request).await)
        }
        Err(fault) => (String::new(), fault.into_response()),
    };
    asked.answered(&actor, response)
}

async fn identify(
    admin: &Admin,
    headers: &HeaderMap,
    method: &Method,
    source: Option<IpAddr>,
    request_id: &str,
) -> Result<Caller, Fault> {
    let caller = |id: String, name: String, role, team, session: Option<(String, UnixMillis)>| Caller {
        id,
        name,
        role,
        team,
        source,
        request_id: request_id.to_owned(),
        once: None,
        expires_at: session.as_ref().map(|(_, expires_at)| *expires_at),
        csrf: session.map(|(csrf, _)| csrf),
    };
    let bearer = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let Some(bearer) = bearer else {
        let session = session_of(admin, headers, source).await?;
        let session = session.ok_or_else(|| {
            Fault::new("unauthenticated", "send an admin key as `Authorization: Bearer …`, or sign in")
        })?;
        if !method.is_safe() {
            let sent = headers.get(CSRF).map_or(&b""[..], HeaderValue::as_bytes);
            check_csrf(sent, &session)?;
        }
        let of_session = Some((session.csrf, session.expires_at));
        return Ok(caller(session.id, session.name, session.role, session.team, of_session));
    };
    let presented = bearer.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let presented: SecretString = presented.map_or("", |(_, key)| key.trim()).into();
    if is_bootstrap(admin, &presented) {
        return Ok(caller("bootstrap".into(), "bootstrap key".into(), Role::Owner, None, None));
    }
    if let Some(seconds) = admin.guard.shut(source) {
        return Err(wait(seconds));
    }
    let refused = |detail: &str| {
        admin.guard.count(source);
        Fault::new("unauthenticated", detail)
    };
    let secret = KeySecret::parse_admin(presented.expose_secret())
        .map_err(|_| refused("this is no admin key; those begin with `twa-`"))?;
    let hash = secret.hash(admin.store.pepper().await?.expose_secret());
    let key = admin.store.admin_keys().by_hash(&hash).await?.ok_or_else(|| refused("the admin key is not known"))?;
    if key.revoked_at.is_some() {
        return Err(refused("the admin key has been revoked"));
    }
    if key.expires_at.is_some_and(|at| at <= unix_millis()) {
        return Err(refused("the admin key has expired"));
    }
    Ok(caller(format!("admin_key:{}", key.id), key.name, key.role, key.team, None))
}

/// Both are hashed, so that neither the length nor the place of a difference shows in the time.
fn is_bootstrap(admin: &Admin, presented: &SecretString) -> bool {
    let hash = |text: &SecretString| digest(&SHA256, text.expose_secret().as_bytes());
    let known = admin.bootstrap.as_ref();
    known.is_some_and(|known| verify_slices_are_equal(hash(known).as_ref(), hash(presented).as_ref()).is_ok())
}

/// The session of a cookie; there is none where nobody can sign in (any more).
pub(super) async fn session_of(
    admin: &Admin,
    headers: &HeaderMap,
    source: Option<IpAddr>,
) -> Result<Option<Session>, Fault> {
    let name = admin.sign_in.as_ref().map(SignIn::session_cookie);
    let Some(token) = name.and_then(|name| cookie(headers, name)) else { return Ok(None) };
    if let Some(seconds) = admin.guard.shut(source) {
        return Err(wait(seconds));
    }
    let note = admin.store.slips().get(&slip_of(token), unix_millis()).await?;
    let session = note.and_then(|note| serde_json::from_slice(&note).ok());
    if session.is_none() {
        admin.guard.count(source);
    }
    Ok(session)
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// A cookie goes along with whatever makes the browser send a request; a header does not.
pub(super) fn check_csrf(sent: &[u8], session: &Session) -> Result<(), Fault> {
    let refused =
        |_| Fault::new("forbidden", "a change by a session needs its `csrf_token` in the header X-CSRF-Token");
    verify_slices_are_equal(sent, session.csrf.as_bytes()).map_err(refused)
}

/// When something that begins now and lives so long ends.
pub(super) fn end_of(life: std::time::Duration) -> UnixMillis {
    unix_millis().saturating_add(i64::try_from(life.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_and_others_do_not() {
        let guard = Guard::default();
        let (bad, good) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        for _ in 0..FAILURES {
            assert_eq!(guard.shut(bad), None);
            guard.count(bad);
        }
        assert!(guard.shut(bad).is_some_and(|seconds| seconds <= WINDOW));
        assert_eq!(guard.shut(good), None);
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("a=1; tollway_session=xyz; b=2"));
        assert_eq!(cookie(&headers, SESSION), Some("xyz"));
        assert_eq!(cookie(&headers, "session"), None);
    }
}
