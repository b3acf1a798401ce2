//! What a Codex CLI calls besides its model: its account, its usage, compaction, pictures, searches.

use serde_json::{Value, json};

use crate::support::{Event, Gateway, Setup, Sim, SimAccount, events, eventually, json_of};

/// What a Codex CLI says of itself; the last is its own account's name, not one of ours.
const CLI: [(&str, &str); 3] =
    [("originator", "codex_exec"), ("session-id", "s-1"), ("chatgpt-account-id", "the-clients-own")];

async fn start(traits: &[Value]) -> (Sim, Vec<SimAccount>, Gateway, String) {
    let sim = Sim::start().await;
    let mut accounts = Vec::new();
    for one in traits {
        accounts.push(sim.account(one.clone()).await);
    }
    let (gateway, key) = Gateway::with_accounts(&sim, &accounts).await;
    (sim, accounts, gateway, key)
}

async fn ask(gateway: &Gateway, key: &str, path: &str) -> Value {
    let (status, body) = json_of(gateway.get(key, path, &CLI).await).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn post(gateway: &Gateway, key: &str, path: &str, body: &Value) -> reqwest::Response {
    let mut request = gateway.http.post(format!("{}{path}", gateway.url)).bearer_auth(key).json(body);
    for (name, value) in CLI {
        request = request.header(name, value);
    }
    request.send().await.expect("the gateway answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_check_names_the_gateway_and_nobody_behind_it() {
    let (_sim, accounts, gateway, key) = start(&[json!({"plan": "pro"})]).await;
    let body = ask(&gateway, &key, "/backend-api/wham/accounts/check").await;
    assert_eq!(body["accounts"][0]["id"], "the-clients-own");
    assert_eq!(body["accounts"][0]["workspace_backend_origin"], "NO_CONSTRAINT");
    assert_eq!(body["accounts"][0]["plan_type"], "pro");
    for secret in [&accounts[0].email, &accounts[0].id] {
        assert!(!body.to_string().contains(secret.as_str()), "{body}");
    }
    let refused = gateway.get("tw-nobody", "/backend-api/wham/accounts/check", &CLI).await;
    assert_eq!(refused.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_the_pools_and_of_nobody_in_it() {
    let traits =
        [json!({"used_percent": 80.0}), json!({"used_percent": 20.0}), json!({"secondary_used_percent": 100.0})];
    let (_sim, accounts, gateway, key) = start(&traits).await;
    for path in ["/backend-api/wham/usage", "/backend-api/codex/usage", "/api/codex/usage"] {
        let body = ask(&gateway, &key, path).await;
        let primary = &body["rate_limit"]["primary_window"];
        assert_eq!(primary["limit_window_seconds"], 18_000, "{body}");
        // The third account is used up: what is left in its shorter window cannot be had.
        let used = primary["used_percent"].as_f64().expect("a share");
        assert!((used - 200.0 / 3.0).abs() < 0.01, "{body}");
        assert_eq!((&body["rate_limit"]["allowed"], &body["plan_type"]), (&json!(true), &json!("plus")));
        for account in &accounts {
            assert!(!body.to_string().contains(&account.email) && !body.to_string().contains(&account.id), "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_the_usage_of_its_own_accounts_only() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    for (name, used) in [("full", 90.0), ("fresh", 10.0)] {
        setup.import(&sim.account(json!({"email": format!("{name}@example.com"), "used_percent": used})).await);
    }
    let key = setup.key_with(&["--name", "ada", "--accounts", "fresh@example.com"]);
    let gateway = setup.serve().await;
    let body = ask(&gateway, &key, "/backend-api/wham/usage").await;
    assert_eq!(body["rate_limit"]["primary_window"]["used_percent"], 10.0, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_in_headers_are_the_pools() {
    let (_sim, _, gateway, key) = start(&[json!({"used_percent": 40.0}), json!({"used_percent": 60.0})]).await;
    ask(&gateway, &key, "/backend-api/wham/usage").await;
    let body =
        json!({"model": "gpt-6.1-sol", "stream": true, "store": false, "input": [{"role": "user", "content": "hi"}]});
    let answer = post(&gateway, &key, "/backend-api/codex/responses", &body).await;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    assert_eq!(header("x-codex-primary-used-percent").as_deref(), Some("50"));
    assert_eq!(header("x-codex-primary-window-minutes").as_deref(), Some("300"));
    assert!(header("x-codex-turn-state").is_some());
    assert_eq!((header("x-codex-plan-type"), header("x-codex-credits-has-credits")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_inside_a_stream_are_the_pools() {
    let (sim, _, gateway, key) = start(&[json!({"used_percent": 40.0}), json!({"used_percent": 60.0})]).await;
    sim.post("settings", json!({"rate_limits": true})).await;
    ask(&gateway, &key, "/backend-api/wham/usage").await;
    let body =
        json!({"model": "gpt-6.1-sol", "stream": true, "store": false, "input": [{"role": "user", "content": "hi"}]});
    let answer = post(&gateway, &key, "/backend-api/codex/responses", &body).await;
    let events = events(&answer.text().await.expect("events"));
    let told: Vec<_> = events.iter().filter(|event| event.name == "codex.rate_limits").map(Event::json).collect();
    assert_eq!(told.len(), 1, "{events:?}");
    let primary = &told[0]["rate_limits"]["primary"];
    let used = primary["used_percent"].as_f64().expect("a share");
    assert!((49.0..52.0).contains(&used), "{told:?}");
    assert_eq!(primary["window_minutes"], 300);
    assert!(told[0]["credits"].is_null());
}

fn long_talk() -> Value {
    json!({"model": "gpt-6.1-sol", "instructions": "", "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ho"}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_passes_where_the_backend_has_it_and_is_made_where_not() {
    let (sim, _, gateway, key) = start(&[json!({})]).await;
    for (served, items) in [(true, 1), (false, 2)] {
        sim.post("settings", json!({"compact_v1": served})).await;
        for path in ["/backend-api/codex/responses/compact", "/v1/responses/compact"] {
            let (status, body) = json_of(post(&gateway, &key, path, &long_talk()).await).await;
            assert_eq!(status, 200, "{body}\n{}", gateway.log());
            let output = body["output"].as_array().expect("items");
            assert_eq!(output.len(), items, "{body}");
            assert_eq!(output[items - 1]["type"], "compaction");
            assert!(output[items - 1]["encrypted_content"].is_string());
        }
    }
}

/// How many accounts may be chosen.
async fn active(gateway: &Gateway) -> String {
    let (_, page) = gateway.ops_page("/metrics").await;
    let line = page.lines().find(|line| line.starts_with("tollway_accounts{state=\"active\"}"));
    line.and_then(|line| line.rsplit(' ').next()).expect("a gauge").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_fails_for_a_moment_costs_its_account_nothing() {
    let (sim, _, gateway, key) = start(&[json!({}), json!({})]).await;
    sim.fault(json!({"scope": "*", "where": "responses", "kind": "server_error", "times": 1})).await;
    let path = "/backend-api/codex/responses/compact";
    assert_eq!(json_of(post(&gateway, &key, path, &long_talk()).await).await.0, 200, "{}", gateway.log());
    assert_eq!(active(&gateway).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_meets_a_used_up_limit_puts_its_account_aside() {
    let (sim, _, gateway, key) = start(&[json!({}), json!({})]).await;
    sim.fault(json!({"scope": "*", "where": "responses", "kind": "usage_limit", "times": 1})).await;
    let path = "/backend-api/codex/responses/compact";
    assert_eq!(json_of(post(&gateway, &key, path, &long_talk()).await).await.0, 200, "{}", gateway.log());
    assert_eq!(active(&gateway).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sdk_compacts_and_goes_on_with_what_it_got() {
    let (_sim, _, gateway, key) = start(&[json!({})]).await;
    let (status, body) = json_of(gateway.post(&key, "/v1/responses/compact", &long_talk()).await).await;
    assert_eq!((status.as_u16(), &body["object"]), (200, &json!("response.compaction")), "{body}");
    assert!(body["usage"]["total_tokens"].as_u64() > Some(0));
    let mut input = body["output"].as_array().cloned().expect("items");
    input.push(json!({"role": "user", "content": "and now?"}));
    let next = gateway.post(&key, "/v1/responses", &json!({"model": "gpt-6.1-sol", "input": input})).await;
    assert_eq!(json_of(next).await.0, 200, "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_and_searches_pass_with_the_gateways_credentials() {
    let (sim, accounts, gateway, key) = start(&[json!({})]).await;
    for (path, body, field) in [
        ("codex/images/generations", json!({"prompt": "a pixel", "model": "gpt-image-2", "n": 2}), "data"),
        ("codex/images/edits", json!({"prompt": "a pixel", "images": []}), "data"),
        ("codex/alpha/search", json!({"id": "s", "model": "gpt-6.1-sol"}), "output"),
    ] {
        let path = format!("/backend-api/{path}");
        let (status, answer) = json_of(post(&gateway, &key, &path, &body).await).await;
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(!answer[field].is_null(), "{answer}");
        let seen = sim.requests(&path).await.pop().expect("the backend was asked");
        assert_eq!(seen["body"], body, "to the field");
        assert_eq!(seen["headers"]["authorization"], format!("account {}", accounts[0].id));
        assert_eq!(seen["headers"]["chatgpt-account-id"], accounts[0].id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_passes_moves_to_the_next_account_and_refreshes_like_any_other() {
    let (sim, accounts, gateway, key) = start(&[json!({}), json!({})]).await;
    sim.fault(json!({"scope": "*", "where": "responses", "kind": "usage_limit", "times": 1})).await;
    sim.fault(json!({"scope": "*", "where": "responses", "kind": "unauthorized", "times": 1})).await;
    let answer = post(&gateway, &key, "/backend-api/codex/alpha/search", &json!({})).await;
    assert_eq!(answer.status(), 200, "{}", gateway.log());
    let refreshed = sim.refreshes(&accounts[0]).await + sim.refreshes(&accounts[1]).await;
    assert_eq!(refreshed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_one_account_is_refused_in_json_and_never_reaches_the_backend() {
    let (sim, _, gateway, key) = start(&[json!({})]).await;
    for path in ["wham/settings/user", "ps/plugins/installed", "wham/tasks/list", "wham/profiles/me"] {
        let (status, body) = json_of(gateway.get(&key, &format!("/backend-api/{path}"), &CLI).await).await;
        assert_eq!((status.as_u16(), &body["error"]["code"]), (404, &json!("not_found")), "{path}: {body}");
        assert!(sim.requests(&format!("/backend-api/{path}")).await.is_empty());
    }
    let dropped = post(&gateway, &key, "/backend-api/codex/analytics-events/events", &json!({"events": []})).await;
    assert_eq!(dropped.status(), 200);
    assert!(sim.requests("/backend-api/codex/analytics-events/events").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lite_body_passes_to_the_byte_also_when_it_is_compressed() {
    let (sim, _, gateway, key) = start(&[json!({})]).await;
    let body = json!({"model": "gpt-6.1-sol", "stream": true, "store": false, "parallel_tool_calls": false,
        "input": [{"type": "additional_tools", "id": "at_1", "role": "developer", "tools": [{"type": "namespace", "name": "functions",
            "description": "", "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]});
    let packed = zstd(body.to_string().as_bytes());
    let mut request = gateway.http.post(format!("{}/backend-api/codex/responses", gateway.url)).bearer_auth(&key);
    for (name, value) in CLI {
        request = request.header(name, value);
    }
    let request = request.header("content-encoding", "zstd").header("content-type", "application/json").body(packed);
    let answer = request.header("x-codex-turn-state", "mine").send().await.expect("the gateway answers");
    assert_eq!(answer.status(), 200, "{}", gateway.log());
    let seen = eventually("the request", async || sim.requests("/backend-api/codex/responses").await.pop()).await;
    assert_eq!(seen["body"], body);
    assert_eq!(seen["headers"]["x-codex-turn-state"], "mine");
}

/// One raw block in a zstd frame: all that a decoder needs.
fn zstd(data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).expect("small");
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend(size.to_le_bytes());
    frame.extend(&((size << 3) | 1).to_le_bytes()[..3]);
    frame.extend(data);
    frame
}
