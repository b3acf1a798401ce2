//! The Responses API over WebSocket: what clients see, and what reaches the backend.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::socket::{End, Socket, create, create_after};
use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, eventually};

const RESPONSES: &str = "/backend-api/codex/responses";

/// A gateway in front of a simulator with one account, changed as a test wants it.
async fn gateway(change: impl FnOnce(Setup) -> Setup) -> (Sim, SimAccount, Gateway, String) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = change(Setup::new(&sim));
    setup.import(&account);
    let key = setup.key("ada");
    (sim, account, setup.serve().await, key)
}

/// The same, with a connection to it.
async fn connected(change: impl FnOnce(Setup) -> Setup) -> (Sim, Gateway, String, Socket) {
    let (sim, _, gateway, key) = gateway(change).await;
    let socket = Socket::open(&gateway.url, &key, &[]).await.expect("a connection");
    (sim, gateway, key, socket)
}

/// The backend is spoken to over HTTP only.
fn over_http(setup: Setup) -> Setup {
    setup.set("TOLLWAY_BACKEND__WEBSOCKET", "off")
}

/// The kinds and roles of what a request to the backend has for its input.
fn shape(request: &Value) -> Vec<String> {
    let input = request["body"]["input"].as_array().expect("a list");
    input
        .iter()
        .map(|item| format!("{}:{}", item["type"].as_str().unwrap_or("message"), item["role"].as_str().unwrap_or("-")))
        .collect()
}

