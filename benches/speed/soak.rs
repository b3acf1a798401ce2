//! Mixed work at a constant rate for long: whether every answer stays right, and whether memory stays
//! where it was. Only when asked for by name (`soak`).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::backend::Plan;
use crate::client::{Connection, Dialect};
use crate::contender::Contender;
use crate::h2::{SLOWLY, Secure};

/// Requests a second: few enough that other work beside it does no harm.
const RATE: u64 = 100;
const DELTAS: u32 = 64;
/// Seconds between two looks at memory.
const SAMPLE: u64 = 10;
/// Requests of a conversation; its prompts are alike.
const TURNS: u64 = 16;
/// A connection that has waited longer is not used again, as in clients' pools: it may be closed at the other end,
/// `server.idle_timeout` after its last request.
const FRESH: Duration = Duration::from_mins(1);
/// After which an answer is taken for lost.
const PATIENCE: Duration = Duration::from_mins(1);
/// More would only be repetitions.
const TOLD: u64 = 20;

/// What came of it; memory in KiB.
#[derive(Debug, Clone)]
pub(crate) struct Soaked {
    pub(crate) minutes: u64,
    pub(crate) requests: u64,
    /// Of them, those whose client went away in the middle.
    pub(crate) left: u64,
    pub(crate) failed: u64,
    /// After how many seconds the first look is reported: five minutes, or a quarter of less than twenty.
    pub(crate) early_after: u64,
    pub(crate) early: u64,
    pub(crate) half: u64,
    pub(crate) end: u64,
    pub(crate) largest: u64,
}

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Burst,
    Paced,
    Whole,
    Large,
    /// The client goes away after the first delta of a slow answer.
    Leaves,
}

/// What the request of a number is: of a hundred in a row every dialect has 25, in the same shares.
fn nature(number: u64) -> (Dialect, Kind) {
    let dialect = match number % 4 {
        0 => Dialect::Responses,
        1 => Dialect::Codex,
        2 => Dialect::Chat,
        _ => Dialect::Messages,
    };
    let kind = match number / 4 % 25 {
        // The Codex backend itself has no answers but streams.
        15..20 if dialect != Dialect::Codex => Kind::Whole,
        10..15 => Kind::Paced,
        23 => Kind::Large,
        24 => Kind::Leaves,
        _ => Kind::Burst,
    };
    (dialect, kind)
}

/// Those who ask, and how it went.
struct Clients {
    address: SocketAddr,
    key: String,
    /// Kept connections that nobody uses at the moment, and since when; those used last come last.
    idle: Mutex<Vec<(Connection, Instant)>>,
    left: AtomicU64,
    failed: AtomicU64,
}

impl Clients {
    async fn one(self: Arc<Self>, number: u64) {
        let (dialect, kind) = nature(number);
        let asked = tokio::time::timeout(PATIENCE, self.ask(number, dialect, kind)).await;
        let error = match asked {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no end within a minute".to_owned(),
        };
        if self.failed.fetch_add(1, Ordering::Relaxed) < TOLD {
            eprintln!("request {number}, {}, {kind:?}: {error}", dialect.name());
        }
    }

    async fn ask(&self, number: u64, dialect: Dialect, kind: Kind) -> std::io::Result<()> {
        let begin = match kind {
            Kind::Paced | Kind::Leaves => SLOWLY,
            Kind::Burst | Kind::Whole | Kind::Large => "hello",
        };
        let filler = if kind == Kind::Large { "word ".repeat(40_000) } else { String::new() };
        // Conversations come and go, and with them what is remembered of each.
        let prompt = format!("{begin} {} {filler}", number / TURNS);
        let request = dialect.request(&self.key, kind != Kind::Whole, &prompt);
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some((connection, since)) if since.elapsed() < FRESH => connection,
            _ => Connection::open(self.address).await?,
        };
        if kind == Kind::Leaves {
            connection.leave(&request, dialect).await?;
            self.left.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        connection.ask(&request, dialect, (kind != Kind::Whole).then_some(DELTAS)).await?;
        self.idle().push((connection, Instant::now()));
        Ok(())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Through a gateway of its own, over HTTP/2 as in production.
pub(crate) async fn measure(plan: &Arc<Plan>, minutes: u64) -> Result<Soaked> {
    let backend = Secure::start(plan).await?;
    let gateway = backend.gateway().await?;
    plan.deltas.store(DELTAS, Ordering::Relaxed);
    plan.pace.store(0, Ordering::Relaxed);
    let clients = Arc::new(Clients {
        address: gateway.address,
        key: gateway.key.clone(),
        idle: Mutex::default(),
        left: AtomicU64::default(),
        failed: AtomicU64::default(),
    });
    let seconds = minutes * 60;
    let mut samples = soak(&gateway, &clients, seconds).await?;
    samples.push(gateway.resident()?);
    let early_after = (seconds / 4).min(300);
    let at = |second: u64| samples.get(usize::try_from(second / SAMPLE).ok()?).copied();
    Ok(Soaked {
        minutes,
        requests: seconds * RATE,
        left: clients.left.load(Ordering::Relaxed),
        failed: clients.failed.load(Ordering::Relaxed),
        early_after,
        early: at(early_after).context("no sample")?,
        half: at(seconds / 2).context("no sample")?,
        end: samples.last().copied().context("no sample")?,
        largest: samples.iter().copied().max().context("no sample")?,
    })
}

/// Asks until the time is over and all have ended; gives a sample of memory for every ten seconds.
async fn soak(gateway: &Contender, clients: &Arc<Clients>, seconds: u64) -> Result<Vec<u64>> {
    let mut samples = Vec::new();
    let mut asked = JoinSet::new();
    // Ticks that were missed are made up for: the number of requests tells the time.
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    for number in 0..seconds * RATE {
        ticks.tick().await;
        asked.spawn(clients.clone().one(number));
        while let Some(ended) = asked.try_join_next() {
            ended?;
        }
        if number % (RATE * SAMPLE) == 0 {
            samples.push(gateway.resident()?);
        }
        if number > 0 && number % (RATE * 60) == 0 {
            let failed = clients.failed.load(Ordering::Relaxed);
            let mib = samples.last().copied().unwrap_or_default() / 1024;
            let minute = number / (RATE * 60);
            eprintln!("minute {minute}: {number} requests, {} under way, {failed} failed, {mib} MiB", asked.len());
        }
    }
    while let Some(ended) = asked.join_next().await {
        ended?;
    }
    Ok(samples)
}
