use std::{
    collections::BTreeSet,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
};

use secrecy::ExposeSecret;
use tollway::store::{Rotation, RotationReport, Saved, Store, StoreError};

use crate::database::{Database, NEW_KEY, NOW, OLD_KEY, add, credentials, keyring, tokens};

pub(crate) async fn the_pepper_is_made_once_even_by_two_at_once(db: Database) {
    let replicas = [db.store().await, db.store().await];
    let (one, other) = tokio::join!(replicas[0].pepper(), replicas[1].pepper());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.expose_secret(), other.expose_secret());
    assert_ne!(one.expose_secret(), &[0; 32]);
    let later = db.store().await.pepper().await.unwrap();
    assert_eq!(later.expose_secret(), one.expose_secret());
}

pub(crate) async fn a_wrong_key_is_refused_by_its_id(db: Database) {
    assert_eq!(Store::key_ids_in_use(&db.url).await.unwrap(), BTreeSet::new());
    let store = db.store().await;
    assert_eq!(Store::key_ids_in_use(&db.url).await.unwrap(), BTreeSet::new());
    add(&store, "ada").await;
    let needed = keyring(OLD_KEY).sealing_key_id().to_owned();
    assert_eq!(Store::key_ids_in_use(&db.url).await.unwrap(), BTreeSet::from([needed.clone()]));

    let refused = db.open(NEW_KEY).await.unwrap_err();
    assert!(refused.to_string().contains(&needed), "{refused}");
    assert!(matches!(refused, StoreError::MissingKey { key_ids } if key_ids == [needed]));
    db.open(&format!("{NEW_KEY} {OLD_KEY}")).await.unwrap();
}

pub(crate) async fn an_envelope_in_another_row_or_column_is_refused_by_its_place(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (add(&store, "ada").await, add(&store, "bob").await);
    let refused = async |whose, expected: &str| {
        let error = store.accounts().credentials(whose).await.unwrap_err();
        assert!(matches!(error, StoreError::Unsealable { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains(&whose.to_string()), "{message}");
    };
    db.run("UPDATE credentials SET access_token = (SELECT MIN(access_token) FROM credentials)").await;
    let stored_whole = store.accounts().credentials(ada.id).await.is_ok();
    refused(if stored_whole { bob.id } else { ada.id }, "credentials.access_token").await;

    let (ada, bob) = (add(&store, "ada").await, add(&store, "bob").await);
    db.run("UPDATE credentials SET refresh_token = access_token").await;
    refused(ada.id, "credentials.refresh_token").await;
    db.run("UPDATE credentials SET access_token = 'not sealed at all'").await;
    refused(bob.id, "credentials.access_token").await;
    // It spoils its own row, and does not keep the gateway from starting.
    db.open(OLD_KEY).await.unwrap();
}

pub(crate) async fn a_rotation_that_was_stopped_goes_on_where_it_was(db: Database) {
    let store = db.store().await;
    let names = ["ada", "bob", "carol"];
    for name in names {
        add(&store, name).await;
    }
    let pepper = store.pepper().await.unwrap();
    let both = db.open(&format!("{NEW_KEY},{OLD_KEY}")).await.unwrap();
    // Three accounts with three tokens each, and the pepper.
    let part = Rotation { batch: 2, stop_after: Some(4) };
    let report = |resealed, current, remaining| RotationReport { resealed, current, raced: 0, remaining };
    assert_eq!(both.rotate_keyring(part).await.unwrap(), report(4, 0, 6));
    assert!(matches!(db.open(NEW_KEY).await, Err(StoreError::MissingKey { .. })));
    let rest = Rotation { batch: 2, stop_after: None };
    assert_eq!(both.rotate_keyring(rest).await.unwrap(), report(6, 4, 0));
    assert_eq!(both.rotate_keyring(rest).await.unwrap(), report(0, 10, 0));

    let new = db.open(NEW_KEY).await.unwrap();
    for name in names {
        let account = new.accounts().find(name).await.unwrap();
        assert_eq!(tokens(&new, &account).await, (format!("access-{name}-1"), format!("refresh-{name}-1")));
        assert_eq!(account.generation, 1);
    }
    assert_eq!(new.pepper().await.unwrap().expose_secret(), pepper.expose_secret());
}

pub(crate) async fn a_rotation_beside_refreshes_loses_none_of_them(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await;
    let rotated = Arc::new(AtomicBool::new(false));
    let server = tokio::spawn({
        let (store, rotated) = (db.open(&format!("{OLD_KEY},{NEW_KEY}")).await.unwrap(), rotated.clone());
        async move {
            let mut round = 1;
            while !rotated.load(Ordering::Relaxed) || round < 20 {
                let new = credentials("ada", round + 1);
                let saved = store.accounts().save_refreshed(ada.id, round, &new, NOW).await.unwrap();
                round += 1;
                assert_eq!(saved, Saved::Stored { generation: round });
                let stored = store.accounts().credentials(ada.id).await.unwrap().unwrap();
                assert_eq!(stored.refresh_token.expose_secret(), format!("refresh-ada-{round}"));
            }
            round
        }
    });
    let both = db.open(&format!("{NEW_KEY},{OLD_KEY}")).await.unwrap();
    for _ in 0..20 {
        both.rotate_keyring(Rotation { batch: 1, stop_after: Some(6) }).await.unwrap();
    }
    rotated.store(true, Ordering::Relaxed);
    let last = server.await.unwrap();

    let ended = both.rotate_keyring(Rotation::default()).await.unwrap();
    assert_eq!(ended.remaining, 0);
    let ada = both.accounts().get(ada.id).await.unwrap().unwrap();
    let new = db.open(NEW_KEY).await.unwrap();
    assert_eq!(tokens(&new, &ada).await, (format!("access-ada-{last}"), format!("refresh-ada-{last}")));
}
