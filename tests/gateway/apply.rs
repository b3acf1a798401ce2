//! `tollway apply`: a gateway becomes as a file says, here and from afar, and stays so.

use crate::support::{Gateway, Setup, Sim, eventually};
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BOOTSTRAP: &str = "an-admin-key-that-is-long-enough";

/// A key that its holder has, and its hash.
fn key(setup: &Setup) -> (String, String) {
    let secret = setup.ok(&["key", "generate"]).trim().to_owned();
    let hash = setup.ok_with(&["key", "hash"], &secret).trim().to_owned();
    (secret, hash)
}

fn write(setup: &Setup, name: &str, text: &str) -> String {
    let path = setup.path(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

fn tollway(setup: &Setup, arguments: &[&str]) -> Output {
    crate::support::run(setup.command(arguments), "")
}

fn count(setup: &Setup, path: &str) -> usize {
    let list: Value = serde_json::from_str(&setup.ok(&["api", "GET", path])).expect("JSON");
    list["data"].as_array().expect("a list").len()
}

async fn asked(gateway: &Gateway, key: &str, model: &str) -> (StatusCode, Value) {
    let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(key);
    let answer = request.json(&json!({"model": model, "input": "hello"})).send().await.expect("an answer");
    (answer.status(), answer.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_installation_becomes_as_the_file_says_and_stays_so() {
    let sim = Sim::start().await;
    let account = sim.account(json!({"email": "one@example.com"})).await;
    let setup = Setup::new(&sim);
    setup.import(&account);
    let (secret, hash) = key(&setup);
    let text = format!(
        r#"
        accounts: {{one@example.com: {{tags: [night], weight: 2}}, two@example.com: {{paused: true}}}}
        pools: {{night: {{tags: [night], strategy: round_robin}}}}
        teams: {{core: {{limits: {{budgets: [5M/day], pools: [night]}}}}}}
        users: {{ada: {{team: core, email: ada@example.com}}}}
        keys: {{laptop: {{hash: "{hash}", user: ada, limits: {{requests_per_minute: 60}}}}}}
        aliases: {{swift: "gpt-5.5:low"}}
        "#
    );
    let file = write(&setup, "tollway.yaml", &text);
    let plan = tollway(&setup, &["apply", "-f", &file, "--dry-run"]);
    let shown = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert_eq!(plan.status.code(), Some(2), "something would change: {plan:?}");
    for line in ["~ account one@example.com", "    weight: 1.0 -> 2.0", "? account two@example.com", "+ team core"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(shown.ends_with("5 to make, 1 to change, 0 to remove, 0 as declared\n"), "{shown}");
    assert_eq!(count(&setup, "/teams"), 0, "a plan changes nothing");
    let refused = setup.fails(&["apply", "-f", &file], "");
    assert!(refused.contains("--yes"), "nobody can be asked: {refused}");
    let refused = setup.fails(&["apply", "-f", &file, "--yes", "--strict"], "");
    assert!(refused.contains("--strict") && count(&setup, "/teams") == 0, "{refused}");

    let done = setup.ok(&["apply", "-f", &file, "--yes"]);
    assert!(done.ends_with("applied\n"), "{done}");
    let gateway = setup.serve().await;
    let (status, answer) = asked(&gateway, &secret, "swift").await;
    assert_eq!((status, &answer["model"]), (StatusCode::OK, &json!("gpt-5.5")), "{answer}");

    let again = tollway(&setup, &["apply", "-f", &file, "--dry-run", "--prune", "--format", "json"]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    let again: Value = serde_json::from_slice(&again.stdout).expect("JSON");
    assert_eq!(again["summary"], json!({"create": 0, "change": 0, "remove": 0, "keep": 6, "missing": 1}));
    let log = setup.ok(&["api", "GET", "/audit"]);
    for action in ["account.update", "pool.create", "team.create", "user.create", "key.create", "alias.create"] {
        assert!(log.contains(action), "{action} is noted");
    }
    assert!(!log.contains(&hash), "not even the hash is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_is_changed_from_afar_within_a_second_and_pruned() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim);
    setup.import(&account);
    let gateway = setup.clone().set("TOLLWAY_ADMIN__KEY", BOOTSTRAP).serve().await;
    // A machine of its own, which shares nothing with the gateway.
    let afar = Setup::bare().set("TOLLWAY_ADMIN__KEY", BOOTSTRAP);
    let (secret, hash) = key(&afar);
    let apply = |name: &str, text: &str, more: &[&str]| {
        let file = write(&afar, name, text);
        let mut arguments = vec!["apply", "-f", &file, "--url", &gateway.admin, "--yes"];
        arguments.extend(more);
        afar.ok(&arguments)
    };
    apply(
        "a.toml",
        &format!("[teams.core]\n[keys.ci]\nhash = \"{hash}\"\nteam = \"core\"\n[aliases]\nswift = \"gpt-5.5\"\n"),
        &[],
    );
    eventually("the key and the alias are in force", async || {
        (asked(&gateway, &secret, "swift").await.0 == StatusCode::OK).then_some(())
    })
    .await;

    let text = format!("[teams.core.limits]\nmodels = [\"gpt-6*\"]\n[keys.renamed]\nhash = \"{hash}\"\n[aliases]\n");
    let shown = apply("b.toml", &text, &["--prune"]);
    for line in ["limits.models: none -> gpt-6*", "name: ci -> renamed", "- alias swift"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    eventually("the limit is in force", async || {
        (asked(&gateway, &secret, "gpt-5.5").await.0 == StatusCode::FORBIDDEN).then_some(())
    })
    .await;
    assert!(apply("b.toml", &text, &["--prune"]).contains("nothing to do"));

    let shown = apply("c.toml", "[teams.core]\n[keys]\n", &["--prune"]);
    assert!(shown.contains("- key renamed is revoked, for good"), "{shown}");
    eventually("the key is refused", async || {
        (asked(&gateway, &secret, "gpt-6-luna").await.0 == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    assert_eq!(count(&setup, "/teams"), 1, "a declared team is not pruned");
    assert_eq!(count(&setup, "/accounts"), 1, "accounts never are");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_the_plan_and_changes_nothing() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_ADMIN__KEY", BOOTSTRAP);
    let gateway = setup.serve().await;
    let viewer = setup.ok(&["admin-key", "create", "--name", "ci", "--role", "viewer"]);
    let afar = Setup::bare().set("TOLLWAY_ADMIN__KEY", viewer.trim());
    let file = write(&afar, "t.json", r#"{"teams": {"core": {}}}"#);
    let plan = tollway(&afar, &["apply", "-f", &file, "--url", &gateway.admin, "--dry-run"]);
    assert_eq!(plan.status.code(), Some(2), "{plan:?}");
    let refused = afar.fails(&["apply", "-f", &file, "--url", &gateway.admin, "--yes"], "");
    assert!(refused.contains("team core") && refused.contains("403") && refused.contains("0 of 1"), "{refused}");
    assert_eq!(count(&setup, "/teams"), 0);
}

/// Passes requests on; before the first change somebody else changes the team.
struct Meddler {
    gateway: String,
    http: reqwest::Client,
    has_meddled: AtomicBool,
}

async fn pass(State(meddler): State<Arc<Meddler>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.method == Method::PATCH && !meddler.has_meddled.swap(true, Ordering::Relaxed) {
        let url = format!("{}/admin/v1/teams/core", meddler.gateway);
        let change = meddler.http.patch(url).bearer_auth(BOOTSTRAP).json(&json!({"suspended": true}));
        assert_eq!(change.send().await.expect("an answer").status(), StatusCode::OK);
    }
    let url = format!("{}{}", meddler.gateway, head.uri);
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    let mut request = meddler.http.request(head.method, url).body(body);
    for name in ["authorization", "content-type", "if-match", "idempotency-key"] {
        if let Some(value) = head.headers.get(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.expect("an answer");
    (answer.status(), answer.bytes().await.expect("a body")).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_changed_meanwhile_is_not_overwritten() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_ADMIN__KEY", BOOTSTRAP);
    let gateway = setup.serve().await;
    let first = write(&setup, "first.json", r#"{"teams": {"core": {}}}"#);
    setup.ok(&["apply", "-f", &first, "--yes"]);

    let meddler = Meddler { gateway: gateway.admin.clone(), http: gateway.http.clone(), has_meddled: false.into() };
    let router = Router::new().fallback(pass).with_state(Arc::new(meddler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

    let text = r#"{"pools": {"p": {}}, "teams": {"core": {"limits": {"max_effort": "low"}}}}"#;
    let file = write(&setup, "second.json", text);
    let (afar, shown) = (setup.clone(), file.clone());
    let fails = move || afar.fails(&["apply", "-f", &shown, "--url", &url, "--yes"], "");
    let told = tokio::task::spawn_blocking(fails).await.expect("it ends");
    for part in ["stopped at team core, with 1 of 2 changes made", "somebody else changed it since the plan"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let team: Value = serde_json::from_str(&setup.ok(&["api", "GET", "/teams/core"])).expect("JSON");
    assert_eq!((&team["suspended"], &team["limits"]), (&json!(true), &json!({})), "as somebody else left it");
    setup.ok(&["apply", "-f", &file, "--yes"]);
    let team: Value = serde_json::from_str(&setup.ok(&["api", "GET", "/teams/core"])).expect("JSON");
    assert_eq!(team["suspended"], true, "what the file does not name is left alone");
    assert_eq!(team["limits"], json!({"max_effort": "low"}));
    server.abort();
}

#[test]
fn every_fault_of_a_file_is_told_at_once_and_nothing_is_changed() {
    let setup = Setup::bare();
    let bad = "[teams.core]\nlimits = { budgets = [\"5M/year\"], requests = 5 }\n[users.ada]\nteam = 3\n";
    let file = write(&setup, "bad.toml", bad);
    let told = setup.fails(&["apply", "-f", &file, "--yes"], "");
    for part in [
        "teams.core.limits.budgets[0]: expected",
        "teams.core.limits.requests: there is no such field",
        "users.ada.team:",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let file = write(&setup, "named.yaml", "users:\n  ada: {team: nobody}\nkeys:\n  k: {accounts: [no one]}\n");
    let told = setup.fails(&["apply", "-f", &file, "--yes"], "");
    for part in ["users.ada.team: there is no team \"nobody\"", "keys.k.accounts[0]: there is no account \"no one\""] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(count(&setup, "/users"), 0);
    let told = setup.fails(&["apply", "-f", "nowhere.toml"], "");
    assert!(told.contains("nowhere.toml cannot be read"), "{told}");
    let file = write(&setup, "odd.toml", "[teams\n");
    assert!(setup.fails(&["apply", "-f", &file], "").contains("it is no TOML"));
}

/// The first block of docs/apply.md in this language.
fn example(language: &str) -> String {
    let page = include_str!("../../docs/apply.md");
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("an example");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_documentation_is_planned_and_applied() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({"email": "one@example.com"})).await);
    let file = write(&setup, "example.yaml", &example("yaml"));
    let plan = tollway(&setup, &["apply", "-f", &file, "--plan"]);
    assert_eq!(plan.status.code(), Some(2), "{plan:?}");
    setup.ok(&["apply", "-f", &file, "--yes", "--strict"]);
    assert!(setup.ok(&["apply", "-f", &file, "--yes", "--prune"]).contains("nothing to do"));
    let shown = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert_eq!(shown.trim(), example("text").trim(), "the page shows the plan");
}
