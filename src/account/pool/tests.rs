//! The choice, row by row and whatever is thrown at it.

use std::collections::BTreeSet;

use proptest::prelude::{Just, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::*;

const NOW: UnixMillis = 1_000_000_000_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn candidate() -> Candidate {
    Candidate::new(AccountId::new())
}

fn gauge(used: f64, resets_in: i64, length: i64) -> Gauge {
    Gauge { used, resets_at: NOW + resets_in, length, draw: 0.002, read_at: NOW }
}

fn ask(scope: &AccountScope) -> Ask<'_> {
    Ask::of(scope, NOW)
}

fn order(candidates: &[Candidate], strategy: Strategy) -> Vec<AccountId> {
    let choice = choose(candidates, &Ask { strategy, ..ask(&AccountScope::All) });
    choice.ordered.iter().map(|ranked| ranked.id).collect()
}

#[test]
fn each_obstacle_has_its_reason_and_a_past_time_is_none() {
    let base = candidate();
    let (soon, later) = (Some(NOW + 1), Some(NOW + 5_000));
    for (candidate, expected) in [
        (Candidate { state: AccountState::NeedsLogin, paused: true, ..base }, Some(Reason::NeedsLogin)),
        (Candidate { state: AccountState::Quarantined, ..base }, Some(Reason::Quarantined)),
        (Candidate { paused: true, limited_until: later, ..base }, Some(Reason::Paused)),
        (Candidate { barred: true, limited_until: later, ..base }, Some(Reason::Barred)),
        (Candidate { limited_until: soon, cooling_until: later, ..base }, Some(Reason::Limited(NOW + 1))),
        (Candidate { lacks_model: true, ..base }, Some(Reason::ModelNotOffered)),
        (Candidate { not_included_until: soon, lacks_model: true, ..base }, Some(Reason::NotIncluded(NOW + 1))),
        (Candidate { model_until: soon, ..base }, Some(Reason::ModelLimited(NOW + 1))),
        (Candidate { cooling_until: soon, ..base }, Some(Reason::Cooling(NOW + 1))),
        (Candidate { circuit: health::Circuit::Open(NOW + 9), ..base }, Some(Reason::Tripped(NOW + 9))),
        (Candidate { circuit: health::Circuit::Open(NOW), ..base }, None),
        (Candidate { circuit: health::Circuit::OnTrial, ..base }, Some(Reason::OnTrial)),
        (Candidate { limited_until: Some(NOW), cooling_until: Some(NOW), model_until: Some(NOW), ..base }, None),
        (base, None),
    ] {
        assert_eq!(exclusion(&candidate, &AccountScope::All, NOW), expected, "{candidate:?}");
    }
}

#[test]
fn a_clock_that_was_set_back_keeps_nobody_away() {
    let year = Some(NOW + 365 * 24 * HOUR);
    let limited = Candidate { limited_until: year, ..candidate() };
    let cooling = Candidate { cooling_until: year, ..candidate() };
    assert_eq!(exclusion(&limited, &AccountScope::All, NOW), None);
    assert_eq!(exclusion(&cooling, &AccountScope::All, NOW), None);
    let longest = Candidate { limited_until: Some(NOW + LONGEST_LIMIT), ..candidate() };
    assert_eq!(exclusion(&longest, &AccountScope::All, NOW), Some(Reason::Limited(NOW + LONGEST_LIMIT)));
}

#[test]
fn quota_that_will_be_lost_soonest_is_used_first() {
    let soon = Candidate { windows: [Some(gauge(0.2, HOUR, 5 * HOUR)), None], ..candidate() };
    let late = Candidate { windows: [Some(gauge(0.2, 4 * HOUR, 5 * HOUR)), None], ..candidate() };
    let ahead_of_its_pace = Candidate { windows: [Some(gauge(0.9, 4 * HOUR, 5 * HOUR)), None], ..candidate() };
    let tight_in_the_week =
        Candidate { windows: [soon.windows[0], Some(gauge(0.99, 100 * HOUR, 168 * HOUR))], ..candidate() };
    let all = [ahead_of_its_pace, tight_in_the_week, late, soon];
    assert_eq!(order(&all, Strategy::Quota), [soon.id, late.id, ahead_of_its_pace.id, tight_in_the_week.id]);
}

