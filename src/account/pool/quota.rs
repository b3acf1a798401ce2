//! What readings of an account's limits mean, and what is believed between them.
//!
//! The rules, each with its test:
//!
//! - **Unknown**: a window nobody has told of counts as untouched and as long as its length.
//! - **Stale**: once a window's reset has passed it counts as untouched, whatever was read before.
//!   A reset further away than the window is long was read by a clock that has been set back since,
//!   and counts as passed.
//! - **Late**: within one window use only grows; a smaller number that comes within a minute of a
//!   larger one is an older answer overtaken by a newer one, and is dropped. The usage endpoint is
//!   asked by us, one question at a time, so that its word always counts: quota that is given back
//!   early shows there first (lessons.md 11).
//! - **Contradictory**: a reset that has passed already is taken to be near; one that is further
//!   away than the window is long is taken to be a whole window away.
//! - **Absurd**: a share that is no number is no reading; a negative one is none used; lengths of
//!   zero or of years are not known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codex::limits::{Credits, Limits, Pair, Window};
use crate::store::UnixMillis;

const MINUTE: i64 = 60_000;
/// The length of a window that does not say it: a week, the longest common one (protocol.md 5.1).
const LENGTH: i64 = 7 * 24 * 60 * MINUTE;
/// Two resets as near as this are one: the backend computes them anew for each answer.
const SAME: i64 = 10 * MINUTE;
/// How long an older answer may be under way beside a newer one.
const LATE: i64 = MINUTE;
/// When a window that should have reset, and is reported as used, is taken to reset.
const SOON: i64 = 5 * MINUTE;
/// Models whose family is remembered: clients can send any name.
const MODELS: usize = 64;
/// The share of a window that a turn takes before any was measured.
const DRAW: f64 = 0.002;
/// How much a measured turn weighs against those before it.
const LEARNING: f64 = 0.1;

/// Where a reading comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Beside an answer: headers, or an event in the stream.
    Answer,
    /// The usage endpoint.
    Usage,
}

/// One window as it is believed to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// The share used when it was read, 0–1 and above.
    pub used: f64,
    /// When it resets.
    pub resets_at: UnixMillis,
    /// How long it is, milliseconds.
    pub length: i64,
    /// The share that one turn takes, as measured.
    pub draw: f64,
    /// When it was read.
    pub read_at: UnixMillis,
}

impl Gauge {
    /// The share used at `now`.
    pub fn used_at(&self, now: UnixMillis) -> f64 {
        let left = self.resets_at.saturating_sub(now);
        if left <= 0 || left > self.length.saturating_add(SAME) { 0.0 } else { self.used }
    }

    /// The share of its length that is left until it resets, 0–1; a whole one once it has.
    pub fn time_left(&self, now: UnixMillis) -> f64 {
        let left = self.resets_at.saturating_sub(now);
        if left <= 0 {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "months in milliseconds")]
        let share = left as f64 / self.length.max(1) as f64;
        share.min(1.0)
    }

    /// As the backend would say it.
    pub fn window(&self, now: UnixMillis) -> Window {
        let minutes = u64::try_from(self.length / MINUTE).unwrap_or_default();
        Window {
            used_percent: self.used_at(now) * 100.0,
            window_minutes: Some(minutes),
            resets_at: Some(if self.resets_at > now { self.resets_at } else { now + self.length }.div_euclid(1000)),
        }
    }

    /// Until when it is used up at `now`, if it is.
    fn full_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        (self.used_at(now) >= 1.0).then_some(self.resets_at)
    }
}

/// What is known of one account.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// The windows of the account itself.
    #[serde(default)]
    windows: [Option<Gauge>; 2],
    /// The windows of families that are counted apart.
    #[serde(default)]
    families: BTreeMap<String, [Option<Gauge>; 2]>,
    /// Which family a model is counted in, where the backend has said so.
    #[serde(default)]
    models: BTreeMap<String, String>,
    /// Models that the backend says are not to be had, and until when if it says so.
    #[serde(default)]
    closed: BTreeMap<String, UnixMillis>,
    /// Credits that go on where windows end.
    #[serde(default)]
    credits: Option<Credits>,
    /// The plan, as last said.
    #[serde(default)]
    plan: Option<String>,
    /// When anything was last read.
    #[serde(default)]
    read_at: Option<UnixMillis>,
    /// Turns that ended since the last reading.
    #[serde(skip)]
    turns: u32,
}

