//! Limits that three replicas hold together.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tollway::store::UsageFilter;

use crate::cluster::Cluster;
use crate::support::{Dialect, Gateway, Sim, eventually};

/// Fast enough for a test: how long a replica's part counts when it is silent.
const LEASE: &str = "4s";

async fn cluster(sim: &Sim) -> Option<Cluster> {
    let settings = [("TOLLWAY_LIMITS__PATIENCE", "60s"), ("TOLLWAY_LIMITS__LEASE", LEASE)];
    let cluster = Cluster::new(sim, 3, &settings).await?;
    cluster.setup().import(&sim.account(json!({})).await);
    Some(cluster)
}

/// A key of a team with these limits.
fn key_of_team(cluster: &Cluster, limits: &[&str]) -> String {
    let setup = cluster.setup();
    setup.ok(&[&["team", "create", "core"], limits].concat());
    setup.key_with(&["--name", "k", "--team", "core"])
}

async fn me(gateway: &Gateway, key: &str) -> Value {
    let answer = gateway.get(key, "/v1/me", &[]).await;
    answer.json().await.expect("JSON")
}

/// What a key's team has used, as a replica says it.
async fn told(gateway: &Gateway, key: &str) -> u64 {
    me(gateway, key).await["limits"][0]["used"].as_u64().expect("a number")
}

/// Status and text of a request, unless its replica is killed meanwhile.
async fn ask(gateway: (&reqwest::Client, &str), key: &str, text: &str) -> Option<(u16, String)> {
    let (http, url) = gateway;
    let request = http.post(format!("{url}{}", Dialect::Responses.path())).bearer_auth(key);
    let answer = request.json(&Dialect::Responses.ask(text)).send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.text().await.ok()?))
}

/// Tokens in the ledger, and requests.
async fn written(cluster: &Cluster) -> (u64, u64) {
    let store = cluster.store().await;
    let filter = UsageFilter { until: i64::MAX, ..UsageFilter::default() };
    let sums = store.ledger().report(&filter, None).await.expect("a report");
    store.close().await;
    sums.first().map_or((0, 0), |sum| (sum.used.input + sum.used.output, sum.requests))
}

