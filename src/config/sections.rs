//! The sections, one declaration a setting. The text beside a setting is its documentation: the
//! reference page is made of it.

use super::field::{Size, section};
use crate::oauth::{Endpoints, OAuthConfig};
use crate::store::Strategy;
use crate::telemetry::logs::Format;
use crate::telemetry::traces::{Protocol, Sampling};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

section! {
    /// What belongs to no section.
    Top in "" {
        data_dir: PathBuf = "data", "Where the SQLite database and a generated key file are kept.";
        database_url: Option<SecretString>, "The database: `sqlite://PATH`, or `postgres://USER:PASSWORD@HOST:PORT/DATABASE` with `sslmode` and the like (docs/postgres.md). Without it, `tollway.db` in the data directory.";
        master_key: Option<SecretString>, "The key that credentials are sealed under: 32 bytes in base64. Several keys may be given, separated by white space: the first seals, all open. Without it, on SQLite, a key file in the data directory is made at first start.";
    }
}

section! {
    /// Listeners and limits.
    Server in "server." {
        listen: SocketAddr = "127.0.0.1:8787", "Where the API listens.";
        ops_listen: SocketAddr = "127.0.0.1:9464", "Where `/healthz`, `/readyz` and `/metrics` listen.";
        max_body: Size = "64MiB", "The largest request body, after decompression.";
        header_timeout: Duration = "15s", "How long a client may take to send a request's head, the first of its connection from when that is made.";
        idle_timeout: Duration = "2m", "How long a connection may wait for its next request before it is ended. Longer than clients' pools (90 s in many) and load balancers (60 s) keep theirs: where the gateway ends a connection first, the request that is just on its way on it fails.";
        trusted_proxies: String = "", "The proxies, as addresses or networks (`10.0.0.0/8`) separated by commas, whose `X-Forwarded-For` is believed when a key may be used from certain networks only.";
        keep_alive: Duration = "15s", "After how much silence of the backend a stream's client is told that the stream is alive, and again after as much; `0s` for never.";
        drain_delay: Duration = "0s", "At shutdown: how long readiness is red, and requests are served all the same, until load balancers have seen it.";
        drain_grace: Duration = "25s", "At shutdown: how long streams in flight may take to finish.";
        cors_origins: String = "", "Origins whose web pages may call the API (CORS), separated by commas; `*` for all. Empty: none.";
        websocket: bool = "true", "Serve the Responses API over WebSocket too. Without it a client that asks is told to use HTTP (426).";
        websocket_max_age: Duration = "60m", "How old a WebSocket connection may become; its client is told to open another one.";
        websocket_idle: Duration = "30m", "How long a WebSocket connection may stay without a request.";
        websocket_ping: Duration = "30s", "How often a WebSocket connection is tested by a ping, and its key for being valid still.";
        insecure_no_keys: bool = "false", "Serve requests without a key. Only on a loopback address.";
    }
}

section! {
    /// How a database server is used; nothing of it concerns SQLite.
    Database in "database." {
        pool_size: u32 = "10", "The most connections of one process for statements; one more hears of changes.";
        acquire_timeout: Duration = "10s", "How long whatever needs a connection waits for one.";
        statement_timeout: Duration = "30s", "How long the server works on one statement; `0s` for ever. Migrations take as long as they take.";
        lock_timeout: Duration = "10s", "How long a statement waits for a lock; `0s` for ever.";
        idle_in_transaction_timeout: Duration = "30s", "How long the server keeps a transaction, and its locks, of a process that says nothing any more; `0s` for ever.";
        schema: Option<String>, "The schema that the tables are in, which is made if it is missing. Without it, the first one in the user's `search_path`.";
        connect_retry: Duration = "5m", "How long `serve` waits at its start for a database that is not there yet, with a line in the log for each attempt; `0s` not at all.";
        grace: Duration = "5m", "How long requests with a known key are still served, and the process is ready, while the database does not answer or takes no writes. Keys and accounts are used as they were last known.";
        notify: Notify = "auto", "How changes made elsewhere are heard of: `auto` has the server tell them (LISTEN), and asks every `accounts.reload_interval` where it cannot; `off` always asks.";
        check_interval: Duration = "10s", "How often the server is asked for changes although it tells them.";
    }
}

/// How changes made elsewhere are heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    /// The database tells them, where it can.
    Auto,
    /// The database is asked.
    Off,
}

