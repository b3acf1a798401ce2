//! What happens when the backend refuses: before the first byte another account serves, after it
//! the stream ends with the dialect's error.

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Sim, SimAccount, eventually, json_of};

/// Two accounts, and the one that the next request will be sent to first.
async fn two_accounts() -> (Sim, Gateway, String, SimAccount, SimAccount) {
    let sim = Sim::start().await;
    let (first, second) = (sim.account(json!({})).await, sim.account(json!({})).await);
    let (gateway, key) = Gateway::with_accounts(&sim, &[first.clone(), second.clone()]).await;
    (sim, gateway, key, first, second)
}

async fn responses(sim: &Sim, account: &SimAccount) -> u64 {
    sim.counters(account).await["responses"].as_u64().expect("a count")
}

/// One refusal a request; another account must serve. There are enough accounts that each refusal
/// may cost one.
async fn the_next_account_serves(fault: Value) {
    let sim = Sim::start().await;
    let mut accounts = Vec::new();
    for _ in 0..8 {
        accounts.push(sim.account(json!({})).await);
    }
    let (gateway, key) = Gateway::with_accounts(&sim, &accounts).await;
    for dialect in Dialect::ALL {
        for ask in [dialect.ask("hello"), dialect.ask_streamed("hello")] {
            let before = sim.get("stats").await["totals"]["responses"].as_u64();
            sim.fault(fault.clone()).await;
            let answer = gateway.send(&key, dialect, &ask).await;
            let status = answer.status();
            let body = answer.text().await.expect("a body");
            assert_eq!(status, 200, "{fault}, {dialect:?}: {body}\n{}", gateway.log());
            assert!(!body.contains("\"error\":{"), "{fault}, {dialect:?}: {body}");
            let after = sim.get("stats").await["totals"]["responses"].as_u64();
            assert_eq!(after, before.map(|count| count + 2), "{fault}, {dialect:?}: one refusal and one answer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_account_hands_over_to_the_next() {
    the_next_account_serves(json!({"kind": "usage_limit", "resets_in_seconds": 3600})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_page_hands_over_to_the_next() {
    the_next_account_serves(json!({"kind": "forbidden_html"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_hands_over_to_the_next() {
    the_next_account_serves(json!({"kind": "server_error"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overload_hidden_in_a_good_stream_hands_over_to_the_next() {
    the_next_account_serves(json!({"kind": "failed_event", "code": "server_is_overloaded"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_hands_over_to_the_next() {
    the_next_account_serves(json!({"kind": "disconnect"})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_put_aside_is_left_alone_until_its_reset() {
    let (sim, gateway, key, first, second) = two_accounts().await;
    sim.fault(json!({"scope": first.id, "kind": "usage_limit", "resets_in_seconds": 3, "times": 1})).await;
    eventually("the first account's refusal", async || {
        assert_eq!(gateway.status(&key).await, 200);
        (responses(&sim, &first).await > 0).then_some(())
    })
    .await;
    let seen = responses(&sim, &first).await;
    for _ in 0..5 {
        assert_eq!(gateway.status(&key).await, 200);
    }
    assert_eq!(responses(&sim, &first).await, seen, "an account put aside was asked");
    gateway.setup.ok(&["account", "pause", &second.email]);
    eventually("the first account's return", async || {
        (gateway.status(&key).await == 200 && responses(&sim, &first).await > seen).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_aside_the_client_is_told_the_soonest_reset() {
    let (sim, gateway, key, first, second) = two_accounts().await;
    sim.fault(json!({"scope": first.id, "kind": "usage_limit", "resets_in_seconds": 900, "times": null})).await;
    sim.fault(json!({"scope": second.id, "kind": "usage_limit", "resets_in_seconds": 300, "times": null})).await;
    for dialect in Dialect::ALL {
        let answer = gateway.send(&key, dialect, &dialect.ask("hello")).await;
        let wait: u64 = answer.headers()["retry-after"].to_str().ok().and_then(|v| v.parse().ok()).expect("seconds");
        let (status, answer) = json_of(answer).await;
        assert_eq!(status, 429, "{dialect:?}: {answer}");
        assert!((200..=301).contains(&wait), "{dialect:?}: retry-after {wait}");
        let expected = if dialect == Dialect::Messages { "rate_limit_error" } else { "usage_limit_reached" };
        assert_eq!(dialect.error_type(&answer), expected, "{dialect:?}: {answer}");
    }
    assert_eq!(responses(&sim, &first).await + responses(&sim, &second).await, 2, "each was asked once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_after_its_first_byte_ends_with_the_dialects_error() {
    let (sim, gateway, key, first, second) = two_accounts().await;
    for fault in [
        json!({"kind": "cut", "after_events": 80}),
        json!({"kind": "cut", "after_events": 80, "clean": true}),
        json!({"kind": "failed_event", "at": "after_text", "code": "server_is_overloaded"}),
        json!({"kind": "malformed", "after_events": 80}),
    ] {
        for dialect in Dialect::ALL {
            let before = responses(&sim, &first).await + responses(&sim, &second).await;
            sim.fault(fault.clone()).await;
            let events = gateway.streamed(&key, dialect, &dialect.ask_streamed("[long 200]")).await;
            assert!(dialect.streamed_text(&events).contains("word0"), "{fault}, {dialect:?}: some text came");
            assert!(dialect.ended_in_error(&events), "{fault}, {dialect:?}: {:#?}", events.last());
            let after = responses(&sim, &first).await + responses(&sim, &second).await;
            assert_eq!(after - before, 1, "{fault}, {dialect:?}: nobody is asked again after the first byte");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_never_given_as_whole() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    for dialect in Dialect::ALL {
        sim.fault(json!({"kind": "cut", "after_events": 80, "clean": true})).await;
        let (status, answer) = json_of(gateway.send(&key, dialect, &dialect.ask("[long 200]")).await).await;
        assert_eq!(status, 502, "{dialect:?}: {answer}");
        assert!(answer["error"]["message"].is_string(), "{dialect:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_account_the_client_is_told_to_see_the_operator() {
    let sim = Sim::start().await;
    let (gateway, key) = Gateway::with_accounts(&sim, &[]).await;
    for dialect in Dialect::ALL {
        let (status, answer) = json_of(gateway.send(&key, dialect, &dialect.ask("hello")).await).await;
        assert_eq!(status, 503, "{dialect:?}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains("account")), "{answer}");
    }
}
