//! Message batches.

use super::local::answer;
use super::request::{self, Arrival};
use super::{openapi, reply};
use crate::batch::Page;
use crate::dialect::Dialect;
use crate::relay::Outcome;
use crate::server::state::State;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Request, header};
use axum::response::Response;
use axum::routing::{get, post};
use std::sync::Arc;
use tracing::Instrument;

/// The routes of batches.
pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route(ALL, post(create).get(list))
        .route(ONE, get(retrieve).delete(delete))
        .route(CANCEL, post(cancel))
        .route(RESULTS, get(results))
}

const ALL: &str = "/v1/messages/batches";
const ONE: &str = "/v1/messages/batches/{id}";
const CANCEL: &str = "/v1/messages/batches/{id}/cancel";
const RESULTS: &str = "/v1/messages/batches/{id}/results";

/// Hands in a batch
///
/// Its requests are answered when there is room, behind everybody who waits for an answer.
#[utoipa::path(
    post, path = "/v1/messages/batches", tag = "Anthropic Message Batches", request_body = openapi::NewBatch,
    responses((status = 200, description = "The batch", body = openapi::MessageBatch), openapi::AnthropicErrors)
)]
pub(super) async fn create(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    answer(&state, Dialect::Messages, ALL, &head.headers, async |key| {
        let body = request::read(&state, body).await?;
        state.batches.create(key, &body, &origin(&head.headers)).await
    })
    .await
}

/// The batches of this key
#[utoipa::path(
    get, path = "/v1/messages/batches", tag = "Anthropic Message Batches",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000),
        ("after_id" = Option<String>, Query, description = "The batch that the page follows, to older ones"),
        ("before_id" = Option<String>, Query, description = "The batch that the page ends at"),
    ),
    responses((status = 200, description = "A page of them, newest first", body = openapi::BatchList), openapi::AnthropicErrors)
)]
pub(super) async fn list(Shared(state): Shared<Arc<State>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let page = Page::of(url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()));
    answer(&state, Dialect::Messages, ALL, &headers, async |key| {
        state.batches.list(key, &page?, &origin(&headers)).await
    })
    .await
}

/// A batch as it stands
#[utoipa::path(
    get, path = "/v1/messages/batches/{id}", tag = "Anthropic Message Batches", params(("id" = String, Path)),
    responses((status = 200, description = "The batch", body = openapi::MessageBatch), openapi::AnthropicErrors)
)]
pub(super) async fn retrieve(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    answer(&state, Dialect::Messages, ONE, &headers, async |key| state.batches.get(key, &id, &origin(&headers)).await)
        .await
}

/// Gives up what has not begun of a batch
#[utoipa::path(
    post, path = "/v1/messages/batches/{id}/cancel", tag = "Anthropic Message Batches", params(("id" = String, Path)),
    responses((status = 200, description = "The batch", body = openapi::MessageBatch), openapi::AnthropicErrors)
)]
pub(super) async fn cancel(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, Dialect::Messages, CANCEL, &headers, async |key| {
        state.batches.cancel(key, &id, &origin(&headers)).await
    })
    .await
}

/// Deletes a batch that has ended, with its results
#[utoipa::path(
    delete, path = "/v1/messages/batches/{id}", tag = "Anthropic Message Batches", params(("id" = String, Path)),
    responses((status = 200, description = "It is gone", body = openapi::DeletedBatch), openapi::AnthropicErrors)
)]
pub(super) async fn delete(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(&state, Dialect::Messages, ONE, &headers, async |key| state.batches.delete(key, &id).await).await
}

/// The results of a batch that has ended, one a line
#[utoipa::path(
    get, path = "/v1/messages/batches/{id}/results", tag = "Anthropic Message Batches", params(("id" = String, Path)),
    responses(
        (status = 200, description = "In the order of the requests", body = String, content_type = "application/x-jsonl"),
        openapi::AnthropicErrors,
    )
)]
pub(super) async fn results(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let mut arrival = Arrival::new(&state, RESULTS, &headers);
    arrival.ticket.dialect = Dialect::Messages.as_str();
    let span = arrival.ticket.span.clone();
    let found = async {
        let key = arrival.authenticate(&state, &headers).await?;
        state.batches.expect_results(key.id, &id).await?;
        Ok(key.id)
    };
    let key = match found.instrument(span).await {
        Ok(key) => key,
        Err(problem) => return arrival.refuse(Dialect::Messages, &problem),
    };
    let mut ticket = arrival.ticket;
    let request_id = ticket.request_id.clone();
    ticket.begin(200);
    let pages = futures_util::stream::unfold((state, id, ticket, 0), move |(state, id, mut ticket, from)| async move {
        match state.batches.results(key, &id, from).await {
            Ok(Some((lines, next))) => Some((Ok(lines), (state, id, ticket, next))),
            Ok(None) => {
                ticket.end(Outcome::Ok);
                None
            }
            Err(error) => {
                tracing::error!(%error, batch = id, "results could not be read");
                ticket.end(Outcome::Cut);
                // The client sees that its download was cut, and not that it was complete.
                Some((Err(std::io::Error::other("results could not be read")), (state, id, ticket, u64::MAX)))
            }
        }
    });
    let mut response = Response::new(Body::from_stream(pages));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-jsonl"));
    reply::identify(Dialect::Messages, &request_id, response.headers_mut());
    response
}

/// Where the client reached the gateway: SDKs fetch results from the address they are told. Without
/// a host it is left to them, who resolve a path against their own base address.
fn origin(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A chain of proxies writes a list; the first is what the client used.
    let first = |value: &str| value.split(',').next().unwrap_or_default().trim().to_owned();
    let host = text("x-forwarded-host").map(first).or_else(|| text("host").map(str::to_owned));
    let Some(host) = host.filter(|host| !host.is_empty()) else { return String::new() };
    let scheme = text("x-forwarded-proto").map(first).filter(|scheme| scheme == "https");
    format!("{}://{host}", scheme.as_deref().unwrap_or("http"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_where_the_client_reached_the_gateway() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            origin(&headers.collect())
        };
        assert_eq!(of(&[("host", "127.0.0.1:8787")]), "http://127.0.0.1:8787");
        let proxied =
            [("host", "inside:80"), ("x-forwarded-host", "a.example, b"), ("x-forwarded-proto", "https, http")];
        assert_eq!(of(&proxied), "https://a.example");
        assert_eq!(of(&[("host", "a.example"), ("x-forwarded-proto", "javascript")]), "http://a.example");
        assert_eq!(of(&[]), "");
    }
}
