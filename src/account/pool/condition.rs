//! What changes about an account with every request: how busy it is, what its quota is believed to
//! be, and what keeps it aside. One value that learns from answers and failures; the relay and the
//! simulation drive the same one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Candidate;
use super::health::{Breaker, Circuit};
use super::quota::{Quota, Source};
use super::remedy::{CLOSED, Consequence};
use crate::codex::Failure;
use crate::codex::limits::Limits;
use crate::store::UnixMillis;

/// How long accounts are put aside when the backend does not say for how long.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// After a short-term limit.
    pub cooldown: Duration,
    /// When quota is used up.
    pub limit: Duration,
}

/// Models whose own limits are remembered, an account: clients can send any name.
const MODELS: usize = 64;
/// A reading of usage as near behind a refusal as this may be older than it, milliseconds.
const SETTLING: i64 = 60_000;

/// One account's condition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Condition {
    /// Requests under way.
    pub in_flight: u32,
    /// Its limits, as read.
    pub quota: Quota,
    /// Its quota is used up until then: the backend refused a request and said so.
    pub limited_until: Option<UnixMillis>,
    /// A code, for the store and for operators.
    pub limit_reason: Option<String>,
    /// Since when.
    limited_at: UnixMillis,
    /// Models whose own quota is used up, until then.
    closed: BTreeMap<String, UnixMillis>,
    /// Models that its plan does not offer; asked for again then.
    not_offered: BTreeMap<String, UnixMillis>,
    /// Its plan does not serve at all; asked again then.
    not_included_until: Option<UnixMillis>,
    /// Aside for a short time.
    pub cooling_until: Option<UnixMillis>,
    /// Aside after failures.
    breaker: Breaker,
    /// When it was last chosen.
    pub last_used: Option<UnixMillis>,
    /// How often it was chosen, each divided by its weight.
    pub turns: f64,
}

/// What outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptCondition {
    /// See [`Condition`].
    #[serde(default)]
    pub quota: Quota,
    /// See [`Condition`].
    #[serde(default)]
    pub cooling_until: Option<UnixMillis>,
    /// See [`Condition`].
    #[serde(default)]
    pub closed: BTreeMap<String, UnixMillis>,
    /// See [`Condition`].
    #[serde(default)]
    pub not_offered: BTreeMap<String, UnixMillis>,
    /// See [`Condition`].
    #[serde(default)]
    pub not_included_until: Option<UnixMillis>,
}

impl Condition {
    /// A request begins; `weight` is the account's. Says whether it is a trial.
    pub fn begin(&mut self, weight: f32, now: UnixMillis) -> bool {
        self.in_flight = self.in_flight.saturating_add(1);
        self.last_used = Some(now);
        self.turns += 1.0 / f64::from(weight.max(f32::MIN_POSITIVE));
        self.breaker.begin(now)
    }

    /// A request is over, however it ended; the trial too.
    pub fn end(&mut self, was_trial: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if was_trial {
            self.breaker.trial_ended();
        }
    }

    /// The account has begun to answer.
    pub fn succeeded(&mut self) {
        self.quota.count_turn();
        self.breaker.succeeded();
    }

    /// Takes a reading in. A reading of usage that shows quota again ends a limit early
    /// (lessons.md 11); says whether it did.
    pub fn learn(&mut self, limits: &Limits, source: Source, model: Option<&str>, now: UnixMillis) -> bool {
        self.quota.learn(limits, source, model, now);
        let is_back = source == Source::Usage
            && self.limited_until.is_some()
            && now.saturating_sub(self.limited_at) >= SETTLING
            && limits.allowed.unwrap_or(limits.primary.is_some() || limits.secondary.is_some())
            && self.quota.full_until(now).is_none();
        if is_back {
            self.limited_until = None;
            self.limit_reason = None;
        }
        is_back
    }

