//! Requests in and out; events in, chunks and completions out.

use super::IGNORED;
use super::request::prepare;
use crate::codex::Event;
use crate::codex::event::Depth;
use crate::codex::sse::Decoder;
use crate::dialect::{Context, ModelMap, Prepared, Problem, ProblemKind};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};

fn try_prepare(body: &Value) -> Result<Prepared, Problem> {
    let context = Context { request_id: "req_1".into(), now: 7 };
    prepare(&Bytes::from(body.to_string()), &context, &ModelMap::new([("fast", "gpt-6-luna:low")]))
}

fn upstream(mut body: Value) -> (Value, Vec<&'static str>) {
    body["model"] = body.get("model").cloned().unwrap_or_else(|| json!("gpt-5.5"));
    let prepared = try_prepare(&body).expect("accepted");
    (serde_json::from_slice(&prepared.body).expect("JSON"), prepared.ignored)
}

fn input(messages: &Value) -> Value {
    upstream(json!({"messages": messages})).0["input"].clone()
}

fn user(extra: &Value) -> Value {
    let mut body = json!({"model": "gpt-5.5", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
    body
}

/// The chunks' JSON and whether the stream ended in `[DONE]`, cut at every `step` bytes on the way in.
fn stream(request: &Value, events: &[Value], failure: Option<&Problem>, step: usize) -> (Vec<Value>, bool) {
    let mut translator = try_prepare(request).expect("accepted").reply.stream();
    let (mut decoder, mut out) = (Decoder::new(), BytesMut::new());
    let wire: String = events.iter().map(|event| format!("data: {event}\n\n")).collect::<Vec<_>>().concat();
    for piece in wire.as_bytes().chunks(step) {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(frame) = decoder.next_frame().expect("small") {
            let data = frame.data().expect("data");
            translator.event(&Event::parse(&data, Depth::Full).expect("legible"), &frame, &mut out);
        }
    }
    translator.finish(failure, &mut out);
    let text = String::from_utf8(out.to_vec()).expect("UTF-8");
    let frames: Vec<&str> = text.split_terminator("\n\n").map(|f| f.strip_prefix("data: ").expect("data")).collect();
    let done = frames.last() == Some(&"[DONE]");
    let chunks = frames.iter().filter(|f| **f != "[DONE]").map(|f| serde_json::from_str(f).expect("JSON")).collect();
    (chunks, done)
}

/// Runs the events through both forms and checks that they agree. Gives the whole message.
fn both(request: &Value, events: &[Value]) -> Value {
    let (chunks, done) = stream(request, events, None, usize::MAX);
    for step in 1..8 {
        assert_eq!(stream(request, events, None, step).0, chunks, "cut every {step} bytes");
    }
    assert!(done);
    let mut folder = try_prepare(request).expect("accepted").reply.whole();
    for event in events {
        let data = event.to_string();
        folder.event(&Event::parse(data.as_bytes(), Depth::Full).expect("legible"));
    }
    let whole: Value = serde_json::from_slice(&folder.finish()).expect("JSON");
    let assembled = fold(&chunks);
    let choice = &whole["choices"][0];
    assert_eq!(assembled["finish_reason"], choice["finish_reason"]);
    for field in ["content", "refusal", "reasoning_content", "tool_calls", "function_call"] {
        assert_eq!(assembled["message"][field], choice["message"][field], "{field}");
    }
    choice.clone()
}

/// What an SDK makes of the chunks.
fn fold(chunks: &[Value]) -> Value {
    let mut message = json!({});
    let mut finish = Value::Null;
    let append = |place: &mut Value, more: &Value| {
        let text = place.as_str().unwrap_or_default().to_owned() + more.as_str().unwrap_or_default();
        *place = Value::from(text);
    };
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let delta = &choice["delta"];
        for field in ["content", "refusal", "reasoning_content"] {
            if delta[field].as_str().is_some_and(|text| !text.is_empty()) {
                append(&mut message[field], &delta[field]);
            }
        }
        if let Some(call) = delta["tool_calls"].get(0) {
            let index = usize::try_from(call["index"].as_u64().expect("index")).expect("small");
            let calls = message["tool_calls"].as_array().map_or(0, Vec::len);
            if index == calls {
                let mut begun = call.clone();
                begun.as_object_mut().expect("object").remove("index");
                match calls {
                    0 => message["tool_calls"] = json!([begun]),
                    _ => message["tool_calls"].as_array_mut().expect("list").push(begun),
                }
            } else {
                for (kind, field) in [("function", "arguments"), ("custom", "input")] {
                    if call[kind].is_object() {
                        append(&mut message["tool_calls"][index][kind][field], &call[kind][field]);
                    }
                }
            }
        }
        if let Some(call) = delta["function_call"].as_object() {
            if call.contains_key("name") {
                message["function_call"]["name"] = call["name"].clone();
            }
            append(&mut message["function_call"]["arguments"], &call["arguments"]);
        }
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
    }
    // The first chunk's empty content is all there is where nothing else came.
    if ["content", "refusal", "tool_calls", "function_call"].iter().all(|field| message.get(field).is_none()) {
        message["content"] = json!("");
    }
    json!({"message": message, "finish_reason": finish})
}

fn text(index: u32, delta: &str) -> Value {
    json!({"type": "response.output_text.delta", "output_index": index, "item_id": format!("i{index}"), "delta": delta})
}

fn arguments(index: u32, delta: &str) -> Value {
    json!({"type": "response.function_call_arguments.delta", "output_index": index, "item_id": format!("i{index}"), "delta": delta})
}

fn item(kind: &str, index: u32, item: &Value) -> Value {
    json!({"type": format!("response.output_item.{kind}"), "output_index": index, "item": item})
}

fn call(index: u32, name: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": format!("i{index}"), "call_id": format!("call_{index}"), "name": name, "arguments": arguments})
}

fn completed() -> Value {
    json!({"type": "response.completed", "response": {"id": "r", "usage": {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 8}}})
}

#[test]
fn leading_system_messages_are_instructions_and_later_ones_stay_in_place() {
    let (body, _) = upstream(json!({"messages": [
        {"role": "system", "content": "a"}, {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        {"role": "user", "content": "hi"}, {"role": "system", "content": "c"}]}));
    assert_eq!(body["instructions"], "a\n\nb");
    assert_eq!(
        body["input"],
        json!([
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "c"}]},
        ])
    );
}

