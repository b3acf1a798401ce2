//! Rate-limit windows as the backend reports them: headers, stream events (protocol.md 5.1, 5.2).

use http::HeaderMap;
use serde::Deserialize;

/// One rate-limit window. The length tells what it is: never assume that the primary is five hours.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Window {
    /// Share used, 0–100; may exceed 100.
    pub used_percent: f64,
    /// Length in minutes.
    pub window_minutes: Option<u64>,
    /// When it resets, Unix seconds.
    pub resets_at: Option<i64>,
}

/// What one answer taught about an account's default limit family.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// The shorter window, as a rule.
    pub primary: Option<Window>,
    /// The longer window, as a rule.
    pub secondary: Option<Window>,
    /// The account's plan.
    pub plan: Option<String>,
}

impl Limits {
    /// Reads the `x-codex-*` headers; `now` (Unix seconds) turns `…-reset-after-seconds` into a time.
    pub fn from_headers(headers: &HeaderMap, now: i64) -> Self {
        Self {
            primary: window(headers, "primary", now),
            secondary: window(headers, "secondary", now),
            plan: text(headers, "x-codex-plan-type").map(str::to_owned),
        }
    }

    /// Reads a `codex.rate_limits` event; `None` when it is not of the default family or not legible.
    pub fn from_event(data: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            plan_type: Option<String>,
            #[serde(default)]
            metered_limit_name: Option<String>,
            #[serde(default)]
            limit_name: Option<String>,
            rate_limits: Windows,
        }
        #[derive(Deserialize)]
        struct Windows {
            #[serde(default)]
            primary: Option<WireWindow>,
            #[serde(default)]
            secondary: Option<WireWindow>,
        }
        #[derive(Deserialize)]
        struct WireWindow {
            used_percent: f64,
            #[serde(default)]
            window_minutes: Option<u64>,
            #[serde(default)]
            reset_at: Option<i64>,
        }
        impl From<WireWindow> for Window {
            fn from(wire: WireWindow) -> Self {
                Self { used_percent: wire.used_percent, window_minutes: wire.window_minutes, resets_at: wire.reset_at }
            }
        }
        let wire: Wire = serde_json::from_slice(data).ok()?;
        let family = wire.metered_limit_name.or(wire.limit_name).unwrap_or_else(|| "codex".into());
        (family == "codex").then(|| Self {
            primary: wire.rate_limits.primary.map(Into::into),
            secondary: wire.rate_limits.secondary.map(Into::into),
            plan: wire.plan_type,
        })
    }

    /// Reads a `wham/usage` answer (protocol.md 6.1); `None` when it is not legible.
    pub fn from_usage(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            plan_type: Option<String>,
            #[serde(default)]
            rate_limit: Option<Windows>,
        }
        #[derive(Deserialize)]
        struct Windows {
            #[serde(default)]
            primary_window: Option<WireWindow>,
            #[serde(default)]
            secondary_window: Option<WireWindow>,
        }
        #[derive(Deserialize)]
        struct WireWindow {
            used_percent: f64,
            #[serde(default)]
            limit_window_seconds: Option<u64>,
            #[serde(default)]
            reset_at: Option<i64>,
        }
        let window = |wire: WireWindow| Window {
            used_percent: wire.used_percent,
            window_minutes: wire.limit_window_seconds.map(|seconds| seconds / 60),
            resets_at: wire.reset_at,
        };
        let wire: Wire = serde_json::from_slice(body).ok()?;
        let windows = wire.rate_limit?;
        Some(Self {
            primary: windows.primary_window.map(window),
            secondary: windows.secondary_window.map(window),
            plan: wire.plan_type,
        })
    }

    /// The share used of the tightest window, 0–100 and above; `None` when nothing is known.
    pub fn used_percent(&self) -> Option<f64> {
        [self.primary, self.secondary].into_iter().flatten().map(|w| w.used_percent).reduce(f64::max)
    }

    /// When every window that is used up has reset, Unix seconds; `None` when none is used up.
    pub fn exhausted_until(&self) -> Option<i64> {
        [self.primary, self.secondary]
            .into_iter()
            .flatten()
            .filter(|w| w.used_percent >= 100.0)
            .filter_map(|w| w.resets_at)
            .max()
    }

    /// Whether the answer said nothing.
    pub fn is_empty(&self) -> bool {
        self.primary.is_none() && self.secondary.is_none()
    }
}

fn window(headers: &HeaderMap, name: &str, now: i64) -> Option<Window> {
    let used_percent =
        text(headers, &format!("x-codex-{name}-used-percent"))?.parse::<f64>().ok().filter(|p| p.is_finite())?;
    let number = |suffix: &str| text(headers, &format!("x-codex-{name}-{suffix}")).and_then(|v| v.parse::<i64>().ok());
    Some(Window {
        used_percent,
        window_minutes: number("window-minutes").and_then(|m| u64::try_from(m).ok()),
        resets_at: number("reset-at").or_else(|| number("reset-after-seconds").map(|s| now.saturating_add(s))),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), http::HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn headers_give_both_windows_and_the_tightest_counts() {
        let limits = Limits::from_headers(
            &headers(&[
                ("x-codex-primary-used-percent", "42.5"),
                ("x-codex-primary-window-minutes", "300"),
                ("x-codex-primary-reset-after-seconds", "60"),
                ("x-codex-secondary-used-percent", "100"),
                ("x-codex-secondary-reset-at", "2000"),
            ]),
            1000,
        );
        assert_eq!(
            limits.primary,
            Some(Window { used_percent: 42.5, window_minutes: Some(300), resets_at: Some(1060) })
        );
        assert_eq!(limits.used_percent(), Some(100.0));
        assert_eq!(limits.exhausted_until(), Some(2000));
    }

    #[test]
    fn illegible_headers_say_nothing() {
        assert!(Limits::from_headers(&headers(&[("x-codex-primary-used-percent", "NaN")]), 0).is_empty());
        assert!(Limits::from_headers(&HeaderMap::new(), 0).is_empty());
    }

    #[test]
    fn an_event_of_another_family_is_not_the_accounts_limit() {
        let event = br#"{"type":"codex.rate_limits","metered_limit_name":"bengalfox","rate_limits":{"primary":{"used_percent":99}}}"#;
        assert_eq!(Limits::from_event(event), None);
        let event = br#"{"type":"codex.rate_limits","rate_limits":{"primary":{"used_percent":9.5,"reset_at":7},"secondary":null}}"#;
        assert_eq!(Limits::from_event(event).and_then(|l| l.used_percent()), Some(9.5));
    }
}
