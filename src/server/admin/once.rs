//! `Idempotency-Key`: a create that is sent again is made once, and answered as it was.
//!
//! The key's slip is laid down in the transaction of the change itself, so that not even a crash
//! between the change and its answer lets it be made twice. Answers may hold a new key, so they are
//! sealed as everything on slips is.

use super::caller::Caller;
use super::problem::Fault;
use super::{Admin, gate};
use crate::server::assemble::unix_millis;
use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, to_bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

const KEY: &str = "idempotency-key";
/// How long an answer is kept.
const LIFE: Duration = Duration::from_hours(24);
/// The largest body that is looked at.
pub(super) const MOST: usize = 1 << 20;

/// An answer that was given.
#[derive(Serialize, Deserialize)]
struct Given {
    /// Of the request that it answered.
    request: String,
    status: u16,
    etag: Option<String>,
    body: String,
}

fn hash(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

/// Answers a repeated create as the first one was.
pub(super) async fn repeat(Shared(admin): Shared<Arc<Admin>>, request: Request<Body>, next: Next) -> Response {
    let Some(key) = request.headers().get(KEY).cloned().filter(|_| request.method() == Method::POST) else {
        return next.run(request).await;
    };
    match once(&admin, request, key, next).await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    }
}

async fn once(admin: &Admin, request: Request<Body>, key: HeaderValue, next: Next) -> Result<Response, Fault> {
    if key.is_empty() || key.len() > 255 {
        return Err(Fault::new("invalid_request", "Idempotency-Key: give 1 to 255 characters"));
    }
    let (mut head, body) = request.into_parts();
    let body = to_bytes(body, MOST).await.map_err(|_| Fault::new("too_large", "a body is at most 1 MiB long"))?;
    let Some(caller) = head.extensions.get_mut::<Caller>() else {
        return Err(Fault::new("unauthenticated", "send an admin key"));
    };
    let slip = format!("once:{}", hash(&[caller.id.as_bytes(), key.as_bytes()]));
    let fingerprint = hash(&[head.uri.path().as_bytes(), &body]);
    if let Some(note) = admin.store.slips().get(&slip, unix_millis()).await? {
        return replay(&note, &fingerprint);
    }
    caller.once = Some(slip.clone());
    let response = next.run(Request::from_parts(head, Body::from(body))).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    keep(admin, &slip, fingerprint, response).await
}

fn replay(note: &[u8], fingerprint: &str) -> Result<Response, Fault> {
    let unknown =
        "this Idempotency-Key has made its change before, and the answer is not known (yet): look at what it made";
    let given: Given = serde_json::from_slice(note).map_err(|_| Fault::new("conflict", unknown))?;
    if given.request != fingerprint {
        return Err(Fault::value("this Idempotency-Key was used for another request"));
    }
    let status = StatusCode::from_u16(given.status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], given.body).into_response();
    if let Some(tag) = given.etag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    Ok(response)
}

async fn keep(admin: &Admin, slip: &str, request: String, response: Response) -> Result<Response, Fault> {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, MOST).await.map_err(|_| Fault::new("internal", "the answer could not be kept"))?;
    let etag = head.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    let given =
        Given { request, status: head.status.as_u16(), etag, body: String::from_utf8_lossy(&body).into_owned() };
    let note = serde_json::to_vec(&given).map_err(|_| Fault::new("internal", "the answer could not be kept"))?;
    // The change is made; that its answer could not be kept is told to whoever repeats it.
    if let Err(error) = admin.store.slips().put(slip, &note, gate::end_of(LIFE)).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the answer to a create could not be kept");
    }
    Ok(Response::from_parts(head, Body::from(body)))
}
