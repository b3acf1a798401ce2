//! The programs that are measured: nginx as a plain proxy, and the gateway, each on the first core.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

/// What the tables call a program that has nothing but the libraries.
pub(crate) const BARE: &str = "bare hyper";

/// Stands between client and backend; ended with the value.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    child: Child,
    /// From the start to readiness.
    pub(crate) ready_after: Duration,
    /// Where it tells how it is; nginx does not.
    operations: Option<SocketAddr>,
    _directory: Arc<TempDir>,
}

/// What gateways are started from.
pub(crate) struct Installation {
    directory: Arc<TempDir>,
    backend: SocketAddr,
    /// Where it is not a SQLite file in the directory.
    database: Option<String>,
    /// Settings of its own, as variables.
    settings: Vec<(&'static str, String)>,
}

impl Installation {
    pub(crate) fn new(backend: SocketAddr, database: Option<String>) -> Result<Self> {
        Ok(Self { directory: Arc::new(tempfile::tempdir()?), backend, database, settings: Vec::new() })
    }

    /// With a setting, which goes before what all installations have.
    pub(crate) fn set(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((variable, value.into()));
        self
    }

    /// The address of the SQLite file in the directory.
    pub(crate) fn sqlite(&self) -> String {
        format!("sqlite://{}", self.directory.path().join("data/tollway.db").display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Another build, to compare with.
        let binary = std::env::var("SPEED_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tollway").to_owned());
        let (directory, backend) = (self.directory.path(), self.backend);
        let mut command = pinned(&binary);
        command
            .args(arguments)
            .current_dir(directory)
            .env("TOLLWAY_DATA_DIR", directory.join("data"))
            .env("TOLLWAY_BACKEND__BASE_URL", format!("http://{backend}/backend-api"))
            .env("TOLLWAY_OAUTH__ISSUER", format!("http://{backend}"))
            .env("TOLLWAY_MASTER_KEY", "dG9sbHdheS10ZXN0cy1tYXN0ZXIta2V5LTMyLWJ5dGU=")
            .env("TOLLWAY_LOG__FORMAT", "json")
            .envs(self.database.iter().map(|url| ("TOLLWAY_DATABASE_URL", url)))
            .envs(self.settings.iter().map(|(variable, value)| (variable, value)));
        command
    }

    /// Adds accounts and keys; gives the last key.
    pub(crate) fn fill(&self, accounts: usize, keys: usize) -> Result<String> {
        for number in 0..accounts {
            let file = self.directory.path().join("auth.json");
            std::fs::write(&file, auth_json(number))?;
            let done = self.command(&["account", "import"]).arg(&file).output()?;
            if !done.status.success() {
                bail!("account import: {}", String::from_utf8_lossy(&done.stderr));
            }
        }
        let mut key = String::new();
        for number in 0..keys {
            let name = format!("bench-{number}");
            let done = self.command(&["key", "create", "--name", &name]).output()?;
            let printed = String::from_utf8_lossy(&done.stdout).into_owned();
            let word = printed.split_whitespace().find(|word| word.starts_with("tw-"));
            word.with_context(|| format!("no key in {printed:?}"))?.clone_into(&mut key);
        }
        Ok(key)
    }

