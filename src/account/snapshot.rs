//! What a token manager knows at one moment: read with one atomic load, never changed in place.

use std::sync::Arc;
use std::time::Duration;

use super::settings::TokenSettings;
use crate::store::{Account, AccountState, Credentials, UnixMillis};

/// Whether an account can work, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The state in force: the store's, or a newer verdict of this process.
    pub state: AccountState,
    /// A code, such as `refresh_token_reused`.
    pub reason: Option<String>,
    /// Plain words for the operator.
    pub detail: Option<String>,
    /// Since when.
    pub since: UnixMillis,
}

impl Standing {
    pub(super) fn of(account: &Account) -> Self {
        Self {
            state: account.state,
            reason: account.state_reason.clone(),
            detail: account.state_detail.clone(),
            since: account.state_since,
        }
    }
}

/// One account as this process knows it.
#[derive(Clone)]
pub struct Snapshot {
    /// The stored row. Its state may be older than `standing`.
    pub account: Arc<Account>,
    /// What is in use; stored without exception.
    pub credentials: Arc<Credentials>,
    /// Whether it may be used.
    pub standing: Standing,
}

impl Snapshot {
    /// Which credential set is in use.
    pub fn generation(&self) -> i64 {
        self.credentials.generation
    }
}

/// Whether the access token has ended by its own account. A token of unknown end has not.
pub(super) fn has_ended(credentials: &Credentials, now: UnixMillis) -> bool {
    credentials.access_expires_at.is_some_and(|end| end <= now)
}

/// Whether the access token should be renewed before it is used.
pub(super) fn is_due(credentials: &Credentials, now: UnixMillis, settings: &TokenSettings) -> bool {
    match credentials.access_expires_at {
        Some(end) => end < after(now, settings.min_life),
        None => after(credentials.last_refresh_at, settings.unknown_life) <= now,
    }
}

/// `moment` plus `duration`, without overflow.
pub(super) fn after(moment: UnixMillis, duration: Duration) -> UnixMillis {
    moment.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(end: Option<UnixMillis>, last_refresh_at: UnixMillis) -> Credentials {
        Credentials {
            access_token: "a".into(),
            refresh_token: "r".into(),
            id_token: None,
            access_expires_at: end,
            last_refresh_at,
            generation: 1,
        }
    }

    #[test]
    fn a_token_is_due_in_its_last_minute_and_ended_at_its_end() {
        let settings = TokenSettings::default();
        for (end, due, ended) in
            [(160_000, false, false), (159_999, true, false), (100_001, true, false), (100_000, true, true)]
        {
            let token = credentials(Some(end), 0);

            assert_eq!(is_due(&token, 100_000, &settings), due, "{end}");
            assert_eq!(has_ended(&token, 100_000), ended, "{end}");
        }
    }

    #[test]
    fn a_token_of_unknown_end_is_due_after_eight_days_and_never_ended() {
        const DAY: i64 = 86_400_000;
        let token = credentials(None, 0);

        assert!(!is_due(&token, 7 * DAY, &TokenSettings::default()));
        assert!(is_due(&token, 8 * DAY, &TokenSettings::default()));
        assert!(!has_ended(&token, i64::MAX));
    }
}
