//! A look into an installation's database, through the store and its master key: the only way to
//! see what a killed process left behind without starting another that might change it.

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{Connection as _, SqliteConnection};
use tollway::store::vault::Keyring;
use tollway::store::{AttemptRow, OpenOptions, Store, UsageFilter, UsageRow};

use super::{MASTER_KEY, Setup, SimAccount};

/// Holds the database's only place for a writer.
pub(crate) struct DatabaseLock(SqliteConnection);

impl DatabaseLock {
    /// Lets others write.
    pub(crate) async fn release(self) {
        self.0.close().await.expect("a connection that closes");
    }
}

impl Setup {
    /// Keeps everybody from writing to the database.
    pub(crate) async fn lock_database(&self) -> DatabaseLock {
        let url = format!("sqlite://{}", self.database().display());
        let mut connection = SqliteConnection::connect(&url).await.expect("the database opens");
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.expect("the lock");
        DatabaseLock(connection)
    }

    pub(crate) async fn store(&self) -> Store {
        let url = SecretString::from(format!("sqlite://{}", self.database().display()));
        let keyring = Keyring::parse(&SecretString::from(MASTER_KEY)).expect("the master key");
        Store::open(OpenOptions { url, keyring }).await.expect("the database opens")
    }

    /// The rows of the ledger for requests that arrived from `since` on (Unix milliseconds), the
    /// oldest first, without their attempts.
    pub(crate) async fn usage_rows(&self, since: i64) -> Vec<UsageRow> {
        let store = self.store().await;
        let filter = UsageFilter { from: since, until: i64::MAX, ..UsageFilter::default() };
        let mut rows = store.ledger().requests(&filter, None, u32::MAX).await.expect("the ledger");
        store.close().await;
        rows.reverse();
        rows
    }

    /// The calls of the backend that these requests made.
    pub(crate) async fn usage_attempts(&self, rows: &[UsageRow]) -> Vec<AttemptRow> {
        let store = self.store().await;
        let mut attempts = Vec::new();
        for row in rows {
            attempts.extend(store.ledger().request(&row.id).await.expect("the request").attempts);
        }
        store.close().await;
        attempts
    }

    /// The refresh token that is stored for an account.
    pub(crate) async fn refresh_token(&self, account: &SimAccount) -> String {
        let store = self.store().await;
        let token = refresh_token(&store, account).await;
        store.close().await;
        token
    }
}

/// The refresh token that is stored for an account.
pub(crate) async fn refresh_token(store: &Store, account: &SimAccount) -> String {
    let found = store.accounts().find(&account.email).await.expect("the account");
    let credentials = store.accounts().credentials(found.id).await.expect("a look-up").expect("credentials");
    credentials.refresh_token.expose_secret().to_owned()
}
