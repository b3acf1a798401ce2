//! What one replica does for all of them, and what an idle cluster costs.

use std::time::Duration;

use serde_json::json;

use crate::cluster::Cluster;
use crate::support::{Sim, eventually};

/// A cluster whose replicas tell the backend their number, and ask for usage all the time.
async fn polling(sim: &Sim) -> Option<Cluster> {
    let often = [("TOLLWAY_POOL__POLL_INTERVAL", "1s"), ("TOLLWAY_POOL__POLL_IDLE", "1s")];
    let mut cluster = Cluster::new(sim, 3, &often).await?;
    for number in 0..3 {
        cluster.set(number, "TOLLWAY_BACKEND__USER_AGENT", &format!("replica-{number}"));
    }
    cluster.setup().import(&sim.account(json!({})).await);
    cluster.serve().await;
    Some(cluster)
}

/// Who has asked for usage, in order, each run of one replica once.
async fn askers(sim: &Sim) -> Vec<String> {
    let calls = sim.requests("/backend-api/wham/usage").await;
    let mut askers: Vec<_> =
        calls.iter().map(|call| call["headers"]["user-agent"].as_str().unwrap_or_default().to_owned()).collect();
    askers.dedup();
    askers
}

async fn last_asker(sim: &Sim) -> Option<usize> {
    askers(sim).await.last()?.strip_prefix("replica-")?.parse().ok()
}

/// Waits until somebody else than `before` asks.
async fn successor(sim: &Sim, before: usize) -> usize {
    eventually("another replica asks", async || last_asker(sim).await.filter(|now| *now != before)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_at_a_time_asks_for_usage_and_another_goes_on_when_it_is_killed_or_stands_still() {
    let sim = Sim::start().await;
    let Some(mut cluster) = polling(&sim).await else { return };
    let first = eventually("somebody asks", async || last_asker(&sim).await).await;

    let began = std::time::Instant::now();
    cluster.kill(first);
    let second = successor(&sim, first).await;
    println!("handed over {:?} after kill -9", began.elapsed());

    cluster.pause(second);
    let third = successor(&sim, second).await;
    cluster.resume(second);
    // It wakes up in the middle of its time, as it thinks: long enough for it to ask, if it did.
    tokio::time::sleep(Duration::from_secs(4)).await;

    let began = std::time::Instant::now();
    cluster.stop(third).await;
    let fourth = successor(&sim, third).await;
    println!("handed over {:?} after SIGTERM", began.elapsed());
    assert_eq!(fourth, second);
    let expected = [first, second, third, fourth].map(|number| format!("replica-{number}"));
    assert_eq!(askers(&sim).await, expected, "nobody asked beside another");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_one_that_asks_learns_is_known_to_all() {
    let sim = Sim::start().await;
    let Some(cluster) = polling(&sim).await else { return };
    eventually("somebody asks", async || last_asker(&sim).await).await;
    for number in cluster.running() {
        eventually("the account's usage", async || {
            let (_, page) = cluster.gateway(number).ops_page("/metrics").await;
            page.contains("tollway_account_used_ratio").then_some(())
        })
        .await;
    }
    let mut leaders = 0;
    for number in cluster.running() {
        let (_, page) = cluster.gateway(number).ops_page("/metrics").await;
        leaders += usize::from(page.contains("\ntollway_leader 1"));
    }
    assert_eq!(leaders, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_cluster_costs_the_database_next_to_nothing() {
    let sim = Sim::start().await;
    let Some(mut cluster) = Cluster::new(&sim, 3, &[]).await else { return };
    cluster.setup().import(&sim.account(json!({})).await);
    let key = cluster.setup().key("ada");
    cluster.serve().await;
    for number in cluster.running() {
        assert_eq!(cluster.gateway(number).status(&key).await, 200);
    }
    // What requests leave behind is written, and the first usage asked for.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = cluster.transactions().await;
    let seconds = 20;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let transactions = cluster.transactions().await - before;
    println!("{transactions} transactions in {seconds} s of three idle replicas");
    // A look for changes each ten seconds, a lease that is renewed and watched, batches that somebody
    // may have left: 0.6 + 0.5 + 0.3 + 0.6 a second, and as much again for what happens now and then.
    assert!(transactions < 4 * i64::try_from(seconds).expect("seconds"), "{transactions} in {seconds} s");
}
