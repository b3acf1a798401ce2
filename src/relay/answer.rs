//! From the backend's events to the client's bytes, streamed or whole.

use super::backend_call::BackendCall;
use super::lesson::Learn;
use super::ticket::{Outcome, Ticket};
use super::unix_now;
use crate::account::InFlight;
use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::codex::stream::{Came, EventStream};
use crate::codex::{Event, Failure, FailureKind};
use crate::dialect::{Folder, Problem, Translator};
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Frames that are ready together leave in one write, up to this many bytes.
const WRITE_LIMIT: usize = 64 * 1024;
/// … and up to this many frames, so that one busy stream does not hold up the others on its thread.
const FRAME_LIMIT: usize = 256;
/// Room for one event.
const WRITE_LEAST: usize = 512;
/// How long the end of the backend's body is awaited after its last event, so that the connection
/// can be used again.
const END_OF_BODY: Duration = Duration::from_millis(250);

/// An answer whose first output has arrived: the stream belongs to its account.
pub(super) struct Begun {
    /// Frames that were held back until there was output.
    pub held: VecDeque<Frame>,
    /// The rest.
    pub events: EventStream,
}

/// Reads on until the model has begun to answer, or `hold` has passed since the first event, since
/// errors often hide in the first events of a stream that began with 200 (lessons.md 5). The first
/// event must come within `first`.
pub(super) async fn begin(
    mut events: EventStream,
    first: Duration,
    hold: Duration,
    learn: &impl Learn,
) -> Result<Begun, Failure> {
    let mut frames = VecDeque::new();
    let mut until = Instant::now() + first;
    loop {
        let frame = match events.next_by(Some(until)).await? {
            Came::Frame(frame) => frame,
            Came::End => return Err(cut()),
            Came::Nothing if frames.is_empty() => return Err(mute()),
            Came::Nothing => return Ok(Begun { held: frames, events }),
        };
        if frames.is_empty() {
            until = Instant::now() + hold;
        }
        let settles = settles(&frame, learn)?;
        frames.push_back(frame);
        if settles {
            return Ok(Begun { held: frames, events });
        }
    }
}

/// Whether the stream has begun with this frame.
fn settles(frame: &Frame, learn: &impl Learn) -> Result<bool, Failure> {
    // The backend writes one data line an event; what several lines join is no event that ends the hold.
    let Some(Cow::Borrowed(data)) = frame.data() else { return Ok(false) };
    if Event::is_opening(data) {
        return Ok(false);
    }
    let event = Event::parse(data, Depth::Control).map_err(|error| illegible(&error))?;
    match observe(&event, learn) {
        Some(failure) => Err(failure),
        None => Ok(is_output(&event)),
    }
}

/// The clock of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// After how much silence the client is told that the stream is alive.
    pub keep_alive: Option<Duration>,
    /// When the answer must be complete.
    pub deadline: Option<Instant>,
}

/// A stream towards a client, driven by the client's reading: it waits, the backend waits.
pub(super) struct Relayed<L> {
    pub begun: Begun,
    /// The call that brings it; ends before the ticket does.
    pub call: Box<BackendCall>,
    pub translator: Box<dyn Translator>,
    pub ticket: Ticket,
    pub learn: L,
    pub pace: Pace,
    /// Whether the last frame of the client's stream has been written.
    pub finished: bool,
    /// How many bytes the last write had: the next one is likely to have as many.
    pub written: usize,
    /// Whether the backend's body has ended.
    pub has_ended: bool,
    /// The account's place in flight, held until the stream is over.
    pub _in_flight: InFlight,
}