    /// Bears the consequence of a failure. `random` in 0.0..1.0 spreads pauses.
    pub fn suffer(
        &mut self,
        consequence: Consequence,
        failure: &Failure,
        model: Option<&str>,
        defaults: Defaults,
        now: UnixMillis,
        random: f64,
    ) {
        match consequence {
            // A quarantine is the token manager's.
            Consequence::None | Consequence::Quarantine => {}
            Consequence::Counted => drop(self.breaker.failed(now, random)),
            Consequence::Cool => {
                let pause = millis(failure.retry_after.unwrap_or(defaults.cooldown)).min(super::LONGEST_COOLING);
                self.cooling_until = self.cooling_until.max(Some(now.saturating_add(pause)));
            }
            Consequence::Limit => {
                let until = limit_of(failure, defaults, now);
                match (&failure.limit_family, model) {
                    (Some(_), Some(model)) => put(&mut self.closed, model, until),
                    _ => self.limit(until, failure.code.as_deref().unwrap_or("usage_limit_reached"), now),
                }
            }
            Consequence::CloseModel => {
                if let Some(model) = model {
                    put(&mut self.not_offered, model, now.saturating_add(CLOSED));
                }
            }
            Consequence::CloseAccount => self.not_included_until = Some(now.saturating_add(CLOSED)),
        }
    }

    /// Puts the account aside until then.
    pub fn limit(&mut self, until: UnixMillis, reason: &str, now: UnixMillis) {
        self.limited_until = Some(until.min(now.saturating_add(super::LONGEST_LIMIT)));
        self.limit_reason = Some(reason.to_owned());
        self.limited_at = now;
    }

    /// Until when the whole account is used up: by a refusal, or by a window that is full.
    pub fn limited_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.limited_until.filter(|until| *until > now).max(self.quota.full_until(now))
    }

    /// What the breaker says.
    pub fn circuit(&self, now: UnixMillis) -> Circuit {
        self.breaker.circuit(now)
    }

    /// Fills in what the condition says of a candidate, for a request of this model.
    pub fn describe(&self, candidate: &mut Candidate, model: Option<&str>, now: UnixMillis) {
        candidate.limited_until = self.limited_until(now);
        candidate.model_until = model.and_then(|model| self.model_until(model, now));
        candidate.lacks_model = model.is_some_and(|model| self.lacks(model, now));
        candidate.not_included_until = self.not_included_until;
        candidate.cooling_until = self.cooling_until;
        candidate.circuit = self.circuit(now);
        candidate.in_flight = self.in_flight;
        candidate.windows = self.quota.windows();
        candidate.last_used = self.last_used;
        candidate.turns = self.turns;
    }

    fn model_until(&self, model: &str, now: UnixMillis) -> Option<UnixMillis> {
        let closed = self.closed.get(model).copied().filter(|until| *until > now);
        closed.max(self.quota.model_until(model, now))
    }

    /// A clock that was set back ends it.
    fn lacks(&self, model: &str, now: UnixMillis) -> bool {
        self.not_offered.get(model).is_some_and(|until| (1..=CLOSED).contains(&until.saturating_sub(now)))
    }

    /// What is to outlive the process.
    pub fn keep(&self, now: UnixMillis) -> KeptCondition {
        let still = |models: &BTreeMap<String, UnixMillis>| {
            let models = models.iter().filter(|(_, until)| **until > now);
            models.map(|(model, until)| (model.clone(), *until)).collect()
        };
        KeptCondition {
            quota: self.quota.clone(),
            cooling_until: self.cooling_until.filter(|until| *until > now),
            closed: still(&self.closed),
            not_offered: still(&self.not_offered),
            not_included_until: self.not_included_until.filter(|until| *until > now),
        }
    }

    /// Takes over what was kept, by an earlier process or by another one, unless more is known already.
    pub fn restore(&mut self, kept: KeptCondition) {
        let known = KeptCondition {
            quota: std::mem::take(&mut self.quota),
            cooling_until: self.cooling_until,
            closed: std::mem::take(&mut self.closed),
            not_offered: std::mem::take(&mut self.not_offered),
            not_included_until: self.not_included_until,
        };
        let all = known.merged(kept);
        self.quota = all.quota;
        self.cooling_until = all.cooling_until;
        self.closed = all.closed;
        self.not_offered = all.not_offered;
        self.not_included_until = all.not_included_until;
    }

    /// Takes over a limit that is stored, by whomever it was learnt: from then on it is as fresh as
    /// if it had been learnt here.
    pub fn observe_limit(&mut self, until: Option<UnixMillis>, reason: Option<String>, now: UnixMillis) {
        if until.is_some() && until != self.limited_until {
            self.limited_at = now;
        }
        self.limited_until = until;
        self.limit_reason = reason;
    }
}