fn code(frame: &Value) -> (&Value, &Value, &Value) {
    (&frame["type"], &frame["status"], &frame["error"]["code"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prewarm_is_answered_here_and_its_prefix_is_known() {
    let (sim, _gateway, _, mut socket) = connected(over_http).await;
    let mut prewarm = create("the static prefix");
    prewarm["generate"] = json!(false);
    socket.send(&prewarm).await;
    let frames = socket.response().await;
    let kinds: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["response.created", "response.completed"]);
    assert_eq!((&frames[1]["response"]["output"], &frames[1]["response"]["status"]), (&json!([]), &json!("completed")));
    assert_eq!(frames[0]["response"]["id"], frames[1]["response"]["id"]);
    let id = frames[1]["response"]["id"].as_str().expect("an id");
    let (_, text) = socket.ask(&create_after(id, "and now?")).await;
    assert_eq!(text, "You said: and now?");
    let requests = sim.requests(RESPONSES).await;
    let asked: Vec<_> = requests.iter().filter(|request| request["method"] == "POST").collect();
    assert_eq!(asked.len(), 1, "the prewarm itself went to nobody");
    assert_eq!(shape(asked[0]), ["message:user", "message:user"]);
    for member in ["generate", "type", "previous_response_id"] {
        assert!(asked[0]["body"].get(member).is_none(), "{member} went to the backend over HTTP");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_new_items_reaches_an_http_backend_as_the_whole_conversation() {
    let (sim, _gateway, _, mut socket) = connected(over_http).await;
    let mut first = create("[reason] one [tool:lookup {\"q\":1}]");
    first["tools"] = json!([{"type": "function", "name": "lookup", "parameters": {"type": "object"}}]);
    first["reasoning"] = json!({"effort": "low", "summary": "auto"});
    socket.send(&first).await;
    let frames = socket.response().await;
    let call = frames
        .iter()
        .find(|frame| frame["type"] == "response.output_item.done" && frame["item"]["type"] == "function_call");
    let call_id = call.unwrap_or_else(|| panic!("a call: {frames:?}"))["item"]["call_id"].clone();
    let id = frames.last().expect("a last one")["response"]["id"].as_str().expect("an id").to_owned();
    let mut second = create_after(&id, "");
    second["tools"] = first["tools"].clone();
    second["input"] = json!([{"type": "function_call_output", "call_id": call_id, "output": "found"}]);
    let (id, text) = socket.ask(&second).await;
    assert!(text.contains("Tool said: found"), "{text}");
    let (_, text) = socket.ask(&create_after(&id, "three")).await;
    assert_eq!(text, "You said: three");
    let requests = sim.requests(RESPONSES).await;
    let shape = shape(requests.last().expect("a request"));
    let expected = [
        "message:user",
        "reasoning:-",
        "function_call:-",
        "function_call_output:-",
        "message:assistant",
        "message:user",
    ];
    assert_eq!(shape, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_predecessor_is_told_by_name_and_the_connection_lives_on() {
    let (_sim, _gateway, _, mut socket) = connected(|setup| setup).await;
    socket.send(&create_after("resp_unheard_of", "go on")).await;
    let frame = socket.next().await.expect("an error frame");
    assert_eq!(code(&frame), (&json!("error"), &json!(400), &json!("previous_response_not_found")));
    assert_eq!(socket.ask(&create("again, in full")).await.1, "You said: again, in full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_known_on_its_own_connection_only() {
    let (_sim, gateway, key, mut socket) = connected(|setup| setup).await;
    let (id, _) = socket.ask(&create("mine")).await;
    let other = gateway.setup.key("bob");
    for key in [&other, &key] {
        let mut socket = Socket::open(&gateway.url, key, &[]).await.expect("a connection");
        socket.send(&create_after(&id, "what did they say?")).await;
        let frame = socket.next().await.expect("an error frame");
        assert_eq!(frame["error"]["code"], "previous_response_not_found", "{frame}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_kept_can_be_gone_on_from_by_its_own_key() {
    let (sim, gateway, key, mut socket) = connected(over_http).await;
    let kept = gateway.whole(&key, Dialect::Responses, &json!({"model": "gpt-6.1-sol", "input": "mine"})).await;
    let id = kept["id"].as_str().expect("an id");
    let (_, text) = socket.ask(&create_after(id, "what did I say?")).await;
    assert_eq!(text, "You said: what did I say?");
    let last = sim.requests(RESPONSES).await.pop().expect("a request");
    assert_eq!(shape(&last), ["message:user", "message:assistant", "message:user"]);

    let other = gateway.setup.key("bob");
    let mut socket = Socket::open(&gateway.url, &other, &[]).await.expect("a connection");
    socket.send(&create_after(id, "what did they say?")).await;
    let frame = socket.next().await.expect("an error frame");
    assert_eq!(frame["error"]["code"], "previous_response_not_found", "{frame}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_ask_for_nothing_are_let_be_and_bad_ones_are_told() {
    let (_sim, _gateway, _, mut socket) = connected(|setup| setup).await;
    socket.send(&json!({"type": "response.processed", "response_id": "resp_1"})).await;
    socket.send(&json!({"type": "something.new"})).await;
    socket.raw(Message::text("no json")).await;
    socket.send(&json!({"model": "m"})).await;
    socket.send(&json!({"type": "response.create", "input": "hi"})).await;
    for param in [Value::Null, json!("type"), json!("model")] {
        let frame = socket.next().await.expect("an error frame");
        assert_eq!((&frame["type"], &frame["status"]), (&json!("error"), &json!(400)), "{frame}");
        assert_eq!(frame["error"]["param"], param, "{frame}");
    }
    assert_eq!(socket.ask(&create("still there?")).await.1, "You said: still there?");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_upgrade_errors_are_plain_http() {
    let (_sim, _, gateway, key) = gateway(|setup| setup).await;
    let (status, body) = Socket::open(&gateway.url, "tw-wrong", &[]).await.err().expect("refused");
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("invalid_api_key"), "{body}");
    let answer = gateway.get(&key, "/v1/responses", &[]).await;
    assert_eq!(answer.status(), 405, "a GET that is no handshake");
    for path in ["/v1/responses", RESPONSES] {
        let mut socket = Socket::open_at(&gateway.url, path, &key, &[]).await.expect("a connection");
        assert_eq!(socket.ask(&create("hello")).await.1, "You said: hello", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_it_says_426() {
    let (_sim, _, gateway, key) = gateway(|setup| setup.set("TOLLWAY_SERVER__WEBSOCKET", "false")).await;
    for path in ["/v1/responses", RESPONSES] {
        let (status, _) = Socket::open_at(&gateway.url, path, &key, &[]).await.err().expect("refused");
        assert_eq!(status, 426, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_account_is_aside_the_frame_says_what_http_would() {
    let (sim, _gateway, _, mut socket) = connected(|setup| setup).await;
    sim.fault(json!({"kind": "usage_limit", "resets_in_seconds": 900, "times": null})).await;
    socket.send(&create("hello")).await;
    let frame = socket.next().await.expect("an error frame");
    assert_eq!(code(&frame), (&json!("error"), &json!(429), &json!("usage_limit_reached")));
    assert_eq!(frame["error"]["type"], "usage_limit_reached");
    assert!(frame["error"]["resets_at"].is_number(), "{frame}");
    let wait = frame["headers"]["retry-after"].as_str().and_then(|wait| wait.parse::<u64>().ok());
    assert!(wait.is_some_and(|wait| (800..=901).contains(&wait)), "{frame}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_in_its_middle_ends_in_a_failure_that_may_be_tried_again() {
    let (sim, _gateway, _, mut socket) = connected(|setup| setup).await;
    sim.fault(json!({"kind": "cut", "after_events": 8})).await;
    socket.send(&create("[long 20]")).await;
    let frames = socket.response().await;
    let last = frames.last().expect("a frame");
    assert_eq!(
        (&last["type"], &last["response"]["error"]["code"]),
        (&json!("response.failed"), &json!("server_error"))
    );
    let id = last["response"]["id"].as_str().expect("an id");
    socket.send(&create_after(id, "go on")).await;
    let frame = socket.next().await.expect("an error frame");
    assert_eq!(frame["error"]["code"], "previous_response_not_found", "a failed response is nothing to go on from");
    assert_eq!(socket.ask(&create("again")).await.1, "You said: again");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_come_too_early_are_answered_in_their_order() {
    let (_sim, _gateway, _, mut socket) = connected(|setup| setup).await;
    for text in ["one", "two", "three"] {
        socket.send(&create(text)).await;
    }
    for text in ["one", "two", "three"] {
        let frames = socket.response().await;
        let said: String = frames.iter().filter_map(|frame| frame["delta"].as_str()).collect();
        assert_eq!(said, format!("You said: {text}"));
        assert_eq!(frames.iter().filter(|frame| frame["type"] == "response.created").count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_too_large_is_refused_as_such() {
    let (_sim, _gateway, _, mut socket) = connected(|setup| setup.set("TOLLWAY_SERVER__MAX_BODY", "16KiB")).await;
    assert_eq!(socket.ask(&create("small")).await.1, "You said: small");
    socket.send(&create(&"x".repeat(20_000))).await;
    let frame = socket.next().await.expect("an error frame");
    assert_eq!(code(&frame), (&json!("error"), &json!(413), &json!("request_too_large")));
    assert_eq!(socket.end().await, End::Closed(1009));
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_frames_are_not_understood() {
    let (_sim, _gateway, _, mut socket) = connected(|setup| setup).await;
    socket.raw(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(socket.end().await, End::Closed(1003));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_is_told_to_open_another() {
    let (_sim, _gateway, _, mut socket) = connected(|setup| setup.set("TOLLWAY_SERVER__WEBSOCKET_MAX_AGE", "1s")).await;
    let frame = socket.next().await.expect("an error frame");
    assert_eq!(code(&frame), (&json!("error"), &json!(400), &json!("websocket_connection_limit_reached")));
    assert_eq!(socket.end().await, End::Closed(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_requests_is_closed_in_the_end() {
    let (_sim, _gateway, _, mut socket) = connected(|setup| setup.set("TOLLWAY_SERVER__WEBSOCKET_IDLE", "300ms")).await;
    assert_eq!(socket.end().await, End::Closed(1001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_ends_its_connections() {
    let (_sim, gateway, _, mut quiet) = connected(|setup| setup.set("TOLLWAY_SERVER__WEBSOCKET_PING", "100ms")).await;
    // A client that answers pings meanwhile.
    let end = tokio::spawn(async move { quiet.end().await });
    gateway.setup.ok(&["key", "revoke", "ada"]);
    assert_eq!(end.await.expect("an end"), End::Closed(1008));
    let (_sim, gateway, key, mut busy) = connected(|setup| setup).await;
    gateway.setup.ok(&["key", "revoke", "ada"]);
    eventually("the key's end", async || (gateway.status(&key).await == 401).then_some(())).await;
    busy.send(&create("one more?")).await;
    let frame = busy.next().await.expect("an error frame");
    assert_eq!((&frame["status"], &frame["error"]["code"]), (&json!(401), &json!("invalid_api_key")));
    assert_eq!(busy.end().await, End::Closed(1008));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_a_response_finish_and_then_says_goodbye() {
    let (sim, mut gateway, key, mut busy) = connected(|setup| setup).await;
    let mut idle = Socket::open(&gateway.url, &key, &[]).await.expect("a connection");
    sim.fault(json!({"kind": "slow", "ms": 25})).await;
    busy.send(&create("[long 60]")).await;
    busy.next().await.expect("the first frame");
    gateway.terminate();
    assert_eq!(idle.end().await, End::Closed(1001));
    let frames = busy.response().await;
    assert_eq!(frames.last().expect("a last one")["type"], "response.completed");
    assert_eq!(busy.end().await, End::Closed(1001));
    assert_eq!(gateway.ended().await, Some(0), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_its_response_at_the_backend() {
    let (sim, gateway, _, mut socket) = connected(|setup| setup).await;
    sim.fault(json!({"kind": "stall", "at": "mid"})).await;
    socket.send(&create("[long 20]")).await;
    socket.next().await.expect("the first frame");
    drop(socket);
    eventually("the end at the backend", async || (sim.get("stats").await["totals"]["cancelled"] == 1).then_some(()))
        .await;
    eventually("the line in the log", async || gateway.log().contains("client_gone").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_codex_cli_says_in_its_metadata_reaches_the_backend_as_headers_and_the_other_way_round() {
    let (sim, _, gateway, key) = gateway(over_http).await;
    let headers = [("originator", "codex_exec"), ("x-codex-turn-metadata", "{\"old\":1}")];
    let mut socket = Socket::open(&gateway.url, &key, &headers).await.expect("a connection");
    let mut request = create("hello");
    request["client_metadata"] = json!({
        "x-codex-turn-metadata": "{\"new\":1}", "ws_request_header_x_openai_internal_codex_responses_lite": "true",
    });
    request["model"] = json!("gpt-6.1-sol");
    request["parallel_tool_calls"] = json!(false);
    socket.send(&request).await;
    let frames = socket.response().await;
    let metadata = frames.iter().find(|frame| frame["type"] == "response.metadata");
    let state = metadata.unwrap_or_else(|| panic!("{frames:?}"))["headers"]["x-codex-turn-state"].clone();
    assert!(frames.iter().any(|frame| frame["type"] == "codex.rate_limits"), "{frames:?}");
    request["client_metadata"]["x-codex-turn-state"] = state.clone();
    socket.ask(&request).await;
    let requests = sim.requests(RESPONSES).await;
    let last = &requests.last().expect("a request")["headers"];
    assert_eq!(last["x-codex-turn-state"], state);
    assert_eq!(last["x-codex-turn-metadata"], "{\"new\":1}");
    assert_eq!(last["x-openai-internal-codex-responses-lite"], "true");
}
