//! A turn as chunks.

use super::Shape;
use super::error::envelope;
use super::turn::{Call, Sink, Turn};
use super::whole::UsageObject;
use crate::codex::Event;
use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::dialect::{Problem, Translator};
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Writes a stream of chunks.
pub(super) struct Chunks {
    turn: Turn,
    head: Head,
}

/// What every chunk repeats.
struct Head {
    shape: Arc<Shape>,
    id: String,
    /// Whether the role has been said.
    begun: bool,
}

impl Chunks {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        let head = Head { id: shape.id(), shape: shape.clone(), begun: false };
        Self { turn: Turn::new(shape), head }
    }
}

impl Translator for Chunks {
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>, _: &Frame, out: &mut BytesMut) {
        let Self { turn, head } = self;
        if matches!(event, Event::Created(_)) {
            head.begin(out);
        }
        turn.event(event, &mut Writer { head, out });
    }

    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut) {
        let Some(finish) = self.turn.finish else {
            // A stream that failed must not look like one that ended.
            let problem = failure.cloned().unwrap_or_else(|| {
                Problem::new(crate::dialect::ProblemKind::Upstream, "the backend's stream ended early")
            });
            out.put_slice(b"data: ");
            out.put_slice(envelope(&problem).as_bytes());
            out.put_slice(b"\n\n");
            return;
        };
        self.head.begin(out);
        self.head.write(Delta::default(), Some(finish.as_str()), out);
        if self.head.shape.include_usage {
            let usage = UsageObject::from(self.turn.usage.unwrap_or_default());
            self.head.chunk(&[], UsageField::Known(usage), out);
        }
        out.put_slice(b"data: [DONE]\n\n");
    }
}

impl Head {
    /// The first chunk says who speaks.
    fn begin(&mut self, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) {
            let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
            self.write(delta, None, out);
        }
    }

    fn write(&self, delta: Delta<'_>, finish_reason: Option<&'static str>, out: &mut BytesMut) {
        // A client that asked for usage reads a null in every chunk but the last.
        let usage = if self.shape.include_usage { UsageField::Later } else { UsageField::Absent };
        self.chunk(&[Choice { index: 0, delta, finish_reason }], usage, out);
    }

    fn chunk(&self, choices: &[Choice<'_>], usage: UsageField, out: &mut BytesMut) {
        let chunk = Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.shape.context.now,
            model: &self.shape.model,
            choices,
            usage,
        };
        out.put_slice(b"data: ");
        // Neither the buffer nor these types can fail to serialise.
        let _ = serde_json::to_writer((&mut *out).writer(), &chunk);
        out.put_slice(b"\n\n");
    }
}

/// Writes each piece as a chunk.
struct Writer<'a> {
    head: &'a mut Head,
    out: &'a mut BytesMut,
}

impl Writer<'_> {
    fn delta(&mut self, delta: Delta<'_>) {
        self.head.begin(self.out);
        self.head.write(delta, None, self.out);
    }
}

impl Sink for Writer<'_> {
    fn text(&mut self, text: &str) {
        self.delta(Delta { content: Some(text), ..Delta::default() });
    }

    fn reasoning(&mut self, text: &str) {
        self.delta(Delta { reasoning_content: Some(text), ..Delta::default() });
    }

    fn refusal(&mut self, text: &str) {
        self.delta(Delta { refusal: Some(text), ..Delta::default() });
    }

    fn annotation(&mut self, annotation: &RawValue) {
        self.delta(Delta { annotations: Some([annotation]), ..Delta::default() });
    }

    fn call(&mut self, index: usize, call: &Call) {
        let delta = if self.head.shape.legacy {
            Delta { function_call: Some(Named { name: Some(&call.name), arguments: "" }), ..Delta::default() }
        } else {
            let id = Some(call.id.as_str());
            Delta { tool_calls: Some([CallDelta::new(index, call, id, Some(&call.name), "")]), ..Delta::default() }
        };
        self.delta(delta);
    }

    fn arguments(&mut self, index: usize, call: &Call, more: &str) {
        let delta = if self.head.shape.legacy {
            Delta { function_call: Some(Named { name: None, arguments: more }), ..Delta::default() }
        } else {
            Delta { tool_calls: Some([CallDelta::new(index, call, None, None, more)]), ..Delta::default() }
        };
        self.delta(delta);
    }
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "UsageField::is_absent")]
    usage: UsageField,
}

/// What a chunk says of usage.
#[derive(Serialize)]
#[serde(untagged)]
enum UsageField {
    /// Nothing: the client did not ask.
    Absent,
    /// `null`.
    Later,
    /// The numbers.
    Known(UsageObject),
}

impl UsageField {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    delta: Delta<'a>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<[&'a RawValue; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

#[derive(Serialize)]
struct Named<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct CustomInput<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    input: &'a str,
}

#[derive(Serialize)]
struct CallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<CustomInput<'a>>,
}

impl<'a> CallDelta<'a> {
    /// The first delta of a call carries id, type and name; the others only what is new.
    fn new(index: usize, call: &Call, id: Option<&'a str>, name: Option<&'a str>, more: &'a str) -> Self {
        let kind = id.map(|_| if call.is_custom { "custom" } else { "function" });
        Self {
            index,
            id,
            kind,
            function: (!call.is_custom).then_some(Named { name, arguments: more }),
            custom: call.is_custom.then_some(CustomInput { name, input: more }),
        }
    }
}
