//! Many requests on expired accounts while replicas are killed, paused and started again at random:
//! one refresh an account and round, no reuse whatever happens, and no error but on connections to a
//! killed replica. A refresh that was under way at a kill may cost its login; the clients do not see it,
//! as long as one account is left.
//!
//! `TW_REFRESH_ROUNDS=100` runs a hundred rounds; the default is for every day.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollway::store::{Account, AccountId, AccountState, NewAccount, NewCredentials, Store};

use crate::cluster::Cluster;
use crate::support::{Dialect, Sim, SimAccount, eventually};

const ROUNDS: usize = 10;
const REPLICAS: usize = 3;
const ACCOUNTS: usize = 5;
const REQUESTS: usize = 1_000;

/// The processes of a loaded machine may stand still for seconds. What counts is that a doubt is longer
/// than that, and than any pause.
const TIMEOUT: (&str, &str) = ("TOLLWAY_OAUTH__TIMEOUT", "10s");
const DOUBT: (&str, &str) = ("TOLLWAY_ACCOUNTS__REFRESH_DOUBT", "30s");
/// So that replicas see at once that a token has run out.
const RELOAD: (&str, &str) = ("TOLLWAY_ACCOUNTS__RELOAD_INTERVAL", "50ms");
/// So that each account is asked for in each round, whatever it has served before.
const STRATEGY: (&str, &str) = ("TOLLWAY_POOL__STRATEGY", "least_loaded");

/// What happens to a replica in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    None,
    Kill(usize),
    /// For so many milliseconds.
    Pause(usize, u64),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Good,
    /// With which status and body.
    Bad(String),
    /// The connection broke; the client asked another replica.
    Retried(usize),
}

#[derive(Debug, Default)]
struct Tally {
    kills: u32,
    pauses: u32,
    retried: usize,
    /// Logins lost because a replica was killed in the middle of a refresh.
    lost: u32,
    /// Those among them whose token had not reached the issuer.
    unsent: u32,
}

