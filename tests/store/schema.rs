use tollway::store::{
    AccountChange, AccountId, AccountScope, AccountState, AliasDraft, KeyId, Revision, Rotation, Saved, StoreError,
};

use crate::database::{Database, NEW_KEY, NOW, OLD_KEY, account, add, credentials, key};

pub(crate) async fn every_change_and_nothing_else_moves_the_revision(db: Database) {
    let store = db.store().await;
    let (accounts, keys, aliases) = (store.accounts(), store.keys(), store.aliases());
    let mut last = store.revision().await.unwrap();
    let mut models = 0;
    let mut moved = async || {
        let Revision { accounts, keys, models: aliases, conditions, homes } = store.revision().await.unwrap();
        let moved = (accounts - last.accounts, keys - last.keys);
        models += aliases - last.models;
        last = Revision { accounts, keys, models: aliases, conditions, homes };
        moved
    };

    let ada = add(&store, "ada").await.id;
    assert_eq!(moved().await, (1, 0), "created");
    accounts.upsert(account("ada"), NOW).await.unwrap();
    assert_eq!(moved().await, (1, 0), "replaced");
    let saved = accounts.save_refreshed(ada, 2, &credentials("ada", 2), NOW).await.unwrap();
    assert_eq!((saved, moved().await), (Saved::Stored { generation: 3 }, (1, 0)));
    accounts.set_state(ada, Some(3), AccountState::Quarantined, None, None, NOW).await.unwrap();
    assert_eq!(moved().await, (1, 0), "state");
    let paused = AccountChange { paused: Some(true), ..AccountChange::default() };
    accounts.change(ada, &paused, None, NOW).await.unwrap();
    assert_eq!(moved().await, (1, 1), "paused");
    accounts.set_limited(ada, Some(NOW), None, NOW).await.unwrap();
    assert_eq!(moved().await, (1, 0), "limited");
    let laptop = keys.create(key("laptop", 1, AccountScope::All), NOW).await.unwrap().id;
    assert_eq!(moved().await, (0, 1), "key created");
    let second = keys.rotate(laptop, key("laptop", 2, AccountScope::All), NOW, NOW).await.unwrap().id;
    assert_eq!(moved().await, (0, 1), "key rotated");
    keys.revoke(second, NOW).await.unwrap();
    assert_eq!(moved().await, (0, 1), "key revoked");
    accounts.remove(ada).await.unwrap();
    assert_eq!(moved().await, (1, 1), "removed, from the keys too");

    let draft = AliasDraft { name: "fast".into(), target: "gpt-5.5".into() };
    let fast = aliases.create(draft.clone(), NOW).await.unwrap().id;
    aliases.update(fast, &draft, Some(1)).await.unwrap();
    aliases.remove(fast, Some(2)).await.unwrap();
    assert_eq!(moved().await, (0, 0), "aliases have a revision of their own");

    store.pepper().await.unwrap();
    accounts.remove(ada).await.unwrap();
    accounts.change(AccountId::new(), &paused, None, NOW).await.unwrap_err();
    let saved = accounts.save_refreshed(ada, 3, &credentials("ada", 3), NOW).await.unwrap();
    assert_eq!(saved, Saved::Gone);
    keys.revoke(KeyId::new(), NOW).await.unwrap();
    keys.rotate(laptop, key("laptop", 3, AccountScope::All), NOW, NOW).await.unwrap_err();
    let both = db.open(&format!("{NEW_KEY},{OLD_KEY}")).await.unwrap();
    both.rotate_keyring(Rotation::default()).await.unwrap();
    assert!(!aliases.remove(fast, None).await.unwrap());
    assert_eq!(moved().await, (0, 0), "nothing of that is a change to a reader");
    assert_eq!(models, 3, "aliases made, changed and removed");
}

pub(crate) async fn migrating_again_or_at_once_or_cut_short_does_no_harm(db: Database) {
    let replicas = [db.open(OLD_KEY).await.unwrap(), db.open(OLD_KEY).await.unwrap()];
    let migrations: Vec<_> = (0..12)
        .map(|number| {
            let store = replicas[number % 2].clone();
            tokio::spawn(async move { store.migrate().await })
        })
        .collect();
    // Some are cut off wherever they happen to be; the others must not be hurt by it.
    for migration in migrations.iter().step_by(3) {
        tokio::task::yield_now().await;
        migration.abort();
    }
    for migration in migrations {
        match migration.await {
            Ok(done) => done.unwrap(),
            Err(cut) => assert!(cut.is_cancelled()),
        }
    }
    let store = db.store().await;
    store.ping().await.unwrap();
    assert_eq!(store.revision().await.unwrap(), Revision { accounts: 1, keys: 1, models: 1, conditions: 1, homes: 1 });
    add(&store, "ada").await;
}

pub(crate) async fn a_schema_that_newer_programs_have_added_to_is_taken_and_one_that_needs_them_is_not(db: Database) {
    let store = db.store().await;
    db.run(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         SELECT 9999, 'from the future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .await;
    db.run("ALTER TABLE accounts ADD COLUMN from_the_future TEXT").await;
    store.migrate().await.unwrap();
    add(&store, "ada").await;
    assert_eq!(store.accounts().list().await.unwrap().len(), 1);
    db.run("UPDATE schema_needs SET version = 9999").await;
    assert!(matches!(store.migrate().await, Err(StoreError::TooNew { needs: 9999, .. })));
}
