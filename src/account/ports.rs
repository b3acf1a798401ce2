//! What this room needs of others, as traits and functions that a test can own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::settings::TokenSettings;
use super::tidings::Tidings;
use crate::oauth::{OAuthClient, RefreshError, RefreshReason, Timely, TokenSet};
use crate::store::{
    Account, AccountId, AccountState, Credentials, Lease, NewCredentials, Saved, Trace, Turn, UnixMillis,
};

/// The wall clock.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// Numbers in 0.0..1.0, for jitter.
pub type Random = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Who exchanges refresh tokens. An implementation bounds its own time and never repeats itself.
pub trait TokenIssuer: Send + Sync {
    /// One exchange. `timely` is asked when the token is about to leave; if it says no, the token does
    /// not leave, and the error is [`RefreshError::Withheld`].
    fn refresh<'a>(
        &'a self,
        refresh_token: &'a SecretString,
        reason: RefreshReason,
        timely: Timely,
    ) -> BoxFuture<'a, Result<TokenSet, RefreshError>>;

    /// The longest that an exchange takes.
    fn longest(&self) -> Duration;
}

impl TokenIssuer for OAuthClient {
    fn refresh<'a>(
        &'a self,
        refresh_token: &'a SecretString,
        reason: RefreshReason,
        timely: Timely,
    ) -> BoxFuture<'a, Result<TokenSet, RefreshError>> {
        Box::pin(OAuthClient::refresh(self, refresh_token, reason, timely))
    }

    fn longest(&self) -> Duration {
        OAuthClient::longest(self)
    }
}

/// The store could not do it now.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub struct StoreFault(pub String);

/// An account with its credentials, as stored.
pub struct Stored {
    /// The row.
    pub account: Account,
    /// What was sealed in it.
    pub credentials: Credentials,
}

/// Where accounts and their credentials are kept.
pub trait CredentialStore: Send + Sync {
    /// A number that is another one after every change of accounts.
    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreFault>>;

    /// Every account.
    fn accounts(&self) -> BoxFuture<'_, Result<Vec<Account>, StoreFault>>;

    /// One account with its credentials; none when it was removed.
    fn load(&self, id: AccountId) -> BoxFuture<'_, Result<Option<Stored>, StoreFault>>;

    /// What there is to know before a refresh token is spent; none when the account was removed.
    fn turn(&self, id: AccountId) -> BoxFuture<'_, Result<Option<Turn>, StoreFault>>;

    /// Takes an account's lease, if nobody has it.
    fn take<'a>(
        &'a self,
        id: AccountId,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreFault>>;

    /// Notes durably that the refresh token of `generation` is about to be sent, and renews the lease.
    /// `false`: it must not be sent.
    fn note<'a>(
        &'a self,
        id: AccountId,
        lease: &'a Lease,
        generation: i64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreFault>>;

    /// Renews an account's lease; `false`: it is somebody else's, or nobody's.
    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Result<bool, StoreFault>>;

    /// Releases an account's lease, and says what becomes of the note.
    fn release<'a>(&'a self, id: AccountId, lease: &'a Lease, trace: Trace) -> BoxFuture<'a, Result<(), StoreFault>>;

    /// Stores the successor of generation `expected`, unless somebody has done so already.
    fn save_refreshed<'a>(
        &'a self,
        id: AccountId,
        expected: i64,
        new: &'a NewCredentials,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<Saved, StoreFault>>;

    /// Changes the state, unless the generation is no longer `expected`. Says whether it did.
    fn set_state<'a>(
        &'a self,
        id: AccountId,
        expected: i64,
        state: AccountState,
        reason: Option<&'a str>,
        detail: Option<&'a str>,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<bool, StoreFault>>;

    /// Puts an account aside until a time, or takes it back with none.
    fn set_limited<'a>(
        &'a self,
        id: AccountId,
        until: Option<UnixMillis>,
        reason: Option<&'a str>,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<(), StoreFault>>;
}

/// How an attempt to renew ended. Labels for metrics: few, fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshOutcome {
    /// New credentials are stored and in use.
    Ok,
    /// May work later.
    Transient,
    /// Only a login helps.
    Permanent,
    /// Somebody else had stored newer credentials; no exchange was needed, or it came too late.
    Adopted,
    /// The exchange went well and a write did not; counted once for each failed write.
    PersistFailed,
}

impl RefreshOutcome {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Adopted => "adopted",
            Self::PersistFailed => "persist_failed",
        }
    }
}

/// Something that happened to an account's credentials.
#[derive(Debug, Clone)]
pub struct RefreshEvent<'a> {
    /// Whose.
    pub account: AccountId,
    /// The account's label.
    pub name: &'a str,
    /// Why it was tried.
    pub reason: RefreshReason,
    /// How it ended.
    pub outcome: RefreshOutcome,
    /// The issuer's code, where there is one.
    pub code: Option<&'a str>,
    /// From the start of the attempt.
    pub took: Duration,
}

/// Who counts. Must not block.
pub trait Observer: Send + Sync {
    /// Called once for each event.
    fn refresh(&self, event: &RefreshEvent<'_>);
}

/// What every token manager of a process shares.
pub struct Context {
    /// Exchanges refresh tokens.
    pub issuer: Arc<dyn TokenIssuer>,
    /// Keeps what the issuer gave.
    pub store: Arc<dyn CredentialStore>,
    /// Counts what happened.
    pub observer: Arc<dyn Observer>,
    /// Says what time it is.
    pub clock: Clock,
    /// Spreads retries.
    pub random: Random,
    /// Names this run of this process among those that share the store.
    pub holder: String,
    /// The numbers.
    pub settings: TokenSettings,
    /// Says that something of an account has changed.
    pub tidings: Tidings,
    /// Holds every task that must not be cut short; shutdown closes it and waits for it.
    pub tasks: TaskTracker,
    /// Cancelled when the process begins to stop: loops end, unsaved credentials get their last
    /// `shutdown_grace`.
    pub shutdown: CancellationToken,
}

impl Context {
    pub(super) fn now(&self) -> UnixMillis {
        (self.clock)()
    }
}
