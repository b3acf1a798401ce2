//! Anthropic Messages against golden files: `tests/golden/messages/<case>/`.
//!
//! A case has a `request.json` and its `expect.request.json` (what goes upstream, or the refusal);
//! most have a `stream.sse` of the backend, with `expect.stream` (what a streaming client reads) and
//! `expect.json` (what another client gets). Each stream is also cut at every byte. After a change
//! that is meant, `UPDATE_GOLDEN=1 cargo test --test golden_messages` writes what is; read the diff.

#![expect(clippy::unwrap_used, reason = "a test's own input, and a panic is its verdict")]

#[path = "golden_messages/grammar.rs"]
mod grammar;
#[path = "golden_messages/properties.rs"]
mod properties;
#[path = "golden_messages/recorded.rs"]
mod recorded;
#[path = "golden_messages/run.rs"]
mod run;

use bytes::Bytes;
use run::{answer, context, models, prepare_json};
use std::fs;
use std::path::{Path, PathBuf};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/messages");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

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
        let body = Bytes::from(fs::read(case.join("request.json")).unwrap());
        expect(&case.join("expect.request.json"), &prepare_json(&body), &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn answers_come_down_as_the_golden_files_say() {
    let mut faults = Vec::new();
    let mut streams = 0;
    for case in cases() {
        let Ok(sse) = fs::read(case.join("stream.sse")) else { continue };
        streams += 1;
        let body = Bytes::from(fs::read(case.join("request.json")).unwrap());
        let prepared = tollway::dialect::messages::prepare(&body, &context(), &models()).unwrap_or_else(|problem| {
            panic!("{}: {}", case.display(), problem.message);
        });
        let answer = answer(&*prepared.reply, &[&sse]);
        grammar::check(&answer.stream).unwrap_or_else(|fault| panic!("{}: {fault}", case.display()));
        expect(&case.join("expect.stream"), &answer.stream, &mut faults);
        expect(&case.join("expect.json"), &answer.whole, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
    assert!(streams >= 40, "{streams} streams");
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    for case in cases() {
        let Ok(sse) = fs::read(case.join("stream.sse")) else { continue };
        let body = Bytes::from(fs::read(case.join("request.json")).unwrap());
        let prepared = tollway::dialect::messages::prepare(&body, &context(), &models()).unwrap();
        let uncut = answer(&*prepared.reply, &[&sse]);
        for at in 1..sse.len() {
            let (head, tail) = sse.split_at(at);
            let cut = answer(&*prepared.reply, &[head, tail]);
            assert_eq!(cut, uncut, "{} cut at {at}", case.display());
        }
    }
}
