//! The pool in a simulated week: the same code that chooses, learns and cools in production, driven
//! by seeded users over simulated accounts in virtual time.
//!
//! `UPDATE_GOLDEN=1 cargo nextest run --test scheduling` writes the table into docs/scheduling.md.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a week in milliseconds and some thousand turns are far below 2^52"
)]

mod failures;
mod gateway;
mod omniscient;
mod page;
mod week;
mod world;

use gateway::Policy;
use tollway::store::Strategy;
use week::Report;

/// Loads, as shares of what the accounts could serve in the week.
const LOADS: [f64; 3] = [0.6, 0.9, 1.2];
const SEED: u64 = 7;

#[test]
fn the_page_is_what_the_simulation_says() {
    let rows: Vec<Report> =
        LOADS.into_iter().flat_map(|load| Policy::ALL.map(|policy| week::run(SEED, load, policy))).collect();
    page::check(&rows);
}

#[test]
fn the_default_strategy_is_close_to_one_that_knows_the_future() {
    for (seed, load) in (1..=6).flat_map(|seed| LOADS.map(|load| (seed, load))) {
        let report = week::run(seed, load, Policy::of(Strategy::Quota));
        assert!(report.served_share() >= 0.98, "seed {seed}, load {load}: {report:?}");
        assert_eq!(report.avoidable, 0, "seed {seed}, load {load}: {report:?}");
        assert!(report.warm_share() >= 0.95, "seed {seed}, load {load}: {report:?}");
    }
}

#[test]
fn a_week_is_the_same_each_time() {
    let report = || week::run(3, 0.9, Policy::of(Strategy::Quota));
    assert_eq!(report(), report());
}

#[test]
fn no_account_is_asked_again_after_it_said_stop() {
    for policy in Policy::ALL {
        assert_eq!(week::run(5, 1.2, policy).after_stop, 0, "{policy:?}");
    }
}
