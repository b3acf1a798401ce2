//! The ledger's proof: after all that can befall a request, the rows, the reports, the metrics and
//! the backend's own count say the same, to the token. What a `kill -9` costs is in `ledger_crash`.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tollway::store::{Dimension, UsageRow, Used};

use crate::support::{Dialect, Gateway, Setup, Sim, events, eventually};

/// Requests under way at one time.
const AT_ONCE: usize = 12;

/// Tokens as they are compared: input, cached, output, reasoning.
type Tokens = [u64; 4];

/// Who asks, and how they behave.
#[derive(Debug, Clone, Copy)]
enum Client {
    /// Takes the whole answer.
    Patient { streams: bool },
    /// Hangs up when the answer has begun.
    Leaving,
    /// Asks for an end at a word that comes early.
    Stopping { streams: bool },
}

/// What became of requests, as their clients saw it.
#[derive(Debug, Default)]
struct Seen {
    /// Answers that ended as good ones do, whose whole length was asked for.
    good: u64,
    /// Requests in all.
    sent: u64,
}

struct Proof {
    sim: Sim,
    gateway: Gateway,
    key: String,
}

impl Proof {
    async fn new() -> Self {
        // Slow enough that a client that leaves at the first word leaves before the backend's last one.
        let sim = Sim::with(&["--delta-delay", "2"]).await;
        let setup = Setup::new(&sim)
            .set("TOLLWAY_BACKEND__FIRST_BYTE_TIMEOUT", "2s")
            .set("TOLLWAY_POOL__POLL_INTERVAL", "0s")
            .set("TOLLWAY_LIMITS__PATIENCE", "0s");
        for _ in 0..24 {
            setup.import(&sim.account(json!({})).await);
        }
        let key = setup.key("ada");
        Self { gateway: setup.serve().await, sim, key }
    }

    /// Everything that the backend does instead of answering, spread over the requests to come.
    async fn order_faults(&self) {
        let failed = |code: &str, at: &str| json!({"kind": "failed_event", "code": code, "at": at});
        let faults = [
            (2, json!({"kind": "usage_limit"})),
            (2, failed("usage_limit_reached", "before_text")),
            (2, json!({"kind": "rate_limit", "retry_after": 600})),
            (3, json!({"kind": "overloaded"})),
            (4, json!({"kind": "server_error"})),
            (2, failed("server_is_overloaded", "before_text")),
            (3, failed("server_error", "after_text")),
            (3, json!({"kind": "disconnect"})),
            (2, json!({"kind": "unauthorized"})),
            (1, json!({"kind": "stall"})),
            (3, failed("context_length_exceeded", "before_text")),
            (2, json!({"kind": "status", "status": 400, "body": {"detail": "Unsupported parameter: user"}})),
            (3, json!({"kind": "cut", "after_events": 2})),
            (6, json!({"kind": "cut", "after_events": 7})),
            (3, json!({"kind": "cut", "after_events": 7, "clean": true})),
        ];
        let mut after = 0;
        for round in 0..6 {
            for (times, fault) in &faults {
                if round < *times {
                    after += 5;
                    let mut fault = fault.clone();
                    fault["after"] = json!(after);
                    self.sim.fault(fault).await;
                }
            }
        }
    }

    /// One request; whether its answer was good and whole.
    async fn ask(&self, number: usize, dialect: Dialect, client: Client) -> bool {
        let length = if matches!(client, Client::Patient { .. }) { 6 } else { 1500 };
        // Some again, so that there is something in the cache; some with reasoning.
        let reasons = if number.is_multiple_of(4) { "[reason]" } else { "" };
        let mut body = dialect.ask(&format!("[long {length}] {reasons} number {}", number % 60));
        if let Client::Stopping { .. } = client {
            let field = if dialect == Dialect::Messages { "stop_sequences" } else { "stop" };
            body[field] = json!(["word7 "]);
        }
        let streams = !matches!(client, Client::Patient { streams: false } | Client::Stopping { streams: false });
        body["stream"] = json!(streams);
        let mut answer = self.gateway.send(&self.key, dialect, &body).await;
        if let Client::Leaving = client {
            let _ = answer.chunk().await;
            return false;
        }
        let is_good = answer.status() == 200;
        // A stream that was cut is read as far as it came.
        let text = answer.text().await.unwrap_or_default();
        let is_whole = is_good && (!streams || dialect.ended_well(&events(&text)));
        is_whole && matches!(client, Client::Patient { .. })
    }

