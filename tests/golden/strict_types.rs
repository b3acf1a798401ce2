//! Every answer, streamed and whole, is taken by the official SDKs' own types, strictly; and the lists
//! of fields are the SDKs' (`tests/clients/strict_types.py`).

use super::cases::{cases, root};
use super::grammar;
use super::recorded::recordings;
use super::run::{Answer, Api, answer, prepare};
use super::tools::{Tools, skip};
use serde_json::{Value, json};
use std::process::Command;

/// Cases of `responses` in which the backend sends, and a client gets, what no type knows.
const ODD: [&str; 2] = ["failed_is_passed_once", "unknown_events_pass"];

/// One answer as the script reads it: a line of JSON.
fn line(name: &str, api: Api, answer: &Answer, all_events: bool) -> String {
    let mut events = grammar::responses::events(&answer.stream.replace("data: [DONE]", "")).unwrap();
    if !all_events {
        // What passes is the backend's, with events that the SDK has no type for; the end is ours.
        events = events.split_off(events.len() - 1);
    }
    let whole: Value = serde_json::from_str(&answer.whole).unwrap();
    let dialect = if api == Api::Images { "images" } else { api.dialect().as_str() };
    json!({ "name": name, "dialect": dialect, "events": events, "whole": whole, "failed": answer.failed }).to_string()
}

#[test]
fn the_sdks_types_take_every_answer() {
    let Some(python) = Tools::new().python() else { return skip("the SDKs' types") };
    let mut lines = Vec::new();
    for case in cases() {
        let is_odd = case.api == Api::CodexCli || ODD.contains(&case.name());
        let (Some(stream), false) = (&case.stream, is_odd) else { continue };
        let reply = prepare(case.api, &case.request).unwrap().reply;
        let is_ours = case.api != Api::Responses;
        lines.push(line(case.name(), case.api, &answer(case.api, &*reply, &[stream]), is_ours));
    }
    for recording in recordings() {
        lines.push(line(&recording.name, Api::Chat, &recording.play(Api::Chat), true));
        lines.push(line(&recording.name, Api::Messages, &recording.play(Api::Messages), true));
        let passed = recording.play(Api::Responses);
        if recording.is_whole() && !passed.failed {
            lines.push(line(&recording.name, Api::Responses, &passed, false));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let answers = directory.path().join("answers.jsonl");
    std::fs::write(&answers, lines.join("\n")).unwrap();
    let mut command = Command::new(python);
    command.arg(Tools::script("strict_types.py")).arg(&answers).arg(root().join("fields"));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}
