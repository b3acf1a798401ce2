//! Reads what a gateway has, and makes it as the file says: both through the admin API.

use super::file::Declared;
use super::kind::{Field, Fields, Form, Kind, LIMITS};
use super::plan::{Action, Change, Current, Object, Step};
use crate::cli::gateway::{Call, Gateway};
use anyhow::{Context, Result, anyhow, bail};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Reads the kinds that a file is concerned with.
pub(super) async fn read(gateway: &Gateway, declared: &Declared) -> Result<Current> {
    let mut raw = BTreeMap::new();
    for kind in declared.concerns() {
        raw.insert(kind, list(gateway, kind).await?);
    }
    let mut names = BTreeMap::new();
    for kind in [Kind::Account, Kind::Pool] {
        for one in raw.get(&kind).into_iter().flatten() {
            names.insert(text(one, "id"), text(one, "name"));
        }
    }
    let mut current = Current::default();
    for (kind, all) in &raw {
        current.kinds.insert(*kind, all.iter().map(|one| object(*kind, one, &names)).collect());
    }
    for hash in declared.hashes() {
        let id = id_of(gateway, hash).await?;
        let keys = current.kinds.get_mut(&Kind::Key).into_iter().flatten();
        for key in keys.filter(|key| id.as_ref() == Some(&key.id)) {
            key.hash = Some(hash.to_owned());
        }
    }
    Ok(current)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

async fn list(gateway: &Gateway, kind: Kind) -> Result<Vec<Value>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/{}?limit=500{cursor}", kind.section());
        let page = answer(gateway, Call { path, ..Call::default() }).await?;
        all.extend(page["data"].as_array().cloned().unwrap_or_default());
        let Some(next) = page["next_cursor"].as_str() else { return Ok(all) };
        cursor = format!("&cursor={next}");
    }
}

/// The id of the key of this hash.
async fn id_of(gateway: &Gateway, hash: &str) -> Result<Option<String>> {
    let (status, body) = gateway.call(Call { path: format!("/keys/{hash}"), ..Call::default() }).await?;
    match status {
        StatusCode::NOT_FOUND => Ok(None),
        status => Ok(Some(text(&legible(status, &body)?, "id"))),
    }
}

async fn answer(gateway: &Gateway, call: Call) -> Result<Value> {
    let (status, body) = gateway.call(call).await?;
    legible(status, &body)
}

fn legible(status: StatusCode, body: &[u8]) -> Result<Value> {
    let value: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap_or_default() };
    if status.is_success() {
        return Ok(value);
    }
    let said = value["detail"].as_str().map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    Err(anyhow!("{said}").context(format!("the admin API answered {status}")))
}

fn object(kind: Kind, one: &Value, names: &BTreeMap<String, String>) -> Object {
    let revoked = (!one["revoked_at"].is_null()).then_some("revoked");
    let over = revoked.or((!one["rotated_to"].is_null()).then_some("rotated"));
    let mut one = one.clone();
    if kind == Kind::Key {
        // What it was bound to, whatever its limits leave of that.
        one["accounts"] = one["bound_to"].clone();
    }
    Object {
        id: text(&one, "id"),
        name: text(&one, "name"),
        label: one["email"].as_str().map(str::to_owned),
        version: one["version"].as_i64().unwrap_or_default(),
        fields: fields(&one, kind.fields(), names),
        hash: None,
        over,
    }
}

/// What a gateway says of an object, with names in the place of ids.
fn fields(one: &Value, forms: &[Field], names: &BTreeMap<String, String>) -> Fields {
    let mut fields = Fields::new();
    for (field, form) in forms {
        let value = match (form, &one[*field]) {
            (_, Value::Null) => continue,
            (Form::Limits, limits) => Value::Object(self::fields(limits, LIMITS, names)),
            (Form::Many(_), Value::Array(ids)) => {
                let name = |id: &Value| {
                    names.get(id.as_str().unwrap_or_default()).map_or_else(|| id.clone(), |name| name.as_str().into())
                };
                ids.iter().map(name).collect()
            }
            (_, value) => value.clone(),
        };
        fields.insert((*field).to_owned(), form.of_gateway(&value));
    }
    fields
}

/// Takes one step. `once` is the same when it is taken again.
pub(super) async fn take(gateway: &Gateway, step: &Step, once: &str) -> Result<()> {
    let section = step.kind.section();
    let call = match &step.action {
        Action::Create { fields } => {
            let mut body = fields.clone();
            body.insert("name".to_owned(), step.name.as_str().into());
            let (body, idempotency_key) = (Some(Value::Object(body).to_string()), Some(once.to_owned()));
            let path = format!("/{section}");
            Call { method: Method::POST, path, body, idempotency_key, ..Call::default() }
        }
        Action::Change { id, version, changes } => {
            let body = Some(patch(changes).to_string());
            let (path, if_match) = (format!("/{section}/{id}"), Some(format!("\"v{version}\"")));
            Call { method: Method::PATCH, path, body, if_match, ..Call::default() }
        }
        Action::Remove { id, version } => {
            let (path, if_match) = (format!("/{section}/{id}"), Some(format!("\"v{version}\"")));
            Call { method: Method::DELETE, path, if_match, ..Call::default() }
        }
        Action::Keep | Action::Missing { .. } => return Ok(()),
    };
    let (status, body) = gateway.call(call).await?;
    if status == StatusCode::PRECONDITION_FAILED {
        bail!("somebody else changed it since the plan was made; run it again for a new plan");
    }
    legible(status, &body).map(drop).context("it was refused")
}

/// The merge patch of changes.
fn patch(changes: &[Change]) -> Value {
    let (mut body, mut limits) = (Map::new(), Map::new());
    for change in changes {
        match change.field.strip_prefix("limits.") {
            Some(limit) => limits.insert(limit.to_owned(), change.new.clone()),
            None => body.insert(change.field.clone(), change.new.clone()),
        };
    }
    if !limits.is_empty() {
        body.insert("limits".to_owned(), json!(limits));
    }
    Value::Object(body)
}
