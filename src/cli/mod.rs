//! The command line: one file a command group. A command reads settings, opens the store and calls
//! the same rooms as the server; what it changes, a running server sees within a second.

mod account;
mod admin_key;
mod alias;
mod api;
mod apply;
mod config;
mod gateway;
mod healthcheck;
mod key;
mod keyring;
mod limits;
mod login;
mod migrate;
mod open;
mod pool;
mod serve;
mod show;
mod tenant;
mod usage;

use crate::config::{Loaded, Sources};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use show::say;
use std::path::PathBuf;
use std::process::ExitCode;

/// A gateway in front of a team's ChatGPT/Codex accounts.
#[derive(Parser)]
#[command(name = "tollway", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone)]
struct Common {
    /// The configuration file [env: TOLLWAY_CONFIG] [default: ./tollway.toml, /etc/tollway/tollway.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the SQLite database and a generated key file are kept
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Which log lines are written: a level or a filter
    #[arg(long, global = true, value_name = "FILTER")]
    log_level: Option<String>,
    /// How log lines look: human or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve requests until SIGTERM
    Serve(serve::Options),
    Migrate(migrate::Options),
    /// Show and check settings
    #[command(subcommand)]
    Config(config::Command),
    /// Print the reference page of all metrics
    Metrics,
    /// Codex accounts
    #[command(subcommand)]
    Account(account::Command),
    /// Pools of accounts, and why accounts are chosen
    #[command(subcommand)]
    Pool(pool::Command),
    /// Teams, whose limits hold for all of their users and keys
    #[command(subcommand)]
    Team(tenant::TeamCommand),
    /// Users, whose limits hold for all of their keys
    #[command(subcommand)]
    User(tenant::UserCommand),
    /// What was used
    Usage(usage::Options),
    /// Models by other names
    #[command(subcommand)]
    Alias(alias::Command),
    /// Gateway keys
    #[command(subcommand)]
    Key(key::Command),
    /// Keys of the admin API
    #[command(subcommand)]
    AdminKey(admin_key::Command),
    /// Call the admin API, of this machine's gateway or of a remote one
    Api(api::Options),
    /// Make a gateway as a file says, after showing what would change
    Apply(apply::Options),
    /// The master keys that credentials are sealed under
    #[command(subcommand)]
    Keyring(keyring::Command),
    /// Ask a running server whether it is ready; for container health checks
    Healthcheck(healthcheck::Options),
    /// Print the version
    Version,
}

impl Common {
    fn sources(&self) -> Sources {
        let mut sources = Sources { file: self.config.clone(), ..Sources::of_process() };
        let data_dir = self.data_dir.as_ref().map(|dir| dir.display().to_string());
        let flags = [
            ("data_dir", "--data-dir", &data_dir),
            ("log.level", "--log-level", &self.log_level),
            ("log.format", "--log-format", &self.log_format),
        ];
        for (key, flag, value) in flags {
            if let Some(value) = value {
                sources.flags.push((key, flag, value.clone()));
            }
        }
        sources
    }

    fn load(&self) -> Result<Loaded> {
        Ok(crate::config::load(&self.sources())?)
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    keep_memory_off_disks();
    take_file_descriptors();
    // Both reqwest and sqlx speak TLS through this provider; it must be there before either.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: a TLS provider was installed before ours");
        return ExitCode::FAILURE;
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(cli));
    // A command that still reads standard input must not keep the process.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How many threads serve; the name is tokio's.
const THREADS: &str = "TOKIO_WORKER_THREADS";

/// With one thread, tasks have their turns one after the other: those of many requests that are at the same
/// point come together, and find that point's code in the processor's cache. With several, a task that is
/// woken goes first, so that each request takes all its ways by itself, which costs a tenth more where there
/// is but one thread (docs/performance.md).
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    let threads = threads(std::env::var_os(THREADS).as_deref())?;
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(threads).enable_all().build()
}

/// As many as there are processors, unless the variable names another number.
fn threads(wanted: Option<&std::ffi::OsStr>) -> std::io::Result<usize> {
    let number = match wanted {
        None => std::thread::available_parallelism().ok(),
        Some(text) => {
            let number = text.to_str().and_then(|text| text.parse().ok());
            let fault = || format!("{THREADS} is a number from 1 on, and not {}", text.display());
            Some(number.ok_or_else(|| std::io::Error::other(fault()))?)
        }
    };
    Ok(number.map_or(1, std::num::NonZero::get))
}

/// Forbids core dumps and debuggers: this process's memory holds tokens in the clear. Both are needed,
/// since a system that pipes dumps into a program does not look at the limit. Where the system refuses,
/// it goes on as it is.
fn keep_memory_off_disks() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// A stream takes two connections, and container runtimes and shells often begin with 1024 descriptors:
/// all that may be had are taken. Where the system refuses, it goes on with those that it has.
fn take_file_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let common = cli.common;
    match cli.command {
        Command::Serve(options) => serve::run(&common, &options).await?,
        Command::Migrate(options) => return migrate::run(&common.load()?.settings, options).await,
        Command::Config(command) => return config::run(&common, &command),
        Command::Metrics => show::print(&crate::telemetry::metrics::reference())?,
        Command::Account(command) => account::run(&common.load()?.settings, command).await?,
        Command::Pool(command) => pool::run(&common.load()?.settings, command).await?,
        Command::Team(command) => tenant::run_team(&common.load()?.settings, command).await?,
        Command::User(command) => tenant::run_user(&common.load()?.settings, command).await?,
        Command::Usage(options) => usage::run(&common.load()?.settings, options).await?,
        Command::Alias(command) => alias::run(&common.load()?.settings, command).await?,
        Command::Key(command) => key::run(&common.load()?.settings, command).await?,
        Command::AdminKey(command) => admin_key::run(&common.load()?.settings, command).await?,
        Command::Api(options) => api::run(common.load()?, options).await?,
        Command::Apply(options) => return apply::run(common.load()?, options).await,
        Command::Keyring(command) => keyring::run(&common.load()?.settings, command).await?,
        Command::Healthcheck(options) => return healthcheck::run(&common, options).await,
        Command::Version => say!("tollway {}", env!("CARGO_PKG_VERSION"))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_threads_as_are_asked_for_and_what_is_no_number_is_refused() {
        assert!(threads(None).is_ok_and(|threads| threads > 0));
        assert!(threads(Some("3".as_ref())).is_ok_and(|threads| threads == 3));
        for text in ["0", "", "two", "-1"] {
            let fault = threads(Some(text.as_ref())).map_err(|error| error.to_string());
            assert_eq!(fault, Err(format!("TOKIO_WORKER_THREADS is a number from 1 on, and not {text}")));
        }
    }
}