#[test]
fn what_is_under_way_and_what_lives_there_is_taken_off() {
    let free = Candidate { windows: [Some(gauge(0.5, HOUR, 5 * HOUR)), None], ..candidate() };
    let busy = Candidate { in_flight: 3, ..Candidate { id: AccountId::new(), ..free } };
    let home_of_many = Candidate { sessions: 20, ..Candidate { id: AccountId::new(), ..free } };
    assert_eq!(order(&[home_of_many, busy, free], Strategy::Quota), [free.id, busy.id, home_of_many.id]);
}

#[test]
fn without_any_reading_the_fewest_in_flight_come_first_then_the_longest_idle() {
    let busy = Candidate { in_flight: 1, ..candidate() };
    let recent = Candidate { last_used: Some(9), ..candidate() };
    let older = Candidate { last_used: Some(3), ..candidate() };
    let never = candidate();
    assert_eq!(order(&[busy, recent, older, never], Strategy::Quota), [never.id, older.id, recent.id, busy.id]);
}

#[test]
fn priority_goes_before_everything_and_weight_is_a_share() {
    let spare = Candidate { priority: -1, ..candidate() };
    let full = Candidate { windows: [Some(gauge(0.95, HOUR, HOUR)), None], ..candidate() };
    assert_eq!(order(&[spare, full], Strategy::Quota), [full.id, spare.id]);
    let light = Candidate { weight: 0.5, ..candidate() };
    let never = Candidate { weight: 0.0, ..candidate() };
    let plain = candidate();
    for strategy in [Strategy::Quota, Strategy::FillFirst, Strategy::LeastLoaded] {
        assert_eq!(order(&[never, light, plain], strategy), [plain.id, light.id, never.id], "{strategy:?}");
    }
}

#[test]
fn round_robin_gives_each_its_turn_by_weight() {
    let mut accounts = [candidate(), Candidate { weight: 3.0, ..candidate() }];
    let mut counts = [0; 2];
    for _ in 0..400 {
        let first = order(&accounts, Strategy::RoundRobin)[0];
        let place = usize::from(accounts[1].id == first);
        counts[place] += 1;
        accounts[place].turns += 1.0 / f64::from(accounts[place].weight);
    }
    assert_eq!(counts, [100, 300]);
}

#[test]
fn fill_first_stays_with_the_first_however_busy_it_is() {
    let first = candidate();
    let second = candidate();
    let busy = Candidate { in_flight: 50, last_used: Some(NOW), ..first };
    assert_eq!(order(&[second, busy], Strategy::FillFirst), [first.id, second.id]);
}

#[test]
fn a_conversation_stays_makes_a_detour_or_moves() {
    let (home, other) = (candidate(), candidate());
    let better = Candidate { priority: 5, ..other };
    let stay = |home: Candidate| {
        let choice = choose(&[better, home], &Ask { home: Some(home.id), ..ask(&AccountScope::All) });
        (choice.stay, choice.first() == Some(home.id))
    };
    assert_eq!(stay(home), (Stay::Home, true));
    let soon = NOW + MINUTE;
    assert_eq!(stay(Candidate { cooling_until: Some(soon), ..home }), (Stay::Detour(Reason::Cooling(soon)), false));
    let late = NOW + HOUR;
    assert_eq!(stay(Candidate { limited_until: Some(late), ..home }), (Stay::Moves(Reason::Limited(late)), false));
    assert_eq!(stay(Candidate { state: AccountState::NeedsLogin, ..home }).0, Stay::Moves(Reason::NeedsLogin));
    let gone = choose(&[other], &Ask { home: Some(home.id), ..ask(&AccountScope::All) });
    assert_eq!(gone.stay, Stay::Gone);
}

#[test]
fn a_home_that_was_tried_is_a_detour_and_not_tried_again() {
    let (home, other) = (candidate(), candidate());
    let choice = choose(&[home, other], &Ask { home: Some(home.id), tried: &[home.id], ..ask(&AccountScope::All) });
    assert_eq!((choice.first(), choice.stay), (Some(other.id), Stay::Detour(Reason::Tried)));
}