    /// Many requests side by side, of every kind.
    async fn mixed_load(&self) -> Seen {
        let kinds = [
            Client::Patient { streams: true },
            Client::Patient { streams: false },
            Client::Patient { streams: true },
            Client::Patient { streams: false },
            Client::Leaving,
            Client::Stopping { streams: true },
            Client::Stopping { streams: false },
        ];
        let mut asked = Vec::new();
        for _ in 0..12 {
            for dialect in Dialect::ALL {
                for client in kinds {
                    // The Responses API has no stop sequences.
                    if dialect != Dialect::Responses || !matches!(client, Client::Stopping { .. }) {
                        asked.push((dialect, client));
                    }
                }
            }
        }
        let sent = asked.len() as u64;
        let asking = asked.into_iter().enumerate().map(|(n, (dialect, client))| self.ask(n, dialect, client));
        let good = futures_util::stream::iter(asking).buffer_unordered(AT_ONCE).filter(|good| {
            let good = *good;
            async move { good }
        });
        Seen { good: good.count().await as u64, sent }
    }

    /// Clients that hang up before the answer has begun.
    async fn leave_early(&self, times: u64) -> Seen {
        for number in 0..times {
            self.sim.fault(json!({"kind": "hold"})).await;
            let asking = tokio::spawn({
                let request = self.gateway.http.post(format!("{}{}", self.gateway.url, Dialect::Chat.path()));
                request.bearer_auth(&self.key).json(&Dialect::Chat.ask(&format!("too slow {number}"))).send()
            });
            self.sim.held("responses", 1).await;
            asking.abort();
            eventually("the backend's notice", async || {
                (self.sim.get("stats").await["waiting"]["responses"] == 0).then_some(())
            })
            .await;
            self.sim.release("responses").await;
        }
        Seen { good: 0, sent: times }
    }

    /// Requests that the gateway itself refuses.
    async fn be_refused(&self) -> Seen {
        let setup = &self.gateway.setup;
        let hurried = setup.key_with(&["--name", "hurried", "--rpm", "2"]);
        let barred = setup.key_with(&["--name", "barred", "--models", "gpt-nothing*"]);
        let ask = async |key: &str, dialect: Dialect| {
            self.gateway.send(key, dialect, &dialect.ask_streamed("once more")).await.bytes().await.expect("a body");
        };
        for key in [&hurried, &barred] {
            eventually("a key that is known", async || {
                let answer = self.gateway.get(key, "/v1/me", &[]).await;
                answer.status().is_success().then_some(())
            })
            .await;
            for dialect in Dialect::ALL.into_iter().cycle().take(5) {
                ask(key, dialect).await;
            }
        }
        // Nobody's request: it has no row.
        ask("tw-not-a-key", Dialect::Chat).await;
        Seen { good: 2, sent: 10 }
    }

    /// All rows, once all of them are written.
    async fn rows(&self, sent: u64) -> Vec<UsageRow> {
        eventually("a row for each request", async || {
            let rows = self.gateway.setup.usage_rows(0).await;
            (rows.len() as u64 >= sent).then_some(rows)
        })
        .await
    }

    /// The backend's own count.
    async fn served(&self) -> Value {
        eventually("a quiet backend", async || {
            let stats = self.sim.get("stats").await;
            (stats["in_flight"] == 0).then(|| stats["totals"].clone())
        })
        .await
    }

    async fn metric(&self, source: &str) -> Tokens {
        let (_, page) = self.gateway.ops_page("/metrics").await;
        let source = format!("source=\"{source}\"");
        ["input", "cached", "output", "reasoning"].map(|kind| {
            let kind = format!("kind=\"{kind}\"");
            let is_of_it = |line: &&str| {
                line.starts_with("tollway_tokens_total{") && line.contains(&kind) && line.contains(&source)
            };
            let number = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
            page.lines().filter(is_of_it).filter_map(number).sum()
        })
    }
}

fn tokens(used: Used) -> Tokens {
    [used.input, used.cached, used.output, used.reasoning]
}

fn sum<'a>(rows: impl Iterator<Item = &'a UsageRow>) -> Tokens {
    rows.fold([0; 4], |sum, row| {
        let more = tokens(row.used);
        [0, 1, 2, 3].map(|kind| sum[kind] + more[kind])
    })
}

