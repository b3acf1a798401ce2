//! The directory in step with a store that others change.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout};

use super::super::pool::{Ask, choose};
use super::super::testing::{Bench, HOUR, START};
use super::*;
use crate::codex::FailureKind;
use crate::codex::limits::Window;
use crate::store::{AccountScope, AccountState, Changes, Revision};

const DEFAULTS: Defaults = Defaults { cooldown: Duration::from_secs(30), limit: Duration::from_mins(5) };

/// The backend says that the account is used up for five seconds.
fn limit(accounts: &Arc<Accounts>, id: AccountId) {
    let resets_at = Some((START + 5_000) / 1000);
    let failure =
        Failure { resets_at, code: Some("usage_limit_reached".into()), ..Failure::of(FailureKind::UsageLimit, "no") };
    accounts.suffer(id, Consequence::Limit, &failure, None, DEFAULTS);
}

async fn directory(bench: &Bench) -> Arc<Accounts> {
    let accounts = Accounts::new(Arc::clone(&bench.context));
    accounts.reload().await.unwrap();
    accounts
}

fn only(accounts: &Accounts) -> Candidate {
    let mut candidates = accounts.candidates(None);
    assert_eq!(candidates.len(), 1);
    candidates.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_reload_adds_and_removes_accounts_and_keeps_the_managers_of_the_others() {
    let bench = Bench::new();
    let (stays, goes) = (bench.add("stays", HOUR), bench.add("goes", HOUR));
    let accounts = directory(&bench).await;
    let (kept, gone) = (accounts.get(stays).unwrap(), accounts.get(goes).unwrap());

    bench.store.shelf().rows.remove(&goes);
    let comes = bench.add("comes", HOUR);
    accounts.reload().await.unwrap();

    assert!(Arc::ptr_eq(&kept, &accounts.get(stays).unwrap()));
    assert!(accounts.get(comes).is_some() && accounts.get(goes).is_none());
    assert!(gone.manager.refresh_now().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_running_manager_takes_over_a_login_and_a_pause_made_elsewhere() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;
    let member = accounts.get(id).unwrap();

    bench.store.log_in(id, "rt-login", HOUR);
    bench.store.shelf().rows.get_mut(&id).unwrap().0.paused = true;
    accounts.reload().await.unwrap();

    assert_eq!(member.manager.snapshot().generation(), 2);
    assert!(only(&accounts).paused);
}

fn told(bench: &Bench) -> Revision {
    Revision { accounts: bench.store.shelf().revision, ..Revision::default() }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_reads_what_it_is_told_of_and_ends_with_the_process() {
    let bench = Bench::new();
    let accounts = directory(&bench).await;
    let (teller, changes) = Changes::told();
    let watcher = tokio::spawn(Arc::clone(&accounts).watch(changes));
    let soon = Duration::from_millis(10);

    let id = bench.add("new", HOUR);
    tokio::time::sleep(soon).await;
    assert!(accounts.get(id).is_none(), "nobody has told");
    teller.tell(told(&bench));
    tokio::time::sleep(soon).await;

    assert!(accounts.get(id).is_some());
    bench.context.shutdown.cancel();
    timeout(soon, watcher).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_account_keeps_what_is_known_and_is_read_again_later() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;
    let (teller, changes) = Changes::told();
    let watcher = tokio::spawn(Arc::clone(&accounts).watch(changes));
    bench.store.log_in(id, "rt-login", HOUR);
    bench.store.unreadable.store(true, Ordering::SeqCst);
    teller.tell(told(&bench));

    tokio::time::sleep(Duration::from_secs(1)).await;
    let member = accounts.get(id).unwrap();
    assert_eq!(member.manager.snapshot().generation(), 1);
    bench.store.unreadable.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(member.manager.snapshot().generation(), 2);
    watcher.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_read_earlier_does_not_win() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;
    let newest = bench.store.shelf().revision;

    accounts.apply(newest - 1, Vec::new(), &BTreeMap::new());

    assert!(accounts.get(id).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_until_its_guard_is_dropped() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;

    let (one, two) = (accounts.begin(id).unwrap(), accounts.begin(id).unwrap());
    assert_eq!(only(&accounts).in_flight, 2);
    assert_eq!(only(&accounts).last_used, Some(START));
    drop((one, two));

    assert_eq!(only(&accounts).in_flight, 0);
    assert!(accounts.begin(AccountId::new()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_at_once_and_is_stored_and_cleared() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;

    limit(&accounts, id);
    let choice = choose(&accounts.candidates(None), &Ask::of(&AccountScope::All, START));
    assert_eq!((choice.ordered.len(), choice.soonest_back().map(|back| back.0)), (0, Some(START + 5_000)));
    // The row does not know it yet, and must not take it away.
    accounts.reload().await.unwrap();
    assert_eq!(only(&accounts).limited_until, Some(START + 5_000));
    bench.settle().await;
    let row = bench.store.row(id);
    assert_eq!(row.limit_reason.as_deref(), Some("usage_limit_reached"));

    tokio::time::advance(Duration::from_mins(2)).await;
    let window = Window { used_percent: 3.0, window_minutes: Some(300), resets_at: None };
    let usage = Limits { primary: Some(window), allowed: Some(true), ..Limits::default() };
    accounts.note_limits(id, &usage, Source::Usage, None);
    bench.settle().await;
    assert_eq!((bench.store.row(id).limited_until, only(&accounts).limited_until), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lifted_in_the_store_is_lifted_here() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;
    limit(&accounts, id);
    bench.settle().await;

    bench.store.shelf().rows.get_mut(&id).unwrap().0.limited_until = None;
    accounts.reload().await.unwrap();

    assert_eq!(only(&accounts).limited_until, None);
}

#[tokio::test(start_paused = true)]
async fn a_cool_down_and_a_usage_report_reach_the_pool() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;

    let delay = Failure { retry_after: Some(Duration::from_secs(1)), ..Failure::of(FailureKind::RateLimited, "no") };
    accounts.suffer(id, Consequence::Cool, &delay, None, DEFAULTS);
    let window = Window { used_percent: 40.0, window_minutes: Some(300), resets_at: None };
    let limits = Limits { primary: Some(window), ..Limits::default() };
    accounts.note_limits(id, &limits, Source::Answer, None);

    assert_eq!(only(&accounts).cooling_until, Some(START + 1_000));
    assert_eq!(only(&accounts).windows[0].map(|window| window.used), Some(0.4));
}

#[tokio::test(start_paused = true)]
async fn readiness_hears_of_credentials_that_are_not_stored() {
    let bench = Bench::new();
    let id = bench.add("ada", -1);
    let accounts = directory(&bench).await;
    bench.store.shelf().failing_writes = 6;
    let begin = Instant::now();

    assert!(accounts.get(id).unwrap().manager.credentials().await.is_err());
    assert_eq!(accounts.unpersisted(), [id]);
    bench.settle().await;

    assert!(accounts.unpersisted().is_empty());
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_of_a_manager_reaches_the_pool_at_once() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;

    accounts.get(id).unwrap().manager.quarantine(1, "unauthorized");

    assert_eq!(only(&accounts).state, AccountState::Quarantined);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_told_at_once_is_counted_and_what_every_answer_brings_is_not() {
    let bench = Bench::new();
    let id = bench.add("ada", HOUR);
    let accounts = directory(&bench).await;
    let failure = Failure::of(FailureKind::ServerError, "no");
    let fail = || (0..5).for_each(|_| accounts.suffer(id, Consequence::Counted, &failure, None, DEFAULTS));
    let mut seen = accounts.tidings();
    let mut is_told = || std::mem::replace(&mut seen, accounts.tidings()) != accounts.tidings();

    drop(accounts.begin(id));
    accounts.succeeded(id);
    assert!(!is_told(), "an answer");
    fail();
    assert!(is_told(), "an open circuit");
    tokio::time::advance(Duration::from_mins(10)).await;
    let trial = accounts.begin(id);
    assert!(is_told(), "a trial");
    accounts.succeeded(id);
    assert!(is_told(), "a closed circuit");
    drop(trial);
    is_told();
    limit(&accounts, id);
    assert!(is_told(), "a limit");
    accounts.reload().await.unwrap();
    assert!(is_told(), "what operators changed");
    accounts.get(id).unwrap().manager.quarantine(1, "unauthorized");
    assert!(is_told(), "a verdict");
}

#[tokio::test(start_paused = true)]
async fn accounts_outside_a_scope_are_not_looked_at() {
    let bench = Bench::new();
    let (one, two) = (bench.add("one", HOUR), bench.add("two", HOUR));
    let accounts = directory(&bench).await;
    let ids = |scope| accounts.candidates_of(&scope, None).iter().map(|one| one.id).collect::<Vec<_>>();

    assert_eq!(ids(AccountScope::All), [one, two]);
    assert_eq!(ids(AccountScope::only([two, AccountId::new()])), [two]);
    assert_eq!(accounts.candidate(one, None).map(|found| found.id), Some(one));
    assert!(accounts.candidate(AccountId::new(), None).is_none());
}
