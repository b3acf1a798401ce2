use std::collections::BTreeSet;

use tollway::store::{
    AccountChange, AccountEvent, AccountId, AccountScope, AccountShare, Decision, DecisionFilter, KeptSession, KeyId,
    Names, NewKey, PoolDraft, PoolId, Store, StoreError, Strategy,
};

use crate::database::{Database, NOW, add, key};

fn names(text: &str) -> Names {
    text.split_whitespace().map(str::to_owned).collect()
}

async fn put(store: &Store, name: &str, tags: &str, accounts: &[AccountId]) -> PoolId {
    let accounts: BTreeSet<_> = accounts.iter().copied().collect();
    let draft = PoolDraft { name: name.to_owned(), strategy: Strategy::FillFirst, tags: names(tags), accounts };
    match store.pools().find(name).await {
        Ok(pool) => {
            store.pools().update(pool.id, &draft, Some(pool.version)).await.unwrap();
            pool.id
        }
        Err(_) => store.pools().create(draft, NOW).await.unwrap().id,
    }
}

async fn tag(store: &Store, account: AccountId, tags: &str) {
    let share = AccountShare { weight: 0.5, priority: -3, tags: names(tags) };
    let change = AccountChange { share: Some(share), ..AccountChange::default() };
    store.accounts().change(account, &change, None, NOW).await.unwrap();
}

pub(crate) async fn a_pool_holds_its_accounts_and_those_of_its_tags(db: Database) {
    let store = db.store().await;
    let (ada, bob, carol) = (add(&store, "ada").await.id, add(&store, "bob").await.id, add(&store, "carol").await.id);
    tag(&store, bob, "night big").await;
    let share = store.accounts().get(bob).await.unwrap().unwrap().share;
    assert_eq!(share, AccountShare { weight: 0.5, priority: -3, tags: names("big night") });
    let first = put(&store, "p", "night", &[ada]).await;
    let pool = store.pools().find("p").await.unwrap();
    assert_eq!((pool.strategy, &pool.tags, pool.created_at), (Strategy::FillFirst, &names("night"), NOW));
    assert_eq!((pool.accounts, pool.members), ([ada].into(), vec![ada, bob]));
    assert_eq!(put(&store, "p", "", &[carol]).await, first, "the same pool, changed");
    assert_eq!(store.pools().list().await.unwrap()[0].members, [carol]);
    assert!(store.accounts().remove(carol).await.unwrap());
    assert_eq!(store.pools().find("p").await.unwrap().members, []);
    let refused = store
        .pools()
        .create(PoolDraft { name: "q".into(), accounts: [AccountId::new()].into(), ..PoolDraft::default() }, NOW)
        .await;
    assert!(matches!(refused, Err(StoreError::NotFound { what: "account", .. })), "{refused:?}");
    assert_eq!(store.pools().list().await.unwrap().len(), 1);
}

pub(crate) async fn a_key_follows_its_pool_and_never_gains_accounts_by_its_end(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (add(&store, "ada").await.id, add(&store, "bob").await.id);
    let pool = put(&store, "p", "night", &[ada]).await;
    let new = NewKey { pool: Some(pool), ..key("k", 1, AccountScope::All) };
    let made = store.keys().create(new, NOW).await.unwrap();
    assert_eq!(made.accounts, AccountScope::only([ada]));
    let read = async || store.keys().find("k").await.unwrap();
    assert_eq!(read().await, made);
    assert_eq!(made.pool.as_ref().map(|pool| (pool.name.as_str(), pool.strategy)), Some(("p", Strategy::FillFirst)));
    let before = store.revision().await.unwrap();
    tag(&store, bob, "night").await;
    let after = store.revision().await.unwrap();
    assert!(after.keys > before.keys && after.accounts > before.accounts, "both are read again");
    assert_eq!(read().await.accounts, AccountScope::only([ada, bob]));
    store.keys().revoke(made.id, NOW).await.unwrap();
    assert!(store.pools().remove(pool).await.unwrap());
    assert_eq!((read().await.accounts, read().await.pool), (AccountScope::only([]), None));
    let nowhere = NewKey { pool: Some(pool), ..key("l", 2, AccountScope::All) };
    let refused = store.keys().create(nowhere, NOW).await;
    assert!(refused.is_err(), "{refused:?}");
}

