//! What a key's holder sees of the accounts, and has renewed.

use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Sim, json_of};

async fn status(gateway: &Gateway, key: &str) -> Value {
    let (status, body) = json_of(gateway.get(key, "/v1/status", &[]).await).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_the_keys_accounts_and_no_secret_or_email() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let account = sim.account(json!({"email": "ada@example.com", "plan": "pro", "used_percent": 95.0})).await;
    setup.import(&account);
    setup.import(&sim.account(json!({"email": "bob@example.com"})).await);
    let key = setup.key_with(&["--name", "ada", "--accounts", "ada@example.com"]);
    let trusted = setup.key_with(&["--name", "ops", "--right", "accounts:email"]);
    let gateway = setup.serve().await;

    let body = status(&gateway, &key).await;
    assert_eq!((&body["pool"]["total"], &body["pool"]["available"]), (&json!(1), &json!(1)), "{body}");
    let shown = &body["accounts"][0];
    assert_eq!((&shown["plan"], &shown["state"], &shown["available"]), (&json!("pro"), &json!("active"), &json!(true)));
    assert_eq!((&shown["windows"][0]["used_percent"], &shown["windows"][0]["minutes"]), (&json!(95.0), &json!(300)));
    assert_eq!(shown["warnings"], json!(["a window is nearly used up"]));
    assert!(shown["token"]["expires_in_seconds"].as_i64() > Some(3600), "{body}");
    for secret in ["ada@example.com", &account.id, &account.access_token, &account.refresh_token] {
        assert!(!body.to_string().contains(secret), "{secret} in {body}");
    }
    let all = status(&gateway, &trusted).await;
    assert_eq!(all["accounts"].as_array().map(Vec::len), Some(2));
    assert_eq!(all["accounts"][0]["label"], "ada@example.com");
    assert_eq!(gateway.get("tw-nobody", "/v1/status", &[]).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_key_with_the_right_has_tokens_renewed_and_each_once() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let account = sim.account(json!({})).await;
    setup.import(&account);
    let other = sim.account(json!({})).await;
    setup.import(&other);
    let plain = setup.key("ada");
    let able = setup.key_with(&["--name", "ops", "--right", "auth:refresh", "--accounts", &account.email]);
    let gateway = setup.serve().await;

    let (status, body) = json_of(gateway.post(&plain, "/v1/auth/refresh", &json!({})).await).await;
    assert_eq!((status.as_u16(), &body["error"]["type"]), (403, &json!("permission_error")), "{body}");
    let (status, _) = json_of(gateway.post(&able, "/v1/auth/refresh", &json!({"account": other.email})).await).await;
    assert_eq!(status, 404, "another key's account is not there");
    assert_eq!(sim.refreshes(&account).await, 0);

    let all = json!({});
    let answers = futures_util::future::join_all((0..8).map(|_| gateway.post(&able, "/v1/auth/refresh", &all))).await;
    for answer in answers {
        let (status, body) = json_of(answer).await;
        assert_eq!((status.as_u16(), body["data"].as_array().map(Vec::len)), (200, Some(1)), "{body}");
        assert!(body["data"][0]["error"].is_null(), "{body}");
    }
    assert_eq!((sim.refreshes(&account).await, sim.refreshes(&other).await), (1, 0));
    assert_eq!(gateway.status(&able).await, 200);
}
