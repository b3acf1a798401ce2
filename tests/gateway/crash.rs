//! `kill -9` at any point of a refresh loop. A refresh token rotates: once the issuer has answered,
//! the old one is dead, so there is one window in which a crash costs a login: from the issuer's
//! answer to our commit. This test measures it, and shows that there is no other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, eventually_within};

const ROUNDS: u32 = 200;

/// The latest moment of a kill, after the first request.
const LATEST: Duration = Duration::from_millis(80);

/// What a kill left behind.
enum Left {
    /// The stored refresh token works.
    Whole,
    /// The issuer had rotated and we had not stored it: so long after the refresh began.
    InTheWindow(Duration),
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_a_token_only_between_the_issuers_answer_and_the_commit() {
    // Every request needs a refresh: tokens live for less than the margin.
    let sim = Sim::with(&["--access-token-life", "30"]).await;
    sim.post("settings", json!({"revoke_family_on_reuse": false})).await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim);
    setup.import(&account);
    let key = setup.key("ada");
    let mut losses = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..ROUNDS {
        let gateway = setup.serve().await;
        let wait = LATEST.mul_f64(random.f64());
        match round_of(&sim, &account, gateway, &key, wait).await {
            Left::Whole => {}
            Left::InTheWindow(after) => {
                println!("round {round}: killed in the window, {after:?} after the refresh began");
                losses.push(after);
                log_in_again(&sim, &setup, &account).await;
            }
        }
    }
    let refreshes = sim.refreshes(&account).await;
    let longest = losses.iter().max().copied().unwrap_or_default();
    println!(
        "{ROUNDS} kills, {refreshes} refreshes; {} in the window, at most {longest:?} after a refresh began",
        losses.len()
    );
    assert!(refreshes > u64::from(ROUNDS) / 2, "the loop did refresh: {refreshes}");
    assert!(losses.len() < ROUNDS as usize / 4, "the window is small: {} of {ROUNDS}", losses.len());
}

/// Asks in a loop until `wait` is over and the gateway is killed; then looks at what is stored.
async fn round_of(sim: &Sim, account: &SimAccount, gateway: Gateway, key: &str, wait: Duration) -> Left {
    let request = gateway.http.post(format!("{}{}", gateway.url, Dialect::Responses.path()));
    let request = request.bearer_auth(key).json(&Dialect::Responses.ask("hello"));
    let asking = tokio::spawn(async move {
        while let Some(copy) = request.try_clone() {
            if copy.send().await.is_err() {
                break;
            }
        }
    });
    let start = Instant::now();
    tokio::time::sleep(wait).await;
    let setup = gateway.kill();
    let killed_ms = unix_millis();
    asking.await.expect("the loop ends with the gateway");
    quiet(sim, start).await;
    let stored = setup.refresh_token(account).await;
    match sim.standing(&stored).await.as_str() {
        "live" => Left::Whole,
        "used" => {
            let last = sim.get("requests").await["requests"].as_array().and_then(|all| all.last().cloned());
            let last = last.expect("the refresh was seen");
            // Whatever came of the answer was not used: credentials are stored before anyone has them.
            assert_eq!(last["path"], "/oauth/token", "a token was used that is not stored: {last}");
            let sent = &last["body"]["refresh_token"];
            assert_eq!(*sent, Value::from(stored), "the stored token is the one that was exchanged last");
            let began = last["at_ms"].as_i64().expect("milliseconds");
            Left::InTheWindow(Duration::from_millis(u64::try_from(killed_ms - began).unwrap_or_default()))
        }
        other => panic!("the stored refresh token is {other} to the issuer"),
    }
}

/// Waits until the simulator has nothing under way: a request may have left just before the kill.
async fn quiet(sim: &Sim, since: Instant) {
    let mut before = Value::Null;
    eventually_within(Duration::from_secs(10), since, async || {
        let stats = sim.get("stats").await;
        let now = json!([stats["requests"], stats["in_flight"], stats["totals"]["refreshes"]]);
        let still = now == before && stats["in_flight"] == 0;
        before = now;
        still.then_some(())
    })
    .await;
}

/// What the operator does after a loss.
async fn log_in_again(sim: &Sim, setup: &Setup, account: &SimAccount) {
    let live = sim.live_refresh_tokens(account).await.pop().expect("a live token");
    let mut auth = account.auth_json.clone();
    auth["tokens"]["refresh_token"] = Value::from(live);
    setup.ok_with(&["account", "import", "-"], &auth.to_string());
}

fn unix_millis() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("a time of this age")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_arrives_is_the_one_way_to_lose_a_token() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    sim.fault(json!({"where": "token", "kind": "hold", "at": "after"})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let asking = tokio::spawn({
        let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(&key);
        request.json(&Dialect::Responses.ask("hello")).send()
    });
    sim.held("token", 1).await;
    let setup = gateway.kill();
    assert!(asking.await.expect("a result").is_err());
    sim.release("token").await;
    // The simulator has rotated and told nobody: the state says what to do.
    let gateway = setup.serve().await;
    assert_eq!(gateway.status(&key).await, 503);
    let shown = gateway.setup.ok(&["account", "show", &account.email]);
    assert!(shown.contains("refresh_token_reused"), "{shown}");
}
