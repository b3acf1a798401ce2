//! What a choice costs: the pure part, with a hundred and a thousand accounts, and the memory of
//! conversations when it is full.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tollway::account::pool::condition::Condition;
use tollway::account::pool::quota::Source;
use tollway::account::pool::sessions::{Session, Sessions};
use tollway::account::pool::{Ask, Candidate, choose};
use tollway::codex::limits::{Limits, Window};
use tollway::store::{AccountId, AccountScope, KeyId};

const NOW: i64 = 1_790_000_000_000;
const HOUR: i64 = 3_600_000;

/// Accounts with both windows known, each at another point.
fn conditions(count: u32) -> Vec<(AccountId, Condition)> {
    (0..count)
        .map(|number| {
            let window = |minutes: u64, hours: i64| {
                Some(Window {
                    used_percent: f64::from(number * 37 % 100),
                    window_minutes: Some(minutes),
                    resets_at: Some((NOW + hours * HOUR + i64::from(number) * 1000) / 1000),
                })
            };
            let limits = Limits { primary: window(300, 2), secondary: window(10_080, 50), ..Limits::default() };
            let mut condition = Condition::default();
            condition.learn(&limits, Source::Answer, None, NOW);
            (AccountId::new(), condition)
        })
        .collect()
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
    for count in [8, 100, 1000] {
        let known = conditions(count);
        let described = candidates(&known);
        let ask = Ask { home: Some(described[3].id), ..Ask::of(&AccountScope::All, NOW) };
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

criterion_group!(benches, choice, sessions);
criterion_main!(benches);
