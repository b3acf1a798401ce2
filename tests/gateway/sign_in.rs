//! People sign in: a browser, a certified OpenID Connect provider, and the gateway between them.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Gateway, Program, Setup, Sim, Tools, eventually, run, skip};
use serde_json::{Value, json};

const BOOTSTRAP: &str = "an-admin-key-that-is-long-enough";

/// The provider and the browser that a script drives.
struct Parts {
    tools: Tools,
    node: PathBuf,
    chromium: PathBuf,
}

impl Parts {
    fn find() -> Option<Self> {
        let tools = Tools::new();
        let node = tools.node()?;
        for package in ["oidc-provider", "playwright-core"] {
            tools.find(&format!("node_modules/{package}"))?;
        }
        let chromium = tools.find("chromium")?;
        Some(Self { tools, node, chromium })
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(&self.node);
        command.env("TW_TEST_TOOLS", self.tools.directory()).arg("--import").arg(Tools::script("tools.mjs"));
        command.arg(Tools::script(name));
        command
    }

    /// A provider and its issuer.
    async fn provider(&self, setup: &Setup, claims_in_token: bool) -> (Program, String) {
        let mut command = self.script("oidc_provider.mjs");
        command.env("TW_CLAIMS_IN_TOKEN", if claims_in_token { "yes" } else { "no" });
        let provider = Program::start(command, &setup.path("provider.log"));
        let issuer = eventually("a provider", async || {
            let said = provider.output();
            said.lines().find_map(|line| line.strip_prefix("issuer ").map(str::to_owned))
        });
        let issuer = issuer.await;
        (provider, issuer)
    }
}

/// A gateway where people can sign in.
async fn gateway(setup: Setup, issuer: &str) -> Gateway {
    let setup = setup
        .set("TOLLWAY_ADMIN__KEY", BOOTSTRAP)
        .set("TOLLWAY_ADMIN__PUBLIC_URL", "http://{admin}")
        .set("TOLLWAY_OIDC__ISSUER", issuer)
        .set("TOLLWAY_OIDC__SCOPES", "openid profile groups")
        .set("TOLLWAY_OIDC__GROUPS", "staff=viewer,admins=owner,core-leads=operator@core,core-readers=viewer@core");
    let gateway = setup.serve().await;
    let team = gateway.http.post(format!("{}/admin/v1/teams", gateway.admin)).bearer_auth(BOOTSTRAP);
    let made = team.json(&json!({"name": "core"})).send().await.expect("an answer");
    assert_eq!(made.status(), 201);
    gateway
}

async fn signs_in(client: &[(&str, &str)], claims_in_token: bool) {
    let Some(parts) = Parts::find() else { return skip("oidc-provider, playwright-core or chromium") };
    let sim = Sim::start().await;
    let setup = client.iter().fold(Setup::new(&sim), |setup, (name, value)| setup.set(name, value));
    let (provider, issuer) = parts.provider(&setup, claims_in_token).await;
    let gateway = gateway(setup, &issuer).await;
    let mut command = parts.script("sign_in.mjs");
    command.env("TW_ADMIN", &gateway.admin).env("TW_ISSUER", &issuer).env("TW_CHROMIUM", &parts.chromium);
    let output = tokio::task::spawn_blocking(|| run(command, "")).await.expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let why = format!("{}\n{}\n{}", String::from_utf8_lossy(&output.stderr), provider.output(), gateway.log());
    assert!(output.status.success(), "{why}");
    assert!(said.ends_with("all checks passed\n"), "the script ended early");
    let log = gateway.log();
    assert!(log.contains("somebody signed in") && log.contains("a sign-in was refused"), "{log}");
    for secret in ["a+secret with/odd:letters", "csrf_token=", "code="] {
        assert!(!log.contains(secret), "{secret:?} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_with_a_browser_at_a_confidential_client_whose_groups_are_at_userinfo() {
    let client = [("TOLLWAY_OIDC__CLIENT_SECRET", "a+secret with/odd:letters")];
    signs_in(&client, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_with_a_browser_at_a_public_client_whose_groups_are_in_the_token() {
    signs_in(&[("TOLLWAY_OIDC__CLIENT_ID", "tollway-public")], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_nobody_can_sign_in_and_a_provider_that_is_away_is_said_to_be() {
    let sim = Sim::start().await;
    let plain = Setup::new(&sim).set("TOLLWAY_ADMIN__KEY", BOOTSTRAP).serve().await;
    let away = gateway(Setup::new(&sim), "http://127.0.0.1:9").await;
    for (gateway, path, expected) in [
        (&plain, "login", 404),
        (&plain, "callback?state=x&code=y", 404),
        (&away, "login", 502),
        (&away, "callback?state=x&code=y", 400),
    ] {
        let url = format!("{}/admin/v1/auth/{path}", gateway.admin);
        let answer = gateway.http.get(&url).send().await.expect("an answer");
        assert_eq!(answer.status(), expected, "{path}");
        let problem: Value = answer.json().await.expect("a problem");
        assert_eq!(problem["status"], expected, "{path}");
        let page = gateway.http.get(&url).header("accept", "text/html").send().await.expect("an answer");
        assert_eq!(page.status(), expected, "{path}");
        let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(page.text().await.expect("a page").starts_with("<!doctype html>"), "{path}");
    }
    // A cookie alone is nobody.
    let me = away.http.get(format!("{}/admin/v1/auth/session", away.admin)).header("cookie", "tollway_session=x");
    assert_eq!(me.send().await.expect("an answer").status(), 401);
}
