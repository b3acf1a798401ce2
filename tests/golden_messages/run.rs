//! Runs a request and a stream through the dialect, as the relay does.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tollway::codex::event::Depth;
use tollway::codex::sse::Decoder;
use tollway::codex::{Event, Failure, FailureKind};
use tollway::dialect::{Context, Dialect, ModelMap, Problem, Reply, messages};

pub(crate) fn context() -> Context {
    Context { request_id: "req_1".to_owned(), now: 1_795_000_000 }
}

pub(crate) fn models() -> ModelMap {
    ModelMap::new([("claude-haiku*", "gpt-6-luna:low"), ("claude-*", "gpt-6.1-sol")])
}

/// What becomes of a request: the upstream body and what is known beside it, or the refusal.
pub(crate) fn prepare_json(body: &Bytes) -> String {
    let value = match messages::prepare(body, &context(), &models()) {
        Ok(prepared) => json!({
            "upstream": serde_json::from_slice::<Value>(&prepared.body).unwrap(),
            "model": prepared.model,
            "requested_model": prepared.requested_model,
            "stream": prepared.stream,
            "ignored": prepared.ignored,
            "session": prepared.session,
        }),
        Err(problem) => rendered(&problem),
    };
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

fn rendered(problem: &Problem) -> Value {
    let rendered = Dialect::Messages.render(problem, "req_1");
    json!({
        "status": rendered.status.as_u16(),
        "body": serde_json::from_slice::<Value>(&rendered.body).unwrap(),
    })
}

/// What the two kinds of client get.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) stream: String,
    /// The message, or the error that stands for it; pretty JSON.
    pub(crate) whole: String,
}

/// Feeds a stream to both translators.
pub(crate) fn answer(reply: &dyn Reply, chunks: &[&[u8]]) -> Answer {
    let (mut translator, mut folder) = (reply.stream(), reply.whole());
    let (mut decoder, mut out) = (Decoder::new(), BytesMut::new());
    let mut failure = Some(Failure::of(FailureKind::StreamCut, "the backend cut the stream"));
    let mut is_over = false;
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(frame) = decoder.next_frame().unwrap() {
            let Some(data) = frame.data() else { continue };
            let Ok(event) = Event::parse(&data, Depth::Full) else { continue };
            if is_over {
                continue;
            }
            translator.event(&event, &frame, &mut out);
            folder.event(&event);
            is_over = event.is_terminal();
            match &event {
                Event::Completed(_) | Event::Incomplete(_) => failure = None,
                Event::Failed(response) => failure = Some(Failure::of_failed(&response.summary().unwrap(), 0)),
                Event::Error(error) => failure = Some(Failure::of_error_event(error, 0)),
                _ => {}
            }
        }
    }
    let problem = failure.as_ref().map(Problem::from);
    translator.finish(problem.as_ref(), &mut out);
    let whole = match &problem {
        None => serde_json::from_slice(&folder.finish()).unwrap(),
        Some(problem) => rendered(problem),
    };
    let whole = serde_json::to_string_pretty(&whole).unwrap() + "\n";
    Answer { stream: String::from_utf8(out.to_vec()).unwrap(), whole }
}