section! {
    /// The admin API.
    Admin in "admin." {
        listen: SocketAddr = "127.0.0.1:8788", "Where the admin API listens.";
        key: Option<SecretString>, "A first admin key, of an owner: at least 24 characters. Others are made with it, or with `tollway admin-key create`.";
        public_url: Option<Url>, "Where people's browsers reach the admin API, such as `https://tollway-admin.example.com`: needed for signing in. Cookies are Secure where it is `https://`.";
        session_lifetime: Duration = "12h", "How long somebody stays signed in.";
    }
}

section! {
    /// How people sign in to the admin API.
    Oidc in "oidc." {
        issuer: Option<Url>, "The OpenID Connect provider that people sign in with: its issuer, such as `https://id.example.com/realms/staff`. The redirect address to register there is `/admin/v1/auth/callback` below `admin.public_url`.";
        client_id: String = "tollway", "The client id at the provider.";
        client_secret: Option<SecretString>, "The client's secret, of a confidential client.";
        scopes: String = "openid profile email", "What a sign-in asks for, separated by spaces; some providers want `groups` too.";
        groups_claim: String = "groups", "The claim that lists somebody's groups, of the ID token or else of the userinfo endpoint; dots lead into objects (`realm_access.roles`).";
        name_claim: String = "name", "The claim that says what somebody is called in the audit log.";
        groups: BTreeMap<String, String>, "What the members of a group may do: `owner`, `operator` or `viewer`, the latter two for one team only as `operator@TEAM`. Who is in several groups gets the highest role.";
        default_role: Option<String>, "The same for people who are in none of these groups. Without it they are refused.";
        timeout: Duration = "10s", "For one exchange with the provider.";
        ca_file: Option<PathBuf>, "More root certificates for the provider, PEM.";
    }
}

section! {
    /// The Codex backend.
    Backend in "backend." {
        base_url: Url = "https://chatgpt.com/backend-api", "The backend's address.";
        originator: String = "tollway", "Who Tollway says it is, for clients other than the Codex CLI.";
        user_agent: String = "tollway/0.1.0", "The same as a user agent.";
        client_version: String = "0.169.0", "The client version that the model catalogue is asked for.";
        connect_timeout: Duration = "10s", "For a connection.";
        first_byte_timeout: Duration = "120s", "From a request to the head of its answer, and from there to its first event.";
        idle_timeout: Duration = "300s", "Between two reads of a stream: a backend that is silent for longer has its stream ended with an error.";
        total_timeout: Duration = "1h", "From a request to the end of its answer, over all attempts: a longer answer is ended with an error; `0s` for no limit.";
        hold: Duration = "2s", "How long the first events of a stream are held back, so that an error among them can move the request to another account.";
        max_attempts: u32 = "4", "How often a request may fail at the backend before its client is told. An account that refuses at once for its own part (its quota, its plan, its login) does not count.";
        workspace_origins: Option<String>, "More origins at which an account's workspace may live, such as `https://codex.example.com`, separated by spaces. HTTPS at `chatgpt.com` and `openai.com` and below them is allowed without being named. An account whose workspace lives elsewhere is not used.";
        models_ttl: Duration = "5m", "How long a model catalogue is kept.";
        websocket: WebSocket = "auto", "Whether clients on a WebSocket get one to the backend too, on which only what is new is sent: `auto` leaves a backend that refused one alone for a while and goes on over HTTP, `on` tries each time, `off` is HTTP always.";
        proxy: Option<SecretString>, "A proxy for all traffic to the backend and the issuer: `http://`, `https://` or `socks5://`.";
        ca_file: Option<PathBuf>, "More root certificates, PEM.";
    }
}

/// Whether WebSockets are used towards the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebSocket {
    /// Where it takes them.
    Auto,
    /// Tried each time.
    On,
    /// Never.
    Off,
}

impl Backend {
    /// The proxy's address, which may hold a password.
    pub fn proxy_url(&self) -> Option<&str> {
        self.proxy.as_ref().map(ExposeSecret::expose_secret)
    }
}

section! {
    /// The issuer of the accounts' tokens.
    OAuth in "oauth." {
        issuer: Url = "https://auth.openai.com", "The issuer's address.";
        token_url: Option<Url>, "The token endpoint, where it is not below the issuer.";
        client_id: String = "app_EMoamEEZ73f0CkXaXp7hrann", "The client id that logins belong to.";
        scope: String = "openid profile email offline_access", "What a login asks for. Must hold `offline_access`.";
        callback_port: u16 = "1455", "Where `account login` listens for the browser. The issuer knows 1455 and 1457.";
        timeout: Duration = "30s", "For one exchange with the issuer.";
    }
}

