//! The operator's webhook: signed, tried again, and not lost with the process.

use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Setup, Sim, eventually};

const KEY: &[u8] = b"thirty-two bytes for a signature";

/// A receiver that says what it is told to, and notes what it gets.
#[derive(Clone, Default)]
struct Receiver {
    /// Answers to give first; then 204.
    answers: Arc<Mutex<Vec<u16>>>,
    got: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Receiver {
    async fn start(answers: &[u16]) -> (Self, String) {
        let receiver = Self { answers: Arc::new(Mutex::new(answers.to_vec())), got: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("its address"));
        let here = receiver.clone();
        let router = axum::Router::new()
            .route("/hook", post(move |headers: HeaderMap, body: Bytes| async move { here.take(&headers, &body) }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn take(&self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let header = |name: &str| headers[name].to_str().expect("text").to_owned();
        let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let signature = header("webhook-signature");
        let encoded = signature.strip_prefix("v1,").expect("a version");
        let tag = STANDARD.decode(encoded).expect("base64");
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &signed, &tag).expect("a good signature");
        self.got.lock().expect("a list").push((id, serde_json::from_slice(body).expect("JSON")));
        let mut answers = self.answers.lock().expect("a list");
        let status = if answers.is_empty() { 204 } else { answers.remove(0) };
        StatusCode::from_u16(status).expect("a status")
    }

    fn got(&self, kind: &str) -> Vec<(String, Value)> {
        self.got.lock().expect("a list").iter().filter(|(_, event)| event["type"] == kind).cloned().collect()
    }
}

fn with_webhook(setup: Setup, url: &str) -> Setup {
    setup.set("TOLLWAY_WEBHOOK__URL", url).set("TOLLWAY_WEBHOOK__SECRET", &format!("whsec_{}", STANDARD.encode(KEY)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_needed_is_told_until_it_was_heard_also_over_a_crash() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    let (receiver, url) = Receiver::start(&[500]).await;
    let setup = with_webhook(Setup::new(&sim), &url);
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    sim.post(&format!("accounts/{}/revoke", account.id), json!({})).await;
    eventually("a dead login", async || (gateway.status(&key).await == 503).then_some(())).await;
    let first = eventually("the first attempt", async || receiver.got("account.needs_login").pop()).await;
    let gateway = gateway.kill().serve().await;
    let second = eventually("the second attempt", async || {
        let got = receiver.got("account.needs_login");
        (got.len() == 2).then(|| got[1].clone())
    })
    .await;
    assert_eq!(first, second, "the same event under the same id");
    let data = &second.1["data"];
    assert_eq!((&data["account"], &data["became"]), (&json!(account.email), &json!("needs_login")), "{data}");
    assert!(second.1["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{}", second.1);
    assert!(!second.1.to_string().contains(&account.refresh_token));
    let setup = gateway.stop().await;
    setup.serve().await.stop().await;
    assert_eq!(receiver.got("account.needs_login").len(), 2, "heard once, told no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_nearly_used_up_is_told_once() {
    let sim = Sim::start().await;
    let account = sim.account(json!({"used_percent": 95.0})).await;
    let (receiver, url) = Receiver::start(&[]).await;
    let setup = with_webhook(Setup::new(&sim), &url);
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    assert_eq!(gateway.status(&key).await, 200);
    let (_, event) = eventually("the event", async || receiver.got("pool.nearly_exhausted").pop()).await;
    let left = event["data"]["left_percent"].as_f64().expect("a share");
    assert!((4.0..=5.0).contains(&left) && event["data"]["pool"].is_null(), "{event}");
    let (_, page) = gateway.ops_page("/metrics").await;
    let used =
        page.lines().find(|line| line.starts_with("tollway_account_used_ratio{") && line.contains("window=\"5h\""));
    assert!(used.is_some_and(|line| line.contains(" 0.95")), "{page}");
    assert!(page.contains("tollway_account_reset_timestamp_seconds{"), "{page}");
    assert_eq!(receiver.got("pool.nearly_exhausted").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_used_up_is_told_once_for_each_holder() {
    let sim = Sim::start().await;
    let (receiver, url) = Receiver::start(&[]).await;
    let setup = with_webhook(Setup::new(&sim), &url);
    setup.import(&sim.account(json!({})).await);
    setup.ok(&["team", "create", "core", "--budget", "300/day"]);
    setup.ok(&["user", "create", "ada", "--team", "core"]);
    let small = setup.key_with(&["--name", "laptop", "--user", "ada", "--budget", "100/day"]);
    let large = setup.key_with(&["--name", "desktop", "--user", "ada"]);
    let gateway = setup.serve().await;
    let ask = async |key: &str, times: usize| {
        let answers = futures_util::future::join_all((0..times).map(|_| gateway.status(key))).await;
        answers.into_iter().filter(|status| *status == 429).count()
    };
    assert!(ask(&small, 60).await > 10, "many find the budget used up");
    let (_, event) = eventually("the key's event", async || receiver.got("budget.hit").pop()).await;
    let (data, day) = (&event["data"], 86_400_000);
    assert_eq!((&data["level"], &data["name"]), (&json!("key"), &json!("laptop")), "{event}");
    assert_eq!((&data["budget"], &data["unit"]), (&json!("100 tokens/day"), &json!("tokens")), "{event}");
    assert!(data["limit"] == 100 && data["used"].as_u64() >= Some(100), "{event}");
    let resets_at = data["resets_at"].as_i64().expect("milliseconds");
    let row = eventually("a row", async || gateway.setup.usage_rows(0).await.into_iter().next()).await;
    assert!(resets_at % day == 0 && resets_at > row.at, "{event}");
    assert_eq!(data["id"], json!(row.key_id), "{event}");
    // The team's, which another key uses up.
    while ask(&large, 20).await == 0 {}
    eventually("the team's event", async || (receiver.got("budget.hit").len() == 2).then_some(())).await;
    let (_, event) = receiver.got("budget.hit").remove(1);
    assert_eq!((&event["data"]["level"], &event["data"]["name"]), (&json!("team"), &json!("core")), "{event}");
    // Neither refusals nor a start tell it again.
    let gateway = gateway.stop().await.serve().await;
    for key in [&small, &large] {
        assert_eq!(gateway.status(key).await, 429);
    }
    gateway.stop().await;
    assert_eq!(receiver.got("budget.hit").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_good_secret_is_refused_at_the_start() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_WEBHOOK__URL", "http://127.0.0.1:9/hook");
    assert!(setup.fails(&["serve"], "").contains("webhook.secret"));
    let setup = setup.set("TOLLWAY_WEBHOOK__SECRET", "hunter2-hunter2-hunter2");
    let said = setup.fails(&["serve"], "");
    assert!(said.contains("webhook.secret") && !said.contains("hunter2"), "{said}");
}
