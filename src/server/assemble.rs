//! Builds the parts that the server and the command line share out of settings and store.

use super::ServerError;
use crate::account::pool::condition::Defaults;
use crate::account::{Accounts, Context, Observer, RefreshEvent, Tidings, TokenSettings, keeper};
use crate::codex::route::OriginRule;
use crate::codex::{self, client};
use crate::config::{Settings, WebSocket};
use crate::ledger::{self, Ledger, Prices};
use crate::oauth::OAuthClient;
use crate::relay::{self, Books, Bounds, Relay};
use crate::store::{Duty, Slices, Store, UnixMillis};
use crate::telemetry::metrics;
use crate::tenant::{Meters, Prepare};
use crate::webhook::{Courier, Outbox, Receiver, Secret};
use http::HeaderValue;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How much of an answer may have come over HTTP/2 and not been read, bytes: what a client that does not read
/// can make the gateway hold, beside what its own connection holds.
const UNREAD: u32 = 128 * 1024;
/// The same of all answers on one connection: as much as the protocol can say, for each is bounded by itself.
/// In a window that they share, one that is not read would be in the way of all others; and h2 ends a connection,
/// with every answer on it, when the small frames in it that are not read exceed a share of its window.
const UNREAD_IN_ALL: u32 = (1 << 31) - 1;

/// A connection pool towards the backend and the issuer; for HTTP/2 that is one connection to each.
pub fn http_client(settings: &Settings) -> Result<reqwest::Client, ServerError> {
    Ok(http_builder(settings)?.build()?)
}

/// For WebSockets, with the same roots and the same proxy. They begin as HTTP/1.1.
fn socket_client(settings: &Settings) -> Result<reqwest::Client, ServerError> {
    Ok(http_builder(settings)?.http1_only().build()?)
}

fn http_builder(settings: &Settings) -> Result<reqwest::ClientBuilder, ServerError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(settings.backend.connect_timeout)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(UNREAD)
        .http2_initial_connection_window_size(UNREAD_IN_ALL)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_while_idle(true)
        .pool_idle_timeout(Duration::from_secs(90))
        // A redirect would carry credentials to another address.
        .redirect(reqwest::redirect::Policy::none())
        // Streams pass as they are; asking for compression would make the backend buffer them.
        .no_gzip()
        .no_zstd();
    if let Some(path) = &settings.backend.ca_file {
        builder = builder.tls_certs_merge(roots("backend.ca_file", path)?);
    }
    if let Some(proxy) = settings.backend.proxy_url() {
        // The error may repeat the address, and with it a password.
        let unusable = |_| ServerError::Setting { setting: "backend.proxy", reason: "is not a proxy's address".into() };
        builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(unusable)?);
    }
    Ok(builder)
}

/// For the provider that people sign in with. Not the backend's: its proxy and its roots are its own.
pub fn provider_client(settings: &Settings) -> Result<reqwest::Client, ServerError> {
    let mut builder = reqwest::Client::builder()
        .timeout(settings.oidc.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tollway/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &settings.oidc.ca_file {
        builder = builder.tls_certs_merge(roots("oidc.ca_file", path)?);
    }
    Ok(builder.build()?)
}

/// The certificates in a file.
fn roots(setting: &'static str, path: &Path) -> Result<Vec<reqwest::Certificate>, ServerError> {
    let unusable = |reason: String| ServerError::Setting { setting, reason };
    let pem = std::fs::read(path).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))
}

/// The issuer of the accounts' tokens.
pub fn issuer(settings: &Settings, http: &reqwest::Client) -> OAuthClient {
    OAuthClient::new(http.clone(), settings.oauth.client_config(&settings.backend))
}

/// Names of servers begin so among those who hold leases.
pub const SERVER: &str = "server:";
/// Names of commands begin so.
pub const COMMAND: &str = "command:";

/// A name for this run of this process, among those that share a database.
pub fn holder(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::now_v7())
}

/// The directory of accounts, not yet filled.
pub fn accounts(
    settings: &Settings,
    store: Store,
    issuer: OAuthClient,
    holder: String,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) -> Arc<Accounts> {
    let margin = settings.accounts.refresh_margin;
    let ahead = settings.accounts.refresh_ahead.max(margin);
    Accounts::new(Arc::new(Context {
        issuer: Arc::new(issuer),
        store: Arc::new(store),
        observer: Arc::new(Counter),
        clock: Arc::new(unix_millis),
        random: Arc::new(fastrand::f64),
        holder,
        settings: TokenSettings {
            min_life: margin,
            doubt: settings.accounts.refresh_doubt,
            resend_after_crash: settings.accounts.resend_after_crash,
            ahead_shortest: ahead,
            ahead_longest: ahead + settings.accounts.refresh_spread,
            ..TokenSettings::default()
        },
        tidings: Tidings::default(),
        tasks,
        shutdown,
    }))
}

