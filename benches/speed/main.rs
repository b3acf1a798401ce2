//! How much the gateway costs beside nginx, both in front of the same backend on the same core.
//!
//!     cargo bench --bench speed                 every scenario, three interleaved rounds
//!     cargo bench --bench speed -- burst held   only these; some are not done unless they are named:
//!                                               held-10k, flood, heavy, growth
//!     cargo bench --bench speed -- --write      also writes docs/performance.md
//!
//! CPU is that of the measured process, from /proc, so that it means something on a shared machine;
//! times of day need a quiet one. The kit and its backend run on the second core.

mod backend;
mod beside;
mod client;
mod contender;
mod replicas;
mod report;
#[path = "../ledger/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use backend::Plan;
use client::{Connection, Dialect, Seen, load};
use contender::Contender;

/// What is done to a contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    One,
    Burst,
    Crowd,
    Long,
    Paced,
    Whole,
    Large,
    Short,
}

/// The numbers of a scenario.
struct Shape {
    clients: usize,
    requests: usize,
    deltas: u32,
    /// Microseconds between deltas.
    pace: u64,
    streamed: bool,
    /// Bytes.
    prompt: usize,
}

impl Scenario {
    pub(crate) const ALL: [Self; 8] =
        [Self::One, Self::Burst, Self::Crowd, Self::Long, Self::Short, Self::Paced, Self::Whole, Self::Large];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Burst => "burst",
            Self::Crowd => "crowd",
            Self::Long => "long",
            Self::Paced => "paced",
            Self::Whole => "whole",
            Self::Large => "large",
            Self::Short => "short",
        }
    }

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::One => "64 deltas in a burst, 1 client",
            Self::Burst => "64 deltas in a burst, 32 clients",
            Self::Crowd => "64 deltas in a burst, 256 clients",
            Self::Long => "512 deltas in a burst, 32 clients",
            Self::Paced => "64 deltas, one every 10 ms, 32 clients",
            Self::Whole => "not streamed, 32 clients",
            Self::Large => "a prompt of 200 KB, 32 clients",
            Self::Short => "2 deltas, 32 clients: what a request costs without its stream",
        }
    }

    fn shape(self) -> Shape {
        let usual = Shape { clients: 32, requests: 3000, deltas: 64, pace: 0, streamed: true, prompt: 200 };
        match self {
            Self::One => Shape { clients: 1, requests: 1500, ..usual },
            Self::Burst => usual,
            Self::Crowd => Shape { clients: 256, ..usual },
            Self::Long => Shape { deltas: 512, requests: 600, ..usual },
            Self::Paced => Shape { pace: 10_000, requests: 320, ..usual },
            Self::Whole => Shape { streamed: false, ..usual },
            Self::Large => Shape { prompt: 200_000, requests: 1000, ..usual },
            Self::Short => Shape { deltas: 2, ..usual },
        }
    }
}

/// One run of a scenario.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// CPU, nanoseconds a request.
    pub(crate) cpu: f64,
    /// CPU, nanoseconds a delta.
    pub(crate) cpu_delta: f64,
    /// To the first delta, nanoseconds: the median, and the 99th of a hundred.
    pub(crate) first: (u64, u64),
    /// From the head to the first delta, the median, nanoseconds.
    pub(crate) after_head: u64,
    /// A delta's way through, nanoseconds: the median, and the 99th of a hundred.
    pub(crate) transit: (u64, u64),
}

/// What is left when the runs are over: by scenario, by contender and dialect, each run.
pub(crate) type Runs = BTreeMap<(Scenario, &'static str), Vec<Run>>;

/// What a thousand streams hold.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) who: &'static str,
    pub(crate) streams: usize,
    pub(crate) idle_kib: u64,
    pub(crate) each_kib: f64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let wanted: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    let rounds = arguments.iter().find_map(|word| word.strip_prefix("--rounds=")?.parse().ok()).unwrap_or(3);
    if let Some(address) = arguments.iter().find_map(|word| word.strip_prefix("--flood=")) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(beside::send_flood(address.parse()?));
    }
    // The kit stays off the core that is measured.
    std::process::Command::new("taskset").args(["-apc", "1", &std::process::id().to_string()]).output()?;
    let _ = backend::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let (address, plan) = (listener.local_addr()?, Arc::new(Plan::default()));
        tokio::spawn(backend::serve(listener, plan.clone()));
        let nginx = tokio::task::spawn_blocking(move || Contender::nginx(address)).await??;
        let tollway = tokio::task::spawn_blocking(move || Contender::tollway(address, 5, 5)).await??;
        let is_wanted = |name: &str| wanted.is_empty() || wanted.contains(&name);
        // First, for a heap that has been larger before has room for them.
        let mut held = Vec::new();
        for (name, streams) in [("held", 1000), ("held-10k", 10_000)] {
            // Ten thousand take more ports and descriptors than many a machine has to spare.
            if is_wanted(name) && (streams == 1000 || wanted.contains(&name)) {
                for contender in [&nginx, &tollway] {
                    eprintln!("{streams} held streams: {}", contender.name);
                    match hold(contender, streams, &plan).await {
                        Ok(measured) => held.push(measured),
                        Err(error) => eprintln!("{name}, {}: {error:#}", contender.name),
                    }
                }
            }
        }
        let is_named = |name: &str| wanted.contains(&name);
        let mut beside = Vec::new();
        if is_named("flood") {
            beside.push(beside::flood(&tollway, &plan).await?);
        }
        if is_named("heavy") {
            for dialect in Dialect::ALL {
                beside.push(beside::heavy(&tollway, &plan, dialect).await?);
            }
        }
        let grown = if is_named("growth") { beside::growth(address, &plan).await? } else { Vec::new() };
        let mut runs = Runs::new();
        for round in 0..rounds {
            for scenario in Scenario::ALL.into_iter().filter(|scenario| is_wanted(scenario.name())) {
                eprintln!("round {}: {}", round + 1, scenario.words());
                measure(scenario, &nginx, &tollway, &plan, &mut runs).await?;
            }
        }
        plan.deltas.store(64, Ordering::Relaxed);
        plan.pace.store(0, Ordering::Relaxed);
        let shared = if is_wanted("replicas") { replicas::measure(address).await? } else { None };
        let report = report::write(&runs, &held, &beside, &grown, &shared.unwrap_or_default(), tollway.ready_after)?;
        println!("{report}");
        if arguments.iter().any(|word| word == "--write") {
            let page = "docs/performance.md";
            let before = std::fs::read_to_string(page).unwrap_or_default();
            std::fs::write(page, report::page(&report, &before)?).context(page)?;
        }
        Ok(())
    })
}

