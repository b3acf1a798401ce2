//! Calls of the Codex CLI that pass as they are: compaction, pictures, searches. One account is
//! chosen, its credentials take the place of the client's, and the answer comes back whole. A
//! failure moves the call to the next account by the same table as a response.

use super::policy::{self, Step, Tried};
use super::{Outcome, Refused, Relay, Ticket, caller, log_attempt, millis_from_now, passage, unix_now, without_token};
use crate::account::Member;
use crate::codex::Failure;
use crate::codex::client::Called;
use crate::codex::limits::Limits;
use crate::dialect::{Problem, ProblemKind};
use crate::store::{Credentials, GatewayKey};
use crate::telemetry::{metrics, traces};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;

/// A call that passes.
pub struct Passing {
    /// Below the backend's base address.
    pub path: &'static str,
    /// The client's headers.
    pub headers: HeaderMap,
    /// The body, as it came.
    pub body: Bytes,
    /// Whose key it came with.
    pub key: Arc<GatewayKey>,
}

/// Its answer.
#[derive(Debug)]
pub struct Passed {
    /// A success.
    pub status: StatusCode,
    /// What the client is to see.
    pub headers: HeaderMap,
    /// As it came.
    pub body: Bytes,
}

/// How an account's turn ended without an answer.
enum End {
    Next(Failure),
    GiveUp(Failure),
}

impl Relay {
    /// Has the backend answer a call, and says what the backend said when it refuses: `Err` with its
    /// failure too, so that the caller may do without.
    pub async fn forward(
        &self,
        passing: &Passing,
        ticket: &mut Ticket,
    ) -> Result<Passed, (Problem, Option<StatusCode>)> {
        let session = passage::session(&passing.headers);
        let mut headers = passage::up(&passing.headers);
        if let Some(kind) = passing.headers.get(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, kind.clone());
        }
        let (mut tried, mut last) = (HashSet::new(), None);
        while ticket.attempts < self.options.max_attempts {
            let Some(in_flight) = self.choose(&passing.key, session.as_deref(), &tried, ticket) else { break };
            let member = in_flight.member().clone();
            let id = member.manager.id();
            tried.insert(id);
            match self.pass_as(&member, passing, &headers, ticket).await {
                Ok(called) => {
                    if let Some(session) = &session {
                        self.affinity.settle(passing.key.id, session, id, Instant::now());
                    }
                    let mut headers = self.down(&passing.key, &called.headers);
                    if let Some(kind) = called.headers.get(header::CONTENT_TYPE) {
                        headers.insert(header::CONTENT_TYPE, kind.clone());
                    }
                    return Ok(Passed { status: called.status, headers, body: called.body });
                }
                Err(End::Next(failure)) => last = Some(failure),
                Err(End::GiveUp(failure)) => return Err((Problem::from(&failure), failure.status)),
            }
        }
        let status = last.as_ref().and_then(|failure| failure.status);
        Err((self.exhausted(&passing.key, true, last.as_ref()), status))
    }

    /// The same for a caller that can only pass the refusal on.
    pub async fn forward_or_refuse(
        &self,
        passing: &Passing,
        mut ticket: Ticket,
    ) -> Result<(Passed, Ticket), Box<Refused>> {
        match self.forward(passing, &mut ticket).await {
            Ok(passed) => {
                ticket.begin(passed.status.as_u16());
                ticket.end(Outcome::Ok);
                Ok((passed, ticket))
            }
            Err((problem, _)) => Err(Box::new(Refused(problem, ticket))),
        }
    }

    async fn pass_as(
        &self,
        member: &Member,
        passing: &Passing,
        headers: &HeaderMap,
        ticket: &mut Ticket,
    ) -> Result<Called, End> {
        let manager = &member.manager;
        ticket.account = Some(manager.snapshot().account.name.clone());
        let mut tried = Tried { refreshed: false, stripped: true };
        let mut credentials = manager.credentials().await.map_err(|error| End::Next(without_token(&error)))?;
        loop {
            ticket.attempts += 1;
            let failure = match self.pass_once(member, &credentials, passing, headers.clone(), ticket).await {
                Ok(called) => {
                    metrics::upstream_attempt("ok");
                    return Ok(called);
                }
                Err(failure) => failure,
            };
            metrics::upstream_attempt(failure.kind.as_str());
            log_attempt(&failure, ticket);
            match policy::step(failure.kind, tried) {
                Step::Refresh => {
                    tried.refreshed = true;
                    credentials = manager
                        .force_refresh(credentials.generation)
                        .await
                        .map_err(|error| End::Next(without_token(&error)))?;
                }
                Step::Quarantine => {
                    manager.quarantine(credentials.generation, failure.code.as_deref().unwrap_or("unauthorized"));
                    return Err(End::Next(failure));
                }
                Step::PutAside => {
                    self.put_aside(manager.id(), &failure);
                    return Err(End::Next(failure));
                }
                Step::Cool => {
                    let wait = failure.retry_after.unwrap_or(self.options.cooldown);
                    self.accounts.cool_down(manager.id(), millis_from_now(wait));
                    return Err(End::Next(failure));
                }
                Step::Next => return Err(End::Next(failure)),
                // There is no reasoning of ours to take out of what passes as it is.
                Step::GiveUp | Step::StripReasoning => return Err(End::GiveUp(failure)),
            }
        }
    }

    async fn pass_once(
        &self,
        member: &Member,
        credentials: &Credentials,
        passing: &Passing,
        mut headers: HeaderMap,
        ticket: &Ticket,
    ) -> Result<Called, Failure> {
        let (address, port) = self.client.address();
        let span = traces::upstream_span(&ticket.span, passing.path, address, port, ticket.attempts);
        let account = member.manager.snapshot().account.clone();
        let route = self.routing.of(account.id);
        let work = async {
            traces::inject(&mut headers);
            let who = caller(&account, credentials, route.as_deref());
            self.client.call(who, Method::POST, passing.path, headers, passing.body.clone()).await
        };
        let called = work.instrument(span.clone()).await;
        match &called {
            Ok(called) => self.accounts.note_limits(account.id, &Limits::from_headers(&called.headers, unix_now())),
            Err(failure) => {
                span.record("error.type", failure.kind.as_str());
                span.record("otel.status_code", "ERROR");
            }
        }
        called
    }
}

/// Whether the backend has no such path, rather than anything against the request.
pub fn is_absent(problem: &Problem, status: Option<StatusCode>) -> bool {
    problem.kind == ProblemKind::InvalidRequest
        && matches!(status, Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED))
}