/// What use would cost.
pub fn prices(settings: &Settings) -> Result<Prices, ServerError> {
    let unusable = |reason: String| ServerError::Setting { setting: "ledger.prices_file", reason };
    let prices = match &settings.ledger.prices_file {
        None => Prices::own(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Prices::read(&text.map_err(|error| unusable(format!("{}: {error}", path.display())))?)
        }
    };
    prices.map_err(|error| unusable(error.to_string()))
}

/// Limits and books over a store. Nothing is written until the ledger is told to.
pub fn books(settings: &Settings, store: &Store) -> Result<Arc<Books>, ServerError> {
    Ok(Arc::new(own_books(settings, store)?))
}

/// The same for a server, which holds limits together with others that are on the same database.
pub(super) fn server_books(settings: &Settings, store: &Store) -> Result<Arc<Books>, ServerError> {
    let own = own_books(settings, store)?;
    if settings.limits.lease < Duration::from_secs(1) {
        return Err(ServerError::Setting { setting: "limits.lease", reason: "is shorter than a second".into() });
    }
    let Some(slices) = Slices::new(store, uuid::Uuid::now_v7().to_string(), settings.limits.lease) else {
        return Ok(Arc::new(own));
    };
    own.ledger.writes_as(slices.replica());
    Ok(Arc::new(Books { meters: Arc::new(Meters::shared()), slices: Some(slices), ..own }))
}

fn own_books(settings: &Settings, store: &Store) -> Result<Books, ServerError> {
    let options = ledger::Options {
        flush_interval: settings.ledger.flush_interval,
        buffer: usize::try_from(settings.ledger.buffer).unwrap_or(usize::MAX).max(1),
        retention: settings.ledger.retention,
        hourly_retention: settings.ledger.hourly_retention,
    };
    Ok(Books {
        ledger: Ledger::new(store.clone(), options),
        meters: Arc::default(),
        slices: None,
        prices: prices(settings)?,
        bounds: Bounds { most_output: settings.limits.most_output.into(), patience: settings.limits.patience },
        now: unix_millis,
    })
}

/// Reads what the holders of new budgets have used before, before their keys are let in.
pub fn prime(books: &Arc<Books>) -> Prepare {
    let books = books.clone();
    Box::new(move |keys| {
        let books = books.clone();
        Box::pin(async move {
            for (subject, limits) in books.meters.uncounted(&keys) {
                books.prime(subject, &limits).await?;
            }
            books.meters.tidy(&keys, unix_millis());
            Ok(())
        })
    })
}

/// Whose `X-Forwarded-For` is believed.
pub(super) fn trusted_proxies(settings: &Settings) -> Result<Arc<[IpNet]>, ServerError> {
    let text = settings.server.trusted_proxies.split(',').map(str::trim).filter(|part| !part.is_empty());
    let network = |part: &str| {
        let unusable = |_| ServerError::Setting {
            setting: "server.trusted_proxies",
            reason: format!("{part:?} is neither an address nor a network"),
        };
        part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).map_err(unusable)
    };
    text.map(network).collect()
}

/// The accounts and the relay over them, with what earlier processes knew.
pub async fn relay(
    settings: &Settings,
    store: &Store,
    books: Arc<Books>,
    holder: String,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) -> Result<(Arc<Accounts>, Arc<Relay>), ServerError> {
    let http = http_client(settings)?;
    let issuer = issuer(settings, &http);
    let accounts = accounts(settings, store.clone(), issuer, holder, tasks, shutdown);
    accounts.reload().await?;
    keeper::restore(&accounts, store).await?;
    let same = settings.clone();
    let lanes = codex::Lanes::new(http, move || http_client(&same).map_err(|error| error.to_string()));
    let mut client = codex::Client::new(lanes, backend(settings)?);
    if settings.backend.websocket != WebSocket::Off {
        let remembers = settings.backend.websocket == WebSocket::Auto;
        client = client.with_sockets(socket_client(settings)?, remembers);
    }
    let relay = Relay::new(accounts.clone(), client, books, relay_options(settings)?).beside_others(store);
    let relay = Arc::new(relay);
    relay.restore_sessions(store, unix_millis()).await?;
    Ok((accounts, relay))
}

