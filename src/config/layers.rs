//! Where values come from, weakest first: defaults, a TOML file, the environment, flags.

use super::environment;
use super::fault::Fault;
use super::field::{Field, default_value};
use super::unknown;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a process was started with, handed in so that tests own it.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named by a flag, if one was.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Settings given as flags: the key, the flag's name, the value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// Looked for in this order when nothing names a file.
const FILES: [&str; 2] = ["tollway.toml", "/etc/tollway/tollway.toml"];

impl Sources {
    /// The process's environment; flags are added by the command line.
    pub fn of_process() -> Self {
        // A variable that is not Unicode cannot be one of ours.
        let env =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self { env, ..Self::default() }
    }

    /// The file to read. One that was named must be there.
    fn file(&self) -> Option<PathBuf> {
        let named = self.file.clone().or_else(|| self.env.get(environment::FILE_VARIABLE).map(PathBuf::from));
        named.or_else(|| FILES.iter().map(PathBuf::from).find(|path| path.exists()))
    }

    /// All layers on top of each other, and what is wrong with them before any value is read.
    pub(super) fn merge(&self, fields: &[Field]) -> (Figment, Vec<Fault>) {
        let mut faults = Vec::new();
        let mut figment = Figment::new();
        for field in fields {
            if let Some(default) = field.default {
                figment = figment.merge(Single::new("default", field.key, default_value(default)));
            }
        }
        if let Some(path) = self.file() {
            match file(&path, fields) {
                Ok((layer, unknown)) => {
                    figment = figment.merge(layer);
                    faults.extend(unknown);
                }
                Err(fault) => faults.push(fault),
            }
        }
        for given in environment::read(&self.env, fields, &mut faults) {
            figment = figment.merge(Single::new(given.origin, given.key, given.value));
        }
        for (key, flag, value) in &self.flags {
            figment = figment.merge(Single::new(format!("flag {flag}"), key, Value::from(value.clone())));
        }
        (figment, faults)
    }
}

/// One value under one name, so that each value's origin is exact.
struct Single {
    origin: String,
    data: Dict,
}

impl Single {
    fn new(origin: impl Into<String>, key: &str, value: Value) -> Self {
        let mut segments = key.rsplit('.');
        let last = segments.next().unwrap_or_default().to_owned();
        let leaf = Dict::from([(last, value)]);
        let data = segments.fold(leaf, |inner, segment| Dict::from([(segment.to_owned(), Value::from(inner))]));
        Self { origin: origin.into(), data }
    }
}

impl Provider for Single {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.data.clone()))
    }
}

fn file(path: &Path, fields: &[Field]) -> Result<(Single, Vec<Fault>), Fault> {
    let origin = format!("file {}", path.display());
    let unreadable = |problem: String| Fault::new("configuration file", origin.clone(), problem);
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let data = Toml::string(&text)
        .data()
        .map_err(|error| unreadable(format!("is not valid TOML: {}", without_excerpt(&error.to_string()))))?;
    let data = data.into_values().next().unwrap_or_default();
    let unknown = unknown::keys_of(&data, &origin, fields);
    Ok((Single { origin, data }, unknown))
}

/// The TOML parser's message without the line that it quotes: that line may hold a secret.
fn without_excerpt(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let after = lines.iter().rposition(|line| line.starts_with('|')).map_or(lines.len(), |caret| caret + 1);
    lines.iter().take(1).chain(&lines[after..]).copied().collect::<Vec<_>>().join(": ")
}