#[test]
fn a_tool_loop_becomes_calls_and_outputs() {
    let items = input(&json!([
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
            {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "raw"}}]},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
    ]));
    assert_eq!(items.as_array().expect("list").len(), 5, "no empty assistant message");
    assert_eq!(items[1], json!({"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}"}));
    assert_eq!(items[3], json!({"type": "custom_tool_call_output", "call_id": "c2", "output": "two"}));
    assert_eq!(items[4]["output"][1], json!({"type": "input_image", "image_url": "data:image/png;base64,AA"}));
}

#[test]
fn outputs_that_answer_nothing_are_left_out_and_ids_may_come_again() {
    let round = |n: u32| {
        [
            json!({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}),
            json!({"role": "tool", "tool_call_id": "c", "content": format!("{n}")}),
        ]
    };
    let [a, b] = round(1);
    let [c, d] = round(2);
    let orphan = json!({"role": "tool", "tool_call_id": "nobody", "content": "x"});
    let items = input(&json!([orphan, a, b, b, c, d]));
    let kinds: Vec<_> = items.as_array().expect("list").iter().map(|i| i["type"].as_str().expect("type")).collect();
    assert_eq!(kinds, ["function_call", "function_call_output", "function_call", "function_call_output"]);
    assert_eq!(items[3]["output"], "2");
}

#[test]
fn legacy_functions_are_understood() {
    let (body, _) = upstream(
        json!({"functions": [{"name": "f", "parameters": {"type": "object"}}], "tools": [{"type": "function", "function": {"name": "h", "parameters": {"type": "object", "x": [1]}}}], "function_call": {"name": "f"},
        "messages": [{"role": "user", "content": "q"},
            {"role": "assistant", "content": null, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "r"}]}),
    );
    assert_eq!(body["tools"][0]["parameters"], json!({"type": "object", "x": [1]}));
    assert_eq!(body["tools"][1]["name"], "f");
    assert_eq!(body["tool_choice"], json!({"type": "function", "name": "f"}));
    assert_eq!(body["input"][1]["call_id"], body["input"][2]["call_id"]);
    assert_eq!(body["parallel_tool_calls"], false);
}

