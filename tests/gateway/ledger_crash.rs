//! `kill -9` under load, again and again over one database: the ledger loses what its writer had not
//! written yet and what was under way, and nothing else; it never invents, and never counts twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tollway::store::UsageRow;

use crate::support::{Dialect, Gateway, Setup, Sim, eventually};

const ROUNDS: u32 = 50;

/// Clients that ask side by side.
const CLIENTS: usize = 4;

/// When a kill comes, after the first request.
const KILLS: std::ops::Range<f64> = 0.55..0.9;

/// How long a row may wait: the setting's default, and what the write itself takes in a debug build on
/// a busy machine.
const WINDOW: Duration = Duration::from_millis(250 + 250);

/// Rounds in which the disk may take longer than that: other tests and builds write to it too.
const STALLS: u32 = 2;

/// A response that its client has received to the last byte.
#[derive(Debug)]
struct Received {
    id: String,
    at: Instant,
    dialect: Dialect,
    /// Input and output tokens, where the answer told them.
    told: Option<(u64, u64)>,
}

/// What one run saw.
struct Run {
    /// When it began, Unix milliseconds.
    began: i64,
    received: Vec<Received>,
    /// Requests whose answer was not whole when the gateway went.
    under_way: u64,
    killed_at: Instant,
}

/// What the simulator has served.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Served {
    completed: u64,
    input: u64,
    output: u64,
}

struct Load {
    sim: Sim,
    setup: Setup,
    key: String,
    random: fastrand::Rng,
}

impl Load {
    async fn new() -> Self {
        let sim = Sim::start().await;
        let setup = Setup::new(&sim);
        for _ in 0..4 {
            setup.import(&sim.account(json!({})).await);
        }
        let key = setup.key("ada");
        Self { sim, setup, key, random: fastrand::Rng::with_seed(11) }
    }

    /// Asks with all clients until the gateway is gone, which is after `life`; `end` ends it.
    async fn run(&self, life: Duration, end: impl AsyncFnOnce(Gateway)) -> Run {
        let began = unix_millis();
        let gateway = self.setup.serve().await;
        let (over, under_way) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (http, url, key) = (gateway.http.clone(), gateway.url.clone(), self.key.clone());
                let (over, under_way) = (over.clone(), under_way.clone());
                tokio::spawn(async move {
                    let mut received = Vec::new();
                    for step in number.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        match ask(&http, &url, &key, step).await {
                            Ok(Some(answer)) => received.push(answer),
                            Ok(None) => {
                                assert!(
                                    over.load(Ordering::Relaxed),
                                    "nothing stands against a request before the end"
                                );
                                break;
                            }
                            Err(_) => {
                                under_way.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                        }
                    }
                    received
                })
            })
            .collect();
        // No event marks the moment: that it is any moment is the point.
        tokio::time::sleep(life).await;
        over.store(true, Ordering::Relaxed);
        let killed_at = Instant::now();
        end(gateway).await;
        let mut received = Vec::new();
        for client in clients {
            received.extend(client.await.expect("a client ends with its gateway"));
        }
        Run { began, received, under_way: under_way.load(Ordering::Relaxed), killed_at }
    }

    async fn run_and_kill(&mut self) -> Run {
        let life = Duration::from_secs_f64(KILLS.start + (KILLS.end - KILLS.start) * self.random.f64());
        self.run(life, async |gateway| drop(gateway.kill())).await
    }

    /// The simulator's count, once nothing is under way.
    async fn served(&self) -> Served {
        let totals = eventually("a quiet simulator", async || {
            let stats = self.sim.get("stats").await;
            (stats["in_flight"] == 0).then(|| stats["totals"].clone())
        })
        .await;
        let count = |pointer: &str| totals.pointer(pointer).and_then(Value::as_u64).expect("a count");
        Served { completed: count("/completed"), input: count("/tokens/input"), output: count("/tokens/output") }
    }
}

/// One request, in each of the ways by turns; an error when the answer did not come whole, and `None` when
/// it came to a gateway that is about to end.
async fn ask(http: &reqwest::Client, url: &str, key: &str, step: usize) -> reqwest::Result<Option<Received>> {
    let dialect = Dialect::ALL[step % 3];
    let streams = step.is_multiple_of(2);
    let body = if streams { dialect.ask_streamed("hello") } else { dialect.ask("hello") };
    let answer = http.post(format!("{url}{}", dialect.path())).bearer_auth(key).json(&body).send().await?;
    let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
    if answer.status() == 503 {
        return Ok(None);
    }
    assert_eq!(answer.status(), 200, "nothing stands against a request here");
    let text = answer.text().await?;
    let at = Instant::now();
    let told = (!streams).then(|| dialect.usage(&serde_json::from_str(&text).expect("JSON")));
    Ok(Some(Received { id, at, dialect, told }))
}

