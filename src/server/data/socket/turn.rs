//! One request on a connection and its response.

use super::connection::Connection;
use super::frames;
use super::wire::{Close, Ended, Wire};
use crate::codex::Event;
use crate::codex::event::Depth;
use crate::codex::sse::Decoder;
use crate::dialect::responses::incremental::{self, ClientFrame, Create, Item};
use crate::dialect::responses::request::prepare;
use crate::dialect::{Context, Dialect, Problem, ProblemKind};
use crate::relay::{Call, Outcome, Refused, Reply, ReplyBody, Ticket};
use crate::server::assemble::unix_millis;
use crate::server::data::request::Arrival;
use crate::store::KeyId;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::json;
use std::sync::Arc;
use tracing::Instrument;

/// A request that is being served.
pub(super) struct Turn<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) wire: &'a mut Wire,
}

/// What is to be done for a request.
struct Work {
    call: Call,
    /// Everything that the model is to read.
    conversation: Vec<Item>,
    generate: bool,
}

impl Turn<'_> {
    /// Answers a frame. An error is the end of the connection, not of the request.
    pub(super) async fn take(&mut self, text: &str) -> Result<(), Ended> {
        let read = incremental::read(text.as_bytes());
        match read {
            Ok(ClientFrame::Other) => return Ok(()),
            Ok(ClientFrame::Steer(refusal)) => return self.wire.say(refusal).await,
            Ok(ClientFrame::Create(_)) | Err(_) => {}
        }
        let mut arrival = Arrival::new(&self.connection.state, self.connection.route, &self.connection.headers);
        arrival.ticket.dialect = Dialect::Responses.as_str();
        let span = arrival.ticket.span.clone();
        self.serve(read, arrival).instrument(span).await
    }

    async fn serve(&mut self, read: Result<ClientFrame<'_>, Problem>, mut arrival: Arrival) -> Result<(), Ended> {
        let admitted = match read {
            Ok(ClientFrame::Create(create)) => self.connection.admit(&create, &mut arrival).await,
            Ok(ClientFrame::Other | ClientFrame::Steer(_)) => return Ok(()),
            Err(problem) => Err(problem),
        };
        let work = match admitted {
            Ok(work) => work,
            Err(problem) => return self.refuse(&problem, arrival.ticket).await,
        };
        if !work.generate {
            return self.prewarm(work, arrival.ticket).await;
        }
        let Work { call, conversation, .. } = work;
        let (request_id, ignored) = (arrival.ticket.request_id.clone(), call.prepared.ignored.clone());
        let state = Arc::clone(&self.connection.state);
        let line = self.connection.line.clone();
        match self.wire.listen_during(state.relay.serve_over(Some(&line), call, arrival.ticket)).await? {
            Ok(Reply { headers, body: ReplyBody::Stream(stream) }) => {
                for frame in frames::head(&headers, &ignored, unix_millis() / 1000) {
                    self.wire.say(frame).await?;
                }
                self.pass(stream, conversation).await
            }
            Ok(Reply { body: ReplyBody::Whole(_), .. }) => {
                let problem = Problem::new(ProblemKind::Internal, "The answer came in one piece");
                self.wire.say(frames::error(&problem, &request_id)).await
            }
            Err(refused) => {
                let Refused(problem, ticket) = *refused;
                self.refuse(&problem, ticket).await
            }
        }
    }

    async fn refuse(&mut self, problem: &Problem, mut ticket: Ticket) -> Result<(), Ended> {
        ticket.begin(problem.kind.status().as_u16());
        ticket.fail(Outcome::Refused, problem);
        self.wire.say(frames::error(problem, &ticket.request_id)).await?;
        match problem.kind {
            ProblemKind::InvalidKey => Err(Ended::Close(Close::Policy)),
            ProblemKind::ShuttingDown => Err(Ended::Close(Close::GoingAway)),
            _ => Ok(()),
        }
    }

    /// Nothing is to be generated: the prefix is known from here on, and that is all.
    async fn prewarm(&mut self, work: Work, mut ticket: Ticket) -> Result<(), Ended> {
        let id = format!("resp_{}", ticket.request_id.trim_start_matches("req_"));
        ticket.model = Some(work.call.prepared.model.clone());
        ticket.begin(200);
        for frame in frames::prewarmed(&id, &work.call.prepared.requested_model, unix_millis() / 1000) {
            self.wire.say(frame).await?;
        }
        ticket.end(Outcome::Ok);
        self.connection.memory.keep(id, work.conversation, Vec::new());
        Ok(())
    }

    /// Passes the answer on, one frame an event, and keeps it for the next request.
    async fn pass(&mut self, mut stream: BoxStream<'static, Bytes>, conversation: Vec<Item>) -> Result<(), Ended> {
        let mut decoder = Decoder::new();
        let mut kept = Kept::default();
        while let Some(bytes) = self.wire.listen_during(stream.next()).await? {
            decoder.push(bytes);
            while let Ok(Some(frame)) = decoder.next_frame() {
                let Some(data) = frame.data() else { continue };
                kept.note(&data);
                if let Some(text) = frames::event(&data) {
                    self.wire.say(text).await?;
                }
            }
        }
        if let Some(id) = kept.completed {
            self.connection.memory.keep(id, conversation, kept.output);
        }
        Ok(())
    }
}

