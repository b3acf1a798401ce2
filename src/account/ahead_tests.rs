//! When accounts are renewed ahead of demand, and which.

use std::collections::BTreeSet;

use super::super::testing::{Bench, HOUR, START};
use super::*;
use crate::store::AccountState;

const MINUTE: i64 = 60_000;

fn credentials(life_ms: i64, generation: i64) -> Credentials {
    Credentials {
        access_token: "a".into(),
        refresh_token: "r".into(),
        id_token: None,
        access_expires_at: Some(START + life_ms),
        last_refresh_at: START,
        generation,
    }
}

/// How long before the end a new account's ten-day token is renewed.
fn lead(generation: i64) -> i64 {
    let token = credentials(240 * HOUR, generation);
    START + 240 * HOUR - due_at(AccountId::new(), &token, &TokenSettings::default())
}

#[test]
fn accounts_are_spread_over_the_whole_window() {
    let leads: Vec<i64> = (0..1_000).map(|_| lead(1)).collect();

    assert!(leads.iter().all(|lead| (10 * MINUTE..=30 * MINUTE).contains(lead)));
    let minutes: BTreeSet<i64> = leads.iter().map(|lead| lead / MINUTE).collect();
    assert!(minutes.len() >= 19, "only the minutes {minutes:?}");
}

#[test]
fn an_account_has_its_own_time_which_moves_with_each_generation() {
    let id = AccountId::new();
    let due = |generation| due_at(id, &credentials(240 * HOUR, generation), &TokenSettings::default());

    assert_eq!(due(1), due(1));
    assert_ne!(due(1), due(2));
}

#[test]
fn a_short_lived_token_is_renewed_at_half_of_its_life() {
    let due = due_at(AccountId::new(), &credentials(4 * MINUTE, 1), &TokenSettings::default());

    assert_eq!(due, START + 2 * MINUTE);
}

async fn directory(bench: &Bench) -> Arc<Accounts> {
    let accounts = Accounts::new(Arc::clone(&bench.context));
    accounts.reload().await.unwrap();
    accounts
}

#[tokio::test(start_paused = true)]
async fn paused_and_limited_accounts_are_renewed_and_those_out_of_use_are_not() {
    let bench = Bench::new();
    let [paused, limited, dead, quarantined, fresh] =
        ["paused", "limited", "dead", "quarantined", "fresh"].map(|name| bench.add(name, 5 * MINUTE));
    let change = |id, change: &dyn Fn(&mut crate::store::Account)| {
        change(&mut bench.store.shelf().rows.get_mut(&id).unwrap().0);
    };
    change(paused, &|row| row.paused = true);
    change(limited, &|row| row.limited_until = Some(START + HOUR));
    change(dead, &|row| row.state = AccountState::NeedsLogin);
    change(quarantined, &|row| row.state = AccountState::Quarantined);
    bench.store.log_in(fresh, "rt-fresh", 10 * HOUR);
    let accounts = directory(&bench).await;

    round(&accounts);
    bench.settle().await;

    let renewed = |id| accounts.get(id).unwrap().manager.snapshot().account.last_refresh_at == START;
    assert_eq!([paused, limited].map(renewed), [true; 2]);
    assert_eq!([dead, quarantined, fresh].map(renewed), [false; 3]);
}

#[tokio::test(start_paused = true)]
async fn after_a_standstill_the_most_urgent_come_first_and_a_few_at_once() {
    let bench = Bench::new();
    let ids: Vec<_> = (0..10_i64).map(|n| bench.add(&format!("a{n}"), -n * HOUR)).collect();
    let accounts = directory(&bench).await;

    round(&accounts);
    bench.settle().await;
    assert_eq!(bench.issuer.calls(), 4);
    let last = accounts.get(ids[9]).unwrap();
    assert_eq!(last.manager.snapshot().generation(), 2);
    // While these four are under way they are all that is; a second look begins nothing.
    round(&accounts);
    round(&accounts);
    bench.settle().await;
    assert_eq!(bench.issuer.calls(), 8);
    round(&accounts);
    bench.settle().await;

    assert_eq!(bench.issuer.calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_loop_keeps_a_token_fresh_with_one_exchange_a_life_and_ends_with_the_process() {
    let bench = Bench::new();
    bench.add("ada", HOUR);
    let accounts = directory(&bench).await;
    let looping = tokio::spawn(run(Arc::clone(&accounts), Duty::alone(), Duration::from_secs(5)));

    tokio::time::sleep(Duration::from_hours(10)).await;

    // A life is an hour, of which ten to thirty minutes are not used.
    assert!((11..=20).contains(&bench.issuer.calls()), "{}", bench.issuer.calls());
    bench.context.shutdown.cancel();
    looping.await.unwrap();
}
