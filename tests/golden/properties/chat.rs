//! What holds for any input.

use crate::grammar;
use crate::run::{Api, answer, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Any JSON, with the words of the dialect strewn in so that it gets past the first field.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "text",
        "image_url",
        "file",
        "input_audio",
        "refusal",
        "user",
        "assistant",
        "system",
        "tool",
        "function",
        "custom",
        "web_search",
        "auto",
        "required",
        "allowed_tools",
        "json_object",
        "json_schema",
        "object",
        "id1",
        "",
    ]);
    let key = prop::sample::select(vec![
        "type",
        "text",
        "content",
        "role",
        "image_url",
        "url",
        "file",
        "file_data",
        "id",
        "name",
        "function",
        "custom",
        "arguments",
        "input",
        "tool_calls",
        "function_call",
        "tool_call_id",
        "parameters",
        "strict",
        "format",
        "grammar",
        "schema",
        "json_schema",
        "mode",
        "tools",
        "allowed_tools",
        "refusal",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// A message that is nearly right.
fn any_message() -> impl Strategy<Value = Value> {
    let id = prop::sample::select(vec![json!("a"), json!("b"), json!(""), Value::Null]);
    let call = (id.clone(), any::<bool>()).prop_map(|(id, is_custom)| {
        let kind = if is_custom { "custom" } else { "function" };
        json!({ "id": id, "type": kind, kind: { "name": "f.x", "arguments": "{}", "input": "i" } })
    });
    prop_oneof![
        any_json(),
        ("[a-z ]{0,5}", prop::sample::select(vec!["user", "system", "developer"]))
            .prop_map(|(text, role)| json!({ "role": role, "content": text })),
        prop::collection::vec(call, 0..4).prop_map(|calls| json!({ "role": "assistant", "tool_calls": calls })),
        (id, "[a-z]{0,5}").prop_map(|(id, text)| json!({ "role": "tool", "tool_call_id": id, "content": text })),
        Just(json!({ "role": "assistant", "function_call": { "name": "f.x", "arguments": "{}" } })),
        Just(json!({ "role": "function", "name": "f.x", "content": "r" })),
    ]
}

/// Every call upstream has exactly one output after it, of its family, and every output its call before it.
fn assert_paired(upstream: &[u8]) {
    let upstream: Value = serde_json::from_slice(upstream).unwrap();
    let mut open: Vec<(String, &Value)> = Vec::new();
    for item in upstream["input"].as_array().unwrap() {
        let kind = item["type"].as_str().unwrap();
        if let Some(kind) = kind.strip_suffix("_output") {
            let kind = kind.trim_end_matches("_call").to_owned();
            let at = open.iter().position(|call| *call == (kind.clone(), &item["call_id"])).expect("a call before it");
            open.remove(at);
        } else if let Some(kind) = kind.strip_suffix("_call") {
            open.push((kind.to_owned(), &item["call_id"]));
        }
    }
    assert!(open.is_empty(), "{open:?} have no output");
}

fn any_event() -> impl Strategy<Value = Value> {
    let id = prop::sample::select(vec![json!("a"), json!("b"), Value::Null]);
    let text = prop::sample::select(vec!["", "x", "{\"a\":", "1}", "é🦀", " "]);
    let kind = prop::sample::select(vec![
        "response.created",
        "response.output_text.delta",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.annotation.added",
        "response.hologram",
    ]);
    let item = prop::sample::select(vec!["message", "reasoning", "function_call", "custom_tool_call", "new"]);
    (kind, id.clone(), id, text, item, 0..3u8, 0..2u8).prop_map(|(kind, id, name, text, item, index, part)| {
        json!({
            "type": kind, "item_id": id, "output_index": index, "content_index": part, "summary_index": part,
            "delta": text, "arguments": text, "input": text, "name": name, "response": { "id": "resp_1" },
            "annotation": { "type": "url_citation", "url": "https://e.com", "title": "t" },
            "item": {
                "type": item, "id": id, "call_id": name, "name": name, "arguments": text, "input": text,
                "summary": [{ "type": "summary_text", "text": text }],
                "content": [{ "type": "output_text", "text": text, "annotations": [] }],
            },
        })
    })
}

/// Any events, and an end or none.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let end = prop::sample::select(vec!["completed", "incomplete", "failed", "cut", "illegible"]);
    (prop::collection::vec(any_event(), 0..24), end, any::<bool>()).prop_map(|(events, end, filled)| {
        let mut sse = String::new();
        let items: Vec<&Value> = events.iter().map(|event| &event["item"]).filter(|_| filled).take(3).collect();
        let last = match end {
            "cut" => String::new(),
            "illegible" => "data: {\"type\"\n\n".to_owned(),
            end => {
                let response = json!({ "id": "resp_1", "status": end, "output": items });
                format!("data: {}\n\n", json!({ "type": format!("response.{end}"), "response": response }))
            }
        };
        for event in &events {
            write!(sse, "data: {event}\n\n").unwrap();
        }
        (sse + &last).into_bytes()
    })
}

const CHAT: &[u8] =
    br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream_options":{"include_usage":true}}"#;

proptest! {
    #[test]
    fn any_json_is_taken_or_refused_with_a_4xx(
        mut body in any_json(),
        messages in prop::collection::vec(any_message(), 0..6),
        field in prop::sample::select(vec!["tools", "tool_choice", "response_format", "functions", "input", "x"]),
        value in any_json(),
    ) {
        if let Value::Object(body) = &mut body {
            body.extend([("model".to_owned(), json!("m")), ("messages".to_owned(), json!(messages))]);
            body.insert(field.to_owned(), value);
        }
        match prepare(Api::Chat, body.to_string().as_bytes()) {
            Ok(prepared) => assert_paired(&prepared.body),
            Err(problem) => prop_assert!(problem.kind.status().is_client_error(), "{problem:?}"),
        }
    }

    #[test]
    fn any_conversation_goes_up_with_its_calls_answered(messages in prop::collection::vec(any_message(), 1..12)) {
        let body = json!({ "model": "m", "messages": messages }).to_string();
        if let Ok(prepared) = prepare(Api::Chat, body.as_bytes()) {
            assert_paired(&prepared.body);
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused_with_a_4xx(body in prop::collection::vec(any::<u8>(), 0..64)) {
        for api in [Api::Chat, Api::Responses, Api::CodexCli] {
            let refused = prepare(api, &body).err().map(|problem| problem.kind.status());
            prop_assert!(refused.is_none_or(|status| status.is_client_error()));
        }
    }

    #[test]
    fn any_stream_ends_legally_and_says_the_same_when_cut(
        sse in any_stream(),
        cuts in prop::collection::vec(1usize..40, 1..50),
    ) {
        let prepared = prepare(Api::Chat, CHAT).unwrap();
        let uncut = answer(Api::Chat, &*prepared.reply, &[&sse]);
        grammar::check(Api::Chat, &uncut).map_err(TestCaseError::fail)?;
        let (mut rest, mut pieces) = (&sse[..], Vec::new());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        prop_assert_eq!(answer(Api::Chat, &*prepared.reply, &pieces), uncut);
    }

    #[test]
    fn any_stream_passes_through_responses_and_ends(sse in any_stream(), codex_cli in any::<bool>()) {
        let api = if codex_cli { Api::CodexCli } else { Api::Responses };
        let prepared = prepare(api, br#"{"model":"m","input":"hi","stream":true}"#).unwrap();
        let answer = answer(api, &*prepared.reply, &[&sse]);
        grammar::check(api, &answer).map_err(TestCaseError::fail)?;
    }
}
