//! One WebSocket to the backend for one of a client: what goes over it, and what when it cannot be.

use serde_json::{Value, json};

use crate::support::socket::{Socket, create, create_after};
use crate::support::{Gateway, Setup, Sim};

const RESPONSES: &str = "/backend-api/codex/responses";

/// A gateway with so many accounts, and a connection to it.
async fn connected(accounts: usize) -> (Sim, Gateway, Socket) {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    for _ in 0..accounts {
        setup.import(&sim.account(json!({})).await);
    }
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    let socket = Socket::open(&gateway.url, &key, &[]).await.expect("a connection");
    (sim, gateway, socket)
}

/// What has reached the backend: `GET` is a handshake, `WS` a frame, `POST` a request over HTTP.
async fn methods(sim: &Sim) -> Vec<String> {
    let requests = sim.requests(RESPONSES).await;
    requests.iter().map(|request| request["method"].as_str().expect("a method").to_owned()).collect()
}

/// The newest request's body: what it continues, and how many items it brings.
async fn newest(sim: &Sim) -> (Value, usize) {
    let requests = sim.requests(RESPONSES).await;
    let body = &requests.last().expect("a request")["body"];
    (body["previous_response_id"].clone(), body["input"].as_array().expect("items").len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_on_one_connection_and_only_what_is_new_is_sent() {
    let (sim, _gateway, mut socket) = connected(1).await;
    let (first, _) = socket.ask(&create("[reason] one")).await;
    assert_eq!(newest(&sim).await, (Value::Null, 1));
    let (second, text) = socket.ask(&create_after(&first, "two")).await;
    assert_eq!(text, "You said: two");
    assert_eq!(newest(&sim).await, (json!(first), 1));
    socket.ask(&create_after(&second, "three")).await;
    assert_eq!(newest(&sim).await, (json!(second), 1));
    assert_eq!(methods(&sim).await, ["GET", "WS", "WS", "WS"]);
    socket.ask(&create("another conversation")).await;
    assert_eq!(newest(&sim).await, (Value::Null, 1));
    assert_eq!(methods(&sim).await.len(), 5, "still the same connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_in_full_is_continued_too() {
    let (sim, _gateway, mut socket) = connected(1).await;
    let mut request = create("one");
    socket.send(&request).await;
    let frames = socket.response().await;
    let answer = frames.iter().find(|frame| frame["type"] == "response.output_item.done").expect("an item");
    let input = request["input"].as_array_mut().expect("items");
    input.push(answer["item"].clone());
    input.push(create("two")["input"][0].clone());
    socket.ask(&request).await;
    let id = frames.last().expect("a last one")["response"]["id"].clone();
    assert_eq!(newest(&sim).await, (id, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_without_websockets_gets_the_whole_conversation_over_http_and_is_not_asked_again() {
    let (sim, _gateway, mut socket) = connected(1).await;
    sim.post("settings", json!({"websocket": false})).await;
    let (id, _) = socket.ask(&create("one")).await;
    let (_, text) = socket.ask(&create_after(&id, "two")).await;
    assert_eq!(text, "You said: two");
    assert_eq!(methods(&sim).await, ["GET", "POST", "POST"]);
    assert_eq!(newest(&sim).await, (Value::Null, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_fails_is_made_good_by_http() {
    for fault in [json!({"kind": "server_error"}), json!({"kind": "disconnect"}), json!({"kind": "forbidden_html"})] {
        let (sim, _gateway, mut socket) = connected(1).await;
        let mut handshake = fault.clone();
        handshake["where"] = json!("handshake");
        sim.fault(handshake).await;
        assert_eq!(socket.ask(&create("one")).await.1, "You said: one", "{fault}");
        assert!(methods(&sim).await.contains(&"POST".to_owned()), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_lost_or_has_forgotten_is_replaced_and_hears_all() {
    let forgotten = json!({
        "kind": "status", "status": 400, "body": {"error": {"code": "previous_response_not_found", "message": "gone"}},
    });
    let too_old = json!({
        "kind": "status", "status": 400, "body": {"error": {"code": "websocket_connection_limit_reached"}},
    });
    for fault in [json!({"kind": "disconnect"}), forgotten, too_old] {
        let (sim, _gateway, mut socket) = connected(1).await;
        let (id, _) = socket.ask(&create("one")).await;
        sim.fault(fault.clone()).await;
        assert_eq!(socket.ask(&create_after(&id, "two")).await.1, "You said: two", "{fault}");
        assert_eq!(methods(&sim).await, ["GET", "WS", "WS", "GET", "WS"], "{fault}");
        assert_eq!(newest(&sim).await, (Value::Null, 3), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_takes_over_before_the_output_and_hears_all() {
    for fault in [
        json!({"kind": "usage_limit", "resets_in_seconds": 900}),
        json!({"kind": "failed_event", "code": "server_is_overloaded"}),
        json!({"kind": "rate_limit", "retry_after": 30}),
    ] {
        let (sim, gateway, mut socket) = connected(2).await;
        let (id, _) = socket.ask(&create("one")).await;
        sim.fault(fault.clone()).await;
        let (_, text) = socket.ask(&create_after(&id, "two")).await;
        assert_eq!(text, "You said: two", "{fault}\n{}", gateway.log());
        assert_eq!(newest(&sim).await, (Value::Null, 3), "{fault}");
        assert_eq!(methods(&sim).await, ["GET", "WS", "WS", "GET", "WS"], "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_on_the_connection_is_refreshed() {
    let (sim, gateway, mut socket) = connected(1).await;
    let (id, _) = socket.ask(&create("one")).await;
    sim.fault(json!({"kind": "unauthorized"})).await;
    let (_, text) = socket.ask(&create_after(&id, "two")).await;
    assert_eq!(text, "You said: two", "{}", gateway.log());
    assert_eq!(methods(&sim).await, ["GET", "WS", "WS", "GET", "WS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_backend_refuses_is_told_and_the_connection_lives_on() {
    let (_sim, _gateway, mut socket) = connected(1).await;
    let mut request = create("one");
    request["reasoning"] = json!({"effort": "unheard-of"});
    socket.send(&request).await;
    let frame = socket.next().await.expect("an error frame");
    assert_eq!((&frame["type"], &frame["status"]), (&json!("error"), &json!(400)), "{frame}");
    assert_eq!(socket.ask(&create("two")).await.1, "You said: two");
}

#[tokio::test(flavor = "multi_thread")]
async fn turn_state_and_the_lite_mark_travel_in_the_frames() {
    let (sim, gateway, _) = connected(1).await;
    let key = gateway.setup.key("codex");
    let mut socket = Socket::open(&gateway.url, &key, &[("originator", "codex_exec")]).await.expect("a connection");
    let mut request = create("hello");
    request["parallel_tool_calls"] = json!(false);
    request["client_metadata"] = json!({"ws_request_header_x_openai_internal_codex_responses_lite": "true"});
    socket.send(&request).await;
    let frames = socket.response().await;
    let metadata = frames.iter().find(|frame| !frame["headers"]["x-codex-turn-state"].is_null());
    let state = metadata.unwrap_or_else(|| panic!("{frames:?}"))["headers"]["x-codex-turn-state"].clone();
    request["client_metadata"]["x-codex-turn-state"] = state.clone();
    socket.ask(&request).await;
    let requests = sim.requests(RESPONSES).await;
    let metadata = &requests.last().expect("a request")["body"]["client_metadata"];
    assert_eq!(metadata["x-codex-turn-state"], state);
    assert_eq!(metadata["ws_request_header_x_openai_internal_codex_responses_lite"], "true");
}
