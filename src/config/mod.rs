//! Settings: defaults, then a TOML file, then `TOLLWAY_*` variables (`__` nests; every secret also
//! as `…_FILE`), then flags. Every fault is reported at once, and every value knows its origin.
//!
//! This room reads settings and judges them one by one and against each other. It must not act on
//! them: it opens no database and no socket.

mod fault;
mod field;
mod layers;
mod sections;
mod show;

pub use fault::{Fault, Faults};
pub use field::{Field, Size};
pub use layers::Sources;
pub use sections::{Accounts, Backend, Log, Models, OAuth, Otlp, Server, Top};
pub use show::{Shown, reference};

use crate::telemetry;
use field::Reader;
use figment::Figment;
use secrecy::SecretString;
use std::path::PathBuf;

/// All settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What belongs to no section.
    pub top: Top,
    /// Listeners and limits.
    pub server: Server,
    /// The Codex backend.
    pub backend: Backend,
    /// The issuer of the accounts' tokens.
    pub oauth: OAuth,
    /// How accounts are kept alive and put aside.
    pub accounts: Accounts,
    /// What model names mean.
    pub models: Models,
    /// Log lines.
    pub log: Log,
    /// Traces.
    pub otlp: Otlp,
}

/// Every setting there is, in the order of the reference page.
pub fn fields() -> Vec<Field> {
    [
        Top::FIELDS,
        Server::FIELDS,
        Backend::FIELDS,
        OAuth::FIELDS,
        Accounts::FIELDS,
        Models::FIELDS,
        Log::FIELDS,
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
    let sources = with_standard_variables(sources.clone());
    let (layers, mut faults) = sources.merge(&fields());
    let mut reader = Reader::new(&layers);
    let settings = read(&mut reader);
    faults.append(&mut reader.faults);
    match settings {
        Some(settings) => {
            faults.extend(judge(&settings, &layers));
            if faults.is_empty() { Ok(Loaded { settings, layers }) } else { Err(Faults(faults)) }
        }
        None => Err(Faults(faults)),
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    // All sections are read before any is given up, so that every fault is found.
    let (top, server, backend) = (Top::read(reader), Server::read(reader), Backend::read(reader));
    let (oauth, accounts, models) = (OAuth::read(reader), Accounts::read(reader), Models::read(reader));
    let (log, otlp) = (Log::read(reader), Otlp::read(reader));
    Some(Settings {
        top: top?,
        server: server?,
        backend: backend?,
        oauth: oauth?,
        accounts: accounts?,
        models: models?,
        log: log?,
        otlp: otlp?,
    })
}

/// OpenTelemetry's own variables count where ours are silent.
fn with_standard_variables(mut sources: Sources) -> Sources {
    let standard = [
        ("TOLLWAY_OTLP__ENDPOINT", ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]),
        ("TOLLWAY_OTLP__PROTOCOL", ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]),
    ];
    for (ours, theirs) in standard {
        let found = theirs.iter().find_map(|name| sources.env.get(*name).filter(|value| !value.is_empty()));
        if let Some(value) = found.cloned() {
            sources.env.entry(ours.to_owned()).or_insert(value);
        }
    }
    sources
}

/// What is wrong although every value by itself is right.
fn judge(settings: &Settings, layers: &Figment) -> Vec<Fault> {
    let server = &settings.server;
    let rules = [
        (
            server.insecure_no_keys && !server.listen.ip().is_loopback(),
            "server.insecure_no_keys",
            "is only allowed when server.listen is a loopback address such as 127.0.0.1:8787",
        ),
        (
            server.listen.port() != 0 && server.listen == server.ops_listen,
            "server.ops_listen",
            "is the same address as server.listen; give each its own port",
        ),
        (settings.backend.max_attempts == 0, "backend.max_attempts", "must be at least 1"),
        (settings.backend.first_byte_timeout.is_zero(), "backend.first_byte_timeout", "must be longer than nothing"),
        (settings.backend.idle_timeout.is_zero(), "backend.idle_timeout", "must be longer than nothing"),
        (settings.oauth.timeout.is_zero(), "oauth.timeout", "must be longer than nothing"),
        (settings.accounts.reload_interval.is_zero(), "accounts.reload_interval", "must be longer than nothing"),
        (server.max_body.bytes() == 0, "server.max_body", "must be at least 1B"),
        (!(0.0..=1.0).contains(&settings.otlp.sample_ratio), "otlp.sample_ratio", "must be from 0 to 1"),
        (
            !settings.oauth.scope.split(' ').any(|scope| scope == "offline_access"),
            "oauth.scope",
            "must hold `offline_access`, or logins bring no refresh token",
        ),
    ];
    rules
        .into_iter()
        .filter(|(broken, ..)| *broken)
        .map(|(_, key, problem)| Fault::new(key, field::origin(layers, key), problem))
        .collect()
}

impl Settings {
    /// The database's address.
    pub fn database_url(&self) -> SecretString {
        self.top
            .database_url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.top.data_dir.join("tollway.db").display()).into())
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
            otlp: self.otlp.endpoint.as_ref().map(|endpoint| telemetry::traces::Otlp {
                endpoint: endpoint.to_string(),
                protocol: self.otlp.protocol,
                headers: self.otlp.headers.clone(),
                service_name: self.otlp.service_name.clone(),
                sample_ratio: self.otlp.sample_ratio,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