#[test]
fn choices_among_tools_are_made_flat() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": null}}, {"type": "custom", "custom": {"name": "g", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}}}]);
    for (choice, flat) in [
        (json!("required"), json!("required")),
        (json!({"type": "function", "function": {"name": "f"}}), json!({"type": "function", "name": "f"})),
        (json!({"type": "custom", "custom": {"name": "g"}}), json!({"type": "custom", "name": "g"})),
        (
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}}),
            json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}),
        ),
    ] {
        let (body, _) = upstream(user(&json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": false})));
        assert_eq!(body["tool_choice"], flat);
        assert_eq!(body["tools"][0]["parameters"], json!({"type": "object", "properties": {}}));
        assert_eq!(body["tools"][1]["format"], json!({"type": "grammar", "syntax": "lark", "definition": "x"}));
        assert_eq!(body["parallel_tool_calls"], false);
    }
    let (body, _) = upstream(user(&json!({"parallel_tool_calls": true, "tool_choice": "auto"})));
    assert!(body.get("parallel_tool_calls").is_none() && body.get("tool_choice").is_none(), "only with tools");
}

#[test]
fn options_are_carried() {
    let (body, _) = upstream(user(&json!({"reasoning_effort": "high", "verbosity": "low", "prompt_cache_key": "k",
        "service_tier": "priority", "web_search_options": {"search_context_size": "low"},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": {"type": "object"}}}})));
    assert_eq!(body["reasoning"], json!({"effort": "high", "summary": "auto"}));
    assert_eq!(
        body["text"],
        json!({"verbosity": "low", "format": {"type": "json_schema", "name": "n", "strict": true, "schema": {"type": "object"}}})
    );
    assert_eq!((&body["prompt_cache_key"], &body["service_tier"]), (&json!("k"), &json!("priority")));
    assert_eq!(body["tools"], json!([{"type": "web_search", "search_context_size": "low"}]));
    let (body, _) = upstream(json!({"model": "fast", "messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!((&body["model"], &body["reasoning"]["effort"]), (&json!("gpt-6-luna"), &json!("low")));
}

#[test]
fn every_ignored_field_is_left_out_and_named() {
    for field in IGNORED {
        let (body, ignored) = upstream(user(&json!({field: 1})));
        assert!(body.get(field).is_none_or(|v| field == "store" && v == false), "{field}");
        assert_eq!(ignored, [field]);
        assert!(upstream(user(&json!({field: null}))).1.is_empty());
    }
}

#[test]
fn bad_requests_name_what_is_wrong() {
    for (body, param) in [
        (json!({"messages": [{"role": "user", "content": "x"}]}), Some("model")),
        (json!({"model": "m", "messages": []}), Some("messages")),
        (user(&json!({"n": 2})), Some("n")),
        (user(&json!({"logprobs": true})), Some("logprobs")),
        (user(&json!({"messages": [{"role": "wizard", "content": "x"}]})), Some("messages[0].role")),
        (
            user(&json!({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]})),
            Some("messages[0].content"),
        ),
        (user(&json!({"messages": "x"})), None),
    ] {
        let problem = try_prepare(&body).err().expect("refused");
        assert_eq!((problem.kind, problem.param.as_deref()), (ProblemKind::InvalidRequest, param), "{body}");
    }
}

#[test]
fn a_request_shaped_like_responses_is_answered_in_chunks() {
    let request = json!({"model": "m", "input": "hi", "stream": true, "tools": [{"type": "function", "name": "f", "parameters": {}}]});
    assert_eq!(both(&request, &[text(0, "hello"), completed()])["message"]["content"], "hello");
}

#[test]
fn text_is_streamed_with_the_role_first_and_usage_last_when_asked_for() {
    let request = user(&json!({"stream": true, "stream_options": {"include_usage": true}}));
    let events = [json!({"type": "response.created", "response": {}}), text(0, "He"), text(0, "llo"), completed()];
    let (chunks, done) = stream(&request, &events, None, 3);
    assert!(done);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    let last = chunks.last().expect("usage");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}})
    );
    let (plain, _) = stream(&user(&json!({"stream": true})), &events, None, 3);
    assert!(plain.iter().all(|chunk| chunk.get("usage").is_none()));
    assert_eq!(both(&request, &events)["finish_reason"], "stop");
}

#[test]
fn interleaved_calls_keep_their_indexes() {
    let events = [
        item("added", 1, &call(1, "f", "")),
        item("added", 2, &call(2, "g", "")),
        arguments(2, "{\"b\""),
        arguments(1, "{\"a\":1}"),
        arguments(2, ":2}"),
        item("done", 2, &call(2, "g", "{\"b\":2}")),
        item("done", 1, &call(1, "f", "{\"a\":1}")),
        completed(),
    ];
    let choice = both(&user(&json!({})), &events);
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": "{\"b\":2}"}},
        ])
    );
}

