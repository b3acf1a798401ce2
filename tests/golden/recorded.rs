//! Recorded streams of other people, where they are at hand; they are not ours to commit.

use super::grammar;
use super::run::{Answer, Api, answer, prepare};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A recorded response: what it was recorded in, and its events.
pub(crate) struct Recording {
    pub(crate) name: String,
    pub(crate) events: Vec<Value>,
}

/// `TOLLWAY_FIXTURES`, else the folder beside the repository.
fn root() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    std::env::var_os("TOLLWAY_FIXTURES").map_or_else(default, PathBuf::from)
}

/// The responses in the recordings, one for each step of a conversation.
pub(crate) fn recordings() -> Vec<Recording> {
    let mut recordings = Vec::new();
    for file in fs::read_dir(root().join("vercel-ai")).into_iter().flatten().flatten() {
        let name = file.path().display().to_string();
        if name.ends_with(".chunks.txt") {
            let text = fs::read_to_string(file.path()).unwrap();
            recordings.extend(responses(&text).map(|events| Recording { name: name.clone(), events }));
        }
    }
    if let Ok(text) = fs::read_to_string(root().join("openai-codex/cli_responses_fixture.sse")) {
        let data: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .fold(String::new(), |all, line| all + line + "\n");
        recordings
            .extend(responses(&data).map(|events| Recording { name: "cli_responses_fixture.sse".to_owned(), events }));
    }
    if recordings.is_empty() {
        eprintln!("skipped: no recorded streams (set TOLLWAY_FIXTURES)");
    }
    recordings
}

/// The events of each response, from lines of JSON.
fn responses(text: &str) -> impl Iterator<Item = Vec<Value>> {
    let mut responses: Vec<Vec<Value>> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["type"] == "response.created" || responses.is_empty() {
            responses.push(Vec::new());
        }
        responses.last_mut().unwrap().push(event);
    }
    responses.into_iter()
}

fn sse(events: &[Value]) -> Vec<u8> {
    let mut sse = String::new();
    for event in events {
        write!(sse, "event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()).unwrap();
    }
    sse.into_bytes()
}

impl Recording {
    /// Through a dialect, whose grammar the answer must keep.
    pub(crate) fn play(&self, api: Api) -> Answer {
        let answer = answer(api, &*prepare(api, api.plain_request()).unwrap().reply, &[&sse(&self.events)]);
        grammar::check(api, &answer).unwrap_or_else(|fault| panic!("{}: {fault}", self.name));
        answer
    }

    /// Whether nothing was taken out of it, nor is it made by hand.
    pub(crate) fn is_whole(&self) -> bool {
        grammar::responses::strict(&String::from_utf8(sse(&self.events)).unwrap()).is_ok()
    }

    fn joined(&self, kind: &str) -> String {
        self.events.iter().filter(|event| event["type"] == kind).filter_map(|event| event["delta"].as_str()).collect()
    }

    /// The finished items of a kind. Recordings may leave out deltas, none leaves out items.
    fn done(&self, kind: &str) -> Vec<&Value> {
        let done = self.events.iter().filter(|event| event["type"] == "response.output_item.done");
        done.map(|event| &event["item"]).filter(|item| item["type"] == kind).collect()
    }

    fn text(&self) -> String {
        let parts = self.done("message").into_iter().flat_map(|item| item["content"].as_array().unwrap());
        parts.filter_map(|part| part["text"].as_str()).collect()
    }

    /// What the backend counted, if it did.
    fn input_tokens(&self) -> Option<u64> {
        self.end()["usage"]["input_tokens"].as_u64()
    }

    /// The last event's response.
    fn end(&self) -> &Value {
        &self.events.last().unwrap()["response"]
    }
}

#[test]
fn recorded_streams_say_in_chat_what_they_said() {
    for recording in recordings() {
        let name = &recording.name;
        let answer = recording.play(Api::Chat);
        let said = grammar::chat::read(&answer.stream).unwrap();
        let deltas = recording.joined("response.output_text.delta");
        assert!(said.text == recording.text() || said.text == deltas, "{name}: {}", said.text);
        let summary = recording.joined("response.reasoning_summary_text.delta");
        assert_eq!(said.reasoning.replace('\n', ""), summary.replace('\n', ""), "{name}");
        let functions = recording.done("function_call");
        for (call, item) in said.calls.iter().zip(&functions) {
            assert_eq!(call["function"]["arguments"], item["arguments"], "{name}");
            serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).unwrap();
        }
        assert_eq!(said.calls.len(), functions.len() + recording.done("custom_tool_call").len(), "{name}");
        if let Some(input) = recording.input_tokens() {
            assert_eq!(said.usage.unwrap()["prompt_tokens"], input, "{name}");
        }
    }
}

