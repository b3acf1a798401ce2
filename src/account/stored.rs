//! The real store as this room's [`CredentialStore`].

use std::error::Error;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::ports::{CredentialStore, StoreFault, Stored};
use crate::store::{
    Account, AccountId, AccountState, ExchangeStore, Lease, NewCredentials, Saved, Store, StoreError, Trace, Turn,
    UnixMillis,
};

/// Row and credentials are two reads; a login between them is rare, and twice in a row is none.
const READS: u32 = 3;

impl From<StoreError> for StoreFault {
    /// Keeps the words of every cause. The store's errors hold no secret.
    fn from(error: StoreError) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self(text)
    }
}

impl CredentialStore for Store {
    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreFault>> {
        Box::pin(async { Ok(Self::revision(self).await?.accounts) })
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Vec<Account>, StoreFault>> {
        Box::pin(async { Ok(Self::accounts(self).list().await?) })
    }

    fn load(&self, id: AccountId) -> BoxFuture<'_, Result<Option<Stored>, StoreFault>> {
        Box::pin(async move {
            for _ in 0..READS {
                let account = Self::accounts(self).get(id).await?;
                let credentials = Self::accounts(self).credentials(id).await?;
                let (Some(account), Some(credentials)) = (account, credentials) else {
                    return Ok(None);
                };
                // The state belongs to a generation; a dead login's must not be read into a new one.
                if account.generation == credentials.generation {
                    return Ok(Some(Stored { account, credentials }));
                }
            }
            Err(StoreFault("the account changes all the time".to_owned()))
        })
    }

    fn turn(&self, id: AccountId) -> BoxFuture<'_, Result<Option<Turn>, StoreFault>> {
        Box::pin(async move { Ok(self.exchanges().turn(id).await?) })
    }

    fn take<'a>(
        &'a self,
        id: AccountId,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreFault>> {
        Box::pin(async move { Ok(self.leases().take(&ExchangeStore::lease_name(id), holder, ttl).await?) })
    }

    fn note<'a>(
        &'a self,
        id: AccountId,
        lease: &'a Lease,
        generation: i64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreFault>> {
        Box::pin(async move { Ok(self.exchanges().begin(id, lease, generation, ttl).await?) })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Result<bool, StoreFault>> {
        Box::pin(async move { Ok(self.leases().renew(lease, ttl).await?) })
    }

    fn release<'a>(&'a self, id: AccountId, lease: &'a Lease, trace: Trace) -> BoxFuture<'a, Result<(), StoreFault>> {
        Box::pin(async move { Ok(self.exchanges().end(id, lease, trace).await?) })
    }

    fn save_refreshed<'a>(
        &'a self,
        id: AccountId,
        expected: i64,
        new: &'a NewCredentials,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<Saved, StoreFault>> {
        Box::pin(async move {
            let accounts = Self::accounts(self);
            Ok(accounts.save_refreshed(id, expected, new, now).await?)
        })
    }

    fn set_state<'a>(
        &'a self,
        id: AccountId,
        expected: i64,
        state: AccountState,
        reason: Option<&'a str>,
        detail: Option<&'a str>,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<bool, StoreFault>> {
        Box::pin(async move {
            let accounts = Self::accounts(self);
            let expected = Some(expected);
            Ok(accounts.set_state(id, expected, state, reason, detail, now).await?)
        })
    }

    fn set_limited<'a>(
        &'a self,
        id: AccountId,
        until: Option<UnixMillis>,
        reason: Option<&'a str>,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<(), StoreFault>> {
        Box::pin(async move {
            let accounts = Self::accounts(self);
            accounts.set_limited(id, until, reason, now).await?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use secrecy::ExposeSecret;

    use super::super::pool::condition::Defaults;
    use super::super::pool::remedy::Consequence;
    use super::super::testing::{Bench, HOUR, START};
    use super::super::{Accounts, Context, Tidings, TokenSettings};
    use super::*;
    use crate::codex::{Failure, FailureKind};
    use crate::store::vault::Keyring;
    use crate::store::{NewAccount, OpenOptions};

    const DEFAULTS: Defaults = Defaults { cooldown: Duration::from_secs(30), limit: Duration::from_mins(5) };

    fn login(refresh_token: &str) -> NewAccount {
        NewAccount {
            name: Some("ada".into()),
            email: None,
            chatgpt_user_id: Some("user-1".into()),
            chatgpt_account_id: "acc-1".into(),
            plan: None,
            fedramp: false,
            credentials: NewCredentials {
                access_token: "at".into(),
                refresh_token: refresh_token.into(),
                id_token: None,
                access_expires_at: Some(START - HOUR),
            },
        }
    }

    async fn on_sqlite(bench: &Bench) -> (tempfile::TempDir, Store, Arc<Accounts>) {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("t.db").display());
        let options = OpenOptions { url: url.into(), keyring: Keyring::generate().unwrap() };
        let store = Store::open(options).await.unwrap();
        store.migrate().await.unwrap();
        let context = Arc::new(Context {
            issuer: Arc::clone(&bench.issuer) as _,
            store: Arc::new(store.clone()),
            observer: Arc::clone(&bench.context.observer),
            clock: Arc::new(|| START),
            random: Arc::new(|| 0.0),
            holder: "test".into(),
            tidings: Tidings::default(),
            settings: TokenSettings::default(),
            tasks: bench.context.tasks.clone(),
            shutdown: bench.context.shutdown.clone(),
        });
        (directory, store, Accounts::new(context))
    }

    #[tokio::test]
    async fn a_refresh_is_in_the_database_and_a_login_over_it_is_taken_over() {
        let bench = Bench::new();
        let (_directory, store, accounts) = on_sqlite(&bench).await;
        store.accounts().upsert(login("rt"), START).await.unwrap();
        accounts.reload().await.unwrap();
        let id = accounts.candidates(None)[0].id;
        let manager = Arc::clone(&accounts.get(id).unwrap().manager);

        let renewed = manager.credentials().await.unwrap();
        let stored = store.accounts().credentials(id).await.unwrap().unwrap();
        assert_eq!(stored.refresh_token.expose_secret(), "rt-1");
        assert_eq!(stored.generation, renewed.generation);

        store.accounts().upsert(login("rt-login"), START).await.unwrap();
        accounts.reload().await.unwrap();
        let adopted = manager.snapshot();
        assert_eq!(adopted.credentials.refresh_token.expose_secret(), "rt-login");
    }

    #[tokio::test]
    async fn verdicts_and_limits_reach_the_database() {
        let bench = Bench::new();
        let (_directory, store, accounts) = on_sqlite(&bench).await;
        store.accounts().upsert(login("rt"), START).await.unwrap();
        accounts.reload().await.unwrap();
        let id = accounts.candidates(None)[0].id;
        bench.issuer.spend(&"rt".into());

        let limit = Failure { resets_at: Some((START + HOUR) / 1000), ..Failure::of(FailureKind::UsageLimit, "no") };
        accounts.suffer(id, Consequence::Limit, &limit, None, DEFAULTS);
        let manager = Arc::clone(&accounts.get(id).unwrap().manager);
        assert!(manager.credentials().await.is_err());
        bench.settle().await;

        let row = store.accounts().get(id).await.unwrap().unwrap();
        assert_eq!(row.state, AccountState::NeedsLogin);
        assert_eq!(row.state_reason.as_deref(), Some("refresh_token_reused"));
        assert_eq!(row.limited_until, Some(START + HOUR));
    }
}