/// What a report says in all: requests, failed ones, estimated ones, tokens.
fn reported(report: &str) -> ([u64; 3], Tokens) {
    let report: Value = serde_json::from_str(report).expect("JSON");
    let rows = report["rows"].as_array().expect("rows");
    let sum = |field: &str| rows.iter().map(|row| row[field].as_u64().expect("a number")).sum::<u64>();
    (
        ["requests", "failed", "estimated_requests"].map(sum),
        ["input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"].map(sum),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_reports_metrics_and_the_backend_agree_to_the_token_after_every_fault() {
    let proof = Proof::new().await;
    proof.order_faults().await;
    let seen = [proof.mixed_load().await, proof.leave_early(3).await, proof.be_refused().await];
    let (good, sent) = seen.iter().fold((0, 0), |(good, sent), seen| (good + seen.good, sent + seen.sent));
    let (rows, served) = (proof.rows(sent).await, proof.served().await);
    assert_eq!(rows.len() as u64, sent, "one row a request");

    // What the backend has counted: rows, metrics and its own count are the same.
    let (estimated, counted): (Vec<&UsageRow>, Vec<&UsageRow>) = rows.iter().partition(|row| row.estimated);
    let theirs =
        ["input", "cached", "output", "reasoning"].map(|kind| served["tokens"][kind].as_u64().expect("a count"));
    let ours = sum(counted.iter().copied());
    println!(
        "{} requests, {} calls of the backend, {} answered in full; {ours:?} tokens reported; {} rows estimated",
        rows.len(),
        served["responses"],
        served["completed"],
        estimated.len(),
    );
    assert_eq!(ours, theirs, "the rows and the backend");
    assert!(ours.iter().all(|tokens| *tokens > 0), "there is something of each kind: {ours:?}");
    assert_eq!(proof.metric("reported").await, theirs, "the metrics and the backend");
    let complete = counted.iter().filter(|row| row.outcome == "ok").count() as u64;
    assert_eq!((complete, served["completed"].as_u64()), (good, Some(good)), "good answers");
    for row in counted.iter().filter(|row| row.outcome != "ok") {
        assert_eq!(row.used, Used::default(), "the backend has counted nothing for it: {row:?}");
    }

    // What it has not: marked, counted, and on top.
    assert_eq!(proof.metric("estimated").await, sum(estimated.iter().copied()));
    for outcome in ["cut", "client_gone", "ok"] {
        assert!(estimated.iter().any(|row| row.outcome == outcome), "no estimate that ended {outcome}");
    }
    assert!(estimated.iter().all(|row| row.used.input > 0 && row.used.cached == 0), "{estimated:?}");
    let failed = rows.iter().filter(|row| row.outcome != "ok").count() as u64;
    let all = ([sent, failed, estimated.len() as u64], sum(rows.iter()));
    for by in Dimension::ALL {
        let report = proof.gateway.setup.ok(&["usage", "--since", "1d", "--format", "json", "--by", by.as_str()]);
        assert_eq!(reported(&report), all, "by {}", by.as_str());
    }

    // Each call of the backend is on the books once.
    let attempts = proof.gateway.setup.usage_attempts(&rows).await;
    assert_eq!(served["responses"].as_u64(), Some(attempts.len() as u64), "calls of the backend");
    let of_attempts = attempts.iter().fold([0; 2], |sum, one| [sum[0] + one.used.input, sum[1] + one.used.output]);
    assert_eq!(of_attempts, [all.1[0], all.1[2]], "rows are the sums of their calls");
    assert!(attempts.len() > rows.len(), "there were failovers");
    for status in [200, 400, 403, 429, 499] {
        assert!(rows.iter().any(|row| row.status == status), "no request ended with {status}");
    }
    proof.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_rows_is_told_and_costs_none() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_LEDGER__BUFFER", "4");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    let lock = gateway.setup.lock_database().await;
    for _ in 0..4 {
        assert_eq!(gateway.status(&key).await, 200, "{}", gateway.log());
    }
    let (status, page) = gateway.ops_page("/readyz").await;
    assert!(status == 503 && page.contains("the ledger is not written: 4 rows wait, there is no room"), "{page}");
    let page = eventually("a write that failed", async || {
        let (_, page) = gateway.ops_page("/metrics").await;
        (!page.contains("tollway_ledger_write_failures_total 0")).then_some(page)
    })
    .await;
    assert!(page.contains("tollway_ledger_pending_rows 4"), "{page}");
    let age = page.lines().find_map(|line| line.strip_prefix("tollway_ledger_oldest_pending_seconds "));
    assert!(age.and_then(|age| age.parse::<f64>().ok()) > Some(1.0), "{page}");
    // A request has to wait now; it is served when there is room again.
    let (waiting, ()) = tokio::join!(gateway.status(&key), async {
        eventually("a request that waits", async || {
            let (_, page) = gateway.ops_page("/metrics").await;
            page.contains("tollway_in_flight_requests 1").then_some(())
        })
        .await;
        lock.release().await;
    });
    assert_eq!(waiting, 200);
    eventually("a written ledger", async || {
        let (_, page) = gateway.ops_page("/metrics").await;
        page.contains("tollway_ledger_pending_rows 0").then_some(())
    })
    .await;
    assert_eq!(gateway.ops_page("/readyz").await.0, 200);
    assert_eq!(gateway.setup.usage_rows(0).await.len(), 5);
}