/// The addresses of the replicas and a client each: they stay good when one is killed.
fn addresses(cluster: &Cluster) -> Vec<(reqwest::Client, String)> {
    let running = cluster.running().into_iter().map(|number| cluster.gateway(number));
    running.map(|gateway| (gateway.http.clone(), gateway.url.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_streams_on_three_replicas_exceed_a_budget_by_one_request_at_most() {
    let sim = Sim::start().await;
    let Some(mut cluster) = cluster(&sim).await else { return };
    let key = key_of_team(&cluster, &["--budget", "500/day"]);
    cluster.serve().await;
    let addresses = addresses(&cluster);
    let asked = (0..300).map(|number| {
        let (http, url) = &addresses[number % 3];
        ask((http, url.as_str()), &key, "hello")
    });
    let answers: Vec<(u16, String)> = join_all(asked).await.into_iter().flatten().collect();
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(served > 1 && answers.iter().all(|(status, _)| matches!(status, 200 | 429)), "{served} served");
    let used = eventually("the books", async || {
        let (tokens, requests) = written(&cluster).await;
        (requests == 300).then_some(tokens)
    });
    let used = used.await;
    assert!((500..600).contains(&used), "{used}: nothing was left, and one request went over; {served} served");
    // Every replica says the same, and so does a refusal.
    for number in cluster.running() {
        let gateway = cluster.gateway(number);
        assert_eq!(told(gateway, &key).await, used, "replica {number}");
        let (status, text) = ask((&gateway.http, &gateway.url), &key, "hello").await.expect("an answer");
        assert_eq!(status, 429, "{text}");
        assert!(text.contains(&format!("{used} tokens used")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_holds_when_a_replica_is_killed_and_another_stands_still() {
    let sim = Sim::with(&["--delta-delay", "5"]).await;
    let Some(mut cluster) = cluster(&sim).await else { return };
    // Small requests: many fit side by side, until the last of it.
    let key = key_of_team(&cluster, &["--budget", "4000/day"]);
    for number in 0..3 {
        let setup = cluster.setup_of(number).clone().set("TOLLWAY_LIMITS__MOST_OUTPUT", "60");
        cluster.set_setup(number, setup);
    }
    cluster.serve().await;
    let addresses = addresses(&cluster);
    let streams = (0..300).map(|number| {
        let ((http, url), key) = (addresses[number % 3].clone(), key.clone());
        tokio::spawn(async move { ask((&http, &url), &key, "hello [long 20]").await })
    });
    let streams: Vec<_> = streams.collect();
    eventually("some use", async || (written(&cluster).await.0 > 400).then_some(())).await;
    cluster.pause(1);
    cluster.kill(2);
    // Longer than its slices hold.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let (paused_used, _) = written(&cluster).await;
    cluster.resume(1);
    for stream in streams {
        if let Some((status, text)) = stream.await.expect("a task") {
            assert!(matches!(status, 200 | 429), "{status} {text}");
        }
    }
    // What is left is used up, wherever it is asked for.
    let gateway = cluster.gateway(1);
    while let Some((200, _)) = ask((&gateway.http, &gateway.url), &key, "hello").await {}
    // On a busy machine the last of what is over may be written after the budget is seen to be spent.
    let used = eventually("a spent budget, and all of it written", async || {
        let (tokens, _) = written(&cluster).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        (tokens >= 4000 && written(&cluster).await.0 == tokens).then_some(tokens)
    });
    let used = used.await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(written(&cluster).await.0, used, "nothing comes after that");
    assert!((4000..4200).contains(&used), "{used}, of it {paused_used} when one was resumed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_has_that_stands_still_while_it_asks_is_given_to_nobody() {
    let sim = Sim::with(&["--delta-delay", "40"]).await;
    let Some(mut cluster) = cluster(&sim).await else { return };
    let key = key_of_team(&cluster, &["--budget", "4000/day"]);
    for number in 0..3 {
        cluster.set(number, "TOLLWAY_LIMITS__MOST_OUTPUT", "3000");
        cluster.set(number, "TOLLWAY_LIMITS__LEASE", "1s");
    }
    cluster.serve().await;
    let addresses = addresses(&cluster);
    // Ten seconds with most of the budget.
    let stream = {
        let ((http, url), key) = (addresses[1].clone(), key.clone());
        tokio::spawn(async move { ask((&http, &url), &key, "hello [long 250]").await })
    };
    let in_flight = async || (sim.get("stats").await["in_flight"].as_u64() > Some(0)).then_some(());
    eventually("a stream", in_flight).await;
    // The replica is stopped where it has asked for the lock of an exchange, and gets it then.
    let mut own = PgConnection::connect(cluster.database_url()).await.expect("a connection");
    let mut held = own.begin().await.expect("a transaction");
    sqlx::query("SELECT 1 FROM limit_subjects FOR UPDATE").execute(&mut *held).await.expect("a lock");
    let mut watch = PgConnection::connect(cluster.database_url()).await.expect("a connection");
    let mut are = async |what: &'static str| {
        let (count,): (i64,) = sqlx::query_as(what).fetch_one(&mut watch).await.expect("a count");
        count > 0
    };
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    loop {
        eventually("an exchange that waits", async || are(waiting).await.then_some(())).await;
        cluster.pause(1);
        if are(waiting).await {
            break;
        }
        // It had just given up.
        cluster.resume(1);
    }
    held.commit().await.expect("an end");
    // Another asks for as much while nothing is heard of the first, and is there when it goes on.
    let other = {
        let ((http, url), key) = (addresses[0].clone(), key.clone());
        tokio::spawn(async move { ask((&http, &url), &key, "hello").await })
    };
    let leased = "SELECT COUNT(*) FROM replicas WHERE expires_at > EXTRACT(EPOCH FROM clock_timestamp()) * 1000";
    eventually("a lease that is over", async || (!are(leased).await).then_some(())).await;
    eventually("another that waits", async || are(waiting).await.then_some(())).await;
    cluster.resume(1);
    for answer in [stream, other] {
        let (status, text) = answer.await.expect("a task").expect("an answer");
        assert_eq!(status, 200, "{text}");
    }
    let most = sim.get("stats").await["max_in_flight"].as_u64();
    assert_eq!(most, Some(1), "there was room for one at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_places_are_ten_on_three_replicas_and_can_be_had_on_one() {
    let sim = Sim::with(&["--delta-delay", "10"]).await;
    let Some(mut cluster) = cluster(&sim).await else { return };
    let key = key_of_team(&cluster, &["--concurrency", "10"]);
    cluster.serve().await;
    let addresses = addresses(&cluster);
    let asked = (0..300).map(|number| {
        let (http, url) = &addresses[number % 3];
        ask((http, url.as_str()), &key, "hello [long 20]")
    });
    let answers: Vec<(u16, String)> = join_all(asked).await.into_iter().flatten().collect();
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!(served >= 10 && answers.iter().all(|(status, _)| matches!(status, 200 | 429)), "{served} served");
    let most = sim.get("stats").await["max_in_flight"].as_u64().expect("a count");
    assert!(most <= 10, "{most} at once");
    // All of them on one replica, while the others have nothing to do.
    let (http, url) = &addresses[0];
    let all = eventually("ten places on one replica", async || {
        let asked = (0..10).map(|_| ask((http, url.as_str()), &key, "hello [long 50]"));
        let answers = join_all(asked).await;
        answers.iter().all(|answer| matches!(answer, Some((200, _)))).then_some(())
    });
    all.await;
    assert!(sim.get("stats").await["max_in_flight"].as_u64() <= Some(10));
}

/// How many statements the database has been asked for, of transactions their begin and end too.
async fn statements(cluster: &Cluster) -> i64 {
    let mut connection = PgConnection::connect(cluster.database_url()).await.expect("a connection");
    let count = "SELECT CAST(SUM(calls) AS BIGINT) FROM pg_stat_statements
                 JOIN pg_database ON pg_database.oid = dbid WHERE datname = current_database()";
    let (calls,): (i64,) = sqlx::query_as(count).fetch_one(&mut connection).await.expect("a count");
    connection.close().await.expect("close");
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_asked_by_the_second_and_not_by_the_request() {
    let sim = Sim::start().await;
    let Some(mut cluster) = cluster(&sim).await else { return };
    let mut connection = PgConnection::connect(cluster.database_url()).await.expect("a connection");
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&mut connection).await.expect("the extension");
    connection.close().await.expect("close");
    let limits = ["--budget", "100M/day", "--rpm", "1000000", "--tpm", "1000000000", "--concurrency", "1000"];
    let key = key_of_team(&cluster, &limits);
    cluster.serve().await;
    let addresses = addresses(&cluster);
    let load = async |requests: usize| {
        let workers = (0..24).map(async |worker: usize| {
            let (http, url) = &addresses[worker % 3];
            for _ in 0..requests / 24 {
                // Not of the Responses API: kept responses are written one by one.
                let request = http.post(format!("{url}{}", Dialect::Chat.path())).bearer_auth(&key);
                let answer = request.json(&Dialect::Chat.ask("hello")).send().await.expect("an answer");
                assert_eq!(answer.status(), 200);
                answer.bytes().await.expect("a body");
            }
        });
        join_all(workers).await;
    };
    load(240).await;
    let (before, begun) = (statements(&cluster).await, Instant::now());
    load(4800).await;
    let seconds = begun.elapsed().as_secs_f64();
    let asked = statements(&cluster).await - before;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = asked as f64 / 4800.0;
    println!("{asked} statements for 4800 requests in {seconds:.1} s: {each:.3} a request");
    // By the time, not by the request: what is asked is the same for ten times as many, so that a slow
    // machine is judged by the second.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let a_second = asked as f64 / seconds / 3.0;
    println!("{a_second:.1} statements a second and replica");
    let mut connection = PgConnection::connect(cluster.database_url()).await.expect("a connection");
    let most = "SELECT calls, LEFT(REGEXP_REPLACE(query, '\\s+', ' ', 'g'), 60) FROM pg_stat_statements
                JOIN pg_database ON pg_database.oid = dbid WHERE datname = current_database()
                ORDER BY calls DESC LIMIT 8";
    let most: Vec<(i64, String)> = sqlx::query_as(most).fetch_all(&mut connection).await.expect("statements");
    for (calls, query) in most {
        println!("{calls:6} {query}");
    }
    assert!(each <= 0.1 || a_second <= 20.0, "{each:.3} a request, {a_second:.1} a second and replica");
}
