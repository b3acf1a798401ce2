//! Responses that run without their client: polled, followed from any place, cancelled, and what
//! becomes of them when something stops.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{Dialect, Event, Gateway, Setup, Sim, events, eventually, json_of};

const BACKEND: &str = "/backend-api/codex/responses";

async fn call(gateway: &Gateway, key: &str, method: Method, path: &str) -> (StatusCode, Value) {
    let request = gateway.http.request(method, format!("{}{path}", gateway.url)).bearer_auth(key);
    json_of(request.send().await.expect("the gateway answers")).await
}

fn asked(input: &str, more: &Value) -> Value {
    let mut body = json!({"model": "gpt-6.1-sol", "input": input, "background": true});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

async fn begin(gateway: &Gateway, key: &str, input: &str) -> Value {
    let (status, made) = json_of(gateway.send(key, Dialect::Responses, &asked(input, &json!({}))).await).await;
    assert_eq!((status, &made["status"]), (StatusCode::OK, &json!("queued")), "{made}");
    assert_eq!((&made["background"], &made["output"]), (&json!(true), &json!([])));
    made
}

fn path(response: &Value) -> String {
    format!("/v1/responses/{}", response["id"].as_str().expect("an id"))
}

/// Polls until the response has ended.
async fn ended(gateway: &Gateway, key: &str, path: &str) -> Value {
    eventually("the end of the response", async || {
        let (status, response) = call(gateway, key, Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{response}");
        (!matches!(response["status"].as_str(), Some("queued" | "in_progress"))).then_some(response)
    })
    .await
}

async fn follow(gateway: &Gateway, key: &str, path: &str, after: Option<u64>) -> Vec<Event> {
    let after = after.map(|number| format!("&starting_after={number}")).unwrap_or_default();
    let url = format!("{}{path}?stream=true{after}", gateway.url);
    let answer = gateway.http.get(url).bearer_auth(key).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    events(&answer.text().await.expect("events"))
}

fn number(event: &Event) -> u64 {
    event.json()["sequence_number"].as_u64().expect("a number")
}

/// Reads until an event of this type has come; then the client is gone.
async fn read_until(mut answer: Response, kind: &str) -> Vec<Event> {
    let mut read = String::new();
    loop {
        let chunk = answer.chunk().await.expect("a stream").expect("more events");
        read.push_str(&String::from_utf8_lossy(&chunk));
        let complete = read.rfind("\n\n").map_or("", |end| &read[..end + 2]);
        let seen = events(complete);
        if seen.iter().any(|event| event.name == kind) {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_is_polled_to_its_end_and_continued() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "hold", "at": "before", "where": "responses"})).await;
    let made = begin(&gateway, &key, "one").await;
    sim.held("responses", 1).await;
    let (_, running) = call(&gateway, &key, Method::GET, &path(&made)).await;
    assert!(matches!(running["status"].as_str(), Some("queued" | "in_progress")), "{running}");
    let follow_up = json!({"model": "gpt-6.1-sol", "input": "two", "previous_response_id": made["id"]});
    let (status, error) = json_of(gateway.send(&key, Dialect::Responses, &follow_up).await).await;
    assert_eq!((status, &error["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("previous_response_id")));

    sim.release("responses").await;
    let done = ended(&gateway, &key, &path(&made)).await;
    assert_eq!((&done["status"], &done["id"]), (&json!("completed"), &made["id"]), "{done}");
    assert_eq!(done["output"][0]["content"][0]["text"], "You said: one");
    assert_eq!((&done["background"], &done["created_at"]), (&json!(true), &made["created_at"]));
    assert!(done["usage"]["output_tokens"].as_u64() > Some(0));
    let next = gateway.whole(&key, Dialect::Responses, &follow_up).await;
    assert_eq!(next["previous_response_id"], made["id"]);
    let sent = sim.requests(BACKEND).await.pop().expect("a request")["body"].clone();
    assert_eq!(sent["input"].as_array().map(Vec::len), Some(3), "{sent}");
    assert!(sent.get("background").is_none());

    // One that is not streamed has no events to follow.
    let (status, error) = call(&gateway, &key, Method::GET, &format!("{}?stream=true", path(&made))).await;
    assert_eq!((status, &error["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("stream")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_without_its_client_and_is_read_on_from_any_event() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "slow", "ms": 30, "times": 1})).await;
    let answer = gateway.send(&key, Dialect::Responses, &asked("[long 40]", &json!({"stream": true}))).await;
    let first = read_until(answer, "response.output_text.delta").await;
    let made = first[0].json()["response"].clone();
    assert_eq!((first[0].name.as_str(), &made["background"]), ("response.created", &json!(true)));
    let last_read = number(first.last().expect("events"));

    // Read on while it runs, and once more when it has ended.
    let rest = follow(&gateway, &key, &path(&made), Some(last_read)).await;
    let all: Vec<Event> = first.into_iter().chain(rest).collect();
    let numbers: Vec<u64> = all.iter().map(number).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "each event once, in order");
    assert!(Dialect::Responses.ended_well(&all));
    assert!(Dialect::Responses.streamed_text(&all).ends_with("word39 "));
    let again = follow(&gateway, &key, &path(&made), None).await;
    let data = |events: &[Event]| events.iter().map(Event::json).collect::<Vec<_>>();
    assert_eq!(data(&again), data(&all));
    assert_eq!(sim.counters(&account).await["cancelled"], json!(0), "the client's leaving did not end it");

    let setup = gateway.stop().await;
    let gateway = setup.serve().await;
    assert_eq!(data(&follow(&gateway, &key, &path(&made), None).await), data(&all));
    assert_eq!(call(&gateway, &key, Method::GET, &path(&made)).await.1["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_response_ends_here_and_at_the_backend() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "stall", "at": "mid", "where": "responses", "times": 1})).await;
    let answer = gateway.send(&key, Dialect::Responses, &asked("[long 40]", &json!({"stream": true}))).await;
    let first = read_until(answer, "response.output_text.delta").await;
    let made = first[0].json()["response"].clone();
    let cancel = format!("{}/cancel", path(&made));
    let (status, cancelled) = call(&gateway, &key, Method::POST, &cancel).await;
    assert_eq!((status, &cancelled["status"]), (StatusCode::OK, &json!("cancelled")), "{cancelled}");
    assert_eq!(call(&gateway, &key, Method::POST, &cancel).await, (StatusCode::OK, cancelled.clone()));
    assert_eq!(call(&gateway, &key, Method::GET, &path(&made)).await.1, cancelled);
    let rest = follow(&gateway, &key, &path(&made), Some(number(first.last().expect("events")))).await;
    assert_eq!(rest.last().map(|event| event.json()["response"]["status"].clone()), Some(json!("cancelled")));
    eventually("the backend to see it", async || (sim.counters(&account).await["cancelled"] == json!(1)).then_some(()))
        .await;

    // One that its client waited for cannot be cancelled.
    let whole = gateway.whole(&key, Dialect::Responses, &json!({"model": "gpt-6.1-sol", "input": "one"})).await;
    let (status, error) = call(&gateway, &key, Method::POST, &format!("{}/cancel", path(&whole))).await;
    assert_eq!((status, &error["error"]["type"]), (StatusCode::BAD_REQUEST, &json!("invalid_request_error")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_polls_follows_or_cancels_anothers_response() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({})).await);
    let (ada, bob) = (setup.key("ada"), setup.key("bob"));
    let gateway = setup.serve().await;
    sim.fault(json!({"kind": "hold", "at": "before", "where": "responses"})).await;
    let made = begin(&gateway, &ada, "one").await;
    for (method, path) in [
        (Method::GET, path(&made)),
        (Method::GET, format!("{}?stream=true", path(&made))),
        (Method::POST, format!("{}/cancel", path(&made))),
        (Method::DELETE, path(&made)),
    ] {
        assert_eq!(call(&gateway, &bob, method.clone(), &path).await.0, StatusCode::NOT_FOUND, "{method} {path}");
    }
    sim.release("responses").await;
    assert_eq!(ended(&gateway, &ada, &path(&made)).await["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_deleted_while_it_runs_stays_deleted() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "stall", "at": "mid", "where": "responses", "times": 1})).await;
    let made = begin(&gateway, &key, "[long 40]").await;
    eventually("the backend's answer", async || {
        (call(&gateway, &key, Method::GET, &path(&made)).await.1["status"] == "in_progress").then_some(())
    })
    .await;
    assert_eq!(call(&gateway, &key, Method::DELETE, &path(&made)).await.0, StatusCode::OK);
    eventually("the backend to see it", async || (sim.counters(&account).await["cancelled"] == json!(1)).then_some(()))
        .await;
    assert_eq!(call(&gateway, &key, Method::GET, &path(&made)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_backend_refuses_has_failed_with_its_reason() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "usage_limit", "where": "responses", "times": 1})).await;
    let made = begin(&gateway, &key, "one").await;
    let done = ended(&gateway, &key, &path(&made)).await;
    assert_eq!((&done["status"], &done["error"]["code"]), (&json!("failed"), &json!("insufficient_quota")), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_background_response_finish() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "slow", "ms": 20, "times": 1})).await;
    let made = begin(&gateway, &key, "[long 40]").await;
    let setup = gateway.stop().await;
    let gateway = setup.serve().await;
    let (_, done) = call(&gateway, &key, Method::GET, &path(&made)).await;
    assert_eq!(done["status"], "completed", "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_stop_cuts_off_has_failed_and_says_why() {
    for is_killed in [false, true] {
        let sim = Sim::start().await;
        let setup = Setup::new(&sim).set("TOLLWAY_SERVER__DRAIN_GRACE", "200ms");
        setup.import(&sim.account(json!({})).await);
        let key = setup.key("ada");
        let gateway = setup.serve().await;
        sim.fault(json!({"kind": "stall", "at": "mid", "where": "responses"})).await;
        let made = begin(&gateway, &key, "[long 40]").await;
        let setup = if is_killed { gateway.kill() } else { gateway.stop().await };
        let gateway = setup.serve().await;
        let (_, done) = call(&gateway, &key, Method::GET, &path(&made)).await;
        assert_eq!((&done["status"], &done["error"]["code"]), (&json!("failed"), &json!("server_error")), "{done}");
        assert!(done["error"]["message"].as_str().is_some_and(|text| text.contains("restarted")), "{done}");
        assert_eq!(call(&gateway, &key, Method::POST, &format!("{}/cancel", path(&made))).await.1, done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_run_wait_and_more_than_may_wait_are_refused() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_RESPONSES__BACKGROUND_RUNS", "1");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    sim.fault(json!({"kind": "hold", "at": "before", "where": "responses", "times": 1})).await;
    let mut all = Vec::new();
    for number in 0..9 {
        all.push(begin(&gateway, &key, &format!("number {number}")).await);
    }
    sim.held("responses", 1).await;
    let refused = gateway.send(&key, Dialect::Responses, &asked("one more", &json!({}))).await;
    assert!(refused.headers().contains_key("retry-after"));
    let (status, error) = json_of(refused).await;
    assert_eq!((status, &error["error"]["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("rate_limit_exceeded")));
    assert_eq!(sim.requests(BACKEND).await.len(), 1, "the others wait");
    sim.release("responses").await;
    for made in &all {
        assert_eq!(ended(&gateway, &key, &path(made)).await["status"], "completed");
    }
    tokio::time::timeout(Duration::from_secs(5), gateway.send(&key, Dialect::Responses, &asked("now", &json!({}))))
        .await
        .expect("an answer");
}
