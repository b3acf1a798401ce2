//! OpenAI Images.

use super::backend::passed_on;
use super::openapi;
use super::reply;
use super::request::{Arrival, refuse};
use crate::dialect::images::form::Form;
use crate::dialect::images::{self, Asked, Pictures, Task};
use crate::dialect::{Context, Dialect, Prepared, Problem, ProblemKind};
use crate::relay::{Call, Passing, Refused, is_codex_cli};
use crate::server::assemble::unix_millis;
use crate::server::state::State;
use crate::store::GatewayKey;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Request, header};
use axum::response::Response;
use bytes::Bytes;
use std::sync::Arc;
use tracing::Instrument;

const DIALECT: Dialect = Dialect::Responses;

/// Make pictures
#[utoipa::path(
    post, path = "/v1/images/generations", tag = "OpenAI Images", request_body = serde_json::Value,
    responses(
        (status = 200, description = "The pictures, in base64; events if `stream` is true", content(
            (serde_json::Value = "application/json"), (openapi::ServerSentEvent = "text/event-stream"),
        )),
        openapi::OpenAiErrors,
    )
)]
pub(super) async fn generations(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    serve(&state, Task::Generate, request).await
}

/// Make pictures of pictures
#[utoipa::path(
    post, path = "/v1/images/edits", tag = "OpenAI Images", request_body(content(
        (serde_json::Value = "application/json"), (serde_json::Value = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "The pictures, in base64; events if `stream` is true", content(
            (serde_json::Value = "application/json"), (openapi::ServerSentEvent = "text/event-stream"),
        )),
        openapi::OpenAiErrors,
    )
)]
pub(super) async fn edits(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    serve(&state, Task::Edit, request).await
}

async fn serve(state: &Arc<State>, task: Task, request: Request<Body>) -> Response {
    let (route, path) = match task {
        Task::Generate => ("/v1/images/generations", "codex/images/generations"),
        Task::Edit => ("/v1/images/edits", "codex/images/edits"),
    };
    let (head, body) = request.into_parts();
    let mut arrival = Arrival::new(state, route, &head.headers);
    arrival.ticket.dialect = "images";
    let span = arrival.ticket.span.clone();
    let work = async {
        let (key, asked) = match admit(state, task, &head.headers, body, &mut arrival).await {
            Ok(admitted) => admitted,
            Err(problem) => return arrival.refuse(DIALECT, &problem),
        };
        match asked {
            Asked::Call(Pictures { body, ignored }) => {
                let passing = Passing { path, headers: json_headers(&head.headers), body, key };
                pass(state, &passing, &ignored, arrival).await
            }
            Asked::Tool(prepared) => respond(state, head.headers, key, *prepared, arrival).await,
        }
    };
    work.instrument(span).await
}

/// By the backend's call.
async fn pass(state: &State, passing: &Passing, ignored: &[&'static str], arrival: Arrival) -> Response {
    match state.relay.forward_or_refuse(passing, arrival.ticket).await {
        Ok((passed, ticket)) => {
            let mut response = passed_on(passed, &ticket);
            reply::name_ignored(ignored, response.headers_mut());
            response
        }
        Err(refused) => {
            let Refused(problem, ticket) = *refused;
            refuse(DIALECT, &problem, ticket)
        }
    }
}

/// By a response in which a model uses the tool.
async fn respond(
    state: &Arc<State>,
    headers: HeaderMap,
    key: Arc<GatewayKey>,
    prepared: Prepared,
    arrival: Arrival,
) -> Response {
    let request_id = arrival.ticket.request_id.clone();
    let ignored = prepared.ignored.clone();
    let call = Call { dialect: DIALECT, codex_cli: false, headers, key, prepared };
    match state.relay.serve(call, arrival.ticket).await {
        Ok(answer) => reply::success(DIALECT, &request_id, &ignored, answer),
        Err(refused) => {
            let Refused(problem, ticket) = *refused;
            refuse(DIALECT, &problem, ticket)
        }
    }
}

/// Authenticates, reads and translates. A Codex CLI's request goes as it came.
async fn admit(
    state: &State,
    task: Task,
    headers: &HeaderMap,
    body: Body,
    arrival: &mut Arrival,
) -> Result<(Arc<GatewayKey>, Asked), Problem> {
    let key = arrival.authenticate(state, headers).await?;
    let body = arrival.read(state, body).await?;
    if is_codex_cli(headers) {
        return Ok((key, Asked::Call(Pictures { body, ignored: Vec::new() })));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let body = match task {
        Task::Edit if kind.starts_with("multipart/") => read_form(headers, body).await?,
        _ => body,
    };
    let context = Context { request_id: arrival.ticket.request_id.clone(), now: unix_millis() / 1000 };
    let host = state.models.serving(state.relay.served(&key)).host(&state.image_model);
    Ok((key, images::prepare(&body, task, &context, &host)?))
}

/// The JSON that says what a form says. The body is there already, within the limit.
async fn read_form(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Problem> {
    let illegible =
        |why: String| Problem::new(ProblemKind::InvalidRequest, format!("The form could not be read: {why}"));
    let mut request = Request::new(Body::from(body));
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        request.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    DefaultBodyLimit::disable().apply(&mut request);
    let mut parts = Multipart::from_request(request, &()).await.map_err(|error| illegible(error.body_text()))?;
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(|error| illegible(error.body_text()))? {
        let name = part.name().unwrap_or_default().to_owned();
        let content = part.bytes().await.map_err(|error| illegible(error.body_text()))?;
        form.part(&name, &content)?;
    }
    form.into_json().map(Bytes::from)
}

/// Only a Codex CLI's own headers travel up.
fn json_headers(client: &HeaderMap) -> HeaderMap {
    let mut headers = if is_codex_cli(client) { client.clone() } else { HeaderMap::new() };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}
