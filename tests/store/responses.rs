use std::collections::BTreeSet;

use tollway::store::{KeyId, NewItem, NewResponse, Rotation, Store, StoreError};

use crate::database::{Database, NEW_KEY, NOW, OLD_KEY, keyring};

/// A response that lives for 1000 ms from `NOW`.
fn response<'a>(key: KeyId, id: &'a str, content: &'a str) -> NewResponse<'a> {
    NewResponse {
        key,
        id,
        created_at: NOW,
        expires_at: NOW + 1000,
        lease_until: None,
        items: &[],
        content: content.as_bytes(),
    }
}

async fn content(store: &Store, key: KeyId, id: &str, now: i64) -> Option<String> {
    let kept = store.responses().get(key, id, now).await.unwrap()?;
    Some(String::from_utf8(kept.content.to_vec()).unwrap())
}

pub(crate) async fn a_response_is_found_by_its_own_key_only(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    store.responses().put(&[response(ada, "resp_1", "of ada"), response(bob, "resp_2", "of bob")]).await.unwrap();
    assert_eq!(content(&store, ada, "resp_1", NOW).await.as_deref(), Some("of ada"));
    assert_eq!(content(&store, bob, "resp_1", NOW).await, None);
    assert!(!store.responses().delete(bob, "resp_1", NOW).await.unwrap());
    assert!(store.responses().delete(ada, "resp_1", NOW).await.unwrap());
    assert!(!store.responses().delete(ada, "resp_1", NOW).await.unwrap(), "once");
    assert_eq!(content(&store, ada, "resp_1", NOW).await, None);
    assert_eq!(content(&store, bob, "resp_2", NOW).await.as_deref(), Some("of bob"));
}

pub(crate) async fn a_response_of_the_same_id_replaces_the_other(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    for text in ["first", "second"] {
        store.responses().put(&[response(ada, "resp_1", text), response(bob, "resp_1", "of bob")]).await.unwrap();
    }
    assert_eq!(content(&store, ada, "resp_1", NOW).await.as_deref(), Some("second"));
    assert_eq!(content(&store, bob, "resp_1", NOW).await.as_deref(), Some("of bob"), "the same id of another key");
}

pub(crate) async fn what_is_over_is_not_found_and_swept(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    let names: Vec<String> = (0..5).map(|n| format!("resp_{n}")).collect();
    let old: Vec<_> = names.iter().map(|id| response(key, id, "old")).collect();
    store.responses().put(&old).await.unwrap();
    let young = NewResponse { expires_at: NOW + 2000, ..response(key, "young", "young") };
    store.responses().put(&[young]).await.unwrap();
    assert_eq!(content(&store, key, "resp_0", NOW + 999).await.as_deref(), Some("old"));
    assert_eq!(content(&store, key, "resp_0", NOW + 1000).await, None);
    assert!(!store.responses().delete(key, "resp_0", NOW + 1000).await.unwrap());
    let sweep = async |limit| store.responses().sweep(NOW + 1000, limit).await.unwrap();
    assert_eq!((sweep(3).await, sweep(3).await, sweep(3).await), (3, 2, 0));
    assert_eq!(content(&store, key, "young", NOW + 1000).await.as_deref(), Some("young"));
}

pub(crate) async fn a_response_lives_as_long_as_the_latest_that_builds_on_it(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    store.responses().put(&[response(ada, "resp_1", "first"), response(bob, "resp_1", "of bob")]).await.unwrap();
    let ids = ["resp_1".to_owned(), "no such".to_owned()];
    store.responses().extend(ada, &ids, NOW + 5000).await.unwrap();
    store.responses().extend(ada, &ids, NOW + 3000).await.unwrap();
    assert_eq!(store.responses().sweep(NOW + 1000, 9).await.unwrap(), 1, "only bob's");
    assert_eq!(content(&store, ada, "resp_1", NOW + 4999).await.as_deref(), Some("first"));
}

pub(crate) async fn an_item_leads_to_the_response_that_has_it(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    let items = ["rs_1".to_owned(), "msg_1".to_owned()];
    let with_items = NewResponse { items: &items, ..response(ada, "resp_1", "first") };
    store.responses().put(&[with_items]).await.unwrap();
    let later = NewResponse { items: &items[..1], created_at: NOW + 1, ..response(ada, "resp_2", "second") };
    store.responses().put(&[later, later]).await.unwrap();
    let found = async |key, item: &str| {
        let kept = store.responses().with_item(key, item, NOW).await.unwrap()?;
        Some(String::from_utf8(kept.content.to_vec()).unwrap())
    };
    assert_eq!(found(ada, "msg_1").await.as_deref(), Some("first"));
    assert_eq!(found(ada, "rs_1").await.as_deref(), Some("second"), "the newest that has it");
    assert_eq!(found(bob, "rs_1").await, None);
    store.responses().delete(ada, "resp_2", NOW).await.unwrap();
    assert_eq!(found(ada, "rs_1").await.as_deref(), Some("first"));
    store.responses().delete(ada, "resp_1", NOW).await.unwrap();
    assert_eq!(found(ada, "rs_1").await, None);
}

