use tollway::store::{
    AccountScope, AttemptRow, Dimension, Effort, Holder, KeyChange, Limits, NewKey, Period, StoreError, TeamDraft,
    UsageFilter, UsageRow, Used, UserDraft,
};

use crate::database::{Database, NOW, add, key};

const HOUR: i64 = 3_600_000;

fn named_team(name: &str) -> TeamDraft {
    TeamDraft { name: name.to_owned(), ..TeamDraft::default() }
}

fn named_user(name: &str) -> UserDraft {
    UserDraft { name: name.to_owned(), ..UserDraft::default() }
}

pub(crate) async fn teams_and_users_are_kept_and_changed_by_one_at_a_time(db: Database) {
    let store = db.store().await;
    let tenants = store.tenants();
    let limits = Limits { max_effort: Some(Effort::High), ..Limits::default() };
    let team = tenants.create_team(TeamDraft { limits, ..named_team("core") }, NOW).await.unwrap();
    let taken = tenants.create_team(named_team("core"), NOW).await;
    assert!(matches!(taken, Err(StoreError::Taken { what: "team", .. })), "{taken:?}");
    let draft = UserDraft { email: Some("Ada@example.com".into()), team: Some(team.id), ..named_user("ada") };
    let user = tenants.create_user(draft, NOW).await.unwrap();
    assert_eq!(tenants.find_user("ada@EXAMPLE.com").await.unwrap(), user);
    assert_eq!(tenants.teams().await.unwrap(), std::slice::from_ref(&team));

    let before = store.revision().await.unwrap().keys;
    let changed = UserDraft { suspended: true, ..user.draft() };
    tenants.update_user(user.id, &changed, Some(1)).await.unwrap();
    assert!(store.revision().await.unwrap().keys > before, "servers read it again");
    let outdated = tenants.update_user(user.id, &changed, Some(1)).await;
    assert!(matches!(outdated, Err(StoreError::Outdated { what: "user", .. })), "{outdated:?}");
    let other = tenants.create_team(named_team("other"), NOW).await.unwrap();
    let renamed = tenants.update_team(other.id, &named_team("core"), None).await;
    assert!(matches!(renamed, Err(StoreError::Taken { .. })), "{renamed:?}");
    assert_eq!(tenants.find_user("ada").await.unwrap().version, 2);

    let held = tenants.remove_team(team.id).await;
    assert!(matches!(held, Err(StoreError::InUse { what: "team", .. })), "{held:?}");
    assert!(tenants.remove_team(other.id).await.unwrap() && !tenants.remove_team(other.id).await.unwrap());
    assert!(tenants.remove_user(user.id).await.unwrap());
    assert!(tenants.remove_team(team.id).await.unwrap());
}

pub(crate) async fn a_key_belongs_to_its_user_and_by_them_to_a_team(db: Database) {
    let store = db.store().await;
    let (ada, bob) = (add(&store, "ada").await.id, add(&store, "bob").await.id);
    let limits = Limits { accounts: Some(vec![ada]), ..Limits::default() };
    let team = store.tenants().create_team(TeamDraft { limits, ..named_team("core") }, NOW).await.unwrap();
    let user = store.tenants().create_user(UserDraft { team: Some(team.id), ..named_user("eve") }, NOW).await.unwrap();
    let new = NewKey { user: Some(user.id), ..key("k", 1, AccountScope::Only(vec![ada, bob])) };
    let made = store.keys().create(new, NOW).await.unwrap();
    let read = store.keys().find("k").await.unwrap();
    assert_eq!(read, made);
    assert_eq!(read.team.as_ref().map(|team| team.name.as_str()), Some("core"));
    assert_eq!(read.accounts, AccountScope::Only(vec![ada]), "the team's limits narrow it");
    assert_eq!(read.bound_to, AccountScope::Only(vec![ada, bob]));

    let limits = Limits { requests_per_minute: Some(5), ..Limits::default() };
    let change = KeyChange { limits: Some(limits.clone()), expires_at: Some(Some(NOW + 9)), ..KeyChange::default() };
    store.keys().update(made.id, &change, Some(1)).await.unwrap();
    let outdated = store.keys().update(made.id, &change, Some(1)).await;
    assert!(matches!(outdated, Err(StoreError::Outdated { what: "key", .. })), "{outdated:?}");
    let read = store.keys().find("k").await.unwrap();
    assert_eq!((read.limits, read.expires_at, read.version, read.name.as_str()), (limits, Some(NOW + 9), 2, "k"));

    assert!(matches!(store.tenants().remove_user(user.id).await, Err(StoreError::InUse { .. })));
    store.keys().revoke(made.id, NOW).await.unwrap();
    assert!(store.tenants().remove_user(user.id).await.unwrap());
    assert!(store.keys().find("k").await.unwrap().user.is_none());
}

