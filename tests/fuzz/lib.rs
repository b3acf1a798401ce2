//! What must hold for any bytes at all; libFuzzer looks for bytes for which it does not.
//!
//! The input of a dialect is a request and a stream of the backend, set apart by a zero byte. Without
//! one it is a request alone; an empty request stands for a plain one.

#![expect(clippy::unwrap_used, reason = "a panic is the verdict")]

#[path = "../golden/grammar/mod.rs"]
#[expect(dead_code, reason = "recorded streams are not the fuzzer's")]
mod grammar;
#[path = "../golden/run.rs"]
#[expect(dead_code, reason = "golden files are not the fuzzer's")]
mod run;

use bytes::Bytes;
use run::{Api, answer, prepare};
use serde_json::value::RawValue;
use std::borrow::Cow;
use tollway::codex::sse::Decoder;

/// Chat Completions: see [`dialect`].
pub fn chat(data: &[u8]) {
    dialect(Api::Chat, data);
}

/// OpenAI Images: see [`dialect`].
pub fn images(data: &[u8]) {
    dialect(Api::Images, data);
}

/// Anthropic Messages: see [`dialect`].
pub fn messages(data: &[u8]) {
    dialect(Api::Messages, data);
}

/// Responses, of SDKs and of the Codex CLI: see [`dialect`].
pub fn responses(data: &[u8]) {
    dialect(Api::Responses, data);
    dialect(Api::CodexCli, data);
}

/// A request is taken or refused as the client's fault, and what goes upstream is JSON. An answer is
/// legal, its stream says what the whole says, and says the same when the backend's bytes are cut.
fn dialect(api: Api, data: &[u8]) {
    let (request, stream) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], Some(&data[at + 1..])),
        None => (data, None),
    };
    let request = if request.is_empty() { api.plain_request() } else { request };
    let prepared = match prepare(api, request) {
        Ok(prepared) => prepared,
        Err(problem) => return assert!(problem.kind.status().is_client_error(), "{problem:?}"),
    };
    serde_json::from_slice::<&RawValue>(&prepared.body).unwrap();
    let Some(stream) = stream else { return };
    let uncut = answer(api, &*prepared.reply, &[stream]);
    let legal = match api {
        // What passes may be out of order; the end is ours.
        Api::CodexCli | Api::Responses => grammar::responses::ends(&uncut),
        Api::Chat | Api::Images | Api::Messages => grammar::check(api, &uncut),
    };
    if let Err(fault) = legal {
        panic!("{fault}\n{}", uncut.stream);
    }
    assert_eq!(answer(api, &*prepared.reply, &pieces(stream)), uncut);
}

/// The decoder yields what the standard's own words yield, however the bytes are cut.
pub fn sse(data: &[u8]) {
    let expected = by_the_standard(data);
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    for chunks in [vec![data], pieces(data), bytes] {
        assert_eq!(payloads(&chunks), expected);
    }
}

/// The data of each event that has some.
fn payloads(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
    let (mut decoder, mut payloads) = (Decoder::new(), Vec::new());
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(frame) = decoder.next_frame().unwrap() {
            payloads.extend(frame.data().map(Cow::into_owned));
        }
    }
    payloads
}

/// The same, line by line, as the standard tells it (but for a carriage return alone, which no server
/// that we know ends a line with).
fn by_the_standard(data: &[u8]) -> Vec<Vec<u8>> {
    let data = data.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(data);
    let (mut payloads, mut event): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        // A last line that does not end is none.
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            payloads.extend(event.take());
            continue;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &b""[..]),
        };
        if field == b"data" {
            event = Some(match event {
                Some(event) => [&event, &b"\n"[..], value].concat(),
                None => value.to_vec(),
            });
        }
    }
    payloads
}

/// The bytes, cut at places that are random but the same every time.
fn pieces(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut random =
        fastrand::Rng::with_seed(bytes.iter().fold(7, |seed, byte| seed * 31 % 1_000_003 + u64::from(*byte)));
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(random.usize(1..=bytes.len().min(64)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
