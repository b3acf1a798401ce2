//! Responses that run without their client, and their events for whoever comes back.

use super::reply;
use super::request::{Arrival, refuse};
use crate::dialect::{Dialect, Problem};
use crate::kept::{Draft, Follower, Run};
use crate::relay::{Call, Outcome, Refused, Reply, ReplyBody, Ticket};
use crate::server::state::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use std::sync::Arc;
use tracing::Instrument;

/// Begins a response that goes on when its client has left. The client gets the response object at
/// once, or follows the events.
pub(super) async fn start(state: &Arc<State>, mut call: Call, draft: Draft, ticket: Ticket) -> Response {
    let wants_events = std::mem::replace(&mut call.prepared.stream, true);
    let request_id = ticket.request_id.clone();
    let ignored = call.prepared.ignored.clone();
    let object = call.prepared.reply.announced();
    let announced = match state.kept.announce(draft, object, call.prepared.body.len()).await {
        Ok(announced) => announced,
        Err(problem) => return refuse(Dialect::Responses, &problem, ticket),
    };
    let run = announced.run().clone();
    let body = if wants_events {
        let running = state.running.token();
        events(state, Follower::new(run.clone(), None), running)
    } else {
        ReplyBody::Whole(Bytes::from(run.response()))
    };
    let span = ticket.span.clone();
    state.kept.launch(announced, make(state.clone(), call, ticket, run).instrument(span));
    reply::success(Dialect::Responses, &request_id, &ignored, Reply { headers: HeaderMap::new(), body })
}

/// Has the backend answer, as if the client read it all.
async fn make(state: Arc<State>, call: Call, ticket: Ticket, run: Arc<Run>) {
    let mut refusal = call.prepared.reply.stream();
    match state.relay.serve(call, ticket).await {
        Ok(Reply { body: ReplyBody::Stream(mut stream), .. }) => {
            while let Some(written) = stream.next().await {
                if !run.take(written) {
                    return;
                }
            }
        }
        Ok(Reply { body: ReplyBody::Whole(_), .. }) => {}
        Err(refused) => {
            let Refused(problem, ticket) = *refused;
            let mut out = BytesMut::new();
            refusal.finish(Some(&problem), &mut out);
            run.take(out.freeze());
            // Nobody waits for the answer itself; the operator reads of it.
            drop(refuse(Dialect::Responses, &problem, ticket));
        }
    }
}

/// Where somebody who comes back reads on.
pub(super) struct Resumed {
    after: Option<u64>,
}

impl Resumed {
    /// What a query asks for; `None` for the response object.
    pub(super) fn of(query: Option<&str>) -> Result<Option<Self>, Problem> {
        let mut is_streamed = false;
        let mut after = None;
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "stream" => {
                    is_streamed =
                        value.parse().map_err(|_| Problem::invalid("stream", "`stream` must be true or false"))?;
                }
                "starting_after" => {
                    let number = value.parse().map_err(|_| {
                        Problem::invalid("starting_after", "`starting_after` must be the number of an event")
                    })?;
                    after = Some(number);
                }
                _ => {}
            }
        }
        Ok(is_streamed.then_some(Self { after }))
    }
}

/// Answers with the events of a response.
pub(super) async fn follow(
    state: &Arc<State>,
    route: &'static str,
    headers: &HeaderMap,
    id: &str,
    resumed: Result<Option<Resumed>, Problem>,
) -> Response {
    let mut arrival = Arrival::new(state, route, headers);
    arrival.ticket.dialect = Dialect::Responses.as_str();
    let span = arrival.ticket.span.clone();
    let found = async {
        let key = arrival.authenticate(state, headers).await?;
        let after = resumed?.and_then(|resumed| resumed.after);
        state.kept.follow(key.id, id, after).await
    };
    match found.instrument(span).await {
        Err(problem) => arrival.refuse(Dialect::Responses, &problem),
        Ok(follower) => {
            let mut ticket = arrival.ticket;
            let request_id = ticket.request_id.clone();
            ticket.begin(200);
            let body = events(state, follower, Watched(ticket));
            reply::success(Dialect::Responses, &request_id, &[], Reply { headers: HeaderMap::new(), body })
        }
    }
}

/// What is told of a reader when the events are at their end.
trait Reader: Send + 'static {
    fn end(&mut self) {}
}

impl Reader for tokio_util::task::task_tracker::TaskTrackerToken {}

/// A reader with a ticket of its own.
struct Watched(Ticket);

impl Reader for Watched {
    fn end(&mut self) {
        self.0.end(Outcome::Ok);
    }
}

/// The events that a follower reads, with signs of life between them.
fn events(state: &State, follower: Follower, reader: impl Reader) -> ReplyBody {
    let every = state.relay.keep_alive();
    ReplyBody::Stream(Box::pin(futures_util::stream::unfold(
        (follower, reader),
        move |(mut follower, mut reader)| async move {
            let next = match every {
                None => follower.next().await,
                Some(every) => {
                    let quiet = Bytes::from_static(b": keep-alive\n\n");
                    tokio::time::timeout(every, follower.next()).await.unwrap_or(Some(quiet))
                }
            };
            if next.is_none() {
                reader.end();
            }
            next.map(|bytes| (bytes, (follower, reader)))
        },
    )))
}
