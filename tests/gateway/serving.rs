//! Answers: every API, streamed and whole.

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Sim, eventually, json_of};

async fn gateway() -> (Sim, Gateway, String) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    (sim, gateway, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_answered_in_every_dialect_streamed_and_whole() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        let whole = gateway.whole(&key, dialect, &dialect.ask("Grüße, 世界")).await;
        let events = gateway.streamed(&key, dialect, &dialect.ask_streamed("Grüße, 世界")).await;
        assert_eq!(dialect.text(&whole), "You said: Grüße, 世界", "{dialect:?}");
        assert_eq!(dialect.streamed_text(&events), "You said: Grüße, 世界", "{dialect:?}");
        assert!(dialect.ended_well(&events), "{dialect:?}: {:?}", events.last());
        let (input, output) = dialect.usage(&whole);
        // Anthropic's count leaves out what was cached, and the third of three equal prompts is.
        let cached = whole["usage"]["cache_read_input_tokens"].as_u64().unwrap_or_default();
        assert!(input + cached > 0 && output > 0, "{dialect:?}: {}", whole["usage"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_named_by_their_type_where_the_dialect_names_them() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        for event in gateway.streamed(&key, dialect, &dialect.ask_streamed("hello")).await {
            let named = if dialect == Dialect::Chat { json!("") } else { event.json()["type"].clone() };
            assert_eq!(json!(event.name), named, "{dialect:?}: {event:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_loop_works_in_every_dialect() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        let ask = dialect.ask_with_tool(r#"[tool:weather {"city":"Köln"}]"#);
        let first = gateway.whole(&key, dialect, &ask).await;
        let calls = dialect.tool_calls(&first);
        assert_eq!(calls.len(), 1, "{dialect:?}: {first}");
        assert_eq!((calls[0].name.as_str(), &calls[0].arguments), ("weather", &json!({"city": "Köln"})), "{dialect:?}");
        let second = gateway.whole(&key, dialect, &dialect.answer_tool(&ask, &first, "11 °C, rain")).await;
        assert_eq!(dialect.text(&second), "Tool said: 11 °C, rain", "{dialect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn function_call_arguments_stream_as_they_arrive() {
    let (_sim, gateway, key) = gateway().await;
    let city = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch";
    for dialect in Dialect::ALL {
        let mut ask = dialect.ask_with_tool(&format!(r#"[tool:weather {{"city":"{city}"}}]"#));
        ask["stream"] = json!(true);
        let events = gateway.streamed(&key, dialect, &ask).await;
        let (arguments, pieces) = dialect.streamed_arguments(&events);
        let arguments: Value = serde_json::from_str(&arguments).expect("JSON arguments");
        assert_eq!(arguments, json!({"city": city}), "{dialect:?}");
        assert!(pieces > 1, "{dialect:?} sent the arguments in one piece");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_reach_the_model_in_every_dialect() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        let answer = gateway.whole(&key, dialect, &dialect.ask_with_picture("what is it?")).await;
        let text = dialect.text(&answer);
        assert_eq!(text, "I see 1 image (image/png, 70 bytes). You said: what is it?", "{dialect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_output_follows_the_schema_in_every_dialect() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        let answer = gateway.whole(&key, dialect, &dialect.ask_structured("the weather")).await;
        let value: Value = serde_json::from_str(&dialect.text(&answer)).expect("JSON text");
        assert!(value["temperature"].is_number(), "{dialect:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn system_messages_and_reasoning_effort_reach_the_backend() {
    let (sim, gateway, key) = gateway().await;
    let mut chat = Dialect::Chat.ask("hello");
    chat["messages"] = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]);
    chat["reasoning_effort"] = json!("high");
    let mut messages = Dialect::Messages.ask("hello");
    messages["system"] = json!("be brief");
    messages["output_config"] = json!({"effort": "high"});
    let mut responses = Dialect::Responses.ask("hello");
    responses["instructions"] = json!("be brief");
    responses["reasoning"] = json!({"effort": "high"});
    for (dialect, ask) in [(Dialect::Chat, chat), (Dialect::Messages, messages), (Dialect::Responses, responses)] {
        gateway.whole(&key, dialect, &ask).await;
        let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("a request");
        assert!(seen["body"].to_string().contains("be brief"), "{dialect:?}: {}", seen["body"]);
        assert_eq!(seen["body"]["reasoning"]["effort"], "high", "{dialect:?}: {}", seen["body"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_told_in_the_callers_dialect() {
    let (sim, gateway, key) = gateway().await;
    for (dialect, expected) in [
        (Dialect::Chat, "invalid_request_error"),
        (Dialect::Responses, "invalid_request_error"),
        (Dialect::Messages, "invalid_request_error"),
    ] {
        let body = json!({"error": {"message": "Invalid value", "type": "invalid_request_error", "code": null}});
        sim.fault(json!({"kind": "status", "status": 400, "body": body})).await;
        let (status, answer) = json_of(gateway.send(&key, dialect, &dialect.ask("hello")).await).await;
        assert_eq!(status, 400, "{dialect:?}: {answer}");
        assert_eq!(dialect.error_type(&answer), expected, "{dialect:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_overflow_is_told_as_each_client_recognises_it() {
    let (sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        sim.fault(json!({"kind": "failed_event", "code": "context_length_exceeded", "message": "too long"})).await;
        let (status, answer) = json_of(gateway.send(&key, dialect, &dialect.ask("hello")).await).await;
        assert_eq!(status, 400, "{dialect:?}: {answer}");
        let recognised = match dialect {
            Dialect::Messages => {
                answer["error"]["message"].as_str().unwrap_or_default().starts_with("prompt is too long")
            }
            Dialect::Chat | Dialect::Responses => answer["error"]["code"] == "context_length_exceeded",
        };
        assert!(recognised, "{dialect:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_in_three_shapes() {
    let (_sim, gateway, key) = gateway().await;
    let (_, openai) = json_of(gateway.get(&key, "/v1/models", &[]).await).await;
    assert_eq!(openai["object"], "list");
    assert!(openai["data"].as_array().is_some_and(|all| all.iter().any(|model| model["id"] == "gpt-6.1-sol")));
    let (_, anthropic) = json_of(gateway.get(&key, "/v1/models", &[("anthropic-version", "2023-06-01")]).await).await;
    assert_eq!(anthropic["data"][0]["type"], "model", "{anthropic}");
    assert!(anthropic["has_more"].is_boolean() && anthropic["data"][0]["display_name"].is_string(), "{anthropic}");
    for path in ["/v1/models?client_version=0.169.0", "/backend-api/codex/models?client_version=0.169.0"] {
        let answer = gateway.get(&key, path, &[]).await;
        assert!(answer.headers().contains_key("etag"), "{path}");
        let (_, codex) = json_of(answer).await;
        assert!(codex["models"][0]["slug"].is_string(), "{path}: {codex}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_s_own_paths_pass_events_through() {
    let (_sim, gateway, key) = gateway().await;
    let dialect = Dialect::Responses;
    // This path changes nothing, so the request must be as the CLI sends it.
    let mut ask = dialect.ask_streamed("hello");
    ask["store"] = json!(false);
    let answer = gateway.post(&key, "/backend-api/codex/responses", &ask).await;
    assert_eq!(answer.status(), 200);
    let events = crate::support::events(&answer.text().await.expect("a stream"));
    assert_eq!(dialect.streamed_text(&events), "You said: hello");
    assert!(dialect.ended_well(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_without_a_call_of_the_backend() {
    let (sim, gateway, key) = gateway().await;
    let count = async |words: usize| {
        let mut ask = Dialect::Messages.ask(&"word ".repeat(words));
        ask.as_object_mut().expect("an object").remove("max_tokens");
        let (status, answer) = json_of(gateway.post(&key, "/v1/messages/count_tokens", &ask).await).await;
        assert_eq!(status, 200, "{answer}");
        answer["input_tokens"].as_u64().expect("a number")
    };
    let (few, many) = (count(10).await, count(1000).await);
    assert!(few > 0 && many > 10 * few, "{few} and {many}");
    assert!(sim.requests("/backend-api/codex/responses").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_the_request_and_so_does_the_log() {
    let (_sim, gateway, key) = gateway().await;
    let good = gateway.send(&key, Dialect::Chat, &Dialect::Chat.ask("hello")).await;
    let bad = gateway.post(&key, "/v1/nothing", &json!({})).await;
    let anthropic = gateway.send(&key, Dialect::Messages, &Dialect::Messages.ask("hello")).await;
    assert!(anthropic.headers().contains_key("request-id"));
    for answer in [good, bad, anthropic] {
        let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
        let what = format!("a log line with {id}");
        eventually(&what, async || gateway.log().contains(&id).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_broken_bodies_get_json_errors() {
    let (_sim, gateway, key) = gateway().await;
    let (status, answer) = json_of(gateway.post(&key, "/v1/nothing", &json!({})).await).await;
    assert_eq!((status.as_u16(), answer["error"]["message"].is_string()), (404, true), "{answer}");
    for dialect in Dialect::ALL {
        let request = gateway.http.post(format!("{}{}", gateway.url, dialect.path())).bearer_auth(&key);
        let sent = request.header("content-type", "application/json").body("{\"model\": ").send().await;
        let (status, answer) = json_of(sent.expect("an answer")).await;
        assert_eq!(status, 400, "{dialect:?}: {answer}");
        assert_eq!(dialect.error_type(&answer), "invalid_request_error", "{dialect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_needed_and_may_come_in_either_header() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        let bare = gateway.http.post(format!("{}{}", gateway.url, dialect.path())).json(&dialect.ask("hello"));
        let copy = || bare.try_clone().expect("a copy");
        for request in [copy(), copy().bearer_auth("tw-wrong"), copy().header("x-api-key", "sk-other")] {
            let (status, answer) = json_of(request.send().await.expect("an answer")).await;
            assert_eq!(status, 401, "{dialect:?}: {answer}");
            assert_eq!(dialect.error_type(&answer), "authentication_error", "{dialect:?}");
        }
        let accepted = copy().header("x-api-key", &key).send().await.expect("an answer");
        assert_eq!(accepted.status(), 200, "{dialect:?} with x-api-key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_the_backend_refuses_are_dropped() {
    let (sim, gateway, key) = gateway().await;
    let mut ask = Dialect::Chat.ask("hello");
    for (name, value) in
        [("temperature", json!(0.2)), ("seed", json!(7)), ("user", json!("me")), ("max_tokens", json!(64))]
    {
        ask[name] = value;
    }
    gateway.whole(&key, Dialect::Chat, &ask).await;
    let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("a request");
    for name in ["temperature", "seed", "user", "max_tokens", "max_output_tokens"] {
        assert!(seen["body"].get(name).is_none(), "{name} went to the backend: {}", seen["body"]);
    }
    assert_eq!(seen["body"]["store"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_cancels_the_upstream_request() {
    let (sim, gateway, key) = gateway().await;
    sim.fault(json!({"kind": "slow", "ms": 100})).await;
    let mut answer = gateway.send(&key, Dialect::Responses, &Dialect::Responses.ask_streamed("[long 1000]")).await;
    let first = answer.chunk().await.expect("a first write");
    assert!(first.is_some());
    drop(answer);
    eventually("a cancelled upstream request", async || {
        (sim.get("stats").await["totals"]["cancelled"] == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_another_encoding_is_understood() {
    let (_sim, gateway, key) = gateway().await;
    let stored = gzip_stored(Dialect::Chat.ask("packed").to_string().as_bytes());
    let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.url)).bearer_auth(&key);
    let request = request.header("content-type", "application/json").header("content-encoding", "gzip").body(stored);
    let (status, answer) = json_of(request.send().await.expect("an answer")).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(Dialect::Chat.text(&answer), "You said: packed");
}

/// A gzip file of one stored (uncompressed) block.
fn gzip_stored(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a short text");
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(data);
    file.extend(crc32fast::hash(data).to_le_bytes());
    file.extend(u32::from(length).to_le_bytes());
    file
}
