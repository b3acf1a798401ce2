//! `tollway migrate`: brings the schema up to date, or moves the installation to another database.

use super::open;
use super::show::{self, say, table};
use crate::config::Settings;
use crate::store::moving::{self, Compared, MoveOptions};
use crate::store::vault::{KeyFile, Keyring};
use crate::store::{Server, Store, StoreError};
use anyhow::{Context, Result, bail};
use secrecy::SecretString;
use std::process::ExitCode;
use std::time::Duration;

/// Bring the database's schema up to date; with --from and --to, move the installation to another database
#[derive(clap::Args)]
pub(super) struct Options {
    /// Where the installation is: sqlite://PATH or postgres://…; a server may go on serving from it
    #[arg(long, value_name = "URL", requires = "to")]
    from: Option<SecretString>,
    /// Where it shall be: an empty database, or what this command has begun to fill
    #[arg(long, value_name = "URL", requires = "from")]
    to: Option<SecretString>,
    /// Nothing is written to --from any more: once both are equal, --to may be served from
    #[arg(long = "final", requires = "from")]
    last: bool,
}

pub(super) async fn run(settings: &Settings, options: Options) -> Result<ExitCode> {
    let Options { from: Some(from), to: Some(to), last } = options else {
        open::store(settings).await?.close().await;
        say!("the schema is up to date")?;
        return Ok(ExitCode::SUCCESS);
    };
    // A table is read in one go, however long that takes.
    let server = Server {
        statement_timeout: Duration::ZERO,
        idle_in_transaction_timeout: Duration::ZERO,
        ..settings.database_server("tollway migrate".to_owned())
    };
    let keyring = keyring(settings, &from, &server).await?;
    let told = |line: String| eprintln!("{line}");
    let compared = moving::run(MoveOptions { from, to, keyring, server, last }, &told).await?;
    report(&compared, last)
}

/// The installation's own: a new key would open nothing.
async fn keyring(settings: &Settings, from: &SecretString, server: &Server) -> Result<Keyring> {
    if let Some(text) = &settings.top.master_key {
        return Keyring::parse(text).context("master_key");
    }
    let file = KeyFile::at(settings.key_file());
    if !file.path().exists() {
        bail!("there is no master key: set TOLLWAY_MASTER_KEY, or --data-dir to where master.key is");
    }
    let in_use = Store::key_ids_in_use_on(from, server).await?;
    Ok(file.load_or_create(&in_use)?.0)
}

fn report(compared: &[Compared], last: bool) -> Result<ExitCode> {
    let rows = compared.iter().map(|Compared { table, source, target }| {
        let verdict = if source == target { "equal" } else { "DIFFERENT" };
        let sums = [source.sum, target.sum].map(|sum| format!("{:016x}", sum >> 64));
        let [of_source, of_target] = sums;
        let name = (*table).to_owned();
        [name, source.rows.to_string(), target.rows.to_string(), of_source, of_target, verdict.to_owned()]
    });
    show::print(&table(["TABLE", "ROWS", "ROWS THERE", "CHECKSUM", "CHECKSUM THERE", ""], rows))?;
    let different: Vec<_> = compared.iter().filter(|one| one.source != one.target).map(|one| one.table).collect();
    if !different.is_empty() {
        eprintln!(
            "error: not the same on both: {}; somebody else has written to the target: empty it and begin anew",
            different.join(", ")
        );
        return Ok(ExitCode::FAILURE);
    }
    if last {
        say!("everything has moved: serve from the new database")?;
    } else {
        say!("what was there when this began has moved; stop the server and run it again with --final")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a database that is a copy which has not been finished.
pub(super) async fn must_be_finished(store: &Store) -> Result<(), StoreError> {
    if store.is_being_moved().await? {
        let problem = "the database is a copy that is not finished: run `tollway migrate --from … --to … --final`";
        return Err(StoreError::Moving { problem: problem.to_owned() });
    }
    Ok(())
}
