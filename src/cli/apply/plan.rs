//! What has to be done so that a gateway is as a file says: a pure function of both.

use super::file::{Declared, Fault, Judge, below};
use super::kind::{Field, Fields, Form, Kind, LIMITS};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// An object as a gateway has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    pub(super) id: String,
    pub(super) name: String,
    /// An email.
    pub(super) label: Option<String>,
    pub(super) version: i64,
    /// By the same forms as what is declared.
    pub(super) fields: Fields,
    /// Of a key: the declared hash that is its own.
    pub(super) hash: Option<String>,
    /// Of a key: why it is of no use any more.
    pub(super) over: Option<&'static str>,
}

/// What a gateway has, of the kinds that matter.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) kinds: BTreeMap<Kind, Vec<Object>>,
}

impl Current {
    pub(super) fn of(&self, kind: Kind) -> &[Object] {
        self.kinds.get(&kind).map_or(&[], Vec::as_slice)
    }
}

/// A value that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// `limits.budgets`.
    pub(super) field: String,
    pub(super) old: Value,
    pub(super) new: Value,
}

/// What is done to an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(super) enum Action {
    Create {
        fields: Fields,
    },
    Change {
        id: String,
        version: i64,
        changes: Vec<Change>,
    },
    Remove {
        id: String,
        version: i64,
    },
    /// It is as declared.
    Keep,
    /// It cannot be made out of a file.
    Missing {
        advice: String,
    },
}

/// One object and what is done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) action: Action,
}

impl Step {
    /// Whether something is done.
    pub(super) fn is_work(&self) -> bool {
        matches!(self.action, Action::Create { .. } | Action::Change { .. } | Action::Remove { .. })
    }
}

/// The steps in their order: objects are made before those that name them, and removed after them.
pub(super) fn plan(declared: &Declared, current: &Current, prune: bool) -> Result<Vec<Step>, Vec<Fault>> {
    let mut planner =
        Planner { declared, current, judge: Judge::default(), taken: BTreeSet::new(), renamed: BTreeMap::new() };
    let mut steps = Vec::new();
    for kind in Kind::ALL {
        for (name, fields) in declared.of(kind).into_iter().flatten() {
            steps.extend(planner.step(kind, name, fields));
        }
    }
    if prune {
        for kind in Kind::ALL.into_iter().rev() {
            steps.extend(planner.removals(kind));
        }
    }
    planner.judge.verdict(steps)
}

struct Planner<'a> {
    declared: &'a Declared,
    current: &'a Current,
    judge: Judge,
    /// The ids of what is declared.
    taken: BTreeSet<String>,
    /// The names that accounts get before anything names them.
    renamed: BTreeMap<String, String>,
}

impl<'a> Planner<'a> {
    fn step(&mut self, kind: Kind, name: &str, declared: &Fields) -> Option<Step> {
        let path = below(kind.section(), name);
        let (name, mut fields) = (name.to_owned(), declared.clone());
        self.resolve(&mut fields, kind.fields(), &path);
        let known = self.known(kind, &name, &fields, &path)?;
        let action = match known {
            None if kind == Kind::Account => {
                Action::Missing { advice: "log it in first: `tollway account login`, or import it".to_owned() }
            }
            None if kind == Kind::Key && !fields.contains_key("hash") => {
                Action::Missing { advice: "make it with `tollway key create`, or declare its hash".to_owned() }
            }
            None => {
                fields.retain(|_, value| !value.is_null());
                Action::Create { fields }
            }
            Some(object) => {
                if !self.taken.insert(object.id.clone()) {
                    self.judge.fault(&path, format!("another entry means {} {} too", kind.word(), object.name));
                }
                if let Some(name) = fields.get("name").and_then(Value::as_str) {
                    self.renamed.insert(object.id.clone(), name.to_owned());
                }
                let changes = self.changes(kind, &name, &fields, object, &path);
                if changes.is_empty() {
                    Action::Keep
                } else {
                    Action::Change { id: object.id.clone(), version: object.version, changes }
                }
            }
        };
        Some(Step { kind, name, action })
    }

