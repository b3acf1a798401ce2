//! Finding a key among others, as each request does.

use criterion::{BenchmarkId, Criterion};
use futures_util::FutureExt as _;
use secrecy::ExposeSecret as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use tollway::store::vault::Keyring;
use tollway::store::{AccountScope, Limits, NewKey, OpenOptions, Rights, Store};
use tollway::tenant::{KeySecret, Keys};

const MASTER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NOW: i64 = 1_790_000_000_000;

pub(crate) fn look_up(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("keys");
    for count in [10, 1_000, 10_000] {
        let directory = tempfile::tempdir().expect("a directory");
        let (keys, secrets) = runtime.block_on(filled(directory.path(), count));
        // One after the other, so that not the same key is at hand every time.
        let mut presented = secrets.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let secret = presented.next().map_or("", KeySecret::reveal);
                let found = keys.authenticate(black_box(secret), None, NOW).now_or_never();
                assert!(matches!(found, Some(Ok(_))), "known, and without waiting");
            });
        });
    }
    group.finish();
}

/// So many keys in a database, read into memory.
async fn filled(directory: &Path, count: usize) -> (Arc<Keys>, Vec<KeySecret>) {
    let url = format!("sqlite://{}", directory.join("keys.db").display());
    let keyring = Keyring::parse(&MASTER_KEY.into()).expect("a key");
    let store = Store::open(OpenOptions { url: url.into(), keyring }).await.expect("a database");
    store.migrate().await.expect("a schema");
    let pepper = store.pepper().await.expect("a pepper");
    let mut secrets = Vec::with_capacity(count);
    for number in 0..count {
        let secret = KeySecret::mint().expect("random bytes");
        let key = NewKey {
            name: format!("key {number}"),
            prefix: secret.prefix().to_owned(),
            hash: secret.digest().hash(pepper.expose_secret()),
            accounts: AccountScope::All,
            pool: None,
            rights: Rights::new(),
            user: None,
            team: None,
            limits: Limits::default(),
            expires_at: None,
        };
        store.keys().create(key, NOW).await.expect("a new key");
        secrets.push(secret);
    }
    let keys = Keys::load(store, Box::new(|_| Box::pin(async { Ok(()) }))).await.expect("the keys");
    (keys, secrets)
}
