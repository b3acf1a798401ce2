//! A stream that passes through: frames leave as they came. Only those that hold the response object,
//! the first and the last ones, may be written anew, for SDKs that read the request's fields and the
//! whole output from it.

use super::echo::Echo;
use super::fields::Members;
use super::whole::Items;
use crate::codex::Event;
use crate::codex::event::{self, Depth};
use crate::codex::raw::Raw;
use crate::codex::sse::Frame;
use crate::dialect::{Context, Problem, ProblemKind, Translator};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Passes frames through and ends the stream legally if the backend does not.
pub(super) struct Passthrough {
    /// Finished items, where the last event is to repeat them.
    items: Option<Items>,
    /// What the response object repeats of the request.
    echo: Arc<Echo>,
    /// The response's id as the backend gave it, or one of ours.
    response_id: String,
    model: String,
    created_at: i64,
    /// What a frame of ours takes its number from.
    newest: Newest,
    /// Frames so far: the number of a frame of ours if the newest has none.
    frames: u64,
    /// Whether a terminal event has been written.
    ended: bool,
}

impl Passthrough {
    pub(super) fn new(context: &Context, model: &str, echo: Arc<Echo>, fill: bool) -> Self {
        Self {
            items: fill.then(Items::default),
            echo,
            response_id: format!("resp_{}", context.request_id.trim_start_matches("req_")),
            model: model.to_owned(),
            created_at: context.now,
            newest: Newest::default(),
            frames: 0,
            ended: false,
        }
    }

