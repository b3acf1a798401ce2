//! What model names mean: the aliases of the settings and, before them, those of the store, which
//! are followed while the server runs.

use crate::dialect::{ModelMap, Slugs};
use crate::store::{Changes, Store, StoreError};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How soon aliases are read again that could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// Knows every alias. One for the process.
pub(super) struct Models {
    store: Store,
    /// Of the settings.
    own: BTreeMap<String, String>,
    fallback: Option<String>,
    map: ArcSwap<ModelMap>,
    /// The store's revision that `map` shows.
    seen: AtomicI64,
}

impl Models {
    /// Reads the aliases.
    pub(super) async fn load(
        store: Store,
        aliases: &BTreeMap<String, String>,
        fallback: Option<&str>,
    ) -> Result<Arc<Self>, StoreError> {
        let models = Self {
            store,
            own: aliases.clone(),
            fallback: fallback.map(str::to_owned),
            map: ArcSwap::default(),
            seen: AtomicI64::new(i64::MIN),
        };
        models.reload().await?;
        Ok(Arc::new(models))
    }

    /// What names mean now.
    pub(super) fn now(&self) -> Arc<ModelMap> {
        self.map.load_full()
    }

    /// The same for accounts with these catalogues.
    pub(super) fn serving(&self, served: Option<Arc<[Slugs]>>) -> ModelMap {
        self.map.load().serving(served)
    }

    /// Follows the store until `stop`.
    pub(super) async fn watch(self: Arc<Self>, mut changes: Changes, stop: CancellationToken) {
        let mut is_behind = false;
        loop {
            let newest = changes.latest().map(|revision| revision.models);
            if (is_behind || newest.is_some_and(|newest| newest != self.seen.load(Ordering::Relaxed)))
                && let Err(error) = self.reload().await
            {
                is_behind = true;
                tracing::warn!(%error, "model aliases could not be read again; those known go on");
            } else {
                is_behind = false;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.next() => {}
                () = tokio::time::sleep(AGAIN), if is_behind => {}
            }
        }
    }

    /// Reads the aliases if the store's revision moved.
    async fn reload(&self) -> Result<(), StoreError> {
        let revision = self.store.revision().await?.models;
        if revision == self.seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut aliases = self.own.clone();
        aliases.extend(self.store.aliases().list().await?.into_iter().map(|alias| (alias.name, alias.target)));
        self.map.store(Arc::new(ModelMap::new(aliases).with_fallback(self.fallback.as_deref())));
        self.seen.store(revision, Ordering::Relaxed);
        Ok(())
    }
}