#[test]
fn a_home_that_may_serve_needs_no_look_at_others_and_one_that_may_not_does() {
    let home = candidate();
    let at_home = |home: Candidate, asked: &Ask<'_>| {
        super::at_home(&home, &Ask { home: Some(home.id), ..*asked }).map(|choice| choice.first() == Some(home.id))
    };
    let (all, nobody, tried) = (AccountScope::All, AccountScope::only([]), [home.id]);
    assert_eq!(at_home(Candidate { priority: -5, weight: 0.0, ..home }, &ask(&all)), Some(true));
    assert_eq!(at_home(home, &ask(&nobody)), None, "it was taken from the key");
    assert_eq!(at_home(home, &Ask { tried: &tried, ..ask(&all) }), None);
    assert_eq!(at_home(Candidate { paused: true, ..home }, &ask(&all)), None);
    assert_eq!(at_home(Candidate { lacks_model: true, ..home }, &ask(&all)), None, "perhaps nobody has it");
    let tripped = Candidate { circuit: health::Circuit::Open(NOW + 9), ..home };
    assert_eq!(at_home(tripped, &ask(&all)), None, "perhaps all are");
    assert_eq!(super::at_home(&home, &ask(&all)), None, "a request of no conversation");
}

#[test]
fn another_is_one_that_may_serve_too() {
    let (home, other) = (candidate(), candidate());
    let tripped = Candidate { circuit: health::Circuit::Open(NOW + 9), ..candidate() };
    let (scope, tried) = (AccountScope::All, [home.id, other.id]);
    let asked = Ask { home: Some(home.id), tried: &tried[..1], ..ask(&scope) };
    assert!(has_another(&[home, tripped, other], &asked, home.id));
    assert!(!has_another(&[home, tripped], &asked, home.id));
    assert!(!has_another(&[home, tripped, other], &Ask { tried: &tried, ..asked }, home.id));
}

#[test]
fn a_model_is_served_by_those_who_offer_it_and_by_anybody_if_nobody_does() {
    let lacks = Candidate { lacks_model: true, ..candidate() };
    let has = Candidate { limited_until: Some(NOW + HOUR), ..candidate() };
    let choice = choose(&[lacks, has], &ask(&AccountScope::All));
    assert_eq!(choice.ordered.len(), 0);
    assert_eq!(choice.soonest_back(), Some((NOW + HOUR, Reason::Limited(NOW + HOUR))));
    assert_eq!(choose(&[lacks], &ask(&AccountScope::All)).first(), Some(lacks.id));
}

#[test]
fn when_every_circuit_is_open_asking_is_better_than_refusing() {
    let open = |until| Candidate { circuit: health::Circuit::Open(NOW + until), ..candidate() };
    let all = [open(9_000), open(1_000)];
    let choice = choose(&all, &ask(&AccountScope::All));
    assert_eq!((choice.ordered.len(), choice.excluded.len()), (2, 0));
    let tried = [all[0].id];
    let choice = choose(&all, &Ask { tried: &tried, ..ask(&AccountScope::All) });
    assert_eq!(choice.first(), Some(all[1].id));
    let limited = Candidate { limited_until: Some(NOW + HOUR), ..candidate() };
    let one_works = [all[0], all[1], limited, candidate()];
    assert_eq!(choose(&one_works, &ask(&AccountScope::All)).ordered.len(), 1);
}

#[test]
fn a_key_sees_only_its_accounts_also_in_the_reset() {
    let mine = Candidate { limited_until: Some(NOW + 9_000), ..candidate() };
    let later = Candidate { limited_until: Some(NOW + 9_500), ..candidate() };
    let other = Candidate { limited_until: Some(NOW + 2_000), ..candidate() };
    let scope = AccountScope::only([mine.id, later.id]);

    let choice = choose(&[mine, later, other], &ask(&scope));

    assert_eq!((choice.ordered.len(), choice.soonest_back().map(|back| back.0)), (0, Some(NOW + 9_000)));
    assert!(choice.excluded.contains(&(other.id, Reason::OutOfScope)));
}

fn any_gauge() -> impl proptest::strategy::Strategy<Value = Option<Gauge>> {
    let number = prop_oneof![0.0_f64..1.2, Just(f64::NAN), Just(f64::INFINITY), Just(-1.0)];
    let time = || prop_oneof![NOW - HOUR..NOW + HOUR, Just(i64::MIN), Just(i64::MAX)];
    let gauge = (number.clone(), time(), prop_oneof![0..5 * HOUR, Just(i64::MIN)], number, time());
    proptest::option::of(gauge.prop_map(|(used, resets_at, length, draw, read_at)| Gauge {
        used,
        resets_at,
        length,
        draw,
        read_at,
    }))
}

