use tollway::store::{BatchCounts, BatchOutcome, Deletion, KeyId, NewBatch, PageSide, Rotation, Store, StoreError};

use crate::database::{Database, NEW_KEY, NOW, OLD_KEY};

/// A batch of so many requests that expires 1000 ms after `NOW`.
async fn put(store: &Store, key: KeyId, id: &str, created_at: i64, count: usize) {
    let requests: Vec<Vec<u8>> = (0..count).map(|number| format!("request {number} of {id}").into_bytes()).collect();
    let requests: Vec<&[u8]> = requests.iter().map(Vec::as_slice).collect();
    let batch = NewBatch { key, id, created_at, expires_at: NOW + 1000 };
    store.batches().put(&batch, &requests).await.unwrap();
}

async fn counts(store: &Store, key: KeyId, id: &str) -> BatchCounts {
    store.batches().get(key, id).await.unwrap().unwrap().counts
}

/// Claims the next request of a key; its place and what is in it.
async fn claim(store: &Store, key: KeyId, now: i64) -> Option<(String, String)> {
    let claimed = store.batches().claim(&key.to_string(), now, now + 100).await.unwrap()?;
    Some((claimed.place, String::from_utf8(claimed.content.to_vec()).unwrap()))
}

pub(crate) async fn a_batch_is_found_by_its_own_key_only(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    put(&store, ada, "msgbatch_1", NOW, 2).await;
    assert_eq!(counts(&store, ada, "msgbatch_1").await, BatchCounts { processing: 2, ..Default::default() });
    assert_eq!(store.batches().get(bob, "msgbatch_1").await.unwrap(), None);
    assert!(!store.batches().cancel(bob, "msgbatch_1", NOW).await.unwrap());
    assert_eq!(store.batches().delete(bob, "msgbatch_1").await.unwrap(), Deletion::Absent);
    assert!(store.batches().outcomes(bob, "msgbatch_1", 0, 10).await.unwrap().is_empty());
    assert!(store.batches().list(bob, PageSide::Newest, 10).await.unwrap().is_empty());
    assert_eq!((store.batches().unended(ada).await.unwrap(), store.batches().unended(bob).await.unwrap()), (2, 0));
}

pub(crate) async fn batches_are_listed_from_the_newest_in_pages(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    for number in 0..5 {
        put(&store, key, &format!("msgbatch_{number}"), NOW + number / 2, 1).await;
    }
    let page = async |side, limit| {
        let found = store.batches().list(key, side, limit).await.unwrap();
        found.iter().map(|batch| batch.id.trim_start_matches("msgbatch_").to_owned()).collect::<String>()
    };
    assert_eq!(page(PageSide::Newest, 2).await, "43");
    assert_eq!(page(PageSide::After("msgbatch_3"), 2).await, "21");
    assert_eq!(page(PageSide::After("msgbatch_1"), 2).await, "0");
    assert_eq!(page(PageSide::Before("msgbatch_1"), 2).await, "32");
    assert_eq!(page(PageSide::Before("nobody"), 2).await, "");
}

pub(crate) async fn a_request_is_worked_on_by_one_and_has_one_outcome(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    put(&store, ada, "msgbatch_1", NOW, 2).await;
    put(&store, bob, "msgbatch_2", NOW, 1).await;
    let mut keys = vec![ada.to_string(), bob.to_string()];
    keys.sort();
    assert_eq!(store.batches().keys_with_work(NOW).await.unwrap(), keys);
    let (first, content) = claim(&store, ada, NOW).await.unwrap();
    assert_eq!(content, "request 0 of msgbatch_1");
    let (second, content) = claim(&store, ada, NOW).await.unwrap();
    assert_eq!(content, "request 1 of msgbatch_1");
    assert_eq!(claim(&store, ada, NOW).await, None, "both are being worked on");
    assert_eq!(store.batches().keys_with_work(NOW).await.unwrap(), [bob.to_string()]);

    // Put back, it waits its time and comes again.
    store.batches().put_back(&first, 3, NOW + 10, NOW).await.unwrap();
    assert_eq!(claim(&store, ada, NOW + 9).await, None);
    let again = store.batches().claim(&ada.to_string(), NOW + 10, NOW + 20).await.unwrap().unwrap();
    assert_eq!((again.place.as_str(), again.attempts), (first.as_str(), 3));
    // Whoever worked on it is gone: another takes it up. The first of both to end it counts.
    let (taken, _) = claim(&store, ada, NOW + 20).await.unwrap();
    assert_eq!(taken, first);
    assert!(store.batches().finish(&first, BatchOutcome::Succeeded, b"result 0", NOW + 21).await.unwrap());
    assert!(!store.batches().finish(&first, BatchOutcome::Errored, b"too late", NOW + 22).await.unwrap());
    store.batches().put_back(&first, 4, NOW, NOW).await.unwrap();

    let batch = store.batches().get(ada, "msgbatch_1").await.unwrap().unwrap();
    assert_eq!((batch.counts.processing, batch.counts.succeeded, batch.ended_at), (1, 1, None));
    store.batches().renew(&second, NOW + 500).await.unwrap();
    assert_eq!(claim(&store, ada, NOW + 300).await, None, "the sign of life counts");
    assert!(store.batches().finish(&second, BatchOutcome::Errored, b"result 1", NOW + 301).await.unwrap());
    assert_eq!(store.batches().get(ada, "msgbatch_1").await.unwrap().unwrap().ended_at, Some(NOW + 301));
    let outcomes = store.batches().outcomes(ada, "msgbatch_1", 0, 10).await.unwrap();
    let told: Vec<_> = outcomes.iter().map(|(at, outcome, content)| (*at, *outcome, content.as_slice())).collect();
    assert_eq!(told, [(0, BatchOutcome::Succeeded, &b"result 0"[..]), (1, BatchOutcome::Errored, &b"result 1"[..])]);
    assert_eq!(store.batches().outcomes(ada, "msgbatch_1", 1, 10).await.unwrap().len(), 1);
    assert_eq!(store.batches().unended(ada).await.unwrap(), 0);
}

