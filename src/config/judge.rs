//! What is wrong although every value by itself is of the right type. A server that starts must not
//! stumble over a setting afterwards, so what can be known without a socket is judged here.

use super::fault::Fault;
use super::{Admin, Database, Oidc, Settings, field};
use crate::oidc::{self, Grant};
use crate::store::Role;
use figment::Figment;
use http::{HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use std::net::SocketAddr;
use tracing_subscriber::EnvFilter;
use url::Url;

/// A rule that is broken: the setting, and what is wrong with it. Never holds a secret.
type Broken = (&'static str, String);

/// How reqwest can reach a proxy.
const PROXY_SCHEMES: [&str; 5] = ["http", "https", "socks4", "socks5", "socks5h"];
/// A shorter admin key could be guessed.
const SHORTEST_ADMIN_KEY: usize = 24;
const FEWEST_CONNECTIONS: u32 = 2;
/// A longer one is cut in the name of the channel that its changes are told on.
const LONGEST_SCHEMA: usize = 48;
/// What the store can open.
const DATABASES: [&str; 3] = ["sqlite:", "postgres://", "postgresql://"];

/// Every rule that the settings break.
pub(super) fn judge(settings: &Settings, layers: &Figment) -> Vec<Fault> {
    let broken = [
        listeners(settings),
        admin(&settings.admin),
        sign_in(&settings.oidc, &settings.admin),
        grants(&settings.oidc),
        database(&settings.database),
        numbers(settings),
        texts(settings),
        aliases(settings),
        headers(settings),
    ];
    broken.into_iter().flatten().map(|(key, problem)| Fault::new(key, field::origin(layers, key), problem)).collect()
}

/// The rules of `rules` that do not hold.
fn unless<const N: usize>(rules: [(bool, &'static str, &str); N]) -> Vec<Broken> {
    rules.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, problem)| (key, problem.to_owned())).collect()
}

fn listeners(settings: &Settings) -> Vec<Broken> {
    let Settings { server, admin, .. } = settings;
    unless([
        (
            !server.insecure_no_keys || server.listen.ip().is_loopback(),
            "server.insecure_no_keys",
            "is only allowed when server.listen is a loopback address such as 127.0.0.1:8787",
        ),
        (
            !collide(server.listen, server.ops_listen),
            "server.ops_listen",
            "takes the port of server.listen; give each its own port",
        ),
        (
            !collide(server.listen, admin.listen) && !collide(server.ops_listen, admin.listen),
            "admin.listen",
            "takes the port of another listener; give each its own port",
        ),
    ])
}

fn admin(admin: &Admin) -> Vec<Broken> {
    unless([
        (
            admin.key.as_ref().is_none_or(|key| key.expose_secret().trim().len() >= SHORTEST_ADMIN_KEY),
            "admin.key",
            "is too short: give at least 24 characters, such as those of `openssl rand -base64 32`",
        ),
        (!admin.session_lifetime.is_zero(), "admin.session_lifetime", "must be longer than nothing"),
        (
            admin.public_url.as_ref().is_none_or(is_bare),
            "admin.public_url",
            "must end with its path: take what follows the `?` or `#` away",
        ),
    ])
}

fn sign_in(oidc: &Oidc, admin: &Admin) -> Vec<Broken> {
    let Some(issuer) = &oidc.issuer else {
        let alone = "does nothing without oidc.issuer: name the provider too";
        return unless([
            (oidc.groups.is_empty(), "oidc.groups", alone),
            (oidc.default_role.is_none(), "oidc.default_role", alone),
            (oidc.client_secret.is_none(), "oidc.client_secret", alone),
        ]);
    };
    unless([
        (
            oidc::is_confidential(issuer) && is_bare(issuer),
            "oidc.issuer",
            "must be an https:// address without `?` or `#`; http:// only on this machine",
        ),
        (admin.public_url.is_some(), "admin.public_url", "is needed for signing in with oidc.issuer"),
        (!oidc.client_id.trim().is_empty(), "oidc.client_id", "is empty: give the client id at the provider"),
        (oidc.scopes.split_whitespace().any(|scope| scope == "openid"), "oidc.scopes", "must hold `openid`"),
        (!oidc.groups_claim.is_empty(), "oidc.groups_claim", "is empty: give the claim's name, such as `groups`"),
        (!oidc.timeout.is_zero(), "oidc.timeout", "must be longer than nothing"),
        (
            !oidc.groups.is_empty() || oidc.default_role.is_some(),
            "oidc.groups",
            "is needed, or nobody could sign in: say what a group may do, such as `admins = \"owner\"`",
        ),
    ])
}

fn grants(oidc: &Oidc) -> Vec<Broken> {
    let problem = |text: &str| text.parse::<Grant>().err().map(|error| format!("`{text}` {error}"));
    let entries = oidc.groups.iter();
    let mut broken: Vec<Broken> =
        entries.filter_map(|(group, text)| Some(("oidc.groups", format!("`{group}`: {}", problem(text)?)))).collect();
    if let Some(text) = &oidc.default_role {
        let owns = text.parse::<Grant>().is_ok_and(|grant| grant.role == Role::Owner);
        let everybody = "would make everybody whom the provider knows an owner: name a group in oidc.groups";
        let problem = if owns { Some(everybody.to_owned()) } else { problem(text) };
        broken.extend(problem.map(|problem| ("oidc.default_role", problem)));
    }
    broken
}

/// Whether nothing follows the path.
fn is_bare(url: &Url) -> bool {
    url.query().is_none() && url.fragment().is_none()
}

fn database(database: &Database) -> Vec<Broken> {
    unless([
        (
            database.pool_size >= FEWEST_CONNECTIONS,
            "database.pool_size",
            "must be at least 2: while one connection writes what was used, others must get in",
        ),
        (!database.acquire_timeout.is_zero(), "database.acquire_timeout", "must be longer than nothing"),
        (!database.check_interval.is_zero(), "database.check_interval", "must be longer than nothing"),
        (
            database.schema.as_deref().is_none_or(is_schema),
            "database.schema",
            "must be a plain name: lower-case letters, digits and `_`, no digit first, at most 48 characters, and not \
             `pg_…`, which Postgres keeps to itself",
        ),
    ])
}

/// A name that means the same with and without quotes, for it stands in the `search_path`.
fn is_schema(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    begins_well && name.len() <= LONGEST_SCHEMA && name.chars().all(is_plain) && !name.starts_with("pg_")
}

/// Whether the second listener would find the port taken. Port 0 is any free one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
}

fn numbers(settings: &Settings) -> Vec<Broken> {
    let Settings { server, backend, oauth, accounts, .. } = settings;
    let mut broken = unless([
        (server.max_body.bytes() > 0, "server.max_body", "must be at least 1B"),
        (backend.max_attempts > 0, "backend.max_attempts", "must be at least 1"),
        ((0.0..=1.0).contains(&settings.otlp.sample_ratio), "otlp.sample_ratio", "must be from 0 to 1"),
    ]);
    let durations = [
        ("server.header_timeout", server.header_timeout),
        ("server.idle_timeout", server.idle_timeout),
        ("backend.connect_timeout", backend.connect_timeout),
        ("backend.first_byte_timeout", backend.first_byte_timeout),
        ("backend.idle_timeout", backend.idle_timeout),
        ("oauth.timeout", oauth.timeout),
        ("accounts.reload_interval", accounts.reload_interval),
    ];
    let zero = durations.into_iter().filter(|(_, duration)| duration.is_zero());
    broken.extend(zero.map(|(key, _)| (key, "must be longer than nothing".to_owned())));
    broken
}

fn texts(settings: &Settings) -> Vec<Broken> {
    let Settings { top, backend, oauth, log, .. } = settings;
    let mut broken = unless([
        (
            top.database_url.as_ref().is_none_or(|url| DATABASES.iter().any(|s| url.expose_secret().starts_with(s))),
            "database_url",
            "is not sqlite://PATH or postgres://…",
        ),
        (backend.proxy_url().is_none_or(is_proxy), "backend.proxy", "is not an http://, https:// or socks5:// address"),
        (is_header(&backend.originator), "backend.originator", "cannot be sent as a header"),
        (is_header(&backend.user_agent), "backend.user_agent", "cannot be sent as a header"),
        (
            oauth.scope.split(' ').any(|scope| scope == "offline_access"),
            "oauth.scope",
            "must hold `offline_access`, or logins bring no refresh token",
        ),
    ]);
    if let Err(error) = EnvFilter::builder().parse(&log.level) {
        broken.push(("log.level", format!("`{}` is no filter: {error}", log.level)));
    }
    broken
}

fn is_proxy(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| PROXY_SCHEMES.contains(&url.scheme()) && url.has_host())
}

fn is_header(text: &str) -> bool {
    !text.is_empty() && HeaderValue::try_from(text).is_ok()
}

fn aliases(settings: &Settings) -> Vec<Broken> {
    let problem = |name: &str, target: &str| {
        let (slug, effort) = target.split_once(':').unwrap_or((target, "any"));
        let stem = name.strip_suffix('*').unwrap_or(name);
        if stem.contains('*') {
            Some(format!("`{name}`: only the end of a name may be `*`"))
        } else if slug.is_empty() || effort.is_empty() {
            Some(format!("`{name}`: `{target}` is not `slug` or `slug:effort`"))
        } else {
            None
        }
    };
    let entries = settings.models.aliases.iter();
    entries.filter_map(|(name, target)| Some(("models.aliases", problem(name, target)?))).collect()
}

fn headers(settings: &Settings) -> Vec<Broken> {
    let sound = |name: &str, value: &str| HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
    let entries = settings.otlp.headers.iter();
    entries
        .filter(|(name, value)| !sound(name, value.expose_secret()))
        .map(|(name, _)| ("otlp.headers", format!("`{name}` cannot be sent as a header")))
        .collect()
}
