//! The database is away, slow, full or takes no writes while requests are served. What was used is
//! on the books afterwards, all of it: as many rows as the backend has seen requests.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::support::{Dialect, Sim, eventually, eventually_within, json_of};

/// Requests of which the backend counts each, and nothing else.
const QUIET: (&str, &str) = ("TOLLWAY_POOL__POLL_INTERVAL", "0s");

async fn two(sim: &Sim, settings: &[(&str, &str)]) -> Option<(Cluster, String)> {
    let settings: Vec<_> = settings.iter().copied().chain([QUIET]).collect();
    begun(Cluster::new(sim, 2, &settings).await?, sim).await
}

async fn begun(mut cluster: Cluster, sim: &Sim) -> Option<(Cluster, String)> {
    // The server of the tests acknowledges before it writes; here a crash must cost nothing.
    cluster
        .run("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$")
        .await;
    cluster.setup().import(&sim.account(json!({})).await);
    let key = cluster.setup().key("ada");
    cluster.serve().await;
    for number in cluster.running() {
        assert_eq!(cluster.gateway(number).status(&key).await, 200, "{}", cluster.logs());
    }
    Some((cluster, key))
}

/// A request whose answer is not kept, on each replica in turn; all must be served.
async fn served(cluster: &Cluster, key: &str, times: usize) {
    let body = json!({"model": "gpt-6.1-sol", "input": "ping", "store": false});
    for n in 0..times {
        let gateway = cluster.gateway(n % 2);
        let (status, answer) = json_of(gateway.send(key, Dialect::Responses, &body).await).await;
        assert_eq!(status, 200, "{answer}\n{}", cluster.logs());
    }
}

async fn readiness(cluster: &Cluster, number: usize) -> (u16, Value) {
    let (status, page) = cluster.gateway(number).ops_page("/readyz").await;
    (status.as_u16(), serde_json::from_str(&page).expect("JSON"))
}

/// Waits until every replica says so of itself.
async fn all_are(cluster: &Cluster, word: &str) {
    for number in cluster.running() {
        let what = format!("replica {number} is {word}");
        eventually_within(Duration::from_mins(1), what, async || {
            (readiness(cluster, number).await.1["status"] == word).then_some(())
        })
        .await;
    }
}

