use secrecy::ExposeSecret;
use tollway::store::{
    Account, AccountChange, AccountId, AccountShare, AccountState, NewAccount, NewCredentials, Saved, StoreError,
    Upserted,
};

use crate::database::{Database, NOW, account, add, credentials, tokens};

pub(crate) async fn an_account_comes_back_as_it_was_stored(db: Database) {
    let store = db.store().await;
    let Upserted::Created(ada) = store.accounts().upsert(account("ada"), NOW).await.unwrap() else {
        panic!("it is new");
    };
    let expected = Account {
        id: ada.id,
        name: "ada".into(),
        email: Some("ada@example.org".into()),
        chatgpt_user_id: Some("user-ada".into()),
        chatgpt_account_id: "workspace-ada".into(),
        plan: Some("pro".into()),
        fedramp: false,
        state: AccountState::Active,
        state_reason: None,
        state_detail: None,
        state_since: NOW,
        paused: false,
        share: AccountShare::default(),
        limited_until: None,
        limit_reason: None,
        access_expires_at: Some(NOW + 1000),
        last_refresh_at: NOW,
        generation: 1,
        created_at: NOW,
        updated_at: NOW,
        version: 1,
    };
    assert_eq!(ada, expected);
    assert_eq!(store.accounts().get(ada.id).await.unwrap(), Some(expected.clone()));
    assert_eq!(store.accounts().list().await.unwrap(), [expected]);

    let stored = store.accounts().credentials(ada.id).await.unwrap().unwrap();
    assert_eq!(stored.access_token.expose_secret(), "access-ada-1");
    assert_eq!(stored.refresh_token.expose_secret(), "refresh-ada-1");
    assert_eq!(stored.id_token.unwrap().expose_secret(), "id-ada-1");
    assert_eq!((stored.generation, stored.last_refresh_at), (1, NOW));
}

pub(crate) async fn the_same_user_in_the_same_workspace_is_the_same_account(db: Database) {
    let store = db.store().await;
    let upsert = async |user: Option<&str>, workspace: &str| {
        let new = NewAccount {
            chatgpt_user_id: user.map(str::to_owned),
            chatgpt_account_id: workspace.to_owned(),
            ..account("ada")
        };
        let upserted = store.accounts().upsert(new, NOW).await.unwrap();
        (matches!(upserted, Upserted::Created(_)), upserted.into_account().id)
    };
    let (created, first) = upsert(Some("user"), "workspace").await;
    assert!(created);
    assert_eq!(upsert(Some("user"), "workspace").await, (false, first));
    assert!(upsert(Some("other"), "workspace").await.0);
    assert!(upsert(Some("user"), "other").await.0);
    let (created, without_user) = upsert(None, "workspace").await;
    assert!(created);
    assert_eq!(upsert(None, "workspace").await, (false, without_user));
}

pub(crate) async fn a_login_replaces_credentials_and_clears_what_was_wrong(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await;
    let accounts = store.accounts();
    let (reason, detail) = (Some("refresh_token_reused"), Some("somebody else has a copy"));
    accounts.set_state(ada.id, None, AccountState::NeedsLogin, reason, detail, NOW + 1).await.unwrap();
    accounts.set_limited(ada.id, Some(NOW + 99), Some("weekly"), NOW + 2).await.unwrap();
    let paused = AccountChange { paused: Some(true), ..AccountChange::default() };
    accounts.change(ada.id, &paused, None, NOW + 3).await.unwrap();
    let broken = accounts.get(ada.id).await.unwrap().unwrap();
    assert_eq!((broken.state, broken.state_since), (AccountState::NeedsLogin, NOW + 1));
    assert_eq!((broken.state_reason.as_deref(), broken.state_detail.as_deref()), (reason, detail));

    let login = NewAccount { name: None, email: None, credentials: credentials("ada", 2), ..account("ada") };
    let Upserted::Replaced(fresh) = accounts.upsert(login, NOW + 4).await.unwrap() else {
        panic!("it was there");
    };
    let expected = Account {
        generation: 2,
        state_since: NOW + 4,
        paused: true,
        access_expires_at: Some(NOW + 2000),
        last_refresh_at: NOW + 4,
        updated_at: NOW + 4,
        version: 3,
        ..ada
    };
    assert_eq!(fresh, expected);
    assert_eq!(tokens(&store, &fresh).await, ("access-ada-2".into(), "refresh-ada-2".into()));
}

