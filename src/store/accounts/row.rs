//! Accounts as the database gives them.

use super::{Account, AccountShare};
use crate::store::{UnixMillis, error::StoreError, pools::read_names};

macro_rules! accounts {
    ($rest:literal) => {
        concat!(
            "SELECT a.id, a.name, a.email, a.chatgpt_user_id, a.chatgpt_account_id, a.plan, a.fedramp,
                a.state, a.state_reason, a.state_detail, a.state_since, a.paused, a.weight, a.priority, a.tags,
                a.limited_until,
                a.limit_reason, c.access_expires_at, c.last_refresh_at, c.generation, a.created_at,
                a.updated_at, a.version
             FROM accounts a JOIN credentials c ON c.account_id = a.id ",
            $rest
        )
    };
}

/// All accounts as `AccountRow`s.
pub(super) const ACCOUNTS: &str = accounts!("ORDER BY a.name, a.id");
/// The account of id `$1`.
pub(super) const ACCOUNT: &str = accounts!("WHERE a.id = $1");

#[derive(sqlx::FromRow)]
pub(super) struct AccountRow {
    id: String,
    name: String,
    email: Option<String>,
    chatgpt_user_id: Option<String>,
    chatgpt_account_id: String,
    plan: Option<String>,
    fedramp: bool,
    state: String,
    state_reason: Option<String>,
    state_detail: Option<String>,
    state_since: UnixMillis,
    paused: bool,
    weight: f64,
    priority: i64,
    tags: String,
    limited_until: Option<UnixMillis>,
    limit_reason: Option<String>,
    access_expires_at: Option<UnixMillis>,
    last_refresh_at: UnixMillis,
    generation: i64,
    created_at: UnixMillis,
    updated_at: UnixMillis,
    version: i64,
}

impl TryFrom<AccountRow> for Account {
    type Error = StoreError;

    fn try_from(row: AccountRow) -> Result<Self, StoreError> {
        let damaged = |problem| StoreError::Damaged { table: "accounts", row: row.id.clone(), problem };
        Ok(Self {
            id: row.id.parse().map_err(|_| damaged("its id is not a UUID"))?,
            state: row.state.parse().map_err(|_: super::UnknownState| {
                damaged("its state is unknown; a newer version may have written it")
            })?,
            name: row.name,
            email: row.email,
            chatgpt_user_id: row.chatgpt_user_id,
            chatgpt_account_id: row.chatgpt_account_id,
            plan: row.plan,
            fedramp: row.fedramp,
            state_reason: row.state_reason,
            state_detail: row.state_detail,
            state_since: row.state_since,
            paused: row.paused,
            share: AccountShare {
                weight: row.weight,
                priority: i32::try_from(row.priority).unwrap_or_default(),
                tags: read_names(&row.tags),
            },
            limited_until: row.limited_until,
            limit_reason: row.limit_reason,
            access_expires_at: row.access_expires_at,
            last_refresh_at: row.last_refresh_at,
            generation: row.generation,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

/// A set of credentials, still sealed.
#[derive(sqlx::FromRow)]
pub(super) struct CredentialsRow {
    pub(super) access_token: String,
    pub(super) refresh_token: String,
    pub(super) id_token: Option<String>,
    pub(super) access_expires_at: Option<UnixMillis>,
    pub(super) last_refresh_at: UnixMillis,
    pub(super) generation: i64,
}
