//! Why an account gives no credentials.

use std::time::Duration;

use thiserror::Error;

use super::snapshot::Standing;
use super::verdict::INTERRUPTED;
use crate::store::AccountState;

/// Why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Nothing is tried again until somebody logs in.
    #[error("the account needs a login ({reason}): {detail}")]
    NeedsLogin {
        /// A code.
        reason: String,
        /// Plain words.
        detail: String,
    },
    /// The backend refuses what the issuer renews.
    #[error("the account is in quarantine ({reason}): {detail}")]
    Quarantined {
        /// A code.
        reason: String,
        /// Plain words.
        detail: String,
    },
    /// Later.
    #[error("the account has no valid access token at the moment: {detail}")]
    Unavailable {
        /// What is in the way.
        detail: String,
        /// When the next attempt can be made.
        retry_after: Duration,
    },
    /// The account is gone.
    #[error("the account was removed")]
    Removed,
}

/// Whether an account in this standing gives credentials, or may be renewed. `resend`: the operator takes
/// the risk of sending a refresh token again whose sender did not come back.
pub(super) fn permitted(standing: &Standing, operator: bool, resend: bool) -> Result<(), TokenError> {
    let interrupted = standing.reason.as_deref() == Some(INTERRUPTED);
    match standing.state {
        AccountState::Active => Ok(()),
        AccountState::Quarantined if operator => Ok(()),
        AccountState::NeedsLogin if operator && resend && interrupted => Ok(()),
        AccountState::NeedsLogin | AccountState::Quarantined => Err(refusal(standing)),
    }
}

/// The error of an account that is out of use.
pub(super) fn refusal(standing: &Standing) -> TokenError {
    let reason = standing.reason.clone().unwrap_or_else(|| "unknown".to_owned());
    let detail = standing.detail.clone().unwrap_or_default();
    match standing.state {
        AccountState::NeedsLogin => TokenError::NeedsLogin { reason, detail },
        AccountState::Active | AccountState::Quarantined => TokenError::Quarantined { reason, detail },
    }
}
