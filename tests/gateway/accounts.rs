//! Accounts from the command line: every way in, and what goes wrong on it.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Program, Setup, Sim, eventually, eventually_within};

/// How soon a running server must see a change.
const A_SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_json_is_imported_from_a_file_and_from_standard_input() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let (first, second) = (sim.account(json!({})).await, sim.account(json!({})).await);
    let path = setup.path("auth.json");
    std::fs::write(&path, first.auth_json.to_string()).expect("a file");
    setup.ok(&["account", "import", &path.display().to_string()]);
    setup.import(&second);
    let listed = setup.ok(&["account", "list"]);
    assert!(listed.contains(&first.email) && listed.contains(&second.email), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_import_replaces_the_credentials_and_says_so() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let account = sim.account(json!({})).await;
    setup.import(&account);
    let told = setup.import(&account).to_lowercase();
    assert!(told.contains("replaced"), "{told}");
    assert_eq!(setup.ok(&["account", "list"]).matches(&account.email).count(), 1);
}

#[test]
fn malformed_files_are_refused_each_with_its_reason() {
    let setup = Setup::bare();
    let no_refresh =
        json!({"tokens": {"id_token": "a.b.c", "access_token": "a.b.c", "refresh_token": "", "account_id": null}});
    let api_key = json!({"OPENAI_API_KEY": "sk-something", "tokens": null});
    for (input, reason) in [("{", "json"), ("[]", ""), (&no_refresh.to_string(), ""), (&api_key.to_string(), "")] {
        let told = setup.fails(&["account", "import", "-"], input);
        assert!(told.to_lowercase().contains(reason) && !told.contains("panicked"), "{input}: {told}");
        assert!(!told.contains("sk-something"), "a secret is printed: {told}");
    }
    let told = setup.fails(&["account", "import", "no-such-file.json"], "");
    assert!(told.contains("no-such-file.json"), "{told}");
}

/// Runs `account login`, opens the address it prints as a browser does, and pastes the address the
/// browser was sent to. Gives the exit code and what was printed.
async fn browser_login(setup: &Setup) -> (Option<i32>, String) {
    let (mut program, mut keyboard) =
        Program::start_typing(setup.command(&["account", "login"]), &setup.path("login.log"));
    let url = eventually("the address to open", async || {
        program.output().split_whitespace().find(|word| word.contains("/oauth/authorize?")).map(str::to_owned)
    })
    .await;
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let answer = browser.get(&url).send().await.expect("the issuer answers");
    let pasted = answer.headers()["location"].to_str().expect("an address").to_owned();
    writeln!(keyboard, "{pasted}").expect("somebody reads");
    let status = program.end(Duration::from_secs(30)).await;
    (status.code(), program.output())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_takes_the_pasted_redirect_address() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let account = sim.account(json!({})).await;
    sim.post("login", json!({"account": account.id})).await;
    let (code, output) = browser_login(&setup).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(setup.ok(&["account", "list"]).contains(&account.email));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_with_another_state_is_refused() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    sim.post("login", json!({"wrong_state": true})).await;
    let (code, output) = browser_login(&setup).await;
    assert!(code != Some(0) && output.contains("state"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_login_says_so() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    sim.post("login", json!({"deny": true})).await;
    let (code, output) = browser_login(&setup).await;
    assert!(code != Some(0) && output.to_lowercase().contains("denied"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_code_says_so() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    sim.post("login", json!({"expired_code": true})).await;
    let (code, output) = browser_login(&setup).await;
    assert!(code != Some(0) && output.contains("code"), "{output}");
    assert_eq!(sim.requests("/oauth/token").await.len(), 1, "a code is tried once");
}

/// Runs `account login --device` and decides it as the user would.
async fn device_login(sim: &Sim, setup: &Setup, decision: &str, body: Value) -> (Option<i32>, String) {
    let log = setup.path("device.log");
    let mut program = Program::start(setup.command(&["account", "login", "--device"]), &log);
    eventually("a user code", async || {
        let devices = sim.get("device").await;
        let code = devices["devices"][0]["user_code"].as_str()?.to_owned();
        program.output().contains(&code).then_some(())
    })
    .await;
    sim.post(&format!("device/{decision}"), body).await;
    let status = program.end(Duration::from_secs(30)).await;
    (status.code(), program.output())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_login_is_approved_elsewhere() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let account = sim.account(json!({})).await;
    let (code, output) = device_login(&sim, &setup, "approve", json!({"account": account.id})).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(setup.ok(&["account", "list"]).contains(&account.email));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_login_that_is_denied_or_too_late_fails() {
    let sim = Sim::start().await;
    for decision in ["deny", "expire"] {
        let setup = Setup::new(&sim);
        let (code, output) = device_login(&sim, &setup, decision, json!({})).await;
        assert!(code.is_some_and(|code| code != 0), "{decision}: {output}");
        sim.post("reset", json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_sees_every_change_within_a_second() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    assert_eq!(gateway.status(&key).await, 503, "no account yet");
    let within_a_second = async |what: &str, wanted: u16| {
        eventually_within(A_SECOND, what, async || (gateway.status(&key).await == wanted).then_some(())).await;
    };
    setup.import(&account);
    within_a_second("service after an import", 200).await;
    setup.ok(&["account", "pause", &account.email]);
    within_a_second("no service after a pause", 503).await;
    setup.ok(&["account", "resume", &account.email]);
    within_a_second("service after a resume", 200).await;
    setup.ok(&["account", "remove", &account.email, "--yes"]);
    within_a_second("no service after a removal", 503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_shown_with_its_state_and_its_plan() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let account = sim.account(json!({"plan": "team"})).await;
    setup.import(&account);
    let shown = setup.ok(&["account", "show", &account.email]);
    assert!(shown.contains("team") && shown.contains("active") && shown.contains(&account.email), "{shown}");
    let told = setup.fails(&["account", "show", "nobody@example.com"], "");
    assert!(told.contains("nobody@example.com"), "{told}");
}
