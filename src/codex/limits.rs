//! Rate limits as the backend reports them: headers, stream events, the usage endpoint
//! (protocol.md 5.1, 5.2, 6.1). What a report means is not decided here.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod wire;

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

/// The windows of a family of models that is counted apart from the account's own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pair {
    /// What the backend calls it to people.
    pub name: Option<String>,
    /// The shorter window, as a rule.
    pub primary: Option<Window>,
    /// The longer window, as a rule.
    pub secondary: Option<Window>,
}

/// Credits, which go on where windows end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credits {
    /// Whether there are any.
    #[serde(default)]
    pub has_credits: bool,
    /// Whether they never end.
    #[serde(default)]
    pub unlimited: bool,
    /// How many, as the backend writes it.
    #[serde(default, deserialize_with = "wire::number_or_text")]
    pub balance: Option<String>,
}

/// What one report says about an account.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// The shorter window, as a rule.
    pub primary: Option<Window>,
    /// The longer window, as a rule.
    pub secondary: Option<Window>,
    /// The account's plan.
    pub plan: Option<String>,
    /// Its credits.
    pub credits: Option<Credits>,
    /// Families that are counted apart, by id.
    pub families: BTreeMap<String, Pair>,
    /// The family of `families` that this answer was counted in, where it is not the account's own.
    pub active_family: Option<String>,
    /// Models that are not to be had, with when they are again (Unix seconds); `None` for those that
    /// are to be had.
    pub models: BTreeMap<String, Option<i64>>,
    /// Whether the account serves, where the backend says so.
    pub allowed: Option<bool>,
}

/// The account's own family.
const OWN: &str = "codex";
/// Families of one report; headers are the backend's, and still not to be trusted with memory.
const FAMILIES: usize = 16;
const USED: &str = "-primary-used-percent";
/// The headers that tell of one window.
#[derive(Debug)]
pub struct WindowHeaders {
    /// The share used, 0–100.
    pub used_percent: HeaderName,
    /// How long it is, minutes.
    pub window_minutes: HeaderName,
    /// When it resets, Unix seconds.
    pub reset_at: HeaderName,
    /// When it resets, seconds from now.
    pub reset_after_seconds: HeaderName,
}

/// Those of the account's own windows, the primary one first: every answer has them, so the names are not made
/// anew each time.
pub static OWN_HEADERS: [WindowHeaders; 2] = [
    WindowHeaders {
        used_percent: HeaderName::from_static("x-codex-primary-used-percent"),
        window_minutes: HeaderName::from_static("x-codex-primary-window-minutes"),
        reset_at: HeaderName::from_static("x-codex-primary-reset-at"),
        reset_after_seconds: HeaderName::from_static("x-codex-primary-reset-after-seconds"),
    },
    WindowHeaders {
        used_percent: HeaderName::from_static("x-codex-secondary-used-percent"),
        window_minutes: HeaderName::from_static("x-codex-secondary-window-minutes"),
        reset_at: HeaderName::from_static("x-codex-secondary-reset-at"),
        reset_after_seconds: HeaderName::from_static("x-codex-secondary-reset-after-seconds"),
    },
];

impl Limits {
    /// Reads the `x-codex-*` headers, and those of other families; `now` (Unix seconds) turns
    /// `…-reset-after-seconds` into a time.
    pub fn from_headers(headers: &HeaderMap, now: i64) -> Self {
        let families: BTreeMap<_, _> = headers
            .keys()
            .filter_map(|name| name.as_str().strip_prefix("x-")?.strip_suffix(USED))
            .filter(|prefix| *prefix != OWN)
            .take(FAMILIES)
            .map(|prefix| (family_id(prefix), pair(headers, prefix, now)))
            .collect();
        let [primary, secondary] = own(headers, now);
        let active = text(headers, "x-codex-active-limit").map(family_id);
        Self {
            primary,
            secondary,
            plan: text(headers, "x-codex-plan-type").map(str::to_owned),
            credits: credits(headers),
            // A name that no windows belong to is another name for the account's own.
            active_family: active.and_then(|id| families.keys().find(|known| is_family(known, &id)).cloned()),
            families,
            ..Self::default()
        }
    }

    /// Reads a `codex.rate_limits` event; `None` when it is not legible.
    pub fn from_event(data: &[u8]) -> Option<Self> {
        wire::event(data)
    }

    /// Reads a `wham/usage` answer (protocol.md 6.1); `None` when it is not legible.
    pub fn from_usage(body: &[u8]) -> Option<Self> {
        wire::usage(body)
    }

    /// The share used of the tightest window, 0–100 and above; `None` when nothing is known.
    pub fn used_percent(&self) -> Option<f64> {
        [self.primary, self.secondary].into_iter().flatten().map(|w| w.used_percent).reduce(f64::max)
    }

    /// When every window that is used up has reset, Unix seconds, of the family that the answer was
    /// counted in; `None` when none is used up.
    pub fn exhausted_until(&self) -> Option<i64> {
        let active = self.active_family.as_ref().and_then(|id| self.families.get(id));
        let windows = active.map_or([self.primary, self.secondary], |pair| [pair.primary, pair.secondary]);
        windows.into_iter().flatten().filter(|w| w.used_percent >= 100.0).filter_map(|w| w.resets_at).max()
    }

