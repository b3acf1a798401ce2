//! The behaviour of a token manager against a rotating issuer and a store with faults. Jitter is
//! the whole bound and time stands still until everybody waits.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use secrecy::ExposeSecret;
use tokio::time::{advance, sleep};

use super::super::ports::RefreshOutcome::{self, Adopted, PersistFailed};
use super::super::testing::{Bench, HOUR, START, Script, permanent, transient};
use super::*;

const DEAD: i64 = -1;
const ENDING: i64 = 30_000;

fn seconds(error: &TokenError) -> u64 {
    match error {
        TokenError::Unavailable { retry_after, .. } => retry_after.as_secs(),
        other => panic!("not a passing failure: {other}"),
    }
}

/// Starts `callers` tasks that want credentials, and waits until the exchange is under way.
async fn crowd(
    bench: &Bench,
    manager: &Arc<TokenManager>,
    callers: usize,
) -> Vec<tokio::task::JoinHandle<Result<Arc<Credentials>, TokenError>>> {
    let call = |_| {
        let manager = Arc::clone(manager);
        tokio::spawn(async move { manager.credentials().await })
    };
    let crowd = (0..callers).map(call).collect();
    bench.issuer.begun.acquire().await.unwrap().forget();
    crowd
}

#[tokio::test(start_paused = true)]
async fn a_living_token_is_given_without_an_exchange() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);

    let credentials = manager.credentials().await.unwrap();

    assert_eq!((credentials.generation, bench.issuer.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn five_hundred_callers_share_one_exchange() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.hold();

    let crowd = crowd(&bench, &manager, 500).await;
    bench.issuer.release();

    for caller in crowd {
        assert_eq!(caller.await.unwrap().unwrap().generation, 2);
    }
    assert_eq!(bench.issuer.calls(), 1);
    assert_eq!(bench.outcomes(), [RefreshOutcome::Ok]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_whose_turn_comes_after_another_replicas_adopts_what_that_one_has_stored() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    assert!(manager.refresh_ahead(1));

    // The task has not run yet.
    bench.store.log_in(manager.id(), "rt-of-another", HOUR);
    manager.observe(bench.store.row(manager.id()), Some(bench.store.credentials(manager.id())));
    bench.settle().await;

    assert_eq!((bench.issuer.calls(), bench.outcomes()), (0, vec![Adopted]));
    assert_eq!(manager.credentials().await.unwrap().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn five_hundred_callers_that_hang_up_do_not_cancel_the_refresh() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.hold();

    let crowd = crowd(&bench, &manager, 500).await;
    for caller in &crowd {
        caller.abort();
    }
    for caller in crowd {
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    bench.issuer.release();
    bench.settle().await;

    assert_eq!(bench.issuer.calls(), 1);
    let stored = bench.store.credentials(manager.id());
    assert_eq!(stored.refresh_token.expose_secret(), "rt-1");
    assert_eq!(manager.snapshot().generation(), 2);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_cannot_be_stored_are_used_by_nobody_until_they_are() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.shelf().failing_writes = 6;

    let first = manager.credentials().await.unwrap_err();

    assert!(first.to_string().contains("could not be stored"), "{first}");
    assert!(manager.is_unpersisted());
    assert_eq!(manager.snapshot().generation(), 1);

    bench.settle().await;

    assert!(!manager.is_unpersisted());
    assert_eq!(manager.credentials().await.unwrap().generation, 2);
    assert_eq!(bench.issuer.calls(), 1);
    assert_eq!(bench.outcomes().iter().filter(|o| **o == PersistFailed).count(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_of_the_store_is_waited_for() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.shelf().failing_writes = 3;

    assert_eq!(manager.credentials().await.unwrap().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_living_token_is_given_while_the_new_one_waits_for_the_store() {
    let bench = Bench::new();
    let manager = bench.manager(ENDING);
    bench.store.shelf().failing_writes = 6;

    assert_eq!(manager.credentials().await.unwrap().generation, 1);
    assert!(manager.is_unpersisted());
}

#[tokio::test(start_paused = true)]
async fn a_stopping_process_gives_a_failing_store_its_grace_and_no_more() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.shelf().failing_writes = u32::MAX;
    assert!(manager.credentials().await.is_err());
    let begin = Instant::now();

    bench.context.shutdown.cancel();
    bench.settle().await;

    let waited = begin.elapsed();
    let grace = bench.context.settings.shutdown_grace;
    assert!(waited >= grace && waited < grace + Duration::from_secs(1), "{waited:?}");
    assert!(manager.is_unpersisted());
}

#[tokio::test(start_paused = true)]
async fn a_stopping_process_stores_what_it_can_still_store() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.shelf().failing_writes = 20;
    assert!(manager.credentials().await.is_err());

    bench.context.shutdown.cancel();
    bench.settle().await;

    assert_eq!(bench.store.row(manager.id()).generation, 2);
    assert!(!manager.is_unpersisted());
}

#[tokio::test(start_paused = true)]
async fn a_login_during_the_exchange_wins_over_its_result() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.hold();

    let crowd = crowd(&bench, &manager, 1).await;
    bench.store.log_in(manager.id(), "rt-login", HOUR);
    bench.issuer.release();

    let credentials = crowd.into_iter().next().unwrap().await.unwrap().unwrap();
    assert_eq!(credentials.refresh_token.expose_secret(), "rt-login");
    let stored = bench.store.credentials(manager.id());
    assert_eq!(stored.refresh_token.expose_secret(), "rt-login");
    assert_eq!(bench.outcomes(), [Adopted]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_succeeded_and_said_otherwise_is_recognised() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.shelf().lying_write = true;

    let credentials = manager.credentials().await.unwrap();

    assert_eq!(credentials.refresh_token.expose_secret(), "rt-1");
    assert!(!manager.is_unpersisted());
}

#[tokio::test(start_paused = true)]
async fn newer_credentials_in_the_store_make_the_exchange_needless() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.log_in(manager.id(), "rt-login", HOUR);

    let credentials = manager.credentials().await.unwrap();

    assert_eq!(credentials.refresh_token.expose_secret(), "rt-login");
    assert_eq!((bench.issuer.calls(), bench.outcomes()), (0, vec![Adopted]));
}

#[tokio::test(start_paused = true)]
async fn newer_credentials_that_are_due_as_well_are_exchanged() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.log_in(manager.id(), "rt-login", DEAD);

    assert_eq!(manager.credentials().await.unwrap().generation, 3);
    assert!(!bench.issuer.knows(&"rt-login".into()));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_store_burns_no_refresh_token() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.unreadable.store(true, Ordering::SeqCst);

    let error = manager.credentials().await.unwrap_err();

    assert!(error.to_string().contains("the store cannot be used"), "{error}");
    assert_eq!(bench.issuer.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_not_tried_again_until_someone_logs_in() {
    let bench = Bench::new();
    let manager = bench.manager(ENDING);
    bench.script(Script::Fail(permanent("refresh_token_expired")));

    for _ in 0..3 {
        let error = manager.credentials().await.unwrap_err();
        assert!(matches!(error, TokenError::NeedsLogin { .. }), "{error}");
        assert!(manager.force_refresh(1).await.is_err());
        assert!(manager.refresh_now().await.is_err());
        assert!(!manager.refresh_ahead(1));
        advance(Duration::from_hours(1)).await;
    }
    bench.settle().await;
    assert_eq!(bench.issuer.calls(), 1);
    let row = bench.store.row(manager.id());
    assert_eq!(row.state, AccountState::NeedsLogin);
    assert_eq!(row.state_reason.as_deref(), Some("refresh_token_expired"));

    bench.store.log_in(manager.id(), "rt-login", 9 * HOUR);
    manager.observe(row_of(&bench, &manager), Some(bench.store.credentials(manager.id())));

    assert_eq!(manager.credentials().await.unwrap().generation, 2);
}

fn row_of(bench: &Bench, manager: &TokenManager) -> Account {
    bench.store.row(manager.id())
}

#[tokio::test(start_paused = true)]
async fn a_row_read_before_the_verdict_was_stored_does_not_lift_it() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    let early = row_of(&bench, &manager);
    bench.script(Script::Fail(permanent("invalid_grant")));
    assert!(manager.credentials().await.is_err());

    manager.observe(early, None);

    assert_eq!(manager.snapshot().standing.state, AccountState::NeedsLogin);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_somebody_else_has_used_is_explained_by_the_other_holder() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.spend(&manager.snapshot().credentials.refresh_token);

    let error = manager.credentials().await.unwrap_err();
    bench.settle().await;

    let TokenError::NeedsLogin { reason, detail } = error else {
        panic!("{error}");
    };
    assert_eq!(reason, "refresh_token_reused");
    assert!(detail.starts_with("Somebody else holds a copy"), "{detail}");
    assert_eq!(row_of(&bench, &manager).state_detail, Some(detail));
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_a_reused_token_is_not_blamed_on_somebody_else() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.script(Script::LoseAnswer);

    let first = manager.credentials().await.unwrap_err();
    sleep(Duration::from_secs(seconds(&first))).await;
    let second = manager.credentials().await.unwrap_err();

    assert_eq!(bench.issuer.calls(), 2);
    let TokenError::NeedsLogin { detail, .. } = second else {
        panic!("{second}");
    };
    assert!(detail.contains("Probably Tollway's own"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_believed_when_another_process_was_faster() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.hold();

    let crowd = crowd(&bench, &manager, 1).await;
    bench.issuer.spend(&"rt-ada".into());
    bench.issuer.release();
    // The other process commits after the issuer's answer to us, and before the second look.
    sleep(Duration::from_millis(500)).await;
    bench.store.log_in(manager.id(), "rt-other", HOUR);

    let credentials = crowd.into_iter().next().unwrap().await.unwrap().unwrap();
    assert_eq!(credentials.refresh_token.expose_secret(), "rt-other");
    assert_eq!(manager.snapshot().standing.state, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_spaced_by_a_growing_pause() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    for _ in 0..12 {
        bench.script(Script::Fail(transient(false)));
    }
    let mut pauses = Vec::new();

    for attempt in 1..=11 {
        let error = manager.credentials().await.unwrap_err();
        pauses.push(seconds(&error));
        sleep(Duration::from_millis(seconds(&error) * 1_000 - 1)).await;
        assert!(manager.credentials().await.is_err());
        assert_eq!(bench.issuer.calls(), attempt, "asked during the pause");
        sleep(Duration::from_millis(1)).await;
    }

    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_pauses() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.script(Script::Fail(transient(false)));
    bench.script(Script::Fail(transient(false)));

    for _ in 0..2 {
        let error = manager.credentials().await.unwrap_err();
        sleep(Duration::from_secs(seconds(&error))).await;
    }
    manager.credentials().await.unwrap();
    bench.script(Script::Fail(transient(false)));

    assert_eq!(seconds(&manager.force_refresh(2).await.unwrap_err()), 1);
}

#[tokio::test(start_paused = true)]
async fn the_issuers_retry_after_is_kept() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.script(Script::Fail(crate::oauth::RefreshError::Transient {
        code: None,
        detail: "busy".into(),
        retry_after: Some(Duration::from_secs(90)),
        ambiguous: false,
    }));

    assert_eq!(seconds(&manager.credentials().await.unwrap_err()), 90);
}

#[tokio::test(start_paused = true)]
async fn a_living_token_is_given_while_the_issuer_fails_or_hangs() {
    let bench = Bench::new();
    let failing = bench.manager(ENDING);
    bench.script(Script::Fail(transient(false)));
    assert_eq!(failing.credentials().await.unwrap().generation, 1);

    let hanging = bench.manager_of(bench.add("hanging", ENDING));
    bench.issuer.hold();
    let begin = Instant::now();

    assert_eq!(hanging.credentials().await.unwrap().generation, 1);
    assert_eq!(begin.elapsed(), bench.context.settings.patience);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_one_generation_make_one_exchange() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);
    let refused = |_| {
        let manager = Arc::clone(&manager);
        tokio::spawn(async move { manager.force_refresh(1).await })
    };

    for caller in (0..50).map(refused).collect::<Vec<_>>() {
        assert_eq!(caller.await.unwrap().unwrap().generation, 2);
    }
    let late = manager.force_refresh(1).await.unwrap();

    assert_eq!((late.generation, bench.issuer.calls()), (2, 1));
    assert_eq!(bench.issuer.last_reason(), Some(RefreshReason::UnauthorizedRecovery));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_right_after_a_recovery_quarantines_instead_of_looping() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);
    manager.force_refresh(1).await.unwrap();

    for _ in 0..5 {
        let error = manager.force_refresh(2).await.unwrap_err();
        assert!(matches!(error, TokenError::Quarantined { .. }), "{error}");
    }
    bench.settle().await;

    assert_eq!(bench.issuer.calls(), 1);
    assert!(manager.credentials().await.is_err());
    let row = row_of(&bench, &manager);
    assert_eq!(row.state, AccountState::Quarantined);
    assert_eq!(row.state_reason.as_deref(), Some(UNAUTHORIZED_AFTER_REFRESH));
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_reads_a_recovery_first_does_not_hide_that_it_was_one() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);
    bench.store.log_in(manager.id(), "rt-1", HOUR);
    let written = bench.store.credentials(manager.id());

    manager.observe(row_of(&bench, &manager), Some(written.clone()));
    manager.publish(written, RefreshReason::UnauthorizedRecovery);

    let error = manager.force_refresh(2).await.unwrap_err();
    assert!(matches!(error, TokenError::Quarantined { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_long_after_a_recovery_is_a_new_incident() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);
    manager.force_refresh(1).await.unwrap();
    advance(bench.context.settings.quarantine_window).await;

    assert_eq!(manager.force_refresh(2).await.unwrap().generation, 3);
}

#[tokio::test(start_paused = true)]
async fn a_report_about_old_credentials_quarantines_nobody() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);
    manager.refresh_now().await.unwrap();

    assert!(!manager.quarantine(1, "unauthorized"));
    assert_eq!(manager.snapshot().standing.state, AccountState::Active);
    assert!(manager.quarantine(2, "unauthorized"));
}

#[tokio::test(start_paused = true)]
async fn an_operators_refresh_ends_a_quarantine() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);
    assert!(manager.quarantine(1, "unauthorized"));
    bench.settle().await;
    advance(Duration::from_secs(1)).await;

    manager.refresh_now().await.unwrap();
    bench.settle().await;

    assert!(manager.credentials().await.is_ok());
    assert_eq!(row_of(&bench, &manager).state, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_is_lifted_in_the_store_is_lifted_here() {
    let bench = Bench::new();
    let manager = bench.manager(HOUR);
    manager.quarantine(1, "unauthorized");
    bench.settle().await;
    let mut row = row_of(&bench, &manager);
    row.state = AccountState::Active;
    row.state_since += 1;

    manager.observe(row, None);

    assert!(manager.credentials().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_of_short_lived_tokens_is_not_asked_for_every_request() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    *bench.issuer.life_ms.lock().unwrap() = 40_000;

    for _ in 0..100 {
        assert!(manager.credentials().await.is_ok());
    }
    assert_eq!(bench.issuer.calls(), 1);
    advance(Duration::from_secs(20)).await;
    manager.credentials().await.unwrap();

    assert_eq!(bench.issuer.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_removed_account_begins_nothing() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.store.shelf().rows.clear();

    assert_eq!(manager.credentials().await.err(), Some(TokenError::Removed));
    assert_eq!(manager.credentials().await.err(), Some(TokenError::Removed));
    assert_eq!(bench.issuer.calls(), 0);
}

/// What may happen to an account, in any order.
#[derive(Debug, Clone, Copy)]
enum Event {
    Ask,
    HangUp,
    Refuse,
    LoseAnswer,
    IssuerFails,
    WritesFail(u8),
    WriteLies,
    Wait(u16),
    LogIn,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Ask),
        3 => Just(Event::HangUp),
        3 => Just(Event::Refuse),
        1 => Just(Event::LoseAnswer),
        1 => Just(Event::IssuerFails),
        2 => (1..8_u8).prop_map(Event::WritesFail),
        1 => Just(Event::WriteLies),
        4 => (1..5_000_u16).prop_map(Event::Wait),
        1 => Just(Event::LogIn),
    ]
}

async fn play(bench: &Bench, manager: &Arc<TokenManager>, step: usize, event: Event) {
    match event {
        Event::Ask => drop(manager.credentials().await),
        Event::HangUp => {
            let asking = manager.credentials();
            drop(timeout(Duration::ZERO, asking).await);
        }
        Event::Refuse => drop(manager.force_refresh(manager.snapshot().generation()).await),
        Event::LoseAnswer => bench.script(Script::LoseAnswer),
        Event::IssuerFails => bench.script(Script::Fail(transient(false))),
        Event::WritesFail(times) => bench.store.shelf().failing_writes = times.into(),
        Event::WriteLies => bench.store.shelf().lying_write = true,
        Event::Wait(time) => sleep(Duration::from_secs(time.into())).await,
        Event::LogIn => {
            let now = (bench.context.clock)() - START;
            bench.store.log_in(manager.id(), &format!("rt-login-{step}"), now + HOUR);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens in whatever order: once everything has come to rest, the stored refresh
    /// token is one that the issuer accepts. The one exception is an answer that was lost on its
    /// way, which nobody can make good.
    #[test]
    fn the_stored_refresh_token_is_always_a_live_one(
        events in proptest::collection::vec(event(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            let manager = bench.manager(ENDING);
            let mut lost = false;
            for (step, event) in events.into_iter().enumerate() {
                lost |= matches!(event, Event::LoseAnswer);
                play(&bench, &manager, step, event).await;
            }
            bench.settle().await;

            let stored = bench.store.credentials(manager.id());
            prop_assert!(lost || bench.issuer.knows(&stored.refresh_token));
            prop_assert!(!manager.is_unpersisted());
            let standing = manager.snapshot().standing.state;
            prop_assert!(lost || standing != AccountState::NeedsLogin);
            Ok(())
        })?;
    }
}
