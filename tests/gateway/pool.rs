//! The pool from outside: conversations stay and move, keys are bound to pools, operators see why,
//! and what was learnt outlives a restart.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, eventually};

async fn pool_of(traits: &[Value]) -> (Sim, Setup, String, Vec<SimAccount>) {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let mut accounts = Vec::new();
    for traits in traits {
        let account = sim.account(traits.clone()).await;
        setup.import(&account);
        accounts.push(account);
    }
    let key = setup.key("ada");
    (sim, setup, key, accounts)
}

async fn calls(sim: &Sim, account: &SimAccount) -> u64 {
    sim.counters(account).await["responses"].as_u64().expect("a count")
}

/// Who was called since `before`.
async fn called(sim: &Sim, accounts: &[SimAccount], before: &[u64]) -> Vec<usize> {
    let mut who = Vec::new();
    for (number, account) in accounts.iter().enumerate() {
        if calls(sim, account).await > before[number] {
            who.push(number);
        }
    }
    who
}

async fn counts(sim: &Sim, accounts: &[SimAccount]) -> Vec<u64> {
    let mut counts = Vec::new();
    for account in accounts {
        counts.push(calls(sim, account).await);
    }
    counts
}

/// Sends a request and says who served it.
async fn serve(gateway: &Gateway, sim: &Sim, accounts: &[SimAccount], key: &str, body: &Value) -> usize {
    let before = counts(sim, accounts).await;
    gateway.whole(key, Dialect::Responses, body).await;
    let who = called(sim, accounts, &before).await;
    assert_eq!(who.len(), 1, "one account serves");
    who[0]
}

