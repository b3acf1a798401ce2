//! Listeners, routers, start and stop. Handlers are thin; what they call is the relay.

pub use shutdown::signal as told_to_stop;

pub mod admin;
mod alerts;
pub mod assemble;
mod batches;
mod data;
mod database;
mod gauges;
mod listen;
mod models;
mod ops;
mod origin;
mod shutdown;
mod standing;
mod state;

use crate::account::{StoreFault, ahead, keeper};
use crate::batch::{self, Batches};
use crate::config::{Settings, Shown};
use crate::kept::{self, Kept};
use crate::store::{Changes, Store, StoreError, UnixMillis};
use crate::telemetry::{Telemetry, metrics};
use crate::tenant::Keys;
use crate::webhook::Outbox;
use admin::{Admin, Live, Parts, SignIn};
use axum::Router;
use database::Database;
use hyper_util::service::TowerToHyperService;
use models::Models;
use state::State;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address} ({setting}): {source}")]
    Listen {
        /// Which setting names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The HTTP client could not be built.
    #[error("the HTTP client for the backend could not be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// A setting that only shows when it is used.
    #[error("{setting}: {reason}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// Why it cannot be used.
        reason: String,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The accounts could not be read.
    #[error("the accounts could not be read: {0}")]
    Accounts(#[from] StoreFault),
}

/// How long refreshes and writes may take at the end, once no request runs any more.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// Serves until it is told to stop, then drains. The store is open and migrated.
pub async fn run(
    settings: &Settings,
    shown: Vec<Shown>,
    store: Store,
    telemetry: Telemetry,
    told_to_stop: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let sign_in = SignIn::of(settings)?;
    let api = bind("server.listen", settings.server.listen).await?;
    let operations = bind("server.ops_listen", settings.server.ops_listen).await?;
    let administration = bind("admin.listen", settings.admin.listen).await?;
    let background = TaskTracker::new();
    let stop = CancellationToken::new();
    store.tell_waits(metrics::database_wait);
    let (changes, following) = store.follow(settings.following(), stop.clone());
    background.spawn(following);
    let state = build(settings, store, telemetry, changes, &background, &stop).await?;
    state.kept.begin().await?;
    state.batches.begin().await?;
    spawn_background(settings, &state, &background, &stop);

    let closing = CancellationToken::new();
    let (header_timeout, idle_timeout) = (settings.server.header_timeout, settings.server.idle_timeout);
    let options = listen::Options { header_timeout, idle_timeout, linger: Duration::from_secs(1) };
    let api = tokio::spawn(listen::serve(api, data::front(state.clone()), options, closing.clone()));
    let ops_closing = CancellationToken::new();
    let operated = TowerToHyperService::new(ops::router(state.clone()));
    let ops = tokio::spawn(listen::serve(operations, operated, options, ops_closing.clone()));
    let admin = TowerToHyperService::new(admin_router(settings, shown, &state, sign_in));
    let admin = tokio::spawn(listen::serve(administration, admin, options, closing.clone()));

    told_to_stop.await;
    shutdown::drain(&state, settings.server.drain_delay, settings.server.drain_grace).await;
    closing.cancel();
    let _ = tokio::join!(api, admin);
    stop.cancel();
    background.close();
    if tokio::time::timeout(LAST_WRITES, background.wait()).await.is_err() {
        tracing::error!("background work was still running at the end; a refreshed token may not be stored");
    }
    // What ended last has its row too.
    if tokio::time::timeout(LAST_WRITES, state.books.ledger.finish()).await.is_err() {
        tracing::error!(rows = state.books.ledger.len(), "usage could not be written in time and is lost");
    }
    if tokio::time::timeout(LAST_WRITES, state.books.leave()).await.is_err() {
        tracing::warn!("slices of limits could not be given back in time; others get them when they run out");
    }
    ops_closing.cancel();
    let _ = ops.await;
    tracing::info!("stopped");
    Ok(())
}

/// The admin API over what runs.
fn admin_router(settings: &Settings, shown: Vec<Shown>, state: &State, sign_in: Option<SignIn>) -> Router {
    let State { accounts, relay, books, .. } = state;
    let parts = Parts { accounts: accounts.clone(), relay: relay.clone(), books: books.clone() };
    let currency = books.prices.currency().to_owned();
    let live = Live::running(settings, parts, state.telemetry.level().clone());
    let admin = Admin::new(state.store.clone(), live, currency, shown, sign_in);
    admin::router(admin, state.trusted_proxies.clone())
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServerError::Listen { setting, address, source })?;
    tracing::info!(%address, setting, "listening");
    Ok(listener)
}

