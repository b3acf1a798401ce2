//! Layers, faults and redaction.

use super::*;
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
    let origins: BTreeMap<_, _> = loaded.show().into_iter().map(|s| (s.key, s.origin)).collect();
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
    assert_eq!(secrecy::ExposeSecret::expose_secret(loaded.settings.top.master_key.as_ref().expect("set")), "hunter2");
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
fn opentelemetrys_own_variables_are_understood() {
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let otlp = load(&sources(&env)).expect("valid").settings.telemetry().otlp.expect("an endpoint");
    assert_eq!(otlp.protocol, telemetry::traces::Protocol::Http);
}

#[test]
fn the_reference_page_is_the_one_in_docs() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let written = std::fs::read_to_string(page).unwrap_or_default();
    assert_eq!(written, reference(), "run `tollway config reference > docs/configuration.md`");
}
