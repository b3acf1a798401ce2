//! What `config show` and the reference page print.

use super::field::Field;
use figment::Figment;
use figment::value::Value;
use std::fmt::Write;

/// One setting as it is in force; of a table, one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The key, as one would write it in the file: `models.aliases."claude-*"`.
    pub key: String,
    /// The value as one would write it in the file; `[redacted]` for a secret; empty when not set.
    pub value: String,
    /// `default`, `file …`, `env …`, `flag …`, `not set`.
    pub origin: String,
}

pub(super) fn show(layers: &Figment, fields: &[Field]) -> Vec<Shown> {
    fields.iter().flat_map(|field| show_field(layers, field)).collect()
}

fn show_field(layers: &Figment, field: &Field) -> Vec<Shown> {
    let row = |key: String, value: &Value| Shown {
        key,
        value: if field.secret { "[redacted]".to_owned() } else { written(value) },
        origin: layers.get_metadata(value.tag()).map_or_else(|| "default".to_owned(), |from| from.name.to_string()),
    };
    match layers.find_value(field.key) {
        Ok(Value::Dict(_, table)) if field.table && !table.is_empty() => {
            table.iter().map(|(name, value)| row(format!("{}.{}", field.key, key_part(name)), value)).collect()
        }
        Ok(value) => vec![row(field.key.to_owned(), &value)],
        Err(_) => vec![Shown { key: field.key.to_owned(), value: String::new(), origin: "not set".to_owned() }],
    }
}

/// A part of a key, in quotes where TOML wants them.
fn key_part(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { format!("{name:?}") }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
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
         An entry of a table has a variable too, `TOLLWAY_MODELS__ALIASES__FAST`, and several fit into one: \
         `TOLLWAY_OTLP__HEADERS=x-api-key=…,x-team=…`. \
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