fn any_candidate() -> impl proptest::strategy::Strategy<Value = Candidate> {
    let time = || proptest::option::of(prop_oneof![NOW - 100..NOW + 100, Just(i64::MIN), Just(i64::MAX)]);
    let circuit = prop_oneof![
        Just(health::Circuit::Closed),
        Just(health::Circuit::OnTrial),
        any::<i64>().prop_map(health::Circuit::Open)
    ];
    let flags = (0..3_usize, any::<bool>(), any::<bool>(), any::<bool>());
    let times = (time(), time(), time(), time());
    let load = (any::<u32>(), any::<u32>(), -2..3_i32, prop_oneof![Just(0.0_f32), Just(1.0), Just(f32::MAX)]);
    (flags, times, load, circuit, [any_gauge(), any_gauge()]).prop_map(
        |((state, paused, barred, lacks_model), (limited, model, cooling, last_used), load, circuit, windows)| {
            let (in_flight, sessions, priority, weight) = load;
            let states = [AccountState::Active, AccountState::NeedsLogin, AccountState::Quarantined];
            Candidate {
                state: states[state],
                paused,
                barred,
                lacks_model,
                limited_until: limited,
                model_until: model,
                cooling_until: cooling,
                circuit,
                in_flight,
                sessions,
                windows,
                weight,
                priority,
                last_used,
                ..candidate()
            }
        },
    )
}

proptest! {
    #[test]
    fn every_account_is_ordered_or_excluded_once_and_the_order_of_input_does_not_matter(
        candidates in proptest::collection::vec(any_candidate(), 0..8),
        strategy in proptest::sample::select(Strategy::ALL.to_vec()),
        home in 0..8_usize,
    ) {
        let home = candidates.get(home).map(|candidate| candidate.id);
        let ask = Ask { strategy, home, ..ask(&AccountScope::All) };
        let choice = choose(&candidates, &ask);
        let mut reversed = candidates.clone();
        reversed.reverse();

        let ids = |choice: &Choice| choice.ordered.iter().map(|ranked| ranked.id).collect::<Vec<_>>();
        prop_assert_eq!(ids(&choose(&reversed, &ask)), ids(&choice));
        let seen: BTreeSet<_> = ids(&choice).into_iter().chain(choice.excluded.iter().map(|(id, _)| *id)).collect();
        prop_assert_eq!(seen.len(), candidates.len());
        prop_assert_eq!(choice.ordered.len() + choice.excluded.len(), candidates.len());
    }

    #[test]
    fn a_look_at_the_home_alone_says_what_a_look_at_all_says(
        candidates in proptest::collection::vec(any_candidate(), 1..6),
        strategy in proptest::sample::select(Strategy::ALL.to_vec()),
        (scoped, tried, host) in (0..12_usize, 0..12_usize, 0..6_usize),
        well in any::<bool>(),
    ) {
        let mut candidates = candidates;
        if well {
            candidates[0] = Candidate { weight: candidates[0].weight, windows: candidates[0].windows, ..candidate() };
        }
        let id = |place: usize| candidates.get(place).map(|candidate| candidate.id);
        let scope = id(scoped).map_or(AccountScope::All, |id| AccountScope::only([id]));
        let tried: Vec<_> = id(tried).into_iter().collect();
        let (home, host) = (id(0), id(host));
        let ask = Ask { strategy, home, host, tried: &tried, ..ask(&scope) };
        let all = choose(&candidates, &ask);
        match at_home(&candidates[0], &ask) {
            Some(at_home) => {
                // No number, where a gauge says none, is not even equal to itself.
                let told = |ranked: &Ranked| (ranked.id, ranked.score.to_bits());
                prop_assert_eq!(at_home.ordered.iter().map(told).collect::<Vec<_>>(), [told(&all.ordered[0])]);
                prop_assert_eq!((at_home.stay, at_home.is_offered), (all.stay, all.is_offered));
                prop_assert_eq!(has_another(&candidates, &ask, candidates[0].id), all.ordered.len() > 1);
            }
            // It is not there, or only because nobody else is.
            None => prop_assert!(all.stay != Stay::Home || exclusion(&candidates[0], &scope, NOW).is_some()),
        }
    }
}
