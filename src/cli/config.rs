//! `tollway config`.

use super::Common;
use super::show::table;
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print every setting in force and where it comes from; secrets are redacted
    Show,
    /// Report everything that is wrong with the configuration
    Check,
    /// Print the reference page of all settings
    Reference,
}

pub(super) fn run(common: &Common, command: &Command) -> Result<ExitCode> {
    match command {
        Command::Show => {
            let rows = common.load()?.show().into_iter().map(|s| [s.key.to_owned(), s.value, s.origin]);
            print!("{}", table(["SETTING", "VALUE", "FROM"], rows));
        }
        Command::Check => match crate::config::load(&common.sources()) {
            Ok(_) => println!("the configuration is right"),
            Err(faults) => {
                eprintln!("{faults}");
                return Ok(ExitCode::FAILURE);
            }
        },
        Command::Reference => print!("{}", crate::config::reference()),
    }
    Ok(ExitCode::SUCCESS)
}
