use std::time::Duration;

use tollway::store::{Asked, Holder, Share, Sight, Slices, Store, UsageRow, Used};

use crate::database::{Database, NOW, OLD_KEY};

const HOUR: i64 = 3_600_000;

fn asked(id: &str, tokens: u64) -> Asked {
    Asked { holder: Holder::Team, id: id.to_owned(), since: NOW / HOUR - 1, used: (tokens, tokens * 10) }
}

fn row(id: &str, tokens: u64) -> UsageRow {
    UsageRow {
        id: id.to_owned(),
        at: NOW,
        team_id: "t".to_owned(),
        key_id: "k".to_owned(),
        outcome: "ok".to_owned(),
        used: Used { input: tokens, ..Used::default() },
        cost: Some(tokens * 10),
        ..UsageRow::default()
    }
}

fn share(tokens: u64) -> Share {
    Share { has: [tokens, 0, 0, 0, 0], ..Share::default() }
}

/// Says what it has used and takes `share`; gives what it saw.
async fn exchange(slices: &Slices, asked: &[Asked], share: Option<Share>) -> Vec<Sight> {
    let mut seen = Vec::new();
    let kept = slices.exchange(asked, |_, sights| {
        seen.clone_from(&sights);
        vec![share; sights.len()]
    });
    kept.await.unwrap();
    seen
}

/// Whether each of the others is dead to this server.
async fn are_dead(slices: &Slices) -> Vec<bool> {
    let seen = exchange(slices, &[asked("t", 0)], None).await;
    seen[0].others.iter().map(|other| other.is_dead).collect()
}

/// Two servers; none where there can be only one.
fn servers(store: &Store, lease: Duration) -> Option<[Slices; 2]> {
    Some([Slices::new(store, "one".to_owned(), lease)?, Slices::new(store, "two".to_owned(), lease)?])
}

pub(crate) async fn what_a_server_has_and_uses_is_seen_by_the_others_and_moves_to_the_ledger(db: Database) {
    let store = db.store().await;
    let Some([one, two]) = servers(&store, Duration::from_secs(10)) else { return };
    assert_eq!(exchange(&one, &[asked("t", 0)], Some(share(100))).await, [Sight::default()]);
    // Two rows are on their way; one of them is said in the exchange.
    exchange(&one, &[asked("t", 30), asked("u", 1)], Some(share(70))).await;
    let seen = exchange(&two, &[asked("u", 0), asked("t", 0)], Some(share(5))).await;
    let of = |sight: &Sight| sight.others.iter().map(|other| (other.share.has[0], other.used)).collect::<Vec<_>>();
    assert_eq!(seen.iter().map(of).collect::<Vec<_>>(), [[(70, (1, 10))], [(70, (30, 300))]]);
    store.ledger().append_as(Some("one"), &[row("r1", 20), row("r2", 40)]).await.unwrap();
    // A batch whose commit was in doubt comes again.
    store.ledger().append_as(Some("one"), &[row("r1", 20)]).await.unwrap();
    let [seen] = &exchange(&two, &[asked("t", 0)], Some(share(5))).await[..] else { panic!("one sight") };
    assert_eq!(seen.hours, [(NOW / HOUR, 60, 600)]);
    assert_eq!(of(seen), [(70, (0, 0))], "what was written is not said again");
    let hours = store.ledger().hours(Holder::Team, "t", NOW / HOUR).await.unwrap();
    assert_eq!(hours, seen.hours, "the ledger's sums are the same");

    exchange(&one, &[asked("u", 0)], None).await;
    assert_eq!(of(&exchange(&two, &[asked("u", 0)], None).await[0]), []);
    one.leave().await.unwrap();
    assert_eq!(of(&exchange(&two, &[asked("t", 0)], None).await[0]), [], "all is given back");
}

pub(crate) async fn exchanges_about_one_holder_come_one_after_the_other(db: Database) {
    let store = db.store().await;
    if servers(&store, Duration::from_secs(10)).is_none() {
        return;
    }
    // Each takes what the others have left of ten.
    let others = db.open(OLD_KEY).await.unwrap();
    let tasks = (0..8).map(|number| {
        let store = if number % 2 == 0 { store.clone() } else { others.clone() };
        tokio::spawn(async move {
            let slices = Slices::new(&store, format!("server-{number}"), Duration::from_secs(10)).unwrap();
            for _ in 0..5 {
                let take = |_: i64, sights: Vec<Sight>| {
                    let taken: u64 = sights[0].others.iter().map(|other| other.share.has[0]).sum();
                    vec![Some(share(3.min(10 - taken)))]
                };
                slices.exchange(&[asked("t", 0)], take).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let last = Slices::new(&store, "last".to_owned(), Duration::from_secs(10)).unwrap();
    let seen = exchange(&last, &[asked("t", 0)], None).await;
    assert_eq!(seen[0].others.iter().map(|other| other.share.has[0]).sum::<u64>(), 10);
}

pub(crate) async fn a_silent_server_is_dead_when_its_connection_is_gone(db: Database) {
    let store = db.store().await;
    let Some([one, two]) = servers(&store, Duration::from_millis(100)) else { return };
    exchange(&one, &[asked("t", 7)], Some(share(100))).await;
    assert_eq!(are_dead(&two).await, [false]);
    // Its lease and the grace after it are over, but it may be paused.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(are_dead(&two).await, [false]);
    drop(one);
    while are_dead(&two).await != [true] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn a_server_that_gave_an_exchange_up_is_alive(db: Database) {
    let store = db.store().await;
    let Some([one, two]) = servers(&store, Duration::from_millis(100)) else { return };
    exchange(&one, &[asked("t", 7)], Some(share(100))).await;
    // As when it wakes up after its lease in the middle of one that it gives no more time.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let asked = [asked("t", 7)];
    let given_up = tokio::time::timeout(Duration::ZERO, one.exchange(&asked, |_, _| panic!("no time"))).await;
    assert!(given_up.is_err());
    one.renew().await.unwrap();
    for _ in 0..20 {
        assert_eq!(are_dead(&two).await, [false]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It goes on, and its other connection shows the same.
    exchange(&one, &asked, Some(share(100))).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(are_dead(&two).await, [false]);
    drop(one);
    while are_dead(&two).await != [true] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn a_spent_budget_is_told_by_one_server_and_again_in_its_next_period(db: Database) {
    let store = db.store().await;
    let Some([one, two]) = servers(&store, Duration::from_secs(10)) else { return };
    let whose = (Holder::Team, "t");
    let mut told = Vec::new();
    for (slices, now) in [(&one, NOW), (&two, NOW), (&two, NOW + 1000), (&one, NOW + 1000)] {
        told.push(slices.claim_hit(whose, "5 tokens/day", now, now + 1000).await.unwrap());
    }
    assert_eq!(told, [true, false, true, false]);
    assert!(two.claim_hit(whose, "5 tokens/week", NOW, NOW + 1000).await.unwrap());
}