impl KeptCondition {
    /// What two processes know together: of everything the longer time aside, for none of it ends
    /// early; of quota the later reading. The order of the two does not matter, nor how often.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        for (known, other) in [(&mut self.closed, other.closed), (&mut self.not_offered, other.not_offered)] {
            for (model, until) in other {
                let until = known.get(&model).copied().map_or(until, |known| known.max(until));
                known.insert(model, until);
            }
            while known.len() > MODELS {
                let first = known.iter().min_by_key(|(model, until)| (**until, *model)).map(|(model, _)| model.clone());
                first.map(|model| known.remove(&model));
            }
        }
        Self {
            quota: self.quota.merged(other.quota),
            cooling_until: self.cooling_until.max(other.cooling_until),
            closed: self.closed,
            not_offered: self.not_offered,
            not_included_until: self.not_included_until.max(other.not_included_until),
        }
    }
}

/// Notes a model until then, among as many as are remembered.
fn put(models: &mut BTreeMap<String, UnixMillis>, model: &str, until: UnixMillis) {
    if models.len() >= MODELS && !models.contains_key(model) {
        // The one that is over first makes room.
        let first = models.iter().min_by_key(|(_, until)| **until).map(|(model, _)| model.clone());
        first.map(|model| models.remove(&model));
    }
    models.insert(model.to_owned(), until);
}

