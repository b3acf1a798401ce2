//! What the admin API needs of a running gateway: accounts, the relay and the books. Beside the
//! server it is the server's own; for a command that runs by itself it is put together when it is
//! first needed, and put away at the end.

use super::problem::Fault;
use crate::account::{Accounts, keeper};
use crate::config::Settings;
use crate::relay::{Books, Relay};
use crate::server::ServerError;
use crate::server::assemble;
use crate::store::{GatewayKey, Store};
use crate::telemetry::logs::Level;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The parts.
#[derive(Clone)]
pub(in crate::server) struct Parts {
    pub(in crate::server) accounts: Arc<Accounts>,
    pub(in crate::server) relay: Arc<Relay>,
    pub(in crate::server) books: Arc<Books>,
}

/// The parts, now or when they are needed.
pub(in crate::server) struct Live {
    settings: Settings,
    parts: OnceCell<Parts>,
    /// Of a server that runs.
    log: Option<Level>,
    /// Of parts that are our own.
    own: (TaskTracker, CancellationToken),
}

impl Live {
    /// Of a server that runs.
    pub(in crate::server) fn running(settings: &Settings, parts: Parts, log: Level) -> Self {
        Self {
            settings: settings.clone(),
            parts: OnceCell::new_with(Some(parts)),
            log: Some(log),
            own: Default::default(),
        }
    }

    /// Of a command.
    pub(in crate::server) fn apart(settings: &Settings) -> Self {
        Self { settings: settings.clone(), parts: OnceCell::new(), log: None, own: Default::default() }
    }

    /// The settings in force.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Which log lines are written, by a server that runs.
    pub(super) fn log(&self) -> Option<&Level> {
        self.log.as_ref()
    }

    /// The parts.
    pub(super) async fn parts(&self, store: &Store) -> Result<&Parts, Fault> {
        let made = self.parts.get_or_try_init(async || {
            let books = assemble::books(&self.settings, store)?;
            let (tasks, stop) = self.own.clone();
            let holder = assemble::holder(assemble::COMMAND);
            let (accounts, relay) = assemble::relay(&self.settings, store, books.clone(), holder, tasks, stop).await?;
            Ok::<_, ServerError>(Parts { accounts, relay, books })
        });
        made.await.map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the admin API failed");
            Fault::new("internal", "the accounts could not be read; the log says why")
        })
    }

    /// The books, with what this key's limits count.
    pub(super) async fn books(&self, store: &Store, key: &GatewayKey) -> Result<&Arc<Books>, Fault> {
        let books = &self.parts(store).await?.books;
        for (subject, limits) in books.meters.uncounted(&[Arc::new(key.clone())]) {
            books.prime(subject, &limits).await?;
        }
        books.refresh(key).await;
        Ok(books)
    }

    /// Writes what was learnt, and ends what is our own.
    pub(in crate::server) async fn put_away(&self, store: &Store) {
        let (tasks, stop) = &self.own;
        stop.cancel();
        if let Some(parts) = self.parts.get() {
            keeper::write(&parts.accounts, store).await;
        }
        tasks.close();
        tasks.wait().await;
    }
}
