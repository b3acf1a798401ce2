//! `kill -9` at any point of a refresh loop. A refresh token rotates: once the issuer has answered,
//! the old one is dead, so there is one window in which a crash loses it: from the issuer's answer to
//! our commit. These tests measure it, and show that there is no other. What a crash before the issuer's
//! answer costs is a choice: a login, or the risk that a token is sent twice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tollway::store::{AccountState, Store};

use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, eventually_within, refresh_token};

const ROUNDS: u32 = 200;

/// Rounds with a careful try.
const CAREFUL: u32 = 15;

const RESEND: &str = "TOLLWAY_ACCOUNTS__RESEND_AFTER_CRASH";

/// Accounts that are refreshed one after the other in each round.
const ACCOUNTS: usize = 6;

/// The latest moment of a kill, after the first request.
const LATEST: Duration = Duration::from_millis(250);

/// The account whose rotation was lost, and how long after the refresh had reached the issuer.
struct Loss {
    account: usize,
    after: Duration,
}

/// A gateway that refreshes an account at its first use after each start, since tokens live for
/// less than the margin; one key an account.
struct Loop {
    sim: Sim,
    setup: Setup,
    accounts: Vec<SimAccount>,
    keys: Vec<String>,
    /// The last captured request that was looked at.
    seen: u64,
    /// From a refresh's arrival at the issuer to the first use of what it brought.
    windows: Vec<i64>,
    losses: Vec<Duration>,
    /// Logins that were given up although the issuer had not acted yet.
    given_up: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_a_token_only_between_the_issuers_answer_and_the_commit() {
    let (refreshing, reused) = Loop::rounds(ROUNDS, "false").await;

    assert_eq!(reused, 0, "a token was sent twice");
    println!("{} logins were given up before the issuer had acted", refreshing.given_up);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_careful_try_a_kill_costs_nothing_outside_of_that_window() {
    let (refreshing, _) = Loop::rounds(CAREFUL, "true").await;

    assert_eq!(refreshing.given_up, 0);
}

impl Loop {
    /// Rounds that each end with a kill; with how many tokens were sent twice.
    async fn rounds(rounds: u32, resend: &str) -> (Self, u64) {
        let mut refreshing = Self::new(resend).await;
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..rounds {
            let killed_at = refreshing.run_and_kill(LATEST.mul_f64(random.f64())).await;
            // Opened after each kill, so that it meets what the killed one has left; once, for it takes time.
            let store = refreshing.setup.store().await;
            for loss in refreshing.losses(&store, killed_at).await {
                refreshing.losses.push(loss.after);
                refreshing.log_in_again(loss.account).await;
            }
            refreshing.find_given_up(&store).await;
            store.close().await;
        }
        let stats = refreshing.sim.get("stats").await["totals"]["refreshes"].clone();
        let count = |what: &str| stats[what].as_u64().expect("a count");
        refreshing.report(rounds, count("ok"));
        (refreshing, count("reused"))
    }

    fn report(&mut self, rounds: u32, refreshes: u64) {
        let Self { windows, losses, .. } = self;
        windows.sort_unstable();
        println!(
            "{rounds} kills in {refreshes} refreshes: {} rotations fell into the window, at most {:?} after the refresh had reached \
             the issuer; from there to the first use of the new token it takes {:?} ms in the middle, {:?} ms at most",
            losses.len(),
            losses.iter().max().copied().unwrap_or_default(),
            windows.get(windows.len() / 2),
            windows.last(),
        );
        assert!(refreshes > u64::from(rounds), "the loop did refresh: {refreshes}");
        assert!(losses.len() < rounds as usize, "not every kill can fall into the window");
    }

    async fn new(resend: &str) -> Self {
        let sim = Sim::with(&["--access-token-life", "30"]).await;
        sim.post("settings", json!({"revoke_family_on_reuse": false})).await;
        let setup = Setup::new(&sim).set(RESEND, resend);
        let (mut accounts, mut keys) = (Vec::new(), Vec::new());
        for number in 0..ACCOUNTS {
            let account = sim.account(json!({})).await;
            setup.import(&account);
            keys.push(setup.key_with(&["--name", &format!("key{number}"), "--accounts", &account.email]));
            accounts.push(account);
        }
        Self { sim, setup, accounts, keys, seen: 0, windows: Vec::new(), losses: Vec::new(), given_up: 0 }
    }

    /// Accounts whose token a gateway was about to send when it was killed, and that the next one has not
    /// tried again.
    async fn find_given_up(&mut self, store: &Store) {
        for number in 0..self.accounts.len() {
            let found = store.accounts().find(&self.accounts[number].email).await.expect("the account");
            if found.state == AccountState::NeedsLogin {
                assert_eq!(found.state_reason.as_deref(), Some("refresh_interrupted"), "{found:?}");
                self.given_up += 1;
                self.log_in_again(number).await;
            }
        }
    }

    /// Asks with each key in turn, and kills the gateway after `wait`; gives the time of the kill.
    async fn run_and_kill(&self, wait: Duration) -> i64 {
        let gateway = self.setup.serve().await;
        let request = gateway.http.post(format!("{}{}", gateway.url, Dialect::Responses.path()));
        let request = request.json(&Dialect::Responses.ask("hello"));
        let keys = self.keys.clone();
        let asking = tokio::spawn(async move {
            for key in keys.iter().cycle() {
                let copy = request.try_clone().expect("a copy").bearer_auth(key);
                if copy.send().await.is_err() {
                    return;
                }
            }
        });
        // No event marks the moment: that it is any moment is the point.
        tokio::time::sleep(wait).await;
        gateway.kill();
        let killed_at = unix_millis();
        asking.await.expect("the loop ends with the gateway");
        self.quiet().await;
        killed_at
    }

    /// Waits until the simulator has nothing under way: a request may have left just before the kill.
    async fn quiet(&self) {
        let mut before = Value::Null;
        eventually_within(Duration::from_secs(10), "a quiet simulator", async || {
            let stats = self.sim.get("stats").await;
            let now = json!([stats["requests"], stats["in_flight"], stats["totals"]["refreshes"]]);
            let still = now == before && stats["in_flight"] == 0;
            before = now;
            still.then_some(())
        })
        .await;
    }

    /// What the kill cost: nothing, or the rotation of an account, rarely of more: those that were
    /// renewed ahead of demand at that moment.
    async fn losses(&mut self, store: &Store, killed_at: i64) -> Vec<Loss> {
        let requests = self.new_requests().await;
        let mut lost = Vec::new();
        for (number, account) in self.accounts.iter().enumerate() {
            let stored = refresh_token(store, account).await;
            match self.sim.standing(&stored).await.as_str() {
                "live" => {}
                "used" => {
                    // A catalogue may still be looked up meanwhile, with the token that is about to end.
                    let is_of_it = |one: &&Value| {
                        let generates = one["path"] == "/backend-api/codex/responses";
                        generates && one["account"] == account.id.as_str()
                            || one["body"]["refresh_token"] == stored.as_str()
                    };
                    let exchange = requests.iter().rfind(is_of_it).expect("the refresh was seen");
                    // Nobody used what is not stored: the exchange is the last that was heard of the account.
                    assert_eq!(exchange["path"], "/oauth/token", "a token was used before it was stored: {exchange}");
                    assert_eq!(exchange["body"]["refresh_token"], stored, "the stored token is the one last exchanged");
                    let after = killed_at - exchange["at_ms"].as_i64().expect("milliseconds");
                    lost.push(Loss { account: number, after: Duration::from_millis(after.unsigned_abs()) });
                }
                other => panic!("the stored refresh token is {other} to the issuer"),
            }
        }
        lost
    }

    /// The requests of this round; how long each refresh took is noted on the way.
    async fn new_requests(&mut self) -> Vec<Value> {
        let all = self.sim.get("requests").await["requests"].as_array().cloned().unwrap_or_default();
        let new: Vec<Value> = all.into_iter().filter(|one| one["number"].as_u64() > Some(self.seen)).collect();
        self.seen = new.last().and_then(|last| last["number"].as_u64()).unwrap_or(self.seen);
        for pair in new.windows(2) {
            if pair[0]["path"] == "/oauth/token" {
                self.windows.extend(pair[1]["at_ms"].as_i64().zip(pair[0]["at_ms"].as_i64()).map(|(b, a)| b - a));
            }
        }
        new
    }

    /// What the operator does after a loss.
    async fn log_in_again(&self, number: usize) {
        let account = &self.accounts[number];
        let live = self.sim.live_refresh_tokens(account).await.pop().expect("a live token");
        let mut auth = account.auth_json.clone();
        auth["tokens"]["refresh_token"] = Value::from(live);
        self.setup.ok_with(&["account", "import", "-"], &auth.to_string());
    }
}

fn unix_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("a time of this age")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lost_in_the_window_is_told_with_what_to_do() {
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
    // The simulator has rotated and told nobody.
    let gateway = setup.serve().await;
    assert_eq!(gateway.status(&key).await, 503);
    let shown = gateway.setup.ok(&["account", "show", &account.email]);
    for words in ["refresh_interrupted", "was cut off", "Log in again", "--resend"] {
        assert!(shown.contains(words), "{shown}");
    }
    assert_eq!(sim.get("stats").await["totals"]["refreshes"]["reused"], 0);
    // Whoever takes the risk is told what came of it.
    let refused = gateway.setup.fails(&["account", "refresh", &account.email, "--resend"], "");
    assert!(refused.contains("Probably Tollway's own earlier refresh"), "{refused}");
}
