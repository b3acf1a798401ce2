//! Which accounts a key may use.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::AccountId;

/// Which accounts a key may use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AccountScope {
    /// Every account, also those added later.
    All,
    /// These and no others; none at all when they were all removed.
    Only(AccountSet),
}

impl AccountScope {
    /// These and no others.
    pub fn only(ids: impl IntoIterator<Item = AccountId>) -> Self {
        Self::Only(ids.into_iter().collect())
    }

    /// Whether the account is in it.
    pub fn allows(&self, id: AccountId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.has(id),
        }
    }
}

/// Accounts, each once and in order, so that one is found among many at once. A clone is the same set,
/// and is known to be equal without a look at what is in it.
#[derive(Debug, Clone, Default)]
pub struct AccountSet(Arc<[AccountId]>);

impl AccountSet {
    /// Whether the account is in it.
    pub fn has(&self, id: AccountId) -> bool {
        self.0.binary_search(&id).is_ok()
    }
}

impl FromIterator<AccountId> for AccountSet {
    fn from_iter<I: IntoIterator<Item = AccountId>>(ids: I) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids.into())
    }
}

impl Deref for AccountSet {
    type Target = [AccountId];

    fn deref(&self) -> &[AccountId] {
        &self.0
    }
}

impl PartialEq for AccountSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for AccountSet {}

impl Hash for AccountSet {
    /// Of the ends alone, which is quick however many there are. Sets that differ only between them are
    /// told apart by being compared.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.len(), self.0.first(), self.0.last()).hash(state);
    }
}

impl Serialize for AccountSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0[..].serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, RandomState};

    #[test]
    fn a_set_has_what_it_was_made_of_in_whatever_order_and_however_often() {
        let [a, b, c] = [(); 3].map(|()| AccountId::new());
        let scope = AccountScope::only([c, a, c]);
        assert_eq!([a, b, c].map(|id| scope.allows(id)), [true, false, true]);
        assert!(AccountScope::All.allows(b) && !AccountScope::only([]).allows(b));
        let again = AccountScope::only([a, c]);
        assert_eq!((&scope, &scope.clone()), (&again, &scope));
        let hasher = RandomState::new();
        assert_eq!(hasher.hash_one(&scope), hasher.hash_one(&again));
        assert_ne!(scope, AccountScope::only([a, b, c]));
        assert_ne!(AccountScope::only([]), AccountScope::All);
    }
}
