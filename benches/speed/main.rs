//! How much the gateway costs beside nginx, both in front of the same backend on the same core.
//!
//!     cargo bench --bench speed                 every scenario, three interleaved rounds
//!     cargo bench --bench speed -- burst held   only these; some are not done unless they are named:
//!                                               held-10k, secure, flood, heavy, growth, soak,
//!                                               ledger-full
//!     cargo bench --bench speed -- --write      also writes docs/performance.md
//!
//! `--rounds=3` are the rounds, `--soak-minutes=60` is how long `soak` takes, `--ledger-rows=10000000`
//! how much is in the ledger of `ledger-full`; its database takes 7 GB of the temporary directory. What
//! cannot be measured is told in the report, and the rest is measured all the same.
//!
//! CPU is that of the measured process, from /proc, so that it means something on a shared machine;
//! times of day need a quiet one. The kit and its backend run on the second core.

mod backend;
mod bare;
mod beside;
mod client;
mod contender;
#[path = "../ledger/fill.rs"]
#[expect(dead_code, reason = "the bench of reports asks for more of it")]
mod fill;
mod full;
mod h2;
mod held;
mod options;
mod replicas;
mod report;
#[path = "../ledger/server.rs"]
mod server;
mod soak;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use backend::Plan;
use client::{Dialect, Seen, load};
use contender::Contender;
use options::Options;

/// The bare program's is the gateway's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

/// All that was measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) runs: Runs,
    pub(crate) held: Vec<held::Held>,
    pub(crate) secure: Vec<(Scenario, Dialect, Run)>,
    pub(crate) beside: Vec<beside::Beside>,
    pub(crate) grown: Vec<beside::Grown>,
    pub(crate) ledgers: Vec<full::Ledger>,
    pub(crate) soaked: Option<soak::Soaked>,
    pub(crate) shared: Vec<replicas::Shared>,
    pub(crate) ready_after: Duration,
    /// What could not be measured and why, and what went wrong in what was.
    pub(crate) failed: Vec<(String, String)>,
}

impl Measured {
    /// What a scenario gave; where it gave nothing, that is noted, and the others go on.
    fn take<T>(&mut self, name: &str, given: Result<T>) -> Option<T> {
        given
            .inspect_err(|error| {
                eprintln!("{name} was not measured: {error:#}");
                self.failed.push((name.to_owned(), format!("not measured: {error:#}")));
            })
            .ok()
    }
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(address) = options.flood {
        return runtime.block_on(beside::send_flood(address));
    }
    if let Some(backend) = options.bare {
        return runtime.block_on(bare::serve(backend));
    }
    // The kit stays off the core that is measured.
    std::process::Command::new("taskset").args(["-apc", "1", &std::process::id().to_string()]).output()?;
    let _ = backend::now();
    let measured = runtime.block_on(measure(&options))?;
    let report = report::write(&measured)?;
    println!("{report}");
    if options.write {
        let page = "docs/performance.md";
        let before = std::fs::read_to_string(page).unwrap_or_default();
        std::fs::write(page, report::page(&report, &before)?).context(page)?;
    }
    ensure!(measured.failed.is_empty(), "not everything was measured, or something failed; the report says what");
    Ok(())
}

