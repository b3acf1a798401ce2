//! Settings: where they come from, what is wrong with them, and what is shown of them.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{MASTER_KEY, Setup, Sim, eventually};

#[test]
fn check_lists_every_fault_at_once() {
    let setup = Setup::bare()
        .set("TOLLWAY_SERVER__LISTEN", "nowhere")
        .set("TOLLWAY_BACKEND__MAX_ATTEMPTS", "many")
        .set("TOLLWAY_LOG__FORMAT", "loud");
    let told = setup.fails(&["config", "check"], "");
    for key in ["server.listen", "backend.max_attempts", "log.format"] {
        assert!(told.contains(key), "{key} is not named in: {told}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let setup = Setup::bare().set("TOLLWAY_SERVER__LISTN", "127.0.0.1:1");
    let told = setup.fails(&["config", "check"], "");
    assert!(told.contains("listn") && told.contains("server.listen"), "{told}");
    let setup = Setup::bare();
    std::fs::write(setup.path("tollway.toml"), "[backend]\nbase_ulr = \"http://127.0.0.1:1\"\n").expect("a file");
    let told = setup.fails(&["config", "check"], "");
    assert!(told.contains("base_ulr") && told.contains("base_url"), "{told}");
}

#[test]
fn a_sound_configuration_passes_the_check() {
    Setup::bare().ok(&["config", "check"]);
}

#[test]
fn show_tells_values_and_origins_and_hides_secrets() {
    let setup = Setup::bare().set("TOLLWAY_MASTER_KEY", MASTER_KEY).set("TOLLWAY_SERVER__LISTEN", "127.0.0.1:4321");
    std::fs::write(setup.path("tollway.toml"), "[server]\nlisten = \"127.0.0.1:1\"\nmax_body = \"1MiB\"\n")
        .expect("a file");
    let shown = setup.ok(&["config", "show"]);
    assert!(!shown.contains(MASTER_KEY), "the master key is shown");
    let line = |key: &str| {
        let found = shown.lines().find(|line| line.split_whitespace().next() == Some(key));
        found.unwrap_or_else(|| panic!("no {key} in {shown}")).to_owned()
    };
    assert!(line("master_key").contains("redacted"));
    assert!(
        line("server.listen").contains("127.0.0.1:4321") && line("server.listen").contains("TOLLWAY_SERVER__LISTEN")
    );
    assert!(line("server.max_body").contains("1MiB") && line("server.max_body").contains("tollway.toml"));
    assert!(line("server.drain_grace").contains("default"));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_may_come_from_files() {
    let sim = Sim::start().await;
    let setup = Setup::bare().set("TOLLWAY_BACKEND__BASE_URL", &format!("{}/backend-api", sim.url));
    let file = setup.path("key.txt");
    std::fs::write(&file, format!("{MASTER_KEY}\n")).expect("a file");
    let setup = setup.set("TOLLWAY_MASTER_KEY_FILE", &file.display().to_string());
    setup.import(&sim.account(serde_json::json!({})).await);
    assert!(setup.ok(&["account", "list"]).contains("@example.com"));
    assert!(!setup.path("data").join("master.key").exists());
    let both = setup.set("TOLLWAY_MASTER_KEY", MASTER_KEY);
    assert!(both.fails(&["config", "check"], "").contains("master_key"), "a secret given twice is a fault");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_master_key_a_key_file_is_made_for_the_owner_alone() {
    let setup = Setup::bare();
    let gateway = setup.serve().await;
    let files =
        std::fs::read_dir(setup.path("data")).expect("the data directory").map(|entry| entry.expect("a file").path());
    let keys: Vec<_> = files.filter(|path| path.to_string_lossy().contains("key")).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let mode = keys[0].metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{keys:?}");
    let name = keys[0].file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    eventually("a log line about the key file", async || gateway.log().contains(&name).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_master_key_is_refused_by_name_and_nothing_is_touched() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(serde_json::json!({})).await);
    let before = std::fs::read(setup.database()).expect("the database");
    let other = setup.clone().set("TOLLWAY_MASTER_KEY", "YW5vdGhlci1tYXN0ZXIta2V5LW9mLTMyLWJ5dGVzISE=");
    let told = other.fails(&["serve"], "");
    assert!(told.to_lowercase().contains("key id") || told.contains("sealed under"), "{told}");
    assert_eq!(std::fs::read(setup.database()).expect("the database"), before);
    assert!(setup.ok(&["account", "list"]).contains("@example.com"));
}

#[test]
fn serving_without_keys_is_refused_beyond_loopback() {
    let setup =
        Setup::bare().set("TOLLWAY_SERVER__INSECURE_NO_KEYS", "true").set("TOLLWAY_SERVER__LISTEN", "0.0.0.0:0");
    assert!(setup.fails(&["config", "check"], "").contains("insecure_no_keys"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_the_seals_and_the_server_starts_with_the_new_one_alone() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(serde_json::json!({})).await);
    let new = "YW5vdGhlci1tYXN0ZXIta2V5LW9mLTMyLWJ5dGVzISE=";
    setup.clone().set("TOLLWAY_MASTER_KEY", &format!("{new} {MASTER_KEY}")).ok(&["keyring", "rotate"]);
    let setup = setup.set("TOLLWAY_MASTER_KEY", new);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    assert_eq!(gateway.status(&key).await, 200, "{}", gateway.log());
}

#[test]
fn the_version_is_told() {
    let told = Setup::bare().ok(&["--version"]);
    assert!(told.contains(env!("CARGO_PKG_VERSION")), "{told}");
}