impl<L: Learn> Relayed<L> {
    /// The next bytes for the client; `None` when the answer is complete.
    pub(super) async fn next_write(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        // What the client does not see of the backend's events does not keep it waiting patiently.
        let heartbeat = self.pace.keep_alive.map(|every| Instant::now() + every);
        while !self.finished && out.is_empty() {
            // The first frame is waited for, the others are taken only if they are there.
            let first = match self.begun.held.pop_front() {
                Some(frame) => Ok(Some(frame)),
                None => match self.wait(heartbeat).await {
                    Some(next) => next,
                    None => return Some(self.translator.keep_alive()),
                },
            };
            // Not before: a stream may be silent for long.
            out.reserve(self.written.clamp(WRITE_LEAST, WRITE_LIMIT));
            // What leaves together has come together, as far as clocks go: they take longer to read than a piece.
            let since = std::time::Instant::now();
            self.pass(first, since, &mut out);
            let mut frames = 1;
            while !self.finished && out.len() < WRITE_LIMIT && frames < FRAME_LIMIT {
                let ready = self.more().await;
                if matches!(ready, Ok(None)) {
                    break;
                }
                self.pass(ready, since, &mut out);
                frames += 1;
            }
            self.ticket.worked(since);
        }
        if out.is_empty() {
            // An answer that was cut leaves its connection: what is still to come is not wanted.
            if self.has_ended || self.translator.is_done() {
                return None;
            }
            let _ = tokio::time::timeout(END_OF_BODY, self.begun.events.next()).await;
            return None;
        }
        self.written = out.len();
        if self.finished && !self.translator.is_done() {
            // The end of the client's body leaves with its last bytes, if the backend's has come too.
            self.has_ended = self.begun.events.has_ended().await;
        }
        Some(out.freeze())
    }

    /// One more frame for this write, if it is there already.
    async fn more(&mut self) -> Result<Option<Frame>, Failure> {
        if let Some(frame) = self.begun.held.pop_front() {
            return Ok(Some(frame));
        }
        // The first output leaves at once, with the head and what was read together with it.
        if self.written == 0 { self.begun.events.buffered() } else { self.begun.events.at_hand().await }
    }

    /// The next frame; `None` if the client is to be told first that the stream is alive.
    async fn wait(&mut self, heartbeat: Option<Instant>) -> Option<Result<Option<Frame>, Failure>> {
        let deadline = self.pace.deadline;
        // Asked first: a backend that always has something ready must end too.
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Some(Err(too_long()));
        }
        let until = [heartbeat, deadline].into_iter().flatten().min();
        match self.begun.events.next_by(until).await {
            Ok(Came::Frame(frame)) => Some(Ok(Some(frame))),
            Ok(Came::End) => Some(Ok(None)),
            Ok(Came::Nothing) if deadline == until => Some(Err(too_long())),
            Ok(Came::Nothing) => None,
            Err(failure) => Some(Err(failure)),
        }
    }

    fn pass(&mut self, next: Result<Option<Frame>, Failure>, since: std::time::Instant, out: &mut BytesMut) {
        let ended = match next {
            Ok(Some(frame)) => self.translate(&frame, since, out),
            Ok(None) => Err(cut()),
            Err(failure) => Err(failure),
        };
        match ended {
            Ok(false) => return,
            Ok(true) => {
                self.call.ended();
                match self.translator.shortfall() {
                    None => self.ticket.end(Outcome::Ok),
                    Some(failure) => self.ticket.fail(Outcome::Cut, &Problem::from(&failure)),
                }
                self.translator.finish(None, out);
            }
            Err(failure) => {
                self.learn.failed(&failure);
                self.call.failed(&failure);
                let problem = Problem::from(&failure);
                self.ticket.fail(Outcome::Cut, &problem);
                self.translator.finish(Some(&problem), out);
            }
        }
        self.finished = true;
    }

    /// Whether the answer is complete with this frame: for the backend, or for the client.
    fn translate(&mut self, frame: &Frame, since: std::time::Instant, out: &mut BytesMut) -> Result<bool, Failure> {
        let Some(data) = frame.data() else { return Ok(false) };
        let event = Event::parse(&data, self.translator.depth()).map_err(|error| illegible(&error))?;
        let failure = observe(&event, &self.learn);
        note_usage(&event, &mut self.ticket, &mut self.call);
        note_piece(&event, &mut self.ticket, &mut self.call, since);
        if matches!(event, Event::RateLimits(_)) {
            // The client is told of the pool; that there are accounts is not its business.
            if let Some(pooled) = self.learn.pooled() {
                let data = pooled.data().unwrap_or_default();
                self.translator.event(&Event::RateLimits(&data), &pooled, out);
            }
            return Ok(false);
        }
        self.translator.event(&event, frame, out);
        match failure {
            Some(failure) => Err(failure),
            None if self.translator.is_done() => {
                self.ticket.note_spent(self.translator.spent());
                Ok(true)
            }
            None => Ok(event.is_terminal()),
        }
    }
}

