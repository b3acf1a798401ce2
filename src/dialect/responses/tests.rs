//! Requests in and out; streams in and out.

use super::request::prepare;
use super::*;
use crate::codex::Event;
use crate::codex::event::Depth;
use crate::codex::sse::Decoder;
use crate::dialect::{Context, ModelMap, Prepared, Problem, ProblemKind};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::{Value, json};

fn try_prepare(body: &Value, codex_cli: bool) -> Result<Prepared, Problem> {
    let context = Context { request_id: "req_1".into(), now: 7 };
    let models = ModelMap::new([("fast", "gpt-6-luna:low")]);
    prepare(&Bytes::from(body.to_string()), &context, &models, codex_cli)
}

fn upstream(body: &Value) -> (Value, Vec<&'static str>) {
    let prepared = try_prepare(body, false).expect("accepted");
    (serde_json::from_slice(&prepared.body).expect("JSON"), prepared.ignored)
}

fn run(stream: &str, codex_cli: bool, failure: Option<&Problem>) -> String {
    let prepared = try_prepare(&json!({"model": "m", "input": "hi", "stream": true}), codex_cli).expect("accepted");
    let (mut translator, mut decoder, mut out) = (prepared.reply.stream(), Decoder::new(), BytesMut::new());
    decoder.push(Bytes::copy_from_slice(stream.as_bytes()));
    while let Some(frame) = decoder.next_frame().expect("small") {
        let data = frame.data().expect("data");
        let event = Event::parse(&data, Depth::Control).expect("legible");
        translator.event(&event, &frame, &mut out);
    }
    translator.finish(failure, &mut out);
    String::from_utf8(out.to_vec()).expect("UTF-8")
}

const STREAM: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_9\"}}\n\n",
    "event: response.output_item.done\ndata: {\"type\":\"response.output_item.done\",\"output_index\":1,\"item\":{\"type\":\"message\",\"id\":\"b\"}}\n\n",
    "event: response.output_item.done\ndata: {\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{\"type\":\"reasoning\",\"id\":\"a\"}}\n\n",
);
const COMPLETED: &str = "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":3,\"response\":{\"id\":\"resp_9\",\"output\":[],\"usage\":{\"input_tokens\":1}}}\n\n";

#[test]
fn a_string_becomes_a_message_and_the_backends_demands_are_met() {
    let (body, ignored) = upstream(&json!({"model": "gpt-5.5", "input": "hi"}));
    assert_eq!(body["input"][0]["content"][0]["text"], "hi");
    assert_eq!((&body["stream"], &body["store"]), (&json!(true), &json!(false)));
    assert_eq!(body["include"], json!(["reasoning.encrypted_content"]));
    assert!(ignored.is_empty());
}

#[test]
fn every_dropped_field_is_dropped_and_named() {
    for field in DROPPED {
        let (body, ignored) = upstream(&json!({"model": "m", "input": "hi", field: 1}));
        assert!(body.get(field).is_none(), "{field}");
        assert_eq!(ignored, [field]);
    }
}

#[test]
fn what_would_change_the_question_is_refused_with_a_reason() {
    for (field, reason) in REFUSED {
        let problem = try_prepare(&json!({"model": "m", "input": "hi", field: "x"}), false).err().expect("refused");
        assert_eq!((problem.param.as_deref(), problem.message.as_str()), (Some(field), reason));
        assert_eq!(problem.code.as_deref(), Some("unsupported_parameter"));
    }
    assert!(try_prepare(&json!({"model": "m", "input": "hi", "background": false}), false).is_ok());
}

#[test]
fn items_are_edited_only_where_the_backend_would_refuse_them() {
    let (body, ignored) = upstream(&json!({"model": "m", "input": [
        {"role": "system", "content": "be brief"},
        {"type": "item_reference", "id": "rs_1"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
        {"type": "unheard_of", "x": [1, 2]},
    ]}));
    assert_eq!(
        body["input"],
        json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "unheard_of", "x": [1, 2]},
        ])
    );
    assert_eq!(ignored, ["input[].item_reference"]);
}

#[test]
fn an_alias_brings_its_effort_unless_the_request_has_one() {
    let (body, _) = upstream(&json!({"model": "fast", "input": "hi"}));
    assert_eq!((&body["model"], &body["reasoning"]["effort"]), (&json!("gpt-6-luna"), &json!("low")));
    let (body, _) =
        upstream(&json!({"model": "fast", "input": "hi", "reasoning": {"effort": "high", "summary": "auto"}}));
    assert_eq!(body["reasoning"], json!({"effort": "high", "summary": "auto"}));
}

#[test]
fn tiers_and_tools_are_spelled_as_the_backend_spells_them() {
    let (body, ignored) = upstream(&json!({"model": "m", "input": "hi", "service_tier": "flex",
        "tools": [{"type": "web_search_preview"}, {"type": "function", "name": "f", "parameters": {}}]}));
    assert_eq!(body["tools"][0]["type"], "web_search");
    assert_eq!(ignored, ["service_tier"]);
    assert_eq!(upstream(&json!({"model": "m", "input": "hi", "service_tier": "fast"})).0["service_tier"], "priority");
}

