//! Names that are no setting, and the nearest one that is.

use super::fault::Fault;
use super::field::Field;
use figment::value::Dict;

/// Below this, a suggestion would puzzle more than it helps.
const NEAR: f64 = 0.8;

/// A fault for every key of a file's table that is no setting.
pub(super) fn keys_of(table: &Dict, origin: &str, fields: &[Field]) -> Vec<Fault> {
    let mut faults = Vec::new();
    walk(table, "", origin, fields, &mut faults);
    faults
}

fn walk(table: &Dict, prefix: &str, origin: &str, fields: &[Field], faults: &mut Vec<Fault>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if fields.iter().any(|field| field.key == key) {
            continue;
        }
        match value.as_dict() {
            Some(inner) if sections(fields).any(|section| section == key) => {
                walk(inner, &format!("{key}."), origin, fields, faults);
            }
            Some(_) => faults.push(Fault::new(&key, origin, no_such("section", nearest_section(&key, fields)))),
            None => faults.push(key_fault(&key, origin, fields)),
        }
    }
}

/// The fault of a key that is no setting.
pub(super) fn key_fault(key: &str, origin: &str, fields: &[Field]) -> Fault {
    let problem = if sections(fields).any(|section| section == key) {
        format!("is a section, not a setting; its settings are named `{key}.…`")
    } else {
        no_such("setting", nearest(key, fields))
    };
    Fault::new(key, origin, problem)
}

fn no_such(what: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("there is no such {what}; did you mean `{name}`?"),
        None => format!("there is no such {what}"),
    }
}

fn sections(fields: &[Field]) -> impl Iterator<Item = &str> {
    fields.iter().filter_map(|field| Some(field.key.split_once('.')?.0))
}

fn nearest_section<'a>(key: &str, fields: &'a [Field]) -> Option<&'a str> {
    best(sections(fields).map(|section| (strsim::jaro_winkler(key, section), section)))
}

/// By the whole key, or by its last part alone: that finds a setting in the wrong section.
fn nearest<'a>(key: &str, fields: &'a [Field]) -> Option<&'a str> {
    best(fields.iter().map(|field| {
        let same_name = if last_part(key) == last_part(field.key) { 0.95 } else { 0.0 };
        (strsim::jaro_winkler(key, field.key).max(same_name), field.key)
    }))
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn best<'a>(candidates: impl Iterator<Item = (f64, &'a str)>) -> Option<&'a str> {
    candidates.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(near, _)| *near > NEAR).map(|(_, name)| name)
}
