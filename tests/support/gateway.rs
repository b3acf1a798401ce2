//! The gateway: `tollway serve` with a database of its own in front of a simulator, and the
//! `tollway` command line beside it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::process::{clean, run};
use super::{Dialect, Event, Program, Sim, SimAccount, events, eventually};

/// Thirty-two bytes that nobody else uses.
pub(crate) const MASTER_KEY: &str = "dG9sbHdheS10ZXN0cy1tYXN0ZXIta2V5LTMyLWJ5dGU=";

/// An installation: a data directory and settings. Commands run against it whether or not a server
/// does.
#[derive(Clone)]
pub(crate) struct Setup {
    directory: Arc<TempDir>,
    variables: Vec<(String, String)>,
}

/// A running `tollway serve`; killed with the value.
pub(crate) struct Gateway {
    /// Its installation.
    pub(crate) setup: Setup,
    /// Its process.
    pub(crate) program: Program,
    /// Where the API is.
    pub(crate) url: String,
    /// Where `/readyz` and `/metrics` are.
    pub(crate) ops: String,
    /// Where the admin API is.
    pub(crate) admin: String,
    /// For requests of the test's own.
    pub(crate) http: reqwest::Client,
}

impl Setup {
    /// An empty installation whose backend and issuer are `sim`.
    pub(crate) fn new(sim: &Sim) -> Self {
        Self::bare()
            .set("TOLLWAY_BACKEND__BASE_URL", &format!("{}/backend-api", sim.url))
            .set("TOLLWAY_OAUTH__ISSUER", &sim.url)
            .set("TOLLWAY_MASTER_KEY", MASTER_KEY)
            .set("TOLLWAY_LOG__FORMAT", "json")
    }

    /// A directory and nothing else.
    pub(crate) fn bare() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data").display().to_string();
        Self { directory: Arc::new(directory), variables: Vec::new() }.set("TOLLWAY_DATA_DIR", &data)
    }

    /// With one more variable.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file of the installation.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `tollway` with these arguments, ready to be run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = clean(env!("CARGO_BIN_EXE_tollway"));
        command.current_dir(self.directory.path()).envs(self.variables.iter().cloned()).args(arguments);
        command
    }

    /// Runs `tollway` to its end with something on its standard input.
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        run(self.command(arguments), input)
    }

    /// Runs `tollway`, which must succeed; gives what it printed on standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    /// The same, with something on its standard input.
    pub(crate) fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(output.status.success(), "tollway {arguments:?}: {output:?}");
        text(&output.stdout)
    }

    /// Runs `tollway`, which must fail; gives what it printed on standard error.
    pub(crate) fn fails(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(!output.status.success(), "tollway {arguments:?} should have failed: {output:?}");
        text(&output.stderr)
    }

    /// Adds an account from its `auth.json`.
    pub(crate) fn import(&self, account: &SimAccount) -> String {
        self.ok_with(&["account", "import", "-"], &account.auth_json.to_string())
    }

    /// Makes a gateway key.
    pub(crate) fn key(&self, name: &str) -> String {
        self.key_with(&["--name", name])
    }

    /// Makes a gateway key with these arguments.
    pub(crate) fn key_with(&self, arguments: &[&str]) -> String {
        let mut all = vec!["key", "create"];
        all.extend(arguments);
        key_in(&self.ok(&all))
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn serve(&self) -> Gateway {
        Gateway::start(self.clone()).await
    }

    /// Where the database is.
    pub(crate) fn database(&self) -> PathBuf {
        self.path("data").join("tollway.db")
    }

    /// What the server has written on its streams.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.path("serve.log")
    }

    /// The temporary directory.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }
}

impl Gateway {
    /// A gateway with one account and one key.
    pub(crate) async fn with_account(sim: &Sim, account: &SimAccount) -> (Self, String) {
        Self::with_accounts(sim, std::slice::from_ref(account)).await
    }

    /// A gateway with these accounts and one key.
    pub(crate) async fn with_accounts(sim: &Sim, accounts: &[SimAccount]) -> (Self, String) {
        let setup = Setup::new(sim);
        for account in accounts {
            setup.import(account);
        }
        let key = setup.key("ada");
        (setup.serve().await, key)
    }

