//! What holds for any input.

use crate::run::{Api, prepare};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Any JSON, with the words of the dialect strewn in so that it gets past the first field.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
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
}
