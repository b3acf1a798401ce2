//! The life of an account's tokens: one refresh for all who wait, stored before it is used.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, eventually, eventually_within, json_of};

/// How many clients ask at once.
const CROWD: usize = 500;

/// A gateway in front of one account whose access token has run out, before any refresh.
async fn expired() -> (Sim, Gateway, String, SimAccount) {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    // Held, so that a refresh ahead of demand cannot be over before the test begins.
    sim.fault(json!({"where": "token", "kind": "hold", "at": "after", "times": null})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    (sim, gateway, key, account)
}

/// Sends the crowd's requests; they wait for the refresh that the simulator holds.
fn crowd(gateway: &Gateway, key: &str) -> tokio::task::JoinSet<Option<u16>> {
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..CROWD {
        let dialect = Dialect::ALL[number % Dialect::ALL.len()];
        let request = gateway.http.post(format!("{}{}", gateway.url, dialect.path()));
        let request = request.bearer_auth(key).json(&dialect.ask("hello"));
        crowd.spawn(async move { Some(request.send().await.ok()?.status().as_u16()) });
    }
    crowd
}

/// Waits until the gateway serves so many requests at once.
async fn in_flight(gateway: &Gateway, wanted: usize) {
    let line = format!("tollway_in_flight_requests {wanted}");
    let what = format!("{wanted} requests in flight");
    eventually_within(Duration::from_mins(1), what, async || {
        let (_, page) = gateway.ops_page("/metrics").await;
        page.lines().any(|found| found == line).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_on_one_expired_account_cause_one_refresh() {
    let (sim, gateway, key, account) = expired().await;
    let crowd = crowd(&gateway, &key);
    in_flight(&gateway, CROWD).await;
    sim.held("token", 1).await;
    sim.release("token").await;
    let statuses = crowd.join_all().await;
    let good = statuses.iter().filter(|status| **status == Some(200)).count();
    println!("{good} of {CROWD} requests served after {} refresh", sim.refreshes(&account).await);
    assert_eq!(good, CROWD, "{statuses:?}");
    assert_eq!(sim.refreshes(&account).await, 1);
    assert_eq!(sim.get("stats").await["totals"]["reuse_detected"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_cancelled_requests_still_leave_one_stored_refresh() {
    let (sim, gateway, key, account) = expired().await;
    let mut crowd = crowd(&gateway, &key);
    in_flight(&gateway, CROWD).await;
    sim.held("token", 1).await;
    crowd.shutdown().await;
    in_flight(&gateway, 0).await;
    sim.release("token").await;
    let stored = eventually("the new token in the database", async || {
        let stored = gateway.setup.refresh_token(&account).await;
        (stored != account.refresh_token).then_some(stored)
    })
    .await;
    assert_eq!(sim.live_refresh_tokens(&account).await, [stored]);
    // A process that knows nothing but the database can go on with it.
    let gateway = gateway.stop().await.serve().await;
    assert_eq!(gateway.status(&key).await, 200, "{}", gateway.log());
    assert_eq!(sim.refreshes(&account).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_causes_one_refresh_and_one_replay() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    assert_eq!(gateway.status(&key).await, 200);
    sim.post(&format!("accounts/{}/invalidate_access", account.id), json!({})).await;
    assert_eq!(gateway.status(&key).await, 200, "{}", gateway.log());
    assert_eq!(sim.refreshes(&account).await, 1);
    assert_eq!(sim.counters(&account).await["statuses"]["401"], 1);
    let token = sim.requests("/oauth/token").await.pop().expect("a refresh");
    assert_eq!(token["body"]["refresh_reason"], "unauthorized_recovery");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_right_after_a_good_refresh_quarantines_the_account() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "unauthorized", "times": null})).await;
    assert_ne!(gateway.status(&key).await, 200);
    eventually("a quarantined account", async || listed(&gateway.setup).contains("quarantin").then_some(())).await;
    let asked = sim.counters(&account).await["responses"].clone();
    assert_ne!(gateway.status(&key).await, 200);
    assert_eq!(sim.counters(&account).await["responses"], asked, "a quarantined account was asked");
    assert_eq!(sim.refreshes(&account).await, 1, "never a loop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_refresh_token_is_told_as_a_second_holder() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    sim.post(&format!("accounts/{}/rotate_elsewhere", account.id), json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let (status, answer) = json_of(gateway.send(&key, Dialect::Chat, &Dialect::Chat.ask("hello")).await).await;
    assert_eq!(status, 503, "{answer}");
    let shown = gateway.setup.ok(&["account", "show", &account.email]);
    let told = |page: &str| page.contains("refresh_token_reused") && page.to_lowercase().contains("cop");
    assert!(told(&shown), "account show says that somebody else holds a copy: {shown}");
    assert!(gateway.log().contains("refresh_token_reused"), "{}", gateway.log());
    assert!(listed(&gateway.setup).contains("needs_login") || listed(&gateway.setup).contains("needs login"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_needs_a_login_is_left_alone_until_it_has_one() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    sim.post(&format!("accounts/{}/expire_refresh", account.id), json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    assert_eq!(gateway.status(&key).await, 503);
    let tried = token_calls(&sim).await;
    for _ in 0..5 {
        assert_eq!(gateway.status(&key).await, 503);
    }
    assert_eq!(token_calls(&sim).await, tried, "a dead refresh token was tried again");
    let again = sim.account(json!({"email": account.email, "user_id": "user-two"})).await;
    gateway.setup.import(&again);
    eventually("service after a login", async || (gateway.status(&key).await == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_for_a_while_is_tried_again() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    sim.fault(json!({"where": "token", "kind": "server_error", "times": 2})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    eventually("service once the issuer is back", async || (gateway.status(&key).await == 200).then_some(())).await;
    assert_eq!(sim.refreshes(&account).await, 1);
    assert!(!listed(&gateway.setup).contains("needs"), "a passing failure needs no login");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_near_its_end_is_refreshed_ahead_of_demand() {
    // Tokens with a short life are renewed half-way.
    let sim = Sim::with(&["--access-token-life", "6"]).await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim);
    setup.import(&account);
    let _gateway = setup.serve().await;
    eventually("a refresh that nobody asked for", async || (sim.refreshes(&account).await > 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_can_refresh_by_hand() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    gateway.setup.ok(&["account", "refresh", &account.email]);
    assert_eq!(sim.refreshes(&account).await, 1);
    eventually("the running server has the new token", async || (gateway.status(&key).await == 200).then_some(()))
        .await;
    assert_eq!(gateway.setup.refresh_token(&account).await, sim.live_refresh_tokens(&account).await[0]);
}

fn listed(setup: &Setup) -> String {
    setup.ok(&["account", "list"])
}

async fn token_calls(sim: &Sim) -> Value {
    sim.get("stats").await["paths"]["POST /oauth/token"]["requests"].clone()
}