fn relay_options(settings: &Settings) -> Result<relay::Options, ServerError> {
    let (backend, pool) = (&settings.backend, &settings.pool);
    Ok(relay::Options {
        max_attempts: backend.max_attempts,
        first_event: backend.first_byte_timeout,
        keep_alive: settings.server.keep_alive,
        total: backend.total_timeout,
        hold: backend.hold,
        defaults: Defaults { cooldown: settings.accounts.default_cooldown, limit: settings.accounts.default_limit },
        strategy: pool.strategy,
        session_lifetime: pool.session_lifetime,
        waiting: relay::Waiting { requests: pool.queue, longest: pool.queue_wait },
        polling: relay::Polling { interval: pool.poll_interval, idle: pool.poll_idle },
        decisions: pool.decisions,
        models_ttl: backend.models_ttl,
        workspace_origins: workspace_origins(settings)?,
    })
}

/// Who takes events to the operator's webhook, if there is one.
pub(super) fn courier(
    settings: &Settings,
    store: &Store,
    duty: Duty,
) -> Result<Option<(Courier, Outbox)>, ServerError> {
    let Some(receiver) = receiver(settings)? else { return Ok(None) };
    // Not the backend's client: its proxy is for the backend, and its roots too.
    let http = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tollway/", env!("CARGO_PKG_VERSION")))
        .build()?;
    Ok(Some(Courier::new(store.clone(), duty, receiver, http, unix_millis)))
}

/// Where events go, and what they are signed with.
fn receiver(settings: &Settings) -> Result<Option<Receiver>, ServerError> {
    let unusable = |reason: String| ServerError::Setting { setting: "webhook.secret", reason };
    let secret = settings.webhook.secret.as_ref().map(Secret::parse).transpose();
    let secret = secret.map_err(|error| unusable(error.to_string()))?;
    let Some(url) = settings.webhook.url.clone() else { return Ok(None) };
    Ok(Some(Receiver { url, secret: secret.ok_or_else(|| unusable("is needed beside webhook.url".into()))? }))
}

/// Everything that a start would stumble over, without starting.
pub fn faults(settings: &Settings) -> Vec<ServerError> {
    let tried = [
        http_client(settings).map(drop),
        provider_client(settings).map(drop),
        trusted_proxies(settings).map(drop),
        cors_origins(settings).map(drop),
        workspace_origins(settings).map(drop),
        backend(settings).map(drop),
        prices(settings).map(drop),
        receiver(settings).map(drop),
    ];
    tried.into_iter().filter_map(Result::err).collect()
}

/// The origins whose pages may call.
pub(super) fn cors_origins(settings: &Settings) -> Result<Vec<HeaderValue>, ServerError> {
    let origins = settings.server.cors_origins.split([',', ' ']).filter(|origin| !origin.is_empty());
    let value = |origin: &str| {
        let is_origin =
            origin == "*" || url::Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == origin);
        let unusable = || ServerError::Setting {
            setting: "server.cors_origins",
            reason: format!("`{origin}` is not an origin such as https://chat.example.com, nor `*`"),
        };
        if is_origin { HeaderValue::try_from(origin).map_err(|_| unusable()) } else { Err(unusable()) }
    };
    origins.map(value).collect()
}

/// How the backend is spoken to.
fn backend(settings: &Settings) -> Result<client::Options, ServerError> {
    let header = |setting, value: &str| {
        HeaderValue::try_from(value)
            .map_err(|_| ServerError::Setting { setting, reason: "cannot be sent as a header".into() })
    };
    Ok(client::Options {
        base_url: settings.backend.base_url.clone(),
        originator: header("backend.originator", &settings.backend.originator)?,
        user_agent: header("backend.user_agent", &settings.backend.user_agent)?,
        client_version: settings.backend.client_version.clone(),
        first_byte_timeout: settings.backend.first_byte_timeout,
        idle_timeout: settings.backend.idle_timeout,
    })
}

/// Where workspaces may live.
fn workspace_origins(settings: &Settings) -> Result<OriginRule, ServerError> {
    let named = settings.backend.workspace_origins.as_deref().unwrap_or_default();
    OriginRule::new(named).map_err(|error| ServerError::Setting {
        setting: "backend.workspace_origins",
        reason: format!("holds what is no origin: {error}"),
    })
}

/// Now.
pub fn unix_millis() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Counts refreshes. The account room logs them.
struct Counter;

impl Observer for Counter {
    fn refresh(&self, event: &RefreshEvent<'_>) {
        metrics::token_refresh(event.name, event.outcome.as_str());
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
