//! Errors that clients act on rightly: whether to try again, when, and what a Codex CLI and Claude
//! Code recognise.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Sim, json_of};

async fn gateway() -> (Sim, Gateway, String) {
    let sim = Sim::start().await;
    let account = sim.account(json!({"plan": "plus"})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    (sim, gateway, key)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn as_codex_cli(gateway: &Gateway, key: &str, body: &Value) -> (u16, Value) {
    let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(key).json(body);
    let (status, body) = json_of(request.header("originator", "codex_exec").send().await.expect("an answer")).await;
    (status.as_u16(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_pool_says_until_when_and_that_a_retry_is_pointless() {
    let (sim, gateway, key) = gateway().await;
    sim.fault(json!({"kind": "usage_limit", "resets_in_seconds": 7200, "times": null})).await;
    for dialect in Dialect::ALL {
        let answer = gateway.send(&key, dialect, &dialect.ask("hello")).await;
        let headers = answer.headers().clone();
        let (status, body) = json_of(answer).await;
        assert_eq!((status.as_u16(), header(&headers, "x-should-retry")), (429, "false"), "{dialect:?}: {body}");
        let seconds: u64 = header(&headers, "retry-after").parse().expect("seconds");
        let millis: u64 = header(&headers, "retry-after-ms").parse().expect("milliseconds");
        assert!((7100..=7201).contains(&seconds) && millis.div_ceil(1000) == seconds, "{headers:?}");
        assert!(header(&headers, "x-request-id").starts_with("req_"), "{headers:?}");
        if dialect == Dialect::Messages {
            assert_eq!(header(&headers, "request-id"), body["request_id"], "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codex_cli_is_told_the_pools_soonest_reset() {
    let (sim, gateway, key) = gateway().await;
    sim.fault(json!({"kind": "usage_limit", "resets_in_seconds": 7200, "times": null})).await;
    let (status, body) = as_codex_cli(&gateway, &key, &Dialect::Responses.ask_streamed("hello")).await;
    let error = &body["error"];
    assert_eq!((status, &error["type"]), (429, &json!("usage_limit_reached")), "{body}");
    assert!(error["plan_type"].is_null(), "the CLI would advise its user to buy a bigger plan: {body}");
    assert!(error["resets_in_seconds"].as_u64().is_some_and(|seconds| (7100..=7200).contains(&seconds)), "{body}");
    assert!(error["resets_at"].is_i64() || error["resets_at"].is_u64(), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codex_cli_gets_the_one_server_error_that_it_takes_as_final() {
    let (sim, gateway, key) = gateway().await;
    // A lone account is asked twice where that may help.
    for (fault, times) in [("server_error", 2), ("disconnect", 2), ("forbidden_html", 1), ("overloaded", 2)] {
        sim.fault(json!({"kind": fault, "times": times})).await;
        let (status, body) = as_codex_cli(&gateway, &key, &Dialect::Responses.ask_streamed("hello")).await;
        assert_eq!((status, &body["error"]["code"]), (503, &json!("server_is_overloaded")), "{fault}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_backend_is_a_server_error_that_may_be_tried_again() {
    let (sim, gateway, key) = gateway().await;
    for (dialect, kind) in
        [(Dialect::Chat, "server_error"), (Dialect::Responses, "server_error"), (Dialect::Messages, "api_error")]
    {
        for fault in [
            json!({"kind": "server_error", "times": 2}),
            json!({"kind": "cut", "after_events": 2}),
            json!({"kind": "disconnect", "times": 2}),
        ] {
            sim.fault(fault.clone()).await;
            let answer = gateway.send(&key, dialect, &dialect.ask("hello")).await;
            let retry = header(answer.headers(), "x-should-retry").to_owned();
            let (status, body) = json_of(answer).await;
            assert_eq!(
                (status.as_u16(), dialect.error_type(&body), retry.as_str()),
                (502, kind, "true"),
                "{dialect:?}, {fault}: {body}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_without_numbers_gets_them_from_the_request_and_the_catalogue() {
    let (sim, gateway, key) = gateway().await;
    let message = "Your input exceeds the context window of this model. Please adjust your input and try again.";
    sim.fault(json!({"kind": "failed_event", "code": "context_length_exceeded", "message": message})).await;
    let dialect = Dialect::Messages;
    let (status, body) = json_of(gateway.send(&key, dialect, &dialect.ask("hello")).await).await;
    let told = body["error"]["message"].as_str().unwrap_or_default();
    let numbers: Vec<u64> = told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!((status.as_u16(), numbers.len()), (400, 2), "{body}");
    assert_eq!(told, format!("prompt is too long: {} tokens > {} maximum", numbers[0], numbers[1]));
    assert!(numbers[0] > numbers[1] && numbers[1] >= 200_000, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_own_fault_is_not_to_be_tried_again() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        let url = format!("{}{}", gateway.url, dialect.path());
        let bodies: [&[u8]; 4] =
            [b"", b"{", b"\xff\xfe{}", b"--x\r\ncontent-disposition: form-data\r\n\r\n{}\r\n--x--"];
        for body in bodies {
            let request = gateway.http.post(&url).bearer_auth(&key).header("content-type", "multipart/form-data");
            let answer = request.body(body.to_vec()).send().await.expect("an answer");
            assert_eq!(header(answer.headers(), "x-should-retry"), "false", "{dialect:?}: {body:?}");
            let (status, said) = json_of(answer).await;
            assert_eq!(
                (status.as_u16(), dialect.error_type(&said)),
                (400, "invalid_request_error"),
                "{body:?}: {said}"
            );
        }
    }
}
