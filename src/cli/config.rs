//! `tollway config`.

use super::Common;
use super::show::{self, say, table};
use crate::config::Settings;
use crate::server::{ServerError, assemble};
use crate::store::vault::Keyring;
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
            let rows = common.load()?.show().into_iter().map(|s| [s.key, s.value, s.origin]);
            show::print(&table(["SETTING", "VALUE", "FROM"], rows))?;
        }
        Command::Check => match crate::config::check(&common.sources(), beyond) {
            Ok(()) => say!("the configuration is right")?,
            Err(faults) => {
                eprintln!("{faults}");
                return Ok(ExitCode::FAILURE);
            }
        },
        Command::Reference => show::print(&crate::config::reference())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What only the rooms that use the settings can tell; `serve` refuses to start over each.
fn beyond(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    match &settings.top.master_key {
        Some(text) => faults.extend(Keyring::parse(text).err().map(|error| ("master_key", error.to_string()))),
        None if !settings.is_sqlite() => faults.push(("master_key", "is needed with a database server".to_owned())),
        None => {}
    }
    for fault in assemble::faults(settings) {
        match fault {
            ServerError::Setting { setting, reason } => faults.push((setting, reason)),
            // The clients' own words, which name no setting; the one for the backend has most of them.
            other => faults.push(("backend", other.to_string())),
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, check};

    fn told(env: &[(&str, &str)]) -> String {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        check(&Sources { env, ..Sources::default() }, beyond).expect_err("faulty").to_string()
    }

    #[test]
    fn a_check_tells_what_only_the_users_of_a_setting_know_and_all_of_it_at_once() {
        let told = told(&[
            ("TOLLWAY_MASTER_KEY", "hunter2"),
            ("TOLLWAY_BACKEND__CA_FILE", "/nowhere.pem"),
            ("TOLLWAY_OIDC__CA_FILE", "/nowhere.pem"),
            ("TOLLWAY_SERVER__MAX_BODY", "0"),
            ("TOLLWAY_SERVER__TRUSTED_PROXIES", "nobody"),
            ("TOLLWAY_SERVER__CORS_ORIGINS", "nowhere"),
            ("TOLLWAY_BACKEND__WORKSPACE_ORIGINS", "nowhere"),
            ("TOLLWAY_LEDGER__PRICES_FILE", "/nowhere.json"),
            ("TOLLWAY_WEBHOOK__SECRET", "hunter3"),
        ]);
        let keys = ["master_key (env TOLLWAY_MASTER_KEY)", "backend.ca_file", "oidc.ca_file", "server.max_body"];
        let others = ["trusted_proxies", "cors_origins", "workspace_origins", "ledger.prices_file", "webhook.secret"];
        for key in keys.into_iter().chain(others) {
            assert!(told.contains(key), "{key} is not in {told}");
        }
        assert!(!told.contains("hunter3"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_database_server_needs_a_master_key() {
        let told = told(&[("TOLLWAY_DATABASE_URL", "postgres://u@h/d")]);
        assert!(told.contains("master_key (not set)"), "{told}");
    }

    #[test]
    fn a_fault_is_told_once() {
        let told = told(&[("TOLLWAY_BACKEND__PROXY", "gopher://h")]);
        assert_eq!(told.matches("backend.proxy").count(), 1, "{told}");
    }
}