pub(crate) async fn a_name_that_is_taken_gets_a_number(db: Database) {
    let store = db.store().await;
    let named = async |workspace: &str, name: Option<&str>, email: Option<&str>| {
        let new = NewAccount {
            name: name.map(str::to_owned),
            email: email.map(str::to_owned),
            chatgpt_account_id: workspace.to_owned(),
            ..account("ada")
        };
        store.accounts().upsert(new, NOW).await.unwrap().into_account().name
    };
    assert_eq!(named("w1", None, Some("ada@example.org")).await, "ada@example.org");
    assert_eq!(named("w2", None, Some("ada@example.org")).await, "ada@example.org-2");
    assert_eq!(named("w3", Some(" "), Some("ada@example.org")).await, "ada@example.org-3");
    assert_eq!(named("w4", None, None).await, "w4");
    // An account does not stand in its own way, and a new name can be given at any login.
    assert_eq!(named("w1", None, Some("ada@example.org")).await, "ada@example.org");
    assert_eq!(named("w1", Some("w4"), None).await, "w4-2");
}

pub(crate) async fn accounts_are_found_by_id_name_email_and_start_of_id(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (add(&store, "ada").await, add(&store, "bob").await);
    for asked in [ada.id.to_string(), "ada".into(), "ADA@example.org".into()] {
        assert_eq!(store.accounts().find(&asked).await.unwrap(), ada, "{asked}");
    }
    // Made within the same hours, the two ids start alike.
    let start = &ada.id.to_string()[..6];
    let ambiguous = store.accounts().find(start).await.unwrap_err();
    let message = ambiguous.to_string();
    assert!(matches!(ambiguous, StoreError::Ambiguous { .. }));
    assert!(message.contains(&format!("ada ({})", ada.id)), "{message}");
    assert!(message.contains(&format!("bob ({})", bob.id)), "{message}");
    assert!(matches!(store.accounts().find("carol").await, Err(StoreError::NotFound { .. })));
}

pub(crate) async fn refreshed_credentials_are_stored_only_over_those_they_came_from(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await;
    let save = async |expected: i64, new: &NewCredentials| {
        store.accounts().save_refreshed(ada.id, expected, new, NOW + 5).await.unwrap()
    };
    let without_id_token = NewCredentials { id_token: None, ..credentials("ada", 2) };
    assert_eq!(save(1, &without_id_token).await, Saved::Stored { generation: 2 });
    assert_eq!(save(1, &credentials("ada", 3)).await, Saved::Stale);

    let stored = store.accounts().credentials(ada.id).await.unwrap().unwrap();
    assert_eq!(stored.refresh_token.expose_secret(), "refresh-ada-2");
    assert_eq!(stored.id_token.unwrap().expose_secret(), "id-ada-1", "kept when none came");
    assert_eq!((stored.generation, stored.last_refresh_at), (2, NOW + 5));

    assert!(store.accounts().remove(ada.id).await.unwrap());
    assert_eq!(save(2, &credentials("ada", 3)).await, Saved::Gone);
    assert!(store.accounts().credentials(ada.id).await.unwrap().is_none());
}

pub(crate) async fn a_good_exchange_ends_needs_login_but_no_quarantine(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await;
    let accounts = store.accounts();
    for (generation, state, left) in
        [(1, AccountState::NeedsLogin, AccountState::Active), (2, AccountState::Quarantined, AccountState::Quarantined)]
    {
        accounts.set_state(ada.id, None, state, Some("said by another process"), None, NOW + 1).await.unwrap();
        let saved = accounts.save_refreshed(ada.id, generation, &credentials("ada", 2), NOW + 2).await.unwrap();
        assert_eq!(saved, Saved::Stored { generation: generation + 1 });
        let now = accounts.get(ada.id).await.unwrap().unwrap();
        assert_eq!((now.state, now.state_reason.is_some()), (left, left != AccountState::Active));
    }
}

