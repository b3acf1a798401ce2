//! People who sign in: a browser, a certified OpenID Connect provider, and what a gateway needs for it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::{Gateway, Program, Setup, Tools, eventually, run};

/// The admin key of gateways where people sign in.
pub(crate) const BOOTSTRAP: &str = "an-admin-key-that-is-long-enough";

/// With what a gateway needs to know of the provider; people call it by `public_url`.
pub(crate) fn where_people_sign_in(setup: Setup, issuer: &str, public_url: &str) -> Setup {
    setup
        .set("TOLLWAY_ADMIN__KEY", BOOTSTRAP)
        .set("TOLLWAY_ADMIN__PUBLIC_URL", public_url)
        .set("TOLLWAY_OIDC__ISSUER", issuer)
        .set("TOLLWAY_OIDC__SCOPES", "openid profile groups")
        .set("TOLLWAY_OIDC__GROUPS", "staff=viewer,admins=owner,core-leads=operator@core,core-readers=viewer@core")
}

impl Gateway {
    /// Makes a team with the bootstrap key.
    pub(crate) async fn make_team(&self, name: &str) {
        let team = self.http.post(format!("{}/admin/v1/teams", self.admin)).bearer_auth(BOOTSTRAP);
        let made = team.json(&json!({"name": name})).send().await.expect("an answer");
        assert_eq!(made.status(), 201);
    }
}

/// The provider and the browser that a script drives.
pub(crate) struct Parts {
    tools: Tools,
    node: PathBuf,
    chromium: PathBuf,
}

impl Parts {
    pub(crate) fn find() -> Option<Self> {
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
    pub(crate) async fn provider(&self, setup: &Setup, claims_in_token: bool) -> (Program, String) {
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

    /// Has people do in a browser all that they can do at `admin`, where this many servers answer.
    /// `why` is printed where something goes wrong.
    pub(crate) async fn sign_in(&self, admin: &str, issuer: &str, servers: usize, why: impl Fn() -> String) {
        let mut command = self.script("sign_in.mjs");
        command.env("TW_ADMIN", admin).env("TW_ISSUER", issuer).env("TW_CHROMIUM", &self.chromium);
        command.env("TW_SERVERS", servers.to_string());
        let output = tokio::task::spawn_blocking(|| run(command, "")).await.expect("the script runs");
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}");
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), why());
        assert!(said.ends_with("all checks passed\n"), "the script ended early");
    }
}