#[test]
fn recorded_streams_say_in_messages_what_they_said() {
    let texts =
        |content: &[Value], kind: &str| -> String { content.iter().filter_map(|block| block[kind].as_str()).collect() };
    for recording in recordings() {
        let name = &recording.name;
        let answer = recording.play(Api::Messages);
        let said = grammar::messages::read(&answer.stream).unwrap();
        assert_eq!(texts(&said.content, "text"), recording.text(), "{name}");
        let mut calls = said.content.iter().filter(|block| block["type"] == "tool_use");
        assert!(calls.all(|call| call["input"]["INVALID_JSON"].is_null()), "{name}");
        let summary = recording.joined("response.reasoning_summary_text.delta");
        assert_eq!(texts(&said.content, "thinking").replace('\n', ""), summary.replace('\n', ""), "{name}");
        if let Some(recorded) = recording.input_tokens() {
            let input = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"];
            let sum: u64 = input.iter().map(|field| said.usage[field].as_u64().unwrap()).sum();
            assert_eq!(sum, recorded, "{name}");
        }
    }
}

/// Whether `whole` says all that `recorded` says; more may be added where SDKs ask for it, and an
/// output that the backend left empty is filled.
fn says_all(whole: &Value, recorded: &Value) -> bool {
    match (whole, recorded) {
        (Value::Object(whole), Value::Object(recorded)) => recorded
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|said| value.is_null() || says_all(said, value))),
        (Value::Array(_), Value::Array(recorded)) if recorded.is_empty() => true,
        _ => whole == recorded,
    }
}

#[test]
fn recorded_streams_pass_through_responses() {
    let (recordings, mut strict) = (recordings(), 0);
    for recording in &recordings {
        let (name, events) = (&recording.name, &recording.events);
        for api in [Api::Responses, Api::CodexCli] {
            let answer = recording.play(api);
            // These end with their output filled; what may be added is what SDKs want of the response
            // object, and the Codex CLI does not.
            let frames: Vec<&str> = answer.stream.split_inclusive("\n\n").collect();
            assert!(frames.len() >= events.len() - 1, "{name}");
            for (frame, event) in frames.iter().zip(&events[..events.len() - 1]) {
                if api == Api::Responses && event.get("response").is_some() {
                    let said = grammar::responses::events(frame).unwrap();
                    assert!(says_all(&said[0], event), "{name}: {frame}");
                } else {
                    assert_eq!(frame.as_bytes(), sse(std::slice::from_ref(event)), "{name}");
                }
            }
            if recording.is_whole() {
                strict += 1;
                grammar::responses::strict(&answer.stream).unwrap_or_else(|fault| panic!("{name}: {fault}"));
            }
            if !answer.failed {
                let whole: Value = serde_json::from_str(&answer.whole).unwrap();
                assert!(says_all(&whole, recording.end()), "{name}");
            }
        }
    } // Few were thinned out when they were recorded.
    assert!(recordings.is_empty() || strict > recordings.len(), "{strict} streams are whole");
}
