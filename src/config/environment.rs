//! Settings from variables: `TOLLWAY_SECTION__KEY`, secrets also from a file that `…_FILE` names,
//! and OpenTelemetry's own variables.

use super::fault::Fault;
use super::field::Field;
use super::unknown;
use figment::value::{Dict, Value};
use std::collections::BTreeMap;

/// The prefix of every variable that is ours.
const PREFIX: &str = "TOLLWAY_";
/// Names the configuration file. Not a setting: a file cannot name itself.
pub(super) const FILE_VARIABLE: &str = "TOLLWAY_CONFIG";
/// At the end of a variable: the value is the path of a file that holds the secret.
const FILE_SUFFIX: &str = "_FILE";

/// OpenTelemetry's variables that count where ours are silent; the first that is set does.
const STANDARD: [(&str, &[&str]); 5] = [
    ("otlp.endpoint", &["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    ("otlp.traces_endpoint", &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]),
    ("otlp.protocol", &["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]),
    ("otlp.sampler", &["OTEL_TRACES_SAMPLER"]),
    ("otlp.sample_ratio", &["OTEL_TRACES_SAMPLER_ARG"]),
];
/// And the one that counts above ours, because the exporter's resource takes it so.
const STANDARD_NAME: (&str, [&str; 1]) = ("otlp.service_name", ["OTEL_SERVICE_NAME"]);

type Env = BTreeMap<String, String>;

/// A value, under the key of its setting. For an entry of a table it is a table with that entry.
pub(super) struct Given {
    pub(super) key: &'static str,
    pub(super) origin: String,
    pub(super) value: Value,
}

/// What a variable's name says.
enum Meaning {
    /// A setting.
    Whole(Field),
    /// One entry of a setting that is a table.
    Entry(Field, String),
}

/// The values that the environment gives, the weakest first.
pub(super) fn read(env: &Env, fields: &[Field], faults: &mut Vec<Fault>) -> Vec<Given> {
    let mut given: Vec<_> = STANDARD.iter().filter_map(|(key, names)| standard(env, key, names)).collect();
    for (variable, value) in env {
        let Some(name) = variable.strip_prefix(PREFIX).filter(|_| variable != FILE_VARIABLE) else { continue };
        match ours(env, variable, name, value, fields) {
            Ok(value) => given.extend(value),
            Err(fault) => faults.push(fault),
        }
    }
    given.extend(standard(env, STANDARD_NAME.0, &STANDARD_NAME.1));
    given
}

fn standard(env: &Env, key: &'static str, names: &[&str]) -> Option<Given> {
    // OpenTelemetry takes an empty variable for one that is not set.
    let (name, value) = names.iter().find_map(|name| Some((name, env.get(*name).filter(|v| !v.is_empty())?)))?;
    Some(Given { key, origin: format!("env {name}"), value: Value::from(value.clone()) })
}

fn ours(env: &Env, variable: &str, name: &str, value: &str, fields: &[Field]) -> Result<Option<Given>, Fault> {
    let origin = format!("env {variable}");
    // The `_FILE` of a secret comes first: in a table of secrets any name is an entry's.
    if let Some(direct) = variable.strip_suffix(FILE_SUFFIX)
        && let Some(meaning) = name.strip_suffix(FILE_SUFFIX).and_then(|stem| meaning(stem, fields))
        && meaning.field().secret
    {
        if env.contains_key(direct) {
            let problem = format!("{direct} is set too; set one of the two");
            return Err(Fault::new(meaning.field().key, origin, problem));
        }
        let text = std::fs::read_to_string(value).map_err(|error| {
            Fault::new(meaning.field().key, origin.as_str(), format!("{value} cannot be read: {error}"))
        })?;
        return meaning.given(format!("{origin}: {value}"), text.trim_end_matches(['\r', '\n'])).map(Some);
    }
    match meaning(name, fields) {
        Some(meaning) => meaning.given(origin, value).map(Some),
        None if is_service_link(name, value) => Ok(None),
        None => Err(unknown::key_fault(&key_of(name), &origin, fields)),
    }
}

/// Kubernetes and Docker links describe every service of the namespace in variables. A service
/// called `tollway` makes them look like ours, and must not keep us from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let ends = |ending: &str| name == ending || name.ends_with(&format!("_{ending}"));
    let a_port = name.contains("PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|s| value.starts_with(s));
    let of_a_port = ["_TCP", "_UDP", "_SCTP"]
        .iter()
        .any(|protocol| ["_PROTO", "_PORT", "_ADDR"].iter().any(|part| name.ends_with(&format!("{protocol}{part}"))));
    ends("SERVICE_HOST") || ends("SERVICE_PORT") || name.contains("SERVICE_PORT_") || a_port || of_a_port
}

fn key_of(name: &str) -> String {
    name.to_ascii_lowercase().replace("__", ".")
}

fn meaning(name: &str, fields: &[Field]) -> Option<Meaning> {
    let key = key_of(name);
    fields.iter().find_map(|field| {
        let rest = key.strip_prefix(field.key)?;
        match rest.strip_prefix('.') {
            None if rest.is_empty() => Some(Meaning::Whole(*field)),
            Some(entry) if field.table && !entry.is_empty() => Some(Meaning::Entry(*field, entry.to_owned())),
            _ => None,
        }
    })
}

impl Meaning {
    fn field(&self) -> &Field {
        match self {
            Self::Whole(field) | Self::Entry(field, _) => field,
        }
    }

    fn given(self, origin: String, text: &str) -> Result<Given, Fault> {
        let key = self.field().key;
        let value = match self {
            Self::Whole(field) if field.table => match pairs(text) {
                Some(table) => Value::from(table),
                None => return Err(Fault::new(key, origin, "is not of the form name=value,name=value")),
            },
            Self::Whole(_) => Value::from(text),
            Self::Entry(_, entry) => Value::from(Dict::from([(entry, Value::from(text))])),
        };
        Ok(Given { key, origin, value })
    }
}

/// `name=value,name=value`: a variable's name cannot hold every name of an entry, `x-api-key` for one.
fn pairs(text: &str) -> Option<Dict> {
    text.split([',', '\n'])
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), Value::from(value.trim())))
        })
        .collect()
}
