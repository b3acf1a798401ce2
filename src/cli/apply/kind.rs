//! What can be declared: kinds of objects, their fields, and how each field is written. Both what a
//! file says and what a gateway says are read by these forms into one way of writing it, so that
//! they can be compared.

use super::file::Judge;
use crate::store::{self, Budget};
use crate::tenant::KeyDigest;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A kind of object, in the order in which they are made: each may name those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Account,
    Pool,
    Team,
    User,
    Key,
    Alias,
}

/// A field and how it is written.
pub(super) type Field = (&'static str, Form);

/// How a value is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// A name that must be there.
    Name,
    /// A line of text, or nothing.
    Line,
    Truth,
    /// A number from 0 to 1000000.
    Weight,
    /// A whole number of 32 bits.
    Whole,
    /// A whole number from 0 to this.
    Count(u64),
    /// A set of words without spaces.
    Tags,
    /// A set of lines.
    Lines,
    Strategy,
    Rights,
    Dialects,
    Effort,
    Budgets,
    Networks,
    /// The hash of a key.
    Hash,
    /// RFC 3339 or Unix milliseconds, or nothing.
    Moment,
    /// A model that an alias stands for.
    Target,
    /// An object of this kind, or none.
    One(Kind),
    /// Some objects of this kind.
    Many(Kind),
    Limits,
}

/// What the admin API takes for a number at most.
const MOST: u64 = 1 << 53;
const DIALECTS: [&str; 4] = ["responses", "chat", "messages", "images"];

/// The fields of limits.
pub(super) const LIMITS: &[Field] = &[
    ("requests_per_minute", Form::Count(u32::MAX as u64)),
    ("tokens_per_minute", Form::Count(MOST)),
    ("concurrent_requests", Form::Count(u32::MAX as u64)),
    ("budgets", Form::Budgets),
    ("models", Form::Lines),
    ("dialects", Form::Dialects),
    ("max_effort", Form::Effort),
    ("pools", Form::Many(Kind::Pool)),
    ("accounts", Form::Many(Kind::Account)),
    ("networks", Form::Networks),
    ("expires_at", Form::Moment),
];

impl Kind {
    pub(super) const ALL: [Self; 6] = [Self::Account, Self::Pool, Self::Team, Self::User, Self::Key, Self::Alias];

    /// Its section in the file, and its address in the admin API.
    pub(super) const fn section(self) -> &'static str {
        match self {
            Self::Account => "accounts",
            Self::Pool => "pools",
            Self::Team => "teams",
            Self::User => "users",
            Self::Key => "keys",
            Self::Alias => "aliases",
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Pool => "pool",
            Self::Team => "team",
            Self::User => "user",
            Self::Key => "key",
            Self::Alias => "alias",
        }
    }

    /// What may be said of one.
    pub(super) const fn fields(self) -> &'static [Field] {
        match self {
            Self::Account => &[
                ("name", Form::Name),
                ("paused", Form::Truth),
                ("weight", Form::Weight),
                ("priority", Form::Whole),
                ("tags", Form::Tags),
            ],
            Self::Pool => {
                &[("strategy", Form::Strategy), ("tags", Form::Tags), ("accounts", Form::Many(Self::Account))]
            }
            Self::Team => &[("suspended", Form::Truth), ("limits", Form::Limits)],
            Self::User => &[
                ("email", Form::Line),
                ("team", Form::One(Self::Team)),
                ("suspended", Form::Truth),
                ("limits", Form::Limits),
            ],
            Self::Key => &[
                ("hash", Form::Hash),
                ("user", Form::One(Self::User)),
                ("team", Form::One(Self::Team)),
                ("pool", Form::One(Self::Pool)),
                ("accounts", Form::Many(Self::Account)),
                ("rights", Form::Rights),
                ("limits", Form::Limits),
                ("expires_at", Form::Moment),
            ],
            Self::Alias => &[("target", Form::Target)],
        }
    }
}

impl Form {
    /// The one way of writing what `value` says; what cannot be read is a fault.
    pub(super) fn read(self, value: &Value, path: &str, judge: &mut Judge) -> Option<Value> {
        match self {
            Self::Name => line(value, path, judge).filter(|text| !text.is_empty()).map(Value::from).or_else(|| {
                judge.unless_told(path, "expected text that is not empty");
                None
            }),
            Self::Line | Self::One(_) => match value {
                Value::Null => Some(Value::Null),
                _ => line(value, path, judge).map(|text| if text.is_empty() { Value::Null } else { text.into() }),
            },
            Self::Truth => judge.expect(value.as_bool().map(Value::from), path, "expected true or false"),
            Self::Weight => {
                let weight = value.as_f64().filter(|weight| (0.0..=1e6).contains(weight));
                judge.expect(weight.map(Value::from), path, "expected a number from 0 to 1000000")
            }
            Self::Whole => {
                let whole = value.as_i64().and_then(|whole| i32::try_from(whole).ok());
                judge.expect(whole.map(Value::from), path, "expected a whole number")
            }
            Self::Count(most) => {
                let count = value.as_u64().filter(|count| *count <= most);
                judge.expect(count.map(Value::from), path, &format!("expected a whole number from 0 to {most}"))
            }
            Self::Strategy => parsed(value, path, judge, |strategy: store::Strategy| strategy.as_str().into()),
            Self::Effort => parsed(value, path, judge, |effort: store::Effort| effort.as_str().into()),
            Self::Hash => parsed(value, path, judge, |digest: KeyDigest| digest.to_string().into()),
            Self::Moment => moment(value, path, judge),
            Self::Target => target(value, path, judge),
            Self::Tags => set(value, path, judge, |one, path, judge| {
                let word = line(one, path, judge)?;
                let fits = !word.is_empty() && word.len() <= 100 && !word.contains(char::is_whitespace);
                judge.expect(fits.then(|| word.into()), path, "a tag is one word of at most 100 characters")
            }),
            Self::Lines | Self::Many(_) => {
                set(value, path, judge, |one, path, judge| Self::Name.read(one, path, judge))
            }
            Self::Rights => set(value, path, judge, |one, path, judge| {
                parsed(one, path, judge, |right: store::Right| right.as_str().into())
            }),
            Self::Dialects => set(value, path, judge, |one, path, judge| {
                let known = DIALECTS.iter().find(|dialect| one.as_str() == Some(dialect)).copied();
                judge.expect(known.map(Value::from), path, &format!("expected one of {}", DIALECTS.join(", ")))
            }),
            Self::Networks => set(value, path, judge, |one, path, judge| {
                let network = one.as_str().and_then(|text| text.parse::<IpNet>().ok());
                judge.expect(network.map(|net| net.to_string().into()), path, "expected a network such as 10.0.0.0/8")
            }),
            Self::Budgets => set(value, path, judge, budget),
            Self::Limits => {
                let mut said = judge.expect(value.as_object(), path, "expected a table")?.clone();
                // What is not limited need not be said.
                said.retain(|name, limit| !limit.is_null() && (name != "budgets" || *limit != json!([])));
                judge.fields(&Value::Object(said), path, LIMITS).map(Value::Object)
            }
        }
    }

