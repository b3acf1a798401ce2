//! Calls of the Codex CLI that pass as they are: compaction, pictures, searches. One account is
//! chosen, its credentials take the place of the client's, and the answer comes back whole. A
//! failure moves the call to the next account by the same table as a response.

use super::attempts::{Errand, Lost};
use super::backend_call::BackendCall;
use super::books::Asked;
use super::reasoning::{self, Foreign};
use super::scheduling::Conversation;
use super::{Outcome, Refused, Relay, Ticket, caller, passage, unix_now};
use crate::account::Member;
use crate::account::pool::quota::Source;
use crate::account::pool::sessions::Session;
use crate::codex::client::Called;
use crate::codex::limits::Limits;
use crate::codex::{Failure, Usage};
use crate::dialect::{Problem, ProblemKind};
use crate::store::{Credentials, GatewayKey};
use crate::telemetry::traces;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use std::sync::Arc;
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

impl Relay {
    /// Has the backend answer a call, and says what the backend said when it refuses: `Err` with its
    /// failure too, so that the caller may do without.
    pub async fn forward(
        &self,
        passing: &Passing,
        ticket: &mut Ticket,
    ) -> Result<Passed, (Problem, Option<StatusCode>)> {
        let key = &passing.key;
        let conversation = passage::session(&passing.headers).map(|name| Conversation(Session::of(key.id, &name)));
        let asked = Asked { model: ticket.model.clone(), size: passing.body.len(), ..Asked::default() };
        if let Err(problem) = self.admit(key, &asked, ticket).await {
            let problem = if passage::is_codex_cli(&passing.headers) { problem.final_for_codex_cli() } else { problem };
            return Err((problem, None));
        }
        let mut courier = Courier::new(passing);
        match self.run_or_wait(key, conversation.as_ref(), &mut courier, ticket).await {
            Ok((called, _)) => {
                let mut headers = self.down(key, &called.headers);
                if let Some(kind) = called.headers.get(header::CONTENT_TYPE) {
                    headers.insert(header::CONTENT_TYPE, kind.clone());
                }
                Ok(Passed { status: called.status, headers, body: called.body })
            }
            Err(Lost::Failed(failure)) => Err((Problem::from(&failure), failure.status)),
            Err(Lost::Exhausted(last)) => {
                let status = last.as_ref().and_then(|failure| failure.status);
                Err((self.exhausted(key, None, true, last.as_ref()), status))
            }
        }
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
}

/// A call on its way.
struct Courier<'a> {
    passing: &'a Passing,
    headers: HeaderMap,
    body: Bytes,
}

impl<'a> Courier<'a> {
    fn new(passing: &'a Passing) -> Self {
        let mut headers = passage::up(&passing.headers);
        if let Some(kind) = passing.headers.get(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, kind.clone());
        }
        Self { passing, headers, body: passing.body.clone() }
    }
}

impl Errand for Courier<'_> {
    type Good = Called;

    fn model(&self) -> Option<&str> {
        None
    }

    fn strip(&mut self, foreign: Foreign) -> bool {
        reasoning::leave_behind(&mut self.headers, &mut self.body, foreign)
    }

    fn items(&self) -> u32 {
        reasoning::items(&self.passing.body)
    }

    fn is_over(&self) -> bool {
        false
    }

    async fn attempt(
        &mut self,
        relay: &Relay,
        member: &Arc<Member>,
        credentials: &Credentials,
        ticket: &mut Ticket,
    ) -> Result<Called, Failure> {
        let (address, port) = relay.client.address();
        let path = self.passing.path;
        let mut call = BackendCall::begin(ticket, path, address, port, false);
        let span = call.span().clone();
        let account = member.manager.snapshot().account.clone();
        let route = relay.routing.of(account.id);
        let work = async {
            let mut headers = self.headers.clone();
            traces::inject(&mut headers);
            let who = caller(&account, credentials, route.as_deref());
            relay.client.call(who, Method::POST, path, headers, self.body.clone()).await
        };
        let called = work.instrument(span).await;
        match &called {
            Ok(called) => {
                ticket.usage = billed(&called.body);
                call.used(ticket.usage);
                call.ended();
                let limits = Limits::from_headers(&called.headers, unix_now());
                relay.accounts.note_limits(account.id, &limits, Source::Answer, None);
            }
            Err(failure) => call.failed(failure),
        }
        called
    }
}

/// What a whole answer says that it used.
fn billed(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Billed {
        #[serde(default)]
        usage: Option<Usage>,
    }
    serde_json::from_slice::<Billed>(body).ok()?.usage
}

/// Whether the backend has no such path, rather than anything against the request.
pub fn is_absent(problem: &Problem, status: Option<StatusCode>) -> bool {
    problem.kind == ProblemKind::InvalidRequest
        && matches!(status, Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED))
}
