//! What reports cost over ten million requests, on SQLite and on Postgres; fails when one of them takes
//! a second or more.
//!
//! ```text
//! cargo bench --bench ledger [-- --rows N] [--only sqlite|postgres] [--keep] [--dir DIRECTORY]
//! ```
//!
//! The databases take about 7 GB each below DIRECTORY (a temporary one if left out); `--keep` leaves
//! them there for the next run.

mod fill;
mod reports;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tollway::store::vault::Keyring;
use tollway::store::{OpenOptions, Store, UsageFilter};

use fill::Sql;
use reports::{Bench, Table};

const MASTER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const BOUND: Duration = Duration::from_secs(1);

struct Options {
    rows: i64,
    only: Option<String>,
    keep: bool,
    directory: PathBuf,
}

impl Options {
    fn read() -> Result<Self> {
        let directory = std::env::temp_dir().join("tollway-bench-ledger");
        let mut options = Self { rows: 10_000_000, only: None, keep: false, directory };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rows" => options.rows = value()?.parse()?,
                "--only" => options.only = Some(value()?),
                "--dir" => options.directory = PathBuf::from(value()?),
                "--keep" => options.keep = true,
                // Cargo's.
                "--bench" => {}
                other => bail!("{other} is none of --rows, --only, --dir and --keep"),
            }
        }
        Ok(options)
    }

    fn wants(&self, database: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == database)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was fast enough.
async fn run() -> Result<bool> {
    let options = Options::read()?;
    let mut fast = true;
    if options.wants("sqlite") {
        let directory = options.directory.join("sqlite");
        fs::create_dir_all(&directory)?;
        let url = format!("sqlite://{}", directory.join("tollway.db").display());
        fast &= database("SQLite", Sql::Sqlite, &url, &directory, &options).await?;
    }
    if options.wants("postgres") {
        let directory = options.directory.join("postgres");
        match server::Server::start(&directory)? {
            Some(server) => {
                fast &= database("Postgres", Sql::Postgres, &server.url(), &directory, &options).await?;
            }
            None => bail!("no PostgreSQL in /usr/lib/postgresql/*/bin"),
        }
    }
    if !options.keep {
        fs::remove_dir_all(&options.directory)?;
    }
    Ok(fast)
}

async fn database(name: &str, sql: Sql, url: &str, directory: &Path, options: &Options) -> Result<bool> {
    let rows = options.rows;
    let keyring = Keyring::parse(&MASTER_KEY.into())?;
    let store = Store::open(OpenOptions { url: url.into(), keyring }).await?;
    store.migrate().await?;
    let filled = directory.join(format!("filled-{rows}"));
    if !filled.exists() {
        let begun = Instant::now();
        fill::fill(sql, url, rows).await?;
        fs::write(&filled, "")?;
        eprintln!("{name}: {rows} requests written in {} s", begun.elapsed().as_secs());
    }
    let all = UsageFilter { from: fill::FIRST, until: fill::END, ..UsageFilter::default() };
    let known = store.ledger().report(&all, None).await?;
    ensure!(known.iter().map(|sum| sum.requests).sum::<u64>() > rows.unsigned_abs() / 2, "no more than half is there");
    let mut bench = Bench { store: &store, table: Table::new() };
    bench.reports().await?;
    bench.lists().await?;
    bench.budgets().await?;
    bench.exports(url, directory)?;
    bench.appends("append 1000 requests").await?;
    bench.forgets().await?;
    if !options.keep {
        let indexes = ["team", "user", "account", "model"].map(|of| format!("DROP INDEX usage_requests_{of}"));
        fill::run_all(sql, url, indexes.iter().map(String::as_str)).await?;
        bench.appends("append 1000 requests, without the indexes for lists").await?;
    }
    let fast = print(name, rows, &bench.table);
    store.close().await;
    Ok(fast)
}

/// Prints the table; says whether everything was below the bound, each time.
fn print(name: &str, rows: i64, table: &Table) -> bool {
    let milliseconds = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
    println!("\n{name}, {rows} requests, in ms\n");
    println!("| what | runs | min | median | max | slowest |\n|---|---:|---:|---:|---:|---|");
    let mut fast = true;
    for ((_, what), line) in table {
        let mut times = line.times.clone();
        times.sort_unstable();
        let (Some(min), Some(max)) = (times.first(), times.last()) else { continue };
        let [min, median, most] = [*min, times[times.len() / 2], *max].map(milliseconds);
        println!("| {what} | {} | {min} | {median} | {most} | {} |", times.len(), line.slowest);
        fast &= *max < BOUND;
    }
    if !fast {
        println!("\nA second or more: too slow.");
    }
    fast
}
