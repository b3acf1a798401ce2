//! Limits of keys, users and teams, and the books, over real sockets.

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, eventually};

async fn me(gateway: &Gateway, key: &str) -> Value {
    let answer = gateway.http.get(format!("{}/v1/me", gateway.url)).bearer_auth(key).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.json().await.expect("JSON")
}

fn usage(setup: &Setup) -> Value {
    let report = setup.ok(&["usage", "--by", "key", "--since", "1d", "--format", "json"]);
    serde_json::from_str(&report).expect("JSON")
}

async fn ask(gateway: &Gateway, key: &str, dialect: Dialect) -> reqwest::Response {
    let request = gateway.http.post(format!("{}{}", gateway.url, dialect.path())).bearer_auth(key);
    request.json(&dialect.ask("hello")).send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_requests_is_told_in_headers_and_ends_with_the_time_of_the_next() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({})).await);
    setup.ok(&["team", "create", "core", "--rpm", "2"]);
    setup.ok(&["user", "create", "ada", "--team", "core"]);
    let key = setup.key_with(&["--name", "laptop", "--user", "ada"]);
    let gateway = setup.serve().await;
    let first = ask(&gateway, &key, Dialect::Chat).await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["x-ratelimit-remaining-requests"], "1");
    assert_eq!(ask(&gateway, &key, Dialect::Messages).await.headers()["anthropic-ratelimit-requests-remaining"], "0");
    let refused = ask(&gateway, &key, Dialect::Chat).await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=61).contains(&wait), "{wait}");
    let body: Value = refused.json().await.expect("JSON");
    assert!(body["error"]["message"].as_str().expect("words").contains("team 'core'"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_at_once_exceed_a_budget_by_one_request_at_most() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_LIMITS__PATIENCE", "20s");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key_with(&["--name", "k", "--budget", "500/day"]);
    let gateway = setup.serve().await;
    let asked = (0..200).map(|_| async {
        let answer = ask(&gateway, &key, Dialect::Responses).await;
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, text)
    });
    let answers = futures_util::future::join_all(asked).await;
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(served > 1 && answers.iter().all(|(status, _)| matches!(status, 200 | 429)), "{served} served");
    let used = me(&gateway, &key).await["limits"][0]["used"].as_u64().expect("a number");
    assert!((500..600).contains(&used), "{used}: nothing was left, and one request went over");
    // The books say the same, once they are written; and so does the simulator.
    let rows = eventually("the books", async || {
        let report = usage(&gateway.setup);
        (report["rows"][0]["requests"] == 200).then_some(report)
    })
    .await;
    let row = &rows["rows"][0];
    assert_eq!(row["input_tokens"].as_u64().zip(row["output_tokens"].as_u64()).map(|(i, o)| i + o), Some(used));
    let refusal = answers.iter().find(|(status, _)| *status == 429).expect("a refusal");
    assert!(refusal.1.contains(&format!("{used} tokens used")), "{}", refusal.1);
    // … and they are read again at the next start.
    let gateway = gateway.stop().await.serve().await;
    assert_eq!(me(&gateway, &key).await["limits"][0]["used"].as_u64(), Some(used));
    assert_eq!(ask(&gateway, &key, Dialect::Responses).await.status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_may_not_ask_is_refused_in_plain_words() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({})).await);
    setup.ok(&["team", "create", "core"]);
    let dialects = setup.key_with(&["--name", "d", "--dialects", "messages"]);
    let models = setup.key_with(&["--name", "m", "--models", "gpt-nothing*"]);
    let elsewhere = setup.key_with(&["--name", "n", "--networks", "192.0.2.0/24"]);
    let suspended = setup.key_with(&["--name", "s", "--team", "core"]);
    setup.ok(&["team", "suspend", "core"]);
    let gateway = setup.serve().await;
    for key in [&dialects, &models, &elsewhere, &suspended] {
        assert_eq!(ask(&gateway, key, Dialect::Chat).await.status(), 403);
    }
    assert_eq!(ask(&gateway, &dialects, Dialect::Messages).await.status(), 200);
}
