//! Limits as people write them: budgets in words or in full, accounts and pools by name or id.

use super::problem::Fault;
use crate::store::{Budget, Limits, Store};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

const DIALECTS: [&str; 4] = ["responses", "chat", "messages", "images"];
/// Numbers that fit into every column and sum that they may meet.
const MOST: u64 = 1 << 53;

/// How limits look in the API's description.
#[derive(Serialize, ToSchema)]
#[schema(as = Limits)]
pub(super) struct LimitsShape {
    /// Requests within any minute.
    requests_per_minute: Option<u32>,
    /// Tokens, input and output, within any minute.
    tokens_per_minute: Option<u64>,
    /// Requests that are answered at one time.
    concurrent_requests: Option<u32>,
    /// What may be used in longer periods; may be written as `5M/day` or `$20/month` too.
    #[schema(value_type = Option<Vec<Value>>)]
    budgets: Option<Vec<Value>>,
    /// The models that may be asked; a name may end in `*`.
    models: Option<Vec<String>>,
    /// `responses`, `chat`, `messages`, `images`.
    dialects: Option<Vec<String>>,
    /// The highest reasoning effort: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`, `ultra`.
    max_effort: Option<String>,
    /// Only accounts of these pools, by id or name.
    pools: Option<Vec<String>>,
    /// Only these accounts, by id or name.
    accounts: Option<Vec<String>>,
    /// Only from these networks: `10.0.0.0/8`.
    networks: Option<Vec<String>>,
    /// From then on everything is refused: Unix milliseconds.
    expires_at: Option<i64>,
}

/// Reads limits that people wrote.
pub(super) async fn read(store: &Store, mut value: Value) -> Result<Limits, Fault> {
    if value.is_null() {
        return Ok(Limits::default());
    }
    let Some(fields) = value.as_object_mut() else { return Err(Fault::value("limits: expected an object")) };
    if let Some(unknown) = fields.keys().find(|name| !Limits::FIELDS.contains(&name.as_str())) {
        return Err(Fault::value(format!(
            "limits: there is no limit {unknown:?}; there are {}",
            Limits::FIELDS.join(", ")
        )));
    }
    fields.retain(|_, value| !value.is_null());
    for budget in fields.get_mut("budgets").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(text) = budget.as_str() {
            let read: Budget = text.parse().map_err(|error| Fault::value(format!("limits.budgets: {error}")))?;
            *budget = json!(read);
        }
    }
    for asked in fields.get_mut("accounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let found = store.accounts().find(asked.as_str().unwrap_or_default()).await;
        *asked = json!(found.map_err(|error| Fault::value(format!("limits.accounts: {error}")))?.id);
    }
    for asked in fields.get_mut("pools").and_then(Value::as_array_mut).into_iter().flatten() {
        let found = store.pools().find(asked.as_str().unwrap_or_default()).await;
        *asked = json!(found.map_err(|error| Fault::value(format!("limits.pools: {error}")))?.id);
    }
    let limits: Limits = serde_json::from_value(value).map_err(|error| Fault::value(format!("limits: {error}")))?;
    judge(&limits)?;
    Ok(limits)
}

fn judge(limits: &Limits) -> Result<(), Fault> {
    let unknown = limits.dialects.iter().flatten().find(|one| !DIALECTS.contains(&one.as_str()));
    if let Some(unknown) = unknown {
        return Err(Fault::value(format!("limits.dialects: {unknown:?} is none of {}", DIALECTS.join(", "))));
    }
    let numbers = limits.tokens_per_minute.into_iter().chain(limits.budgets.iter().map(|budget| budget.amount));
    if numbers.into_iter().any(|number| number > MOST) {
        return Err(Fault::value("limits: a number is too large"));
    }
    if limits.budgets.len() > 20 || limits.models.as_ref().is_some_and(|models| models.len() > 500) {
        return Err(Fault::value("limits: at most 20 budgets and 500 models"));
    }
    Ok(())
}
