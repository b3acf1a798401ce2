//! Message batches: handed in, worked on behind everybody else, cancelled, and carried over every stop.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::socket::Socket;
use crate::support::{Dialect, Gateway, Setup, Sim, eventually, eventually_within, json_of};

const BACKEND: &str = "/backend-api/codex/responses";

async fn call(gateway: &Gateway, key: &str, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let mut request = gateway.http.request(method, format!("{}/v1/messages/batches{path}", gateway.url));
    request = request.header("x-api-key", key).header("anthropic-version", "2023-06-01");
    if let Some(body) = body {
        request = request.json(body);
    }
    json_of(request.send().await.expect("the gateway answers")).await
}

fn request(name: &str, text: &str) -> Value {
    let params =
        json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}]});
    json!({"custom_id": name, "params": params})
}

fn requests(count: usize) -> Value {
    let all: Vec<_> = (0..count).map(|number| request(&format!("r-{number}"), &format!("number {number}"))).collect();
    json!({ "requests": all })
}

async fn hand_in(gateway: &Gateway, key: &str, body: &Value) -> String {
    let (status, batch) = call(gateway, key, Method::POST, "", Some(body)).await;
    assert_eq!((status, &batch["processing_status"]), (StatusCode::OK, &json!("in_progress")), "{batch}");
    assert_eq!(batch["type"], "message_batch");
    assert_eq!(batch["request_counts"]["processing"], json!(body["requests"].as_array().map(Vec::len)));
    batch["id"].as_str().expect("an id").to_owned()
}

async fn get(gateway: &Gateway, key: &str, id: &str) -> Value {
    let (status, batch) = call(gateway, key, Method::GET, &format!("/{id}"), None).await;
    assert_eq!(status, StatusCode::OK, "{batch}");
    batch
}

async fn ended(gateway: &Gateway, key: &str, id: &str) -> Value {
    eventually_within(Duration::from_secs(30), "the end of the batch", async || {
        let batch = get(gateway, key, id).await;
        (batch["processing_status"] == "ended").then_some(batch)
    })
    .await
}

