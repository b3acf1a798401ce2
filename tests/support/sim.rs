//! The simulated backend (docs/simulator.md), and its control API as methods.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Program, eventually};

/// A running `codex-sim`; gone with the value.
pub(crate) struct Sim {
    _program: Program,
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    http: reqwest::Client,
    /// Holds its output.
    _directory: TempDir,
}

/// An account of the simulator's, as it was made.
#[derive(Debug, Clone)]
pub(crate) struct SimAccount {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    pub(crate) id_token: String,
    /// What a Codex CLI keeps in `auth.json`.
    pub(crate) auth_json: Value,
}

impl Sim {
    /// A simulator with its defaults.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A simulator with these arguments.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let output: PathBuf = directory.path().join("codex-sim.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_codex-sim"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let program = Program::start(command, &output);
        let url = eventually("the simulator's address", async || {
            let first = program.output().lines().next()?.to_owned();
            first.strip_prefix("codex-sim listening on ").map(str::to_owned)
        });
        let url = url.await;
        Self { _program: program, url, http: reqwest::Client::new(), _directory: directory }
    }

    /// `GET` of the control API.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.call(self.http.get(format!("{}/sim/{path}", self.url))).await
    }

    /// `POST` to the control API.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.call(self.http.post(format!("{}/sim/{path}", self.url)).json(&body)).await
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.send().await.expect("the simulator answers");
        let status = answer.status();
        let body: Value = answer.json().await.expect("the simulator speaks JSON");
        assert!(status.is_success(), "the simulator refused: {status} {body}");
        body
    }

    /// Makes an account; `traits` as in docs/simulator.md.
    pub(crate) async fn account(&self, traits: Value) -> SimAccount {
        let made = self.post("accounts", traits).await;
        let text = |key: &str| made[key].as_str().unwrap_or_else(|| panic!("no {key} in {made}")).to_owned();
        SimAccount {
            id: text("account_id"),
            email: text("email"),
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
            id_token: text("id_token"),
            auth_json: made["auth_json"].clone(),
        }
    }

    /// An account whose access token has run out.
    pub(crate) async fn expired_account(&self) -> SimAccount {
        self.account(json!({"expired": true})).await
    }

    /// Orders a fault.
    pub(crate) async fn fault(&self, fault: Value) {
        self.post("faults", fault).await;
    }

    /// Lets the requests held at `place` go, and ends the hold.
    pub(crate) async fn release(&self, place: &str) {
        self.post("release", json!({"where": place})).await;
    }

    /// Waits until `count` requests are held at `place`.
    pub(crate) async fn held(&self, place: &str, count: u64) {
        let what = format!("{count} requests held at {place}");
        eventually(&what, async || (self.get("stats").await["waiting"][place].as_u64() >= Some(count)).then_some(()))
            .await;
    }

    /// What was counted on one account.
    pub(crate) async fn counters(&self, account: &SimAccount) -> Value {
        self.get(&format!("accounts/{}", account.id)).await["counters"].clone()
    }

    /// The refreshes of one account that worked.
    pub(crate) async fn refreshes(&self, account: &SimAccount) -> u64 {
        self.counters(account).await["refreshes"]["ok"].as_u64().expect("a count")
    }

    /// `live`, `used`, `revoked`, `expired` or `unknown`.
    pub(crate) async fn standing(&self, refresh_token: &str) -> String {
        let known = self.get(&format!("refresh_tokens/{refresh_token}")).await;
        known["state"].as_str().expect("a state").to_owned()
    }

    /// The refresh tokens of one account that still work.
    pub(crate) async fn live_refresh_tokens(&self, account: &SimAccount) -> Vec<String> {
        let portrait = self.get(&format!("accounts/{}", account.id)).await;
        let live = portrait["refresh_tokens"]["live"].as_array().cloned().unwrap_or_default();
        live.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The captured requests to `path`, oldest first.
    pub(crate) async fn requests(&self, path: &str) -> Vec<Value> {
        let all = self.get("requests").await["requests"].as_array().cloned().unwrap_or_default();
        let there = |request: &Value| request["path"].as_str().and_then(|p| p.split('?').next()) == Some(path);
        all.into_iter().filter(there).collect()
    }
}
