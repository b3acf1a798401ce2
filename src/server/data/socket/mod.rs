//! The Responses API over WebSocket (protocol.md 4): the handshake here, a connection's life in
//! [`connection`], one response in [`turn`], the socket itself in [`wire`], what is written on it in
//! [`frames`]. Whatever is wrong before the upgrade is told as over HTTP.

mod connection;
mod frames;
mod turn;
mod wire;

use super::reply;
use super::request::Arrival;
use crate::dialect::{Dialect, Problem, ProblemKind};
use crate::relay::Outcome;
use crate::server::state::State;
use axum::extract::State as Shared;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use connection::Connection;
use std::sync::Arc;

type Asked = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// `GET /v1/responses`.
pub(super) async fn upgrade(Shared(state): Shared<Arc<State>>, headers: HeaderMap, asked: Asked) -> Response {
    open(state, "/v1/responses", headers, asked).await
}

/// `GET /backend-api/codex/responses`.
pub(super) async fn upgrade_codex(Shared(state): Shared<Arc<State>>, headers: HeaderMap, asked: Asked) -> Response {
    open(state, "/backend-api/codex/responses", headers, asked).await
}

async fn open(state: Arc<State>, route: &'static str, headers: HeaderMap, asked: Asked) -> Response {
    if headers.contains_key(header::UPGRADE) && !state.sockets.on {
        // A Codex CLI that gets this goes on over HTTP at once.
        return (StatusCode::UPGRADE_REQUIRED, "this endpoint is served over HTTP\n").into_response();
    }
    let mut arrival = Arrival::new(&state, route, &headers);
    arrival.ticket.dialect = Dialect::Responses.as_str();
    let asked = match asked {
        Ok(asked) => asked,
        Err(_) if headers.contains_key(header::UPGRADE) => {
            let problem = Problem::new(ProblemKind::InvalidRequest, "This is no handshake of a WebSocket");
            return arrival.refuse(Dialect::Responses, &problem);
        }
        Err(_) => {
            let problem = Problem::new(ProblemKind::MethodNotAllowed, "Use POST");
            let mut response = arrival.refuse(Dialect::Responses, &problem);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
    };
    if let Err(problem) = arrival.authenticate(&state, &headers).await {
        return arrival.refuse(Dialect::Responses, &problem);
    }
    let mut ticket = arrival.ticket;
    let connection = Connection::new(state.clone(), route, headers);
    let mut response = asked
        .max_message_size(state.max_body)
        .max_frame_size(state.max_body)
        .on_upgrade(|socket| connection.run(socket));
    ticket.begin(response.status().as_u16());
    ticket.end(Outcome::Ok);
    reply::identify(Dialect::Responses, &ticket.request_id, response.headers_mut());
    response
}
