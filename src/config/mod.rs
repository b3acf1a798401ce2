//! Settings: defaults, then a TOML file, then `TOLLWAY_*` variables (`__` nests; every secret also
//! as `…_FILE`), then flags. Every fault is reported at once, and every value knows its origin.
//!
//! This room reads settings and judges them one by one and against each other. It must not act on
//! them: it opens no database and no socket.

mod environment;
mod fault;
mod field;
mod judge;
mod layers;
mod sections;
mod show;
mod unknown;

pub use fault::{Fault, Faults};
pub use field::{Field, Size};
pub use layers::Sources;
pub use sections::{
    Accounts, Admin, Backend, Batches, Database, Ledger, Limits, Log, Metrics, Models, Notify, OAuth, Oidc, Otlp, Pool,
    Responses, Server, Top, WebSocket, Webhook,
};
pub use show::{Shown, reference};

use crate::{store, telemetry};
use field::Reader;
use figment::Figment;
use secrecy::{ExposeSecret, SecretString};
use std::path::PathBuf;

/// All settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What belongs to no section.
    pub top: Top,
    /// Listeners and limits.
    pub server: Server,
    /// How a database server is used.
    pub database: Database,
    /// The admin API.
    pub admin: Admin,
    /// How people sign in to it.
    pub oidc: Oidc,
    /// The Codex backend.
    pub backend: Backend,
    /// The issuer of the accounts' tokens.
    pub oauth: OAuth,
    /// How accounts are kept alive and put aside.
    pub accounts: Accounts,
    /// How an account is chosen for a request.
    pub pool: Pool,
    /// Who is told of what somebody has to act on.
    pub webhook: Webhook,
    /// How limits are held.
    pub limits: Limits,
    /// The books.
    pub ledger: Ledger,
    /// What model names mean.
    pub models: Models,
    /// What is kept of responses.
    pub responses: Responses,
    /// Message batches.
    pub batches: Batches,
    /// Log lines.
    pub log: Log,
    /// Metrics.
    pub metrics: Metrics,
    /// Traces.
    pub otlp: Otlp,
}

/// Every setting there is, in the order of the reference page.
pub fn fields() -> Vec<Field> {
    [
        Top::FIELDS,
        Server::FIELDS,
        Database::FIELDS,
        Admin::FIELDS,
        Oidc::FIELDS,
        Backend::FIELDS,
        OAuth::FIELDS,
        Accounts::FIELDS,
        Pool::FIELDS,
        Webhook::FIELDS,
        Limits::FIELDS,
        Ledger::FIELDS,
        Models::FIELDS,
        Responses::FIELDS,
        Batches::FIELDS,
        Log::FIELDS,
        Metrics::FIELDS,
        Otlp::FIELDS,
    ]
    .concat()
}

/// Settings, with where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub settings: Settings,
    layers: Figment,
}

impl Loaded {
    /// Each setting's value in force and its origin; secrets are redacted.
    pub fn show(&self) -> Vec<Shown> {
        show::show(&self.layers, &fields())
    }
}

/// Reads the settings, or says everything that is wrong with them.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let Read { settings, layers, faults } = read_all(sources);
    match settings {
        Some(settings) if faults.is_empty() => Ok(Loaded { settings, layers }),
        _ => Err(Faults(faults)),
    }
}