fn row(id: &str, at: i64, key_id: &str, model: &str, tokens: u64) -> UsageRow {
    UsageRow {
        id: id.to_owned(),
        at,
        key_id: key_id.to_owned(),
        team_id: "t".to_owned(),
        model: model.to_owned(),
        dialect: "chat".to_owned(),
        status: 200,
        outcome: if tokens == 0 { "refused".to_owned() } else { "ok".to_owned() },
        used: Used { input: tokens, cached: tokens / 2, output: 1, ..Used::default() },
        cost: (model != "free").then_some(tokens * 10),
        first_byte_ms: Some(5),
        attempts: vec![AttemptRow { outcome: "overloaded".to_owned(), status: Some(503), ..AttemptRow::default() }],
        ..UsageRow::default()
    }
}

pub(crate) async fn the_books_hold_each_request_once_and_their_sums_agree(db: Database) {
    let store = db.store().await;
    let ledger = store.ledger();
    let midnight = NOW.div_euclid(24 * HOUR) * 24 * HOUR;
    let rows = [
        row("r1", midnight - 1, "a", "m", 10),
        row("r2", midnight, "a", "m", 20),
        row("r3", midnight + HOUR, "b", "free", 40),
        row("r4", midnight + HOUR, "b", "m", 0),
    ];
    ledger.append(&rows[..3]).await.unwrap();
    // A batch whose commit was in doubt comes again.
    ledger.append(&rows).await.unwrap();
    let all = UsageFilter { from: midnight - 24 * HOUR, until: midnight + 24 * HOUR, ..UsageFilter::default() };
    let inputs = async |filter: &UsageFilter, by: Option<Dimension>| {
        let sums = ledger.report(filter, by).await.unwrap();
        sums.into_iter().map(|sum| (sum.group, sum.requests, sum.used.input, sum.cost)).collect::<Vec<_>>()
    };
    let line = |group: &str, requests, input, cost| (group.to_owned(), requests, input, cost);
    assert_eq!(inputs(&all, None).await, [line("", 4, 70, 300)]);
    assert_eq!(inputs(&all, Some(Dimension::Key)).await, [line("a", 2, 30, 300), line("b", 2, 40, 0)]);
    assert_eq!(inputs(&all, Some(Dimension::Model)).await, [line("free", 1, 40, 0), line("m", 3, 30, 300)]);
    let day = midnight / (24 * HOUR);
    let by_day = [line(&(day - 1).to_string(), 1, 10, 100), line(&day.to_string(), 3, 60, 200)];
    assert_eq!(inputs(&all, Some(Dimension::Day)).await, by_day);
    // By hours where the times are no days.
    let odd = UsageFilter { until: all.until - HOUR, ..all.clone() };
    assert_eq!(inputs(&odd, Some(Dimension::Day)).await, by_day);
    let of_a = UsageFilter { key_id: Some("a".to_owned()), from: midnight, ..all.clone() };
    let hour = midnight / HOUR;
    assert_eq!(inputs(&of_a, Some(Dimension::Hour)).await, [line(&hour.to_string(), 1, 20, 200)]);
    assert_eq!(ledger.hours(Holder::Key, "a", hour - 1).await.unwrap().len(), 2);
    assert_eq!(ledger.hours(Holder::Team, "t", hour).await.unwrap().iter().map(|sum| sum.1).sum::<u64>(), 63);

    let page = ledger.requests(&all, Some("r4"), 2).await.unwrap();
    assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["r3", "r2"]);
    assert_eq!(ledger.request("r2").await.unwrap(), rows[1]);
    assert!(matches!(ledger.request("r9").await, Err(StoreError::NotFound { .. })));

    assert_eq!(ledger.forget(midnight, midnight, 10).await.unwrap(), 1);
    assert!(ledger.request("r1").await.is_err());
    assert_eq!(inputs(&all, None).await, [line("", 4, 70, 300)], "days are kept");
    assert!("day".parse::<Period>().is_ok());
}
