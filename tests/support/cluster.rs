//! Several gateways on one Postgres: replicas that may be killed, paused and started again, and a
//! database server that may be stopped.

use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tollway::store::vault::Keyring;
use tollway::store::{OpenOptions, Store};

use super::postgres::Postgres;
use super::support::{Gateway, MASTER_KEY, Setup, Sim};

/// Replicas over one database, each with a data directory of its own.
pub(crate) struct Cluster {
    /// The database server.
    pub(crate) postgres: Postgres,
    url: String,
    replicas: Vec<Replica>,
}

/// One of them, running or not.
struct Replica {
    setup: Setup,
    gateway: Option<Gateway>,
}

impl Cluster {
    /// Replicas in front of `sim` that do not run yet; `None`, with a line that says so, where
    /// PostgreSQL is not installed. `settings` are variables for all of them.
    pub(crate) async fn new(sim: &Sim, replicas: usize, settings: &[(&str, &str)]) -> Option<Self> {
        let postgres = Postgres::start()?;
        let url = postgres.database().await;
        Some(Self::over(postgres, &url, sim, replicas, settings))
    }

    /// The same over a server that runs, at this address.
    pub(crate) fn over(postgres: Postgres, url: &str, sim: &Sim, replicas: usize, settings: &[(&str, &str)]) -> Self {
        let replica = |number| {
            let setup = Setup::new(sim).set("TOLLWAY_DATABASE_URL", url);
            // So that the simulator's records tell who asked.
            let setup = setup.set("TOLLWAY_BACKEND__USER_AGENT", &format!("replica-{number}"));
            let setup = settings.iter().fold(setup, |setup, (name, value)| setup.set(name, value));
            Replica { setup, gateway: None }
        };
        let replicas = (0..replicas).map(replica).collect();
        Self { postgres, url: url.to_owned(), replicas }
    }

    /// With one more variable for one replica, from its next start on.
    pub(crate) fn set(&mut self, number: usize, name: &str, value: &str) {
        let replica = &mut self.replicas[number];
        replica.setup = replica.setup.clone().set(name, value);
    }

    /// For commands beside the servers: any replica's will do.
    pub(crate) fn setup(&self) -> &Setup {
        self.setup_of(0)
    }

    /// A replica's installation.
    pub(crate) fn setup_of(&self, number: usize) -> &Setup {
        &self.replicas[number].setup
    }

    /// Changes a replica's installation before it is started.
    pub(crate) fn set_setup(&mut self, number: usize, setup: Setup) {
        self.replicas[number].setup = setup;
    }

    /// Starts every replica that does not run, and waits until it is ready.
    pub(crate) async fn serve(&mut self) {
        for number in 0..self.replicas.len() {
            self.start(number).await;
        }
    }

    /// Starts one replica, if it does not run, and waits until it is ready.
    pub(crate) async fn start(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        if replica.gateway.is_none() {
            replica.gateway = Some(replica.setup.serve().await);
        }
    }

    /// A replica that runs.
    pub(crate) fn gateway(&self, number: usize) -> &Gateway {
        self.replicas[number].gateway.as_ref().expect("a replica that runs")
    }

    /// The numbers of those that run; paused ones too.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.replicas.len()).filter(|number| self.replicas[*number].gateway.is_some()).collect()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, number: usize) {
        self.replicas[number].gateway.take().expect("a replica that runs").kill();
    }

    /// SIGTERM; waits for a good end.
    pub(crate) async fn stop(&mut self, number: usize) {
        self.replicas[number].gateway.take().expect("a replica that runs").stop().await;
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    pub(crate) fn pause(&self, number: usize) {
        self.gateway(number).program.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, number: usize) {
        self.gateway(number).program.signal("CONT");
    }

    /// The database's address.
    pub(crate) fn database_url(&self) -> &str {
        &self.url
    }

    /// A look into the database with the replicas' master key.
    pub(crate) async fn store(&self) -> Store {
        let keyring = Keyring::parse(&SecretString::from(MASTER_KEY)).expect("the master key");
        let url = SecretString::from(self.url.as_str());
        Store::open(OpenOptions { url, keyring }).await.expect("the database opens")
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("the database answers")
    }

    /// Runs statements behind everybody's back.
    pub(crate) async fn run(&self, sql: &str) {
        self.try_to_run(sql).await.expect(sql);
    }

    /// The same where the database may refuse.
    pub(crate) async fn try_to_run(&self, sql: &str) -> sqlx::Result<()> {
        let mut connection = self.connection().await;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.map(drop);
        connection.close().await?;
        done
    }

    /// The number that a query gives.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let mut connection = self.connection().await;
        let (number,): (Option<i64>,) =
            sqlx::query_as(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.expect(sql);
        connection.close().await.expect("close");
        number.unwrap_or_default()
    }

    /// How many connections hear of changes.
    pub(crate) async fn listeners(&self) -> i64 {
        // The statement that a listening connection ran last.
        self.count("SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'").await
    }

    /// How many transactions the database has seen.
    pub(crate) async fn transactions(&self) -> i64 {
        let of_this = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
        self.count(of_this).await
    }

    /// What every replica has written on its streams.
    pub(crate) fn logs(&self) -> String {
        let log = |(number, replica): (usize, &Replica)| format!("--- replica {number}\n{}", replica.setup.log());
        self.replicas.iter().enumerate().map(log).collect()
    }
}