#[test]
fn a_late_name_holds_the_arguments_back_and_done_items_alone_are_enough() {
    let nameless = json!({"type": "function_call", "id": "i0", "call_id": "call_0", "arguments": ""});
    let late = [item("added", 0, &nameless), arguments(0, "{}"), item("done", 0, &call(0, "f", "{}")), completed()];
    let only_done = [item("done", 0, &call(0, "f", "{}")), completed()];
    for events in [&late[..], &only_done[..]] {
        let choice = both(&user(&json!({})), events);
        assert_eq!(choice["message"]["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{}"}));
    }
    let message = json!({"type": "message", "id": "i0", "content": [{"type": "output_text", "text": "whole"}]});
    assert_eq!(both(&user(&json!({})), &[item("done", 0, &message), completed()])["message"]["content"], "whole");
    let twice = [text(0, "who"), item("done", 0, &message), completed()];
    assert_eq!(both(&user(&json!({})), &twice)["message"]["content"], "whole", "only what was not said");
}

#[test]
fn reasoning_refusals_and_limits_are_told() {
    let summary = |part: u32, delta: &str| json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "item_id": "rs", "summary_index": part, "delta": delta});
    let events = [summary(0, "first"), summary(0, "."), summary(1, "second"), text(1, "answer"), completed()];
    let message = both(&user(&json!({})), &events)["message"].clone();
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("first.\n\nsecond"), &json!("answer")));
    let refusal = json!({"type": "response.refusal.delta", "output_index": 0, "delta": "no"});
    assert_eq!(both(&user(&json!({})), &[refusal, completed()])["message"]["refusal"], "no");
    let incomplete =
        json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}});
    assert_eq!(both(&user(&json!({})), &[text(0, "cu"), incomplete])["finish_reason"], "length");
}

#[test]
fn custom_tools_legacy_calls_and_long_names_come_back_as_they_were() {
    let custom = |kind: &str, input: &str| {
        item(kind, 0, &json!({"type": "custom_tool_call", "id": "i0", "call_id": "c", "name": "g", "input": input}))
    };
    let delta =
        json!({"type": "response.custom_tool_call_input.delta", "output_index": 0, "item_id": "i0", "delta": "ls"});
    let choice = both(&user(&json!({})), &[custom("added", ""), delta, custom("done", "ls"), completed()]);
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([{"id": "c", "type": "custom", "custom": {"name": "g", "input": "ls"}}])
    );

    let legacy = user(&json!({"functions": [{"name": "f"}]}));
    let choice = both(
        &legacy,
        &[item("added", 0, &call(0, "f", "")), arguments(0, "{}"), item("done", 0, &call(0, "f", "{}")), completed()],
    );
    assert_eq!(choice["finish_reason"], "function_call");
    assert_eq!(choice["message"]["function_call"], json!({"name": "f", "arguments": "{}"}));

    let long = "mcp__".to_owned() + &"x".repeat(80);
    let request = user(&json!({"tools": [{"type": "function", "function": {"name": long}}]}));
    let short = upstream(request.clone()).0["tools"][0]["name"].as_str().expect("name").to_owned();
    assert!(short.len() <= 64);
    let choice = both(&request, &[item("done", 0, &call(0, &short, "{}")), completed()]);
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["name"], json!(long));
}

#[test]
fn a_failed_stream_ends_in_an_error_and_never_in_a_stop() {
    let problem = Problem::new(ProblemKind::Upstream, "cut");
    let (chunks, done) = stream(&user(&json!({})), &[text(0, "hal")], Some(&problem), 5);
    assert!(!done);
    assert!(chunks.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    assert_eq!(chunks.last().expect("error")["error"]["code"], "upstream_error");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "(system|user|assistant|tool|function|custom|text|auto|\\PC{0,8})".prop_map(Value::from),
    ];
    let name = "(model|messages|input|role|type|content|tools|tool_calls|function|name|tool_choice|text|[a-z]{1,6})";
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_taken_or_refused_with_a_4xx(extra in any_json(), content in any_json(), choice in any_json()) {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": content}, extra], "tool_choice": choice, "tools": [extra]});
        for body in [body, extra] {
            match try_prepare(&body) {
                Ok(prepared) => { serde_json::from_slice::<Value>(&prepared.body).expect("what goes up is JSON"); }
                Err(problem) => prop_assert!(problem.kind.status().is_client_error()),
            }
        }
    }

    #[test]
    fn any_order_of_events_ends_legally(picks in prop::collection::vec(0usize..9, 0..20)) {
        let pool = [
            text(0, "a"), text(1, "é"), arguments(1, "{"), arguments(2, "}"), item("added", 1, &call(1, "f", "")),
            item("done", 1, &call(1, "f", "{}")), item("done", 2, &json!({"type": "message", "id": "i2", "content": []})),
            json!({"type": "response.unheard_of"}), item("done", 0, &json!({"type": "reasoning", "id": "i0", "summary": []})),
        ];
        let mut events: Vec<Value> = picks.iter().map(|at| pool[*at].clone()).collect();
        events.push(completed());
        both(&user(&json!({})), &events);
    }
}
