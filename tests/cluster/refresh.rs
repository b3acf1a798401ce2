//! Refreshing across replicas: one exchange for all, whatever happens to the one that makes it.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::support::{Dialect, Sim, SimAccount, eventually};

/// An exchange takes seven seconds at most, its lease ten and a half.
const TIMEOUT: (&str, &str) = ("TOLLWAY_OAUTH__TIMEOUT", "6s");
const DOUBT: (&str, &str) = ("TOLLWAY_ACCOUNTS__REFRESH_DOUBT", "15s");
/// One careful try, for those who rather risk a reuse than a login.
const RESEND: (&str, &str) = ("TOLLWAY_ACCOUNTS__RESEND_AFTER_CRASH", "true");

/// Three replicas, and one account whose access token has run out.
struct Stage {
    sim: Sim,
    cluster: Cluster,
    account: SimAccount,
    key: String,
}

impl Stage {
    /// The exchange is held by the issuer, `before` or `after` it has acted.
    async fn new(held: &str) -> Option<Self> {
        Self::with(held, &[]).await
    }

    /// The same with more settings.
    async fn with(held: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let sim = Sim::start().await;
        let mut cluster = Cluster::new(&sim, 3, &[&[TIMEOUT, DOUBT], settings].concat()).await?;
        let account = sim.expired_account().await;
        let key = cluster.setup().key("ada");
        cluster.serve().await;
        // The first replica that sees the account begins, ahead of demand.
        sim.fault(json!({"where": "token", "kind": "hold", "at": held})).await;
        cluster.setup().import(&account);
        sim.held("token", 1).await;
        Some(Self { sim, cluster, account, key })
    }

    /// Which replica has sent the token.
    async fn holder(&self) -> usize {
        let sent = self.sim.requests("/oauth/token").await;
        let agent = sent[0]["headers"]["user-agent"].as_str().expect("a user agent");
        agent.trim_start_matches("replica-").parse().expect("a replica's number")
    }

    /// A request of everybody's but one replica's clients.
    fn ask_all_but(&self, number: usize) -> Vec<JoinHandle<u16>> {
        let others = self.cluster.running().into_iter().filter(|other| *other != number);
        let ask = |other| {
            let gateway = self.cluster.gateway(other);
            let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(&self.key);
            let request = request.json(&Dialect::Responses.ask("hello"));
            tokio::spawn(async move { request.send().await.expect("an answer").status().as_u16() })
        };
        others.map(ask).collect()
    }

    /// What an operator is shown who looks at the account by another replica than this.
    fn shown_beside(&self, number: usize) -> String {
        self.cluster.setup_of((number + 1) % 3).ok(&["account", "show", &self.account.email])
    }

    /// Waits until a replica serves the account again.
    async fn serves(&self, number: usize) {
        let gateway = self.cluster.gateway(number);
        eventually("the account is back", async || (gateway.status(&self.key).await == 200).then_some(())).await;
    }

    /// Refreshes that worked, and reuses.
    async fn exchanges(&self) -> (u64, u64) {
        let refreshes = self.sim.counters(&self.account).await["refreshes"].clone();
        (refreshes["ok"].as_u64().expect("a count"), refreshes["reused"].as_u64().expect("a count"))
    }
}