section! {
    /// How accounts are kept alive and put aside.
    Accounts in "accounts." {
        refresh_margin: Duration = "60s", "An access token with less life than this is refreshed before it is used.";
        refresh_ahead: Duration = "10m", "Refresh ahead of demand: the latest time before a token's end.";
        refresh_spread: Duration = "20m", "Refresh ahead of demand: over how long the accounts are spread before that.";
        refresh_doubt: Duration = "60s", "How long a refresh token is left alone that another server or command was sending when it was last heard of. When that is over and the access token has ended, the account needs a login.";
        resend_after_crash: bool = "false", "Whether a refresh token is sent once more, instead of asking for a login, when the server or command that was sending it was killed or stood still for longer than `accounts.refresh_doubt`. It saves a login that was not used yet; if it was, the issuer may take it for theft and end the login everywhere.";
        reload_interval: Duration = "250ms", "How often a running server looks for changes in the database, where the database does not tell of them by itself (SQLite; Postgres: `database.notify`).";
        default_cooldown: Duration = "30s", "How long an account is left alone after a rate limit without a time.";
        default_limit: Duration = "5m", "How long an account is put aside when its quota is used up and the backend does not say until when.";
    }
}

section! {
    /// How an account is chosen for a request, and what is remembered of it.
    Pool in "pool." {
        strategy: Strategy = "quota", "How accounts are ordered, for keys that are bound to no pool: `quota` uses first what would be lost otherwise, `round_robin` gives each its turn, `fill_first` empties one after the other, `least_loaded` takes the one with the fewest requests.";
        session_lifetime: Duration = "24h", "How long a conversation stays with its account after its last turn.";
        queue: u32 = "0", "How many requests may wait for an account to come back when all are used up or cooling, instead of being refused; each key in its turn. `0` for none.";
        queue_wait: Duration = "30s", "How long each of them waits at most. One that no account will be back for in that time is refused at once.";
        poll_interval: Duration = "5m", "How often the backend is asked how much of an account is used, while the account is in use or put aside; `0s` for never.";
        poll_idle: Duration = "30m", "The same for an account that nobody uses.";
        history: Duration = "90d", "How long the history of accounts' states is kept.";
        decisions: Duration = "24h", "How long it is kept why each request got its account; `0s` keeps nothing.";
    }
}

section! {
    /// Who is told of what somebody has to act on.
    Webhook in "webhook." {
        url: Option<Url>, "Where events are posted, as Standard Webhooks: `account.needs_login`, `account.quarantined`, `account.recovered`, `pool.nearly_exhausted`, `budget.hit`. Kept in the database and tried again for a day and more.";
        secret: Option<SecretString>, "What signs them: `whsec_` and at least 24 bytes in base64. Needed where there is an address.";
        nearly_exhausted: f64 = "10", "The share of its accounts' quota, in percent, below which a pool is nearly exhausted.";
    }
}

section! {
    /// How the limits of keys, users and teams are held.
    Limits in "limits." {
        most_output: u32 = "128000", "The output, in tokens, that is kept free in budgets for a request that does not say how much it takes at most (`max_tokens`, `max_output_tokens`), until it is over. Lower lets more requests run side by side near the end of a budget, and lets them exceed it by what they write beyond this.";
        patience: Duration = "30s", "How long a request waits when all that is left of a budget, or of a minute's tokens, is kept free for requests under way.";
        lease: Duration = "15s", "On Postgres: how long a server goes on with its part of limits when the database does not answer, and how long others wait for the part of a server that was killed. Requests of keys without limits are not concerned. At least `1s`.";
    }
}

section! {
    /// The books: what was used.
    Ledger in "ledger." {
        flush_interval: Duration = "250ms", "How long rows are gathered before they are written: what a `kill -9` may cost.";
        buffer: u32 = "10000", "How many rows may wait for the database before new requests have to wait too. None is ever dropped.";
        retention: Duration = "90d", "How long single requests are kept; `0s` for ever. Sums by the day are kept for ever.";
        hourly_retention: Duration = "400d", "How long sums by the hour are kept; `0s` for ever. Budgets need them for as long as their longest period.";
        prices_file: Option<PathBuf>, "A price table in the place of the one that comes with the program; docs/ledger.md says how it looks.";
    }
}

