//! Every row of the table of failures (docs/failures.md), in each dialect, streamed and not, over
//! real sockets: the client sees a normal answer while one account is healthy and no byte was sent;
//! nothing is counted twice; no account is asked again after it said stop.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollway::account::pool::remedy::{Consequence, Remedy, Same, Then, remedy};
use tollway::codex::FailureKind;

use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, events, eventually};

/// How the backend shows each failure before it has answered anything.
fn faults(kind: FailureKind) -> Vec<Value> {
    use FailureKind as K;
    let failed = |code: &str| json!({"kind": "failed_event", "code": code});
    let status = |status: u16, body: Value| json!({"kind": "status", "status": status, "body": body});
    match kind {
        K::Unauthorized => {
            vec![json!({"kind": "unauthorized"}), json!({"kind": "unauthorized", "code": "token_expired"})]
        }
        K::Forbidden => vec![json!({"kind": "forbidden_html"})],
        K::UsageLimit => vec![
            json!({"kind": "usage_limit"}),
            failed("usage_limit_reached"),
            failed("insufficient_quota"),
            json!({"kind": "status", "status": 429, "body": {}, "headers": {
                "x-codex-primary-used-percent": "100", "x-codex-primary-reset-at": "4000000000"}}),
        ],
        K::NotIncluded => vec![status(429, json!({"error": {"type": "usage_not_included", "message": "no Codex"}}))],
        K::ModelNotOffered => {
            let detail = "The 'gpt-6.1-sol' model is not supported when using Codex with a ChatGPT account.";
            vec![status(400, json!({"detail": detail}))]
        }
        K::RateLimited => vec![
            json!({"kind": "rate_limit", "retry_after": 600}),
            json!({"kind": "failed_event", "code": "rate_limit_exceeded", "message": "Please try again in 600s."}),
        ],
        K::Overloaded => vec![
            json!({"kind": "overloaded"}),
            failed("server_is_overloaded"),
            json!({"kind": "failed_event", "message": "The model is currently overloaded"}),
            json!({"kind": "failed_event", "code": "server_is_overloaded", "event": "error"}),
        ],
        K::ServerError => vec![json!({"kind": "server_error"}), failed("server_error"), status(520, json!("oops"))],
        K::Connection => vec![json!({"kind": "disconnect"})],
        K::Timeout => vec![json!({"kind": "stall"}), status(504, json!({}))],
        K::StreamCut => vec![
            json!({"kind": "cut", "after_events": 2}),
            json!({"kind": "cut", "after_events": 1, "clean": true}),
            json!({"kind": "malformed", "after_events": 1}),
        ],
        K::ContextLength => vec![failed("context_length_exceeded")],
        K::Policy => vec![failed("cyber_policy")],
        K::BadRequest => vec![status(400, json!({"detail": "Unsupported parameter: user"})), failed("invalid_prompt")],
        K::ForeignReasoning => {
            vec![status(400, json!({"error": {"code": "invalid_encrypted_content", "message": "not ours"}}))]
        }
    }
}

/// A gateway over enough accounts that each refusal may cost one.
async fn many_accounts(count: usize) -> (Sim, Gateway, String, Vec<SimAccount>) {
    let sim = Sim::start().await;
    let setup =
        Setup::new(&sim).set("TOLLWAY_BACKEND__FIRST_BYTE_TIMEOUT", "1s").set("TOLLWAY_POOL__POLL_INTERVAL", "0s");
    let mut accounts = Vec::new();
    for _ in 0..count {
        let account = sim.account(json!({})).await;
        setup.import(&account);
        accounts.push(account);
    }
    let key = setup.key("ada");
    (sim, setup.serve().await, key, accounts)
}

async fn asked(sim: &Sim, accounts: &[SimAccount]) -> BTreeMap<String, u64> {
    let mut asked = BTreeMap::new();
    for account in accounts {
        asked.insert(account.id.clone(), sim.counters(account).await["responses"].as_u64().expect("a count"));
    }
    asked
}

/// One request of the matrix. A session of its own, so that each goes where the pool sends it.
fn request(dialect: Dialect, number: usize, streams: bool, kind: FailureKind) -> Value {
    let prompt = format!("hello {number}");
    let mut body = if streams { dialect.ask_streamed(&prompt) } else { dialect.ask(&prompt) };
    if kind == FailureKind::ForeignReasoning {
        let reasoning =
            json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAfromelsewhere"});
        match dialect {
            Dialect::Responses => body["input"].as_array_mut().expect("a list").push(reasoning),
            Dialect::Chat => body["messages"].as_array_mut().expect("a list").push(json!({
                "role": "assistant", "content": "hi",
                "reasoning_details": [{"type": "reasoning.encrypted", "data": "tw1:gAAAfromelsewhere", "format": "tollway-v1", "id": "rs_1"}],
            })),
            Dialect::Messages => body["messages"].as_array_mut().expect("a list").push(json!({
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "hm", "signature": "tw1:gAAAfromelsewhere"}, {"type": "text", "text": "hi"}],
            })),
        }
        if dialect != Dialect::Responses {
            let more = json!({"role": "user", "content": "more"});
            body["messages"].as_array_mut().expect("a list").push(more);
        }
    }
    body
}