async fn statuses(asking: Vec<JoinHandle<u16>>) -> Vec<u16> {
    let mut statuses = Vec::new();
    for one in asking {
        statuses.push(one.await.expect("a status"));
    }
    statuses
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_one_exchange_and_the_command_line_takes_its_turn() {
    let Some(stage) = Stage::new("after").await else { return };
    let asking = stage.ask_all_but(usize::MAX);
    let command = tokio::task::spawn_blocking({
        let (setup, email) = (stage.cluster.setup().clone(), stage.account.email.clone());
        move || setup.ok(&["account", "refresh", &email])
    });
    // Long enough for everybody to find the lease taken.
    tokio::time::sleep(Duration::from_millis(700)).await;
    stage.sim.release("token").await;

    assert_eq!(statuses(asking).await, [200; 3], "{}", stage.cluster.logs());
    command.await.expect("the command succeeds");
    // A command that came too late to share the exchange has had one of its own.
    let (worked, reused) = stage.exchanges().await;
    println!("{worked} exchanges for three replicas and the command line");
    assert!(worked <= 2 && reused == 0, "{worked} and {reused}\n{}", stage.cluster.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_sender_died_is_not_sent_again_until_somebody_asks_for_it() {
    let Some(mut stage) = Stage::new("before").await else { return };
    let holder = stage.holder().await;
    let asking = stage.ask_all_but(holder);
    stage.cluster.kill(holder);

    assert_eq!(statuses(asking).await, [503; 2], "{}", stage.cluster.logs());
    let shown = stage.shown_beside(holder);
    for words in ["refresh_interrupted", "was cut off", "Log in again", "--resend"] {
        assert!(shown.contains(words), "{shown}");
    }
    assert_eq!(stage.exchanges().await, (0, 0));
    // The issuer has not acted, as it happens: the operator's try saves the login.
    let setup = stage.cluster.setup_of((holder + 1) % 3);
    let refused = setup.fails(&["account", "refresh", &stage.account.email], "");
    assert!(refused.contains("refresh_interrupted"), "{refused}");
    setup.ok(&["account", "refresh", &stage.account.email, "--resend"]);
    assert_eq!(stage.exchanges().await, (1, 0));
    for number in stage.cluster.running() {
        stage.serves(number).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_died_with_its_receiver_costs_a_login_and_no_reuse() {
    let Some(mut stage) = Stage::new("after").await else { return };
    let holder = stage.holder().await;
    let asking = stage.ask_all_but(holder);
    stage.cluster.kill(holder);

    assert_eq!(statuses(asking).await, [503; 2], "{}", stage.cluster.logs());
    let shown = stage.shown_beside(holder);
    assert!(shown.contains("refresh_interrupted"), "{shown}");
    assert_eq!(stage.exchanges().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_careful_try_saves_a_login_that_the_issuer_has_not_touched() {
    let Some(mut stage) = Stage::with("before", &[RESEND]).await else { return };
    let holder = stage.holder().await;
    let asking = stage.ask_all_but(holder);
    let begin = Instant::now();
    stage.cluster.kill(holder);

    assert_eq!(statuses(asking).await, [200; 2], "{}", stage.cluster.logs());
    println!("served {:?} after the kill", begin.elapsed());
    assert_eq!(stage.exchanges().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_careful_try_that_comes_too_late_is_told_as_our_own_loss() {
    let Some(mut stage) = Stage::with("after", &[RESEND]).await else { return };
    let holder = stage.holder().await;
    stage.cluster.kill(holder);
    let asking = stage.ask_all_but(holder);

    assert_eq!(statuses(asking).await, [503; 2]);
    let shown = stage.shown_beside(holder);
    for words in ["refresh_token_reused", "Probably Tollway's own earlier refresh", "Log in again"] {
        assert!(shown.contains(words), "{shown}");
    }
    assert_eq!(stage.exchanges().await, (1, 1), "one careful try, by one replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_wakes_after_it_was_given_up_brings_the_account_back() {
    let Some(stage) = Stage::new("after").await else { return };
    let holder = stage.holder().await;
    let asking = stage.ask_all_but(holder);
    stage.cluster.pause(holder);
    stage.sim.release("token").await;
    // Longer than the doubt: the others have given it up.
    assert_eq!(statuses(asking).await, [503; 2], "{}", stage.cluster.logs());
    assert!(stage.shown_beside(holder).contains("refresh_interrupted"));
    stage.cluster.resume(holder);

    for number in stage.cluster.running() {
        stage.serves(number).await;
    }
    assert_eq!(stage.exchanges().await, (1, 0), "{}", stage.cluster.logs());
    let shown = stage.shown_beside(holder);
    assert!(!shown.contains("refresh_interrupted"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_holder_finds_its_answer_when_it_wakes_and_keeps_it() {
    let Some(stage) = Stage::new("after").await else { return };
    let holder = stage.holder().await;
    let asking = stage.ask_all_but(holder);
    stage.cluster.pause(holder);
    stage.sim.release("token").await;
    // Longer than the exchange may take and than the lease: the others may take the lease, and find
    // the note.
    tokio::time::sleep(Duration::from_millis(11_500)).await;
    assert_eq!(stage.exchanges().await, (1, 0), "{}", stage.cluster.logs());
    stage.cluster.resume(holder);

    assert_eq!(statuses(asking).await, [200; 2], "{}", stage.cluster.logs());
    assert_eq!(stage.cluster.gateway(holder).status(&stage.key).await, 200);
    assert_eq!(stage.exchanges().await, (1, 0), "{}", stage.cluster.logs());
    let store = stage.cluster.store().await;
    let account = store.accounts().find(&stage.account.email).await.expect("the account");
    eventually("a released lease", async || {
        let turn = store.exchanges().turn(account.id).await.expect("a look").expect("the account");
        turn.lease.is_some_and(|lease| lease.left.is_zero()).then_some(())
    })
    .await;
}