section! {
    /// What model names mean.
    Models in "models." {
        aliases: BTreeMap<String, String> = "{\"claude-*\"=\"gpt-6.1-sol\",\"claude-haiku*\"=\"gpt-6-luna\"}", "A client's name for a model, and the model that it gets: `slug` or `slug:effort`. A name may end in `*`; the longest match wins. Entries are added to the default ones.";
        fallback: Option<String>, "The model, `slug` or `slug:effort`, for names that no account's catalogue has. Without it such a request is answered as the backend answers it: the model does not exist.";
        images: String = "gpt-5.5", "The model, `slug` or `slug:effort`, that uses the backend's picture tool where a request to `/v1/images` needs it: for streams, masks and output formats.";
    }
}

section! {
    /// What is kept of responses.
    Responses in "responses." {
        retention: Duration = "30d", "How long responses (`store`) and conversations are kept after they were last built upon. `0s` keeps nothing.";
        max_size: Size = "16MiB", "How much of one response is kept: its request's items and its answer. A larger one is answered and not kept.";
        background_runs: u32 = "32", "How many responses run at once without their client (`background`). Eight times as many may wait; more are refused with 429.";
    }
}

section! {
    /// Message batches.
    Batches in "batches." {
        concurrency: u32 = "2", "How many requests of batches are worked on at once. `0` works on none.";
        patience: Duration = "10s", "A batch's request waits while others are being answered, but not longer than this after the one before it.";
        spare: f64 = "10", "The share of the accounts' windows, in percent, that batches leave to others.";
        expiry: Duration = "24h", "When requests of a batch that have not begun are given up.";
        retention: Duration = "29d", "How long after its making a batch and its results are deleted.";
        max_requests: u32 = "100000", "How many requests one key may have in unfinished batches.";
    }
}

section! {
    /// Log lines.
    Log in "log." {
        format: Option<Format>, "How lines look. Without it: human at a terminal, else json.";
        level: String = "info", "Which lines are written: a level, or a filter such as `info,tollway::relay=debug`.";
    }
}

section! {
    /// Metrics.
    Metrics in "metrics." {
        keys: u32 = "0", "How many keys have metrics of their own (`tollway_key_*`, with their user and team); those beyond are `other`. `0` for none.";
    }
}

section! {
    /// Traces.
    Otlp in "otlp." {
        endpoint: Option<Url>, "The collector, such as `http://127.0.0.1:4317`; over HTTP `/v1/traces` is added. Without it no traces are sent. `OTEL_EXPORTER_OTLP_ENDPOINT` is read too.";
        traces_endpoint: Option<Url>, "The address for traces, used as it is and before `otlp.endpoint`. `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is read too.";
        protocol: Protocol = "grpc", "How the collector is spoken to. `OTEL_EXPORTER_OTLP_PROTOCOL` is read too.";
        headers: BTreeMap<String, SecretString>, "Headers for the collector. `OTEL_EXPORTER_OTLP_HEADERS` is read too.";
        service_name: String = "tollway", "The service's name in traces. `OTEL_SERVICE_NAME` wins.";
        sampler: Sampling = "parentbased_traceidratio", "Which traces are kept, as `OTEL_TRACES_SAMPLER` says it, which is read too. With `parentbased_` the caller's decision holds where there is one.";
        sample_ratio: f64 = "1.0", "The share of traces that a sampler with `traceidratio` keeps, from 0 to 1. `OTEL_TRACES_SAMPLER_ARG` is read too.";
        keep_errors: bool = "true", "Keep traces in which something has failed, although the sampler said no. Their spans wait in memory until the request is over, 4096 at most.";
        keep_slow: Duration = "0s", "Keep traces that took at least this long, although the sampler said no; `0s` for none.";
    }
}

impl OAuth {
    /// For the OAuth room; the identity is the one that the backend is told.
    pub fn client_config(&self, backend: &Backend) -> OAuthConfig {
        let mut endpoints = Endpoints::of(&self.issuer);
        if let Some(token) = &self.token_url {
            endpoints = endpoints.with_token(token.clone());
        }
        OAuthConfig {
            endpoints,
            client_id: self.client_id.clone(),
            scope: self.scope.clone(),
            originator: backend.originator.clone(),
            user_agent: backend.user_agent.clone(),
            timeout: self.timeout,
        }
    }
}
