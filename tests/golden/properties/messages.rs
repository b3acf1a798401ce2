//! What holds for any input.

use crate::run::{Api, prepare};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tollway::dialect::messages::count_tokens;

/// Any JSON, with the words of the dialect strewn in so that it gets past the first field.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "text",
        "image",
        "document",
        "tool_use",
        "tool_result",
        "thinking",
        "redacted_thinking",
        "user",
        "assistant",
        "system",
        "base64",
        "url",
        "custom",
        "web_search_20250305",
        "tool",
        "any",
        "enabled",
        "object",
        "tw1:x",
        "",
        "search_result",
        "server_tool_use",
        "json_schema",
        "id1",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "type",
        "text",
        "content",
        "role",
        "source",
        "data",
        "url",
        "media_type",
        "id",
        "name",
        "input",
        "tool_use_id",
        "is_error",
        "signature",
        "thinking",
        "budget_tokens",
        "input_schema",
        "properties",
        "required",
        "strict",
        "title",
        "format",
        "schema",
        "effort",
        "user_id",
        "allowed_domains",
        "tool_name",
        "x",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// A block that is nearly right.
fn any_message() -> impl Strategy<Value = Value> {
    let block = prop_oneof![
        any_json(),
        "[a-z ]{0,9}".prop_map(|text| json!({ "type": "text", "text": text })),
        (0..3u8).prop_map(|id| json!({ "type": "tool_use", "id": format!("id{id}"), "name": "f.x", "input": {} })),
        (0..3u8, any_json()).prop_map(
            |(id, content)| json!({ "type": "tool_result", "tool_use_id": format!("id{id}"), "content": content })
        ),
        any_json().prop_map(|sealed| json!({ "type": "thinking", "thinking": "", "signature": sealed })),
    ];
    let role = prop::sample::select(vec!["user", "assistant", "system"]);
    (role, prop::collection::vec(block, 0..5)).prop_map(|(role, content)| json!({ "role": role, "content": content }))
}

/// Every call upstream has exactly one output after it, and every output its call before it.
fn assert_paired(upstream: &[u8]) {
    let upstream: Value = serde_json::from_slice(upstream).unwrap();
    let mut open: Vec<&Value> = Vec::new();
    for item in upstream["input"].as_array().unwrap() {
        match item["type"].as_str().unwrap() {
            "function_call" => open.push(&item["call_id"]),
            "function_call_output" => {
                let at = open.iter().position(|id| **id == item["call_id"]).expect("an output has a call");
                open.remove(at);
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?} have no output");
}

proptest! {
    #[test]
    fn any_conversation_goes_upstream_with_its_calls_in_pairs(
        messages in prop::collection::vec(any_message(), 1..6),
        tools in any_json(),
        system in any_json(),
    ) {
        for body in [
            json!({ "model": "m", "messages": messages }),
            json!({ "model": "m", "messages": messages, "tools": [tools.clone()], "system": system, "thinking": tools }),
        ] {
            let body = Bytes::from(body.to_string());
            let counted = count_tokens(&body);
            match prepare(Api::Messages, &body) {
                Ok(prepared) => {
                    assert_paired(&prepared.body);
                    prop_assert!(counted.is_ok());
                }
                Err(problem) => {
                    prop_assert!(problem.kind.status().is_client_error());
                    prop_assert!(counted.is_err());
                }
            }
        }
    }
}

/// Nesting is bounded by the grammar, not by the client.
#[test]
fn a_deeply_nested_body_does_not_exhaust_the_stack() {
    let deep = 100_000;
    let results = r#"[{"type":"tool_result","tool_use_id":"a","content":"#.repeat(deep) + "[]" + &"}]".repeat(deep);
    let arrays = "[".repeat(deep) + &"]".repeat(deep);
    let message = |content: &str| format!(r#"[{{"role":"user","content":{content}}}]"#);
    for (system, messages) in [
        (results.as_str(), message("\"hi\"")),
        (arrays.as_str(), message("\"hi\"")),
        ("\"\"", message(&results)),
        ("\"\"", message(&arrays)),
        ("\"\"", arrays.clone()),
    ] {
        let body = Bytes::from(format!(r#"{{"model":"m","system":{system},"messages":{messages}}}"#));
        let problem = prepare(Api::Messages, &body).err();
        assert!(problem.is_none_or(|problem| problem.kind.status().is_client_error()));
    }
}