    /// The object that an entry means: a key by its hash if it has one, everything else by name. The
    /// outer `None` is a fault.
    #[expect(clippy::option_option, reason = "a fault, nothing, or an object")]
    fn known(&mut self, kind: Kind, name: &str, fields: &Fields, path: &str) -> Option<Option<&'a Object>> {
        let all = self.current.of(kind);
        if let Some(hash) = fields.get("hash").and_then(Value::as_str) {
            let known = all.iter().find(|key| key.hash.as_deref() == Some(hash));
            if let Some(over) = known.and_then(|key| key.over) {
                self.judge.fault(path, format!("this key is {over} for good: declare another one"));
                return None;
            }
            return Some(known);
        }
        let mut found: Vec<_> = all.iter().filter(|one| one.over.is_none() && one.name == name).collect();
        if found.is_empty() && kind == Kind::Account {
            let is_meant = |one: &&Object| {
                one.id == name || one.label.as_deref().is_some_and(|label| label.eq_ignore_ascii_case(name))
            };
            found = all.iter().filter(is_meant).collect();
        }
        if found.len() > 1 {
            let ids: Vec<_> = found.iter().map(|one| one.id.as_str()).collect();
            let hint = if kind == Kind::Key { "declare its hash" } else { "use its name" };
            self.judge.fault(path, format!("{} are called so ({}): {hint}", found.len(), ids.join(", ")));
            return None;
        }
        Some(found.first().copied())
    }

    fn changes(&mut self, kind: Kind, name: &str, fields: &Fields, object: &Object, path: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        if fields.contains_key("hash") && object.name != name {
            let (old, new) = (object.name.as_str().into(), name.into());
            changes.push(Change { field: "name".to_owned(), old, new });
        }
        for (field, form) in kind.fields() {
            let Some(new) = fields.get(*field).filter(|_| *field != "hash") else { continue };
            if let Form::Limits = form {
                changes.extend(limit_changes(object.fields.get(*field), new));
                continue;
            }
            let old = object.fields.get(*field).unwrap_or(&Value::Null);
            if old == new {
                continue;
            }
            if kind == Kind::Key && ["user", "team", "pool", "accounts"].contains(field) {
                let problem =
                    format!("a key keeps what it was made with ({}): declare another key", written(field, old));
                self.judge.fault(&below(path, field), problem);
            }
            changes.push(Change { field: (*field).to_owned(), old: old.clone(), new: new.clone() });
        }
        changes
    }

    /// What is there and not declared, of a kind that the file has a section of. Accounts are never
    /// removed: their credentials stand in no file.
    fn removals(&self, kind: Kind) -> Vec<Step> {
        if kind == Kind::Account || self.declared.of(kind).is_none() {
            return Vec::new();
        }
        let left = self.current.of(kind).iter().filter(|one| one.over.is_none() && !self.taken.contains(&one.id));
        let step = |one: &Object| Step {
            kind,
            name: one.name.clone(),
            action: Action::Remove { id: one.id.clone(), version: one.version },
        };
        left.map(step).collect()
    }

    /// Puts the names that the gateway uses in the place of those that the file uses.
    fn resolve(&mut self, fields: &mut Fields, forms: &[Field], path: &str) {
        for (field, form) in forms {
            let Some(value) = fields.get_mut(*field) else { continue };
            let path = below(path, field);
            match (form, value) {
                (Form::One(kind), Value::String(name)) => {
                    if let Some(resolved) = self.name_of(*kind, name, &path) {
                        *name = resolved;
                    }
                }
                (Form::Many(kind), Value::Array(list)) => {
                    let mut names: Vec<String> = Vec::new();
                    for (at, one) in list.iter().enumerate() {
                        let name = one.as_str().unwrap_or_default();
                        names.extend(self.name_of(*kind, name, &format!("{path}[{at}]")));
                    }
                    names.sort();
                    names.dedup();
                    *list = names.into_iter().map(Value::from).collect();
                }
                (Form::Limits, Value::Object(limits)) => self.resolve(limits, LIMITS, &path),
                _ => {}
            }
        }
    }

    fn name_of(&mut self, kind: Kind, name: &str, path: &str) -> Option<String> {
        let all = self.current.of(kind);
        if kind != Kind::Account && self.declared.of(kind).is_some_and(|objects| objects.contains_key(name)) {
            return Some(name.to_owned());
        }
        let ways: [&dyn Fn(&Object) -> bool; 3] = [&|one| one.name == name, &|one| one.id == name, &|one| {
            one.label.as_deref().is_some_and(|label| label.eq_ignore_ascii_case(name))
        }];
        let mut found = ways.iter().map(|way| all.iter().filter(|one| way(one)).collect::<Vec<_>>());
        match found.find(|found| !found.is_empty()).unwrap_or_default().as_slice() {
            [one] => Some(self.renamed.get(&one.id).unwrap_or(&one.name).clone()),
            [] => {
                let hint =
                    if kind == Kind::Account { "; log it in first" } else { ", neither here nor at the gateway" };
                self.judge.fault(path, format!("there is no {} {name:?}{hint}", kind.word()));
                None
            }
            _ => {
                self.judge.fault(path, format!("more than one {} is called {name:?}", kind.word()));
                None
            }
        }
    }
}

