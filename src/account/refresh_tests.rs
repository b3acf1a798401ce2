//! Several processes on one store, and what one of them leaves behind for the others. Jitter is the
//! whole bound and time stands still until everybody waits.

use std::sync::atomic::Ordering;

use secrecy::ExposeSecret;
use tokio::sync::Semaphore;

use super::super::testing::{Bench, HOUR, Script, transient};
use super::*;
use crate::store::{Account, AccountState};

const DEAD: i64 = -1;

/// What another process has written down before it fell silent.
fn left_behind(bench: &Bench, manager: &TokenManager) {
    let lease = bench.store.take_lease(manager.id(), "other", Duration::from_secs(35)).unwrap();
    assert!(bench.store.begin_exchange(manager.id(), &lease, 1, Duration::from_secs(35)));
}

#[tokio::test(start_paused = true)]
async fn of_three_processes_one_asks_the_issuer_and_the_others_adopt() {
    let bench = Bench::new();
    let id = bench.add("ada", DEAD);
    let ask = |_| {
        let manager = bench.manager_of(id);
        tokio::spawn(async move { manager.credentials().await })
    };

    for process in (0..3).map(ask).collect::<Vec<_>>() {
        assert_eq!(process.await.unwrap().unwrap().generation, 2);
    }

    assert_eq!(bench.issuer.calls(), 1);
    let adopted = bench.outcomes().into_iter().filter(|outcome| *outcome == RefreshOutcome::Adopted).count();
    assert_eq!(adopted, 2);
}

