//! The JSON in which limits come.

use super::{Credits, FAMILIES, Limits, OWN, Pair, Window, family_id};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    plan_type: Option<String>,
    #[serde(default)]
    metered_limit_name: Option<String>,
    #[serde(default)]
    limit_name: Option<String>,
    #[serde(default)]
    rate_limits: Option<EventWindows>,
    #[serde(default)]
    credits: Option<Credits>,
}

#[derive(Deserialize)]
struct EventWindows {
    #[serde(default)]
    primary: Option<EventWindow>,
    #[serde(default)]
    secondary: Option<EventWindow>,
}

#[derive(Deserialize)]
struct EventWindow {
    used_percent: f64,
    #[serde(default)]
    window_minutes: Option<u64>,
    #[serde(default)]
    reset_at: Option<i64>,
}

impl From<EventWindow> for Window {
    fn from(wire: EventWindow) -> Self {
        Self { used_percent: wire.used_percent, window_minutes: wire.window_minutes, resets_at: wire.reset_at }
    }
}

/// protocol.md 5.2.
pub(super) fn event(data: &[u8]) -> Option<Limits> {
    let wire: Event = serde_json::from_slice(data).ok()?;
    let windows = wire.rate_limits?;
    let (primary, secondary) = (windows.primary.map(Into::into), windows.secondary.map(Into::into));
    let family =
        wire.metered_limit_name.or_else(|| wire.limit_name.clone()).map_or_else(|| OWN.into(), |f| family_id(&f));
    let limits = Limits { plan: wire.plan_type, credits: wire.credits, ..Limits::default() };
    Some(if family == OWN {
        Limits { primary, secondary, ..limits }
    } else {
        let pair = Pair { name: wire.limit_name, primary, secondary };
        Limits { families: [(family, pair)].into(), credits: None, ..limits }
    })
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    plan_type: Option<String>,
    #[serde(default)]
    rate_limit: Option<UsageWindows>,
    #[serde(default)]
    additional_rate_limits: Option<Vec<Additional>>,
    #[serde(default, rename = "model_usage")]
    models: Option<BTreeMap<String, ModelUsage>>,
    #[serde(default)]
    credits: Option<Credits>,
}

#[derive(Deserialize)]
struct UsageWindows {
    #[serde(default)]
    allowed: Option<bool>,
    #[serde(default)]
    limit_reached: Option<bool>,
    #[serde(default)]
    primary_window: Option<UsageWindow>,
    #[serde(default)]
    secondary_window: Option<UsageWindow>,
}

#[derive(Deserialize)]
struct UsageWindow {
    used_percent: f64,
    #[serde(default)]
    limit_window_seconds: Option<u64>,
    #[serde(default)]
    reset_at: Option<i64>,
}

#[derive(Deserialize)]
struct Additional {
    #[serde(default)]
    limit_name: Option<String>,
    #[serde(default)]
    metered_feature: Option<String>,
    #[serde(default)]
    rate_limit: Option<UsageWindows>,
}

#[derive(Deserialize)]
struct ModelUsage {
    #[serde(default = "yes")]
    available: bool,
    #[serde(default, deserialize_with = "time")]
    available_at: Option<i64>,
}

fn yes() -> bool {
    true
}

impl From<UsageWindow> for Window {
    fn from(wire: UsageWindow) -> Self {
        Self {
            used_percent: wire.used_percent,
            window_minutes: wire.limit_window_seconds.map(|seconds| seconds / 60),
            resets_at: wire.reset_at,
        }
    }
}

impl Additional {
    fn family(self) -> Option<(String, Pair)> {
        let id = family_id(self.metered_feature.as_deref().or(self.limit_name.as_deref())?);
        let windows = self.rate_limit?;
        let (primary, secondary) = (windows.primary_window.map(Into::into), windows.secondary_window.map(Into::into));
        Some((id, Pair { name: self.limit_name, primary, secondary }))
    }
}

/// protocol.md 6.1.
pub(super) fn usage(body: &[u8]) -> Option<Limits> {
    let wire: Usage = serde_json::from_slice(body).ok()?;
    let windows = wire.rate_limit?;
    let refused = windows.limit_reached.unwrap_or_default();
    let families = wire.additional_rate_limits.unwrap_or_default().into_iter();
    // A model that is gone for nobody knows how long is asked for again in a while.
    let closed = |usage: ModelUsage| (!usage.available).then(|| usage.available_at.unwrap_or_default());
    Some(Limits {
        primary: windows.primary_window.map(Into::into),
        secondary: windows.secondary_window.map(Into::into),
        plan: wire.plan_type,
        credits: wire.credits,
        families: families.filter_map(Additional::family).take(FAMILIES).collect(),
        active_family: None,
        models: wire.models.unwrap_or_default().into_iter().map(|(slug, usage)| (slug, closed(usage))).collect(),
        allowed: windows.allowed.map(|allowed| allowed && !refused),
    })
}

/// A time in Unix seconds; text and other things are not known.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(serde_json::Value::deserialize(from)?.as_i64())
}

/// Balances come as text and as numbers.
pub(super) fn number_or_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) if !text.is_empty() => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_another_family_is_not_the_accounts_limit() {
        let data = br#"{"metered_limit_name":"bengalfox","rate_limits":{"primary":{"used_percent":99}}}"#;
        let limits = event(data).expect("legible");
        assert_eq!((limits.used_percent(), limits.families.len()), (None, 1));
        let data = br#"{"rate_limits":{"primary":{"used_percent":9.5,"reset_at":7},"secondary":null},"credits":{"has_credits":true,"unlimited":false,"balance":12.5}}"#;
        let limits = event(data).expect("legible");
        assert_eq!(limits.used_percent(), Some(9.5));
        assert_eq!(limits.credits.and_then(|credits| credits.balance).as_deref(), Some("12.5"));
    }

    #[test]
    fn usage_tells_of_windows_families_models_and_credits() {
        let body = br#"{"plan_type":"pro","rate_limit":{"allowed":true,"limit_reached":false,
            "primary_window":{"used_percent":12,"limit_window_seconds":18000,"reset_after_seconds":5,"reset_at":7},"secondary_window":null},
            "additional_rate_limits":[{"limit_name":"Spark","metered_feature":"codex-bengalfox","rate_limit":{"primary_window":{"used_percent":100,"limit_window_seconds":60,"reset_at":9}}}],
            "model_usage":{"a":{"available":false,"available_at":99,"credits_would_enable":true},"b":{"available":true,"available_at":null}},
            "credits":{"has_credits":false,"unlimited":false,"balance":"0"}}"#;
        let limits = usage(body).expect("legible");
        assert_eq!(limits.primary, Some(Window { used_percent: 12.0, window_minutes: Some(300), resets_at: Some(7) }));
        assert_eq!(limits.families["codex_bengalfox"].primary.map(|window| window.used_percent), Some(100.0));
        assert_eq!(limits.models, [("a".to_owned(), Some(99)), ("b".to_owned(), None)].into());
        assert_eq!((limits.allowed, limits.credits.map(|credits| credits.has_credits)), (Some(true), Some(false)));
    }

    #[test]
    fn what_is_no_usage_is_not_read_as_one() {
        for body in [&b"{}"[..], b"[]", br#"{"rate_limit":null}"#, br#"{"rate_limit":{"primary_window":7}}"#] {
            assert_eq!(usage(body), None);
        }
    }
}
