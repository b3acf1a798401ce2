//! Every dialect against golden files: `tests/golden/<dialect>/<case>/`.
//!
//! A case has a `request.json` and its `expect.request.json` (what goes upstream, or the refusal);
//! most have a `stream.sse` of the backend, with `expect.stream` (what a streaming client reads) and
//! `expect.json` (what another client gets). Each stream is also cut at every byte. After a change
//! that is meant, `UPDATE_GOLDEN=1 cargo test --test golden` writes what is; read the diff. A case
//! of `responses` whose name begins with `codex_cli` is a request of the Codex CLI.

#![expect(clippy::unwrap_used, reason = "a test's own input, and a panic is its verdict")]

mod cases;
mod grammar;
mod page;
mod properties;
mod recorded;
mod run;
mod strict_types;
mod tables;
mod themes;
#[path = "../support/tools.rs"]
#[expect(dead_code, reason = "shared with the tests of the gateway")]
mod tools;

use cases::cases;
use run::{Api, answer, prepare, prepare_json};
use std::fs;
use std::path::Path;

/// Compares with the file, or writes it when asked to.
fn expect(path: &Path, actual: &str, faults: &mut Vec<String>) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != actual {
        faults.push(format!("{}\n--- expected\n{expected}\n--- actual\n{actual}", path.display()));
    }
}

#[test]
fn requests_go_upstream_as_the_golden_files_say() {
    let mut faults = Vec::new();
    for case in cases() {
        let actual = prepare_json(case.api, &case.request);
        expect(&case.directory.join("expect.request.json"), &actual, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn answers_come_down_as_the_golden_files_say() {
    let mut faults = Vec::new();
    for case in cases() {
        let Some(sse) = &case.stream else { continue };
        let name = case.directory.display();
        let prepared = prepare(case.api, &case.request).unwrap_or_else(|problem| panic!("{name}: {problem:?}"));
        let answer = answer(case.api, &*prepared.reply, &[sse]);
        if let Err(fault) = grammar::check(case.api, &answer) {
            faults.push(format!("{name}: {fault}"));
        }
        expect(&case.directory.join("expect.stream"), &answer.stream, &mut faults);
        expect(&case.directory.join("expect.json"), &answer.whole, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// Byte by byte is a cut at every byte; the streams about framing are also cut in two at each.
#[test]
fn a_cut_at_any_byte_changes_nothing() {
    for case in cases() {
        let Some(sse) = &case.stream else { continue };
        let name = case.directory.display();
        let prepared = prepare(case.api, &case.request).unwrap();
        let uncut = answer(case.api, &*prepared.reply, &[sse]);
        let bytes: Vec<&[u8]> = sse.chunks(1).collect();
        assert_eq!(answer(case.api, &*prepared.reply, &bytes), uncut, "{name} byte by byte");
        if case.name().starts_with("fram") {
            for at in 1..sse.len() {
                let (head, tail) = sse.split_at(at);
                let cut = answer(case.api, &*prepared.reply, &[head, tail]);
                assert_eq!(cut, uncut, "{name} cut at {at}");
            }
        }
    }
}

#[test]
fn schemas_go_upstream_to_the_byte() {
    let schema = r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"minimum":1.0}}}"#;
    let tools = format!(r#"{{"type":"function","name":"f","parameters":{schema}}},{{"type":"web_search_preview"}}"#);
    for (api, said) in
        [(Api::Responses, r#""input":"hi""#), (Api::Chat, r#""messages":[{"role":"user","content":"hi"}]"#)]
    {
        let body = format!(r#"{{"model":"m",{said},"tools":[{tools}]}}"#);
        let upstream = prepare(api, body.as_bytes()).unwrap().body;
        assert!(String::from_utf8_lossy(&upstream).contains(schema), "{api:?}");
    }
}
