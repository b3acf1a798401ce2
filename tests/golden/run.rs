//! Runs a request and a stream through a dialect, as the relay does.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tollway::codex::event::Depth;
use tollway::codex::sse::{Decoder, Frame};
use tollway::codex::{Event, Failure, FailureKind};
use tollway::dialect::images::{self, Asked, Task};
use tollway::dialect::{Context, Dialect, ModelMap, Prepared, Problem, Reply, chat, messages, responses};

/// Which way a request comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    CodexCli,
    Images,
    Messages,
    Responses,
}

impl Api {
    pub(crate) const ALL: [Self; 5] = [Self::Chat, Self::CodexCli, Self::Images, Self::Messages, Self::Responses];

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Chat => Dialect::Chat,
            Self::Messages => Dialect::Messages,
            Self::CodexCli | Self::Images | Self::Responses => Dialect::Responses,
        }
    }

    /// A request that asks for all that an answer can show.
    pub(crate) fn plain_request(self) -> &'static [u8] {
        match self {
            Self::Chat => {
                br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream_options":{"include_usage":true}}"#
            }
            Self::Messages => {
                br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"thinking":{"type":"adaptive"}}"#
            }
            Self::Images => br#"{"prompt":"a fox","stream":true,"partial_images":3}"#,
            Self::CodexCli | Self::Responses => br#"{"model":"m","input":"hi","stream":true}"#,
        }
    }
}

pub(crate) fn prepare(api: Api, body: &[u8]) -> Result<Prepared, Problem> {
    let context = Context { request_id: "req_1".to_owned(), now: 1_795_000_000 };
    let models = ModelMap::new([
        ("fast", "gpt-6-luna:low"),
        ("best*", "gpt-6.1-sol"),
        ("claude-haiku*", "gpt-6-luna:low"),
        ("claude-*", "gpt-6.1-sol"),
    ]);
    let body = Bytes::copy_from_slice(body);
    match api {
        Api::Chat => chat::prepare(&body, &context, &models),
        Api::Images => prepare_images(&body, &context, &models),
        Api::Messages => messages::prepare(&body, &context, &models),
        Api::Responses => responses::request::prepare(&body, &context, &models, false),
        Api::CodexCli => responses::request::prepare(&body, &context, &models, true),
    }
}

/// A request that shows pictures is one to change them. What goes by the backend's own call has no
/// translator: that of a plain request stands in.
fn prepare_images(body: &Bytes, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let shows = serde_json::from_slice::<Value>(body).is_ok_and(|body| body.get("images").is_some());
    let task = if shows { Task::Edit } else { Task::Generate };
    let host = models.host("gpt-5.5:low");
    match images::prepare(body, task, context, &host)? {
        Asked::Tool(prepared) => Ok(*prepared),
        Asked::Call(pictures) => {
            let plain = images::prepare(Api::Images.plain_request(), Task::Generate, context, &host)?;
            let Asked::Tool(plain) = plain else { panic!("a stream is made by the tool") };
            let (requested_model, model) = ("gpt-image".to_owned(), "none".to_owned());
            Ok(Prepared {
                body: pictures.body,
                ignored: pictures.ignored,
                stream: false,
                requested_model,
                model,
                ..*plain
            })
        }
    }
}

/// What becomes of a request: the upstream body and what is known beside it, or the refusal.
pub(crate) fn prepare_json(api: Api, body: &[u8]) -> String {
    let value = match prepare(api, body) {
        Ok(prepared) => json!({
            "upstream": serde_json::from_slice::<Value>(&prepared.body).unwrap(),
            "model": prepared.model,
            "requested_model": prepared.requested_model,
            "stream": prepared.stream,
            "ignored": prepared.ignored,
            "session": prepared.session,
        }),
        Err(problem) => rendered(api, &problem),
    };
    pretty(&value)
}