impl Quota {
    /// Takes a reading in. `model` is the one whose answer told it, if one did.
    pub fn learn(&mut self, limits: &Limits, source: Source, model: Option<&str>, now: UnixMillis) {
        if limits.is_empty() {
            return;
        }
        let turns = std::mem::take(&mut self.turns);
        let said = [limits.primary, limits.secondary];
        learn_pair(&mut self.windows, said, source, turns, now);
        for (family, Pair { primary, secondary, .. }) in &limits.families {
            if self.families.len() < MODELS || self.families.contains_key(family) {
                let windows = self.families.entry(family.clone()).or_default();
                learn_pair(windows, [*primary, *secondary], source, turns, now);
            }
        }
        if let (Some(model), Some(family)) = (model, &limits.active_family)
            && (self.models.len() < MODELS || self.models.contains_key(model))
        {
            self.models.insert(model.to_owned(), family.clone());
        }
        for (model, back) in limits.models.iter().take(MODELS) {
            match back {
                Some(at) => drop(self.closed.insert(model.clone(), at.saturating_mul(1000).max(now + SOON))),
                None => drop(self.closed.remove(model)),
            }
        }
        self.credits = limits.credits.clone().or(self.credits.take());
        self.plan = limits.plan.clone().or(self.plan.take());
        self.read_at = Some(now);
    }

    /// What two processes know together: of each window, and of everything else, the later reading.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let (mut newer, older) = if self.read_at >= other.read_at { (self, other) } else { (other, self) };
        later_of(&mut newer.windows, older.windows);
        for (family, windows) in older.families {
            if newer.families.len() < MODELS || newer.families.contains_key(&family) {
                later_of(newer.families.entry(family).or_default(), windows);
            }
        }
        for (model, family) in older.models {
            if newer.models.len() < MODELS {
                newer.models.entry(model).or_insert(family);
            }
        }
        newer.credits = newer.credits.or(older.credits);
        newer.plan = newer.plan.or(older.plan);
        newer
    }

    /// A turn has ended on the account.
    pub fn count_turn(&mut self) {
        self.turns = self.turns.saturating_add(1);
    }

    /// The account's own windows.
    pub fn windows(&self) -> [Option<Gauge>; 2] {
        self.windows
    }

    /// The plan, as last said.
    pub fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// When anything was last read.
    pub fn read_at(&self) -> Option<UnixMillis> {
        self.read_at
    }

    /// The soonest reset that is still to come.
    pub fn next_reset(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.windows.iter().flatten().map(|window| window.resets_at).filter(|at| *at > now).min()
    }

    /// Until when the account is used up, if a window is and no credits go on.
    pub fn full_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        if self.credits.as_ref().is_some_and(|credits| credits.has_credits || credits.unlimited) {
            return None;
        }
        full_until(&self.windows, now)
    }

    /// Until when a model is used up on the account by a limit of its own.
    pub fn model_until(&self, model: &str, now: UnixMillis) -> Option<UnixMillis> {
        let family = self.models.get(model).and_then(|family| self.families.get(family));
        let used_up = family.and_then(|windows| full_until(windows, now));
        used_up.max(self.closed.get(model).copied().filter(|until| *until > now))
    }

    /// What is believed, as the backend would say it.
    pub fn limits(&self, now: UnixMillis) -> Limits {
        Limits {
            primary: self.windows[0].map(|gauge| gauge.window(now)),
            secondary: self.windows[1].map(|gauge| gauge.window(now)),
            plan: self.plan.clone(),
            credits: self.credits.clone(),
            ..Limits::default()
        }
    }
}

/// Of each window the later reading. One that the newer quota does not have stays away: the usage
/// endpoint may have said that it is no more.
fn later_of(known: &mut [Option<Gauge>; 2], other: [Option<Gauge>; 2]) {
    for (known, other) in known.iter_mut().zip(other) {
        if let (Some(known), Some(other)) = (known, other)
            && other.read_at > known.read_at
        {
            *known = other;
        }
    }
}

