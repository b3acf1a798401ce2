//! What an answer teaches about the account that gives it, and what its client is told instead.

use super::answer::is_our_own;
use super::{Relay, notice::Notices};
use crate::account::Accounts;
use crate::account::pool::condition::Defaults;
use crate::account::pool::quota::Source;
use crate::account::pool::remedy::remedy;
use crate::codex::Failure;
use crate::codex::limits::Limits;
use crate::codex::sse::Frame;
use crate::store::{AccountId, GatewayKey};
use std::sync::Arc;

/// What answers teach about the account that gave them.
pub(super) trait Learn {
    /// How much of the account is used.
    fn limits(&self, limits: &Limits);

    /// The answer failed after it had begun: too late for this request, but not for the next.
    fn failed(&self, failure: &Failure);

    /// What the client is told of limits, in place of what the backend says of the account; `None`
    /// for nothing.
    fn pooled(&self) -> Option<Frame>;
}

/// Teaches the directory about one account, on behalf of one key.
pub(super) struct Lesson {
    accounts: Arc<Accounts>,
    notices: Arc<Notices>,
    key: Arc<GatewayKey>,
    id: AccountId,
    model: String,
    defaults: Defaults,
}

impl Learn for Lesson {
    fn limits(&self, limits: &Limits) {
        self.accounts.note_limits(self.id, limits, Source::Answer, Some(&self.model));
    }

    fn failed(&self, failure: &Failure) {
        if !is_our_own(failure) {
            self.accounts.suffer(self.id, remedy(failure.kind).account, failure, Some(&self.model), self.defaults);
        }
    }

    fn pooled(&self) -> Option<Frame> {
        self.notices.of(&self.key.accounts).event()
    }
}

impl Relay {
    pub(super) fn lesson(&self, id: AccountId, key: &Arc<GatewayKey>, model: &str) -> Lesson {
        Lesson {
            accounts: self.accounts.clone(),
            notices: self.notices.clone(),
            key: key.clone(),
            id,
            model: model.to_owned(),
            defaults: self.options.defaults,
        }
    }
}