/// The results, from where the batch says they are.
async fn results(gateway: &Gateway, key: &str, batch: &Value) -> Vec<Value> {
    let url = batch["results_url"].as_str().expect("an address");
    assert!(url.starts_with(&gateway.url), "{url}");
    let answer = gateway.http.get(url).header("x-api-key", key).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/x-jsonl");
    let text = answer.text().await.expect("lines");
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn kinds(results: &[Value]) -> Vec<&str> {
    results.iter().map(|line| line["result"]["type"].as_str().expect("a type")).collect()
}

async fn started(setup: impl FnOnce(Setup) -> Setup) -> (Sim, Gateway, String) {
    let sim = Sim::start().await;
    let setup = setup(Setup::new(&sim));
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    (sim, setup.serve().await, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_and_its_results_are_read_in_order() {
    let (sim, gateway, key) = started(|setup| setup).await;
    let mut body = requests(5);
    body["requests"][2]["params"]["messages"] = json!([]);
    body["requests"][3]["params"]["stream"] = json!(true);
    let id = hand_in(&gateway, &key, &body).await;
    let batch = ended(&gateway, &key, &id).await;
    let counts = json!({"processing": 0, "succeeded": 3, "errored": 2, "canceled": 0, "expired": 0});
    assert_eq!(batch["request_counts"], counts);
    assert!(batch["ended_at"].is_string() && batch["cancel_initiated_at"].is_null());

    let results = results(&gateway, &key, &batch).await;
    let names: Vec<_> = results.iter().map(|line| line["custom_id"].as_str().expect("a name")).collect();
    assert_eq!(names, ["r-0", "r-1", "r-2", "r-3", "r-4"]);
    assert_eq!(kinds(&results), ["succeeded", "succeeded", "errored", "errored", "succeeded"]);
    let message = &results[4]["result"]["message"];
    assert_eq!((&message["type"], &message["stop_reason"]), (&json!("message"), &json!("end_turn")));
    assert_eq!(message["content"][0]["text"], "You said: number 4");
    assert_eq!(message["model"], "claude-sonnet-4-5");
    let error = &results[2]["result"]["error"];
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("invalid_request_error")));
    assert!(results[3]["result"]["error"]["error"]["message"].as_str().is_some_and(|text| text.starts_with("stream")));
    assert_eq!(sim.requests(BACKEND).await.len(), 3, "what makes no sense is never sent");
    let (_, page) = gateway.ops_page("/metrics").await;
    assert!(page.contains("tollway_batch_requests_total{outcome=\"succeeded\"} 3"), "{page}");

    let (status, gone) = call(&gateway, &key, Method::DELETE, &format!("/{id}"), None).await;
    assert_eq!((status, gone), (StatusCode::OK, json!({"id": id, "type": "message_batch_deleted"})));
    let (status, error) = call(&gateway, &key, Method::GET, &format!("/{id}"), None).await;
    assert_eq!((status, &error["error"]["type"]), (StatusCode::NOT_FOUND, &json!("not_found_error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_listed_in_pages() {
    let (_sim, gateway, key) = started(|setup| setup.set("TOLLWAY_BATCHES__CONCURRENCY", "0")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, hand_in(&gateway, &key, &requests(1)).await);
    }
    let page = async |query: &str| call(&gateway, &key, Method::GET, query, None).await.1;
    let names = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().expect("a list");
        data.iter().map(|batch| batch["id"].as_str().expect("an id").to_owned()).collect()
    };
    let first = page("?limit=2").await;
    assert_eq!((names(&first), &first["has_more"]), (ids[..2].to_vec(), &json!(true)));
    let rest = page(&format!("?limit=2&after_id={}", first["last_id"].as_str().expect("an id"))).await;
    assert_eq!((names(&rest), &rest["has_more"]), (ids[2..].to_vec(), &json!(false)));
    let back = page(&format!("?limit=1&before_id={}", ids[2])).await;
    assert_eq!((names(&back), &back["has_more"]), (ids[1..2].to_vec(), &json!(true)));
    let (status, error) = call(&gateway, &key, Method::GET, "?limit=0", None).await;
    assert_eq!((status, &error["error"]["type"]), (StatusCode::BAD_REQUEST, &json!("invalid_request_error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_as_a_whole_is_refused() {
    let (_sim, gateway, key) = started(|setup| setup.set("TOLLWAY_BATCHES__MAX_REQUESTS", "3")).await;
    let twice = json!({"requests": [request("a", "x"), request("a", "y")]});
    for (body, expected) in [
        (json!({}), StatusCode::BAD_REQUEST),
        (json!({"requests": []}), StatusCode::BAD_REQUEST),
        (json!({"requests": [request("not a name", "x")]}), StatusCode::BAD_REQUEST),
        (twice, StatusCode::BAD_REQUEST),
        (requests(4), StatusCode::TOO_MANY_REQUESTS),
    ] {
        let (status, error) = call(&gateway, &key, Method::POST, "", Some(&body)).await;
        assert_eq!((status, &error["type"]), (expected, &json!("error")), "{error}");
    }
    assert_eq!(call(&gateway, "tw-nobody", Method::POST, "", Some(&requests(1))).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_anothers_batch() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({})).await);
    let (ada, bob) = (setup.key("ada"), setup.key("bob"));
    let gateway = setup.serve().await;
    let id = hand_in(&gateway, &ada, &requests(1)).await;
    ended(&gateway, &ada, &id).await;
    for (method, path) in [
        (Method::GET, format!("/{id}")),
        (Method::POST, format!("/{id}/cancel")),
        (Method::GET, format!("/{id}/results")),
        (Method::DELETE, format!("/{id}")),
    ] {
        assert_eq!(call(&gateway, &bob, method.clone(), &path, None).await.0, StatusCode::NOT_FOUND, "{method} {path}");
    }
    assert_eq!(call(&gateway, &bob, Method::GET, "", None).await.1["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_batch_lets_finish_what_has_begun() {
    let (sim, gateway, key) = started(|setup| setup.set("TOLLWAY_BATCHES__CONCURRENCY", "1")).await;
    sim.fault(json!({"kind": "hold", "at": "before", "where": "responses", "times": 1})).await;
    let id = hand_in(&gateway, &key, &requests(3)).await;
    sim.held("responses", 1).await;
    let (status, error) = call(&gateway, &key, Method::GET, &format!("/{id}/results"), None).await;
    assert_eq!((status, &error["error"]["type"]), (StatusCode::BAD_REQUEST, &json!("invalid_request_error")));
    assert_eq!(call(&gateway, &key, Method::DELETE, &format!("/{id}"), None).await.0, StatusCode::BAD_REQUEST);
    let (status, batch) = call(&gateway, &key, Method::POST, &format!("/{id}/cancel"), None).await;
    assert_eq!((status, &batch["processing_status"]), (StatusCode::OK, &json!("canceling")), "{batch}");
    assert!(batch["cancel_initiated_at"].is_string());
    sim.release("responses").await;
    let batch = ended(&gateway, &key, &id).await;
    assert_eq!(kinds(&results(&gateway, &key, &batch).await), ["succeeded", "canceled", "canceled"]);
    assert_eq!(sim.requests(BACKEND).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_for_those_who_wait_for_an_answer() {
    let (sim, gateway, key) = started(|setup| setup.set("TOLLWAY_BATCHES__PATIENCE", "1h")).await;
    sim.fault(json!({"kind": "hold", "at": "before", "where": "responses", "times": 1})).await;
    let question = json!({"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": "I come first"}]});
    let asking = gateway.send(&key, Dialect::Chat, &question);
    let handing_in = async {
        sim.held("responses", 1).await;
        let id = hand_in(&gateway, &key, &requests(2)).await;
        // Another one who comes later is answered before the batch, too.
        assert_eq!(gateway.status(&key).await, 200);
        assert_eq!(get(&gateway, &key, &id).await["request_counts"]["processing"], 2);
        sim.release("responses").await;
        id
    };
    let (answer, id) = tokio::join!(asking, handing_in);
    assert_eq!(answer.status(), 200);
    drop(answer);
    ended(&gateway, &key, &id).await;
    let seen = sim.requests(BACKEND).await;
    let of_batch = |request: &Value| request["body"]["input"].to_string().contains("number ");
    assert!(seen[2..].iter().all(of_batch) && !seen[..2].iter().any(of_batch), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_is_asked_holds_up_no_batch() {
    let (_sim, gateway, key) = started(|setup| setup.set("TOLLWAY_BATCHES__PATIENCE", "1h")).await;
    let socket = Socket::open(&gateway.url, &key, &[]).await.expect("a connection");
    let id = hand_in(&gateway, &key, &requests(2)).await;
    ended(&gateway, &key, &id).await;
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_has_waited_long_enough_has_its_turn() {
    let (sim, gateway, key) = started(|setup| setup.set("TOLLWAY_BATCHES__PATIENCE", "100ms")).await;
    sim.fault(json!({"kind": "hold", "at": "before", "where": "responses", "times": 1})).await;
    let question = json!({"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": "I take long"}]});
    let asking = gateway.send(&key, Dialect::Chat, &question);
    let handing_in = async {
        sim.held("responses", 1).await;
        let id = hand_in(&gateway, &key, &requests(2)).await;
        ended(&gateway, &key, &id).await;
        sim.release("responses").await;
    };
    let (answer, ()) = tokio::join!(asking, handing_in);
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_used_up_is_waited_for() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "usage_limit", "resets_in_seconds": 2, "where": "responses", "times": 1})).await;
    let id = hand_in(&gateway, &key, &requests(2)).await;
    let batch = ended(&gateway, &key, &id).await;
    assert_eq!(kinds(&results(&gateway, &key, &batch).await), ["succeeded", "succeeded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_window_is_left_to_those_who_wait() {
    let sim = Sim::start().await;
    let account = sim.account(json!({"used_percent": 95.0})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let id = hand_in(&gateway, &key, &requests(1)).await;
    eventually("a look at the quota", async || {
        (!sim.requests("/backend-api/wham/usage").await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(gateway.status(&key).await, 200);
    assert_eq!(get(&gateway, &key, &id).await["request_counts"]["processing"], 1);
    // What an answer tells of a new window lets the batch go on.
    sim.post(&format!("accounts/{}/set", account.id), json!({"used_percent": 5.0})).await;
    assert_eq!(gateway.status(&key).await, 200);
    ended(&gateway, &key, &id).await;
    let seen = sim.requests(BACKEND).await;
    let of_batch: Vec<bool> = seen.iter().map(|one| one["body"]["input"].to_string().contains("number ")).collect();
    assert_eq!(of_batch, [false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_backend_is_tried_again() {
    let (sim, gateway, key) = started(|setup| setup).await;
    sim.fault(json!({"kind": "server_error", "where": "responses", "times": 1})).await;
    let id = hand_in(&gateway, &key, &requests(1)).await;
    let batch = ended(&gateway, &key, &id).await;
    assert_eq!(kinds(&results(&gateway, &key, &batch).await), ["succeeded"]);
    assert_eq!(sim.requests(BACKEND).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_after_sigterm_and_after_a_kill_and_nothing_is_answered_twice() {
    for is_killed in [false, true] {
        let (sim, gateway, key) = started(|setup| setup.set("TOLLWAY_SERVER__DRAIN_GRACE", "200ms")).await;
        sim.fault(json!({"kind": "stall", "at": "mid", "where": "responses", "after": 4, "times": 2})).await;
        let mut body = requests(10);
        body["requests"][0]["params"]["messages"][0]["content"] = json!("a-word-nobody-may-read");
        let id = hand_in(&gateway, &key, &body).await;
        eventually("two that are stuck", async || {
            let stats = sim.get("stats").await;
            let done = get(&gateway, &key, &id).await["request_counts"]["succeeded"] == 4;
            (done && stats["in_flight"] == 2).then_some(())
        })
        .await;
        let setup = if is_killed { gateway.kill() } else { gateway.stop().await };
        for name in ["", "-wal"] {
            let database = std::fs::read(format!("{}{name}", setup.database().display())).unwrap_or_default();
            assert!(!database.windows(22).any(|window| window == b"a-word-nobody-may-read"));
        }
        let gateway = setup.serve().await;
        let batch = ended(&gateway, &key, &id).await;
        let results = results(&gateway, &key, &batch).await;
        assert_eq!(kinds(&results), ["succeeded"; 10]);
        for (number, line) in results.iter().enumerate().skip(1) {
            assert_eq!(line["result"]["message"]["content"][0]["text"], format!("You said: number {number}"));
        }
        // The two that were cut off were asked twice, all others once.
        assert_eq!(sim.requests(BACKEND).await.len(), 12, "killed: {is_killed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_begun_in_time_expires() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_BATCHES__EXPIRY", "1s").set("TOLLWAY_BATCHES__CONCURRENCY", "1");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    sim.fault(json!({"kind": "hold", "at": "before", "where": "responses", "times": 1})).await;
    let id = hand_in(&gateway, &key, &requests(2)).await;
    sim.held("responses", 1).await;
    eventually("the batch's time", async || {
        (get(&gateway, &key, &id).await["request_counts"]["expired"] == 1).then_some(())
    })
    .await;
    sim.release("responses").await;
    let batch = ended(&gateway, &key, &id).await;
    assert_eq!(kinds(&results(&gateway, &key, &batch).await), ["succeeded", "expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_ends_its_requests() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_BATCHES__CONCURRENCY", "0");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    hand_in(&gateway, &key, &requests(2)).await;
    let setup = gateway.stop().await.set("TOLLWAY_BATCHES__CONCURRENCY", "2");
    setup.ok(&["key", "revoke", "ada"]);
    let gateway = setup.serve().await;
    eventually("two refusals", async || {
        let (_, page) = gateway.ops_page("/metrics").await;
        page.contains("tollway_batch_requests_total{outcome=\"errored\"} 2").then_some(())
    })
    .await;
    assert_eq!(sim.requests(BACKEND).await.len(), 0);
}
