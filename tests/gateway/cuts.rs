//! Answers that end where the client wants them to, and what a conversation brings back.

use serde_json::{Value, json};

use crate::support::{Dialect, Event, Gateway, Setup, Sim, eventually};

/// The dialects that have stop sequences and an output limit of their own.
const DIALECTS: [Dialect; 2] = [Dialect::Chat, Dialect::Messages];

async fn gateway() -> (Sim, Gateway, String) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    (sim, gateway, key)
}

/// Asks for an answer that would take a minute, and that a stop sequence ends early.
fn ask_until_word7(dialect: Dialect) -> Value {
    let mut ask = dialect.ask("[long 5000]");
    match dialect {
        Dialect::Messages => ask["stop_sequences"] = json!(["word7 "]),
        _ => ask["stop"] = json!("word7 "),
    }
    ask
}

const UNTIL_WORD7: &str = "word0 word1 word2 word3 word4 word5 word6 ";

fn streamed(mut ask: Value, dialect: Dialect) -> Value {
    ask["stream"] = json!(true);
    if dialect == Dialect::Chat {
        ask["stream_options"] = json!({"include_usage": true});
    }
    ask
}

/// Why the stream says that it ended, and its usage.
fn end_of(dialect: Dialect, events: &[Event]) -> (String, Value) {
    let all: Vec<Value> = events.iter().map(Event::json).collect();
    let find = |path: &str| all.iter().rev().find_map(|event| event.pointer(path).filter(|value| !value.is_null()));
    let (reason, usage) = match dialect {
        Dialect::Messages => (find("/delta/stop_reason"), find("/usage")),
        _ => (find("/choices/0/finish_reason"), find("/usage")),
    };
    (reason.and_then(Value::as_str).unwrap_or_default().to_owned(), usage.cloned().unwrap_or_default())
}

async fn cancelled(sim: &Sim, count: u64) {
    let what = format!("{count} cancelled upstream requests");
    eventually(&what, async || (sim.get("stats").await["totals"]["cancelled"] == count).then_some(())).await;
}

