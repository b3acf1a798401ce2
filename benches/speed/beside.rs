//! What trouble beside them costs streams that pay, and what a request costs where there is more of
//! everything: only when asked for by name (`flood`, `heavy`, `growth`).

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;

use crate::backend::Plan;
use crate::client::{Connection, Dialect, load};
use crate::contender::{Contender, Installation};
use crate::{Scenario, quantile, run};

/// Streams that must not notice, each of 64 deltas 10 ms apart, and how many each client asks for.
const STREAMS: usize = 4;
const EACH: usize = 12;
/// How long that takes, and a little more.
const WHILE: Duration = Duration::from_secs(9);
/// Connections on which unknown keys come.
const FLOOD: usize = 16;
/// The text of about 100,000 tokens.
const HEAVY: usize = 400_000;
const HEAVY_EVERY: Duration = Duration::from_millis(250);
/// So many that the last of them end before the streams do.
const HEAVIES: usize = 32;

/// What became of a delta's way through: the 99th of a hundred and the longest, nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Beside {
    pub(crate) what: String,
    pub(crate) alone: (u64, u64),
    pub(crate) then: (u64, u64),
    /// What else is worth knowing.
    pub(crate) note: String,
}

/// What a request costs among so many.
#[derive(Debug, Clone)]
pub(crate) struct Grown {
    pub(crate) accounts: usize,
    pub(crate) keys: usize,
    /// CPU, nanoseconds a request.
    pub(crate) cpu: f64,
}

/// Unknown keys as fast as the second core can send them.
pub(crate) async fn flood(gateway: &Contender, plan: &Plan) -> Result<Beside> {
    let alone = paced(gateway, plan).await?;
    let asked = gateway.database_asked()?;
    let flood = start_flood(gateway.address)?;
    let then = paced(gateway, plan).await?;
    let refused = end_flood(flood)?;
    let asked = gateway.database_asked()? - asked;
    let seconds = WHILE.as_secs();
    let note = format!("{} keys a second were refused; the database was asked {asked} times", refused / seconds);
    Ok(Beside { what: format!("unknown keys on {FLOOD} connections"), alone, then, note })
}

/// One long prompt after another.
pub(crate) async fn heavy(gateway: &Contender, plan: &Plan, dialect: Dialect) -> Result<Beside> {
    let alone = paced(gateway, plan).await?;
    let request: Arc<[u8]> = dialect.request(&gateway.key, true, &"word ".repeat(HEAVY / 5)).into();
    let address = gateway.address;
    let others = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        for _ in 0..HEAVIES {
            let request = request.clone();
            tasks.spawn(async move { Connection::open(address).await?.ask(&request, dialect, Some(64)).await });
            tokio::time::sleep(HEAVY_EVERY).await;
        }
        tasks.join_all().await.into_iter().collect::<std::io::Result<Vec<_>>>()
    });
    let then = paced(gateway, plan).await?;
    let many = others.await??.len();
    let what = format!("prompts of 100,000 tokens, {}", dialect.name());
    Ok(Beside { what, alone, then, note: format!("{many} of them") })
}

async fn paced(gateway: &Contender, plan: &Plan) -> Result<(u64, u64)> {
    plan.deltas.store(64, Ordering::Relaxed);
    plan.pace.store(10_000, Ordering::Relaxed);
    let request = Dialect::Codex.request(&gateway.key, true, "hello");
    let seen = load(gateway.address, &request, Dialect::Codex, Some(64), STREAMS, STREAMS * EACH).await?;
    let mut transits: Vec<u64> = seen.iter().flat_map(|seen| seen.transits.iter().map(|ns| u64::from(*ns))).collect();
    Ok((quantile(&mut transits, 99), transits.last().copied().unwrap_or_default()))
}

/// A process of its own, so that the kit's other work goes first.
fn start_flood(address: SocketAddr) -> Result<Child> {
    let mut flood = Command::new("nice");
    flood.args(["-n", "10", "taskset", "-c", "1"]).arg(std::env::current_exe()?);
    Ok(flood.arg(format!("--flood={address}")).stdout(Stdio::piped()).spawn()?)
}

fn end_flood(flood: Child) -> Result<u64> {
    let output = flood.wait_with_output()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the flood has not told how much it was")
}

/// The other process: prints how many keys were refused.
pub(crate) async fn send_flood(address: SocketAddr) -> Result<()> {
    let end = tokio::time::Instant::now() + WHILE;
    let mut tasks = JoinSet::new();
    for number in 0..FLOOD {
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut refused = 0_u64;
            while tokio::time::Instant::now() < end {
                // No two are the same, so that none is known for being unknown.
                let request = Dialect::Chat.request(&format!("tw-{number:08}{refused:035}"), true, "hello");
                match connection.ask(&request, Dialect::Chat, Some(64)).await {
                    Err(error) if error.to_string().starts_with("status 401") => refused += 1,
                    other => bail!("an unknown key was answered with {other:?}"),
                }
            }
            Ok(refused)
        });
    }
    let refused: Result<Vec<u64>> = tasks.join_all().await.into_iter().collect();
    println!("{}", refused?.iter().sum::<u64>());
    Ok(())
}

/// The same requests among few and among many.
pub(crate) async fn growth(backend: SocketAddr, plan: &Plan) -> Result<Vec<Grown>> {
    let shape = Scenario::Short.shape();
    plan.deltas.store(shape.deltas, Ordering::Relaxed);
    plan.pace.store(0, Ordering::Relaxed);
    let mut all = Vec::new();
    for (accounts, keys) in [(1, 1), (1, 10_000), (200, 1), (200, 10_000)] {
        eprintln!("{accounts} accounts, {keys} keys");
        let gateway = tokio::task::spawn_blocking(move || {
            let installation = Installation::new(backend, None)?;
            let key = installation.fill(accounts, 1)?;
            installation.declare_keys(keys - 1)?;
            let mut gateway = installation.serve()?;
            gateway.key = key;
            anyhow::Ok(gateway)
        })
        .await??;
        let run = run(&gateway, Dialect::Codex, &shape, true).await?;
        all.push(Grown { accounts, keys, cpu: run.cpu });
    }
    Ok(all)
}
