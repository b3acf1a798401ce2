//! Where values come from, weakest first: defaults, a TOML file, the environment, flags.

use super::fault::Fault;
use super::field::{Field, default_value};
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

/// The prefix of every variable that is read.
const PREFIX: &str = "TOLLWAY_";
/// Names the file. Not a setting: a file cannot name itself.
const FILE_VARIABLE: &str = "TOLLWAY_CONFIG";
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

    /// The file to read, and whether it must exist.
    fn file(&self) -> Option<(PathBuf, bool)> {
        let named = self.file.clone().or_else(|| self.env.get(FILE_VARIABLE).map(PathBuf::from));
        named
            .map(|path| (path, true))
            .or_else(|| FILES.iter().map(PathBuf::from).find(|path| path.exists()).map(|path| (path, false)))
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
        if let Some((path, _)) = self.file() {
            match file(&path, fields) {
                Ok((layer, unknown)) => {
                    figment = figment.merge(layer);
                    faults.extend(unknown);
                }
                Err(fault) => faults.push(fault),
            }
        }
        for (key, origin, value) in environment(&self.env, fields, &mut faults) {
            figment = figment.merge(Single::new(origin, &key, Value::from(value)));
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
    let data = Toml::string(&text).data().map_err(|error| unreadable(format!("is not valid TOML: {error}")))?;
    let data = data.into_values().next().unwrap_or_default();
    let mut unknown = Vec::new();
    find_unknown(&data, "", fields, &mut |key| unknown.push(unknown_key(key, &origin, fields)));
    Ok((Single { origin, data }, unknown))
}

fn find_unknown(table: &Dict, prefix: &str, fields: &[Field], report: &mut impl FnMut(&str)) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        let below = format!("{key}.");
        if fields.iter().any(|field| field.key == key) {
            continue;
        }
        match value.as_dict() {
            Some(inner) if fields.iter().any(|field| field.key.starts_with(&below)) => {
                find_unknown(inner, &below, fields, report);
            }
            _ => report(&key),
        }
    }
}

/// The values that the environment gives: key, origin, value.
fn environment(
    env: &BTreeMap<String, String>,
    fields: &[Field],
    faults: &mut Vec<Fault>,
) -> Vec<(String, String, String)> {
    let mut values = Vec::new();
    for (variable, value) in env {
        let Some(name) = variable.strip_prefix(PREFIX).filter(|_| variable != FILE_VARIABLE) else { continue };
        let key = name.to_ascii_lowercase().replace("__", ".");
        let known = |key: &str| fields.iter().find(|f| f.key == key || (f.table && in_table(f.key, key)));
        let origin = format!("env {variable}");
        if known(&key).is_some() {
            values.push((key, origin, value.clone()));
            continue;
        }
        // Only a secret may come from a file that a variable names.
        let secret = key.strip_suffix("_file").filter(|stem| known(stem).is_some_and(|field| field.secret));
        let Some(stem) = secret else {
            faults.push(unknown_key(&key, &origin, fields));
            continue;
        };
        let direct = variable.trim_end_matches("_FILE");
        if env.contains_key(direct) {
            faults.push(Fault::new(stem, origin, format!("{direct} is set too; set one of the two")));
            continue;
        }
        match std::fs::read_to_string(value) {
            Ok(text) => values.push((stem.to_owned(), origin, text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => faults.push(Fault::new(stem, origin, format!("{value} cannot be read: {error}"))),
        }
    }
    values
}

fn in_table(table: &str, key: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
}

fn unknown_key(key: &str, origin: &str, fields: &[Field]) -> Fault {
    let nearest = fields
        .iter()
        .map(|field| (strsim::jaro_winkler(key, field.key), field.key))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity > 0.7);
    let problem = match nearest {
        Some((_, name)) => format!("there is no such setting; did you mean `{name}`?"),
        None => "there is no such setting".to_owned(),
    };
    Fault::new(key, origin, problem)
}