/// One round of a scenario, contenders in turn.
async fn measure(
    scenario: Scenario,
    nginx: &Contender,
    tollway: &Contender,
    plan: &Plan,
    runs: &mut Runs,
) -> Result<()> {
    let shape = scenario.shape();
    plan.deltas.store(shape.deltas, Ordering::Relaxed);
    plan.pace.store(shape.pace, Ordering::Relaxed);
    // nginx does not know what it carries, so its requests are those of the first dialect.
    let run = run(nginx, Dialect::Responses, &shape, true).await.context("nginx")?;
    runs.entry((scenario, "nginx")).or_default().push(run);
    for dialect in Dialect::ALL.into_iter().filter(|dialect| shape.streamed || *dialect != Dialect::Codex) {
        let run = run_dialect(tollway, dialect, &shape).await.with_context(|| dialect.name())?;
        runs.entry((scenario, dialect.name())).or_default().push(run);
    }
    Ok(())
}

async fn run_dialect(tollway: &Contender, dialect: Dialect, shape: &Shape) -> Result<Run> {
    run(tollway, dialect, shape, shape.streamed).await
}

async fn run(contender: &Contender, dialect: Dialect, shape: &Shape, streamed: bool) -> Result<Run> {
    let request = dialect.request(&contender.key, streamed, &"word ".repeat(shape.prompt / 5));
    let deltas = streamed.then_some(shape.deltas);
    // Connections, caches and the allocator settle first.
    load(contender.address, &request, dialect, deltas, shape.clients, shape.clients * 4).await?;
    let before = contender.cpu()?;
    let seen = load(contender.address, &request, dialect, deltas, shape.clients, shape.requests).await?;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
    let cpu = (contender.cpu()? - before) as f64;
    Ok(digest(&seen, cpu, shape))
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn digest(seen: &[Seen], cpu: f64, shape: &Shape) -> Run {
    let mut first: Vec<u64> = seen.iter().map(|seen| seen.first).collect();
    let mut after_head: Vec<u64> = seen.iter().map(|seen| seen.first.saturating_sub(seen.head)).collect();
    let mut transits: Vec<u64> = seen.iter().flat_map(|seen| seen.transits.iter().map(|ns| u64::from(*ns))).collect();
    Run {
        cpu: cpu / seen.len() as f64,
        cpu_delta: cpu / seen.len() as f64 / f64::from(shape.deltas),
        first: (quantile(&mut first, 50), quantile(&mut first, 99)),
        after_head: quantile(&mut after_head, 50),
        transit: (quantile(&mut transits, 50), quantile(&mut transits, 99)),
    }
}

fn quantile(values: &mut [u64], of_hundred: usize) -> u64 {
    values.sort_unstable();
    values.get((values.len() * of_hundred / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// Streams that stop in their middle: all must end well when they go on.
async fn hold(contender: &Contender, streams: usize, plan: &Arc<Plan>) -> Result<Held> {
    plan.deltas.store(64, Ordering::Relaxed);
    plan.pace.store(0, Ordering::Relaxed);
    plan.held.store(0, Ordering::Relaxed);
    let dialect = Dialect::Responses;
    let request = dialect.request(&contender.key, true, "hold");
    load(contender.address, &request, dialect, Some(64), 4, 16).await?;
    let idle = contender.resident()?;
    plan.held.store(1, Ordering::Relaxed);
    let address: SocketAddr = contender.address;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..streams {
        let request = request.clone();
        tasks.spawn(async move { Connection::open(address).await?.ask(&request, dialect, Some(64)).await });
        // A listener's queue is short.
        if number % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while plan.waiting.load(Ordering::Relaxed) < streams {
        if tokio::time::Instant::now() > deadline {
            bail!("{} of {streams} streams are held", plan.waiting.load(Ordering::Relaxed));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let resident = contender.resident()?;
    plan.held.store(0, Ordering::Relaxed);
    while plan.waiting.load(Ordering::Relaxed) > 0 {
        plan.go_on.notify_waiters();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    #[expect(clippy::cast_precision_loss, reason = "KiB")]
    let each_kib = resident.saturating_sub(idle) as f64 / streams as f64;
    Ok(Held { who: contender.name, streams, idle_kib: idle, each_kib })
}
