//! A connection's life: one request after the other, until somebody or something ends it.

use super::frames;
use super::turn::Turn;
use super::wire::{Close, Ended, Heard, Wire};
use crate::codex::socket::Line;
use crate::dialect::responses::incremental::Memory;
use crate::dialect::{Problem, ProblemKind};
use crate::relay::is_codex_cli;
use crate::server::data::request::Arrival;
use crate::server::state::State;
use axum::extract::ws::{Utf8Bytes, WebSocket};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Instant;
use tokio::time::{Instant as At, sleep_until};
use uuid::Uuid;

/// Gives requests that name no session the connection as theirs, so that they stay on one account.
const SESSION: HeaderName = HeaderName::from_static("x-session-id");

/// What a connection knows beside its socket.
pub(super) struct Connection {
    pub(super) state: Arc<State>,
    pub(super) route: &'static str,
    /// The handshake's headers: they hold for every request on the connection.
    pub(super) headers: HeaderMap,
    /// Whether the client is a Codex CLI.
    pub(super) codex_cli: bool,
    /// What was said on the connection.
    pub(super) memory: Memory,
    /// Its place at the backend.
    pub(super) line: Line,
    opened: Instant,
}

impl Connection {
    pub(super) fn new(state: Arc<State>, route: &'static str, mut headers: HeaderMap) -> Self {
        let codex_cli = is_codex_cli(&headers);
        if let Ok(name) = HeaderValue::try_from(format!("ws_{}", Uuid::now_v7().simple())) {
            headers.entry(SESSION).or_insert(name);
        }
        let memory = Memory::new(state.max_body);
        Self { state, route, headers, codex_cli, memory, line: Line::default(), opened: Instant::now() }
    }

    /// Serves until the end.
    pub(super) async fn run(mut self, socket: WebSocket) {
        // Shutdown waits for the goodbye.
        let _running = (self.state.running.token(), self.state.connected.count());
        let mut wire = Wire::new(socket, self.state.sockets.ping);
        let (close, reason) = loop {
            let text = match self.next(&mut wire).await {
                Ok(text) => text,
                Err(End::Because(close, reason)) => break (close, reason),
                Err(End::Wire(Ended::Gone)) => return,
                Err(End::Wire(Ended::Close(close))) => break (close, ""),
            };
            match (Turn { connection: &mut self, wire: &mut wire }).take(&text).await {
                Ok(()) => {}
                Err(Ended::Gone) => return,
                Err(Ended::Close(close)) => break (close, ""),
            }
        };
        if close == Close::TooLarge {
            let message = format!("The frame is larger than {} bytes", self.state.max_body);
            let problem = Problem::new(ProblemKind::TooLarge, message);
            let _ = wire.say(frames::error(&problem, "")).await;
        }
        wire.close(close, reason).await;
    }

    /// The next request.
    async fn next(&self, wire: &mut Wire) -> Result<Utf8Bytes, End> {
        let ends_at = At::from_std(self.opened + self.state.sockets.max_age);
        let idle_until = At::now() + self.state.sockets.idle;
        loop {
            if self.state.closing.is_cancelled() {
                return Err(End::Because(Close::GoingAway, "the gateway is shutting down"));
            }
            if At::now() >= ends_at {
                wire.say(frames::too_old()).await.map_err(End::Wire)?;
                return Err(End::Because(Close::Normal, "age limit"));
            }
            if let Some(text) = wire.waiting() {
                return Ok(text);
            }
            tokio::select! {
                () = self.state.closing.cancelled() => {}
                () = sleep_until(ends_at) => {}
                () = sleep_until(idle_until) => return Err(End::Because(Close::GoingAway, "idle")),
                heard = wire.hear() => match heard {
                    Heard::Text(text) => return Ok(text),
                    Heard::Tick if !self.is_welcome().await => {
                        return Err(End::Because(Close::Policy, "the key is not valid any more"));
                    }
                    Heard::Tick => {}
                    Heard::End(ended) => return Err(End::Wire(ended)),
                },
            }
        }
    }

    /// Whether the key still opens the gateway.
    async fn is_welcome(&self) -> bool {
        Arrival::is_welcome(&self.state, &self.headers).await
    }
}

/// Why no request comes any more.
enum End {
    Because(Close, &'static str),
    Wire(Ended),
}
