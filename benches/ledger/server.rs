//! A PostgreSQL server for the bench: as installed, with its default durability, in a directory that
//! may stay for the next run.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// A running server; stopped when dropped.
pub(crate) struct Server {
    directory: PathBuf,
    programs: PathBuf,
    port: u16,
}

impl Server {
    /// Starts the server of a directory; `None` where PostgreSQL is not installed.
    pub(crate) fn start(directory: &Path) -> Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        fs::create_dir_all(directory)?;
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(directory).status()?;
            ensure!(owned.success(), "chown postgres {}", directory.display());
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Self { directory: directory.to_owned(), programs, port };
        let data = server.path("data")?;
        if !server.directory.join("data").exists() {
            server.run("initdb", &["-D", &data, "-A", "trust", "-U", "postgres"])?;
        }
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c max_wal_size=4GB \
             -c shared_preload_libraries=pg_stat_statements",
            directory.display()
        );
        let log = server.path("log")?;
        server.run("pg_ctl", &["-D", &data, "-w", "-t", "600", "-l", &log, "-o", &options, "start"])?;
        Ok(Some(server))
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn path(&self, name: &str) -> Result<String> {
        let path = self.directory.join(name);
        path.to_str().map(ToOwned::to_owned).context("a directory whose name is UTF-8")
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            // It refuses to run as root.
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        // A server inherits what it is given; a pipe would stay open as long as it runs.
        let errors = self.directory.join("errors");
        command.args(arguments).current_dir(&self.directory).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(File::create(&errors)?).status()?;
        ensure!(status.success(), "{program}: {}", fs::read_to_string(&errors).unwrap_or_default());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(data) = self.path("data")
            && let Err(error) = self.run("pg_ctl", &["-D", &data, "-m", "fast", "-w", "stop"])
        {
            eprintln!("PostgreSQL was not stopped: {error}");
        }
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
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}
