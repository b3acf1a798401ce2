//! OpenAI Images.

use super::backend::passed_on;
use super::openapi;
use super::reply;
use super::request::{self, Arrival, refuse};
use crate::dialect::{Dialect, Problem, ProblemKind, images};
use crate::relay::{Passing, Refused, is_codex_cli};
use crate::server::state::State;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, Request, header};
use axum::response::Response;
use bytes::Bytes;
use std::sync::Arc;
use tracing::Instrument;

const DIALECT: Dialect = Dialect::Responses;

/// Make pictures
#[utoipa::path(
    post, path = "/v1/images/generations", tag = "OpenAI Images", request_body = serde_json::Value,
    responses((status = 200, description = "The pictures, in base64", body = serde_json::Value), openapi::OpenAiErrors)
)]
pub(super) async fn generations(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    serve(&state, "/v1/images/generations", "codex/images/generations", request).await
}

/// Make pictures of pictures
#[utoipa::path(
    post, path = "/v1/images/edits", tag = "OpenAI Images", request_body = serde_json::Value,
    responses((status = 200, description = "The pictures, in base64", body = serde_json::Value), openapi::OpenAiErrors)
)]
pub(super) async fn edits(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    serve(&state, "/v1/images/edits", "codex/images/edits", request).await
}

async fn serve(state: &Arc<State>, route: &'static str, path: &'static str, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let mut arrival = Arrival::new(state, route, &head.headers);
    arrival.ticket.dialect = "images";
    let span = arrival.ticket.span.clone();
    let work = async {
        let admitted = async {
            let key = arrival.authenticate(state, &head.headers).await?;
            let (body, ignored) = prepare(&head.headers, request::read(state, body).await?, path)?;
            Ok((Passing { path, headers: json_headers(&head.headers), body, key }, ignored))
        };
        let (passing, ignored) = match admitted.await {
            Ok(admitted) => admitted,
            Err(problem) => return arrival.refuse(DIALECT, &problem),
        };
        match state.relay.forward_or_refuse(&passing, arrival.ticket).await {
            Ok((passed, ticket)) => {
                let mut response = passed_on(passed, &ticket);
                reply::name_ignored(&ignored, response.headers_mut());
                response
            }
            Err(refused) => {
                let Refused(problem, ticket) = *refused;
                refuse(DIALECT, &problem, ticket)
            }
        }
    };
    work.instrument(span).await
}

/// A Codex CLI's request goes as it came.
fn prepare(headers: &HeaderMap, body: Bytes, path: &str) -> Result<(Bytes, Vec<&'static str>), Problem> {
    if is_codex_cli(headers) {
        return Ok((body, Vec::new()));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("multipart/") {
        let message = "Forms are not taken: send JSON with the pictures in `images`, as `{\"image_url\": \"data:…\"}`";
        return Err(Problem::new(ProblemKind::InvalidRequest, message));
    }
    let pictures = images::prepare(&body, path.ends_with("edits"))?;
    Ok((pictures.body, pictures.ignored))
}

/// Only a Codex CLI's own headers travel up.
fn json_headers(client: &HeaderMap) -> HeaderMap {
    let mut headers = if is_codex_cli(client) { client.clone() } else { HeaderMap::new() };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}
