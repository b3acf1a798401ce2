//! Recorded streams of other people, where they are at hand; they are not ours to commit.

use super::grammar;
use super::run::{Api, answer, prepare};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// `TOLLWAY_FIXTURES`, else the folder beside the repository.
fn recordings() -> Vec<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let root = std::env::var_os("TOLLWAY_FIXTURES").map_or_else(default, PathBuf::from);
    let files = fs::read_dir(root.join("vercel-ai")).into_iter().flatten().flatten();
    files.map(|file| file.path()).filter(|path| path.to_string_lossy().ends_with(".chunks.txt")).collect()
}

/// The events of a recording's first response: some hold a whole conversation.
fn events(recording: &Path) -> Vec<Value> {
    let text = fs::read_to_string(recording).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut events: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let terminals = ["response.completed", "response.failed", "error"];
    let end = events.iter().position(|event| terminals.iter().any(|kind| event["type"] == *kind)).unwrap();
    events.truncate(end + 1);
    events
}

fn sse(events: &[Value]) -> Vec<u8> {
    let mut sse = String::new();
    for event in events {
        write!(sse, "event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()).unwrap();
    }
    sse.into_bytes()
}

fn joined(events: &[Value], kind: &str) -> String {
    events.iter().filter(|event| event["type"] == kind).filter_map(|event| event["delta"].as_str()).collect()
}

fn done<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let items = events.iter().filter(|event| event["type"] == "response.output_item.done").map(|event| &event["item"]);
    items.filter(|item| item["type"] == kind).collect()
}

#[test]
fn recorded_streams_say_in_chat_what_they_said() {
    let recordings = recordings();
    if recordings.is_empty() {
        eprintln!("skipped: no recorded streams (set TOLLWAY_FIXTURES)");
    }
    let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream_options":{"include_usage":true}}"#;
    for recording in recordings {
        let (name, events) = (recording.display(), events(&recording));
        let answer = answer(Api::Chat, &*prepare(Api::Chat, body).unwrap().reply, &[&sse(&events)]);
        grammar::check(Api::Chat, &answer).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let said = grammar::chat(&answer.stream).unwrap();

        // Recordings may have been thinned out: the finished items have the whole text.
        let content = done(&events, "message").into_iter().flat_map(|item| item["content"].as_array().unwrap());
        let text: String = content.filter_map(|part| part["text"].as_str()).collect();
        let deltas = joined(&events, "response.output_text.delta");
        assert!(said.text == text || said.text == deltas, "{name}: {}", said.text);
        let summary = joined(&events, "response.reasoning_summary_text.delta");
        assert_eq!(said.reasoning.replace('\n', ""), summary.replace('\n', ""), "{name}");
        for (call, item) in said.calls.iter().zip(done(&events, "function_call")) {
            assert_eq!(call["function"]["arguments"], item["arguments"], "{name}");
            serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).unwrap();
        }
        let calls = done(&events, "function_call").len() + done(&events, "custom_tool_call").len();
        assert_eq!(said.calls.len(), calls, "{name}");
        if !said.failed {
            let usage = &events.last().unwrap()["response"]["usage"];
            assert_eq!(said.usage.unwrap()["prompt_tokens"], usage["input_tokens"], "{name}");
        }
    }
}

/// Whether `whole` says all that `recorded` says; more may be added where SDKs ask for it.
fn says_all(whole: &Value, recorded: &Value) -> bool {
    match (whole, recorded) {
        (Value::Object(whole), Value::Object(recorded)) => recorded
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|said| value.is_null() || says_all(said, value))),
        _ => whole == recorded,
    }
}

#[test]
fn recorded_streams_pass_through_responses() {
    for recording in recordings() {
        let events = events(&recording);
        let (name, sse) = (recording.display(), sse(&events));
        for api in [Api::Responses, Api::CodexCli] {
            let body = br#"{"model":"m","input":"hi","stream":true}"#;
            let answer = answer(api, &*prepare(api, body).unwrap().reply, &[&sse]);
            grammar::check(api, &answer).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            // These end with their output filled; what may be added are counts that they lack.
            let last = sse.len() - self::sse(&events[events.len() - 1..]).len();
            assert_eq!(&answer.stream.as_bytes()[..last], &sse[..last], "{name}");
            if !answer.failed {
                let whole: Value = serde_json::from_str(&answer.whole).unwrap();
                assert!(says_all(&whole, &events.last().unwrap()["response"]), "{name}");
            }
        }
    }
}
