//! A pooler between: one that hands whole sessions through, and one that takes LISTEN and tells
//! nothing.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use crate::cluster::Cluster;
use crate::postgres::Postgres;
use crate::proxy::Proxy;
use crate::support::{Program, Setup, Sim, eventually};

/// PgBouncer in session mode before the server; gone with the value.
struct Pooler {
    _program: Program,
    url: String,
    _directory: tempfile::TempDir,
}

impl Pooler {
    /// `None`, with a line that says so, where PgBouncer is not installed.
    async fn before(postgres: &Postgres, database: &str) -> Option<Self> {
        if !std::path::Path::new("/usr/sbin/pgbouncer").exists() {
            eprintln!("skipped: no PgBouncer in /usr/sbin");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let (host, server) =
            postgres.address().split_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).expect("two");
        let settings = format!(
            "[databases]\n* = host={host} port={server} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = session\n\
             ignore_startup_parameters = extra_float_digits,options\n"
        );
        let file = directory.path().join("pgbouncer.ini");
        fs::write(&file, settings).expect("its settings");
        Postgres::give(directory.path());
        // It refuses to run as root, as the server does.
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "/usr/sbin/pgbouncer"]).arg(&file);
        let program = Program::start(command, &directory.path().join("log"));
        let url = database.replace(&postgres.address(), &format!("127.0.0.1:{port}"));
        eventually("the pooler listens", async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        Some(Self { _program: program, url, _directory: directory })
    }
}

/// A replica on another way to its database than the commands beside it.
async fn replica(
    sim: &Sim,
    postgres: Postgres,
    url: &str,
    way: &str,
    settings: &[(&str, &str)],
) -> (Cluster, Setup, String) {
    let mut cluster = Cluster::over(postgres, url, sim, 1, settings);
    let direct = cluster.setup().clone().set("TOLLWAY_POOL__POLL_INTERVAL", "0s");
    direct.import(&sim.account(json!({})).await);
    let key = direct.key("ada");
    cluster.set(0, "TOLLWAY_DATABASE_URL", way);
    cluster.serve().await;
    assert_eq!(cluster.gateway(0).status(&key).await, 200);
    (cluster, direct, key)
}

async fn refused_when_revoked(cluster: &Cluster, direct: &Setup, key: &str) {
    direct.ok(&["key", "revoke", "ada"]);
    eventually("the key is refused", async || (cluster.gateway(0).status(key).await == 401).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_listen_is_taken_and_nothing_told_a_replica_asks() {
    let sim = Sim::start().await;
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database().await;
    let proxy = Proxy::mute(postgres.address()).await;
    let way = format!("{}?sslmode=disable", url.replace(&postgres.address(), &proxy.address.to_string()));
    // Looks would be an hour apart if it believed that it is told.
    let (cluster, direct, key) =
        replica(&sim, postgres, &url, &way, &[("TOLLWAY_DATABASE__CHECK_INTERVAL", "1h")]).await;
    eventually("it says so", async || cluster.logs().contains("takes LISTEN and tells nothing").then_some(())).await;
    refused_when_revoked(&cluster, &direct, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_of_sessions_tells_as_the_server_does() {
    let sim = Sim::start().await;
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database().await;
    let Some(pooler) = Pooler::before(&postgres, &url).await else { return };
    let told = [("TOLLWAY_DATABASE__CHECK_INTERVAL", "1h"), ("TOLLWAY_ACCOUNTS__RELOAD_INTERVAL", "1h")];
    let (cluster, direct, key) = replica(&sim, postgres, &url, &pooler.url, &told).await;
    eventually("it listens", async || (cluster.listeners().await == 1).then_some(())).await;
    refused_when_revoked(&cluster, &direct, &key).await;
}