fn rendered(api: Api, problem: &Problem) -> Value {
    let rendered = api.dialect().render(problem, "req_1");
    json!({
        "status": rendered.status.as_u16(),
        "body": serde_json::from_slice::<Value>(&rendered.body).unwrap(),
    })
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// What the two kinds of client get.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) stream: String,
    /// The answer, or the error that stands for it; pretty JSON.
    pub(crate) whole: String,
    /// Whether it is an error.
    pub(crate) failed: bool,
}

/// Feeds a stream to both translators, each up to its end.
pub(crate) fn answer(api: Api, reply: &dyn Reply, chunks: &[&[u8]]) -> Answer {
    let (mut translator, mut out) = (reply.stream(), BytesMut::new());
    let depth = translator.depth();
    let ended = read(chunks, depth, |event, frame| {
        translator.event(event, frame, &mut out);
        translator.is_done()
    });
    translator.finish(ended.as_ref().err(), &mut out);

    let mut folder = reply.whole();
    let depth = folder.depth();
    let end_of_whole = read(chunks, depth, |event, _| {
        folder.event(event);
        folder.is_done()
    });
    assert_eq!(end_of_whole.is_err(), ended.is_err(), "the stream and the whole answer end alike");
    let failure = end_of_whole.err().or_else(|| folder.shortfall().map(|failure| Problem::from(&failure)));
    let whole = match &failure {
        None => serde_json::from_slice(&folder.finish()).unwrap(),
        Some(problem) => rendered(api, problem),
    };
    // What passes as bytes may hold anything.
    let stream = String::from_utf8_lossy(&out).into_owned();
    Answer { stream, whole: pretty(&whole), failed: failure.is_some() }
}

/// What a stream's translator writes upon each event; the end belongs to the last one.
pub(crate) fn trace(reply: &dyn Reply, stream: &[u8]) -> Vec<(String, String)> {
    let mut translator = reply.stream();
    let depth = translator.depth();
    let mut written: Vec<(String, String)> = Vec::new();
    let ended = read(&[stream], depth, |event, frame| {
        let mut out = BytesMut::new();
        translator.event(event, frame, &mut out);
        let kind = serde_json::from_slice::<Value>(&frame.data().unwrap()).unwrap()["type"].clone();
        written.push((kind.as_str().unwrap_or_default().to_owned(), String::from_utf8_lossy(&out).into_owned()));
        translator.is_done()
    });
    // A stream that was cut has an end that no event is to blame for.
    let is_terminal =
        |kind: &str| ["response.completed", "response.incomplete", "response.failed", "error"].contains(&kind);
    if let Some((_, last)) = written.last_mut().filter(|(kind, _)| is_terminal(kind)) {
        let mut out = BytesMut::new();
        translator.finish(ended.as_ref().err(), &mut out);
        last.push_str(&String::from_utf8_lossy(&out));
    }
    written
}

/// Reads events until the terminal one, or until `take` says that it has enough.
fn read(chunks: &[&[u8]], depth: Depth, mut take: impl FnMut(&Event<'_>, &Frame) -> bool) -> Result<(), Problem> {
    let mut decoder = Decoder::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(frame) = decoder.next_frame().map_err(|_| cut("an event of the backend is too long"))? {
            let Some(data) = frame.data() else { continue };
            let event = Event::parse(&data, depth).map_err(|_| cut("an event of the backend was not legible"))?;
            let is_done = take(&event, &frame);
            match &event {
                Event::Failed(failed) => {
                    return Err(Problem::from(&Failure::of_failed(&failed.summary().cloned().unwrap_or_default(), 0)));
                }
                Event::Error(error) => return Err(Problem::from(&Failure::of_error_event(error, 0))),
                event if is_done || event.is_terminal() => return Ok(()),
                _ => {}
            }
        }
    }
    Err(cut("the backend cut the stream"))
}

fn cut(reason: &str) -> Problem {
    Problem::from(&Failure::of(FailureKind::StreamCut, reason))
}