/// Limits are declared as a whole: one that is not named is taken away.
fn limit_changes(old: Option<&Value>, new: &Value) -> Vec<Change> {
    let of = |limits: Option<&Value>, name: &str| limits.and_then(|all| all.get(name)).cloned().unwrap_or_default();
    let changes = LIMITS.iter().map(|(name, _)| {
        let (old, new) = (of(old, name), of(Some(new), name));
        Change { field: format!("limits.{name}"), old, new }
    });
    changes.filter(|change| change.old != change.new).collect()
}

/// A value for people.
pub(super) fn written(field: &str, value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none of them".to_owned(),
        Value::Array(list) => list.iter().map(|one| written("", one)).collect::<Vec<_>>().join(", "),
        Value::Number(number) if field.ends_with("expires_at") => {
            let at = number.as_i64().and_then(|at| time::OffsetDateTime::from_unix_timestamp(at / 1000).ok());
            let text = at.and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok());
            text.unwrap_or_else(|| number.to_string())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hash(digit: char) -> String {
        format!("sha256:{}", String::from(digit).repeat(64))
    }

    fn object(name: &str, fields: &Value) -> Object {
        let fields = fields.as_object().expect("fields").clone();
        Object { id: format!("id of {name}"), name: name.to_owned(), version: 3, fields, ..Object::default() }
    }

    fn current(kinds: impl IntoIterator<Item = (Kind, Vec<Object>)>) -> Current {
        Current { kinds: kinds.into_iter().collect() }
    }

    fn planned(declared: &Value, current: &Current, prune: bool) -> Result<Vec<String>, Vec<String>> {
        let declared = Declared::read(declared).expect("no faults");
        let line = |step: Step| {
            let what = match &step.action {
                Action::Create { fields } => format!("+ {}", Value::Object(fields.clone())),
                Action::Change { id, version, changes } => {
                    let changes: Vec<_> = changes
                        .iter()
                        .map(|one| {
                            format!(
                                "{}: {} -> {}",
                                one.field,
                                written(&one.field, &one.old),
                                written(&one.field, &one.new)
                            )
                        })
                        .collect();
                    format!("~ {id} v{version} {}", changes.join("; "))
                }
                Action::Remove { id, version } => format!("- {id} v{version}"),
                Action::Keep => "=".to_owned(),
                Action::Missing { .. } => "?".to_owned(),
            };
            format!("{} {} {what}", step.kind.word(), step.name)
        };
        match plan(&declared, current, prune) {
            Ok(steps) => Ok(steps.into_iter().map(line).collect()),
            Err(faults) => Err(faults.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn into_nothing_everything_is_made_in_an_order_that_holds() {
        let declared = json!({
            "keys": {"laptop": {"hash": hash('a'), "user": "ada"}},
            "users": {"ada": {"team": "core", "email": null}},
            "teams": {"core": {"limits": {"pools": ["night"]}}},
            "pools": {"night": {"tags": ["night"]}},
            "accounts": {"one@example.com": {"tags": ["night"]}},
            "aliases": {"fast": "gpt-5.5"},
        });
        let expected = [
            "account one@example.com ?".to_owned(),
            r#"pool night + {"tags":["night"]}"#.to_owned(),
            r#"team core + {"limits":{"pools":["night"]}}"#.to_owned(),
            r#"user ada + {"team":"core"}"#.to_owned(),
            format!(r#"key laptop + {{"hash":"{}","user":"ada"}}"#, hash('a')),
            r#"alias fast + {"target":"gpt-5.5"}"#.to_owned(),
        ];
        assert_eq!(planned(&declared, &current([]), true).expect("a plan"), expected);
    }

    #[test]
    fn what_is_as_declared_is_kept_and_what_is_not_named_is_left_alone() {
        let one = Object {
            label: Some("one@example.com".into()),
            ..object("one", &json!({"name": "one", "weight": 1.0, "tags": ["a"], "paused": true}))
        };
        let now = current([
            (Kind::Account, vec![one]),
            (Kind::Pool, vec![object("night", &json!({"accounts": ["one"], "strategy": "quota"}))]),
            (Kind::Team, vec![object("core", &json!({"suspended": true, "limits": {"max_effort": "low"}}))]),
        ]);
        let declared = json!({
            "accounts": {"One@example.com": {"weight": 1}},
            "pools": {"night": {"accounts": ["one@example.com", "one"]}},
            "teams": {"core": {}},
        });
        let expected = ["account One@example.com =", "pool night =", "team core ="];
        assert_eq!(planned(&declared, &now, true).expect("a plan"), expected);
    }

    #[test]
    fn what_names_a_renamed_account_uses_its_new_name() {
        let one = Object { label: Some("one@example.com".into()), ..object("1", &json!({"name": "1"})) };
        let now = current([(Kind::Account, vec![one])]);
        let declared = json!({
            "accounts": {"one@example.com": {"name": "first"}},
            "pools": {"p": {"accounts": ["one@example.com"]}},
        });
        let expected = ["account one@example.com ~ id of 1 v3 name: 1 -> first", r#"pool p + {"accounts":["first"]}"#];
        assert_eq!(planned(&declared, &now, false).expect("a plan"), expected);
    }

    #[test]
    fn limits_are_declared_as_a_whole() {
        let limits = json!({"limits": {"max_effort": "low", "budgets": ["5000000 tokens/day"], "expires_at": 0}});
        let now = current([(Kind::Team, vec![object("core", &limits)])]);
        let declared = json!({"teams": {"core": {"limits": {"budgets": ["$20/month", "5M/day"]}}}});
        let expected = "team core ~ id of core v3 limits.budgets: 5000000 tokens/day -> $20.00/month, 5000000 tokens/day; \
            limits.max_effort: low -> none; limits.expires_at: 1970-01-01T00:00:00Z -> none";
        assert_eq!(planned(&declared, &now, false).expect("a plan"), [expected]);
    }

    #[test]
    fn keys_are_known_by_hash_and_without_one_by_name() {
        let key = |name: &str, hash: Option<String>, over| Object { hash, over, ..object(name, &json!({})) };
        let now = current([(
            Kind::Key,
            vec![key("old-name", Some(hash('a')), None), key("ci", None, None), key("gone", None, Some("revoked"))],
        )]);
        let declared =
            json!({"keys": {"laptop": {"hash": hash('a')}, "ci": {}, "gone": {}, "new": {"hash": hash('b')}}});
        let expected = [
            "key ci =".to_owned(),
            "key gone ?".to_owned(),
            "key laptop ~ id of old-name v3 name: old-name -> laptop".to_owned(),
            format!(r#"key new + {{"hash":"{}"}}"#, hash('b')),
        ];
        assert_eq!(planned(&declared, &now, true).expect("a plan"), expected);
    }

    #[test]
    fn another_hash_is_another_key_and_the_old_one_goes_only_when_pruned() {
        let now = current([(Kind::Key, vec![Object { hash: None, ..object("ci", &json!({})) }])]);
        let declared = json!({"keys": {"ci": {"hash": hash('b')}}});
        let made = format!(r#"key ci + {{"hash":"{}"}}"#, hash('b'));
        assert_eq!(planned(&declared, &now, false).expect("a plan"), std::slice::from_ref(&made));
        assert_eq!(planned(&declared, &now, true).expect("a plan"), [made, "key ci - id of ci v3".to_owned()]);
    }

    #[test]
    fn pruning_touches_the_kinds_of_the_file_and_never_accounts() {
        let now = current([
            (Kind::Account, vec![object("one", &json!({}))]),
            (Kind::Pool, vec![object("day", &json!({}))]),
            (Kind::Team, vec![object("core", &json!({})), object("old", &json!({}))]),
            (Kind::User, vec![object("eve", &json!({}))]),
            (Kind::Alias, vec![object("fast", &json!({}))]),
        ]);
        let declared = json!({"accounts": {}, "teams": {"core": {}}, "users": {}, "aliases": {}});
        let expected =
            ["team core =", "alias fast - id of fast v3", "user eve - id of eve v3", "team old - id of old v3"];
        assert_eq!(planned(&declared, &now, true).expect("a plan"), expected);
        assert_eq!(planned(&declared, &now, false).expect("a plan"), ["team core ="]);
    }

    #[test]
    fn what_is_named_and_not_there_is_a_fault_each() {
        let revoked = Object { hash: Some(hash('a')), over: Some("revoked"), ..object("k", &json!({})) };
        let kept = Object { hash: Some(hash('b')), ..object("moved", &json!({"user": "ada"})) };
        let now = current([
            (Kind::Key, vec![revoked, kept]),
            (Kind::User, vec![object("ada", &json!({})), object("bob", &json!({}))]),
        ]);
        let declared = json!({
            "users": {"ada": {"team": "nobody"}},
            "keys": {
                "k": {"hash": hash('a')},
                "moved": {"hash": hash('b'), "user": "bob"},
                "n": {"hash": hash('c'), "accounts": ["two"], "limits": {"pools": ["night"]}},
            },
        });
        let expected = [
            "users.ada.team: there is no team \"nobody\", neither here nor at the gateway",
            "keys.k: this key is revoked for good: declare another one",
            "keys.moved.user: a key keeps what it was made with (ada): declare another key",
            "keys.n.accounts[0]: there is no account \"two\"; log it in first",
            "keys.n.limits.pools[0]: there is no pool \"night\", neither here nor at the gateway",
        ];
        assert_eq!(planned(&declared, &now, false).expect_err("faults"), expected);
    }
}
