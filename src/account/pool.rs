//! Which account is next: a pure function of what is known, so that its answer can be explained.
//!
//! It knows no managers, no clock and no store.

use std::cmp::Ordering;

use crate::store::{AccountId, AccountScope, AccountState, UnixMillis};

/// What is known about one account when a request needs one.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which.
    pub id: AccountId,
    /// Its label, for traces.
    pub name: String,
    /// Only active accounts work.
    pub state: AccountState,
    /// Taken out by an operator.
    pub paused: bool,
    /// Its quota is used up until then.
    pub limited_until: Option<UnixMillis>,
    /// A failure that does not mean quota puts it aside for a short time.
    pub cooling_until: Option<UnixMillis>,
    /// Requests under way here.
    pub in_flight: u32,
    /// The fuller of its windows, as last reported; unknown counts as unused.
    pub used_percent: Option<f32>,
    /// When it was last chosen.
    pub last_used: Option<UnixMillis>,
}

/// Why an account is not a candidate. The first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The key may not use it.
    OutOfScope,
    /// Somebody has to log in.
    NeedsLogin,
    /// The backend refuses its tokens.
    Quarantined,
    /// An operator has paused it.
    Paused,
    /// Its quota is used up until then.
    Limited(UnixMillis),
    /// It failed a moment ago; until then.
    Cooling(UnixMillis),
}

impl Reason {
    /// A word for traces and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfScope => "out_of_scope",
            Self::NeedsLogin => "needs_login",
            Self::Quarantined => "quarantined",
            Self::Paused => "paused",
            Self::Limited(_) => "limited",
            Self::Cooling(_) => "cooling",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// To be tried in this order.
    pub ordered: Vec<AccountId>,
    /// The others, each with its reason, in the order they came.
    pub excluded: Vec<(AccountId, Reason)>,
    /// The earliest time at which a limited account of the scope is back; what a client is told
    /// when nothing is left.
    pub soonest_reset: Option<UnixMillis>,
}

/// Orders the candidates that may serve a request at `now`: fewest in flight, then least used,
/// then least recently used, then by id, so that equal input gives equal output.
pub fn choose(candidates: &[Candidate], scope: &AccountScope, now: UnixMillis) -> Choice {
    let mut eligible: Vec<&Candidate> = Vec::with_capacity(candidates.len());
    let mut choice = Choice::default();
    for candidate in candidates {
        match exclusion(candidate, scope, now) {
            None => eligible.push(candidate),
            Some(reason) => choice.excluded.push((candidate.id, reason)),
        }
    }
    eligible.sort_by(|a, b| preference(a, b));
    choice.ordered = eligible.iter().map(|candidate| candidate.id).collect();
    let resets = choice.excluded.iter().filter_map(|(_, reason)| match reason {
        Reason::Limited(until) => Some(*until),
        _ => None,
    });
    choice.soonest_reset = resets.min();
    choice
}

/// Why a candidate is not eligible at `now`, if it is not. The one rule, also for an account that
/// a session would like to keep.
pub fn exclusion(candidate: &Candidate, scope: &AccountScope, now: UnixMillis) -> Option<Reason> {
    let ahead = |until: Option<UnixMillis>| until.filter(|until| *until > now);
    if !scope.allows(candidate.id) {
        return Some(Reason::OutOfScope);
    }
    match candidate.state {
        AccountState::NeedsLogin => return Some(Reason::NeedsLogin),
        AccountState::Quarantined => return Some(Reason::Quarantined),
        AccountState::Active => {}
    }
    if candidate.paused {
        return Some(Reason::Paused);
    }
    ahead(candidate.limited_until).map(Reason::Limited).or_else(|| ahead(candidate.cooling_until).map(Reason::Cooling))
}

