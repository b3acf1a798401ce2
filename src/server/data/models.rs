//! Model lists, each in the shape its caller expects.

use super::request::{Arrival, dialect_of};
use super::{openapi, reply};
use crate::dialect::catalogue::{self, Model};
use crate::dialect::{Dialect, ModelMap, Problem, ProblemKind};
use crate::relay::Outcome;
use crate::server::state::State;
use crate::store::GatewayKey;
use crate::tenant::may_see;
use axum::body::Body;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Deserialize)]
pub(super) struct Asked {
    /// The Codex CLI says its version and wants the catalogue as the backend gives it.
    client_version: Option<String>,
}

/// `GET /v1/models`: OpenAI's list; Anthropic's for a caller that says `anthropic-version`; the
/// Codex catalogue for one that says `client_version`.
#[utoipa::path(
    get, path = "/v1/models", tag = "Models",
    params(("client_version" = Option<String>, Query, description = "The Codex CLI's version")),
    responses((status = 200, description = "The models", body = openapi::ModelList), openapi::EitherErrors)
)]
pub(super) async fn list(state: Shared<Arc<State>>, query: Query<Asked>, headers: HeaderMap) -> Response {
    if query.client_version.is_some() {
        return codex(state, query, headers).await;
    }
    let Shared(state) = state;
    let dialect = dialect_of("", &headers);
    let mut arrival = arrive(&state, "/v1/models", dialect, &headers);
    match known(&state, &mut arrival, &headers).await {
        Err(problem) => arrival.refuse(dialect, &problem),
        Ok((_, models)) if dialect == Dialect::Messages => answer(arrival, dialect, catalogue::anthropic_list(&models)),
        Ok((_, models)) => answer(arrival, dialect, catalogue::openai_list(&models)),
    }
}

/// `GET /v1/models/{id}`; an id may hold a slash (`openai-codex/gpt-5.5`).
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "Models", params(("id" = String, Path, description = "Its name")),
    responses((status = 200, description = "The model", body = openapi::Model), openapi::EitherErrors)
)]
pub(super) async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let dialect = dialect_of("", &headers);
    let mut arrival = arrive(&state, "/v1/models/{id}", dialect, &headers);
    let (key, models) = match known(&state, &mut arrival, &headers).await {
        Err(problem) => return arrival.refuse(dialect, &problem),
        Ok(known) => known,
    };
    let slug = models_of(&state, &key).resolve(&id).slug;
    let Some(model) = models.into_iter().find(|model| model.id == id || model.id == slug) else {
        let message = format!("The model '{id}' does not exist or this key may not use it");
        let param = Some("model".to_owned());
        let problem = Problem { param, ..Problem::new(ProblemKind::ModelNotFound, message) };
        return arrival.refuse(dialect, &problem);
    };
    let model = Model { id, listed: true, ..model };
    let body = match dialect {
        Dialect::Messages => catalogue::anthropic_model(&model),
        _ => catalogue::openai_model(&model),
    };
    answer(arrival, dialect, body)
}

/// `GET /backend-api/codex/models`: the catalogue as the backend gives it, with its entity tag.
#[utoipa::path(
    get, path = "/backend-api/codex/models", tag = "Codex CLI",
    params(("client_version" = Option<String>, Query, description = "The Codex CLI's version")),
    responses(
        (status = 200, description = "The backend's catalogue", body = openapi::Catalogue),
        (status = 304, description = "Nothing has changed since the given entity tag"),
        openapi::OpenAiErrors,
    )
)]
pub(super) async fn codex(
    Shared(state): Shared<Arc<State>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let dialect = Dialect::Responses;
    let mut arrival = arrive(&state, "/backend-api/codex/models", dialect, &headers);
    let listing = async {
        let key = arrival.authenticate(&state, &headers).await?;
        state.relay.catalogue(&key, asked.client_version.as_deref()).await
    };
    let listing = match listing.await {
        Ok(listing) => listing,
        Err(problem) => return arrival.refuse(dialect, &problem),
    };
    let unchanged = listing.etag.is_some() && headers.get(header::IF_NONE_MATCH) == listing.etag.as_ref();
    let mut ticket = arrival.ticket;
    let mut response = if unchanged {
        reply::json(StatusCode::NOT_MODIFIED, Body::empty())
    } else {
        reply::json(StatusCode::OK, Body::from(listing.body))
    };
    ticket.begin(response.status().as_u16());
    ticket.end(Outcome::Ok);
    if let Some(etag) = listing.etag {
        response.headers_mut().insert(header::ETAG, etag);
    }
    reply::identify(dialect, &ticket.request_id, response.headers_mut());
    response
}

fn arrive(state: &State, route: &'static str, dialect: Dialect, headers: &HeaderMap) -> Arrival {
    let mut arrival = Arrival::new(state, route, headers);
    arrival.ticket.dialect = dialect.as_str();
    arrival
}

/// What names mean for this key, as its accounts' catalogues are known by now.
fn models_of(state: &State, key: &GatewayKey) -> ModelMap {
    state.models.serving(state.relay.served(key))
}

async fn known(
    state: &State,
    arrival: &mut Arrival,
    headers: &HeaderMap,
) -> Result<(Arc<GatewayKey>, Vec<Model>), Problem> {
    let key = arrival.authenticate(state, headers).await?;
    let listing = state.relay.catalogue(&key, None).await?;
    let names = state.models.now();
    catalogue::models(&listing.body, &names)
        .map(|models| models.into_iter().filter(|model| may_see(&key, &names.resolve(&model.id).slug)).collect())
        .map(|models| (key, models))
        .map_err(|_| Problem::new(ProblemKind::Upstream, "The backend's model catalogue is not legible"))
}

fn answer(arrival: Arrival, dialect: Dialect, body: String) -> Response {
    let mut ticket = arrival.ticket;
    ticket.begin(200);
    ticket.end(Outcome::Ok);
    let mut response = reply::json(StatusCode::OK, Body::from(body));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=60"));
    reply::identify(dialect, &ticket.request_id, response.headers_mut());
    response
}