/// Says everything that is wrong with the settings, also what only those who use them know:
/// `further` names settings and what is wrong with each.
pub fn check(sources: &Sources, further: impl FnOnce(&Settings) -> Vec<(&'static str, String)>) -> Result<(), Faults> {
    let Read { settings, layers, mut faults } = read_all(sources);
    for (key, problem) in settings.as_ref().map(further).unwrap_or_default() {
        // What was found wrong already need not be said twice.
        if !faults.iter().any(|fault| fault.key == key) {
            faults.push(Fault::new(key, field::origin(&layers, key), problem));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// All that can be read, with defaults in the place of what cannot.
struct Read {
    settings: Option<Settings>,
    layers: Figment,
    faults: Vec<Fault>,
}

fn read_all(sources: &Sources) -> Read {
    let (layers, mut faults) = sources.merge(&fields());
    let mut reader = Reader::new(&layers);
    let settings = read(&mut reader);
    faults.append(&mut reader.faults);
    faults.extend(settings.iter().flat_map(|settings| judge::judge(settings, &layers)));
    Read { settings, layers, faults }
}

fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    // All sections are read before any is given up, so that every fault is found.
    let (top, server, backend) = (Top::read(reader), Server::read(reader), Backend::read(reader));
    let (database, admin, oidc) = (Database::read(reader), Admin::read(reader), Oidc::read(reader));
    let (oauth, accounts, models) = (OAuth::read(reader), Accounts::read(reader), Models::read(reader));
    let (pool, webhook) = (Pool::read(reader), Webhook::read(reader));
    let (limits, ledger) = (Limits::read(reader), Ledger::read(reader));
    let (responses, batches) = (Responses::read(reader), Batches::read(reader));
    let (log, metrics, otlp) = (Log::read(reader), Metrics::read(reader), Otlp::read(reader));
    Some(Settings {
        top: top?,
        server: server?,
        database: database?,
        admin: admin?,
        oidc: oidc?,
        backend: backend?,
        oauth: oauth?,
        accounts: accounts?,
        pool: pool?,
        webhook: webhook?,
        limits: limits?,
        ledger: ledger?,
        models: models?,
        responses: responses?,
        batches: batches?,
        log: log?,
        metrics: metrics?,
        otlp: otlp?,
    })
}

impl Settings {
    /// The database's address.
    pub fn database_url(&self) -> SecretString {
        self.top
            .database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.top.data_dir.join("tollway.db").display()).into())
    }

    /// How a database server is used by a process of this name.
    pub fn database_server(&self, application_name: String) -> store::Server {
        let Database { pool_size, acquire_timeout, statement_timeout, lock_timeout, .. } = self.database;
        store::Server {
            pool_size,
            acquire_timeout,
            statement_timeout,
            lock_timeout,
            idle_in_transaction_timeout: self.database.idle_in_transaction_timeout,
            schema: self.database.schema.clone(),
            application_name,
        }
    }

    /// How the database is followed.
    pub fn following(&self) -> store::Following {
        store::Following {
            poll: self.accounts.reload_interval,
            check: self.database.check_interval,
            notify: self.database.notify == Notify::Auto,
        }
    }

    /// Whether the database is a file of this machine, which may bring its own key file.
    pub fn is_sqlite(&self) -> bool {
        self.top.database_url.as_ref().is_none_or(|url| url.expose_secret().starts_with("sqlite:"))
    }

    /// Where a generated master key is kept.
    pub fn key_file(&self) -> PathBuf {
        self.top.data_dir.join("master.key")
    }

    /// For the telemetry room.
    pub fn telemetry(&self) -> telemetry::Options {
        telemetry::Options {
            format: self.log.format.unwrap_or_else(telemetry::logs::Format::suited),
            level: self.log.level.clone(),
            otlp: self.endpoint().map(|endpoint| telemetry::traces::Otlp {
                endpoint,
                protocol: self.otlp.protocol,
                headers: self.otlp.headers.clone(),
                service_name: self.otlp.service_name.clone(),
                sampling: self.otlp.sampler,
                sample_ratio: self.otlp.sample_ratio,
                keep: telemetry::traces::Keep {
                    errors: self.otlp.keep_errors,
                    slow: (!self.otlp.keep_slow.is_zero()).then_some(self.otlp.keep_slow),
                },
            }),
            keys: self.metrics.keys,
        }
    }

    /// Where traces go, if anywhere.
    fn endpoint(&self) -> Option<telemetry::traces::Endpoint> {
        use telemetry::traces::Endpoint;
        let Otlp { endpoint, traces_endpoint, .. } = &self.otlp;
        let traces = traces_endpoint.as_ref().map(|address| Endpoint::Traces(address.to_string()));
        traces.or_else(|| endpoint.as_ref().map(|base| Endpoint::Base(base.to_string())))
    }
}

#[cfg(test)]
mod tests;
