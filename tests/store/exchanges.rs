use std::time::Duration;

use tokio::time::sleep;
use tollway::store::{AccountId, ExchangeStore, Lease, Saved, Store, Trace};

use crate::database::{Database, NOW, add, credentials};

const LONG: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(100);

async fn take(store: &Store, account: AccountId, holder: &str, ttl: Duration) -> Lease {
    loop {
        let taken = store.leases().take(&ExchangeStore::lease_name(account), holder, ttl).await.unwrap();
        if let Some(lease) = taken {
            return lease;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// The generation, fence and loss that are noted.
async fn noted(store: &Store, account: AccountId) -> Option<(i64, i64, bool)> {
    let turn = store.exchanges().turn(account).await.unwrap().unwrap();
    turn.exchange.map(|exchange| (exchange.generation, exchange.fence, exchange.lost))
}

pub(crate) async fn an_exchange_is_noted_by_the_holder_of_the_lease_alone(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await.id;
    let exchanges = store.exchanges();
    let fresh = exchanges.turn(ada).await.unwrap().unwrap();
    assert_eq!((fresh.generation, fresh.lease, fresh.exchange), (1, None, None));

    let late = take(&store, ada, "late", SHORT).await;
    let held = take(&store, ada, "held", LONG).await;
    assert!(!exchanges.begin(ada, &late, 1, LONG).await.unwrap(), "an old number");
    assert!(!exchanges.begin(ada, &held, 2, LONG).await.unwrap(), "not the stored generation");
    assert_eq!(noted(&store, ada).await, None);
    assert!(exchanges.begin(ada, &held, 1, LONG).await.unwrap());
    assert!(!exchanges.begin(ada, &late, 1, LONG).await.unwrap(), "an old number");

    let turn = exchanges.turn(ada).await.unwrap().unwrap();
    let (lease, exchange) = (turn.lease.unwrap(), turn.exchange.unwrap());
    assert_eq!((lease.holder.as_str(), lease.fence), ("held", 2));
    assert!(lease.left > LONG / 2);
    assert_eq!((exchange.generation, exchange.fence, exchange.holder.as_str()), (1, 2, "held"));
    assert!(exchange.age < Duration::from_secs(30) && !exchange.lost);
}

pub(crate) async fn a_note_outlives_its_lease_and_not_its_generation(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await.id;
    let exchanges = store.exchanges();
    let dies = take(&store, ada, "dies", LONG).await;
    assert!(exchanges.begin(ada, &dies, 1, SHORT).await.unwrap());
    let next = take(&store, ada, "next", LONG).await;
    assert_eq!(noted(&store, ada).await, Some((1, 1, false)), "whoever comes next sees it");

    // What the late holder does under its old number changes nothing of the next one's.
    assert!(exchanges.begin(ada, &next, 1, LONG).await.unwrap());
    for trace in [Trace::Goes, Trace::Lost, Trace::Stays] {
        exchanges.end(ada, &dies, trace).await.unwrap();
    }
    assert_eq!(noted(&store, ada).await, Some((1, 2, false)));
    let turn = exchanges.turn(ada).await.unwrap().unwrap();
    assert!(!turn.lease.unwrap().left.is_zero());

    let saved = store.accounts().save_refreshed(ada, 1, &credentials("ada", 2), NOW).await.unwrap();
    assert_eq!(saved, Saved::Stored { generation: 2 });
    exchanges.end(ada, &next, Trace::Stays).await.unwrap();
    let turn = exchanges.turn(ada).await.unwrap().unwrap();
    assert!(turn.lease.unwrap().left.is_zero());
    assert!(turn.generation > turn.exchange.unwrap().generation, "void");
}

pub(crate) async fn a_note_is_taken_back_or_given_up_with_the_lease(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await.id;
    let exchanges = store.exchanges();
    for (trace, left) in [(Trace::Lost, Some(true)), (Trace::Goes, None), (Trace::Stays, Some(false))] {
        let lease = take(&store, ada, "replica", LONG).await;
        assert!(exchanges.begin(ada, &lease, 1, LONG).await.unwrap());
        exchanges.end(ada, &lease, trace).await.unwrap();

        assert_eq!(noted(&store, ada).await.map(|(.., lost)| lost), left, "{trace:?}");
    }

    let command = take(&store, ada, "command:1", LONG).await;
    assert!(exchanges.begin(ada, &command, 1, LONG).await.unwrap());
    exchanges.abandon("server:").await.unwrap();
    assert_eq!(noted(&store, ada).await, Some((1, command.fence, false)), "not a server's");
    exchanges.abandon("command:").await.unwrap();
    assert_eq!(noted(&store, ada).await, Some((1, command.fence, false)), "nobody has seen how it ended");
    let exchange = exchanges.turn(ada).await.unwrap().unwrap().exchange.unwrap();
    assert!(exchange.age > LONG * 24 * 365, "there is nobody to wait for: {exchange:?}");
    take(&store, ada, "next", LONG).await;
}

pub(crate) async fn a_removed_account_leaves_nothing_behind(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await.id;
    let lease = take(&store, ada, "replica", LONG).await;
    assert!(store.exchanges().begin(ada, &lease, 1, LONG).await.unwrap());

    store.accounts().remove(ada).await.unwrap();

    assert_eq!(store.exchanges().turn(ada).await.unwrap(), None);
    assert_eq!(store.leases().look(&lease.name).await.unwrap(), None);
    assert!(!store.exchanges().begin(ada, &lease, 1, LONG).await.unwrap());
    store.exchanges().end(ada, &lease, Trace::Lost).await.unwrap();
}
