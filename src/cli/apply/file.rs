//! The file: TOML, YAML or JSON, read into what is declared, or into every fault that it has.

use super::kind::{Field, Fields, Form, Kind};
use anyhow::{Context, Result};
use figment::providers::{Format as _, Toml};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Below this, a suggestion would puzzle more than it helps.
const NEAR: f64 = 0.8;

/// What is wrong at one place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// `teams.core.limits.budgets[0]`.
    pub(super) path: String,
    pub(super) problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        if path.is_empty() { f.write_str(problem) } else { write!(f, "{path}: {problem}") }
    }
}

/// Collects faults.
#[derive(Debug, Default)]
pub(super) struct Judge {
    faults: Vec<Fault>,
}

impl Judge {
    pub(super) fn fault(&mut self, path: &str, problem: impl Into<String>) {
        self.faults.push(Fault { path: path.to_owned(), problem: problem.into() });
    }

    /// The value, or a fault.
    pub(super) fn expect<T>(&mut self, value: Option<T>, path: &str, problem: &str) -> Option<T> {
        if value.is_none() {
            self.fault(path, problem);
        }
        value
    }

    /// A fault of a place that has none yet.
    pub(super) fn unless_told(&mut self, path: &str, problem: &str) {
        if !self.faults.iter().any(|fault| fault.path == path) {
            self.fault(path, problem);
        }
    }

    #[cfg(test)]
    pub(super) fn is_content(&self) -> bool {
        self.faults.is_empty()
    }

    /// The fields of a table; what is none of `known` is a fault.
    pub(super) fn fields(&mut self, value: &Value, path: &str, known: &[Field]) -> Option<Fields> {
        let table = self.expect(value.as_object(), path, "expected a table")?;
        let mut fields = Fields::new();
        for (name, value) in table {
            let path = below(path, name);
            match known.iter().find(|(known, _)| known == name) {
                Some((_, form)) => fields.extend(form.read(value, &path, self).map(|read| (name.clone(), read))),
                None => self.unknown(&path, "field", name, known.iter().map(|(known, _)| *known)),
            }
        }
        Some(fields)
    }

    fn unknown(&mut self, path: &str, what: &str, name: &str, known: impl Iterator<Item = &'static str>) {
        let known: Vec<_> = known.collect();
        let near = known.iter().map(|one| (strsim::jaro_winkler(one, name), *one));
        let near = near.filter(|(near, _)| *near >= NEAR).max_by(|one, other| one.0.total_cmp(&other.0));
        let hint =
            near.map_or_else(|| format!("there are {}", known.join(", ")), |(_, it)| format!("did you mean `{it}`?"));
        self.fault(path, format!("there is no such {what}; {hint}"));
    }

    /// `value`, unless there are faults.
    pub(super) fn verdict<T>(self, value: T) -> Result<T, Vec<Fault>> {
        if self.faults.is_empty() { Ok(value) } else { Err(self.faults) }
    }
}

