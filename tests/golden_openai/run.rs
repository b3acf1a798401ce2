//! Runs a request and a stream through a dialect, as the relay does.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tollway::codex::sse::Decoder;
use tollway::codex::{Event, Failure, FailureKind};
use tollway::dialect::{Context, Dialect, ModelMap, Prepared, Problem, Reply, chat, responses};

/// Which way a request comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    Responses,
    CodexCli,
}

pub(crate) fn prepare(api: Api, body: &[u8]) -> Result<Prepared, Problem> {
    let context = Context { request_id: "req_1".to_owned(), now: 1_795_000_000 };
    let models = ModelMap::new([("fast", "gpt-6-luna:low"), ("best*", "gpt-6.1-sol")]);
    let body = Bytes::copy_from_slice(body);
    match api {
        Api::Chat => chat::prepare(&body, &context, &models),
        Api::Responses => responses::request::prepare(&body, &context, &models, false),
        Api::CodexCli => responses::request::prepare(&body, &context, &models, true),
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
    serde_json::to_string_pretty(&value).unwrap() + "\n"
}

fn rendered(api: Api, problem: &Problem) -> Value {
    let dialect = if api == Api::Chat { Dialect::Chat } else { Dialect::Responses };
    let rendered = dialect.render(problem, "req_1");
    json!({
        "status": rendered.status.as_u16(),
        "body": serde_json::from_slice::<Value>(&rendered.body).unwrap(),
    })
}

/// What the two kinds of client get.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) stream: String,
    /// The answer, or the error that stands for it; pretty JSON.
    pub(crate) whole: String,
    pub(crate) failed: bool,
}

/// Feeds a stream to both translators, up to its terminal event.
pub(crate) fn answer(api: Api, reply: &dyn Reply, chunks: &[&[u8]]) -> Answer {
    let (mut translator, mut folder) = (reply.stream(), reply.whole());
    let (mut decoder, mut out) = (Decoder::new(), BytesMut::new());
    let mut failure = Some(Failure::of(FailureKind::StreamCut, "the backend cut the stream"));
    let mut is_over = false;
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(frame) = decoder.next_frame().unwrap() {
            let Some(data) = frame.data().filter(|_| !is_over) else { continue };
            let (Ok(event), Ok(same)) = (Event::parse(&data, translator.depth()), Event::parse(&data, folder.depth()))
            else {
                is_over = true;
                failure = Some(Failure::of(FailureKind::StreamCut, "an event of the backend was not legible"));
                continue;
            };
            translator.event(&event, &frame, &mut out);
            folder.event(&same);
            is_over = event.is_terminal();
            failure = match &event {
                Event::Completed(_) | Event::Incomplete(_) => None,
                Event::Failed(failed) => Some(Failure::of_failed(&failed.summary().unwrap_or_default(), 0)),
                Event::Error(error) => Some(Failure::of_error_event(error, 0)),
                _ => failure,
            };
        }
    }
    let problem = failure.as_ref().map(Problem::from);
    translator.finish(problem.as_ref(), &mut out);
    let whole = match &problem {
        None => serde_json::from_slice(&folder.finish()).unwrap(),
        Some(problem) => rendered(api, problem),
    };
    let whole = serde_json::to_string_pretty(&whole).unwrap() + "\n";
    Answer { stream: String::from_utf8(out.to_vec()).unwrap(), whole, failed: problem.is_some() }
}
