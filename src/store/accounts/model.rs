//! An account and its credentials as plain values.

use std::str::FromStr;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::store::{AccountId, Names, UnixMillis};

/// Whether an account's credentials can be used, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// They work.
    Active,
    /// They are dead; somebody must log in again.
    NeedsLogin,
    /// The backend refuses them although they look sound.
    Quarantined,
}

impl AccountState {
    /// Every state, in the order in which people think of them.
    pub const ALL: [Self; 3] = [Self::Active, Self::NeedsLogin, Self::Quarantined];

    /// The name in the database and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NeedsLogin => "needs_login",
            Self::Quarantined => "quarantined",
        }
    }
}

/// The text is no state.
#[derive(Debug, thiserror::Error)]
#[error("expected active, needs_login or quarantined")]
pub struct UnknownState;

impl FromStr for AccountState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownState)
    }
}

/// An operator's wishes for an account's part in its pools.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountShare {
    /// Its share of new work among its like, 1 as a rule; not negative.
    pub weight: f64,
    /// Accounts of a higher priority are used first.
    pub priority: i32,
    /// Pools choose by them.
    pub tags: Names,
}

impl Default for AccountShare {
    fn default() -> Self {
        Self { weight: 1.0, priority: 0, tags: Names::new() }
    }
}

/// An account without its credentials.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// Given by the gateway.
    pub id: AccountId,
    /// What operators call it; unique.
    pub name: String,
    /// From the id token; one person may have several accounts.
    pub email: Option<String>,
    /// Half of the backend's identity of the account; old tokens do not carry it.
    pub chatgpt_user_id: Option<String>,
    /// The other half: the workspace.
    pub chatgpt_account_id: String,
    /// `plus`, `pro`, `business` …, as the backend writes it.
    pub plan: Option<String>,
    /// Whether requests must say that the account is a FedRAMP one.
    pub fedramp: bool,
    /// Whether the credentials work.
    pub state: AccountState,
    /// Why, as a code: `refresh_token_reused` ….
    pub state_reason: Option<String>,
    /// Why, and what to do, in plain words.
    pub state_detail: Option<String>,
    /// When `state` last changed.
    pub state_since: UnixMillis,
    /// Set by an operator: not to be used for now.
    pub paused: bool,
    /// Set by an operator: its part in its pools.
    pub share: AccountShare,
    /// The backend's limit is used up until then.
    pub limited_until: Option<UnixMillis>,
    /// Which limit.
    pub limit_reason: Option<String>,
    /// When the access token dies, if it says so.
    pub access_expires_at: Option<UnixMillis>,
    /// When the stored credentials were got from the backend.
    pub last_refresh_at: UnixMillis,
    /// The fencing number of the stored credentials: one more with each set.
    pub generation: i64,
    /// When it was added.
    pub created_at: UnixMillis,
    /// When anything about it last changed.
    pub updated_at: UnixMillis,
    /// Goes up with each change by people.
    pub version: i64,
}

/// What people change of an account; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccountChange {
    /// What operators call it; unique.
    pub name: Option<String>,
    /// Whether it is left out of service.
    pub paused: Option<bool>,
    /// Its part in its pools.
    pub share: Option<AccountShare>,
}

/// An account's stored credentials, opened.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The bearer token for the backend.
    pub access_token: SecretString,
    /// Good for one exchange; the next one comes with it.
    pub refresh_token: SecretString,
    /// Claims about the user.
    pub id_token: Option<SecretString>,
    /// When the access token dies, if it says so.
    pub access_expires_at: Option<UnixMillis>,
    /// When this set was got from the backend.
    pub last_refresh_at: UnixMillis,
    /// The fencing number of this set.
    pub generation: i64,
}

/// Credentials to store.
#[derive(Debug, Clone)]
pub struct NewCredentials {
    /// The bearer token for the backend.
    pub access_token: SecretString,
    /// The refresh token that is good now.
    pub refresh_token: SecretString,
    /// `None` keeps the one stored when a refresh is saved (protocol.md: absent fields are kept).
    pub id_token: Option<SecretString>,
    /// When the access token dies, if it says so.
    pub access_expires_at: Option<UnixMillis>,
}

/// An account that somebody logged in to or imported.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// `None`: the email, else the backend's account id; a number is added where that is taken.
    pub name: Option<String>,
    /// See `Account`.
    pub email: Option<String>,
    /// See `Account`.
    pub chatgpt_user_id: Option<String>,
    /// See `Account`.
    pub chatgpt_account_id: String,
    /// See `Account`.
    pub plan: Option<String>,
    /// See `Account`.
    pub fedramp: bool,
    /// What the login gave.
    pub credentials: NewCredentials,
}

/// What became of a `NewAccount`.
#[derive(Debug, Clone, PartialEq)]
pub enum Upserted {
    /// It is new.
    Created(Account),
    /// It was there: its credentials were replaced, its state is active, its limit is gone.
    Replaced(Account),
}

impl Upserted {
    /// The account, however it came.
    pub fn into_account(self) -> Account {
        match self {
            Self::Created(account) | Self::Replaced(account) => account,
        }
    }
}

/// What became of refreshed credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "credentials that were not stored must not be used"]
pub enum Saved {
    /// They are on the disk.
    Stored {
        /// Their fencing number.
        generation: i64,
    },
    /// Somebody stored newer ones; these were dropped.
    Stale,
    /// The account was removed.
    Gone,
}