fn full_until(windows: &[Option<Gauge>; 2], now: UnixMillis) -> Option<UnixMillis> {
    windows.iter().flatten().filter_map(|window| window.full_until(now)).max()
}

fn learn_pair(known: &mut [Option<Gauge>; 2], said: [Option<Window>; 2], source: Source, turns: u32, now: UnixMillis) {
    let says_all = source == Source::Usage && said.iter().any(Option::is_some);
    for (known, said) in known.iter_mut().zip(said) {
        match said.filter(|window| window.used_percent.is_finite()) {
            Some(window) => *known = Some(read(known.as_ref(), &window, source, turns, now)),
            // The usage endpoint names every window there is.
            None if says_all => *known = None,
            None => {}
        }
    }
}

/// One window's reading, by the rules above.
fn read(known: Option<&Gauge>, said: &Window, source: Source, turns: u32, now: UnixMillis) -> Gauge {
    let minutes = said.window_minutes.filter(|minutes| (1..=366 * 24 * 60).contains(minutes));
    let length = minutes.and_then(|minutes| i64::try_from(minutes).ok()).map(|minutes| minutes * MINUTE);
    let length = length.or(known.map(|known| known.length)).unwrap_or(LENGTH);
    let current = known.filter(|known| known.resets_at > now && known.length == length);
    let resets_at = match said.resets_at.map(|seconds| seconds.saturating_mul(1000)) {
        Some(at) if at <= now => now + SOON,
        Some(at) => at.min(now.saturating_add(length)),
        None => current.map_or(now.saturating_add(length), |known| known.resets_at),
    };
    let same = current.filter(|known| (known.resets_at - resets_at).abs() <= SAME);
    let mut used = (said.used_percent / 100.0).clamp(0.0, 10.0);
    let mut draw = known.map_or(DRAW, |known| known.draw);
    if let Some(known) = same {
        if used < known.used && source == Source::Answer && (now - known.read_at).abs() < LATE {
            used = known.used;
        } else if turns > 0 && used >= known.used {
            let each = (used - known.used) / f64::from(turns);
            let weight = 1.0 - (1.0 - LEARNING).powi(i32::try_from(turns.min(100)).unwrap_or(100));
            draw += (each - draw) * weight;
        }
    }
    Gauge { used, resets_at, length, draw, read_at: now }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = 1_000_000_000_000;
    const HOUR: i64 = 60 * MINUTE;

    fn said(used_percent: f64, minutes: u64, in_ms: i64) -> Limits {
        let resets_at = Some((NOW + in_ms) / 1000);
        Limits { primary: Some(Window { used_percent, window_minutes: Some(minutes), resets_at }), ..Limits::default() }
    }

    fn known(limits: &Limits) -> Quota {
        let mut quota = Quota::default();
        quota.learn(limits, Source::Answer, None, NOW);
        quota
    }

    fn used(quota: &Quota, now: UnixMillis) -> f64 {
        quota.windows[0].expect("a window").used_at(now)
    }

    #[test]
    fn after_its_reset_a_window_counts_as_untouched_and_whole() {
        let quota = known(&said(100.0, 300, HOUR));
        assert_eq!(quota.full_until(NOW), Some(NOW + HOUR));
        assert_eq!(quota.full_until(NOW + HOUR), None);
        let gauge = quota.windows[0].expect("a window");
        assert_eq!((gauge.used_at(NOW + HOUR), gauge.time_left(NOW + HOUR)), (0.0, 1.0));
        assert!((gauge.time_left(NOW) - 0.2).abs() < 1e-9);
    }

    #[test]
    fn an_answer_that_was_overtaken_does_not_give_quota_back_but_the_usage_endpoint_does() {
        let mut quota = known(&said(40.0, 300, HOUR));
        quota.learn(&said(38.0, 300, HOUR + MINUTE), Source::Answer, None, NOW + 1000);
        assert!((used(&quota, NOW) - 0.40).abs() < 1e-9);
        quota.learn(&said(1.0, 300, HOUR), Source::Usage, None, NOW + 2000);
        assert!((used(&quota, NOW) - 0.01).abs() < 1e-9);
        quota.learn(&said(0.5, 300, HOUR), Source::Answer, None, NOW + 5 * MINUTE);
        assert!((used(&quota, NOW) - 0.005).abs() < 1e-9, "long after, a smaller number is news");
    }

    #[test]
    fn resets_that_cannot_be_are_taken_to_be_near_or_a_window_away() {
        for (in_ms, expected) in [(-HOUR, SOON), (0, SOON), (400 * 24 * HOUR, 5 * HOUR), (HOUR, HOUR)] {
            let gauge = known(&said(50.0, 300, in_ms)).windows[0].expect("a window");
            assert_eq!(gauge.resets_at - NOW, expected, "{in_ms}");
        }
    }

    #[test]
    fn absurd_numbers_are_bounded_or_not_taken() {
        assert_eq!(known(&said(f64::NAN, 300, HOUR)).windows[0], None);
        assert!((used(&known(&said(-5.0, 300, HOUR)), NOW)).abs() < 1e-9);
        assert!((used(&known(&said(1e300, 300, HOUR)), NOW) - 10.0).abs() < 1e-9);
        for minutes in [0, u64::MAX] {
            assert_eq!(known(&said(5.0, minutes, HOUR)).windows[0].map(|gauge| gauge.length), Some(LENGTH));
        }
    }

    #[test]
    fn what_a_turn_takes_is_measured() {
        let mut quota = known(&said(10.0, 300, HOUR));
        for turn in 1..=60 {
            quota.count_turn();
            quota.learn(&said(10.0 + f64::from(turn), 300, HOUR), Source::Answer, None, NOW + i64::from(turn));
        }
        let draw = quota.windows[0].expect("a window").draw;
        assert!((draw - 0.01).abs() < 0.001, "{draw}");
    }

    #[test]
    fn credits_go_on_where_a_window_ends() {
        let credits = |has_credits| Some(Credits { has_credits, unlimited: false, balance: None });
        let full = Limits { credits: credits(true), ..said(100.0, 300, HOUR) };
        let mut quota = known(&full);
        assert_eq!(quota.full_until(NOW), None);
        quota.learn(&Limits { credits: credits(false), ..full }, Source::Answer, None, NOW);
        assert_eq!(quota.full_until(NOW), Some(NOW + HOUR));
    }

    #[test]
    fn a_family_limits_the_models_that_the_backend_counted_in_it_and_no_others() {
        let family = Pair { primary: said(100.0, 300, HOUR).primary, ..Pair::default() };
        let limits = Limits {
            families: [("bengalfox".to_owned(), family)].into(),
            active_family: Some("bengalfox".into()),
            ..said(10.0, 300, HOUR)
        };
        let mut quota = Quota::default();
        quota.learn(&limits, Source::Answer, Some("gpt-x"), NOW);
        assert_eq!(quota.model_until("gpt-x", NOW), Some(NOW + HOUR));
        assert_eq!((quota.model_until("gpt-y", NOW), quota.full_until(NOW)), (None, None));
    }

    #[test]
    fn the_usage_endpoint_closes_and_opens_models_and_drops_windows_that_are_no_more() {
        let mut quota = known(&Limits { secondary: said(5.0, 10_080, HOUR).primary, ..said(5.0, 300, HOUR) });
        let back = Some((NOW + HOUR) / 1000);
        let closed = Limits { models: [("gpt-x".to_owned(), back)].into(), ..said(5.0, 300, HOUR) };
        quota.learn(&closed, Source::Usage, None, NOW);
        assert_eq!((quota.model_until("gpt-x", NOW), quota.windows[1]), (Some(NOW + HOUR), None));
        let open = Limits { models: [("gpt-x".to_owned(), None)].into(), ..said(5.0, 300, HOUR) };
        quota.learn(&open, Source::Usage, None, NOW);
        assert_eq!(quota.model_until("gpt-x", NOW), None);
    }
}
