//! The database behind TLS with a private certificate authority, and how its address is used.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::cluster::Cluster;
use crate::postgres::Postgres;
use crate::support::{Setup, Sim, eventually};

/// A server that takes encrypted connections alone, with a certificate for `127.0.0.1` and `localhost`
/// from an authority of its own, and clients that show one from there.
struct Guarded {
    postgres: Postgres,
    url: String,
    papers: tempfile::TempDir,
}

impl Guarded {
    /// `client` is how clients are let in: `trust`, or `cert`.
    async fn start(client: &str) -> Option<Self> {
        let postgres = Postgres::start()?;
        let url = postgres.database().await;
        let papers = tempfile::tempdir().expect("a directory");
        papers_in(papers.path());
        for (name, place) in [("server.crt", "server.crt"), ("server.key", "server.key"), ("ca.crt", "root.crt")] {
            fs::copy(papers.path().join(name), postgres.path(place)).expect("a certificate");
            Postgres::give(&postgres.path(place));
        }
        let rules = format!("hostssl all all 127.0.0.1/32 {client}\n");
        fs::write(postgres.path("pg_hba.conf"), rules).expect("the rules");
        let settings = fs::read_to_string(postgres.path("postgresql.conf")).expect("the settings");
        let tls = "ssl = on\nssl_ca_file = 'root.crt'\n";
        fs::write(postgres.path("postgresql.conf"), format!("{settings}{tls}")).expect("the settings");
        postgres.end("fast");
        assert!(postgres.begin(), "the server takes its certificate");
        Some(Self { postgres, url, papers })
    }

    fn paper(&self, name: &str) -> String {
        self.papers.path().join(name).display().to_string()
    }

    /// An installation on this database, with these parameters in its address.
    fn setup(&self, sim: &Sim, parameters: &str) -> Setup {
        Setup::new(sim).set("TOLLWAY_DATABASE_URL", &format!("{}?{parameters}", self.url))
    }
}

