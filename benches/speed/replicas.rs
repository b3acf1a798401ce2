//! One replica and three over one Postgres, all on the same core: what the database is asked for, and
//! whether more replicas cost more.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};

use crate::client::{Dialect, load};
use crate::contender::{Contender, Installation};
use crate::server::Server;

/// Requests that are counted, in all.
const REQUESTS: usize = 24_000;
const CLIENTS: usize = 30;

/// What so many replicas did.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) replicas: usize,
    pub(crate) dialect: &'static str,
    /// Requests a second.
    pub(crate) rate: f64,
    /// CPU of all replicas, nanoseconds a request.
    pub(crate) cpu: f64,
    /// Statements that the database was asked for, a request.
    pub(crate) statements: f64,
}

/// `None` where PostgreSQL is not installed.
pub(crate) async fn measure(backend: SocketAddr) -> Result<Option<Vec<Shared>>> {
    let directory = tempfile::tempdir()?;
    let Some(server) = Server::start(directory.path())? else { return Ok(None) };
    let mut connection = PgConnection::connect(&server.url()).await?;
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&mut connection).await?;
    let database = server.url();
    let (installation, key) = tokio::task::spawn_blocking(move || {
        let installation = Installation::new(backend, Some(database))?;
        let key = installation.fill(5, 5)?;
        anyhow::Ok((installation, key))
    })
    .await??;
    let mut all = Vec::new();
    let mut gateways = Vec::new();
    for replicas in [1, 3] {
        while gateways.len() < replicas {
            gateways.push(installation.serve()?);
        }
        // With what is kept of an answer, and without.
        for dialect in [Dialect::Chat, Dialect::Kept] {
            eprintln!("{replicas} over one database: {}", dialect.name());
            all.push(run(&gateways, dialect, &key, &mut connection).await?);
        }
    }
    drop(gateways);
    connection.close().await?;
    Ok(Some(all))
}

async fn run(gateways: &[Contender], dialect: Dialect, key: &str, database: &mut PgConnection) -> Result<Shared> {
    let request = dialect.request(key, true, "hello");
    let each = |requests: usize| {
        let asked = gateways.iter().map(|gateway| {
            let clients = CLIENTS / gateways.len();
            load(gateway.address, &request, dialect, Some(64), clients, requests / gateways.len())
        });
        futures_util::future::try_join_all(asked)
    };
    each(REQUESTS / 10).await?;
    let cpu = |gateways: &[Contender]| gateways.iter().map(Contender::cpu).sum::<Result<u64>>();
    let (statements, spent, began) = (asked(database).await?, cpu(gateways)?, Instant::now());
    each(REQUESTS).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (statements, spent) = (asked(database).await? - statements, cpu(gateways)? - spent);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (requests, statements, spent) = (REQUESTS as f64, statements as f64, spent as f64);
    Ok(Shared {
        replicas: gateways.len(),
        dialect: dialect.name(),
        rate: requests / seconds,
        cpu: spent / requests,
        statements: statements / requests,
    })
}

/// How many statements the server has been asked for; of transactions, their begin and end too.
async fn asked(connection: &mut PgConnection) -> Result<i64> {
    let count = "SELECT CAST(SUM(calls) AS BIGINT) FROM pg_stat_statements
                 JOIN pg_database ON pg_database.oid = dbid WHERE datname = current_database()";
    let (calls,): (Option<i64>,) = sqlx::query_as(count).fetch_one(connection).await?;
    calls.context("statements are not counted")
}