fn turn(session: &str, text: &str) -> Value {
    json!({"model": "gpt-6.1-sol", "input": text, "prompt_cache_key": session})
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_stay_where_they_are_over_a_restart_and_move_when_their_account_is_used_up() {
    let (sim, setup, key, accounts) = pool_of(&[json!({}), json!({}), json!({}), json!({})]).await;
    let mut gateway = setup.serve().await;
    let mut homes = Vec::new();
    for session in 0..8 {
        homes.push(serve(&gateway, &sim, &accounts, &key, &turn(&format!("s{session}"), "one")).await);
    }
    assert!(homes.iter().collect::<BTreeSet<_>>().len() > 1, "new conversations are spread: {homes:?}");
    for restart in [false, true] {
        if restart {
            gateway = gateway.stop().await.serve().await;
        }
        for (session, home) in homes.iter().enumerate() {
            assert_eq!(serve(&gateway, &sim, &accounts, &key, &turn(&format!("s{session}"), "two")).await, *home);
        }
    }
    let used_up = homes[0];
    sim.fault(json!({"scope": accounts[used_up].id, "kind": "usage_limit", "times": null})).await;
    let before = counts(&sim, &accounts).await;
    gateway.whole(&key, Dialect::Responses, &turn("s0", "three")).await;
    let moved_to = called(&sim, &accounts, &before).await.into_iter().find(|who| *who != used_up).expect("another one");
    for _ in 0..3 {
        assert_eq!(serve(&gateway, &sim, &accounts, &key, &turn("s0", "four")).await, moved_to);
    }
    let (_, page) = gateway.ops_page("/metrics").await;
    assert!(
        page.contains("tollway_account_choices_total{strategy=\"quota\",affinity=\"moved\",found=\"true\"} 1"),
        "{page}"
    );
    assert!(page.contains("tollway_failovers_total{cause=\"usage_limit\"} 1"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_without_a_name_is_known_by_how_it_begins_and_finds_its_cache() {
    let (sim, setup, key, accounts) = pool_of(&[json!({}), json!({}), json!({})]).await;
    let gateway = setup.serve().await;
    for dialect in Dialect::ALL {
        let mut homes = BTreeSet::new();
        let long = "a long story ".repeat(50);
        let mut body = dialect.ask(&format!("{dialect:?}: {long}"));
        for _ in 0..4 {
            let before = counts(&sim, &accounts).await;
            gateway.whole(&key, dialect, &body).await;
            homes.extend(called(&sim, &accounts, &before).await);
            let field = if dialect == Dialect::Responses { "input" } else { "messages" };
            let turns = body[field].as_array_mut().expect("a list");
            turns.push(json!({"role": "assistant", "content": "so"}));
            turns.push(json!({"role": "user", "content": "and then?"}));
        }
        assert_eq!(homes.len(), 1, "{dialect:?}: {homes:?}");
    }
    let mut cached = 0;
    for account in &accounts {
        cached += sim.counters(account).await["tokens"]["cached"].as_u64().expect("a count");
    }
    assert!(cached > 3 * 3 * 100, "{cached} tokens came from the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_conversation_loses_the_other_accounts_reasoning_and_turn_state_and_nothing_else() {
    let (sim, setup, key, accounts) = pool_of(&[json!({}), json!({})]).await;
    let gateway = setup.serve().await;
    let said =
        |text: &str| json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
    let body = |items: &[Value]| {
        json!({"model": "gpt-6.1-sol", "input": items, "prompt_cache_key": "s", "store": false,
            "include": ["reasoning.encrypted_content"]})
    };
    // One turn: what was said, and what the model made of it, reasoning sealed by its account too.
    let turn = async |items: &mut Vec<Value>, text: &str| {
        items.push(said(text));
        let before = counts(&sim, &accounts).await;
        let answer = gateway.whole(&key, Dialect::Responses, &body(items)).await;
        items.extend(answer["output"].as_array().cloned().expect("a list"));
        called(&sim, &accounts, &before).await
    };
    let mut items = Vec::new();
    let home = turn(&mut items, "[reason] one").await[0];
    let of_home = items[1]["encrypted_content"].as_str().expect("sealed reasoning").to_owned();
    gateway.setup.ok(&["account", "pause", &accounts[home].email]);
    let other = 1 - home;
    eventually("the pause", async || {
        let listed = gateway.ops_page("/readyz").await.1;
        listed.contains("\"paused\":1").then_some(())
    })
    .await;
    assert_eq!(turn(&mut items, "[reason] two").await, [other]);
    let of_other = items[4]["encrypted_content"].as_str().expect("sealed reasoning").to_owned();
    assert_eq!(turn(&mut items, "[reason] three").await, [other]);
    let refused = &sim.counters(&accounts[other]).await["statuses"]["400"];
    assert!(refused.is_null(), "foreign reasoning was sent: {refused}");
    let sent = sim.requests("/backend-api/codex/responses").await;
    let last = sent.last().expect("a request")["body"]["input"].to_string();
    assert!(last.contains(&of_other) && !last.contains(&of_home), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_absence_is_a_detour() {
    let (sim, setup, key, accounts) = pool_of(&[json!({}), json!({}), json!({})]).await;
    let gateway = setup.serve().await;
    let home = serve(&gateway, &sim, &accounts, &key, &turn("s", "one")).await;
    sim.fault(json!({"scope": accounts[home].id, "kind": "rate_limit", "retry_after": 2, "times": 1})).await;
    let before = counts(&sim, &accounts).await;
    gateway.whole(&key, Dialect::Responses, &turn("s", "two")).await;
    let host = called(&sim, &accounts, &before).await.into_iter().find(|who| *who != home).expect("a host");
    assert_eq!(serve(&gateway, &sim, &accounts, &key, &turn("s", "three")).await, host, "the same host");
    eventually("the way home", async || {
        (serve(&gateway, &sim, &accounts, &key, &turn("s", "four")).await == home).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_bound_to_pools_which_choose_by_account_and_by_tag() {
    let (sim, setup, _, accounts) = pool_of(&[json!({}), json!({}), json!({})]).await;
    let gateway = setup.serve().await;
    setup.ok(&["account", "set", &accounts[1].email, "--tags", "batch", "--weight", "2"]);
    setup.ok(&[
        "pool",
        "set",
        "nightly",
        "--strategy",
        "fill_first",
        "--accounts",
        &accounts[0].email,
        "--tags",
        "batch",
    ]);
    let key = setup.key_with(&["--name", "night", "--pool", "nightly"]);
    let who = async |text: &str| serve(&gateway, &sim, &accounts, &key, &turn(text, "hello")).await;
    let mut session = 0;
    let mut new = async || {
        session += 1;
        who(&session.to_string()).await
    };
    eventually("the heavier one first", async || (new().await == 1).then_some(())).await;
    assert!(setup.ok(&["pool", "list"]).contains("nightly"));
    assert!(setup.ok(&["key", "list"]).contains("pool nightly"));
    setup.ok(&["account", "set", &accounts[1].email, "--tags", ""]);
    eventually("the tag's end", async || (new().await == 0).then_some(())).await;
    setup.ok(&["account", "pause", &accounts[0].email]);
    eventually("nobody is left", async || (gateway.status(&key).await == 503).then_some(())).await;
    assert!(setup.fails(&["pool", "remove", "nightly"], "").contains("key night"));
    setup.ok(&["key", "revoke", "night"]);
    setup.ok(&["pool", "remove", "nightly"]);
    assert_eq!(calls(&sim, &accounts[2]).await, 0, "not of the pool");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_served_by_accounts_whose_plan_offers_them() {
    let only = |model: &str| json!({"models": [model]});
    let (sim, setup, key, accounts) = pool_of(&[only("gpt-6.1-sol"), only("gpt-6-luna")]).await;
    let gateway = setup.serve().await;
    eventually("both catalogues", async || {
        let models = gateway.get(&key, "/v1/models", &[]).await.text().await.ok()?;
        (models.contains("gpt-6.1-sol") && models.contains("gpt-6-luna")).then_some(())
    })
    .await;
    for number in 0..4 {
        for (model, expected) in [("gpt-6.1-sol", 0), ("gpt-6-luna", 1)] {
            let body = json!({"model": model, "input": format!("hello {number}")});
            assert_eq!(serve(&gateway, &sim, &accounts, &key, &body).await, expected);
        }
    }
    sim.fault(json!({"scope": accounts[1].id, "kind": "usage_limit", "resets_in_seconds": 900, "times": null})).await;
    let answer = gateway.send(&key, Dialect::Responses, &json!({"model": "gpt-6-luna", "input": "hi"})).await;
    assert_eq!(answer.status(), 429, "the other account does not offer it");
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_that_is_back_early_ends_a_limit() {
    let (sim, setup, key, accounts) = pool_of(&[json!({"used_percent": 100.0, "resets_in_seconds": 7200})]).await;
    let gateway = setup.serve().await;
    let account = &accounts[0];
    eventually("a refusal", async || (gateway.status(&key).await == 429).then_some(())).await;
    let told = setup.ok(&["account", "probe", &account.email]);
    assert!(told.contains("100.0 %") && told.contains("is used up, back in"), "{told}");
    sim.post(&format!("accounts/{}/set", account.id), json!({"used_percent": 3.0})).await;
    let told = setup.ok(&["account", "probe", &account.email]);
    assert!(told.contains("3.0 %") && told.contains("has quota"), "{told}");
    let told: Value = serde_json::from_str(&setup.ok(&["account", "probe", &account.email, "--json"])).expect("JSON");
    assert_eq!((&told["plan"], told["windows"].as_array().map(Vec::len)), (&json!("plus"), Some(2)), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_asked_for_beside_the_requests_and_known_after_a_restart() {
    let (sim, setup, key, accounts) = pool_of(&[json!({"used_percent": 80.0}), json!({"used_percent": 10.0})]).await;
    let setup = setup.set("TOLLWAY_POOL__POLL_INTERVAL", "1s").set("TOLLWAY_POOL__POLL_IDLE", "1s");
    let gateway = setup.serve().await;
    let explained = |setup: &Setup| -> Value {
        let out = setup.ok(&["pool", "explain", "--key", "ada", "--offline", "--json"]);
        serde_json::from_str(&out).expect("JSON")
    };
    eventually("usage of both", async || {
        let told = explained(&setup);
        let known =
            told["candidates"].as_array()?.iter().all(|one| one["windows"].as_array().is_some_and(|w| w.len() == 2));
        known.then_some(())
    })
    .await;
    assert_eq!(serve(&gateway, &sim, &accounts, &key, &turn("s", "hi")).await, 1, "the one with more left");
    let setup = gateway.stop().await.set("TOLLWAY_POOL__POLL_INTERVAL", "0s");
    let told = explained(&setup);
    assert_eq!(told["candidates"].as_array().map(Vec::len), Some(2), "{told}");
    let used = told["candidates"][1]["windows"][0][0].as_f64().expect("a share");
    assert!((0.79..0.82).contains(&used), "{told}");
    let gateway = setup.serve().await;
    assert_eq!(serve(&gateway, &sim, &accounts, &key, &turn("another", "hi")).await, 1, "without asking again");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_can_be_read_afterwards_and_a_dry_run_says_the_same() {
    let (sim, setup, key, accounts) = pool_of(&[json!({}), json!({}), json!({})]).await;
    let gateway = setup.serve().await;
    setup.ok(&["account", "pause", &accounts[2].email]);
    let mut tries = 0;
    let answer = eventually("the pause", async || {
        // Where a conversation stays at home nobody looks at the others: each try is of a new one.
        tries += 1;
        let name = format!("secret-name-{tries}");
        let answer = gateway.send(&key, Dialect::Responses, &turn(&name, "hi")).await;
        let id = answer.headers()["x-request-id"].to_str().ok()?.to_owned();
        let decisions = async || {
            let out = setup.ok(&["pool", "decisions", "--request", &id, "--json"]);
            let all: Vec<Value> = serde_json::from_str(&out).ok()?;
            all.into_iter().next()
        };
        let decision = eventually("the decision", decisions).await;
        (decision["excluded"].as_array().map(Vec::len) == Some(1)).then_some((name, id, decision))
    });
    let (name, id, decision) = answer.await;
    assert_eq!(decision["excluded"][0]["reason"], "paused", "{decision}");
    assert_eq!((&decision["strategy"], &decision["model"]), (&json!("quota"), &json!("gpt-6.1-sol")), "{decision}");
    let shown = setup.ok(&["pool", "decisions", "--request", &id]);
    assert!(shown.contains("paused") && shown.contains(&accounts[2].email), "{shown}");
    // A dry run for the same conversation names its home.
    let dry = async || {
        let arguments = ["pool", "explain", "--key", "ada", "--model", "gpt-6.1-sol", "--session", &name, "--json"];
        let told: Value = serde_json::from_str(&setup.ok(&arguments)).expect("JSON");
        (told["affinity"] == "hit").then_some(told)
    };
    let told = eventually("the home is written", dry).await;
    assert_eq!(told["chosen"], decision["chosen"], "{told}\n{decision}");
    let database = std::fs::read(setup.database()).expect("the database");
    assert!(!database.windows(11).any(|window| window == b"secret-name"), "clients' names are not kept");
    drop((sim, gateway));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_operator_says_so_requests_wait_for_an_account_each_key_in_its_turn() {
    let (sim, setup, ada, accounts) = pool_of(&[json!({})]).await;
    let setup = setup.set("TOLLWAY_POOL__QUEUE", "6").set("TOLLWAY_POOL__QUEUE_WAIT", "10m");
    let bob = setup.key("bob");
    let gateway = setup.serve().await;
    sim.fault(json!({"scope": accounts[0].id, "kind": "rate_limit", "retry_after": 3, "times": 1})).await;
    let ask = |key: String| {
        let (http, url) = (gateway.http.clone(), format!("{}/v1/responses", gateway.url));
        tokio::spawn(async move {
            let body = Dialect::Responses.ask("ping");
            let answer = http.post(url).bearer_auth(key).json(&body).send().await.expect("an answer");
            answer.status().as_u16()
        })
    };
    let queued = async |count: u32| {
        eventually("requests that wait", async || {
            let (_, page) = gateway.ops_page("/metrics").await;
            page.contains(&format!("tollway_queued_requests {count}")).then_some(())
        })
        .await;
    };
    let mut crowd = vec![ask(ada.clone())];
    queued(1).await;
    crowd.extend((0..9).map(|_| ask(ada.clone())));
    queued(6).await;
    assert_eq!(ask(bob.clone()).await.expect("no panic"), 200, "the crowd of another key leaves room");
    let mut statuses = Vec::new();
    for one in crowd {
        statuses.push(one.await.expect("no panic"));
    }
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((served, statuses.iter().filter(|status| **status == 429).count()), (5, 5), "{statuses:?}");
    // Nobody waits for what does not come in time.
    sim.fault(json!({"kind": "usage_limit", "resets_in_seconds": 3600, "times": null})).await;
    let at_once = tokio::time::timeout(Duration::from_secs(5), gateway.status(&ada)).await;
    assert_eq!(at_once, Ok(429));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_an_accounts_states_is_kept() {
    let (sim, setup, key, accounts) = pool_of(&[json!({}), json!({})]).await;
    let gateway = setup.serve().await;
    sim.fault(json!({"scope": accounts[0].id, "kind": "usage_limit", "resets_in_seconds": 3, "times": 1})).await;
    setup.ok(&["account", "set", &accounts[0].email, "--priority", "1"]);
    eventually("a limit that came and went", async || {
        gateway.status(&key).await;
        let told: Value =
            serde_json::from_str(&setup.ok(&["account", "history", &accounts[0].email, "--json"])).expect("JSON");
        let became: Vec<_> = told.as_array()?.iter().map(|event| event["became"].clone()).collect();
        (became == [json!("active"), json!("limited")]).then_some(())
    })
    .await;
    let shown = setup.ok(&["account", "history", &accounts[0].email]);
    assert!(shown.contains("usage_limit_reached"), "{shown}");
    eventually("a line", async || gateway.log().contains("an account's state has changed").then_some(())).await;
}
