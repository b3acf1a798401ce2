use std::time::{Duration, Instant};

use tokio::time::sleep;
use tollway::store::{Lease, Store};

use crate::database::{Database, OLD_KEY};

const LONG: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(300);

async fn take(store: &Store, holder: &str, ttl: Duration) -> Option<Lease> {
    store.leases().take("refresh:ada", holder, ttl).await.unwrap()
}

/// Tries until the lease is free.
async fn wait_for(store: &Store, holder: &str) -> Lease {
    loop {
        if let Some(lease) = take(store, holder, LONG).await {
            return lease;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn one_of_many_takes_a_lease_and_the_others_see_who(db: Database) {
    let first = db.store().await;
    let replicas = [first.clone(), db.open(OLD_KEY).await.unwrap(), db.open(OLD_KEY).await.unwrap()];
    let tries = (0..12).map(|number| {
        let store = replicas[number % 3].clone();
        tokio::spawn(async move { take(&store, &format!("replica-{number}"), LONG).await })
    });
    let tries: Vec<_> = tries.collect();
    let mut taken = Vec::new();
    for one in tries {
        taken.extend(one.await.unwrap());
    }

    assert_eq!(taken.len(), 1, "{taken:?}");
    let seen = first.leases().look("refresh:ada").await.unwrap().unwrap();
    assert_eq!((seen.holder.as_str(), seen.fence), (taken[0].holder.as_str(), 1));
    assert!(seen.left > LONG / 2 && seen.left <= LONG, "{seen:?}");
    assert_eq!(take(&first, &taken[0].holder, LONG).await, None, "not even its holder takes it twice");
    let other = first.leases().take("refresh:bob", "replica-1", LONG).await.unwrap();
    assert_eq!(other.unwrap().fence, 1, "another name is another lease");
    assert_eq!(first.leases().look("refresh:eve").await.unwrap(), None);
}

pub(crate) async fn a_lease_ends_by_itself_by_release_and_by_nothing_else(db: Database) {
    let store = db.store().await;
    let begin = Instant::now();
    let dead = take(&store, "dies", SHORT).await.unwrap();
    let kept = wait_for(&store, "waits").await;
    assert!(begin.elapsed() >= SHORT, "taken after {:?}", begin.elapsed());

    let leases = store.leases();
    assert!(!leases.renew(&dead, LONG).await.unwrap(), "it was somebody else's already");
    leases.release(&dead).await.unwrap();
    assert_eq!(leases.look("refresh:ada").await.unwrap().unwrap().holder, "waits");
    assert_eq!(take(&store, "third", LONG).await, None);

    leases.release(&kept).await.unwrap();
    assert_eq!(leases.look("refresh:ada").await.unwrap().unwrap().left, Duration::ZERO);
    assert!(!leases.renew(&kept, LONG).await.unwrap(), "a released lease does not come back");

    let renewed = take(&store, "third", SHORT).await.unwrap();
    assert!(leases.renew(&renewed, LONG).await.unwrap());
    sleep(SHORT * 2).await;
    assert_eq!(take(&store, "fourth", LONG).await, None, "renewed in time");

    let late = leases.take("leader", "sleeps", Duration::from_millis(1)).await.unwrap().unwrap();
    sleep(Duration::from_millis(20)).await;
    assert!(!leases.renew(&late, LONG).await.unwrap(), "what has ended is not renewed, even when nobody wants it");
}

pub(crate) async fn a_fencing_number_only_goes_up(db: Database) {
    let store = db.store().await;
    let mut last = 0;
    for round in 0..5 {
        let lease = wait_for(&store, &format!("replica-{round}")).await;
        assert_eq!(lease.fence, last + 1);
        last = lease.fence;
        store.leases().release(&lease).await.unwrap();
        // Once more: also a release that comes twice takes nothing back.
        store.leases().release(&lease).await.unwrap();
    }
}
