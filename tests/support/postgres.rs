//! A PostgreSQL server of the test's own: a fresh cluster in a temporary directory, on a free port
//! of the loopback interface, gone with the value.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

/// A running server; stopped when dropped.
pub(crate) struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts a server; `None`, and a line that says so, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("skipped: no PostgreSQL in /usr/lib/postgresql/*/bin");
            return None;
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        if is_root() {
            // The server refuses to run as root, and must get at its files.
            let owned = Command::new("chown").arg("postgres").arg(directory.path()).status();
            assert!(owned.expect("chown").success(), "chown postgres");
        }
        let mut server = Self { directory, programs, port: 0, databases: AtomicU32::new(0) };
        let data = server.data();
        let data = data.to_str().expect("UTF-8");
        server.must("initdb", &["-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]);
        // Between choosing a free port and taking it, somebody else may take it.
        let started = (0..3).any(|_| {
            server.port = free_port();
            server.begin()
        });
        assert!(started, "{}", fs::read_to_string(server.log()).unwrap_or_default());
        Some(server)
    }

    /// The URL of a new, empty database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("case_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("connect");
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut connection).await.expect("create database");
        connection.close().await.expect("close");
        self.url(&name)
    }

    /// The same with its tables in a directory of its own, which is the server's already.
    pub(crate) async fn database_on(&self, directory: &Path) -> String {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.expect("connect");
        let create = format!("CREATE TABLESPACE elsewhere LOCATION '{}'", directory.display());
        for statement in [create, "CREATE DATABASE elsewhere TABLESPACE elsewhere".to_owned()] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect("a tablespace");
        }
        connection.close().await.expect("close");
        self.url("elsewhere")
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a file or directory the server's own, which only it may read.
    pub(crate) fn give(path: &Path) {
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(path).status();
            assert!(owned.expect("chown").success(), "chown postgres");
        }
    }

    /// A file of the server's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// Starts the server on its port, where it was stopped; says whether it runs.
    pub(crate) fn begin(&self) -> bool {
        self.pg_ctl_start().status.success()
    }

    /// Stops the server: `fast` ends its sessions and keeps everything, `immediate` is a crash.
    pub(crate) fn end(&self, mode: &str) {
        let data = self.data();
        self.run("pg_ctl", &["-D", data.to_str().expect("UTF-8"), "-m", mode, "-w", "stop"]);
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn pg_ctl_start(&self) -> Output {
        // Durability is not what is tested here; without it a case takes a tenth of the time.
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off \
             -c synchronous_commit=off -c full_page_writes=off -c shared_preload_libraries=pg_stat_statements",
            self.port,
            self.directory.path().display(),
        );
        let (data, log) = (self.data(), self.log());
        let arguments = ["-D", data.to_str().expect("UTF-8"), "-w", "-l", log.to_str().expect("UTF-8"), "-o", &options];
        self.run("pg_ctl", &[&arguments[..], &["start"]].concat())
    }

    fn must(&self, program: &str, arguments: &[&str]) {
        let output = self.run(program, arguments);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        // A server inherits what it is given; a pipe would stay open as long as it runs.
        let errors = self.directory.path().join("errors");
        let file = fs::File::create(&errors).expect("a file for messages");
        command.stdout(Stdio::null()).stderr(file);
        let status = command.status().expect("run a PostgreSQL program");
        Output { status, stdout: Vec::new(), stderr: fs::read(&errors).unwrap_or_default() }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("immediate");
    }
}

/// The programs of the newest version installed.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = installed.flatten().map(|entry| entry.path()).max_by_key(|path| version(path))?;
    Some(newest.join("bin")).filter(|programs| programs.join("initdb").exists())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}
