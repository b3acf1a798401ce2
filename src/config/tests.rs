//! Layers, faults and redaction.

use super::*;
use crate::telemetry::traces::{Endpoint, Protocol, Sampling};
use std::collections::BTreeMap;

fn sources(env: &[(&str, &str)]) -> Sources {
    Sources { env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), ..Sources::default() }
}

fn faults(sources: &Sources) -> Vec<String> {
    load(sources).expect_err("faulty").0.iter().map(ToString::to_string).collect()
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("tollway.toml");
    std::fs::write(&path, text).expect("written");
    (dir, path)
}

fn origins(loaded: &Loaded) -> BTreeMap<String, String> {
    loaded.show().into_iter().map(|shown| (shown.key, shown.origin)).collect()
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let settings = load(&Sources::default()).expect("defaults").settings;
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8787");
    assert_eq!(settings.server.ops_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(settings.backend.user_agent, format!("tollway/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(settings.models.aliases["claude-haiku*"], "gpt-6-luna");
}

#[test]
fn each_layer_wins_over_the_one_below_and_the_origin_says_which() {
    let (_dir, path) = file("[server]\nlisten = \"127.0.0.1:1\"\nmax_body = \"1MiB\"\ndrain_grace = \"1s\"\n");
    let mut sources = sources(&[("TOLLWAY_SERVER__MAX_BODY", "2MiB"), ("TOLLWAY_SERVER__DRAIN_GRACE", "2s")]);
    sources.file = Some(path.clone());
    sources.flags.push(("server.drain_grace", "--drain-grace", "3s".to_owned()));
    let loaded = load(&sources).expect("valid");
    assert_eq!(loaded.settings.server.listen.port(), 1);
    assert_eq!(loaded.settings.server.max_body.bytes(), 2 << 20);
    assert_eq!(loaded.settings.server.drain_grace.as_secs(), 3);
    let origins = origins(&loaded);
    assert_eq!(origins["server.listen"], format!("file {}", path.display()));
    assert_eq!(origins["server.max_body"], "env TOLLWAY_SERVER__MAX_BODY");
    assert_eq!(origins["server.drain_grace"], "flag --drain-grace");
    assert_eq!(origins["server.ops_listen"], "default");
}

#[test]
fn every_fault_is_reported_at_once() {
    let (_dir, path) = file("[server]\nlissten = \"x\"\nheader_timeout = \"soon\"\n[surprise]\na = 1\n");
    let mut sources = sources(&[
        ("TOLLWAY_SERVER__INSECURE_NO_KEYS", "true"),
        ("TOLLWAY_SERVER__LISTEN", "0.0.0.0:80"),
        ("TOLLWAY_BACKEND__BASE_URL", "not an address"),
        ("TOLLWAY_BAKEND__PROXY", "x"),
    ]);
    sources.file = Some(path);
    let faults = faults(&sources).join("\n");
    for expected in [
        "server.lissten",
        "did you mean `server.listen`?",
        "surprise",
        "`soon` is not a duration",
        "backend.base_url (env TOLLWAY_BACKEND__BASE_URL)",
        "bakend.proxy (env TOLLWAY_BAKEND__PROXY): there is no such setting; did you mean `backend.proxy`?",
        "server.insecure_no_keys (env TOLLWAY_SERVER__INSECURE_NO_KEYS): is only allowed",
    ] {
        assert!(faults.contains(expected), "{expected} is not in\n{faults}");
    }
}

#[test]
fn a_secret_may_come_from_a_file_but_not_from_both() {
    let (_dir, path) = file("hunter2\n");
    let path = path.display().to_string();
    let loaded = load(&sources(&[("TOLLWAY_MASTER_KEY_FILE", &path)])).expect("valid");
    assert_eq!(loaded.settings.top.master_key.as_ref().expect("set").expose_secret(), "hunter2");
    let both = faults(&sources(&[("TOLLWAY_MASTER_KEY_FILE", &path), ("TOLLWAY_MASTER_KEY", "x")]));
    assert!(both[0].contains("set one of the two"), "{both:?}");
    let gone = faults(&sources(&[("TOLLWAY_MASTER_KEY_FILE", "/nowhere/key")]));
    assert!(gone[0].contains("/nowhere/key cannot be read"), "{gone:?}");
}

#[test]
fn a_variable_that_ends_in_file_and_is_a_setting_is_that_setting() {
    let loaded = load(&sources(&[("TOLLWAY_BACKEND__CA_FILE", "/x.pem")])).expect("valid");
    assert_eq!(loaded.settings.backend.ca_file, Some(PathBuf::from("/x.pem")));
}

#[test]
fn secrets_are_shown_by_nothing() {
    let loaded = load(&sources(&[
        ("TOLLWAY_MASTER_KEY", "hunter2"),
        ("TOLLWAY_BACKEND__PROXY", "http://u:hunter2@p"),
        ("TOLLWAY_OTLP__HEADERS__X_KEY", "hunter2"),
    ]))
    .expect("valid");
    let shown = format!("{:?} {:?}", loaded.show(), loaded.settings);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn aliases_of_a_file_are_added_to_the_default_ones() {
    let (_dir, path) = file("[models.aliases]\nfast = \"gpt-6-luna:low\"\n\"claude-opus*\" = \"gpt-6-sol\"\n");
    let sources = Sources { file: Some(path), ..Sources::default() };
    let aliases = load(&sources).expect("valid").settings.models.aliases;
    assert_eq!(aliases.len(), 4);
}

#[test]
fn each_entry_of_a_table_has_its_own_origin() {
    let (_dir, path) = file("[models.aliases]\nfast = \"gpt-6-luna:low\"\n");
    let mut sources = sources(&[("TOLLWAY_MODELS__ALIASES__SLOW", "gpt-6-sol"), ("TOLLWAY_MODELS__ALIASES", "a.b=c")]);
    sources.file = Some(path.clone());
    let origins = origins(&load(&sources).expect("valid"));
    assert_eq!(origins["models.aliases.\"claude-*\""], "default");
    assert_eq!(origins["models.aliases.fast"], format!("file {}", path.display()));
    assert_eq!(origins["models.aliases.slow"], "env TOLLWAY_MODELS__ALIASES__SLOW");
    assert_eq!(origins["models.aliases.\"a.b\""], "env TOLLWAY_MODELS__ALIASES");
}

#[test]
fn the_headers_of_a_variable_keep_their_names() {
    let env = [("TOLLWAY_OTLP__HEADERS", "x-api-key=a=b==, x-team = t")];
    let headers = load(&sources(&env)).expect("valid").settings.otlp.headers;
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
    assert_eq!(headers, [("x-api-key", "a=b=="), ("x-team", "t")]);
}

#[test]
fn a_secret_of_a_table_may_come_from_a_file_too() {
    let (_dir, path) = file("hunter2\r\n");
    let path = path.display().to_string();
    let loaded = load(&sources(&[("TOLLWAY_OTLP__HEADERS__AUTHORIZATION_FILE", &path)])).expect("valid");
    assert_eq!(loaded.settings.otlp.headers["authorization"].expose_secret(), "hunter2");
    let origin = &origins(&loaded)["otlp.headers.authorization"];
    assert_eq!(*origin, format!("env TOLLWAY_OTLP__HEADERS__AUTHORIZATION_FILE: {path}"));
}

#[test]
fn opentelemetrys_own_variables_are_understood_and_named() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_SERVICE_NAME", "gate"),
        ("TOLLWAY_OTLP__ENDPOINT", "http://ours:4318"),
    ];
    let loaded = load(&sources(&env)).expect("valid");
    let otlp = loaded.settings.telemetry().otlp.expect("an endpoint");
    let Endpoint::Base(base) = &otlp.endpoint else { panic!("{otlp:?}") };
    assert_eq!((base.as_str(), otlp.protocol), ("http://ours:4318/", Protocol::Http));
    assert_eq!(origins(&loaded)["otlp.protocol"], "env OTEL_EXPORTER_OTLP_PROTOCOL");
    assert_eq!(origins(&loaded)["otlp.service_name"], "env OTEL_SERVICE_NAME");
    let wrong = faults(&sources(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere")]));
    assert!(wrong[0].starts_with("otlp.endpoint (env OTEL_EXPORTER_OTLP_ENDPOINT)"), "{wrong:?}");
}

#[test]
fn opentelemetrys_address_for_traces_is_taken_as_it_is_and_its_samplers_by_their_names() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318/ingest"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ];
    let otlp = load(&sources(&env)).expect("valid").settings.telemetry().otlp.expect("an endpoint");
    let Endpoint::Traces(address) = &otlp.endpoint else { panic!("{otlp:?}") };
    assert_eq!(address, "http://t:4318/ingest");
    assert_eq!((otlp.sampling, otlp.sample_ratio.to_string().as_str()), (Sampling::TraceIdRatio, "0.25"));
    let wrong = faults(&sources(&[("OTEL_TRACES_SAMPLER", "xray")]));
    assert!(wrong[0].starts_with("otlp.sampler (env OTEL_TRACES_SAMPLER)"), "{wrong:?}");
}

#[test]
fn the_variables_that_kubernetes_makes_of_a_service_named_tollway_are_not_ours() {
    let env = [
        ("TOLLWAY_SERVICE_HOST", "10.0.0.1"),
        ("TOLLWAY_SERVICE_PORT", "8787"),
        ("TOLLWAY_SERVICE_PORT_API", "8787"),
        ("TOLLWAY_PORT", "tcp://10.0.0.1:8787"),
        ("TOLLWAY_PORT_8787_TCP", "tcp://10.0.0.1:8787"),
        ("TOLLWAY_PORT_8787_TCP_PROTO", "tcp"),
        ("TOLLWAY_PORT_8787_TCP_PORT", "8787"),
        ("TOLLWAY_PORT_8787_TCP_ADDR", "10.0.0.1"),
        ("TOLLWAY_OPS_SERVICE_HOST", "10.0.0.2"),
    ];
    assert!(load(&sources(&env)).is_ok());
    assert_eq!(faults(&sources(&[("TOLLWAY_PORT", "8787")])).len(), 1, "a person's mistake is still one");
}

#[test]
fn a_broken_file_is_told_without_the_line_that_may_hold_a_secret() {
    let (_dir, path) = file("master_key = \"hunter2\n");
    let told = faults(&Sources { file: Some(path), ..Sources::default() }).join("\n");
    assert!(told.contains("line 1") && told.contains("invalid"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn what_a_server_would_stumble_over_later_is_a_fault_now() {
    let cases = [
        ("server.ops_listen", "TOLLWAY_SERVER__OPS_LISTEN", "0.0.0.0:8787"),
        ("server.header_timeout", "TOLLWAY_SERVER__HEADER_TIMEOUT", "0s"),
        ("server.idle_timeout", "TOLLWAY_SERVER__IDLE_TIMEOUT", "0s"),
        ("backend.connect_timeout", "TOLLWAY_BACKEND__CONNECT_TIMEOUT", "0s"),
        ("backend.user_agent", "TOLLWAY_BACKEND__USER_AGENT", "a\nb"),
        ("backend.proxy", "TOLLWAY_BACKEND__PROXY", "gopher://u:hunter2@p"),
        ("backend.base_url", "TOLLWAY_BACKEND__BASE_URL", "http://u:hunter2@h"),
        ("database_url", "TOLLWAY_DATABASE_URL", "mysql://u:hunter2@h"),
        ("database.pool_size", "TOLLWAY_DATABASE__POOL_SIZE", "1"),
        ("database.acquire_timeout", "TOLLWAY_DATABASE__ACQUIRE_TIMEOUT", "0s"),
        ("database.schema", "TOLLWAY_DATABASE__SCHEMA", "Gateway"),
        ("database.schema", "TOLLWAY_DATABASE__SCHEMA", "a; drop"),
        ("database.schema", "TOLLWAY_DATABASE__SCHEMA", "pg_gateway"),
        ("database.notify", "TOLLWAY_DATABASE__NOTIFY", "never"),
        ("log.level", "TOLLWAY_LOG__LEVEL", "tollway=loud"),
        ("models.aliases", "TOLLWAY_MODELS__ALIASES__FAST", ""),
        ("models.aliases", "TOLLWAY_MODELS__ALIASES", "a*b=c"),
        ("otlp.headers", "TOLLWAY_OTLP__HEADERS", "hunter2"),
        ("otlp.headers", "TOLLWAY_OTLP__HEADERS", "a b=hunter2"),
        ("otlp.sample_ratio", "TOLLWAY_OTLP__SAMPLE_RATIO", "NaN"),
    ];
    for (key, variable, value) in cases {
        let told = faults(&sources(&[(variable, value)]));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("{key} (env {variable}): ")), "{told:?}");
        assert!(!told[0].contains("hunter2"), "{told:?}");
    }
}

#[test]
fn a_wrong_name_is_told_with_the_nearest_of_its_kind() {
    let (_dir, path) = file("server = 5\nbase_url = \"x\"\n[bakend]\nproxy = 1\n[models.aliases]\na = [1]\nb = [2]\n");
    let told = faults(&Sources { file: Some(path), ..Sources::default() }).join("\n");
    for expected in [
        "is a section, not a setting",
        "did you mean `backend.base_url`?",
        "there is no such section; did you mean `backend`?",
        "`a` is a table or a list, not a single value; `b` is a table",
    ] {
        assert!(told.contains(expected), "{expected} is not in\n{told}");
    }
}

/// Settings of which any text may be right here: names, and what only the rooms that use them can
/// judge (`tollway config check` asks those too).
const FREE: &[&str] = &[
    "data_dir",
    "master_key",
    "server.trusted_proxies",
    "server.cors_origins",
    "oidc.client_id",
    "oidc.scopes",
    "oidc.groups_claim",
    "oidc.name_claim",
    "oidc.ca_file",
    "backend.client_version",
    "backend.workspace_origins",
    "backend.ca_file",
    "oauth.client_id",
    "webhook.secret",
    "ledger.prices_file",
    "models.fallback",
    "models.images",
    "otlp.service_name",
];

#[test]
fn a_mistake_in_any_setting_names_the_setting_where_it_came_from_and_what_is_expected() {
    let mut free = Vec::new();
    for field in fields() {
        let variable = format!("TOLLWAY_{}", field.key.to_uppercase().replace('.', "__"));
        let Err(faults) = load(&sources(&[(&variable, "\u{1}¿")])) else {
            free.push(field.key);
            continue;
        };
        let told: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        let fault = told.iter().find(|fault| fault.starts_with(&format!("{} (env {variable}", field.key)));
        let fault = fault.unwrap_or_else(|| panic!("{}: {told:?}", field.key));
        // What to do about it: what a value looks like, or a sentence of its own.
        let problem = fault.rsplit_once("): ").map_or("", |(_, problem)| problem);
        assert!(problem.ends_with(field.kind) || problem.split_whitespace().count() > 3, "{fault}");
    }
    assert_eq!(free, FREE);
}

#[test]
fn the_reference_page_is_the_one_in_docs() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let written = std::fs::read_to_string(page).unwrap_or_default();
    assert_eq!(written, reference(), "run `tollway config reference > docs/configuration.md`");
}

#[test]
fn a_sign_in_is_judged_as_a_whole() {
    let right = [
        ("TOLLWAY_OIDC__ISSUER", "https://id.example.com/realms/staff"),
        ("TOLLWAY_ADMIN__PUBLIC_URL", "https://tollway.example.com"),
        ("TOLLWAY_OIDC__GROUPS", "admins=owner,leads=operator@core"),
    ];
    let settings = load(&sources(&right)).expect("valid").settings;
    assert_eq!(settings.oidc.groups["leads"], "operator@core");
    let table = [
        ("TOLLWAY_OIDC__ISSUER", "http://id.example.com", "oidc.issuer"),
        ("TOLLWAY_OIDC__ISSUER", "https://id.example.com/?a=b", "oidc.issuer"),
        ("TOLLWAY_ADMIN__PUBLIC_URL", "https://tollway.example.com/#a", "admin.public_url"),
        ("TOLLWAY_OIDC__GROUPS", "admins=root", "`admins`: `root` is not owner"),
        ("TOLLWAY_OIDC__GROUPS", "admins=owner@core", "an owner owns the whole gateway"),
        ("TOLLWAY_OIDC__DEFAULT_ROLE", "owner", "oidc.default_role"),
        ("TOLLWAY_OIDC__DEFAULT_ROLE", "reader", "oidc.default_role"),
        ("TOLLWAY_OIDC__SCOPES", "profile", "must hold `openid`"),
        ("TOLLWAY_OIDC__TIMEOUT", "0s", "oidc.timeout"),
        ("TOLLWAY_ADMIN__SESSION_LIFETIME", "0s", "admin.session_lifetime"),
    ];
    for (variable, value, expected) in table {
        let mut given = right.to_vec();
        given.retain(|(name, _)| *name != variable);
        given.push((variable, value));
        let faults = faults(&sources(&given));
        assert!(faults.len() == 1 && faults[0].contains(expected), "{variable}={value}: {faults:?}");
    }
    for (left_out, expected) in [(1, "admin.public_url"), (2, "nobody could sign in"), (0, "without oidc.issuer")] {
        let mut given = right.to_vec();
        given.remove(left_out);
        let faults = faults(&sources(&given));
        assert!(faults.len() == 1 && faults[0].contains(expected), "{faults:?}");
    }
}