fn preference(a: &Candidate, b: &Candidate) -> Ordering {
    let used = |candidate: &Candidate| candidate.used_percent.unwrap_or_default();
    a.in_flight
        .cmp(&b.in_flight)
        .then_with(|| used(a).total_cmp(&used(b)))
        // None is less than any time: an account that was never used comes first.
        .then_with(|| a.last_used.cmp(&b.last_used))
        .then_with(|| a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = 1_000;

    fn candidate() -> Candidate {
        Candidate {
            id: AccountId::new(),
            name: "a".into(),
            state: AccountState::Active,
            paused: false,
            limited_until: None,
            cooling_until: None,
            in_flight: 0,
            used_percent: None,
            last_used: None,
        }
    }

    #[test]
    fn each_obstacle_has_its_reason_and_a_past_time_is_none() {
        let base = candidate();
        for (candidate, expected) in [
            (Candidate { state: AccountState::NeedsLogin, paused: true, ..base.clone() }, Some(Reason::NeedsLogin)),
            (Candidate { state: AccountState::Quarantined, ..base.clone() }, Some(Reason::Quarantined)),
            (Candidate { paused: true, limited_until: Some(2_000), ..base.clone() }, Some(Reason::Paused)),
            (
                Candidate { limited_until: Some(1_001), cooling_until: Some(5_000), ..base.clone() },
                Some(Reason::Limited(1_001)),
            ),
            (Candidate { cooling_until: Some(1_001), ..base.clone() }, Some(Reason::Cooling(1_001))),
            (Candidate { limited_until: Some(NOW), cooling_until: Some(NOW), ..base.clone() }, None),
            (base, None),
        ] {
            assert_eq!(exclusion(&candidate, &AccountScope::All, NOW), expected, "{candidate:?}");
        }
    }

    #[test]
    fn fewest_in_flight_comes_first_then_least_used_then_longest_idle() {
        let busy = Candidate { in_flight: 1, ..candidate() };
        let used = Candidate { used_percent: Some(40.0), ..candidate() };
        let recent = Candidate { last_used: Some(9), ..candidate() };
        let older = Candidate { last_used: Some(3), ..candidate() };
        let never = candidate();
        let all = [&busy, &used, &recent, &older, &never].map(Clone::clone);

        let choice = choose(&all, &AccountScope::All, NOW);

        assert_eq!(choice.ordered, [never.id, older.id, recent.id, used.id, busy.id]);
    }

    #[test]
    fn a_key_sees_only_its_accounts_also_in_the_reset() {
        let mine = Candidate { limited_until: Some(9_000), ..candidate() };
        let later = Candidate { limited_until: Some(9_500), ..candidate() };
        let other = Candidate { limited_until: Some(2_000), ..candidate() };
        let scope = AccountScope::Only(vec![mine.id, later.id]);

        let choice = choose(&[mine.clone(), later, other.clone()], &scope, NOW);

        assert_eq!((choice.ordered.len(), choice.soonest_reset), (0, Some(9_000)));
        assert!(choice.excluded.contains(&(other.id, Reason::OutOfScope)));
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        let time = || proptest::option::of(900_i64..1_100);
        let used = proptest::option::of(prop_oneof![0.0_f32..120.0, Just(f32::NAN)]);
        (0..3_usize, any::<bool>(), time(), time(), 0..3_u32, used, time()).prop_map(
            |(state, paused, limited_until, cooling_until, in_flight, used_percent, last_used)| {
                let states = [AccountState::Active, AccountState::NeedsLogin, AccountState::Quarantined];
                Candidate {
                    state: states[state],
                    paused,
                    limited_until,
                    cooling_until,
                    in_flight,
                    used_percent,
                    last_used,
                    ..candidate()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_account_is_ordered_or_excluded_once_and_the_order_of_input_does_not_matter(
            candidates in proptest::collection::vec(any_candidate(), 0..8)
        ) {
            let choice = choose(&candidates, &AccountScope::All, NOW);
            let mut reversed = candidates.clone();
            reversed.reverse();

            prop_assert_eq!(&choose(&reversed, &AccountScope::All, NOW).ordered, &choice.ordered);
            let excluded = choice.excluded.iter().map(|(id, _)| *id);
            let seen: BTreeSet<_> = choice.ordered.iter().copied().chain(excluded).collect();
            prop_assert_eq!(seen.len(), candidates.len());
            prop_assert_eq!(choice.ordered.len() + choice.excluded.len(), candidates.len());
        }
    }
}
