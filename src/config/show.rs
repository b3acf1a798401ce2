//! What `config show` and the reference page print.

use super::field::{Field, origin};
use figment::Figment;
use figment::value::Value;
use std::fmt::Write;

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The key.
    pub key: &'static str,
    /// The value as one would write it in the file; `[redacted]` for a secret; empty when not set.
    pub value: String,
    /// `default`, `file …`, `env …`, `flag …`.
    pub origin: String,
}

pub(super) fn show(layers: &Figment, fields: &[Field]) -> Vec<Shown> {
    fields
        .iter()
        .map(|field| {
            let value = layers.find_value(field.key).ok();
            let origin = if value.is_some() { origin(layers, field.key) } else { "not set".to_owned() };
            let value = match value {
                None => String::new(),
                Some(_) if field.secret => "[redacted]".to_owned(),
                Some(value) => written(&value),
            };
            Shown { key: field.key, value, origin }
        })
        .collect()
}

fn written(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Dict(_, table) => {
            let entries: Vec<_> =
                table.iter().map(|(name, value)| format!("{name:?} = {:?}", written(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// The reference page, Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         This page is printed by `tollway config reference`; a test compares the two.\n\n\
         Values come from, weakest first: the defaults below, a TOML file (`--config`, `TOLLWAY_CONFIG`, \
         `./tollway.toml`, `/etc/tollway/tollway.toml`; the first that is there), `TOLLWAY_*` variables, flags. \
         In a variable `__` stands for the dot: `TOLLWAY_SERVER__LISTEN` is `server.listen`. A secret may also be \
         read from a file that a variable with `_FILE` at its end names: `TOLLWAY_MASTER_KEY_FILE`. \
         An unknown name is refused. `tollway config check` reports every fault at once, \
         `tollway config show` every value and where it comes from.\n\n\
         | setting | value | default | meaning |\n|---|---|---|---|\n",
    );
    for field in super::fields() {
        let default = field.default.map_or_else(|| "–".to_owned(), |d| format!("`{d}`"));
        let secret = if field.secret { " (secret)" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{}` | {}{secret} | {default} | {} |", field.key, field.kind, field.doc);
    }
    page
}