    /// Adds keys that nobody has, by their hashes.
    pub(crate) fn declare_keys(&self, count: usize) -> Result<()> {
        let keys: serde_json::Map<_, _> = (0..count)
            .map(|number| (format!("declared-{number}"), serde_json::json!({"hash": format!("sha256:{number:064x}")})))
            .collect();
        let file = self.directory.path().join("keys.json");
        std::fs::write(&file, serde_json::json!({"keys": keys}).to_string())?;
        let done = self.command(&["apply", "--yes", "-f"]).arg(&file).output()?;
        if !done.status.success() {
            bail!("apply: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }

    /// Starts a gateway and waits until it is ready.
    pub(crate) fn serve(&self) -> Result<Contender> {
        let [address, ops, admin] = [free()?, free()?, free()?];
        let log = std::fs::File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let began = Instant::now();
        let mut child = self
            .command(&["serve"])
            .env("TOLLWAY_SERVER__LISTEN", address.to_string())
            .env("TOLLWAY_SERVER__OPS_LISTEN", ops.to_string())
            .env("TOLLWAY_ADMIN__LISTEN", admin.to_string())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let ready_after = await_ready(ops, &mut child, began)?;
        let directory = Arc::clone(&self.directory);
        let (key, operations) = (String::new(), Some(ops));
        Ok(Contender { name: "Tollway", address, key, child, ready_after, operations, _directory: directory })
    }

    /// Starts one once without its being measured, and then again, as on an existing database.
    pub(crate) fn serve_again(&self, key: String) -> Result<Contender> {
        let mut first = self.serve()?;
        terminate(&mut first.child)?;
        let mut gateway = self.serve()?;
        gateway.key = key;
        Ok(gateway)
    }
}

/// A command on the first core.
fn pinned(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}

pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Contender {
    /// nginx with buffering off: it copies bytes.
    pub(crate) fn nginx(backend: SocketAddr) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let address = free()?;
        let root = directory.path();
        let at = root.display();
        let configuration = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log warn;\n\
             events {{ worker_connections 40000; }}\n\
             http {{\n access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 1000000; tcp_nodelay on;\n\
             upstream backend {{ server {backend}; keepalive 512; keepalive_requests 1000000; }}\n\
             server {{ listen {address};\n  location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s; }}\n }}\n}}\n"
        );
        let file = root.join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].into_iter().find(|path| Path::new(path).exists());
        let program = program.context("nginx is missing: apt-get install nginx-light")?;
        let began = Instant::now();
        let child = pinned(program)
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut contender = Self {
            name: "nginx",
            address,
            key: "none".into(),
            child,
            ready_after: Duration::ZERO,
            operations: None,
            _directory: Arc::new(directory),
        };
        contender.await_port(address, began)?;
        Ok(contender)
    }

    /// The program that has nothing but the libraries; see [`crate::bare`].
    pub(crate) fn bare(backend: SocketAddr) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let program = std::env::current_exe()?;
        let began = Instant::now();
        let mut child = pinned(program.to_str().context("a path of the kit that is no text")?)
            .arg(format!("--bare={backend}"))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        Ok(Self {
            name: BARE,
            address: line.trim().parse().with_context(|| format!("the bare program said {line:?}"))?,
            key: "none".into(),
            child,
            ready_after: began.elapsed(),
            operations: None,
            _directory: Arc::new(directory),
        })
    }

    /// The gateway as it is by default, with `accounts` accounts and `keys` keys.
    pub(crate) fn tollway(backend: SocketAddr, accounts: usize, keys: usize) -> Result<Self> {
        let installation = Installation::new(backend, None)?;
        let key = installation.fill(accounts, keys)?;
        installation.serve_again(key)
    }

    fn await_port(&mut self, address: SocketAddr, began: Instant) -> Result<()> {
        while TcpStream::connect(address).is_err() {
            if self.child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(10) {
                bail!("{} did not start", self.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.ready_after = began.elapsed();
        Ok(())
    }

    /// CPU time of the process so far, nanoseconds.
    pub(crate) fn cpu(&self) -> Result<u64> {
        let mut all = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            all += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).context("schedstat")?;
        }
        Ok(all)
    }

    /// How often something has needed a connection to the database.
    pub(crate) fn database_asked(&self) -> Result<u64> {
        let metrics = get(self.operations.context("nginx has no database")?, "/metrics")?;
        let name = "tollway_database_acquire_seconds_count";
        let counts = metrics.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
        counts.map(|count| count.parse::<u64>().context(name)).sum()
    }

    /// Resident memory, KiB.
    pub(crate) fn resident(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).context("VmRSS")
    }
}

/// How long a program that is told to end may take: one that is built to tell what it did writes it then.
const TO_END: Duration = Duration::from_secs(10);

impl Drop for Contender {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        }
        let began = Instant::now();
        while began.elapsed() < TO_END && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn await_ready(ops: SocketAddr, child: &mut Child, began: Instant) -> Result<Duration> {
    loop {
        let answer = get(ops, "/readyz").unwrap_or_default();
        if answer.starts_with("HTTP/1.1 200") {
            return Ok(began.elapsed());
        }
        if child.try_wait()?.is_some() || began.elapsed() > Duration::from_mins(2) {
            bail!("the gateway did not become ready: {answer}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An answer with its head.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn terminate(child: &mut Child) -> Result<()> {
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
    child.wait()?;
    Ok(())
}

/// A login that is valid for long; nobody checks its signature.
fn auth_json(number: usize) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(
        r#"{{"email":"bench{number}@example.com","exp":4000000000,"iat":1790000000,"https://api.openai.com/auth":{{"chatgpt_account_id":"acct-{number}","chatgpt_user_id":"user-{number}","chatgpt_plan_type":"pro"}}}}"#
    );
    let token = format!("{}.{}.{}", part(r#"{"alg":"none"}"#), part(&claims), part("none"));
    format!(
        r#"{{"auth_mode":"chatgpt","OPENAI_API_KEY":null,"tokens":{{"id_token":"{token}","access_token":"{token}","refresh_token":"rt-{number}","account_id":"acct-{number}"}},"last_refresh":"2026-11-20T00:00:00Z"}}"#
    )
}