pub(crate) async fn a_cancelled_batch_ends_with_what_was_being_worked_on(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    put(&store, key, "msgbatch_1", NOW, 4).await;
    let (first, _) = claim(&store, key, NOW).await.unwrap();
    let (second, _) = claim(&store, key, NOW).await.unwrap();
    assert!(store.batches().cancel(key, "msgbatch_1", NOW + 1).await.unwrap());
    assert!(store.batches().cancel(key, "msgbatch_1", NOW + 2).await.unwrap(), "again");
    let batch = store.batches().get(key, "msgbatch_1").await.unwrap().unwrap();
    assert_eq!((batch.cancel_initiated_at, batch.ended_at), (Some(NOW + 1), None));
    assert_eq!(batch.counts, BatchCounts { processing: 2, canceled: 2, ..Default::default() });
    assert_eq!(store.batches().delete(key, "msgbatch_1").await.unwrap(), Deletion::Refused);
    assert_eq!(claim(&store, key, NOW + 2).await, None);
    store.batches().finish(&first, BatchOutcome::Succeeded, b"done", NOW + 3).await.unwrap();
    store.batches().put_back(&second, 1, NOW, NOW + 4).await.unwrap();
    let batch = store.batches().get(key, "msgbatch_1").await.unwrap().unwrap();
    assert_eq!(batch.counts, BatchCounts { succeeded: 1, canceled: 3, ..Default::default() });
    assert_eq!(batch.ended_at, Some(NOW + 4));
    let outcomes = store.batches().outcomes(key, "msgbatch_1", 3, 10).await.unwrap();
    assert_eq!(outcomes[0].2.as_slice(), b"request 3 of msgbatch_1", "what was given up is its request");
    assert_eq!(store.batches().delete(key, "msgbatch_1").await.unwrap(), Deletion::Done);
    assert_eq!(store.batches().delete(key, "msgbatch_1").await.unwrap(), Deletion::Absent);
    assert!(store.batches().outcomes(key, "msgbatch_1", 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn what_has_not_begun_in_time_expires_and_old_batches_go(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    put(&store, key, "msgbatch_1", NOW, 3).await;
    let running = store.batches().claim(&key.to_string(), NOW, NOW + 5000).await.unwrap().unwrap();
    assert_eq!(store.batches().sweep(NOW + 999, 0, 10).await.unwrap(), 0);
    assert_eq!(counts(&store, key, "msgbatch_1").await.processing, 3);
    store.batches().sweep(NOW + 1000, 0, 10).await.unwrap();
    assert_eq!(
        counts(&store, key, "msgbatch_1").await,
        BatchCounts { processing: 1, expired: 2, ..Default::default() }
    );
    store.batches().finish(&running.place, BatchOutcome::Succeeded, b"done", NOW + 1001).await.unwrap();
    assert_eq!(store.batches().get(key, "msgbatch_1").await.unwrap().unwrap().ended_at, Some(NOW + 1001));
    put(&store, key, "msgbatch_2", NOW + 1, 1).await;
    assert_eq!(store.batches().sweep(NOW + 2000, NOW, 10).await.unwrap(), 1);
    assert!(store.batches().get(key, "msgbatch_1").await.unwrap().is_none());
    assert!(store.batches().get(key, "msgbatch_2").await.unwrap().is_some());
}

pub(crate) async fn the_last_two_of_a_batch_may_end_at_once(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    for number in 0..10 {
        let id = format!("msgbatch_{number}");
        put(&store, key, &id, NOW, 2).await;
        let (first, _) = claim(&store, key, NOW).await.unwrap();
        let (second, _) = claim(&store, key, NOW).await.unwrap();
        let end = async |place: String| {
            store.batches().finish(&place, BatchOutcome::Succeeded, b"done", NOW + 1).await.unwrap()
        };
        assert_eq!(tokio::join!(end(first), end(second)), (true, true));
        assert_eq!(store.batches().get(key, &id).await.unwrap().unwrap().ended_at, Some(NOW + 1), "{id}");
    }
}

pub(crate) async fn requests_and_results_are_sealed_and_rotate_with_the_rest(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    // More than one chunk of rows.
    put(&store, key, "msgbatch_1", NOW, 501).await;
    let (first, _) = claim(&store, key, NOW).await.unwrap();
    store.batches().finish(&first, BatchOutcome::Succeeded, b"result 0", NOW).await.unwrap();
    assert!(matches!(db.open(NEW_KEY).await, Err(StoreError::MissingKey { .. })));
    let both = db.open(&format!("{NEW_KEY},{OLD_KEY}")).await.unwrap();
    let report = both.rotate_keyring(Rotation::default()).await.unwrap();
    assert_eq!(report.remaining, 0);
    let new = db.open(NEW_KEY).await.unwrap();
    let outcomes = new.batches().outcomes(key, "msgbatch_1", 0, 10).await.unwrap();
    assert_eq!(outcomes[0].2.as_slice(), b"result 0");
    assert_eq!(claim(&new, key, NOW).await.unwrap().1, "request 1 of msgbatch_1");
}
