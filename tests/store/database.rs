//! A database for one case, on either kind of server, with builders for what is put into it.

use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tollway::store::{
    Account, AccountScope, Limits, NewAccount, NewCredentials, NewKey, OpenOptions, Result, Rights, Store,
    vault::Keyring,
};

use crate::postgres::Postgres;

pub(crate) const NOW: i64 = 1_800_000_000_000;
pub(crate) const OLD_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
pub(crate) const NEW_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

pub(crate) struct Database {
    pub(crate) url: SecretString,
    /// Kept as long as the SQLite file is needed.
    _directory: Option<TempDir>,
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("tollway.db").display());
        Self { url: url.into(), _directory: Some(directory) }
    }

    pub(crate) async fn postgres(server: &Postgres) -> Self {
        Self { url: server.database().await.into(), _directory: None }
    }

    /// The migrated store under the old key.
    pub(crate) async fn store(&self) -> Store {
        let store = self.open(OLD_KEY).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    pub(crate) async fn open(&self, keys: &str) -> Result<Store> {
        Store::open(OpenOptions { url: self.url.clone(), keyring: keyring(keys) }).await
    }

    /// Runs a statement behind the store's back.
    pub(crate) async fn run(&self, sql: &'static str) {
        self.try_to_run(sql).await.unwrap();
    }

    /// The same where the database may refuse.
    pub(crate) async fn try_to_run(&self, sql: &'static str) -> sqlx::Result<()> {
        let url = self.url.expose_secret();
        if url.starts_with("sqlite") {
            let mut connection = SqliteConnection::connect(url).await?;
            sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
        } else {
            let mut connection = PgConnection::connect(url).await?;
            sqlx::raw_sql(sql).execute(&mut connection).await.map(drop)
        }
    }
}

pub(crate) fn keyring(keys: &str) -> Keyring {
    Keyring::parse(&keys.into()).unwrap()
}

/// An account called `name`, whose tokens tell their owner and round: `access-ada-1`.
pub(crate) fn account(name: &str) -> NewAccount {
    NewAccount {
        name: Some(name.to_owned()),
        email: Some(format!("{name}@example.org")),
        chatgpt_user_id: Some(format!("user-{name}")),
        chatgpt_account_id: format!("workspace-{name}"),
        plan: Some("pro".to_owned()),
        fedramp: false,
        credentials: credentials(name, 1),
    }
}

pub(crate) fn credentials(name: &str, round: i64) -> NewCredentials {
    NewCredentials {
        access_token: format!("access-{name}-{round}").into(),
        refresh_token: format!("refresh-{name}-{round}").into(),
        id_token: Some(format!("id-{name}-{round}").into()),
        access_expires_at: Some(NOW + round * 1000),
    }
}

pub(crate) async fn add(store: &Store, name: &str) -> Account {
    store.accounts().upsert(account(name), NOW).await.unwrap().into_account()
}

/// A key whose hash is thirty-two times `byte`.
pub(crate) fn key(name: &str, byte: u8, accounts: AccountScope) -> NewKey {
    NewKey {
        name: name.to_owned(),
        prefix: format!("tw-{byte:06}"),
        hash: [byte; 32],
        accounts,
        pool: None,
        rights: Rights::new(),
        user: None,
        team: None,
        limits: Limits::default(),
        expires_at: None,
    }
}

/// The access and refresh tokens stored for an account.
pub(crate) async fn tokens(store: &Store, account: &Account) -> (String, String) {
    let stored = store.accounts().credentials(account.id).await.unwrap().unwrap();
    let text = |token: &SecretString| token.expose_secret().to_owned();
    (text(&stored.access_token), text(&stored.refresh_token))
}