pub(crate) async fn a_pool_that_a_key_needs_stays(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await.id;
    let pool = put(&store, "p", "", &[ada]).await;
    store.keys().create(NewKey { pool: Some(pool), ..key("k", 1, AccountScope::All) }, NOW).await.unwrap();
    let refused = store.pools().remove(pool).await;
    assert!(matches!(&refused, Err(StoreError::InUse { what: "pool", by }) if by == "key k"), "{refused:?}");
    assert_eq!(store.pools().list().await.unwrap().len(), 1);
    assert!(!store.pools().remove(PoolId::new()).await.unwrap());
}

pub(crate) async fn what_is_known_of_accounts_and_their_history_come_back_and_go_with_them(db: Database) {
    let store = db.store().await;
    let (ada, gone) = (add(&store, "ada").await.id, AccountId::new());
    let conditions = store.conditions();
    let both = |kept: &str, new: &str| format!("{kept}{new}");
    let before = store.revision().await.unwrap();
    conditions.put(&[(ada, "{}".into()), (gone, "{}".into())], both, false, NOW).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), before, "nobody is told");
    conditions.put(&[(ada, "{\"a\":1}".into())], both, true, NOW + 1).await.unwrap();
    assert_eq!(conditions.list().await.unwrap(), [(ada, "{}{\"a\":1}".to_owned(), NOW + 1)], "as one");
    let told = store.revision().await.unwrap();
    assert_eq!((told.conditions, told.accounts), (before.conditions + 1, before.accounts));
    let event = |account, at, became: &str| AccountEvent {
        account,
        at,
        was: "active".into(),
        became: became.into(),
        reason: Some("usage_limit_reached".into()),
        until: Some(at + 9),
    };
    let events = [event(ada, NOW, "limited"), event(gone, NOW, "limited"), event(ada, NOW + 5, "paused")];
    conditions.record(&events).await.unwrap();
    assert_eq!(conditions.history(ada, 9).await.unwrap(), [events[2].clone(), events[0].clone()]);
    assert_eq!(conditions.history(ada, 1).await.unwrap().len(), 1);
    assert_eq!(conditions.forget(NOW + 1).await.unwrap(), 1);
    assert!(store.accounts().remove(ada).await.unwrap());
    assert_eq!((conditions.list().await.unwrap().len(), conditions.history(ada, 9).await.unwrap().len()), (0, 0));
}

pub(crate) async fn homes_of_conversations_come_back_newest_first(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await.id;
    let home =
        |session: &str, last_at| KeptSession { session: session.into(), account: ada, last_at, foreign_items: 7 };
    let homes = [home("a", NOW), home("b", NOW + 5), home("c", NOW - 50)];
    store.sessions().put(&homes).await.unwrap();
    let elsewhere = KeptSession { account: AccountId::new(), ..home("d", NOW) };
    store.sessions().put(&[home("a", NOW + 9), elsewhere]).await.unwrap();
    assert_eq!(store.sessions().list(NOW - 10, 9).await.unwrap(), [home("a", NOW + 9), home("b", NOW + 5)]);
    assert_eq!(store.sessions().list(NOW - 10, 1).await.unwrap().len(), 1);
    assert_eq!(store.sessions().get("b").await.unwrap(), Some(home("b", NOW + 5)));
    assert_eq!(store.sessions().forget(NOW).await.unwrap(), 1);
    assert!(store.accounts().remove(ada).await.unwrap());
    assert_eq!(store.sessions().get("b").await.unwrap(), None);
}

