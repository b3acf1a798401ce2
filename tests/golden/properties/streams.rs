//! What holds for any events of the backend, in every dialect.

use crate::grammar;
use crate::run::{Api, answer, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// An event with the fields of all, so that each kind finds its own, right or wrong.
fn any_event() -> impl Strategy<Value = Value> {
    let id = prop::sample::select(vec![json!("a"), json!("b"), Value::Null]);
    let text = prop::sample::select(vec!["", "x", "{\"a\":", "1}", "é🦀", " "]);
    let kind = prop::sample::select(vec![
        "response.created",
        "response.in_progress",
        "response.output_text.delta",
        "response.output_text.done",
        "response.refusal.delta",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.image_generation_call.partial_image",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.annotation.added",
        "response.hologram",
        "codex.rate_limits",
    ]);
    let item = prop::sample::select(vec![
        "message",
        "reasoning",
        "function_call",
        "custom_tool_call",
        "web_search_call",
        "image_generation_call",
        "new",
    ]);
    (kind, id.clone(), id, text, item, 0..3u8, 0..2u8).prop_map(|(kind, id, name, text, item, index, part)| {
        json!({
            "type": kind, "item_id": id, "output_index": index, "content_index": part, "summary_index": part,
            "delta": text, "arguments": text, "input": text, "name": name, "response": { "id": "resp_1" },
            "annotation": { "type": "url_citation", "url": "https://e.com", "title": id },
            "item": {
                "type": item, "id": id, "call_id": name, "name": name, "arguments": text, "input": text,
                "summary": [{ "type": "summary_text", "text": text }], "encrypted_content": id, "result": text,
                "content": [{ "type": "output_text", "text": text, "annotations": [] }],
                "action": { "type": "search", "query": text },
            },
        })
    })
}

/// Any events, and an end or none; `true` if it is a good one.
pub(super) fn any_stream() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let end = prop::sample::select(vec!["completed", "incomplete", "failed", "cut", "illegible", "error"]);
    (prop::collection::vec(any_event(), 0..24), end, any::<bool>()).prop_map(|(events, end, filled)| {
        let mut sse = String::new();
        for event in &events {
            write!(sse, "data: {event}\n\n").unwrap();
        }
        let items: Vec<&Value> = events.iter().map(|event| &event["item"]).filter(|_| filled).take(3).collect();
        let last = match end {
            "cut" => String::new(),
            "illegible" => "data: {\"type\"\n\n".to_owned(),
            "error" => "data: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\"}\n\n".to_owned(),
            end => {
                let response = json!({ "id": "resp_1", "status": end, "output": items });
                format!("data: {}\n\n", json!({ "type": format!("response.{end}"), "response": response }))
            }
        };
        (format!("{sse}{last}").into_bytes(), ["completed", "incomplete"].contains(&end))
    })
}

/// The bytes cut at these distances, over and over.
pub(super) fn pieces<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at((*cut).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

proptest! {
    /// The grammar's check also adds the stream up: its deltas are the whole answer.
    #[test]
    fn any_stream_ends_legally_adds_up_and_says_the_same_when_cut(
        (sse, is_good) in any_stream(),
        cuts in prop::collection::vec(1usize..40, 1..50),
        is_omitted in any::<bool>(),
    ) {
        for api in Api::ALL {
            let request = match api {
                Api::Messages if is_omitted => {
                    br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"thinking":{"type":"adaptive","display":"omitted"}}"#
                }
                api => api.plain_request(),
            };
            let reply = prepare(api, request).unwrap().reply;
            let uncut = answer(api, &*reply, &[&sse]);
            grammar::check(api, &uncut).map_err(|fault| TestCaseError::fail(format!("{api:?}: {fault}")))?;
            // An answer in words is good, but no picture.
            if api != Api::Images {
                prop_assert_eq!(uncut.failed, !is_good, "{:?}", api);
            }
            prop_assert_eq!(answer(api, &*reply, &pieces(&sse, &cuts)), uncut, "{:?}", api);
        }
    }
}
