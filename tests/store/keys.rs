use tollway::store::{AccountId, AccountScope, GatewayKey, KeyId, Limits, NewKey, Right, StoreError};

use crate::database::{Database, NOW, add, key};

pub(crate) async fn a_key_comes_back_as_it_was_stored(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (add(&store, "ada").await.id, add(&store, "bob").await.id);
    // Twice the same account, in the wrong order: a set is meant.
    let scope = AccountScope::only([bob, ada, bob]);
    let new = NewKey { expires_at: Some(NOW + 9), rights: [Right::AuthRefresh].into(), ..key("laptop", 1, scope) };
    let bound = store.keys().create(new, NOW).await.unwrap();
    let open = store.keys().create(key("server", 2, AccountScope::All), NOW + 1).await.unwrap();
    let expected = GatewayKey {
        id: bound.id,
        name: "laptop".into(),
        prefix: "tw-000001".into(),
        hash: [1; 32],
        accounts: AccountScope::only([ada, bob]),
        bound_to: AccountScope::only([ada, bob]),
        pool: None,
        rights: [Right::AuthRefresh].into(),
        user: None,
        team: None,
        limits: Limits::default(),
        version: 1,
        created_at: NOW,
        expires_at: Some(NOW + 9),
        revoked_at: None,
        rotated_to: None,
        last_used_at: None,
    };
    assert_eq!(bound, expected);
    assert_eq!(store.keys().list().await.unwrap(), [open, bound]);
}

pub(crate) async fn a_key_for_an_account_that_is_not_there_is_refused_whole(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await.id;
    let scope = AccountScope::only([ada, AccountId::new()]);
    let refused = store.keys().create(key("laptop", 1, scope), NOW).await;
    assert!(matches!(refused, Err(StoreError::NotFound { what: "account", .. })), "{refused:?}");
    assert_eq!(store.keys().list().await.unwrap(), []);
}

pub(crate) async fn a_key_never_gains_accounts_by_their_removal(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (add(&store, "ada").await.id, add(&store, "bob").await.id);
    let scope = AccountScope::only([ada, bob]);
    store.keys().create(key("laptop", 1, scope), NOW).await.unwrap();
    let mut scopes = Vec::new();
    for account in [ada, bob] {
        assert!(store.accounts().remove(account).await.unwrap());
        scopes.push(store.keys().find("laptop").await.unwrap().accounts);
    }
    assert_eq!(scopes, [AccountScope::only([bob]), AccountScope::only([])]);
    assert!(!scopes[1].allows(add(&store, "carol").await.id));
    assert!(!store.accounts().remove(ada).await.unwrap());
}

pub(crate) async fn a_key_is_revoked_once(db: Database) {
    let store = db.store().await;
    let id = store.keys().create(key("laptop", 1, AccountScope::All), NOW).await.unwrap().id;
    assert!(store.keys().revoke(id, NOW + 1).await.unwrap());
    assert!(!store.keys().revoke(id, NOW + 2).await.unwrap());
    assert!(!store.keys().revoke(KeyId::new(), NOW).await.unwrap());
    assert_eq!(store.keys().find("laptop").await.unwrap().revoked_at, Some(NOW + 1));
}

pub(crate) async fn a_rotated_key_ends_with_its_grace_and_not_later_than_it_would_have(db: Database) {
    let store = db.store().await;
    let grace_end = NOW + 100;
    for (byte, expires_at, ends) in
        [(1, None, grace_end), (3, Some(NOW + 50), NOW + 50), (5, Some(NOW + 500), grace_end)]
    {
        let old = NewKey { expires_at, ..key("laptop", byte, AccountScope::All) };
        let old = store.keys().create(old, NOW).await.unwrap().id;
        let new = key("laptop", byte + 1, AccountScope::All);
        let new = store.keys().rotate(old, new, grace_end, NOW + 1).await.unwrap();
        let old = store.keys().find(&old.to_string()).await.unwrap();
        assert_eq!((old.expires_at, old.rotated_to), (Some(ends), Some(new.id)));
        assert_eq!((new.expires_at, new.created_at), (None, NOW + 1));
    }
}

pub(crate) async fn only_a_current_key_can_be_rotated(db: Database) {
    let store = db.store().await;
    let keys = store.keys();
    let rotate =
        async |id: KeyId, byte: u8| keys.rotate(id, key("laptop", byte, AccountScope::All), NOW + 9, NOW).await;
    let first = keys.create(key("laptop", 1, AccountScope::All), NOW).await.unwrap().id;
    let second = rotate(first, 2).await.unwrap().id;
    keys.revoke(second, NOW).await.unwrap();
    for (id, expected) in [(first, "already rotated"), (second, "revoked")] {
        let refused = rotate(id, 3).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotCurrent { state, .. } if state == expected));
    }
    let unknown = rotate(KeyId::new(), 3).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { what: "key", .. })));
    assert_eq!(keys.list().await.unwrap().len(), 2, "what was refused left nothing behind");
}

pub(crate) async fn the_key_in_use_has_the_name(db: Database) {
    let store = db.store().await;
    let keys = store.keys();
    let old = keys.create(key("laptop", 1, AccountScope::All), NOW).await.unwrap();
    let new = keys.rotate(old.id, key("laptop", 2, AccountScope::All), NOW, NOW).await.unwrap();
    assert_eq!(keys.find("laptop").await.unwrap().id, new.id);
    assert_eq!(keys.find("tw-000001").await.unwrap().id, old.id);
    keys.create(key("laptop", 3, AccountScope::All), NOW).await.unwrap();
    assert!(matches!(keys.find("laptop").await, Err(StoreError::Ambiguous { .. })));
}

pub(crate) async fn last_use_is_noted_without_a_change_of_revision(db: Database) {
    let store = db.store().await;
    let id = store.keys().create(key("laptop", 1, AccountScope::All), NOW).await.unwrap().id;
    let before = store.revision().await.unwrap();
    store.keys().touch(&[(id, NOW + 5), (KeyId::new(), NOW), (id, NOW + 7)]).await.unwrap();
    store.keys().touch(&[(id, NOW + 6)]).await.unwrap();
    assert_eq!(store.keys().find("laptop").await.unwrap().last_used_at, Some(NOW + 7));
    assert_eq!(store.revision().await.unwrap(), before);
}

pub(crate) async fn a_hash_is_stored_once_and_found(db: Database) {
    let store = db.store().await;
    let made = store.keys().create(key("laptop", 1, AccountScope::All), NOW).await.unwrap();
    let again = store.keys().create(key("other", 1, AccountScope::All), NOW).await;
    assert!(matches!(again, Err(StoreError::KnownHash)), "{again:?}");
    assert_eq!(store.keys().by_hash(&made.hash).await.unwrap(), Some(made));
    assert_eq!(store.keys().by_hash(&[0; 32]).await.unwrap(), None);
    assert_eq!(store.keys().list().await.unwrap().len(), 1);
}