    async fn start(setup: Setup) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        // Between the choice of a port and its use somebody else may take it.
        for _ in 0..5 {
            let [api, ops, admin] = free_addresses();
            let mut command = setup.command(&["serve"]);
            command.env("TOLLWAY_SERVER__LISTEN", &api).env("TOLLWAY_SERVER__OPS_LISTEN", &ops);
            command.env("TOLLWAY_ADMIN__LISTEN", &admin);
            let mut program = Program::start(command, &setup.log_path());
            let ready = format!("http://{ops}/readyz");
            let started = eventually("a ready gateway", async || {
                if program.ended().is_some() {
                    return Some(false);
                }
                let answer = http.get(&ready).send().await.ok()?;
                answer.status().is_success().then_some(true)
            });
            if started.await {
                let [url, ops, admin] = [api, ops, admin].map(|address| format!("http://{address}"));
                return Self { setup, program, url, ops, admin, http };
            }
            let log = setup.log();
            assert!(log.contains("in use"), "the gateway ended at its start:\n{log}");
        }
        panic!("no free port in five attempts");
    }

    /// Sends a request in one of the dialects.
    pub(crate) async fn send(&self, key: &str, dialect: Dialect, body: &Value) -> Response {
        self.post(key, dialect.path(), body).await
    }

    /// Sends a JSON body to a path.
    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> Response {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(key).json(body);
        request.send().await.expect("the gateway answers")
    }

    /// Gets a path of the API.
    pub(crate) async fn get(&self, key: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.http.get(format!("{}{path}", self.url)).bearer_auth(key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("the gateway answers")
    }

    /// A whole answer, which must be good.
    pub(crate) async fn whole(&self, key: &str, dialect: Dialect, body: &Value) -> Value {
        let (status, answer) = json_of(self.send(key, dialect, body).await).await;
        assert_eq!(status, StatusCode::OK, "{dialect:?}: {answer}\n{}", self.setup.log());
        answer
    }

    /// A streamed answer to its end; the status must be good.
    pub(crate) async fn streamed(&self, key: &str, dialect: Dialect, body: &Value) -> Vec<Event> {
        let answer = self.send(key, dialect, body).await;
        let status = answer.status();
        let kind = answer.headers().get("content-type").cloned();
        let body = answer.text().await.expect("the stream can be read");
        assert_eq!(status, StatusCode::OK, "{dialect:?}: {body}\n{}", self.setup.log());
        assert!(
            kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")),
            "{dialect:?} streams events"
        );
        events(&body)
    }

    /// The status of a small request: whether a key or an account works.
    pub(crate) async fn status(&self, key: &str) -> u16 {
        self.send(key, Dialect::Responses, &Dialect::Responses.ask("ping")).await.status().as_u16()
    }

    /// A page of the operations listener.
    pub(crate) async fn ops_page(&self, path: &str) -> (StatusCode, String) {
        let answer = self.http.get(format!("{}{path}", self.ops)).send().await.expect("operations answer");
        (answer.status(), answer.text().await.expect("a page"))
    }

    /// What the server has written on its streams.
    pub(crate) fn log(&self) -> String {
        self.setup.log()
    }

    /// Asks it to stop; see [`Gateway::ended`].
    pub(crate) fn terminate(&self) {
        self.program.terminate();
    }

    /// Waits for its end after [`Gateway::terminate`]; gives its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        self.program.end(Duration::from_secs(40)).await.code()
    }

    /// Stops it as an operator does; it must end well.
    pub(crate) async fn stop(mut self) -> Setup {
        self.terminate();
        let code = self.ended().await;
        assert_eq!(code, Some(0), "exit code after SIGTERM:\n{}", self.log());
        self.setup
    }

    /// Kills it without warning.
    pub(crate) fn kill(mut self) -> Setup {
        self.program.kill();
        self.setup
    }
}

/// Status and JSON body of an answer.
pub(crate) async fn json_of(answer: Response) -> (StatusCode, Value) {
    let status = answer.status();
    let body = answer.text().await.expect("a body");
    let json = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{status}: {error} in {body:?}"));
    (status, json)
}

/// The gateway key in a command's output.
pub(crate) fn key_in(output: &str) -> String {
    let words = output.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let mut keys = words.filter(|word| word.starts_with("tw-") && word.len() > 40);
    keys.next().unwrap_or_else(|| panic!("no key in {output:?}")).to_owned()
}

fn free_addresses<const N: usize>() -> [String; N] {
    // All at once, or the second could be the first again.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
