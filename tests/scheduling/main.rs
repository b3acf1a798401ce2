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
fn a_thousand_accounts_and_a_hundred_thousand_conversations_fit() {
    let before = resident_kib();
    let mut gateway = gateway::Gateway::new(Policy::of(Strategy::Quota), 1_000, world::START);
    for session in 0..120_000_i64 {
        let now = world::START + session;
        let account = usize::try_from(session % 1_000).expect("small");
        // Flapping: what serves now and then is used up.
        let answer = |asked: usize| match (asked + account) % 7 {
            0 => world::Answer::UsedUp(now + 1_000),
            1 => world::Answer::Broken,
            _ => world::Answer::Served,
        };
        if session % 200 == 0 {
            let served = gateway.serve(usize::try_from(session).expect("small"), now, &mut || 0.5, answer);
            gateway.ended(served.expect("some account serves").account);
        } else {
            gateway.settle_directly(session, account, now);
        }
    }
    assert!(gateway.conversations() <= 100_000);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
}

/// What the process holds in memory, where the system says it.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[test]
fn no_account_is_asked_again_after_it_said_stop() {
    for policy in Policy::ALL {
        assert_eq!(week::run(5, 1.2, policy).after_stop, 0, "{policy:?}");
    }
}