pub(crate) async fn a_conversation_changes_its_home_by_a_move_alone_and_moves_can_be_asked_for(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (add(&store, "ada").await.id, add(&store, "bob").await.id);
    let sessions = store.sessions();
    let home = |session: &str, account, last_at, foreign_items| KeptSession {
        session: session.into(),
        account,
        last_at,
        foreign_items,
    };
    let before = store.revision().await.unwrap().homes;
    assert_eq!(sessions.put(&[home("a", ada, NOW, 3), home("b", ada, NOW, 0)]).await.unwrap(), []);
    assert_eq!(sessions.put(&[home("a", ada, NOW + 1, 2)]).await.unwrap(), []);
    assert_eq!(sessions.get("a").await.unwrap(), Some(home("a", ada, NOW + 1, 3)));
    let unmoved = sessions.put(&[home("a", bob, NOW + 2, 9), home("b", ada, NOW, 0)]).await.unwrap();
    assert_eq!(unmoved, [home("a", ada, NOW + 2, 3)], "it lives elsewhere");
    assert_eq!(store.revision().await.unwrap().homes, before);
    assert_eq!(sessions.moved_since(before).await.unwrap(), []);

    let gone = home("c", AccountId::new(), NOW, 0);
    sessions.put_moved(&[home("a", bob, NOW + 3, 1), gone]).await.unwrap();
    let first = store.revision().await.unwrap().homes;
    assert_eq!(first, before + 1);
    assert_eq!(sessions.moved_since(before).await.unwrap(), [home("a", bob, NOW + 3, 1)]);
    assert_eq!(sessions.moved_since(first).await.unwrap(), []);
    sessions.put_moved(&[home("b", bob, NOW + 4, 1)]).await.unwrap();
    let moved: Vec<_> = sessions.moved_since(0).await.unwrap().into_iter().map(|home| home.session).collect();
    assert_eq!(moved, ["a", "b"], "the last one last");
}

pub(crate) async fn decisions_are_found_by_request_and_key_and_forgotten(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (KeyId::new(), KeyId::new());
    let decision = |request: &str, key, at| Decision { request_id: request.into(), key, at, content: "{}".into() };
    let all = [decision("r1", ada, NOW), decision("r1", ada, NOW + 1), decision("r2", bob, NOW + 2)];
    store.decisions().record(&all).await.unwrap();
    let found = async |filter: DecisionFilter| store.decisions().list(&filter, 9).await.unwrap();
    assert_eq!(found(DecisionFilter::default()).await.len(), 3);
    let of_request = DecisionFilter { request_id: Some("r1".into()), ..DecisionFilter::default() };
    assert_eq!(found(of_request).await, [all[1].clone(), all[0].clone()]);
    assert_eq!(found(DecisionFilter { key: Some(bob), ..DecisionFilter::default() }).await, [all[2].clone()]);
    assert_eq!(store.decisions().forget(NOW + 2).await.unwrap(), 2);
    assert_eq!(found(DecisionFilter::default()).await, [all[2].clone()]);
}

pub(crate) async fn webhooks_are_claimed_by_one_tried_again_and_forgotten_when_over(db: Database) {
    let store = db.store().await;
    let webhooks = store.webhooks();
    webhooks.add("a", "{\"n\":1}", NOW).await.unwrap();
    webhooks.add("b", "{\"n\":2}", NOW + 1).await.unwrap();
    assert_eq!(webhooks.claim(NOW - 1, NOW, 9).await.unwrap(), [], "not due yet");
    let (one, other) = tokio::join!(webhooks.claim(NOW + 5, NOW + 50, 9), webhooks.claim(NOW + 5, NOW + 50, 9));
    let mut claimed = one.unwrap();
    claimed.extend(other.unwrap());
    claimed.sort_by(|a, b| a.event.cmp(&b.event));
    let seen: Vec<_> = claimed.iter().map(|one| (one.event.as_str(), one.body.as_str(), one.attempts)).collect();
    assert_eq!(seen, [("a", "{\"n\":1}", 0), ("b", "{\"n\":2}", 0)], "each by one of two");
    webhooks.taken(&claimed[0].id, NOW + 6).await.unwrap();
    webhooks.failed(&claimed[1].id, Some(NOW + 20), "500").await.unwrap();
    assert_eq!(webhooks.claim(NOW + 19, NOW + 50, 9).await.unwrap(), []);
    let again = webhooks.claim(NOW + 20, NOW + 50, 9).await.unwrap();
    assert_eq!((again.len(), &again[0].id, again[0].attempts), (1, &claimed[1].id, 1));
    assert_eq!(webhooks.claim(NOW + 50, NOW + 90, 9).await.unwrap().len(), 1, "whoever claimed it is gone");
    assert_eq!(webhooks.forget(NOW + 100).await.unwrap(), 1, "the other one is not over");
    webhooks.failed(&claimed[1].id, None, "given up").await.unwrap();
    assert_eq!(webhooks.forget(NOW + 100).await.unwrap(), 1);
}