    /// The last event with the output that SDKs expect in it; `None` where it is there already.
    fn filled(&mut self, kind: &'static str, response: Raw<'_>, frame: &Frame) -> Option<String> {
        let filled = self.items.as_mut()?.fill(response, &self.echo)?;
        let number = number(frame).map(|number| format!(r#""sequence_number":{number},"#)).unwrap_or_default();
        Some(format!(r#"{{"type":"{kind}",{number}"response":{filled}}}"#))
    }
}

impl Passthrough {
    /// How many frames there were.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// What the client calls the response.
    pub(super) fn response_id(&self) -> &str {
        &self.response_id
    }

    /// Ends the stream before the backend does: with these items beside those that are finished.
    pub(super) fn incomplete(
        &mut self,
        at: u64,
        open: &[(u32, Box<RawValue>)],
        response: &RawValue,
        out: &mut BytesMut,
    ) {
        self.ended = true;
        let mut items = self.items.take().unwrap_or_default();
        items.note_all(open);
        let filled = items.fill(response.into(), &self.echo).and_then(|filled| RawValue::from_string(filled).ok());
        let response = filled.as_deref().unwrap_or(response);
        let last = Ended { kind: "response.incomplete", sequence_number: at, response };
        write("response.incomplete", &serde_json::to_string(&last).unwrap_or_default(), out);
    }
}

/// An event at the answer's beginning, with what the client said in its response object; `None`
/// where the object says it already.
fn opened(frame: &Frame, echo: &Echo) -> Option<(String, String)> {
    let data = frame.data()?;
    let members = Members::read(&data).ok()?;
    let kind: String = serde_json::from_str(members.get("type")?.get()).ok()?;
    let response = Members::read(members.get("response")?.get().as_bytes()).ok()?;
    let response = echo.apply(&response, Vec::new())?;
    Some((kind, members.with(&[("response", response)])))
}

impl Translator for Passthrough {
    fn depth(&self) -> Depth {
        Depth::Control
    }

    fn event(&mut self, event: &Event<'_>, frame: &Frame, out: &mut BytesMut) {
        self.frames += 1;
        self.newest.note(frame);
        if let Some(items) = &mut self.items {
            items.note(event);
        }
        if let Event::Created(response) = event
            && let Some(id) = response.id()
        {
            self.response_id = id.into_owned();
        }
        self.ended |= event.is_terminal();
        let named = |kind: &'static str| move |json| (kind.to_owned(), json);
        let rewritten = match event {
            Event::Created(_) | Event::InProgress if self.items.is_some() => opened(frame, &self.echo),
            Event::Completed(response) => {
                self.filled("response.completed", response.raw, frame).map(named("response.completed"))
            }
            Event::Incomplete(response) => {
                self.filled("response.incomplete", response.raw, frame).map(named("response.incomplete"))
            }
            Event::Failed(response) => {
                self.filled("response.failed", response.raw, frame).map(named("response.failed"))
            }
            _ => None,
        };
        match rewritten {
            Some((kind, json)) => write(&kind, &json, out),
            None => out.extend_from_slice(frame.raw()),
        }
    }

    /// The Codex CLI's timer is reset by events only, of whatever type: it skips those that it does not
    /// know (clients.md 1.2). SDKs might not, and read comments.
    fn keep_alive(&self) -> Bytes {
        let for_codex_cli = self.items.is_none();
        Bytes::from_static(if for_codex_cli {
            b"event: keepalive\ndata: {\"type\":\"keepalive\"}\n\n"
        } else {
            b": keep-alive\n\n"
        })
    }

    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut) {
        let Some(problem) = failure.filter(|_| !self.ended) else { return };
        self.ended = true;
        let response = FailedResponse {
            id: &self.response_id,
            object: "response",
            created_at: self.created_at,
            status: "failed",
            model: &self.model,
            output: [],
            parallel_tool_calls: true,
            tool_choice: "auto",
            tools: [],
            error: FailedError { code: code(problem), message: &problem.message, resets_at: problem.resets_at },
        };
        let Ok(mut response) = serde_json::value::to_raw_value(&response) else { return };
        if let Some(filled) = self.items.as_mut().and_then(|items| items.fill(Raw::from(&*response), &self.echo))
            && let Ok(filled) = RawValue::from_string(filled)
        {
            response = filled;
        }
        let newest = self.newest.number();
        let failed = Ended {
            kind: "response.failed",
            sequence_number: newest.map_or(self.frames, |newest| newest.saturating_add(1)),
            response: &response,
        };
        write("response.failed", &serde_json::to_string(&failed).unwrap_or_default(), out);
    }
}

/// The newest frame of a stream, or how it begins: a copy, for the frame itself would keep the connection
/// from using its buffer again for as long as the stream is silent.
#[derive(Default)]
struct Newest(Vec<u8>);

impl Newest {
    /// Most events are shorter, and in those that are not the number comes early.
    const MOST: usize = 512;

    fn note(&mut self, frame: &Frame) {
        self.0.clear();
        self.0.extend_from_slice(&frame.raw()[..frame.raw().len().min(Self::MOST)]);
    }

    fn number(&self) -> Option<u64> {
        number(&Frame::copied(&self.0))
    }
}

/// The frame's place in the stream, as the backend counts.
pub(super) fn number(frame: &Frame) -> Option<u64> {
    event::sequence_number(&frame.data()?)
}

/// Codes as the Codex CLI understands them (protocol.md 3): a cut stream is to be tried again, a
/// limit that is used up is not, and has this name inside a stream.
fn code(problem: &Problem) -> &str {
    match problem.kind {
        ProblemKind::UsageLimit => "insufficient_quota",
        ProblemKind::Upstream | ProblemKind::UpstreamTimeout | ProblemKind::Internal => "server_error",
        _ => problem.openai_code().unwrap_or("server_error"),
    }
}

pub(super) fn write(kind: &str, json: &str, out: &mut BytesMut) {
    out.reserve(kind.len() + json.len() + 20);
    out.put_slice(b"event: ");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\ndata: ");
    out.put_slice(json.as_bytes());
    out.put_slice(b"\n\n");
}

#[derive(Serialize)]
struct Ended<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    response: &'a RawValue,
}

/// As much of a response object as strict readers ask for.
#[derive(Serialize)]
struct FailedResponse<'a> {
    id: &'a str,
    object: &'static str,
    created_at: i64,
    status: &'static str,
    model: &'a str,
    output: [(); 0],
    parallel_tool_calls: bool,
    tool_choice: &'static str,
    tools: [(); 0],
    error: FailedError<'a>,
}

#[derive(Serialize)]
struct FailedError<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<i64>,
}