async fn a_row_holds(kind: FailureKind) {
    let Remedy { same, account, then } = remedy(kind);
    let faults = faults(kind);
    let (sim, gateway, key, accounts) = many_accounts(6 * faults.len() + 2).await;
    let is_made_good = then != Then::GiveUp || same != Same::No;
    let mut stopped: BTreeMap<String, u64> = BTreeMap::new();
    let mut number = 0;
    for fault in faults {
        for (dialect, streams) in Dialect::ALL.into_iter().flat_map(|dialect| [(dialect, false), (dialect, true)]) {
            number += 1;
            let before = asked(&sim, &accounts).await;
            sim.fault(fault.clone()).await;
            let answer = gateway.send(&key, dialect, &request(dialect, number, streams, kind)).await;
            let (status, body) = (answer.status().as_u16(), answer.text().await.expect("a body"));
            let told = format!("{fault}, {dialect:?}, streams {streams}: {status} {body}");
            let after = asked(&sim, &accounts).await;
            let calls: BTreeMap<_, _> = after
                .iter()
                .map(|(id, count)| (id.clone(), count - before[id]))
                .filter(|(_, count)| *count > 0)
                .collect();
            if is_made_good {
                assert!(status == 200 && !body.contains("\"error\":{"), "{told}\n{}", gateway.log());
                let text = if streams {
                    let events = events(&body);
                    assert!(dialect.ended_well(&events), "{told}");
                    dialect.streamed_text(&events)
                } else {
                    dialect.text(&serde_json::from_str(&body).expect("JSON"))
                };
                assert!(text.starts_with("You said: "), "{text:?}, {told}");
                let on_one = same != Same::No && same != Same::Again;
                assert_eq!(calls.len(), if on_one { 1 } else { 2 }, "{told}: {calls:?}");
                assert_eq!(calls.values().sum::<u64>(), 2, "one refusal and one answer: {told}: {calls:?}");
            } else {
                assert!((400..500).contains(&status), "{told}");
                assert_eq!(calls.values().sum::<u64>(), 1, "no other account would do better: {told}: {calls:?}");
            }
            for (id, count) in &stopped {
                assert_eq!(after[id], *count, "{id} was asked after it said stop: {told}");
            }
            if matches!(
                account,
                Consequence::Limit | Consequence::Cool | Consequence::CloseModel | Consequence::CloseAccount
            ) {
                let refused = struck(&sim, &calls).await;
                stopped.insert(refused.clone(), after[&refused]);
            }
        }
    }
    // A stream that was dropped at an illegible event is complete for the backend, and for nobody else.
    let exactly = kind != FailureKind::StreamCut;
    nothing_is_counted_twice(&sim, &gateway, &accounts, exactly).await;
}

/// Which of the accounts that were called last did not complete all it was asked.
async fn struck(sim: &Sim, calls: &BTreeMap<String, u64>) -> String {
    for id in calls.keys() {
        let counters = sim.get(&format!("accounts/{id}")).await["counters"].clone();
        if counters["responses"] != counters["completed"] {
            return id.clone();
        }
    }
    panic!("none of {calls:?} was refused")
}

/// What the gateway has counted is what the backend has.
async fn nothing_is_counted_twice(sim: &Sim, gateway: &Gateway, accounts: &[SimAccount], exactly: bool) {
    let (mut input, mut output) = (0.0, 0.0);
    for account in accounts {
        let tokens = sim.counters(account).await["tokens"].clone();
        input += tokens["input"].as_f64().expect("a count");
        output += tokens["output"].as_f64().expect("a count");
    }
    let page = eventually("all requests settled", async || {
        let (_, page) = gateway.ops_page("/metrics").await;
        page.contains("tollway_in_flight_requests 0").then_some(page)
    })
    .await;
    let counted = |kind: &str| -> f64 {
        let of_kind =
            |line: &&str| line.starts_with("tollway_tokens_total{") && line.contains(&format!("kind=\"{kind}\""));
        page.lines().filter(of_kind).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    for (kind, theirs) in [("input", input), ("output", output)] {
        let ours = counted(kind);
        assert!(ours <= theirs + 0.5 && (!exactly || ours > theirs - 0.5), "{kind}: {ours} and {theirs}");
    }
}

macro_rules! rows {
    ($($name:ident: $kind:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            a_row_holds(FailureKind::$kind).await;
        })*

        #[test]
        fn every_row_is_tested() {
            assert_eq!([$(FailureKind::$kind),*], FailureKind::ALL);
        }
    };
}