pub(crate) async fn the_end_of_a_response_is_written_once(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    let running = NewResponse { lease_until: Some(NOW + 100), ..response(key, "resp_1", "running") };
    store.responses().put(&[running]).await.unwrap();
    assert!(store.responses().renew(key, "resp_1", NOW + 200).await.unwrap());
    assert_eq!(store.responses().get(key, "resp_1", NOW).await.unwrap().unwrap().lease_until, Some(NOW + 200));
    let items = ["msg_1".to_owned()];
    let done = NewResponse { items: &items, ..response(key, "resp_1", "done") };
    assert!(store.responses().finish(&done).await.unwrap());
    assert!(!store.responses().finish(&response(key, "resp_1", "too late")).await.unwrap());
    assert!(!store.responses().renew(key, "resp_1", NOW + 300).await.unwrap());
    let kept = store.responses().get(key, "resp_1", NOW).await.unwrap().unwrap();
    assert_eq!((kept.lease_until, kept.content.as_slice()), (None, &b"done"[..]));
    assert!(store.responses().with_item(key, "msg_1", NOW).await.unwrap().is_some());
    assert!(!store.responses().finish(&response(key, "deleted", "gone")).await.unwrap());
    assert_eq!(content(&store, key, "deleted", NOW).await, None);
}

pub(crate) async fn leases_end_with_the_process_that_gave_them(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    let running = NewResponse { lease_until: Some(NOW + 100), ..response(key, "resp_1", "running") };
    store.responses().put(&[running, response(key, "resp_2", "done")]).await.unwrap();
    store.responses().end_leases().await.unwrap();
    let lease = async |id| store.responses().get(key, id, NOW).await.unwrap().unwrap().lease_until;
    // Another server may be at work on the same Postgres database; a SQLite file has one.
    let expected = if store.is_shared() { NOW + 100 } else { 0 };
    assert_eq!((lease("resp_1").await, lease("resp_2").await), (Some(expected), None));
}

pub(crate) async fn a_conversation_keeps_its_items_in_order(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    let conversations = store.conversations();
    conversations.put(ada, "conv_1", b"object", NOW, NOW + 1000).await.unwrap();
    let item = |id, content: &'static str| NewItem { id, content: content.as_bytes() };
    let add = async |key, items: &[NewItem<'_>]| {
        store.conversations().append(key, "conv_1", items, NOW, NOW + 3000).await.unwrap()
    };
    assert!(add(ada, &[item("msg_2", "two"), item("msg_1", "one")]).await);
    assert!(add(ada, &[item("msg_0", "zero"), item("msg_1", "one again")]).await);
    assert!(!add(bob, &[item("msg_9", "nine")]).await, "another key's conversation is not there");
    let listed = async || -> Vec<(String, String)> {
        let all = store.conversations().items(ada, "conv_1").await.unwrap();
        all.into_iter().map(|(id, content)| (id, String::from_utf8(content.to_vec()).unwrap())).collect()
    };
    let pair = |id: &str, content: &str| (id.to_owned(), content.to_owned());
    assert_eq!(listed().await, [pair("msg_2", "two"), pair("msg_1", "one again"), pair("msg_0", "zero")]);
    assert!(conversations.delete_item(ada, "conv_1", "msg_1").await.unwrap());
    assert!(!conversations.delete_item(bob, "conv_1", "msg_2").await.unwrap());
    assert_eq!(listed().await.len(), 2);
    let kept = conversations.get(ada, "conv_1", NOW + 2999).await.unwrap().expect("what is added to lives on");
    assert_eq!((kept.created_at, kept.content.as_slice()), (NOW, &b"object"[..]));
}

pub(crate) async fn a_deleted_conversation_takes_its_items_along(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    let conversations = store.conversations();
    for id in ["conv_1", "conv_2"] {
        conversations.put(key, id, b"object", NOW, NOW + 1000).await.unwrap();
        let item = NewItem { id: "msg_1", content: b"one" };
        assert!(conversations.append(key, id, &[item], NOW, NOW + 1000).await.unwrap());
    }
    assert!(!conversations.delete(KeyId::new(), "conv_1", NOW).await.unwrap());
    assert!(conversations.delete(key, "conv_1", NOW).await.unwrap());
    assert_eq!(conversations.sweep(NOW + 1000, 9).await.unwrap(), 1);
    for id in ["conv_1", "conv_2"] {
        assert!(conversations.get(key, id, NOW).await.unwrap().is_none());
        assert!(conversations.items(key, id).await.unwrap().is_empty());
    }
}

pub(crate) async fn what_is_kept_is_sealed_and_rotates_with_the_rest(db: Database) {
    let store = db.store().await;
    let key = KeyId::new();
    store.responses().put(&[response(key, "resp_1", "first"), response(key, "resp_2", "second")]).await.unwrap();
    let conversations = store.conversations();
    conversations.put(key, "conv_1", b"object", NOW, NOW + 1000).await.unwrap();
    conversations.append(key, "conv_1", &[NewItem { id: "msg_1", content: b"one" }], NOW, NOW + 1000).await.unwrap();
    let needed = keyring(OLD_KEY).sealing_key_id().to_owned();
    assert_eq!(Store::key_ids_in_use(&db.url).await.unwrap(), BTreeSet::from([needed]));
    assert!(matches!(db.open(NEW_KEY).await, Err(StoreError::MissingKey { .. })));

    let both = db.open(&format!("{NEW_KEY},{OLD_KEY}")).await.unwrap();
    let report = both.rotate_keyring(Rotation { batch: 1, stop_after: None }).await.unwrap();
    assert_eq!((report.resealed, report.remaining), (4, 0));
    let new = db.open(NEW_KEY).await.unwrap();
    assert_eq!(content(&new, key, "resp_2", NOW).await.as_deref(), Some("second"));
    assert_eq!(new.conversations().items(key, "conv_1").await.unwrap()[0].1.as_slice(), b"one");

    db.run("UPDATE responses SET content = (SELECT MIN(content) FROM responses)").await;
    let moved = [new.responses().get(key, "resp_1", NOW).await, new.responses().get(key, "resp_2", NOW).await];
    assert_eq!(moved.iter().filter(|kept| matches!(kept, Err(StoreError::Unsealable { .. }))).count(), 1);
}
