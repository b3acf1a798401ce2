//! Streams that stop in their middle, and what each of them holds: all must end well when they go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::backend::Plan;
use crate::client::{Connection, Dialect, Seen, load};
use crate::contender::Contender;
use crate::h2::Secure;

const DIALECT: Dialect = Dialect::Responses;
const DELTAS: u32 = 64;
/// Until all are held, and until all have ended.
const PATIENCE: Duration = Duration::from_mins(3);

/// What so many streams hold.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) who: &'static str,
    pub(crate) streams: usize,
    /// Before its first request.
    pub(crate) fresh_kib: u64,
    /// After the first sixteen.
    pub(crate) idle_kib: u64,
    pub(crate) each_kib: f64,
}

type Asked = JoinSet<std::io::Result<Seen>>;

/// So many streams over HTTP/2, through a gateway that has done nothing else. Ten thousand take ten
/// thousand descriptors of the kit and of the gateway; over HTTP/1.1 each would need twice as many.
pub(crate) async fn hold_secure(streams: usize, plan: &Arc<Plan>) -> Result<Held> {
    let backend = Secure::start(plan).await?;
    hold(&backend.gateway().await?, streams, plan).await
}

pub(crate) async fn hold(contender: &Contender, streams: usize, plan: &Plan) -> Result<Held> {
    eprintln!("{streams} held streams: {}", contender.name);
    plan.deltas.store(DELTAS, Ordering::Relaxed);
    plan.pace.store(0, Ordering::Relaxed);
    let request = DIALECT.request(&contender.key, true, "hold");
    let fresh_kib = contender.resident()?;
    load(contender.address, &request, DIALECT, Some(DELTAS), 4, 16).await?;
    let idle = contender.resident()?;
    plan.held.store(1, Ordering::Relaxed);
    let mut asked = ask(contender, streams, &request).await;
    let resident = match all_wait(&mut asked, streams, plan).await {
        Ok(()) => contender.resident(),
        Err(error) => Err(error),
    };
    // Also when some never came: those that did would wait in the scenarios after this.
    plan.held.store(0, Ordering::Relaxed);
    while plan.waiting.load(Ordering::Relaxed) > 0 {
        plan.go_on.notify_waiters();
        sleep(Duration::from_millis(20)).await;
    }
    let resident = resident?;
    intact(asked, streams).await?;
    #[expect(clippy::cast_precision_loss, reason = "KiB")]
    let each_kib = resident.saturating_sub(idle) as f64 / streams as f64;
    Ok(Held { who: contender.name, streams, fresh_kib, idle_kib: idle, each_kib })
}

async fn ask(contender: &Contender, streams: usize, request: &[u8]) -> Asked {
    let address = contender.address;
    let request: Arc<[u8]> = request.into();
    let mut asked = Asked::new();
    for number in 0..streams {
        let request = request.clone();
        asked.spawn(async move { Connection::open(address).await?.ask(&request, DIALECT, Some(DELTAS)).await });
        // A listener's queue is short.
        if number % 64 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    asked
}

/// Waits until every stream is in its middle, and a moment more.
async fn all_wait(asked: &mut Asked, streams: usize, plan: &Plan) -> Result<()> {
    let waiting = || plan.waiting.load(Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    while waiting() < streams {
        if let Some(ended) = asked.try_join_next() {
            let seen = ended?.with_context(|| format!("a stream failed when {} of {streams} were held", waiting()))?;
            bail!("a stream was not held, but ended with {} deltas", seen.deltas);
        }
        ensure!(Instant::now() < deadline, "{} of {streams} streams are held", waiting());
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_millis(500)).await;
    Ok(())
}

/// Waits for every end, and takes only good ones.
async fn intact(mut asked: Asked, streams: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let (mut damaged, mut first) = (0, None);
    while !asked.is_empty() {
        let left = asked.len();
        let ended = timeout_at(deadline, asked.join_next()).await;
        match ended.with_context(|| format!("{left} of {streams} streams have not ended"))? {
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(Err(error))) => {
                damaged += 1;
                first.get_or_insert(error);
            }
            Some(Ok(Ok(_))) | None => {}
        }
    }
    match first {
        Some(first) => Err(first).with_context(|| format!("{damaged} of {streams} streams were damaged; the first")),
        None => Ok(()),
    }
}