#[test]
fn a_codex_clis_body_is_passed_to_the_byte() {
    let body = Bytes::from_static(br#"{ "model":"gpt-6.1-sol", "input":[{"type":"additional_tools"}],"stream":true }"#);
    let context = Context { request_id: "req_1".into(), now: 7 };
    let prepared = prepare(&body, &context, &ModelMap::default(), true).expect("accepted");
    assert_eq!(prepared.body.as_ptr(), body.as_ptr());
}

#[test]
fn bad_requests_name_what_is_wrong() {
    for (body, param) in [
        (json!({"input": "hi"}), "model"),
        (json!({"model": 7, "input": "hi"}), "model"),
        (json!({"model": "m"}), "input"),
        (json!({"model": "m", "input": 7}), "input"),
        (json!({"model": "m", "input": [7]}), "input"),
        (json!({"model": "m", "input": "hi", "stream": "yes"}), "stream"),
        (json!({"model": "m", "input": "hi", "include": "x"}), "include"),
    ] {
        let problem = try_prepare(&body, false).err().expect("refused");
        assert_eq!((problem.kind, problem.param.as_deref()), (ProblemKind::InvalidRequest, Some(param)), "{body}");
    }
}

#[test]
fn frames_pass_as_they_came_and_the_last_one_is_filled_for_sdks() {
    let stream = format!("{STREAM}{COMPLETED}");
    assert_eq!(run(&stream, true, None), stream, "a Codex CLI sees the backend's bytes");
    let out = run(&stream, false, None);
    let (created, rest) = out.split_once("\n\n").expect("frames");
    let created: Value =
        serde_json::from_str(created.lines().nth(1).expect("data").trim_start_matches("data: ")).expect("JSON");
    assert_eq!((&created["sequence_number"], &created["response"]["id"]), (&json!(0), &json!("resp_9")));
    assert_eq!((&created["response"]["model"], &created["response"]["output"]), (&json!("m"), &json!([])));
    let items = STREAM.split_once("\n\n").expect("frames").1;
    let last = rest.strip_prefix(items).expect("the others as they came");
    let data: Value =
        serde_json::from_str(last.lines().nth(1).expect("data").trim_start_matches("data: ")).expect("JSON");
    assert_eq!(data["response"]["output"], json!([{"type": "reasoning", "id": "a"}, {"type": "message", "id": "b"}]));
    assert_eq!((&data["sequence_number"], &data["response"]["usage"]["input_tokens"]), (&json!(3), &json!(1)));
}

#[test]
fn a_cut_stream_ends_in_a_failed_response_and_a_finished_one_is_left_alone() {
    let problem = Problem::new(ProblemKind::Upstream, "cut");
    let out = run(STREAM, false, Some(&problem));
    let last = out.rsplit("data: ").next().expect("data");
    let data: Value = serde_json::from_str(last.trim()).expect("JSON");
    assert_eq!((&data["type"], &data["response"]["id"]), (&json!("response.failed"), &json!("resp_9")));
    assert_eq!(data["response"]["error"], json!({"code": "server_error", "message": "cut"}));
    let stream = format!("{STREAM}{COMPLETED}");
    assert_eq!(run(&stream, true, Some(&problem)), stream);
}

#[test]
fn the_failure_takes_the_number_after_the_newest_event_however_long_that_is() {
    let problem = Problem::new(ProblemKind::Upstream, "cut");
    for length in [1, 400, 600, 100_000] {
        // The backend writes the number right after the type.
        let text = "x".repeat(length);
        let event = format!(r#"{{"type":"response.output_text.delta","sequence_number":41,"delta":"{text}"}}"#);
        let out = run(&format!("event: x\ndata: {event}\n\n"), true, Some(&problem));
        let last: Value = serde_json::from_str(out.rsplit("data: ").next().expect("data").trim()).expect("JSON");
        assert_eq!((&last["type"], &last["sequence_number"]), (&json!("response.failed"), &json!(42)), "{length}");
    }
}

#[test]
fn a_whole_answer_is_the_response_with_its_items() {
    let mut folder = try_prepare(&json!({"model": "m", "input": "hi"}), false).expect("accepted").reply.whole();
    let mut decoder = Decoder::new();
    decoder.push(Bytes::from(format!("{STREAM}{COMPLETED}")));
    while let Some(frame) = decoder.next_frame().expect("small") {
        let data = frame.data().expect("data");
        folder.event(&Event::parse(&data, Depth::Control).expect("legible"));
    }
    let response: Value = serde_json::from_slice(&folder.finish()).expect("JSON");
    assert_eq!(response["output"][1]["id"], "b");
    assert_eq!(response["id"], "resp_9");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "(system|user|message|item_reference|fast|\\PC{0,8})".prop_map(Value::from),
    ];
    let name = "(model|input|role|type|content|tools|include|reasoning|stream|store|background|[a-z]{1,6})";
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(name, inner, 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_taken_or_refused_with_a_4xx(body in any_json(), codex_cli in any::<bool>()) {
        match try_prepare(&body, codex_cli) {
            Ok(prepared) => { serde_json::from_slice::<Value>(&prepared.body).expect("what goes up is JSON"); }
            Err(problem) => prop_assert!(problem.kind.status().is_client_error()),
        }
    }
}
