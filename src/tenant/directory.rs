//! All keys, in memory. A request is authenticated without the database; a change in the database
//! shows here within a second.

use super::key::{Hasher, KeyFormatError, KeySecret};
use super::rules::{Shut, admits, stays};
use crate::store::{AccountScope, Changes, GatewayKey, KeyId, Limits, Rights, Store, StoreError, UnixMillis};
use arc_swap::ArcSwap;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why a key is refused; worded for its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// No key was presented.
    #[error("No key was given. Send your Tollway key as `Authorization: Bearer tw-…` or `x-api-key: tw-…`")]
    Missing,
    /// What was presented cannot be a key.
    #[error("The key was refused: {0}")]
    Malformed(#[from] KeyFormatError),
    /// A well-formed key that nobody made here, or that was removed.
    #[error("The key was refused: it is not known here")]
    Unknown,
    /// It is not known here, and the database that may know it does not answer.
    #[error("The key cannot be checked now: it is not known here, and the gateway's database does not answer")]
    Unavailable,
    /// It was revoked.
    #[error("The key was refused: it has been revoked")]
    Revoked,
    /// Its time is over.
    #[error("The key was refused: it has expired")]
    Expired,
    /// It may not be used now, or from there.
    #[error(transparent)]
    Shut(#[from] Shut),
}

/// A key made a moment ago is looked for at once, but never more often than this, however many
/// unknown keys are presented.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a look for an unknown key may take.
const LOOK: Duration = Duration::from_secs(3);
/// How soon keys that could not be read are read again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often last-used times are written.
const LAST_USED_INTERVAL: Duration = Duration::from_secs(5);

/// What is to be done with all keys before they are let in.
pub type Prepare =
    Box<dyn Fn(Vec<Arc<GatewayKey>>) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> + Send + Sync>;

/// Knows every key. One for the process.
pub struct Keys {
    store: Store,
    /// Under which the hashes are made.
    hasher: Hasher,
    /// By hash. A lookup by hash takes no secret-dependent time that helps anybody: the hash is
    /// keyed, so its bytes cannot be steered from outside.
    by_hash: ArcSwap<HashMap<[u8; 32], Arc<GatewayKey>>>,
    /// The store's key revision that `by_hash` shows, and when the store was last asked for it.
    seen: tokio::sync::Mutex<(i64, Instant)>,
    /// Last-used times that are not written yet: one a key, so bounded by the number of keys.
    used: Mutex<HashMap<KeyId, UnixMillis>>,
    /// Stands for everybody where no key is asked for.
    anonymous: Arc<GatewayKey>,
    prepare: Prepare,
}

fn usable(key: &GatewayKey, now: UnixMillis) -> Result<(), KeyRefusal> {
    if key.revoked_at.is_some() {
        return Err(KeyRefusal::Revoked);
    }
    if key.expires_at.is_some_and(|expires| expires <= now) {
        return Err(KeyRefusal::Expired);
    }
    Ok(())
}

impl Keys {
    /// Reads all keys.
    pub async fn load(store: Store, prepare: Prepare) -> Result<Arc<Self>, StoreError> {
        let hasher = Hasher::new(store.pepper().await?.expose_secret());
        let keys = Self {
            store,
            hasher,
            by_hash: ArcSwap::default(),
            seen: tokio::sync::Mutex::new((i64::MIN, Instant::now())),
            used: Mutex::default(),
            anonymous: Arc::new(anonymous()),
            prepare,
        };
        keys.reload().await?;
        Ok(Arc::new(keys))
    }

    /// The key that stands for everybody where no key is asked for.
    pub fn anonymous(&self) -> Arc<GatewayKey> {
        self.anonymous.clone()
    }

    /// All keys, also expired and revoked ones, in no order.
    pub fn all(&self) -> Vec<Arc<GatewayKey>> {
        self.by_hash.load().values().cloned().collect()
    }

    /// Whose key this is, if it may be used now.
    pub async fn authenticate(
        &self,
        presented: &str,
        from: Option<IpAddr>,
        now: UnixMillis,
    ) -> Result<Arc<GatewayKey>, KeyRefusal> {
        let secret = KeySecret::parse(presented)?;
        let mut found = self.known(&secret);
        if found.is_none() {
            self.look_again().await?;
            found = self.known(&secret);
        }
        let key = found.ok_or(KeyRefusal::Unknown)?;
        usable(&key, now)?;
        admits(&key, from, now)?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(key.id, now);
        Ok(key)
    }

    /// The key as keys are stored now, or as they were before they could be declared by hash.
    fn known(&self, secret: &KeySecret) -> Option<Arc<GatewayKey>> {
        let (by_hash, hasher) = (self.by_hash.load(), &self.hasher);
        by_hash.get(&secret.digest().hash_by(hasher)).or_else(|| by_hash.get(&secret.hash_by(hasher))).cloned()
    }

    /// The key of this id, if it may be used now: for work that its holder left here.
    pub fn holder(&self, id: KeyId, now: UnixMillis) -> Result<Arc<GatewayKey>, KeyRefusal> {
        if id == self.anonymous.id {
            return Ok(self.anonymous.clone());
        }
        let key = self.by_hash.load().values().find(|key| key.id == id).cloned().ok_or(KeyRefusal::Unknown)?;
        usable(&key, now)?;
        stays(&key, now)?;
        Ok(key)
    }

    /// Follows the store until `stop`.
    pub async fn watch(self: Arc<Self>, mut changes: Changes, stop: CancellationToken) {
        loop {
            let mut is_behind = false;
            if let Some(revision) = changes.latest()
                && let Err(error) = self.reload_to(revision.keys).await
            {
                is_behind = true;
                tracing::warn!(%error, "gateway keys could not be read again; those known go on");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.next() => {}
                () = tokio::time::sleep(AGAIN), if is_behind => {}
            }
        }
    }

    /// Writes last-used times in batches until `stop`, and once more then.
    pub async fn write_last_used(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(LAST_USED_INTERVAL) => false,
                () = stop.cancelled() => true,
            };
            let used: Vec<_> =
                std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect();
            if !used.is_empty()
                && let Err(error) = self.store.keys().touch(&used).await
            {
                tracing::warn!(%error, "last-used times of keys were not written");
            }
            if stopping {
                return;
            }
        }
    }

    /// Reads the keys if the store's revision moved.
    async fn reload(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        self.reload_seen(&mut seen).await
    }

    /// Reads the keys unless they are known as of this revision already.
    async fn reload_to(&self, revision: i64) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        if seen.0 == revision { Ok(()) } else { self.reload_seen(&mut seen).await }
    }

    /// The same for a key that is not known. Whoever asks while another looks shares that look; a
    /// flood of unknown keys waits, and costs ten small reads a second. The lock is held while
    /// waiting, for that is what makes one look serve all.
    ///
    /// A database that does not answer says nothing about the key: it may have been made elsewhere.
    async fn look_again(&self) -> Result<(), KeyRefusal> {
        let asked = Instant::now();
        let look = async {
            let mut seen = self.seen.lock().await;
            if seen.1 >= asked {
                return Ok(());
            }
            tokio::time::sleep_until(seen.1 + LOOK_AGAIN).await;
            self.reload_seen(&mut seen).await
        };
        match tokio::time::timeout(LOOK, look).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "an unknown key could not be looked for");
                Err(KeyRefusal::Unavailable)
            }
            Err(_) => Err(KeyRefusal::Unavailable),
        }
    }

    async fn reload_seen(&self, seen: &mut (i64, Instant)) -> Result<(), StoreError> {
        let revision = self.store.revision().await?.keys;
        seen.1 = Instant::now();
        if revision == seen.0 {
            return Ok(());
        }
        let keys: Vec<_> = self.store.keys().list().await?.into_iter().map(Arc::new).collect();
        let usable = keys.iter().filter(|key| key.revoked_at.is_none()).cloned().collect();
        (self.prepare)(usable).await?;
        self.by_hash.store(Arc::new(keys.into_iter().map(|key| (key.hash, key)).collect()));
        seen.0 = revision;
        Ok(())
    }
}

/// Stands for everybody; is in no database.
fn anonymous() -> GatewayKey {
    GatewayKey {
        id: KeyId::nobody(),
        name: "anonymous".to_owned(),
        prefix: String::new(),
        hash: [0; 32],
        accounts: AccountScope::All,
        bound_to: AccountScope::All,
        pool: None,
        rights: Rights::new(),
        user: None,
        team: None,
        limits: Limits::default(),
        version: 0,
        created_at: 0,
        expires_at: None,
        revoked_at: None,
        rotated_to: None,
        last_used_at: None,
    }
}
