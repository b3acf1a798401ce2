//! Recorded streams of other people, where they are at hand; they are not ours to commit.

use super::{grammar, run};
use bytes::Bytes;
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

/// The responses in a recording, one for each step of a conversation: the events of each.
fn responses(recording: &Path) -> Vec<Vec<Value>> {
    let text = fs::read_to_string(recording).unwrap();
    let mut responses: Vec<Vec<Value>> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["type"] == "response.created" || responses.is_empty() {
            responses.push(Vec::new());
        }
        responses.last_mut().unwrap().push(event);
    }
    responses
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

/// The text of the finished messages.
fn finished_texts(events: &[Value]) -> String {
    let items = events.iter().filter(|event| event["type"] == "response.output_item.done").map(|event| &event["item"]);
    let parts = items.filter(|item| item["type"] == "message").flat_map(|item| item["content"].as_array().unwrap());
    parts.filter_map(|part| part["text"].as_str()).collect()
}

fn texts(content: &[Value], kind: &str) -> String {
    content.iter().filter_map(|block| block[kind].as_str()).collect()
}

#[test]
fn recorded_streams_give_legal_answers_with_all_that_was_said() {
    let recordings = recordings();
    if recordings.is_empty() {
        eprintln!("skipped: no recorded streams (set TOLLWAY_FIXTURES)");
        return;
    }
    for recording in recordings {
        for events in responses(&recording) {
            check(&recording.display().to_string(), &events);
        }
    }
}

fn check(name: &str, events: &[Value]) {
    let body = Bytes::from_static(
        br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"thinking":{"type":"adaptive"}}"#,
    );
    let prepared = tollway::dialect::messages::prepare(&body, &run::context(), &run::models()).unwrap();
    let answer = run::answer(&*prepared.reply, &[&sse(events)]);
    let said = grammar::check(&answer.stream).unwrap_or_else(|fault| panic!("{name}: {fault}"));

    // Some recordings leave out deltas, none leaves out items.
    assert_eq!(texts(&said.content, "text"), finished_texts(events), "{name}");
    let mut calls = said.content.iter().filter(|block| block["type"] == "tool_use");
    assert!(calls.all(|call| call["input"]["INVALID_JSON"].is_null()), "{name}");
    let summary = joined(events, "response.reasoning_summary_text.delta");
    assert_eq!(texts(&said.content, "thinking").replace('\n', ""), summary.replace('\n', ""), "{name}");

    let terminal = &events.last().unwrap()["response"];
    if terminal["status"] != "completed" {
        return assert_eq!(said.stop_reason, None, "{name}");
    }
    let whole: Value = serde_json::from_str(&answer.whole).unwrap();
    assert_eq!(whole["content"], Value::from(said.content), "{name}");
    assert_eq!(whole["stop_reason"].as_str(), said.stop_reason.as_deref(), "{name}");
    let input = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
    let sum: u64 = input.iter().map(|field| said.usage[field].as_u64().unwrap()).sum();
    assert_eq!(sum, terminal["usage"]["input_tokens"].as_u64().unwrap(), "{name}");
}
