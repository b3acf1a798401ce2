//! How a key's limits stand, in words: for its holder at `/v1/me`, and for operators.

use crate::store::{BudgetUnit, GatewayKey, UnixMillis};
use crate::tenant::{self, Counted, Standing};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A key, its limits, what is used of them, and when they reset.
pub(super) fn body(key: &GatewayKey, standings: &[Standing], currency: &str) -> Value {
    let rules = tenant::limits(key).map(|(level, name, limits)| {
        json!({
            "of": level.as_str(),
            "name": name,
            "models": limits.models,
            "dialects": limits.dialects,
            "max_effort": limits.max_effort,
            "networks": limits.networks,
            "expires_at": limits.expires_at.and_then(moment),
        })
    });
    json!({
        "object": "tollway.key",
        "name": key.name,
        "prefix": key.prefix,
        "user": key.user.as_ref().map(|user| &user.name),
        "team": key.team.as_ref().map(|team| &team.name),
        "pool": key.pool.as_ref().map(|pool| &pool.name),
        "rights": key.rights.iter().map(|right| right.as_str()).collect::<Vec<_>>(),
        "expires_at": key.expires_at.and_then(moment),
        "currency": currency,
        "limits": standings.iter().map(limit).collect::<Vec<_>>(),
        "rules": rules.collect::<Vec<_>>(),
    })
}

fn limit(standing: &Standing) -> Value {
    let Standing { level, name, gauge } = standing;
    let (what, unit, per) = match gauge.what {
        Counted::Requests => ("requests", "requests", Some("minute".to_owned())),
        Counted::Tokens => ("tokens", "tokens", Some("minute".to_owned())),
        Counted::Concurrent => ("concurrent_requests", "requests", None),
        Counted::Budget(budget) => {
            let unit = if budget.unit == BudgetUnit::Cost { "cost_micros" } else { "tokens" };
            ("budget", unit, Some(budget.per.to_string()))
        }
    };
    json!({
        "of": level.as_str(), "name": name, "what": what, "unit": unit, "per": per,
        "limit": gauge.limit, "used": gauge.used, "held": gauge.held,
        "remaining": gauge.limit.saturating_sub(gauge.used), "resets_at": moment(gauge.resets_at),
    })
}

fn moment(at: UnixMillis) -> Option<String> {
    let seconds = at.div_euclid(1000) + i64::from(at.rem_euclid(1000) > 0);
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}
