//! What a choice costs: the pure part, at home and among one to a thousand accounts, and the memory of
//! conversations when it is full.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollway::account::pool::condition::Condition;
use tollway::account::pool::quota::Source;
use tollway::account::pool::sessions::{Session, Sessions};
use tollway::account::pool::{Ask, Candidate, at_home, choose};
use tollway::account::{Accounts, Context, Observer, RefreshEvent, Tidings, TokenIssuer, TokenSettings};
use tollway::codex::limits::{Limits, Window};
use tollway::oauth::{RefreshError, RefreshReason, Timely, TokenSet};
use tollway::store::vault::Keyring;
use tollway::store::{AccountId, AccountScope, KeyId, NewAccount, NewCredentials, OpenOptions, Store};

const NOW: i64 = 1_790_000_000_000;
const HOUR: i64 = 3_600_000;

/// Accounts with both windows known, each at another point.
fn conditions(count: u32) -> Vec<(AccountId, Condition)> {
    (0..count)
        .map(|number| {
            let mut condition = Condition::default();
            condition.learn(&limits(number), Source::Answer, None, NOW);
            (AccountId::new(), condition)
        })
        .collect()
}

fn limits(number: u32) -> Limits {
    let window = |minutes: u64, hours: i64| {
        Some(Window {
            used_percent: f64::from(number * 37 % 100),
            window_minutes: Some(minutes),
            resets_at: Some((NOW + hours * HOUR + i64::from(number) * 1000) / 1000),
        })
    };
    Limits { primary: window(300, 2), secondary: window(10_080, 50), ..Limits::default() }
}

fn candidates(conditions: &[(AccountId, Condition)]) -> Vec<Candidate> {
    let describe = |(id, condition): &(AccountId, Condition)| {
        let mut candidate = Candidate::new(*id);
        condition.describe(&mut candidate, Some("gpt-6.1-sol"), NOW);
        candidate
    };
    conditions.iter().map(describe).collect()
}

fn choice(c: &mut Criterion) {
    let mut group = c.benchmark_group("choice");
    for count in [1, 8, 100, 200, 1000] {
        let known = conditions(count);
        let described = candidates(&known);
        let home = described[described.len() / 2];
        let ask = Ask { home: Some(home.id), ..Ask::of(&AccountScope::All, NOW) };
        group.bench_with_input(BenchmarkId::new("at home", count), &home, |b, home| {
            b.iter(|| at_home(black_box(home), &ask));
        });
        group.bench_with_input(BenchmarkId::new("describe", count), &known, |b, known| {
            b.iter(|| candidates(black_box(known)));
        });
        group.bench_with_input(BenchmarkId::new("choose", count), &described, |b, described| {
            b.iter(|| choose(black_box(described), &ask));
        });
        group.bench_with_input(BenchmarkId::new("describe and choose", count), &known, |b, known| {
            b.iter(|| choose(&candidates(black_box(known)), &ask));
        });
    }
    group.finish();
}

fn sessions(c: &mut Criterion) {
    let (key, account) = (KeyId::new(), AccountId::new());
    let mut full = Sessions::new(100_000, 24 * HOUR);
    for number in 0..100_000_i64 {
        full.settle(Session::of(key, &number.to_string()), account, 1, NOW + number);
    }
    let known = Session::of(key, "77777");
    c.bench_function("home of a conversation among 100,000", |b| {
        b.iter(|| (Session::of(key, black_box("77777")), full.home(known, NOW)));
    });
    c.bench_function("settle a conversation among 100,000", |b| {
        b.iter(|| full.settle(black_box(known), account, 1, NOW));
    });
}

/// Nothing is due here: nobody is asked, and nothing happens.
struct Nobody;

impl TokenIssuer for Nobody {
    fn refresh<'a>(
        &'a self,
        _: &'a SecretString,
        _: RefreshReason,
        _: Timely,
    ) -> BoxFuture<'a, Result<TokenSet, RefreshError>> {
        Box::pin(std::future::pending())
    }

    fn longest(&self) -> Duration {
        Duration::ZERO
    }
}

impl Observer for Nobody {
    fn refresh(&self, _: &RefreshEvent<'_>) {}
}

/// A directory as it runs, its accounts read from a database.
async fn directory_of(count: u32, url: String) -> Arc<Accounts> {
    let keyring = Keyring::generate().expect("a key");
    let store = Store::open(OpenOptions { url: url.into(), keyring }).await.expect("a database");
    store.migrate().await.expect("tables");
    for number in 0..count {
        let credentials = NewCredentials {
            access_token: "at".into(),
            refresh_token: format!("rt-{number}").into(),
            id_token: None,
            access_expires_at: Some(NOW + HOUR),
        };
        let account = NewAccount {
            name: Some(format!("account {number}")),
            email: None,
            chatgpt_user_id: Some(format!("user-{number}")),
            chatgpt_account_id: "workspace".to_owned(),
            plan: None,
            fedramp: false,
            credentials,
        };
        store.accounts().upsert(account, NOW).await.expect("an account");
    }
    let accounts = Accounts::new(Arc::new(Context {
        issuer: Arc::new(Nobody),
        store: Arc::new(store),
        observer: Arc::new(Nobody),
        clock: Arc::new(|| NOW),
        random: Arc::new(|| 0.5),
        holder: "bench".to_owned(),
        settings: TokenSettings::default(),
        tidings: Tidings::default(),
        tasks: TaskTracker::new(),
        shutdown: CancellationToken::new(),
    }));
    accounts.reload().await.expect("accounts");
    for (number, candidate) in (0..).zip(accounts.candidates(None)) {
        accounts.note_limits(candidate.id, &limits(number), Source::Answer, None);
    }
    accounts
}

fn directory(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let place = tempfile::tempdir().expect("a directory");
    let mut group = c.benchmark_group("directory");
    for count in [1, 200] {
        let url = format!("sqlite://{}", place.path().join(format!("{count}.db")).display());
        let accounts = runtime.block_on(directory_of(count, url));
        let home = accounts.candidates(None)[0].id;
        group.bench_function(BenchmarkId::new("one", count), |b| {
            b.iter(|| accounts.candidate(black_box(home), Some("gpt-6.1-sol")));
        });
        group.bench_function(BenchmarkId::new("all", count), |b| {
            b.iter(|| accounts.candidates(black_box(Some("gpt-6.1-sol"))));
        });
    }
    group.finish();
}

criterion_group!(benches, choice, directory, sessions);
criterion_main!(benches);