/// The log lines of requests so far, once there are as many.
async fn request_lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually("log lines of requests", async || {
        let log = gateway.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines.filter(|line| line["message"] == "request").collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sequence_ends_a_stream_and_closes_the_upstream_request() {
    let (sim, gateway, key) = gateway().await;
    for (dialect, reason, count) in [(Dialect::Chat, "stop", 1), (Dialect::Messages, "stop_sequence", 2)] {
        sim.fault(json!({"kind": "slow", "ms": 10})).await;
        let events = gateway.streamed(&key, dialect, &streamed(ask_until_word7(dialect), dialect)).await;
        assert_eq!(dialect.streamed_text(&events), UNTIL_WORD7, "{dialect:?}");
        assert!(dialect.ended_well(&events), "{dialect:?}: {:?}", events.last());
        let (said, usage) = end_of(dialect, &events);
        assert_eq!(said, reason, "{dialect:?}");
        let output = if dialect == Dialect::Chat { "completion_tokens" } else { "output_tokens" };
        assert!(usage[output].as_u64().is_some_and(|tokens| (7..40).contains(&tokens)), "{dialect:?}: {usage}");
        cancelled(&sim, count).await;
    }
    for line in request_lines(&gateway, 2).await {
        assert_eq!((&line["outcome"], &line["usage_estimated"]), (&json!("ok"), &json!(true)), "{line}");
        assert!(line["input_tokens"].as_u64() > Some(0) && line["output_tokens"].as_u64() > Some(0), "{line}");
        assert_eq!(line["attempts"], 1, "{line}");
    }
    assert_eq!(gateway.status(&key).await, 200, "the account is not blamed: {}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sequence_ends_a_whole_answer_without_waiting_for_the_rest() {
    let (sim, gateway, key) = gateway().await;
    for (dialect, count) in DIALECTS.into_iter().zip(1..) {
        sim.fault(json!({"kind": "slow", "ms": 10})).await;
        let answer = gateway.whole(&key, dialect, &ask_until_word7(dialect)).await;
        assert_eq!(dialect.text(&answer), UNTIL_WORD7, "{dialect:?}");
        let (input, output) = dialect.usage(&answer);
        assert!(input > 0 && output > 0, "{dialect:?}: {answer}");
        match dialect {
            Dialect::Messages => {
                assert_eq!(
                    (&answer["stop_reason"], &answer["stop_sequence"]),
                    (&json!("stop_sequence"), &json!("word7 "))
                );
            }
            _ => assert_eq!(answer["choices"][0]["finish_reason"], "stop"),
        }
        cancelled(&sim, count).await;
    }
    let lines = request_lines(&gateway, 2).await;
    assert!(lines.iter().all(|line| line["outcome"] == "ok" && line["usage_estimated"] == true), "{lines:?}");
    assert_eq!(gateway.status(&key).await, 200, "the account is not blamed: {}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_limit_ends_the_answer_with_its_own_reason() {
    let (sim, gateway, key) = gateway().await;
    for (dialect, reason) in [(Dialect::Chat, "length"), (Dialect::Messages, "max_tokens")] {
        let mut ask = dialect.ask("[long 5000]");
        ask["max_tokens"] = json!(9);
        let whole = gateway.whole(&key, dialect, &ask).await;
        let events = gateway.streamed(&key, dialect, &streamed(ask, dialect)).await;
        let text = dialect.text(&whole);
        assert!(text.starts_with("word0 word1") && text.len() < 40, "{dialect:?}: {text}");
        assert_eq!(dialect.streamed_text(&events), text, "{dialect:?}");
        assert_eq!(end_of(dialect, &events).0, reason, "{dialect:?}");
        assert_eq!(dialect.usage(&whole).1, 9, "{dialect:?}: {whole}");
        let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("a request");
        assert!(!seen["body"].to_string().contains("max_"), "the backend would refuse it: {}", seen["body"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_no_bound_cuts_is_counted_by_the_backend() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in DIALECTS {
        let mut ask = dialect.ask("short");
        ask["max_tokens"] = json!(32_000);
        gateway.whole(&key, dialect, &ask).await;
    }
    let lines = request_lines(&gateway, 2).await;
    assert!(lines.iter().all(|line| line["usage_estimated"] == false), "{lines:?}");
}

/// The backend opens only what it sealed for this account, so that it takes the second request
/// proves that the reasoning came back whole.
#[tokio::test(flavor = "multi_thread")]
async fn encrypted_reasoning_goes_through_the_client_and_back_in_a_tool_loop() {
    let (sim, gateway, key) = gateway().await;
    for dialect in DIALECTS {
        let mut ask = dialect.ask_with_tool(r#"[reason] [tool:weather {"city":"Bern"}]"#);
        match dialect {
            Dialect::Messages => ask["thinking"] = json!({"type": "adaptive"}),
            _ => ask["reasoning_effort"] = json!("high"),
        }
        let first = gateway.whole(&key, dialect, &ask).await;
        let second = gateway.whole(&key, dialect, &dialect.answer_tool(&ask, &first, "sunny")).await;
        assert_eq!(dialect.text(&second), "Tool said: sunny", "{dialect:?}");
        let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("a request");
        let kinds: Vec<&str> = seen["body"]["input"].as_array().expect("items").iter().map(kind).collect();
        let expected = ["message", "reasoning", "function_call", "function_call_output"];
        assert_eq!(kinds, expected, "{dialect:?}: {}", seen["body"]);
    }
}

/// Reasoning can be opened only by the account that made it. When another one must serve, it goes on
/// without.
#[tokio::test(flavor = "multi_thread")]
async fn reasoning_of_another_account_is_taken_out_and_the_conversation_goes_on() {
    for dialect in DIALECTS {
        let sim = Sim::start().await;
        let accounts = [sim.account(json!({})).await, sim.account(json!({})).await];
        let (gateway, key) = Gateway::with_accounts(&sim, &accounts).await;
        let mut ask = dialect.ask_with_tool(r#"[reason] [tool:weather {"city":"Bern"}]"#);
        match dialect {
            Dialect::Messages => ask["thinking"] = json!({"type": "adaptive"}),
            _ => ask["reasoning_effort"] = json!("high"),
        }
        let first = gateway.whole(&key, dialect, &ask).await;
        let served = usize::from(sim.counters(&accounts[0]).await["responses"] == 0);
        let limit = json!({"scope": accounts[served].id, "kind": "usage_limit", "resets_in_seconds": 3600});
        sim.fault(limit).await;
        let second = gateway.whole(&key, dialect, &dialect.answer_tool(&ask, &first, "sunny")).await;
        assert_eq!(dialect.text(&second), "Tool said: sunny", "{dialect:?}: {}", gateway.log());
        let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("a request");
        let items = seen["body"]["input"].as_array().expect("items");
        assert!(items.iter().all(|item| kind(item) != "reasoning"), "{dialect:?}: {}", seen["body"]);
    }
}

fn kind(item: &Value) -> &str {
    item["type"].as_str().unwrap_or_default()
}

/// The beginning of a stream is held back for an error that hides in it, but not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_silent_after_its_beginning_is_let_go() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim).set("TOLLWAY_BACKEND__HOLD", "100ms");
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    for dialect in Dialect::ALL {
        sim.fault(json!({"kind": "stall", "at": "created"})).await;
        let mut answer = gateway.send(&key, dialect, &dialect.ask_streamed("hello")).await;
        assert_eq!(answer.status(), 200, "{dialect:?}");
        let first = answer.chunk().await.expect("a first write").expect("not the end");
        let begins = match dialect {
            Dialect::Chat => "\"role\":\"assistant\"",
            Dialect::Messages => "message_start",
            Dialect::Responses => "response.created",
        };
        assert!(String::from_utf8_lossy(&first).contains(begins), "{dialect:?}: {first:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_made_only_where_the_request_names_the_tool() {
    let (sim, gateway, key) = gateway().await;
    for dialect in DIALECTS {
        let plain = gateway.whole(&key, dialect, &dialect.ask("[image] a crab")).await;
        let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("a request");
        assert!(seen["body"].get("tools").is_none(), "{dialect:?}: {plain}");
        let mut ask = dialect.ask("[image] a crab");
        ask["tools"] = json!([{"type": "image_generation", "name": "image_generation"}]);
        let answer = gateway.whole(&key, dialect, &ask).await;
        let data = match dialect {
            Dialect::Messages => answer["content"][0]["source"]["data"].as_str(),
            _ => answer["choices"][0]["message"]["images"][0]["image_url"]["url"].as_str(),
        };
        assert!(data.is_some_and(|data| data.contains("iVBORw0KGgo")), "{dialect:?}: {answer}");
    }
}