impl Connection {
    /// Authenticates, completes the conversation, translates.
    async fn admit(&self, create: &Create<'_>, arrival: &mut Arrival) -> Result<Work, Problem> {
        let Self { state, headers, memory, codex_cli, .. } = self;
        let key = arrival.authenticate(state, headers).await?;
        let new = create.items()?;
        let earlier = match &create.previous {
            None => Vec::new(),
            Some(id) => match memory.until(id) {
                Some(earlier) => earlier.to_vec(),
                None => self.kept(key.id, id).await?,
            },
        };
        let conversation = memory.conversation(&earlier, new);
        let context = Context { request_id: arrival.ticket.request_id.clone(), now: unix_millis() / 1000 };
        let models = state.models.serving(state.relay.served(&key));
        let mut prepared = prepare(&create.body(&conversation), &context, &models, *codex_cli)?;
        prepared.stream = true;
        let mut headers = headers.clone();
        headers.extend(create.headers());
        let call = Call { dialect: Dialect::Responses, codex_cli: *codex_cli, headers, key, prepared };
        Ok(Work { call, conversation, generate: create.generate })
    }
}

impl Connection {
    /// A response that was not made on this connection but is kept for the key, with all that came
    /// before it. The Codex CLI keeps none, and sends everything again.
    async fn kept(&self, key: KeyId, id: &str) -> Result<Vec<Item>, Problem> {
        let unknown = || incremental::previous_not_found(id);
        if self.codex_cli {
            return Err(unknown());
        }
        let ask = json!({"model": "", "previous_response_id": id, "input": [], "store": false});
        let expanded = self.state.kept.expand(key, &Bytes::from(ask.to_string())).await;
        let expanded =
            expanded.map_err(|problem| if problem.kind.status().is_server_error() { problem } else { unknown() })?;
        incremental::items_of(&expanded.body).ok_or_else(unknown)
    }
}

/// What of an answer is kept.
#[derive(Default)]
struct Kept {
    output: Vec<Item>,
    /// The response's id, once it is complete.
    completed: Option<String>,
}

impl Kept {
    fn note(&mut self, data: &[u8]) {
        match Event::parse(data, Depth::Control) {
            Ok(Event::ItemDone(done)) => self.output.push(Item::new(done.raw.get())),
            Ok(Event::Completed(response) | Event::Incomplete(response)) => {
                self.completed = response.summary().and_then(|summary| summary.id.clone());
            }
            _ => {}
        }
    }
}
