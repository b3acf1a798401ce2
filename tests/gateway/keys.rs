//! Gateway keys from the command line to the moment they stop.

use serde_json::json;

use crate::support::{Dialect, Gateway, Sim, eventually_within, json_of, key_in};
use std::time::Duration;

/// How soon a change must be seen by a running server.
const A_SECOND: Duration = Duration::from_secs(1);

async fn gateway() -> (Sim, Gateway, String) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    (sim, gateway, key)
}

async fn stops_within_a_second(gateway: &Gateway, key: &str) {
    eventually_within(A_SECOND, "a refused key", async || (gateway.status(key).await == 401).then_some(())).await;
}

async fn starts_within_a_second(gateway: &Gateway, key: &str) {
    eventually_within(A_SECOND, "a working key", async || (gateway.status(key).await == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_while_the_server_runs_works_within_a_second() {
    let (_sim, gateway, _) = gateway().await;
    let key = gateway.setup.key("grace");
    starts_within_a_second(&gateway, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stops_within_a_second() {
    let (_sim, gateway, key) = gateway().await;
    assert_eq!(gateway.status(&key).await, 200);
    gateway.setup.ok(&["key", "revoke", "ada"]);
    stops_within_a_second(&gateway, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_stops() {
    let (_sim, gateway, _) = gateway().await;
    let key = gateway.setup.key_with(&["--name", "brief", "--expires", "2s"]);
    eventually_within(Duration::from_secs(2), "a working key", async || {
        (gateway.status(&key).await == 200).then_some(())
    })
    .await;
    eventually_within(Duration::from_secs(4), "an expired key", async || {
        (gateway.status(&key).await == 401).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_works_beside_its_successor_for_the_grace_period() {
    let (_sim, gateway, old) = gateway().await;
    let new = key_in(&gateway.setup.ok(&["key", "rotate", "ada", "--grace", "3s"]));
    assert_ne!(old, new);
    starts_within_a_second(&gateway, &new).await;
    assert_eq!(gateway.status(&old).await, 200, "the old key within its grace");
    eventually_within(Duration::from_secs(5), "the old key's end", async || {
        (gateway.status(&old).await == 401).then_some(())
    })
    .await;
    assert_eq!(gateway.status(&new).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_key_is_told_apart_from_an_unknown_one() {
    let (_sim, gateway, key) = gateway().await;
    let last = if key.ends_with('A') { "B" } else { "A" };
    let mistyped = format!("{}{last}", &key[..key.len() - 1]);
    let ask = Dialect::Chat.ask("hello");
    let (status, answer) = json_of(gateway.send(&mistyped, Dialect::Chat, &ask).await).await;
    assert_eq!(status, 401);
    let told = answer["error"]["message"].as_str().unwrap_or_default().to_lowercase();
    assert!(told.contains("checksum") || told.contains("typ"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_uses_only_the_accounts_it_is_bound_to() {
    let sim = Sim::start().await;
    let (first, second) = (sim.account(json!({})).await, sim.account(json!({})).await);
    let (gateway, _) = Gateway::with_accounts(&sim, &[first.clone(), second.clone()]).await;
    let key = gateway.setup.key_with(&["--name", "bound", "--accounts", &second.email]);
    starts_within_a_second(&gateway, &key).await;
    for _ in 0..5 {
        assert_eq!(gateway.status(&key).await, 200);
    }
    assert_eq!(sim.counters(&first).await["responses"], 0);
    assert!(sim.counters(&second).await["responses"].as_u64() >= Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_printed_once_and_listed_without_its_secret() {
    let (_sim, gateway, key) = gateway().await;
    let listed = gateway.setup.ok(&["key", "list"]);
    let shown = gateway.setup.ok(&["key", "show", "ada"]);
    for page in [&listed, &shown] {
        assert!(page.contains("ada"), "{page}");
        assert!(!page.contains(&key), "the whole key was printed again");
        assert!(page.contains(&key[..9]), "the prefix tells keys apart: {page}");
    }
}
