//! What is answered here, without the backend.

use super::reply;
use super::request::Arrival;
use crate::dialect::{Dialect, Problem};
use crate::relay::Outcome;
use crate::server::state::State;
use crate::store::KeyId;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::sync::Arc;
use tracing::Instrument;

/// Asks who calls, and answers with the JSON that `work` makes, or with its problem.
pub(super) async fn answer(
    state: &Arc<State>,
    dialect: Dialect,
    route: &'static str,
    headers: &HeaderMap,
    work: impl AsyncFnOnce(KeyId) -> Result<String, Problem>,
) -> Response {
    let mut arrival = Arrival::new(state, route, headers);
    arrival.ticket.dialect = dialect.as_str();
    let span = arrival.ticket.span.clone();
    let done = async {
        let key = arrival.authenticate(state, headers).await?;
        work(key.id).await
    };
    match done.instrument(span).await {
        Err(problem) => arrival.refuse(dialect, &problem),
        Ok(body) => {
            let mut ticket = arrival.ticket;
            ticket.begin(200);
            ticket.end(Outcome::Ok);
            let mut response = reply::json(StatusCode::OK, Body::from(body));
            reply::identify(dialect, &ticket.request_id, response.headers_mut());
            response
        }
    }
}