/// Its token is not sent again, however long one waits and whoever asks.
#[tokio::test(start_paused = true)]
async fn a_holder_that_fell_silent_is_waited_for_and_then_the_account_needs_a_login() {
    let bench = Bench::new();
    let id = bench.add("ada", DEAD);
    let manager = bench.manager_of(id);
    left_behind(&bench, &manager);
    let begin = Instant::now();

    let error = manager.credentials().await.unwrap_err();

    let TokenError::NeedsLogin { reason, detail } = error else { panic!("{error}") };
    assert_eq!(reason, "refresh_interrupted");
    assert!(detail.contains("tollway account login"), "{detail}");
    let waited = begin.elapsed();
    assert!(waited >= bench.context.settings.doubt && waited < Duration::from_secs(65), "{waited:?}");
    bench.settle().await;
    assert_eq!(bench.store.row(id).state, AccountState::NeedsLogin);
    assert!(manager.refresh_now().await.is_err());
    assert!(bench.manager_of(id).credentials().await.is_err());
    assert_eq!((bench.issuer.calls(), bench.outcomes()), (0, vec![RefreshOutcome::Permanent]));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_the_account_was_given_up_is_kept_and_ends_that() {
    let bench = Bench::new();
    let id = bench.add("ada", DEAD);
    let (sender, other) = (bench.manager_of(id), bench.manager_of(id));
    bench.issuer.hold();
    let asking = tokio::spawn({
        let sender = Arc::clone(&sender);
        async move { sender.credentials().await }
    });
    bench.issuer.begun.acquire().await.unwrap().forget();
    assert!(other.credentials().await.is_err());
    // The sender has heard of it, as it hears of every change.
    let row = bench.store.row(id);
    assert_eq!(row.state, AccountState::NeedsLogin);
    sender.observe(row, None);
    bench.issuer.release();

    assert_eq!(asking.await.unwrap().unwrap().generation, 2);
    assert_eq!(sender.snapshot().standing.state, AccountState::Active);
    let stored = bench.manager_of(id).snapshot();
    assert_eq!((stored.standing.state, stored.generation()), (AccountState::Active, 2));
    other.observe(Account::clone(&stored.account), Some(Credentials::clone(&stored.credentials)));
    assert_eq!(other.credentials().await.unwrap().generation, 2);
    assert_eq!(bench.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_takes_the_risk_has_one_careful_try_after_the_doubt() {
    let mut bench = Bench::new();
    bench.resend_after_crash();
    let manager = bench.manager(DEAD);
    left_behind(&bench, &manager);
    let begin = Instant::now();

    assert_eq!(manager.credentials().await.unwrap().generation, 2);

    assert_eq!(bench.issuer.calls(), 1);
    let waited = begin.elapsed();
    assert!(waited >= bench.context.settings.doubt && waited < Duration::from_secs(65), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_may_take_the_risk_when_the_account_is_given_up() {
    let mut bench = Bench::new();
    let id = bench.add("ada", DEAD);
    let manager = bench.manager_of(id);
    left_behind(&bench, &manager);
    assert!(manager.credentials().await.is_err());
    bench.settle().await;
    drop(manager);
    bench.resend_after_crash();
    let manager = bench.manager_of(id);

    assert!(manager.credentials().await.is_err(), "not unasked");
    assert_eq!(manager.refresh_now().await.unwrap().generation, 2);

    assert_eq!(manager.snapshot().standing.state, AccountState::Active);
    assert_eq!(bench.store.row(id).state, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_lost_holder_had_used_is_our_own_loss_and_not_somebody_elses_copy() {
    let mut bench = Bench::new();
    bench.resend_after_crash();
    let manager = bench.manager(DEAD);
    left_behind(&bench, &manager);
    bench.issuer.spend(&"rt-ada".into());

    let error = manager.credentials().await.unwrap_err();

    let TokenError::NeedsLogin { detail, .. } = error else { panic!("{error}") };
    assert!(detail.contains("Probably Tollway's own"), "{detail}");
    bench.settle().await;
    assert_eq!(bench.store.row(manager.id()).state, AccountState::NeedsLogin);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_comes_back_in_time_is_adopted() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    left_behind(&bench, &manager);
    let asking = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.credentials().await }
    });
    sleep(Duration::from_secs(50)).await;
    bench.store.log_in(manager.id(), "rt-late", HOUR);

    assert_eq!(asking.await.unwrap().unwrap().generation, 2);
    assert_eq!(bench.issuer.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_the_old_access_token_serves_a_doubtful_refresh_token_is_left_alone() {
    for resend in [false, true] {
        let mut bench = Bench::new();
        if resend {
            bench.resend_after_crash();
        }
        let manager = bench.manager(HOUR);
        left_behind(&bench, &manager);

        for _ in 0..20 {
            manager.refresh_ahead(1);
            sleep(Duration::from_mins(1)).await;
            assert_eq!(manager.credentials().await.unwrap().generation, 1);
        }
        assert_eq!(bench.issuer.calls(), 0);

        // An operator may decide otherwise, but not by accident.
        let forced = manager.refresh_now().await;
        if resend {
            assert_eq!(forced.unwrap().generation, 2);
        } else {
            let error = forced.unwrap_err();
            assert!(error.to_string().contains("its refresh token is left alone"), "{error}");
            assert_eq!(manager.credentials().await.unwrap().generation, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_paused_before_its_token_left_does_not_send_it() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.wire.forget_permits(Semaphore::MAX_PERMITS);
    let asking = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.credentials().await }
    });
    sleep(Duration::from_secs(30)).await;
    assert_eq!(bench.issuer.calls(), 0);
    bench.issuer.wire.add_permits(1_000);

    // It goes back to the end of the queue, and finds that nobody was faster.
    assert_eq!(asking.await.unwrap().unwrap().generation, 2);
    assert_eq!((bench.issuer.calls(), bench.issuer.asked()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_comes_after_the_lease_is_lost_condemns_nobody() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.hold();
    let asking = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.credentials().await }
    });
    bench.issuer.begun.acquire().await.unwrap().forget();
    // The lease ends unseen; another process takes it, spends the token, and has not stored its answer.
    sleep(Duration::from_secs(40)).await;
    left_behind(&bench, &manager);
    bench.issuer.spend(&"rt-ada".into());
    bench.issuer.release();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(manager.snapshot().standing.state, AccountState::Active);
    bench.store.log_in(manager.id(), "rt-other", HOUR);

    assert_eq!(asking.await.unwrap().unwrap().refresh_token.expose_secret(), "rt-other");
    assert_eq!(bench.issuer.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_the_lease_is_lost_is_kept_if_nobody_got_further() {
    let bench = Bench::new();
    let manager = bench.manager(DEAD);
    bench.issuer.hold();
    let asking = tokio::spawn({
        let manager = Arc::clone(&manager);
        async move { manager.credentials().await }
    });
    bench.issuer.begun.acquire().await.unwrap().forget();
    sleep(Duration::from_secs(40)).await;
    let other = bench.store.take_lease(manager.id(), "other", Duration::from_secs(35));
    assert!(other.is_some(), "the lease has ended");
    bench.issuer.release();

    assert_eq!(asking.await.unwrap().unwrap().generation, 2);
    assert!(bench.issuer.knows(&bench.store.credentials(manager.id()).refresh_token));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_noted_for_every_process() {
    let bench = Bench::new();
    let id = bench.add("ada", DEAD);
    bench.script(Script::LoseAnswer);
    assert!(bench.manager_of(id).credentials().await.is_err());

    let error = bench.manager_of(id).credentials().await.unwrap_err();

    let TokenError::NeedsLogin { detail, .. } = error else { panic!("{error}") };
    assert!(detail.contains("Probably Tollway's own"), "{detail}");
}

/// An open note costs the login: the end of an exchange is written as soon as it can be.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_noted_even_if_the_store_was_away_meanwhile() {
    let bench = Bench::new();
    let id = bench.add("ada", DEAD);
    let manager = bench.manager_of(id);
    bench.issuer.hold();
    bench.script(Script::Fail(transient(true)));
    let asking = tokio::spawn(async move { manager.credentials().await });
    bench.issuer.begun.acquire().await.unwrap().forget();
    bench.store.unreadable.store(true, Ordering::SeqCst);
    bench.issuer.release();
    assert!(asking.await.unwrap().is_err());
    sleep(Duration::from_secs(20)).await;
    bench.store.unreadable.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(15)).await;

    assert_eq!(bench.manager_of(id).credentials().await.unwrap().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_left_the_token_alone_leaves_no_doubt() {
    let bench = Bench::new();
    let id = bench.add("ada", DEAD);
    bench.script(Script::Fail(transient(false)));
    assert!(bench.manager_of(id).credentials().await.is_err());
    let begin = Instant::now();

    assert_eq!(bench.manager_of(id).credentials().await.unwrap().generation, 2);
    assert!(begin.elapsed() < Duration::from_secs(1));
}