/// Reads the whole answer.
pub(super) async fn fold(
    mut begun: Begun,
    mut folder: Box<dyn Folder>,
    ticket: &mut Ticket,
    call: &mut BackendCall,
    learn: &impl Learn,
) -> Result<Bytes, Failure> {
    loop {
        let next = match begun.held.pop_front() {
            Some(frame) => Some(frame),
            None => begun.events.next().await?,
        };
        let Some(frame) = next else { return Err(cut()) };
        let since = std::time::Instant::now();
        let Some(data) = frame.data() else { continue };
        let event = Event::parse(&data, folder.depth()).map_err(|error| illegible(&error))?;
        if let Some(failure) = observe(&event, learn) {
            return Err(failure);
        }
        note_usage(&event, ticket, call);
        note_piece(&event, ticket, call, since);
        folder.event(&event);
        ticket.worked(since);
        if folder.is_done() {
            ticket.note_spent(folder.spent());
            return Ok(folder.finish());
        }
        if event.is_terminal() {
            let _ = tokio::time::timeout(END_OF_BODY, begun.events.next()).await;
            return match folder.shortfall() {
                Some(failure) => Err(failure),
                None => Ok(folder.finish()),
            };
        }
    }
}

/// Learns from an event; a failure that it carries is returned.
fn observe(event: &Event<'_>, learn: &impl Learn) -> Option<Failure> {
    match event {
        Event::Failed(response) => {
            Some(Failure::of_failed(&response.summary().cloned().unwrap_or_default(), unix_now()))
        }
        Event::Error(error) => Some(Failure::of_error_event(error, unix_now())),
        Event::RateLimits(data) => {
            if let Some(limits) = crate::codex::limits::Limits::from_event(data) {
                learn.limits(&limits);
            }
            None
        }
        _ => None,
    }
}

fn note_usage(event: &Event<'_>, ticket: &mut Ticket, call: &mut BackendCall) {
    if let Event::Completed(response) | Event::Incomplete(response) | Event::Failed(response) = event
        && let Some(summary) = response.summary()
    {
        ticket.usage = summary.usage.or(ticket.usage);
        call.told(summary);
    }
}

/// Counts output, for an answer that is cut before the backend has counted it.
fn note_piece(event: &Event<'_>, ticket: &mut Ticket, call: &mut BackendCall, now: std::time::Instant) {
    if is_output(event) && !event.is_terminal() {
        ticket.piece();
        call.output(now);
    }
}

/// Whether the client may be answered now: there is output, or the answer is complete.
fn is_output(event: &Event<'_>) -> bool {
    match event {
        // Deltas, unread at this depth.
        Event::Other(kind) => kind.ends_with(".delta"),
        event => event.is_output() || event.is_terminal(),
    }
}

fn cut() -> Failure {
    Failure::of(FailureKind::StreamCut, "the backend's stream ended before the response was complete")
}

/// The answer has taken longer than an answer may.
pub(super) fn too_long() -> Failure {
    let words = "the answer was not complete within the time that an answer may take";
    Failure { code: Some(TOTAL_TIMEOUT.into()), ..Failure::of(FailureKind::Timeout, words) }
}

/// Marks the end that we set to an answer.
const TOTAL_TIMEOUT: &str = "total_timeout";

/// Whether a failure is of our own making, and says nothing about an account.
pub(super) fn is_our_own(failure: &Failure) -> bool {
    failure.code.as_deref() == Some(TOTAL_TIMEOUT)
}

fn mute() -> Failure {
    Failure::of(FailureKind::Timeout, "the backend's answer did not begin in time")
}

fn illegible(error: &serde_json::Error) -> Failure {
    // The error names a position, never the content.
    Failure::of(FailureKind::StreamCut, format!("the backend sent an event that is not legible ({error})"))
}