    /// Whether the report said nothing.
    pub fn is_empty(&self) -> bool {
        self.primary.is_none() && self.secondary.is_none() && self.families.is_empty() && self.models.is_empty()
    }
}

/// `codex_bengalfox` and `bengalfox` are one family: headers carry the one, the active limit the other.
fn is_family(known: &str, asked: &str) -> bool {
    known == asked || known.strip_prefix("codex_") == Some(asked) || asked.strip_prefix("codex_") == Some(known)
}

/// Ids are written with either stroke (protocol.md 5.1).
fn family_id(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('-', "_")
}

fn pair(headers: &HeaderMap, prefix: &str, now: i64) -> Pair {
    let window = |name: &str| {
        let part = |part: &str| text(headers, &format!("x-{prefix}-{name}-{part}"));
        let said = Said {
            used_percent: part("used-percent")?,
            window_minutes: part("window-minutes"),
            reset_at: part("reset-at"),
            reset_after_seconds: part("reset-after-seconds"),
        };
        said.read(now)
    };
    Pair {
        name: text(headers, &format!("x-{prefix}-limit-name")).map(str::to_owned),
        primary: window("primary"),
        secondary: window("secondary"),
    }
}

/// The account's own windows.
fn own(headers: &HeaderMap, now: i64) -> [Option<Window>; 2] {
    OWN_HEADERS.each_ref().map(|names| {
        let said = Said {
            used_percent: legible(headers.get(&names.used_percent))?,
            window_minutes: legible(headers.get(&names.window_minutes)),
            reset_at: legible(headers.get(&names.reset_at)),
            reset_after_seconds: legible(headers.get(&names.reset_after_seconds)),
        };
        said.read(now)
    })
}

/// What headers say of a window.
struct Said<'a> {
    used_percent: &'a str,
    window_minutes: Option<&'a str>,
    reset_at: Option<&'a str>,
    reset_after_seconds: Option<&'a str>,
}

impl Said<'_> {
    fn read(&self, now: i64) -> Option<Window> {
        let used_percent = self.used_percent.parse::<f64>().ok().filter(|p| p.is_finite())?;
        let number = |said: Option<&str>| said?.parse::<i64>().ok();
        let after = || number(self.reset_after_seconds).map(|seconds| now.saturating_add(seconds));
        let window = Window {
            used_percent,
            window_minutes: number(self.window_minutes).and_then(|minutes| u64::try_from(minutes).ok()),
            resets_at: number(self.reset_at).or_else(after),
        };
        let says_something = used_percent != 0.0 || window.window_minutes.is_some() || window.resets_at.is_some();
        says_something.then_some(window)
    }
}

fn credits(headers: &HeaderMap) -> Option<Credits> {
    let flag = |name: &str| {
        text(headers, name).and_then(|value| match value.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    };
    Some(Credits {
        has_credits: flag("x-codex-credits-has-credits")?,
        unlimited: flag("x-codex-credits-unlimited").unwrap_or_default(),
        balance: text(headers, "x-codex-credits-balance").filter(|text| !text.is_empty()).map(str::to_owned),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    legible(headers.get(name))
}

fn legible(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|v| v.to_str().ok()).map(str::trim)
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
                ("x-codex-credits-has-credits", "True"),
                ("x-codex-credits-balance", "5.00"),
            ]),
            1000,
        );
        assert_eq!(
            limits.primary,
            Some(Window { used_percent: 42.5, window_minutes: Some(300), resets_at: Some(1060) })
        );
        assert_eq!(limits.used_percent(), Some(100.0));
        assert_eq!(limits.exhausted_until(), Some(2000));
        let credits = Credits { has_credits: true, unlimited: false, balance: Some("5.00".into()) };
        assert_eq!(limits.credits, Some(credits));
    }

    #[test]
    fn illegible_and_empty_headers_say_nothing() {
        for value in ["NaN", "inf", "much", "0"] {
            assert!(Limits::from_headers(&headers(&[("x-codex-primary-used-percent", value)]), 0).is_empty());
        }
        assert!(Limits::from_headers(&HeaderMap::new(), 0).is_empty());
    }

    #[test]
    fn a_family_of_its_own_is_told_from_the_accounts_windows() {
        let family = [
            ("x-codex-primary-used-percent", "10"),
            ("x-codex-bengalfox-primary-used-percent", "100"),
            ("x-codex-bengalfox-primary-reset-at", "2000"),
            ("x-codex-bengalfox-limit-name", "Spark"),
        ];
        let named = |active: &'static str| {
            let mut all = family.to_vec();
            all.push(("x-codex-active-limit", active));
            Limits::from_headers(&headers(&all), 1000)
        };
        let limits = named("bengalfox");
        assert_eq!((limits.active_family.as_deref(), limits.exhausted_until()), (Some("codex_bengalfox"), Some(2000)));
        assert_eq!(limits.families["codex_bengalfox"].name.as_deref(), Some("Spark"));
        assert_eq!(limits.used_percent(), Some(10.0));
        let limits = named("premium");
        assert_eq!((limits.active_family, limits.families.len()), (None, 1), "no windows of that name");
    }
}