/// An authority, another one, and certificates of the first for the server and for a client.
fn papers_in(directory: &Path) {
    let openssl = |arguments: &str| {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().expect("openssl");
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        openssl(&format!("req -x509 {key} -keyout {authority}.key -out {authority}.crt -days 2 -subj /CN={authority}"));
    }
    fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
    fs::write(directory.join("none"), "basicConstraints=CA:FALSE\n").expect("a file");
    for (name, subject, extensions) in [("server", "db", "names"), ("client", "postgres", "none")] {
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={subject}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {extensions} -out {name}.crt"
        ));
    }
    let _ = Command::new("chmod").arg("600").args(["server.key", "client.key"]).current_dir(directory).status();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_of_tls_does_what_its_name_says() {
    let sim = Sim::start().await;
    let Some(server) = Guarded::start("trust").await else { return };
    let (ours, other) = (server.paper("ca.crt"), server.paper("other.crt"));
    let by_name = server.url.replace("127.0.0.1", "localhost");
    let opens = [
        "sslmode=prefer".to_owned(),
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={ours}"),
        format!("sslmode=verify-full&sslrootcert={ours}"),
    ];
    for parameters in &opens {
        server.setup(&sim, parameters).ok(&["key", "list"]);
    }
    let refused = [
        ("sslmode=disable".to_owned(), "no encryption"),
        (format!("sslmode=verify-ca&sslrootcert={other}"), "certificate"),
        (format!("sslmode=verify-full&sslrootcert={other}"), "certificate"),
        // Without a root, those of the system count, of which this authority is none.
        ("sslmode=verify-full".to_owned(), "certificate"),
    ];
    for (parameters, told) in &refused {
        let error = server.setup(&sim, parameters).fails(&["key", "list"], "");
        assert!(error.contains(told), "{parameters}: {error}");
    }
    // The certificate is for the address, not for the name.
    let named = |mode: &str| {
        let url = format!("{by_name}?sslmode={mode}&sslrootcert={ours}");
        Setup::new(&sim).set("TOLLWAY_DATABASE_URL", &url)
    };
    named("verify-ca").ok(&["key", "list"]);
    let error = named("verify-full").fails(&["key", "list"], "");
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_shows_a_certificate_where_the_server_asks_for_one_and_its_listener_does_too() {
    let sim = Sim::start().await;
    let Some(server) = Guarded::start("cert").await else { return };
    let root = format!("sslmode=verify-full&sslrootcert={}", server.paper("ca.crt"));
    let error = server.setup(&sim, &root).fails(&["key", "list"], "");
    assert!(error.contains("certificate"), "{error}");
    let shown = format!("{root}&sslcert={}&sslkey={}", server.paper("client.crt"), server.paper("client.key"));
    let setup = server.setup(&sim, &shown);
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    assert_eq!(gateway.status(&key).await, 200);
    setup.ok(&["key", "revoke", "ada"]);
    eventually("the key is refused", async || (gateway.status(&key).await == 401).then_some(())).await;
    drop(gateway);
    drop(server.postgres);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_live_in_one_database_each_in_its_schema() {
    let sim = Sim::start().await;
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database().await;
    let limits = [
        ("TOLLWAY_DATABASE__SCHEMA", "tollway_one"),
        ("TOLLWAY_DATABASE__STATEMENT_TIMEOUT", "7s"),
        ("TOLLWAY_DATABASE__LOCK_TIMEOUT", "3s"),
        ("TOLLWAY_ACCOUNTS__RELOAD_INTERVAL", "1h"),
        ("TOLLWAY_DATABASE__CHECK_INTERVAL", "1h"),
        ("TOLLWAY_POOL__POLL_INTERVAL", "0s"),
    ];
    let mut cluster = Cluster::over(postgres, &url, &sim, 2, &limits);
    cluster.set(1, "TOLLWAY_DATABASE__SCHEMA", "tollway_two");
    for number in [0, 1] {
        cluster.setup_of(number).import(&sim.account(json!({})).await);
    }
    let (one, two) = (cluster.setup_of(0).key("ada"), cluster.setup_of(1).key("ada"));
    cluster.serve().await;
    assert_eq!((cluster.gateway(0).status(&one).await, cluster.gateway(0).status(&two).await), (200, 401));
    assert_eq!((cluster.gateway(1).status(&one).await, cluster.gateway(1).status(&two).await), (401, 200));
    eventually("both listen", async || (cluster.listeners().await == 2).then_some(())).await;
    cluster.setup_of(0).ok(&["key", "revoke", "ada"]);
    eventually("the key is refused", async || (cluster.gateway(0).status(&one).await == 401).then_some(())).await;
    assert_eq!(cluster.gateway(1).status(&two).await, 200);
    let tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(cluster.count(tables).await, 0);
    let named =
        "SELECT COUNT(DISTINCT application_name) FROM pg_stat_activity WHERE application_name LIKE 'tollway %/%'";
    assert_eq!(cluster.count(named).await, 2, "each replica can be told from the other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_started_before_its_database_waits_for_it() {
    let sim = Sim::start().await;
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database().await;
    let mut cluster = Cluster::over(postgres, &url, &sim, 1, &[]);
    cluster.setup().ok(&["key", "list"]);
    cluster.postgres.end("fast");
    let log = cluster.setup().clone();
    let begin = async {
        eventually("a line in the log", async || log.log().contains("is not there yet").then_some(())).await;
    };
    let mut command = log.command(&["serve"]);
    for listener in ["SERVER__LISTEN", "SERVER__OPS_LISTEN", "ADMIN__LISTEN"] {
        command.env(format!("TOLLWAY_{listener}"), "127.0.0.1:0");
    }
    let mut waiting = crate::support::Program::start(command, &log.path("serve.log"));
    begin.await;
    waiting.terminate();
    assert_eq!(waiting.end(std::time::Duration::from_secs(10)).await.code(), Some(0), "told to stop while it waits");

    // Without the time to wait it ends, and says what is wrong.
    let error = log.clone().set("TOLLWAY_DATABASE__CONNECT_RETRY", "0s").fails(&["serve"], "");
    assert!(error.contains("connect_retry") || error.contains("cannot open the database"), "{error}");
    assert!(cluster.postgres.begin());
    cluster.serve().await;
}
