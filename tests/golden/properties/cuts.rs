//! What holds for any answer that the client bounds.

use super::streams::{any_stream, pieces};
use crate::grammar;
use crate::run::{Api, answer, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A request with these stop sequences and this limit.
fn request(api: Api, stops: &[String], limit: u64) -> Vec<u8> {
    if api == Api::Responses {
        return json!({ "model": "m", "max_output_tokens": limit, "input": "hi" }).to_string().into_bytes();
    }
    let mut body = json!({ "model": "m", "max_tokens": limit, "messages": [{ "role": "user", "content": "hi" }] });
    let name = if api == Api::Messages { "stop_sequences" } else { "stop" };
    body[name] = json!(stops);
    body["stream_options"] = json!({ "include_usage": true });
    body.to_string().into_bytes()
}

/// A message in these deltas, and a call after it.
fn stream(deltas: &[String], arguments: &str) -> Vec<u8> {
    let text = deltas.concat();
    let call = json!({ "type": "function_call", "id": "fc", "call_id": "call", "name": "f", "arguments": arguments });
    let mut events = vec![
        json!({ "type": "response.output_item.added", "output_index": 0, "item": { "type": "message", "id": "msg" } }),
    ];
    events.extend(deltas.iter().map(|delta| {
        json!({ "type": "response.output_text.delta", "item_id": "msg", "output_index": 0, "content_index": 0, "delta": delta })
    }));
    events.push(json!({ "type": "response.output_item.done", "output_index": 0, "item": {
        "type": "message", "id": "msg", "content": [{ "type": "output_text", "text": text, "annotations": [] }],
    } }));
    events.push(json!({ "type": "response.output_item.done", "output_index": 1, "item": call }));
    events.push(json!({ "type": "response.completed", "response": { "id": "r", "status": "completed", "usage": { "input_tokens": 9, "output_tokens": 9 } } }));
    events
        .iter()
        .fold(String::new(), |mut sse, event| {
            write!(sse, "data: {event}\n\n").unwrap();
            sse
        })
        .into_bytes()
}

/// The text of a whole answer, and why it ended.
fn said(api: Api, whole: &str) -> (String, String) {
    let whole: Value = serde_json::from_str(whole).unwrap();
    let (text, reason) = if api == Api::Responses {
        let parts = whole["output"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|item| item["content"].as_array().into_iter().flatten());
        (parts.filter_map(|part| part["text"].as_str()).collect(), &whole["status"])
    } else if api == Api::Messages {
        let blocks = whole["content"].as_array().unwrap();
        (blocks.iter().filter_map(|block| block["text"].as_str()).collect(), &whole["stop_reason"])
    } else {
        let choice = &whole["choices"][0];
        (choice["message"]["content"].as_str().unwrap_or_default().to_owned(), &choice["finish_reason"])
    };
    (text, reason.as_str().unwrap().to_owned())
}

proptest! {
    /// The stream is legal and says what the whole answer says; what is said is the beginning of what
    /// the backend said, without any stop sequence; and how the backend cut its deltas changes nothing.
    #[test]
    fn a_bounded_answer_is_a_legal_beginning_of_the_backends(
        deltas in prop::collection::vec("[ab \n🦀]{1,6}", 1..8),
        stops in prop::collection::vec("[ab \n🦀]{1,3}", 0..3),
        limit in prop::sample::select(vec![1u64, 3, 8, 1000]),
        api in prop::sample::select(vec![Api::Chat, Api::Messages, Api::Responses]),
    ) {
        // The Responses API has no stop sequences.
        let stops = if api == Api::Responses { Vec::new() } else { stops };
        let prepared = prepare(api, &request(api, &stops, limit)).unwrap();
        prop_assert!(prepared.ignored.is_empty() || api == Api::Messages, "{:?}", prepared.ignored);
        let answered = answer(api, &*prepared.reply, &[&stream(&deltas, "{}")]);
        grammar::check(api, &answered).map_err(TestCaseError::fail)?;
        let (text, reason) = said(api, &answered.whole);
        let backend = deltas.concat();
        prop_assert!(backend.starts_with(&text), "{text:?} of {backend:?}");
        prop_assert!(stops.iter().all(|stop| !text.contains(stop.as_str())), "{text:?} holds one of {stops:?}");
        let is_whole = ["tool_calls", "tool_use", "completed"].contains(&reason.as_str());
        prop_assert!(!is_whole || text == backend, "{reason}: {text:?} of {backend:?}");

        // Without a limit near, another cut of the same text gives the same answer.
        if limit == 1000 {
            let letters: Vec<String> = backend.chars().map(String::from).collect();
            let again = answer(api, &*prepared.reply, &[&stream(&letters, "{}")]);
            prop_assert_eq!(said(api, &again.whole), (text, reason));
        }
    }

    /// Whatever the events, in whatever order: a bounded answer is legal, and fails only where the
    /// backend does.
    #[test]
    fn any_bounded_stream_ends_legally_and_says_the_same_when_cut(
        (sse, is_good) in any_stream(),
        cuts in prop::collection::vec(1usize..40, 1..50),
        limit in prop::sample::select(vec![1u64, 6, 1000]),
    ) {
        let stops = ["xx", "}", "é"].map(str::to_owned);
        for api in [Api::Chat, Api::Messages, Api::Responses] {
            let reply = prepare(api, &request(api, &stops, limit)).unwrap().reply;
            let uncut = answer(api, &*reply, &[&sse]);
            grammar::check(api, &uncut).map_err(|fault| TestCaseError::fail(format!("{api:?}: {fault}")))?;
            prop_assert!(!(uncut.failed && is_good), "{api:?}");
            prop_assert_eq!(answer(api, &*reply, &pieces(&sse, &cuts)), uncut, "{:?}", api);
        }
    }
}