async fn build(
    settings: &Settings,
    store: Store,
    telemetry: Telemetry,
    changes: Changes,
    background: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Arc<State>, ServerError> {
    // One word for this run of this process.
    let holder = uuid::Uuid::new_v4().to_string();
    let (duty, campaign) = store.lead("leader", holder, stop.clone());
    background.spawn(campaign);
    let outbox = match assemble::courier(settings, &store, duty.clone())? {
        Some((courier, outbox)) => {
            background.spawn(courier.work(stop.clone()));
            outbox
        }
        None => Outbox::nowhere(),
    };
    let books = assemble::server_books(settings, &store)?;
    background.spawn(books.ledger.clone().write(stop.clone()));
    if !store.is_shared() {
        // A SQLite file has one server: what is left of another is left of a dead one.
        store.exchanges().abandon(assemble::SERVER).await?;
    }
    let holder = assemble::holder(assemble::SERVER);
    let (accounts, relay) =
        assemble::relay(settings, &store, books.clone(), holder, background.clone(), stop.clone()).await?;
    let keys = Keys::load(store.clone(), assemble::prime(&books)).await?;
    let models = Models::load(store.clone(), &settings.models.aliases, settings.models.fallback.as_deref()).await?;
    if settings.server.insecure_no_keys {
        tracing::warn!("server.insecure_no_keys is set: anybody on this machine is served without a key");
    }
    let keeping = kept::Options {
        retention: settings.responses.retention,
        max_size: settings.responses.max_size.bytes(),
        background_runs: settings.responses.background_runs,
    };
    let batching = batch::Options {
        expiry: settings.batches.expiry,
        retention: settings.batches.retention,
        max_requests: settings.batches.max_requests,
    };
    Ok(Arc::new(State {
        kept: Kept::new(store.clone(), keeping, assemble::unix_millis),
        batches: Batches::new(store.clone(), batching, assemble::unix_millis),
        relay,
        books,
        trusted_proxies: assemble::trusted_proxies(settings)?,
        outbox,
        duty,
        database: Database::new(changes, &store, settings.database.grace),
        store,
        accounts,
        keys,
        models,
        image_model: settings.models.images.clone(),
        telemetry,
        max_body: settings.server.max_body.bytes(),
        cors_origins: assemble::cors_origins(settings)?,
        open: settings.server.insecure_no_keys,
        running: TaskTracker::new(),
        draining: AtomicBool::new(false),
        closing: CancellationToken::new(),
        sockets: state::Sockets {
            on: settings.server.websocket,
            idle: settings.server.websocket_idle,
            max_age: settings.server.websocket_max_age,
            ping: settings.server.websocket_ping,
        },
        connected: state::Counter::default(),
    }))
}

/// How often accounts are looked at for a refresh ahead of demand.
const AHEAD_PACE: Duration = Duration::from_secs(15);

/// Follows changes that others make in the store, refreshes ahead of demand, keeps the books.
fn spawn_background(settings: &Settings, state: &Arc<State>, background: &TaskTracker, stop: &CancellationToken) {
    let changes = state.database.changes();
    background.spawn(state.accounts.clone().watch(changes.clone()));
    background.spawn(ahead::run(state.accounts.clone(), state.duty.clone(), AHEAD_PACE));
    background.spawn(state.keys.clone().watch(changes.clone(), stop.clone()));
    background.spawn(state.models.clone().watch(changes, stop.clone()));
    background.spawn(state.keys.clone().write_last_used(stop.clone()));
    let (books, stopped) = (state.books.clone(), stop.clone());
    background.spawn(async move { books.exchange(stopped).await });
    background.spawn(state.books.ledger.clone().sweep(state.duty.clone(), assemble::unix_millis, stop.clone()));
    background.spawn(state.kept.clone().write(stop.clone()));
    background.spawn(state.kept.clone().sweep(state.duty.clone(), stop.clone()));
    let batches = &settings.batches;
    let pace = batches::Pace { concurrency: batches.concurrency, patience: batches.patience, spare: batches.spare };
    background.spawn(batches::work(state.clone(), pace, stop.clone()));
    background.spawn(state.batches.clone().sweep(state.duty.clone(), stop.clone()));
    background.spawn(admin::sweep(state.store.clone(), state.duty.clone(), stop.clone()));
    spawn_pool(settings, state, background, stop);
    background.spawn(state.telemetry.clone().upkeep(stop.clone()));
}

/// What the pool does beside requests: asks, remembers, and tells.
fn spawn_pool(settings: &Settings, state: &Arc<State>, background: &TaskTracker, stop: &CancellationToken) {
    let (relay, store, duty) = (&state.relay, &state.store, &state.duty);
    let now: fn() -> UnixMillis = assemble::unix_millis;
    background.spawn(relay.clone().survey(stop.clone()));
    background.spawn(relay.clone().poll_usage(duty.clone(), stop.clone()));
    background.spawn(relay.clone().serve_queue(stop.clone()));
    let changes = state.database.changes();
    background.spawn(relay.clone().keep_sessions(store.clone(), changes, duty.clone(), now, stop.clone()));
    background.spawn(relay.clone().write_decisions(store.clone(), duty.clone(), now, stop.clone()));
    background.spawn(keeper::keep(state.accounts.clone(), store.clone(), state.database.changes()));
    let outbox = state.outbox.clone();
    background.spawn(alerts::watch_pools(
        state.clone(),
        outbox.clone(),
        settings.webhook.nearly_exhausted,
        stop.clone(),
    ));
    background.spawn(gauges::watch(state.clone(), stop.clone()));
    background.spawn(alerts::watch_budgets(state.books.clone(), outbox.clone(), stop.clone()));
    let tell: keeper::Listener = Box::new(move |changes| alerts::tell_changes(&outbox, changes));
    background.spawn(keeper::chronicle(
        state.accounts.clone(),
        store.clone(),
        duty.clone(),
        settings.pool.history,
        tell,
    ));
}
