//! Signs of life while the backend is silent, and the limits to its silence.

use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, events, eventually, json_of};

/// A gateway over these accounts, with settings of the test's own.
async fn gateway(sim: &Sim, accounts: &[SimAccount], settings: &[(&str, &str)]) -> (Gateway, String) {
    let mut setup = Setup::new(sim);
    for (name, value) in settings {
        setup = setup.set(name, value);
    }
    for account in accounts {
        setup.import(account);
    }
    let key = setup.key("ada");
    (setup.serve().await, key)
}

async fn one_account(settings: &[(&str, &str)]) -> (Sim, Gateway, String) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = gateway(&sim, &[account], settings).await;
    (sim, gateway, key)
}

const OFTEN: (&str, &str) = ("TOLLWAY_SERVER__KEEP_ALIVE", "40ms");
const SHORT_SILENCE: (&str, &str) = ("TOLLWAY_BACKEND__IDLE_TIMEOUT", "600ms");

async fn text(answer: Response) -> String {
    assert_eq!(answer.status(), 200);
    answer.text().await.expect("the stream can be read to its end")
}

async fn as_codex_cli(gateway: &Gateway, key: &str) -> Response {
    let body = json!({
        "model": "gpt-6.1-sol", "stream": true, "store": false,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
    });
    let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(key).json(&body);
    request.header("originator", "codex_exec").send().await.expect("the gateway answers")
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
async fn each_client_is_told_in_its_own_form_that_a_silent_stream_is_alive() {
    let (sim, gateway, key) = one_account(&[OFTEN, SHORT_SILENCE]).await;
    for (dialect, sign) in [
        (Dialect::Messages, "event: ping\ndata: {\"type\":\"ping\"}\n\n"),
        (Dialect::Chat, ": keep-alive\n\n"),
        (Dialect::Responses, ": keep-alive\n\n"),
    ] {
        sim.fault(json!({"kind": "stall", "at": "mid"})).await;
        let body = text(gateway.send(&key, dialect, &dialect.ask_streamed("hello")).await).await;
        assert!(body.matches(sign).count() >= 3, "{dialect:?}: {body}");
        assert!(dialect.ended_in_error(&events(&body)), "{dialect:?}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codex_cli_gets_events_for_comments_do_not_reset_its_timer() {
    let (sim, gateway, key) = one_account(&[OFTEN, SHORT_SILENCE]).await;
    sim.fault(json!({"kind": "stall", "at": "mid"})).await;
    let body = text(as_codex_cli(&gateway, &key).await).await;
    let alive = events(&body).iter().filter(|event| event.json()["type"] == "keepalive").count();
    assert!(alive >= 3 && !body.contains("\n:"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_no_more_than_the_answer_where_the_backend_is_not_silent_or_the_switch_is_off() {
    for settings in [[("TOLLWAY_SERVER__KEEP_ALIVE", "0s"), SHORT_SILENCE], [OFTEN, SHORT_SILENCE]] {
        let (sim, gateway, key) = one_account(&settings).await;
        let silent = settings[0].1 == "0s";
        if silent {
            sim.fault(json!({"kind": "stall", "at": "mid"})).await;
        }
        let body = text(gateway.send(&key, Dialect::Messages, &Dialect::Messages.ask_streamed("hello")).await).await;
        assert!(body.matches("event: ping").count() <= 1, "the one that Anthropic begins with: {body}");
        assert_eq!(Dialect::Messages.ended_well(&events(&body)), !silent, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_before_the_answer_begins_so_that_another_account_can_take_over() {
    let sim = Sim::start().await;
    let (first, second) = (sim.account(json!({})).await, sim.account(json!({})).await);
    let settings = [OFTEN, ("TOLLWAY_BACKEND__FIRST_BYTE_TIMEOUT", "500ms")];
    let (gateway, key) = gateway(&sim, &[first, second], &settings).await;
    for dialect in Dialect::ALL {
        sim.fault(json!({"kind": "stall", "at": "headers"})).await;
        let body = text(gateway.send(&key, dialect, &dialect.ask_streamed("hello")).await).await;
        assert_eq!(dialect.streamed_text(&events(&body)), "You said: hello", "{dialect:?}: {body}");
        assert!(dialect.ended_well(&events(&body)), "{dialect:?}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_backend_is_given_up_and_the_books_say_cut() {
    let (sim, gateway, key) = one_account(&[OFTEN, SHORT_SILENCE]).await;
    for (dialect, kind) in
        [(Dialect::Messages, "timeout_error"), (Dialect::Chat, "server_error"), (Dialect::Responses, "server_error")]
    {
        sim.fault(json!({"kind": "stall", "at": "mid"})).await;
        let body = text(gateway.send(&key, dialect, &dialect.ask_streamed("hello")).await).await;
        let last = events(&body).last().expect("an event").json();
        let said =
            if dialect == Dialect::Responses { &last["response"]["error"]["code"] } else { &last["error"]["type"] };
        assert_eq!(said, kind, "{dialect:?}: {last}");
        assert!(!body.contains("invalid_request_error"), "{dialect:?}: {body}");
    }
    for line in request_lines(&gateway, 3).await {
        assert_eq!((&line["outcome"], &line["status"]), (&json!("cut"), &json!(200)), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_too_long_in_all_is_ended_and_closed_upstream() {
    let (sim, gateway, key) = one_account(&[("TOLLWAY_BACKEND__TOTAL_TIMEOUT", "700ms")]).await;
    for (dialect, count) in [(Dialect::Messages, 1), (Dialect::Chat, 2), (Dialect::Responses, 3)] {
        sim.fault(json!({"kind": "slow", "ms": 20})).await;
        let body = text(gateway.send(&key, dialect, &dialect.ask_streamed("[long 5000]")).await).await;
        assert!(dialect.ended_in_error(&events(&body)), "{dialect:?}: {body}");
        eventually("the cancelled upstream request", async || {
            (sim.get("stats").await["totals"]["cancelled"] == count).then_some(())
        })
        .await;
    }
    for (dialect, kind) in
        [(Dialect::Messages, "timeout_error"), (Dialect::Chat, "server_error"), (Dialect::Responses, "server_error")]
    {
        sim.fault(json!({"kind": "slow", "ms": 20})).await;
        let ask = dialect.ask("[long 5000]");
        let asked = gateway.send(&key, dialect, &ask);
        let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("an end");
        let (status, body) = json_of(answer).await;
        assert_eq!((status.as_u16(), dialect.error_type(&body)), (504, kind), "{dialect:?}: {body}");
    }
}