pub(crate) async fn of_many_refreshes_at_once_one_is_stored(db: Database) {
    let replicas = [db.store().await, db.store().await];
    let ada = add(&replicas[0], "ada").await;
    let refreshes = (2..22).map(|round| {
        let (store, id) = (replicas[usize::try_from(round).unwrap() % 2].clone(), ada.id);
        tokio::spawn(async move {
            let saved = store.accounts().save_refreshed(id, 1, &credentials("ada", round), NOW).await;
            (round, saved.unwrap())
        })
    });
    let mut stored = Vec::new();
    for refresh in refreshes.collect::<Vec<_>>() {
        match refresh.await.unwrap() {
            (round, Saved::Stored { generation: 2 }) => stored.push(round),
            (_, saved) => assert_eq!(saved, Saved::Stale),
        }
    }
    let [winner] = stored[..] else { panic!("stored: {stored:?}") };
    assert_eq!(tokens(&replicas[1], &ada).await.1, format!("refresh-ada-{winner}"));
}

pub(crate) async fn what_was_learnt_about_old_credentials_does_not_touch_new_ones(db: Database) {
    let store = db.store().await;
    let ada = add(&store, "ada").await;
    let accounts = store.accounts();
    let set = async |generation: Option<i64>, at: i64| {
        let state = AccountState::NeedsLogin;
        accounts.set_state(ada.id, generation, state, Some("expired"), None, at).await.unwrap()
    };
    accounts.upsert(account("ada"), NOW + 1).await.unwrap();
    assert!(!set(Some(1), NOW + 2).await, "somebody has logged in since");
    assert_eq!(accounts.get(ada.id).await.unwrap().unwrap().state, AccountState::Active);

    assert!(set(Some(2), NOW + 3).await);
    assert!(set(None, NOW + 4).await, "without a generation it always applies");
    let now = accounts.get(ada.id).await.unwrap().unwrap();
    assert_eq!((now.state, now.state_since), (AccountState::NeedsLogin, NOW + 3));
    let nobody = AccountId::new();
    assert!(!accounts.set_state(nobody, None, AccountState::Active, None, None, NOW).await.unwrap());
}

pub(crate) async fn pauses_and_limits_come_and_go(db: Database) {
    let store = db.store().await;
    let (ada, accounts) = (add(&store, "ada").await, store.accounts());
    accounts.set_limited(ada.id, Some(NOW + 60), Some("five hours"), NOW).await.unwrap();
    let paused = |yes| AccountChange { paused: Some(yes), ..AccountChange::default() };
    accounts.change(ada.id, &paused(true), Some(1), NOW).await.unwrap();
    let limited = accounts.get(ada.id).await.unwrap().unwrap();
    assert_eq!((limited.limited_until, limited.limit_reason.as_deref()), (Some(NOW + 60), Some("five hours")));
    assert!(limited.paused);

    accounts.set_limited(ada.id, None, None, NOW).await.unwrap();
    let outdated = accounts.change(ada.id, &paused(false), Some(1), NOW).await;
    assert!(matches!(outdated, Err(StoreError::Outdated { what: "account", .. })), "{outdated:?}");
    accounts.change(ada.id, &paused(false), Some(2), NOW).await.unwrap();
    assert_eq!(accounts.get(ada.id).await.unwrap(), Some(Account { version: 3, ..ada }));
    let nobody = accounts.change(AccountId::new(), &paused(true), None, NOW).await;
    assert!(matches!(nobody, Err(StoreError::NotFound { what: "account", .. })), "{nobody:?}");
}

pub(crate) async fn many_accounts_added_at_once_all_arrive_under_different_names(db: Database) {
    let replicas = [db.store().await, db.store().await];
    let added = (0..20).map(|number| {
        let store = replicas[number % 2].clone();
        let new = NewAccount { chatgpt_account_id: format!("workspace-{number}"), ..account("ada") };
        tokio::spawn(async move { store.accounts().upsert(new, NOW).await.unwrap() })
    });
    for one in added.collect::<Vec<_>>() {
        assert!(matches!(one.await.unwrap(), Upserted::Created(_)));
    }
    let mut names: Vec<String> = replicas[0].accounts().list().await.unwrap().into_iter().map(|one| one.name).collect();
    names.dedup();
    assert_eq!(names.len(), 20, "{names:?}");
    assert!(names.contains(&"ada-20".to_owned()), "{names:?}");
}