rows! {
    unauthorized: Unauthorized,
    forbidden: Forbidden,
    usage_limit: UsageLimit,
    not_included: NotIncluded,
    model_not_offered: ModelNotOffered,
    rate_limited: RateLimited,
    overloaded: Overloaded,
    server_error: ServerError,
    connection: Connection,
    timeout: Timeout,
    stream_cut: StreamCut,
    context_length: ContextLength,
    policy: Policy,
    bad_request: BadRequest,
    foreign_reasoning: ForeignReasoning,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_told_within_a_stream_that_had_begun_puts_the_account_aside_too() {
    let (sim, gateway, key, accounts) = many_accounts(8).await;
    let mut stopped: BTreeMap<String, u64> = BTreeMap::new();
    for (number, dialect) in Dialect::ALL.into_iter().enumerate() {
        let before = asked(&sim, &accounts).await;
        sim.fault(json!({"kind": "failed_event", "code": "usage_limit_reached", "at": "after_text"})).await;
        let events = gateway.streamed(&key, dialect, &request(dialect, number, true, FailureKind::UsageLimit)).await;
        assert!(dialect.ended_in_error(&events), "{dialect:?}: {events:?}");
        let after = asked(&sim, &accounts).await;
        let calls: Vec<_> = after.iter().filter(|(id, count)| before[*id] < **count).collect();
        assert_eq!(calls.len(), 1, "a stream that had begun belongs to its account: {calls:?}");
        for (id, count) in &stopped {
            assert_eq!(after[id], *count, "{id} was asked after it said stop");
        }
        stopped.insert(calls[0].0.clone(), *calls[0].1);
        // The same conversation goes on elsewhere.
        let again = request(dialect, number, false, FailureKind::UsageLimit);
        gateway.whole(&key, dialect, &again).await;
        assert_eq!(asked(&sim, &accounts).await[calls[0].0], *calls[0].1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_backend_is_not_multiplied() {
    let (sim, gateway, key, _) = many_accounts(6).await;
    sim.fault(json!({"kind": "server_error", "times": null})).await;
    let requests = 200;
    for _ in 0..requests / 20 {
        let some = (0..20).map(|_| gateway.status(&key));
        let statuses = futures_util::future::join_all(some).await;
        assert!(statuses.iter().all(|status| (500..600).contains(status)), "{statuses:?}");
    }
    let calls = sim.get("stats").await["totals"]["responses"].as_u64().expect("a count");
    // A fifth, what an idle gateway has saved up, and one a second.
    assert!((requests..=requests + requests / 5 + 20 + 30).contains(&calls), "{calls} calls for {requests} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_keeps_failing_is_left_alone_until_a_trial_succeeds() {
    let (sim, gateway, key, accounts) = many_accounts(2).await;
    let [ill, _] = &accounts[..] else { panic!("two accounts") };
    gateway.setup.ok(&["account", "set", &ill.email, "--priority", "1"]);
    sim.fault(json!({"scope": ill.id, "kind": "server_error", "times": 5})).await;
    // Each a conversation of its own, or they would stay where the first one went.
    let mut number = 0;
    let mut ask = async || {
        number += 1;
        let body = Dialect::Responses.ask(&format!("hello {number}"));
        gateway.send(&key, Dialect::Responses, &body).await.status().as_u16()
    };
    let calls = async || sim.counters(ill).await["responses"].as_u64().expect("a count");
    eventually("five failures in a row", async || {
        assert_eq!(ask().await, 200);
        (calls().await == 5).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(ask().await, 200);
    }
    assert_eq!(calls().await, 5, "its circuit is open");
    let (_, page) = gateway.ops_page("/metrics").await;
    assert!(page.contains("tollway_accounts{state=\"tripped\"} 1"), "{page}");
    eventually("a trial that closes the circuit", async || {
        assert_eq!(ask().await, 200);
        (calls().await > 7).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_offers_is_asked_for_once() {
    let (sim, gateway, key, accounts) = many_accounts(6).await;
    eventually("every catalogue", async || {
        (sim.requests("/backend-api/codex/models").await.len() >= accounts.len()).then_some(())
    })
    .await;
    // Not only asked for, but read: a list of models is made of all of them.
    assert_eq!(gateway.get(&key, "/v1/models", &[]).await.status(), 200);
    for dialect in Dialect::ALL {
        let before = sim.get("stats").await["totals"]["responses"].as_u64().expect("a count");
        let mut body = dialect.ask("hello");
        body["model"] = json!("no-such-model");
        let answer = gateway.send(&key, dialect, &body).await;
        assert_eq!(answer.status(), 404, "{dialect:?}: {:?}", answer.text().await);
        let after = sim.get("stats").await["totals"]["responses"].as_u64().expect("a count");
        assert_eq!(after - before, 1, "{dialect:?}");
    }
    assert_eq!(gateway.status(&key).await, 200, "the accounts are none the worse for it");
}
