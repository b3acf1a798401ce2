//! When there is room, and when there is room again.

use super::*;
use crate::store::Period;
use proptest::prelude::*;

/// Thursday 2023-11-16 00:26:40 UTC.
const T: UnixMillis = 1_700_094_400_000;

fn tokens(amount: u64, per: Period) -> Budget {
    Budget { unit: BudgetUnit::Tokens, amount, per }
}

fn most(tokens: u64) -> Demand {
    Demand { most: Amount { tokens, cost: tokens * 10 }, likely_tokens: tokens }
}

fn run(meter: &mut Meter, limits: &Limits, demand: Demand, used: u64, now: UnixMillis) -> Result<(), Full> {
    meter.fits(limits, &demand, now)?;
    meter.take(&demand, now);
    meter.settle(&demand, Amount { tokens: used, cost: used * 10 }, Some(now), &[], now);
    Ok(())
}

#[test]
fn a_minute_of_requests_opens_again_to_the_second() {
    let limits = Limits { requests_per_minute: Some(2), ..Limits::default() };
    let mut meter = Meter::default();
    run(&mut meter, &limits, most(1), 1, T).unwrap();
    run(&mut meter, &limits, most(1), 1, T + 5_000).unwrap();
    let full = run(&mut meter, &limits, most(1), 1, T + 6_000).unwrap_err();
    assert_eq!((full.gauge.what, full.gauge.used, full.awaits_others), (Counted::Requests, 2, false));
    assert_eq!(full.back_at, T + 61_000);
    assert!(run(&mut meter, &limits, most(1), 1, full.back_at - 1).is_err());
    run(&mut meter, &limits, most(1), 1, full.back_at).unwrap();
}

#[test]
fn tokens_of_requests_under_way_are_kept_free_in_the_minute() {
    let limits = Limits { tokens_per_minute: Some(100), ..Limits::default() };
    let mut meter = Meter::default();
    meter.fits(&limits, &most(60), T).unwrap();
    meter.take(&most(60), T);
    let full = meter.fits(&limits, &most(60), T).unwrap_err();
    assert!(full.awaits_others && full.gauge.held == 60 && full.gauge.used == 0);
    meter.settle(&most(60), Amount { tokens: 10, cost: 0 }, None, &[], T + 1000);
    meter.fits(&limits, &most(60), T + 1000).unwrap();
    // A request above the limit fits an empty minute, and only that.
    let full = meter.fits(&limits, &most(1_000), T + 1000).unwrap_err();
    assert_eq!((full.back_at, full.awaits_others), (T + 62_000, false));
    meter.fits(&limits, &most(1_000), T + 62_000).unwrap();
}

#[test]
fn the_rest_of_a_budget_goes_to_one_request_at_a_time() {
    let limits = Limits { budgets: vec![tokens(100, Period::Day)], ..Limits::default() };
    let mut meter = Meter::default();
    run(&mut meter, &limits, most(50), 90, T).unwrap();
    meter.fits(&limits, &most(50), T).unwrap();
    meter.take(&most(50), T);
    let full = meter.fits(&limits, &most(5), T).unwrap_err();
    assert!(full.awaits_others, "what is left is held");
    meter.settle(&most(50), Amount { tokens: 30, cost: 0 }, Some(T), &[], T);
    let full = meter.fits(&limits, &most(5), T).unwrap_err();
    assert_eq!((full.gauge.used, full.gauge.remaining(), full.awaits_others), (120, 0, false));
    let midnight = period::end(Period::Day, T).unwrap();
    assert_eq!((full.back_at, full.gauge.resets_at), (midnight, midnight));
    meter.fits(&limits, &most(5), midnight).unwrap();
}

#[test]
fn a_rolling_budget_opens_when_enough_of_it_has_aged() {
    let limits = Limits { budgets: vec![tokens(100, Period::Rolling { hours: 5 })], ..Limits::default() };
    let mut meter = Meter::default();
    run(&mut meter, &limits, most(10), 10, T).unwrap();
    run(&mut meter, &limits, most(10), 95, T + 2 * HOUR).unwrap();
    let full = run(&mut meter, &limits, most(10), 10, T + 3 * HOUR).unwrap_err();
    assert_eq!(full.back_at, (T / HOUR + 6) * HOUR);
    assert!(meter.fits(&limits, &most(1), full.back_at - 1).is_err());
    meter.fits(&limits, &most(1), full.back_at).unwrap();
    meter.prune(&limits, T + 2 * HOUR + 8 * HOUR);
    assert!(meter.hours.is_empty());
}

#[test]
fn money_is_counted_apart_from_tokens_and_a_budget_of_nothing_is_never_open() {
    let cost = Budget { unit: BudgetUnit::Cost, amount: 1_000, per: Period::Month };
    let limits = Limits { budgets: vec![tokens(1_000_000, Period::Day), cost], ..Limits::default() };
    let mut meter = Meter::default();
    meter.prime(&[(T / HOUR, 5, 999), (T / HOUR - 24 * 40, 5, 999)]);
    meter.fits(&limits, &most(1), T).unwrap();
    run(&mut meter, &limits, most(1), 1, T).unwrap();
    assert_eq!(meter.fits(&limits, &most(1), T).unwrap_err().gauge.what, Counted::Budget(cost));
    let nothing = Limits { budgets: vec![tokens(0, Period::Rolling { hours: 1 })], ..Limits::default() };
    assert!(Meter::default().fits(&nothing, &most(0), T).unwrap_err().back_at > T);
}

proptest! {
    /// Whatever runs side by side, a budget is exceeded by no more than what one request used beyond
    /// what could be known of it.
    #[test]
    fn a_budget_is_overshot_by_one_request_at_most(
        amount in 1_u64..2_000,
        steps in prop::collection::vec((0_usize..4, 1_u64..200), 1..200),
    ) {
        let limits = Limits { budgets: vec![tokens(amount, Period::Day)], ..Limits::default() };
        let (mut meter, mut under_way, mut used) = (Meter::default(), Vec::new(), 0);
        for (choice, size) in steps {
            if choice == 0 && !under_way.is_empty() {
                let demand: Demand = under_way.remove(0);
                meter.settle(&demand, demand.most, Some(T), &[], T);
                used += demand.most.tokens;
            } else if meter.fits(&limits, &most(size), T).is_ok() {
                meter.take(&most(size), T);
                under_way.push(most(size));
            }
        }
        used += under_way.iter().map(|demand| demand.most.tokens).sum::<u64>();
        prop_assert!(used < amount + 200, "{used} of {amount}");
    }
}