/// The path of something in a table, as one would write it in TOML.
pub(super) fn below(path: &str, name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let name = if is_bare { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// What a file declares: by kind and name. A kind that the file does not name is none of its business.
#[derive(Debug, Default)]
pub(super) struct Declared {
    kinds: BTreeMap<Kind, BTreeMap<String, Fields>>,
}

impl Declared {
    /// The objects of a kind, if the file has its section.
    pub(super) fn of(&self, kind: Kind) -> Option<&BTreeMap<String, Fields>> {
        self.kinds.get(&kind)
    }

    /// The kinds that have to be known: those declared, and those that they name.
    pub(super) fn concerns(&self) -> BTreeSet<Kind> {
        let mut kinds: BTreeSet<Kind> = self.kinds.keys().copied().collect();
        for (kind, objects) in &self.kinds {
            for fields in objects.values() {
                named(fields, kind.fields(), &mut kinds);
            }
        }
        kinds
    }

    /// The hashes of keys.
    pub(super) fn hashes(&self) -> impl Iterator<Item = &str> {
        self.of(Kind::Key).into_iter().flatten().filter_map(|(_, fields)| fields.get("hash")?.as_str())
    }

    /// Reads what a file holds.
    pub(super) fn read(content: &Value) -> Result<Self, Vec<Fault>> {
        let (mut judge, mut declared) = (Judge::default(), Self::default());
        let Some(sections) = judge.expect(content.as_object(), "", "the file holds no table") else {
            return judge.verdict(declared);
        };
        for (section, objects) in sections {
            match Kind::ALL.into_iter().find(|kind| kind.section() == section) {
                Some(kind) => {
                    let read = objects_of(kind, objects, &mut judge);
                    declared.kinds.insert(kind, read);
                }
                None => {
                    judge.unknown(&below("", section), "section", section, Kind::ALL.map(Kind::section).into_iter());
                }
            }
        }
        judge.verdict(declared)
    }
}

fn named(fields: &Fields, forms: &[Field], kinds: &mut BTreeSet<Kind>) {
    for (name, form) in forms {
        match (form, fields.get(*name)) {
            (Form::One(kind) | Form::Many(kind), Some(_)) => {
                kinds.insert(*kind);
            }
            (Form::Limits, Some(Value::Object(limits))) => named(limits, super::kind::LIMITS, kinds),
            _ => {}
        }
    }
}

fn objects_of(kind: Kind, value: &Value, judge: &mut Judge) -> BTreeMap<String, Fields> {
    let section = kind.section();
    let mut objects = BTreeMap::new();
    let mut hashes: BTreeMap<String, String> = BTreeMap::new();
    // A section with nothing in it is null in YAML.
    let empty = Value::Object(Fields::new());
    let value = if value.is_null() { &empty } else { value };
    for (name, value) in judge.expect(value.as_object(), section, "expected a table").into_iter().flatten() {
        let path = below(section, name);
        if Form::Name.read(&Value::from(name.as_str()), &path, judge).is_none() {
            continue;
        }
        if name.trim() != name || name.chars().count() > 200 {
            judge.fault(&path, "a name has at most 200 characters, and no space at its ends");
        }
        let fields = match kind {
            Kind::Alias => alias(name, value, &path, judge),
            _ if value.is_null() => Some(Fields::new()),
            _ => judge.fields(value, &path, kind.fields()),
        };
        let Some(fields) = fields else { continue };
        if kind == Kind::Key {
            judge_key(&fields, &path, &mut hashes, judge);
        }
        objects.insert(name.clone(), fields);
    }
    objects
}

/// `"claude-*" = "gpt-6.1-sol"`.
fn alias(name: &str, value: &Value, path: &str, judge: &mut Judge) -> Option<Fields> {
    if name.strip_suffix('*').unwrap_or(name).contains('*') {
        judge.fault(path, "only the end of a name may be `*`");
    }
    let target = Form::Target.read(value, path, judge)?;
    Some([("target".to_owned(), target)].into_iter().collect())
}

fn judge_key(fields: &Fields, path: &str, hashes: &mut BTreeMap<String, String>, judge: &mut Judge) {
    let given = |field: &str| fields.get(field).is_some_and(|value| !value.is_null());
    for (one, other, what) in [("user", "team", "a user or to a team"), ("pool", "accounts", "a pool or to accounts")] {
        if given(one) && given(other) {
            judge.fault(path, format!("a key belongs to {what}, not to both"));
        }
    }
    if let Some(hash) = fields.get("hash").and_then(Value::as_str)
        && let Some(other) = hashes.insert(hash.to_owned(), path.to_owned())
    {
        judge.fault(&below(path, "hash"), format!("{other} has the same"));
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Toml,
    Yaml,
    Json,
}

/// By the name of the file, or by its first line that says something.
fn format_of(path: &Path, text: &str) -> Format {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => return Format::Toml,
        Some("yaml" | "yml") => return Format::Yaml,
        Some("json") => return Format::Json,
        _ => {}
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    match first.unwrap_or_default() {
        line if line.starts_with('{') => Format::Json,
        line if line.starts_with('[') => Format::Toml,
        line if line.split_once('=').is_some_and(|(name, _)| !name.contains(':')) => Format::Toml,
        _ => Format::Yaml,
    }
}

/// The content of a file, whichever way it is written.
pub(super) fn content(path: &Path, text: &str) -> Result<Value> {
    match format_of(path, text) {
        Format::Toml => Toml::from_str(text).context("it is no TOML").map(plain),
        Format::Json => serde_json::from_str(text).context("it is no JSON"),
        Format::Yaml => serde_saphyr::from_str(text).context("it is no YAML"),
    }
}

/// TOML has times of its own, which come as tables of one field.
fn plain(value: Value) -> Value {
    const TIME: &str = "$__toml_private_datetime";
    match value {
        Value::Object(table) if table.len() == 1 && table.contains_key(TIME) => table[TIME].clone(),
        Value::Object(table) => table.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        Value::Array(list) => list.into_iter().map(plain).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(content: &Value) -> Vec<String> {
        Declared::read(content).expect_err("faults").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let told = faults(&json!({
            "taems": {},
            "teams": {"core": {"limits": {"budgets": ["5M/year", "5M/day"], "requests_per_minut": 5}, "suspended": "no"}},
            "users": {"": {}, "a.b": {"tame": "core"}},
            "pools": {"night": {"strategy": "dice", "tags": ["two words"]}},
            "keys": {"k": {"hash": "tw-secret", "user": "a", "team": "b"}},
            "accounts": {"one": {"weight": -1, "credentials": "x"}},
            "aliases": {"a*b": "gpt-5.5", "c": "gpt-5.5:"},
        }));
        let starts = [
            "taems: there is no such section; did you mean `teams`?",
            "teams.core.limits.budgets[0]: expected day, week",
            "teams.core.limits.requests_per_minut: there is no such field; did you mean `requests_per_minute`?",
            "teams.core.suspended: expected true or false",
            "users.\"\": expected text",
            "users.\"a.b\".tame: there is no such field; did you mean `team`?",
            "pools.night.strategy: expected quota",
            "pools.night.tags[0]: a tag is one word",
            "keys.k.hash: expected",
            "keys.k: a key belongs to a user or to a team",
            "accounts.one.weight: expected a number",
            "accounts.one.credentials: there is no such field",
            "aliases.\"a*b\": only the end",
            "aliases.c: expected a model",
        ];
        for start in starts {
            assert!(told.iter().any(|fault| fault.starts_with(start)), "{start}: {told:#?}");
        }
        assert!(told.iter().all(|fault| !fault.contains("tw-secret")), "a key in the wrong place is not repeated");
        assert_eq!(told.len(), starts.len(), "{told:#?}");
    }

    #[test]
    fn two_keys_of_one_hash_are_a_fault() {
        let hash = format!("sha256:{}", "0".repeat(64));
        let told = faults(&json!({"keys": {"a": {"hash": hash}, "b": {"hash": hash}}}));
        assert_eq!(told, ["keys.b.hash: keys.a has the same"]);
    }

    #[test]
    fn the_same_is_read_out_of_each_format() {
        let toml = "[keys.ci]\nexpires_at = 2027-01-31T00:00:00Z\nlimits = { budgets = [\"5M/day\"] }\n[aliases]\n\"claude-*\" = \"gpt-5.5\"\n";
        let yaml = "# GitOps\nkeys:\n  ci:\n    expires_at: 2027-01-31T00:00:00Z\n    limits: {budgets: [5M/day]}\naliases:\n  claude-*: gpt-5.5\n";
        let json = r#"{"keys": {"ci": {"expires_at": 1801353600000, "limits": {"budgets": ["5M/day"]}}}, "aliases": {"claude-*": "gpt-5.5"}}"#;
        let read = |text: &str| Declared::read(&content(Path::new("-"), text).expect("legible")).expect("no faults");
        let kinds = read(toml).kinds;
        assert_eq!(kinds[&Kind::Key]["ci"]["limits"], json!({"budgets": ["5000000 tokens/day"]}));
        assert_eq!((&kinds, &kinds), (&read(yaml).kinds, &read(json).kinds));
        assert!(content(Path::new("a.yaml"), "a: 1\na: 2\n").is_err(), "said twice");
        assert!(content(Path::new("a.toml"), "a = 1\na = 2\n").is_err(), "said twice");
    }
}
