use std::collections::BTreeMap;

use tollway::store::{
    AccountScope, AttemptRow, Dimension, Effort, Forgotten, Holder, KeyChange, Limits, NewKey, Period, StoreError,
    TeamDraft, UsageFilter, UsageRow, Used, UserDraft,
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
    let new = NewKey { user: Some(user.id), ..key("k", 1, AccountScope::only([ada, bob])) };
    let made = store.keys().create(new, NOW).await.unwrap();
    let read = store.keys().find("k").await.unwrap();
    assert_eq!(read, made);
    assert_eq!(read.team.as_ref().map(|team| team.name.as_str()), Some("core"));
    assert_eq!(read.accounts, AccountScope::only([ada]), "the team's limits narrow it");
    assert_eq!(read.bound_to, AccountScope::only([ada, bob]));

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

    assert_eq!(ledger.forget(midnight, midnight, 10).await.unwrap(), Forgotten { requests: 1, sums: 1 });
    assert!(ledger.request("r1").await.is_err());
    assert_eq!(inputs(&all, None).await, [line("", 4, 70, 300)], "days are kept");
    assert!("day".parse::<Period>().is_ok());

    let old = [0, 3, 4, 90].map(|hour| row(&format!("o{hour}"), hour * HOUR, "a", "m", 1));
    ledger.append(&old).await.unwrap();
    let step = async || ledger.forget(0, 91 * HOUR, 10).await.unwrap().sums;
    assert_eq!([step().await, step().await, step().await, step().await], [2, 1, 1, 0], "a few hours at a time");
}

/// What a report should say of these rows, counted by hand.
fn counted(rows: &[UsageRow], filter: &UsageFilter, by: Option<Dimension>) -> BTreeMap<String, (u64, u64)> {
    let wanted = |row: &&UsageRow| {
        let asked = [(&filter.key_id, &row.key_id), (&filter.model, &row.model), (&filter.account_id, &row.account_id)];
        (filter.from..filter.until).contains(&row.at)
            && asked.iter().all(|(asked, is)| asked.as_ref().is_none_or(|asked| asked == *is))
    };
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in rows.iter().filter(wanted) {
        let group = match by {
            None => String::new(),
            Some(Dimension::Team) => row.team_id.clone(),
            Some(Dimension::User) => row.user_id.clone(),
            Some(Dimension::Key) => row.key_id.clone(),
            Some(Dimension::Account) => row.account_id.clone(),
            Some(Dimension::Model) => row.model.clone(),
            Some(Dimension::Dialect) => row.dialect.clone(),
            Some(Dimension::Day) => (row.at / (24 * HOUR)).to_string(),
            Some(Dimension::Hour) => (row.at / HOUR).to_string(),
        };
        let sum = sums.entry(group).or_default();
        *sum = (sum.0 + 1, sum.1 + row.used.input);
    }
    sums
}

pub(crate) async fn reports_say_the_same_however_they_are_put_together(db: Database) {
    let store = db.store().await;
    let midnight = NOW.div_euclid(24 * HOUR) * 24 * HOUR;
    let rows: Vec<UsageRow> = (0..200)
        .map(|n: i64| {
            let at = midnight + n * 1_900_000 % (5 * 24 * HOUR);
            let row =
                row(&format!("r{n:03}"), at, &format!("k{}", n % 5), &format!("m{}", n % 3), n.unsigned_abs() + 1);
            UsageRow { account_id: format!("a{}", n % 7), user_id: format!("u{}", n % 2), ..row }
        })
        .collect();
    store.ledger().append(&rows).await.unwrap();
    let some = |text: &str| Some(text.to_owned());
    let none = UsageFilter::default;
    let filters = [
        none(),
        UsageFilter { key_id: some("k1"), ..none() },
        UsageFilter { model: some("m2"), account_id: some("a3"), ..none() },
        UsageFilter { key_id: some("nobody"), ..none() },
    ];
    let day = 24 * HOUR;
    for (from, until) in [(0, 5 * day), (5 * HOUR, 4 * day + 7 * HOUR), (day, 2 * day + HOUR), (HOUR, 9 * HOUR)] {
        for filter in &filters {
            let filter = UsageFilter { from: midnight + from, until: midnight + until, ..filter.clone() };
            for by in [None].into_iter().chain(Dimension::ALL.map(Some)) {
                let said = store.ledger().report(&filter, by).await.unwrap();
                let said = said.into_iter().map(|sum| (sum.group, (sum.requests, sum.used.input)));
                assert_eq!(said.collect::<BTreeMap<_, _>>(), counted(&rows, &filter, by), "{by:?} {filter:?}");
            }
        }
    }
}

pub(crate) async fn requests_are_listed_by_their_arrival_page_by_page(db: Database) {
    let store = db.store().await;
    let ledger = store.ledger();
    // Ids are no clock: the one with the highest came first; two came at once.
    let rows = [
        row("r9", NOW, "a", "m", 1),
        row("r1", NOW + 1, "a", "rare", 1),
        row("r2", NOW + 1, "b", "m", 1),
        row("r3", NOW + 2, "a", "m", 1),
    ];
    ledger.append(&rows).await.unwrap();
    let all = UsageFilter { from: NOW, until: NOW + 3, ..UsageFilter::default() };
    let page = async |filter: &UsageFilter, before: Option<&str>, limit: u32| {
        let rows = ledger.requests(filter, before, limit).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(page(&all, None, 2).await, ["r3", "r2"]);
    assert_eq!(page(&all, Some("r2"), 2).await, ["r1", "r9"]);
    assert!(page(&all, Some("r9"), 2).await.is_empty());
    let of_a = UsageFilter { key_id: Some("a".to_owned()), ..all.clone() };
    assert_eq!(page(&of_a, Some("r2"), 5).await, ["r1", "r9"]);
    let rare = UsageFilter { model: Some("rare".to_owned()), ..of_a };
    assert_eq!(page(&rare, None, 5).await, ["r1"]);
    assert!(page(&all, Some("forgotten"), 5).await.is_empty(), "all that came before it is forgotten too");
}