/// What a run left in the ledger is what it must be.
fn holds(run: &Run, rows: &[UsageRow], before: Served, after: Served) -> (u64, Duration) {
    let by_id: HashMap<&str, &UsageRow> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    assert_eq!(by_id.len(), rows.len(), "no request twice");
    let mut oldest = Duration::ZERO;
    let mut late = 0;
    for received in &run.received {
        let age = run.killed_at.saturating_duration_since(received.at);
        let row = by_id.get(received.id.as_str());
        late += u64::from(age <= WINDOW || row.is_none());
        let Some(row) = row else {
            oldest = oldest.max(age);
            continue;
        };
        assert_eq!((row.outcome.as_str(), row.estimated), ("ok", false), "{row:?}");
        if let Some(told) = received.told {
            // In Messages input is what was not cached.
            let cached = if received.dialect == Dialect::Messages { row.used.cached } else { 0 };
            assert_eq!((row.used.input - cached, row.used.output), told, "{:?}: {row:?}", received.dialect);
        }
    }
    let served = after.completed - before.completed;
    let rows_in_all = rows.len() as u64;
    let missing = served.checked_sub(rows_in_all);
    let missing = missing.unwrap_or_else(|| panic!("{rows_in_all} rows, {served} served"));
    assert!(missing <= late + run.under_way, "{missing} of {served} are missing; {late} late, {} open", run.under_way);
    let used = rows.iter().fold((0, 0), |sum, row| (sum.0 + row.used.input, sum.1 + row.used.output));
    assert!(used.0 <= after.input - before.input && used.1 <= after.output - before.output, "{used:?}, {after:?}");
    (missing, oldest)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_cost_the_last_flush_interval_each_and_nothing_is_counted_twice() {
    let mut load = Load::new().await;
    let (mut ids, mut missing, mut oldest) = (HashSet::new(), 0, Duration::ZERO);
    let (mut sharp, mut stalls) = (0, 0);
    let mut before = load.served().await;
    for _ in 0..ROUNDS {
        let run = load.run_and_kill().await;
        let (after, rows) = (load.served().await, load.setup.usage_rows(run.began).await);
        let (lost, age) = holds(&run, &rows, before, after);
        stalls += u32::from(age > WINDOW);
        sharp += run.received.iter().filter(|one| run.killed_at.saturating_duration_since(one.at) > WINDOW).count();
        (missing, oldest) = (missing + lost, oldest.max(age));
        assert!(rows.into_iter().all(|row| ids.insert(row.id)), "no request twice");
        before = after;
    }
    println!(
        "{ROUNDS} kills: {} served, {sharp} of them longer than {WINDOW:?} before a kill but for {stalls} stalls all with a row; \
         {missing} without one, of which the oldest was over {oldest:?} before its kill",
        before.completed
    );
    assert!(
        stalls <= STALLS,
        "in {stalls} rounds a row was missing of a request that was over for longer than {WINDOW:?}"
    );
    assert!(missing > 0 && sharp > 0, "kills that cost nothing, or all, prove nothing");

    // An operator's stop costs nothing, and what was lost does not come back.
    let run = load.run(Duration::from_millis(300), async |gateway| drop(gateway.stop().await)).await;
    let (after, rows) = (load.served().await, load.setup.usage_rows(run.began).await);
    assert_eq!(
        (rows.len() as u64, run.under_way),
        (after.completed - before.completed, 0),
        "every request has its row"
    );
    let all = load.setup.usage_rows(0).await;
    assert_eq!(all.len() as u64, after.completed - missing);

    // Sums were written with their rows, or not at all.
    let report = load.setup.ok(&["usage", "--since", "1d", "--by", "hour", "--format", "json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let sum = |field: &str| -> u64 {
        let rows = report["rows"].as_array().expect("rows");
        rows.iter().map(|row| row[field].as_u64().expect("a number")).sum()
    };
    let used = all.iter().fold((0, 0), |sum, row| (sum.0 + row.used.input, sum.1 + row.used.output));
    assert_eq!((sum("requests"), (sum("input_tokens"), sum("output_tokens"))), (all.len() as u64, used));
}

fn unix_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("a time of this age")
}