/// Until when a failure puts an account, or a model on it, aside. A reset that has passed, or that
/// nobody named, is the default time away: asking at once would be told the same.
fn limit_of(failure: &Failure, defaults: Defaults, now: UnixMillis) -> UnixMillis {
    let named = failure.resets_at.map(|seconds| seconds.saturating_mul(1000)).filter(|at| *at > now);
    named.unwrap_or_else(|| now.saturating_add(millis(defaults.limit))).min(now.saturating_add(super::LONGEST_LIMIT))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{Ask, choose};
    use super::*;
    use crate::codex::FailureKind;
    use crate::codex::limits::Window;
    use crate::store::{AccountId, AccountScope};
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    const NOW: UnixMillis = 1_000_000_000_000;
    const MINUTE: i64 = 60_000;
    const DEFAULTS: Defaults = Defaults { cooldown: Duration::from_secs(30), limit: Duration::from_mins(5) };

    fn suffering(consequence: Consequence, failure: &Failure) -> Condition {
        let mut condition = Condition::default();
        condition.suffer(consequence, failure, Some("gpt-x"), DEFAULTS, NOW, 0.0);
        condition
    }

    fn failure(kind: FailureKind) -> Failure {
        Failure::of(kind, "no")
    }

    #[test]
    fn a_limit_lasts_until_the_named_reset_or_the_default_time() {
        let until = |resets_at| {
            suffering(Consequence::Limit, &Failure { resets_at, ..failure(FailureKind::UsageLimit) })
                .limited_until(NOW)
                .map(|until| until - NOW)
        };
        assert_eq!(until(Some(NOW / 1000 + 60)), Some(MINUTE));
        assert_eq!(until(None), Some(5 * MINUTE));
        assert_eq!(until(Some(NOW / 1000 - 60)), Some(5 * MINUTE), "a reset that has passed");
        assert_eq!(until(Some(i64::MAX)), Some(super::super::LONGEST_LIMIT), "a reset that never comes");
    }

    #[test]
    fn a_familys_limit_closes_the_model_and_not_the_account() {
        let limited = Failure { limit_family: Some("bengalfox".into()), ..failure(FailureKind::UsageLimit) };
        let condition = suffering(Consequence::Limit, &limited);
        assert_eq!(condition.limited_until(NOW), None);
        assert_eq!(condition.model_until("gpt-x", NOW), Some(NOW + 5 * MINUTE));
        assert_eq!(condition.model_until("gpt-y", NOW), None);
    }

    #[test]
    fn a_cool_down_obeys_the_named_delay_and_is_never_shortened_by_a_later_one() {
        let cool =
            |seconds| Failure { retry_after: Some(Duration::from_secs(seconds)), ..failure(FailureKind::RateLimited) };
        let mut condition = suffering(Consequence::Cool, &cool(90));
        condition.suffer(Consequence::Cool, &cool(1), None, DEFAULTS, NOW, 0.0);
        assert_eq!(condition.cooling_until, Some(NOW + 90_000));
        let condition = suffering(Consequence::Cool, &cool(u64::MAX));
        assert_eq!(condition.cooling_until, Some(NOW + super::super::LONGEST_COOLING));
    }

    #[test]
    fn usage_that_is_back_ends_a_limit_early_but_not_a_reading_that_may_be_older() {
        let window = Window { used_percent: 1.0, window_minutes: Some(300), resets_at: Some(NOW / 1000 + 600) };
        let fresh = Limits { primary: Some(window), ..Limits::default() };
        let limited = Failure { resets_at: Some(NOW / 1000 + 86_400), ..failure(FailureKind::UsageLimit) };
        let mut condition = suffering(Consequence::Limit, &limited);
        assert!(!condition.learn(&fresh, Source::Usage, None, NOW + 1000));
        assert!(!condition.learn(&fresh, Source::Answer, None, NOW + 2 * MINUTE), "an answer begun before");
        assert!(!condition.learn(
            &Limits { allowed: Some(false), ..fresh.clone() },
            Source::Usage,
            None,
            NOW + 2 * MINUTE
        ));
        assert!(condition.learn(&fresh, Source::Usage, None, NOW + 2 * MINUTE));
        assert_eq!(condition.limited_until(NOW + 2 * MINUTE), None);
    }

    #[test]
    fn models_that_are_closed_are_bounded() {
        let mut condition = Condition::default();
        for n in 0..1000 {
            let model = format!("m{n}");
            condition.suffer(
                Consequence::CloseModel,
                &failure(FailureKind::ModelNotOffered),
                Some(&model),
                DEFAULTS,
                NOW + n,
                0.0,
            );
        }
        assert_eq!(condition.not_offered.len(), MODELS);
        assert!(condition.lacks("m999", NOW + 999) && !condition.lacks("m0", NOW + 999));
    }

    /// Something that happens to an account, at any time that a clock may say.
    #[derive(Debug, Clone)]
    enum Event {
        Begin,
        End,
        Succeeded,
        Suffers(FailureKind, Option<i64>, Option<u64>, bool),
        Learns(f64, Option<u64>, Option<i64>, bool),
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let absurd = || prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), -10_000_000_000..10_000_000_000_i64];
        let number = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1e308), Just(1e308), -50.0..250.0_f64];
        prop_oneof![
            Just(Event::Begin),
            Just(Event::End),
            Just(Event::Succeeded),
            (select(FailureKind::ALL.to_vec()), option::of(absurd()), option::of(any::<u64>()), any::<bool>())
                .prop_map(|(kind, at, wait, family)| Event::Suffers(kind, at, wait, family)),
            (number, option::of(any::<u64>()), option::of(absurd()), any::<bool>())
                .prop_map(|(used, minutes, at, polled)| Event::Learns(used, minutes, at, polled)),
        ]
    }

    fn happens(condition: &mut Condition, event: &Event, now: UnixMillis) {
        match *event {
            Event::Begin => drop(condition.begin(1.0, now)),
            Event::End => condition.end(now % 2 == 0),
            Event::Succeeded => condition.succeeded(),
            Event::Suffers(kind, resets_at, wait, family) => {
                let failure = Failure {
                    resets_at,
                    retry_after: wait.map(Duration::from_millis),
                    limit_family: family.then(|| "bengalfox".to_owned()),
                    ..failure(kind)
                };
                let consequence = super::super::remedy::remedy(kind).account;
                condition.suffer(consequence, &failure, Some("gpt-x"), DEFAULTS, now, 0.5);
            }
            Event::Learns(used_percent, window_minutes, resets_at, polled) => {
                let window = Some(Window { used_percent, window_minutes, resets_at });
                let limits = Limits { primary: window, secondary: window, ..Limits::default() };
                let source = if polled { Source::Usage } else { Source::Answer };
                condition.learn(&limits, source, Some("gpt-x"), now);
            }
        }
    }

    proptest! {
        /// Flapping accounts, clocks that jump, resets in the past, negative and absurd numbers.
        #[test]
        fn whatever_happens_to_an_account_it_comes_back_by_itself(
            events in proptest::collection::vec((any_event(), 0..253_402_300_799_000_i64), 0..60)
        ) {
            let mut condition = Condition::default();
            let mut now = 0;
            for (event, at) in events {
                now = at;
                happens(&mut condition, &event, now);
                let mut candidate = Candidate::new(AccountId::new());
                condition.describe(&mut candidate, Some("gpt-x"), now);
                let choice = choose(&[candidate], &Ask::of(&AccountScope::All, now));
                for (_, reason) in &choice.excluded {
                    let until = reason.until().unwrap_or(now);
                    prop_assert!((now..=now + super::super::LONGEST_LIMIT).contains(&until), "{reason:?} at {now}");
                }
                prop_assert!(choice.ordered.iter().all(|ranked| ranked.score.is_finite()), "{choice:?}");
            }
            // Nobody needs to touch it: once everything has passed, it serves.
            let later = now + 2 * super::super::LONGEST_LIMIT;
            let mut candidate = Candidate::new(AccountId::new());
            condition.describe(&mut candidate, Some("gpt-x"), later);
            prop_assert_eq!(choose(&[candidate], &Ask::of(&AccountScope::All, later)).ordered.len(), 1);
        }
    }

    fn any_knowledge() -> impl Strategy<Value = KeptCondition> {
        let time = || option::of(0..50_i64);
        let models = || proptest::collection::btree_map("[a-d]", 0..50_i64, 0..4);
        (time(), time(), models(), models(), option::of((0.0..2.0_f64, 1..50_i64))).prop_map(
            |(cooling_until, not_included_until, closed, not_offered, read)| {
                let mut condition = Condition::default();
                if let Some((used, at)) = read {
                    let window = Window { used_percent: used, window_minutes: Some(300), resets_at: Some(at) };
                    let limits = Limits { primary: Some(window), ..Limits::default() };
                    condition.learn(&limits, Source::Usage, None, at * MINUTE * 10);
                }
                KeptCondition { quota: condition.quota, cooling_until, closed, not_offered, not_included_until }
            },
        )
    }

    proptest! {
        #[test]
        fn what_replicas_know_together_does_not_depend_on_who_tells_first_or_twice(
            one in any_knowledge(), other in any_knowledge(), third in any_knowledge()
        ) {
            // Equal times of reading cannot be told apart, and need not be: such readings are alike.
            prop_assume!(one.quota.read_at().is_none() || one.quota.read_at() != other.quota.read_at());
            prop_assume!(other.quota.read_at().is_none() || other.quota.read_at() != third.quota.read_at());
            prop_assume!(third.quota.read_at().is_none() || third.quota.read_at() != one.quota.read_at());
            let both = one.clone().merged(other.clone());
            prop_assert_eq!(&other.clone().merged(one.clone()), &both);
            prop_assert_eq!(&both.clone().merged(one.clone()), &both);
            prop_assert_eq!(both.clone().merged(third.clone()), one.clone().merged(other.clone().merged(third)));
            prop_assert!(both.cooling_until >= one.cooling_until && both.not_included_until >= other.not_included_until);
            prop_assert!(one.closed.iter().all(|(model, until)| both.closed.get(model) >= Some(until)));
        }
    }

    #[test]
    fn a_limit_that_another_replica_has_learnt_is_not_ended_by_a_reading_that_may_be_older() {
        let window = Window { used_percent: 1.0, window_minutes: Some(300), resets_at: Some(NOW / 1000 + 600) };
        let fresh = Limits { primary: Some(window), ..Limits::default() };
        let mut condition = Condition::default();
        condition.observe_limit(Some(NOW + 10 * MINUTE), Some("usage_limit_reached".into()), NOW);
        assert!(!condition.learn(&fresh, Source::Usage, None, NOW + 1000));
        condition.observe_limit(Some(NOW + 10 * MINUTE), Some("usage_limit_reached".into()), NOW + MINUTE);
        assert!(condition.learn(&fresh, Source::Usage, None, NOW + MINUTE), "it was seen before");
    }

    #[test]
    fn what_is_kept_is_known_after_a_restart() {
        let mut before = suffering(Consequence::Cool, &failure(FailureKind::RateLimited));
        before.suffer(
            Consequence::CloseModel,
            &failure(FailureKind::ModelNotOffered),
            Some("gpt-x"),
            DEFAULTS,
            NOW,
            0.0,
        );
        let window = Window { used_percent: 40.0, window_minutes: Some(300), resets_at: Some(NOW / 1000 + 600) };
        before.learn(&Limits { primary: Some(window), ..Limits::default() }, Source::Answer, None, NOW);
        let text = serde_json::to_string(&before.keep(NOW)).expect("JSON");
        let mut after = Condition::default();
        after.restore(serde_json::from_str(&text).expect("the same"));
        assert_eq!(after.keep(NOW), before.keep(NOW));
        assert_eq!(serde_json::from_str::<KeptCondition>("{}").expect("an older one"), KeptCondition::default());
    }
}