/// Waits until the books hold as many requests as the backend has answered.
async fn books_are_complete(cluster: &Cluster, sim: &Sim) {
    let seen = i64::try_from(sim.requests("/backend-api/codex/responses").await.len()).expect("a number");
    eventually_within(Duration::from_mins(1), format!("{seen} rows"), async || {
        let rows = cluster.count("SELECT COUNT(*) FROM usage_requests WHERE outcome = 'ok'").await;
        assert!(rows <= seen, "{rows} rows of {seen} requests");
        (rows == seen).then_some(())
    })
    .await;
    let (hours, days) = (
        cluster.count("SELECT CAST(SUM(requests) AS BIGINT) FROM usage_hourly").await,
        cluster.count("SELECT CAST(SUM(requests) AS BIGINT) FROM usage_daily").await,
    );
    let rows = cluster.count("SELECT COUNT(*) FROM usage_requests").await;
    assert_eq!((hours, days), (rows, rows), "the sums hold each request once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_degrades_the_replicas_and_loses_nothing() {
    let sim = Sim::start().await;
    let Some((cluster, key)) = two(&sim, &[("TOLLWAY_DATABASE__ACQUIRE_TIMEOUT", "2s")]).await else { return };
    served(&cluster, &key, 4).await;

    cluster.postgres.end("immediate");
    served(&cluster, &key, 10).await;
    all_are(&cluster, "degraded").await;
    let (status, body) = readiness(&cluster, 0).await;
    assert_eq!(status, 200, "a load balancer goes on: {body}");
    let (_, page) = cluster.gateway(0).ops_page("/metrics").await;
    assert!(page.contains("tollway_database_up 0"), "{page}");

    let kept = cluster.gateway(0).get(&key, "/v1/responses/resp_1", &[]).await;
    assert!(kept.headers().contains_key("retry-after"), "{kept:?}");
    assert_eq!(kept.status(), 503);

    assert!(cluster.postgres.begin());
    all_are(&cluster, "ready").await;
    served(&cluster, &key, 4).await;
    books_are_complete(&cluster, &sim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_have_been_made_elsewhere_is_not_refused_while_nobody_can_tell() {
    let sim = Sim::start().await;
    let frozen = [("TOLLWAY_ACCOUNTS__RELOAD_INTERVAL", "1h"), ("TOLLWAY_DATABASE__NOTIFY", "off")];
    let Some((cluster, _)) = two(&sim, &frozen).await else { return };
    let late = cluster.setup().key("late");
    cluster.postgres.end("fast");
    let answer = cluster.gateway(1).send(&late, Dialect::Responses, &Dialect::Responses.ask("ping")).await;
    assert!(answer.headers().contains_key("retry-after"));
    let (status, answer) = json_of(answer).await;
    assert_eq!((status.as_u16(), &answer["error"]["code"]), (503, &json!("service_unavailable")), "{answer}");
    assert!(cluster.postgres.begin());
    eventually("the key is known", async || (cluster.gateway(1).status(&late).await == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_grace_nothing_is_taken_in_and_a_replica_says_so() {
    let sim = Sim::start().await;
    let Some((cluster, key)) = two(&sim, &[("TOLLWAY_DATABASE__GRACE", "20s")]).await else { return };
    cluster.postgres.end("fast");
    served(&cluster, &key, 2).await;
    all_are(&cluster, "not ready").await;
    let answer = cluster.gateway(0).send(&key, Dialect::Responses, &Dialect::Responses.ask("ping")).await;
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.status(), 503);
    assert!(cluster.postgres.begin());
    all_are(&cluster, "ready").await;
    served(&cluster, &key, 2).await;
    books_are_complete(&cluster, &sim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_leaves_requests_alone() {
    let sim = Sim::start().await;
    let Some((cluster, key)) = two(&sim, &[]).await else { return };
    cluster.run("ALTER SYSTEM SET default_transaction_read_only = on").await;
    cluster.run("SELECT pg_reload_conf()").await;
    served(&cluster, &key, 10).await;
    all_are(&cluster, "degraded").await;
    let (_, page) = cluster.gateway(0).ops_page("/metrics").await;
    let refused = page.lines().find(|line| line.starts_with("tollway_database_errors_total{cause=\"read_only\"}"));
    assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{refused:?}");
    cluster.run("ALTER SYSTEM RESET default_transaction_read_only").await;
    cluster.run("SELECT pg_reload_conf()").await;
    all_are(&cluster, "ready").await;
    books_are_complete(&cluster, &sim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_slows_no_request() {
    let sim = Sim::start().await;
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database().await;
    let proxy = Proxy::to(postgres.address()).await;
    let through = url.replace(&postgres.address(), &proxy.address.to_string());
    let cluster = Cluster::over(postgres, &through, &sim, 2, &[QUIET]);
    let Some((cluster, key)) = begun(cluster, &sim).await else { return };
    // As slow as can be: nothing comes back until all are answered.
    proxy.hold();
    let all = tokio::time::timeout(Duration::from_secs(14), served(&cluster, &key, 20)).await;
    assert!(all.is_ok(), "a request waits for the database");
    proxy.release();
    books_are_complete(&cluster, &sim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_database_loses_nothing() {
    let sim = Sim::start().await;
    let Some(postgres) = Postgres::start() else { return };
    let Some(disk) = Disk::of_megabytes(24) else { return };
    let url = postgres.database_on(disk.path()).await;
    let cluster = Cluster::over(postgres, &url, &sim, 2, &[QUIET]);
    let Some((cluster, key)) = begun(cluster, &sim).await else { return };
    served(&cluster, &key, 2).await;
    books_are_complete(&cluster, &sim).await;

    let filler = disk.fill();
    // More than the pages that are there have room for, whichever replica writes first.
    served(&cluster, &key, 120).await;
    all_are(&cluster, "degraded").await;
    let (_, page) = cluster.gateway(0).ops_page("/metrics").await;
    let full = page.lines().find(|line| line.starts_with("tollway_database_errors_total{cause=\"full\"}"));
    assert!(full.is_some_and(|line| !line.ends_with(" 0")), "{full:?}");
    std::fs::remove_file(filler).expect("room again");
    all_are(&cluster, "ready").await;
    books_are_complete(&cluster, &sim).await;
}

/// A disk of its own for the server's tables.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None`, with a line that says so, where this user may not mount one.
    fn of_megabytes(size: u32) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let options = format!("size={size}m,mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        if !mounted.is_ok_and(|done| done.status.success()) {
            eprintln!("skipped: no right to mount a small disk");
            return None;
        }
        Postgres::give(directory.path());
        Some(Self(directory))
    }

    /// Takes all the room that is left; gives the file that has it.
    fn fill(&self) -> PathBuf {
        let filler = self.path().join("filler");
        let mut file = std::fs::File::create(&filler).expect("a file");
        while file.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
        filler
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the server may still run.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