struct Chaos {
    sim: Sim,
    cluster: Cluster,
    store: Store,
    accounts: Vec<(SimAccount, AccountId)>,
    key: String,
    random: fastrand::Rng,
    tally: Tally,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_replicas_an_account_is_refreshed_once_a_round() {
    let rounds = std::env::var("TW_REFRESH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let Some(mut chaos) = Chaos::new().await else { return };
    for round in 0..rounds {
        let begin = std::time::Instant::now();
        let blow = chaos.choose_blow(round);
        chaos.round(round, blow).await;
        println!("round {round}: {blow:?}, {:?}", begin.elapsed());
    }
    println!("{rounds} rounds of {REQUESTS} requests on {ACCOUNTS} expired accounts: {:?}", chaos.tally);
}

impl Chaos {
    async fn new() -> Option<Self> {
        let sim = Sim::start().await;
        // The family of a token that is lost in the window lives on, for the next round.
        sim.post("settings", json!({"revoke_family_on_reuse": false})).await;
        let mut cluster = Cluster::new(&sim, REPLICAS, &[TIMEOUT, DOUBT, RELOAD, STRATEGY]).await?;
        let store = cluster.store().await;
        let mut accounts = Vec::new();
        for _ in 0..ACCOUNTS {
            let account = sim.account(json!({})).await;
            cluster.setup().import(&account);
            let id = store.accounts().find(&account.email).await.expect("the account").id;
            accounts.push((account, id));
        }
        let key = cluster.setup().key_with(&["--name", "everyone"]);
        cluster.serve().await;
        let random = fastrand::Rng::with_seed(11);
        Some(Self { sim, cluster, store, accounts, key, random, tally: Tally::default() })
    }

    /// The first rounds have one of each.
    fn choose_blow(&mut self, round: usize) -> Blow {
        let replica = self.random.usize(..REPLICAS);
        match if round < 3 { round } else { self.random.usize(..3) } {
            0 => Blow::None,
            1 => Blow::Kill(replica),
            _ => Blow::Pause(replica, self.random.u64(100..4_000)),
        }
    }

    async fn round(&mut self, round: usize, blow: Blow) {
        // Some exchanges are slow, before or after the issuer has acted.
        for at in ["before", "after"] {
            let ms = self.random.u64(0..150);
            self.sim.fault(json!({"where": "token", "kind": "delay_ms", "ms": ms, "at": at, "times": 3})).await;
        }
        let before = self.exchanges().await;
        let mut generations = Vec::new();
        for (account, id) in &self.accounts {
            generations.push(expire(&self.store, account, *id).await);
        }
        let crowd = self.crowd(round);
        // No event marks the moment: that it is any moment is the point.
        tokio::time::sleep(Duration::from_millis(self.random.u64(0..400))).await;
        let exposed = self.strike(blow, &generations).await;
        let outcomes = crowd.join_all().await;
        let lost = self.judge(round, &before, &exposed).await;
        self.judge_clients(round, blow, lost.len(), &outcomes);
        for (number, unsent) in lost {
            self.tally.lost += 1;
            self.tally.unsent += u32::from(unsent);
            self.log_in_again(number).await;
        }
        self.cluster.serve().await;
    }

    /// The clients: each asks a replica, and another one when the connection breaks.
    fn crowd(&self, round: usize) -> JoinSet<Outcome> {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let urls: Arc<Vec<String>> =
            Arc::new((0..REPLICAS).map(|number| self.cluster.gateway(number).url.clone()).collect());
        let mut crowd = JoinSet::new();
        for number in 0..REQUESTS {
            let (http, urls) = (http.clone(), Arc::clone(&urls));
            let (first, key) = (number % REPLICAS, self.key.clone());
            // A conversation each, so that all accounts are asked; and new ones, for old ones have moved
            // away from an account that was lost.
            let ask = Dialect::Responses.ask(&format!("round {round}: hello from {number}"));
            crowd.spawn(async move {
                let mut broken = None;
                for replica in (first..).map(|replica| replica % REPLICAS).take(REPLICAS) {
                    let request = http.post(format!("{}/v1/responses", urls[replica])).bearer_auth(&key);
                    let Ok(answer) = request.json(&ask).send().await else {
                        broken = Some(replica);
                        continue;
                    };
                    let status = answer.status().as_u16();
                    let Ok(text) = answer.text().await else {
                        broken = Some(replica);
                        continue;
                    };
                    return match broken {
                        _ if status != 200 => Outcome::Bad(format!("{status} {text}")),
                        Some(replica) => Outcome::Retried(replica),
                        None => Outcome::Good,
                    };
                }
                Outcome::Bad("no replica answers".to_owned())
            });
        }
        crowd
    }

    /// Deals the blow. Gives the accounts whose exchange was under way when a replica was killed.
    async fn strike(&mut self, blow: Blow, generations: &[i64]) -> Vec<usize> {
        let mut exposed = Vec::new();
        match blow {
            Blow::None => {}
            Blow::Kill(replica) => {
                self.tally.kills += 1;
                let process = self.cluster.gateway(replica).program.id();
                self.cluster.kill(replica);
                self.last_words(process).await;
                for (number, (_, id)) in self.accounts.iter().enumerate() {
                    let turn = self.store.exchanges().turn(*id).await.expect("a look").expect("the account");
                    let open = turn.exchange.is_some_and(|exchange| exchange.generation == generations[number]);
                    if open && turn.generation == generations[number] {
                        exposed.push(number);
                    }
                }
            }
            Blow::Pause(replica, ms) => {
                self.tally.pauses += 1;
                self.cluster.pause(replica);
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.cluster.resume(replica);
            }
        }
        exposed
    }

    /// Waits until the database has done what a process had asked for before it was killed.
    async fn last_words(&self, process: u32) {
        let open = format!("SELECT COUNT(*) FROM pg_stat_activity WHERE application_name LIKE '%/{process}'");
        eventually("its connections are closed", async || (self.cluster.count(&open).await == 0).then_some(())).await;
    }

    /// One refresh each, and no reuse without exception. A login whose exchange was under way at a kill
    /// may be given up. Gives those, and whether their token had not reached the issuer.
    async fn judge(&self, round: usize, before: &[(u64, u64)], exposed: &[usize]) -> Vec<(usize, bool)> {
        let mut lost = Vec::new();
        for (number, after) in self.exchanges().await.into_iter().enumerate() {
            let counted = (after.0 - before[number].0, after.1 - before[number].1);
            let stored = self.stored(number).await;
            match counted {
                (0 | 1, 0) if exposed.contains(&number) && stored.state == AccountState::NeedsLogin => {
                    assert_eq!(
                        stored.state_reason.as_deref(),
                        Some("refresh_interrupted"),
                        "round {round}: {stored:?}"
                    );
                    lost.push((number, counted.0 == 0));
                }
                (1, 0) => assert_eq!(stored.state, AccountState::Active, "round {round}: {stored:?}"),
                _ => panic!("round {round}, account {number}: refreshes {counted:?}\n{}", self.cluster.logs()),
            }
        }
        lost
    }

    fn judge_clients(&mut self, round: usize, blow: Blow, lost: usize, outcomes: &[Outcome]) {
        assert_eq!(outcomes.len(), REQUESTS);
        for outcome in outcomes {
            match outcome {
                Outcome::Good => {}
                Outcome::Retried(replica) => {
                    assert_eq!(
                        blow,
                        Blow::Kill(*replica),
                        "round {round}: a connection broke\n{}",
                        self.cluster.logs()
                    );
                    self.tally.retried += 1;
                }
                Outcome::Bad(what) => {
                    assert_eq!(lost, ACCOUNTS, "round {round}: {what}\n{}", self.cluster.logs());
                }
            }
        }
    }

    /// What the issuer has counted for each account: refreshes that worked, and reuses.
    async fn exchanges(&self) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        for (account, _) in &self.accounts {
            let refreshes = self.sim.counters(account).await["refreshes"].clone();
            let count = |what: &str| refreshes[what].as_u64().expect("a count");
            all.push((count("ok"), count("reused")));
        }
        all
    }

    async fn stored(&self, number: usize) -> Account {
        self.store.accounts().get(self.accounts[number].1).await.expect("a look").expect("the account")
    }

    /// What the operator does after a loss.
    async fn log_in_again(&self, number: usize) {
        let account = &self.accounts[number].0;
        let live = self.sim.live_refresh_tokens(account).await.pop().expect("a live token");
        let mut auth = account.auth_json.clone();
        auth["tokens"]["refresh_token"] = Value::from(live);
        self.cluster.setup().ok_with(&["account", "import", "-"], &auth.to_string());
    }
}

/// Stores an account's credentials anew, as a login does, with an access token that has run out. Gives
/// their generation.
async fn expire(store: &Store, account: &SimAccount, id: AccountId) -> i64 {
    let row = store.accounts().get(id).await.expect("a look").expect("the account");
    let held = store.accounts().credentials(id).await.expect("a look").expect("credentials");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now = i64::try_from(now.as_millis()).expect("a time of this age");
    let new = NewAccount {
        name: None,
        email: Some(account.email.clone()),
        chatgpt_user_id: row.chatgpt_user_id,
        chatgpt_account_id: row.chatgpt_account_id,
        plan: row.plan,
        fedramp: row.fedramp,
        credentials: NewCredentials {
            access_token: held.access_token.expose_secret().into(),
            refresh_token: held.refresh_token.expose_secret().into(),
            id_token: None,
            access_expires_at: Some(now - 3_600_000),
        },
    };
    store.accounts().upsert(new, now).await.expect("a login").into_account().generation
}
