use serde_json::json;
use tollway::store::{
    AccountScope, Actor, AuditFilter, KeyChange, NewAdminKey, Role, StoreError, TeamDraft, UserDraft,
};

use crate::database::{Database, NOW, account, key};

fn actor(once: Option<&str>) -> Actor {
    Actor {
        id: "admin_key:1".into(),
        name: "ops".into(),
        source: Some("192.0.2.1".into()),
        request_id: Some("req_1".into()),
        at: NOW,
        once: once.map(str::to_owned),
    }
}

pub(crate) async fn every_change_by_people_is_noted_with_it_and_none_without(db: Database) {
    let plain = db.store().await;
    plain.tenants().create_team(TeamDraft { name: "unseen".into(), ..TeamDraft::default() }, NOW).await.unwrap();
    assert_eq!(plain.audit(&AuditFilter::default(), 10).await.unwrap(), [], "the gateway itself is nobody");

    let store = plain.acting(actor(None));
    let draft = TeamDraft { name: "core".into(), ..TeamDraft::default() };
    let team = store.tenants().create_team(draft.clone(), NOW).await.unwrap();
    store.tenants().create_team(draft.clone(), NOW).await.unwrap_err();
    store.tenants().update_team(team.id, &TeamDraft { suspended: true, ..draft }, None).await.unwrap();
    let user =
        store.tenants().create_user(UserDraft { name: "ada".into(), ..UserDraft::default() }, NOW).await.unwrap();
    let made = store.keys().create(key("k", 1, AccountScope::All), NOW).await.unwrap();
    let change = KeyChange { name: Some("k2".into()), ..KeyChange::default() };
    store.keys().update(made.id, &change, Some(1)).await.unwrap();
    store.keys().update(made.id, &change, Some(1)).await.unwrap_err();
    assert!(store.keys().revoke(made.id, NOW).await.unwrap() && !store.keys().revoke(made.id, NOW).await.unwrap());
    store.tenants().remove_user(user.id).await.unwrap();
    store.accounts().upsert(account("ada"), NOW).await.unwrap();

    let log = store.audit(&AuditFilter::default(), 100).await.unwrap();
    let told: Vec<_> = log.iter().rev().map(|row| (row.action.as_str(), row.target_name.as_str())).collect();
    let expected = [
        ("team.create", "core"),
        ("team.update", "core"),
        ("user.create", "ada"),
        ("key.create", "k"),
        ("key.update", "k2"),
        ("key.revoke", "k2"),
        ("user.remove", "ada"),
        ("account.create", "ada"),
    ];
    assert_eq!(told, expected);
    let of_team = AuditFilter { target_id: Some(team.id.to_string()), ..AuditFilter::default() };
    let change = store.audit(&of_team, 1).await.unwrap().remove(0);
    assert_eq!((change.actor.as_str(), change.source.as_deref(), change.at), ("admin_key:1", Some("192.0.2.1"), NOW));
    assert_eq!(change.before.unwrap()["suspended"], json!(false));
    assert_eq!(change.after.unwrap()["suspended"], json!(true));
    assert!(!format!("{log:?}").contains("access-ada"), "no secret is noted");
    let older = AuditFilter { before: Some(log[6].id.clone()), ..AuditFilter::default() };
    assert_eq!(store.audit(&older, 100).await.unwrap(), log[7..], "pages go on where the last one ended");
}

pub(crate) async fn a_request_that_comes_twice_changes_things_once(db: Database) {
    let store = db.store().await.acting(actor(Some("once")));
    let named = |name: &str| TeamDraft { name: name.into(), ..TeamDraft::default() };
    store.tenants().create_team(named("a"), NOW).await.unwrap();
    let again = store.tenants().create_team(named("b"), NOW).await;
    assert!(matches!(again, Err(StoreError::Repeated)), "{again:?}");
    assert_eq!(store.tenants().teams().await.unwrap().len(), 1, "nothing is left of the second");
    let day = 24 * 3_600_000;
    assert_eq!(store.slips().get("once", NOW).await.unwrap().unwrap().as_slice(), b"", "its answer is not known yet");
    store.slips().put("once", b"{}", NOW + day).await.unwrap();
    assert_eq!(store.slips().get("once", NOW).await.unwrap().unwrap().as_slice(), b"{}");
    let later = store.acting(Actor { at: NOW + day, ..actor(Some("once")) });
    later.tenants().create_team(named("b"), NOW).await.unwrap();
}

pub(crate) async fn slips_are_taken_once_and_end_by_themselves(db: Database) {
    let store = db.store().await;
    let slips = store.slips();
    slips.put("login", b"verifier", NOW + 10).await.unwrap();
    assert_eq!(slips.get("login", NOW + 10).await.unwrap(), None);
    assert_eq!(slips.take("login", NOW).await.unwrap().unwrap().as_slice(), b"verifier");
    assert_eq!(slips.take("login", NOW).await.unwrap(), None);
    slips.put("old", b"x", NOW).await.unwrap();
    slips.put("new", b"x", NOW + 1).await.unwrap();
    assert_eq!(slips.forget(NOW).await.unwrap(), 1);
    slips.drop("new").await.unwrap();
    assert_eq!(slips.get("new", NOW).await.unwrap(), None);
}

pub(crate) async fn admin_keys_are_found_by_hash_and_end_with_their_team(db: Database) {
    let store = db.store().await;
    let team = store.tenants().create_team(TeamDraft { name: "t".into(), ..TeamDraft::default() }, NOW).await.unwrap();
    let new = |hash: u8, team| NewAdminKey {
        name: "ops".into(),
        prefix: "twa-abc".into(),
        hash: [hash; 32],
        role: Role::Operator,
        team,
        expires_at: Some(NOW + 9),
    };
    let made = store.admin_keys().create(new(1, Some(team.id)), NOW).await.unwrap();
    assert_eq!(store.admin_keys().by_hash(&[1; 32]).await.unwrap(), Some(made.clone()));
    assert_eq!(store.admin_keys().by_hash(&[2; 32]).await.unwrap(), None);
    let held = store.tenants().remove_team(team.id).await;
    assert!(matches!(held, Err(StoreError::InUse { .. })), "{held:?}");
    assert!(store.admin_keys().revoke(&made, NOW).await.unwrap());
    assert!(!store.admin_keys().revoke(&made, NOW).await.unwrap());
    assert!(store.tenants().remove_team(team.id).await.unwrap());
    assert_eq!(store.admin_keys().list().await.unwrap(), [], "never one for all teams");
    let nowhere = store.admin_keys().create(new(3, Some(team.id)), NOW).await;
    assert!(matches!(nowhere, Err(StoreError::NotFound { what: "team", .. })), "{nowhere:?}");
}

pub(crate) async fn the_audit_log_is_not_rewritten(db: Database) {
    let store = db.store().await.acting(actor(None));
    store.note_deed("account.refresh", "1", "ada").await.unwrap();
    for statement in ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"] {
        let refused = db.try_to_run(statement).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{refused}");
    }
    assert_eq!(store.audit(&AuditFilter::default(), 9).await.unwrap().len(), 1);
}