async fn measure(options: &Options) -> Result<Measured> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let (address, plan) = (listener.local_addr()?, Arc::new(Plan::default()));
    tokio::spawn(backend::serve(listener, plan.clone()));
    let nginx = tokio::task::spawn_blocking(move || Contender::nginx(address)).await??;
    let bare = tokio::task::spawn_blocking(move || Contender::bare(address)).await??;
    let tollway = tokio::task::spawn_blocking(move || Contender::tollway(address, 5, 5)).await??;
    let mut measured = Measured { ready_after: tollway.ready_after, ..Measured::default() };
    // First, for a heap that has been larger before has room for them.
    hold(options, [&nginx, &bare, &tollway], &plan, &mut measured).await;
    named(options, &tollway, address, &plan, &mut measured).await;
    let mut scenarios: Vec<_> = Scenario::ALL.into_iter().filter(|scenario| options.wants(scenario.name())).collect();
    for number in 0..options.rounds {
        for scenario in scenarios.clone() {
            eprintln!("round {}: {}", number + 1, scenario.words());
            let done = round(scenario, [&nginx, &bare, &tollway], &plan, &mut measured.runs).await;
            if measured.take(scenario.name(), done).is_none() {
                // Half a round has no ratios, and what failed once would take its time again.
                measured.runs.retain(|(of, _), _| *of != scenario);
                scenarios.retain(|other| *other != scenario);
            }
        }
    }
    if options.wants("replicas") {
        prepare(&plan, &Scenario::Burst.shape());
        let shared = replicas::measure(address).await;
        measured.shared = measured.take("replicas", shared).flatten().unwrap_or_default();
    }
    Ok(measured)
}

/// Streams that are held.
async fn hold(options: &Options, contenders: [&Contender; 3], plan: &Arc<Plan>, measured: &mut Measured) {
    if options.wants("held") {
        for contender in contenders {
            let held = held::hold(contender, 1000, plan).await;
            let held = measured.take(&format!("held, {}", contender.name), held);
            measured.held.extend(held);
        }
    }
    if options.names("held-10k") {
        for streams in [1000, 10_000] {
            let held = held::hold_secure(streams, plan).await;
            let held = measured.take(&format!("held-10k, {streams} streams"), held);
            measured.held.extend(held);
        }
    }
}

/// What is done only when it is named.
async fn named(options: &Options, tollway: &Contender, address: SocketAddr, plan: &Arc<Plan>, measured: &mut Measured) {
    if options.names("secure") {
        let secure = h2::measure(plan, options.rounds).await;
        measured.secure = measured.take("secure", secure).unwrap_or_default();
    }
    if options.names("flood") {
        let beside = beside::flood(tollway, plan).await;
        let beside = measured.take("flood", beside);
        measured.beside.extend(beside);
    }
    if options.names("heavy") {
        for dialect in Dialect::ALL {
            let beside = beside::heavy(tollway, plan, dialect).await;
            let beside = measured.take(&format!("heavy, {}", dialect.name()), beside);
            measured.beside.extend(beside);
        }
    }
    if options.names("growth") {
        let grown = beside::growth(address, plan).await;
        measured.grown = measured.take("growth", grown).unwrap_or_default();
    }
    if options.names("ledger-full") {
        let ledgers = full::measure(address, plan, options.ledger_rows, options.rounds).await;
        measured.ledgers = measured.take("ledger-full", ledgers).unwrap_or_default();
    }
    if options.names("soak") {
        let soaked = soak::measure(plan, options.soak_minutes).await;
        measured.soaked = measured.take("soak", soaked);
        if let Some(soaked) = measured.soaked.as_ref().filter(|soaked| soaked.failed > 0) {
            measured.failed.push(("soak".to_owned(), format!("{} requests failed", soaked.failed)));
        }
    }
}

/// Tells the backend what a scenario needs of it.
pub(crate) fn prepare(plan: &Plan, shape: &Shape) {
    plan.deltas.store(shape.deltas, Ordering::Relaxed);
    plan.pace.store(shape.pace, Ordering::Relaxed);
}

/// One round of a scenario, contenders in turn.
async fn round(scenario: Scenario, contenders: [&Contender; 3], plan: &Plan, runs: &mut Runs) -> Result<()> {
    let shape = scenario.shape();
    prepare(plan, &shape);
    let [nginx, bare, tollway] = contenders;
    // These two do not know what they carry, so their requests are those of the first dialect.
    for contender in [nginx, bare] {
        let run = run(contender, Dialect::Responses, &shape, true).await.context(contender.name)?;
        runs.entry((scenario, contender.name)).or_default().push(run);
    }
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
