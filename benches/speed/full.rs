//! What a request costs in front of an empty ledger and of a full one: only when asked for by name
//! (`ledger-full`).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sqlx::{Connection as _, SqliteConnection};

use crate::backend::Plan;
use crate::client::Dialect;
use crate::contender::{Contender, Installation};
use crate::fill::{self, Sql};
use crate::{Run, Scenario, prepare, run};

/// A gateway, and what its requests have cost.
pub(crate) struct Ledger {
    /// Rows before its first request.
    pub(crate) rows: i64,
    /// From its start to readiness.
    pub(crate) ready_after: Duration,
    pub(crate) runs: Vec<Run>,
}

/// The same requests through both, in turn.
pub(crate) async fn measure(backend: SocketAddr, plan: &Plan, rows: i64, rounds: usize) -> Result<Vec<Ledger>> {
    let shape = Scenario::Short.shape();
    let gateways = [gateway(backend, 0).await?, gateway(backend, rows).await?];
    let mut ledgers: Vec<Ledger> = [0, rows]
        .into_iter()
        .zip(&gateways)
        .map(|(rows, gateway)| Ledger { rows, ready_after: gateway.ready_after, runs: Vec::new() })
        .collect();
    prepare(plan, &shape);
    for round in 0..rounds {
        for (ledger, gateway) in ledgers.iter_mut().zip(&gateways) {
            eprintln!("round {}: a ledger of {} rows", round + 1, ledger.rows);
            ledger.runs.push(run(gateway, Dialect::Codex, &shape, true).await?);
        }
    }
    Ok(ledgers)
}

async fn gateway(backend: SocketAddr, rows: i64) -> Result<Contender> {
    // The rows have dates of their own; those that are too old would be deleted while we measure.
    let installation = Installation::new(backend, None)?
        .set("TOLLWAY_LEDGER__RETENTION", "0s")
        .set("TOLLWAY_LEDGER__HOURLY_RETENTION", "0s");
    let (installation, key) = tokio::task::spawn_blocking(move || {
        let key = installation.fill(5, 5)?;
        anyhow::Ok((installation, key))
    })
    .await??;
    if rows > 0 {
        let (began, database) = (Instant::now(), installation.sqlite());
        eprintln!("a ledger of {rows} rows is written");
        fill::fill(Sql::Sqlite, &database, rows).await?;
        eprintln!("it took {} s", began.elapsed().as_secs());
        let mut connection = SqliteConnection::connect(&database).await?;
        let (there,): (i64,) =
            sqlx::query_as("SELECT SUM(requests) FROM usage_hourly").fetch_one(&mut connection).await?;
        connection.close().await?;
        ensure!(there == rows, "{there} of {rows} rows are there");
    }
    tokio::task::spawn_blocking(move || installation.serve_again(key)).await?
}