    /// The same for what a gateway says: what cannot be read is taken as it is.
    pub(super) fn of_gateway(self, value: &Value) -> Value {
        self.read(value, "", &mut Judge::default()).unwrap_or_else(|| value.clone())
    }
}

fn line(value: &Value, path: &str, judge: &mut Judge) -> Option<String> {
    let text = value.as_str().filter(|text| text.chars().count() <= 320 && !text.chars().any(char::is_control));
    judge.expect(text.map(|text| text.trim().to_owned()), path, "expected text of at most 320 characters")
}

fn parsed<T>(value: &Value, path: &str, judge: &mut Judge, write: impl Fn(T) -> Value) -> Option<Value>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    match value.as_str().unwrap_or_default().parse() {
        Ok(read) => Some(write(read)),
        Err(error) => judge.expect(None, path, &error.to_string()),
    }
}

/// A list in which neither order nor repetition counts.
fn set(
    value: &Value,
    path: &str,
    judge: &mut Judge,
    read: impl Fn(&Value, &str, &mut Judge) -> Option<Value>,
) -> Option<Value> {
    let list = judge.expect(value.as_array(), path, "expected a list")?;
    let read = list.iter().enumerate().filter_map(|(at, one)| read(one, &format!("{path}[{at}]"), judge));
    let mut read: Vec<Value> = read.collect();
    read.sort_by_key(ToString::to_string);
    read.dedup();
    Some(Value::Array(read))
}

/// In words, as the command line takes it, or in full, as the admin API gives it.
fn budget(value: &Value, path: &str, judge: &mut Judge) -> Option<Value> {
    let read = match value {
        Value::String(text) => text.parse::<Budget>().map_err(|error| error.to_string()),
        other => serde_json::from_value(other.clone()).map_err(|error| error.to_string()),
    };
    match read {
        Ok(budget) if budget.amount <= MOST => Some(budget.to_string().into()),
        Ok(_) => judge.expect(None, path, "the amount is too large"),
        Err(problem) => judge.expect(None, path, &problem),
    }
}

fn moment(value: &Value, path: &str, judge: &mut Judge) -> Option<Value> {
    let read = match value {
        Value::Null => return Some(Value::Null),
        Value::String(text) if text.is_empty() => return Some(Value::Null),
        Value::String(text) => OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .and_then(|at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()),
        other => other.as_i64(),
    };
    judge.expect(read.map(Value::from), path, "expected a time such as 2027-01-31T00:00:00Z, or Unix milliseconds")
}

fn target(value: &Value, path: &str, judge: &mut Judge) -> Option<Value> {
    let text = line(value, path, judge)?;
    let (slug, effort) = text.split_once(':').unwrap_or((&text, "any"));
    let fits = !slug.is_empty() && !effort.is_empty();
    judge.expect(fits.then(|| text.clone().into()), path, "expected a model, as `slug` or `slug:effort`")
}

/// Fields by name.
pub(super) type Fields = Map<String, Value>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_every_limit_that_there_is() {
        let names: Vec<_> = LIMITS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, crate::store::Limits::FIELDS);
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (form, one, other) in [
            (
                Form::Budgets,
                json!(["5M/day", "$20/month"]),
                json!([
                    {"unit": "cost", "amount": 20_000_000, "per": "month"},
                    {"unit": "tokens", "amount": 5_000_000, "per": "day"},
                ]),
            ),
            (Form::Moment, json!("2027-01-31T01:00:00+01:00"), json!(1_801_353_600_000_i64)),
            (Form::Tags, json!(["b", "a", "b"]), json!(["a", "b"])),
            (Form::Networks, json!(["2001:DB8::/32"]), json!(["2001:db8::/32"])),
            (Form::Weight, json!(2), json!(2.0)),
            (Form::Line, json!(""), Value::Null),
            (Form::Limits, json!({"budgets": [], "models": ["x"]}), json!({"models": ["x"], "max_effort": null})),
        ] {
            let mut judge = Judge::default();
            let (one, other) = (form.read(&one, "", &mut judge), form.read(&other, "", &mut judge));
            assert!(one.is_some() && one == other && judge.is_content(), "{form:?}: {one:?} {other:?}");
        }
    }
}
