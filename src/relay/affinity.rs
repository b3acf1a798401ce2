//! Which account a conversation lives on. Encrypted reasoning and the prompt cache belong to the
//! account that made them (lessons.md 6, 7), so a conversation stays where it is while that account
//! may serve it. Bounded in number and in time.

use crate::store::{AccountId, KeyId};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a conversation is remembered after its last turn.
const LIFETIME: Duration = Duration::from_hours(1);
/// How many conversations are remembered; at 40 bytes each.
const CAPACITY: usize = 100_000;

/// Sessions and their accounts. A session is scoped by its key, so that tenants cannot meet.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    /// By the hash of key and session: the account, and when the conversation was last there.
    homes: Mutex<HashMap<u64, (AccountId, Instant)>>,
}

impl Affinity {
    /// Where the conversation lives, if that is known.
    pub(super) fn home(&self, key: KeyId, session: &str, now: Instant) -> Option<AccountId> {
        let homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let (account, last) = homes.get(&place(key, session))?;
        (now.duration_since(*last) < LIFETIME).then_some(*account)
    }

    /// The conversation was served by `account`.
    pub(super) fn settle(&self, key: KeyId, session: &str, account: AccountId, now: Instant) {
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        if homes.len() >= CAPACITY {
            homes.retain(|_, (_, last)| now.duration_since(*last) < LIFETIME);
        }
        if homes.len() >= CAPACITY {
            // All of them live: forget the older half rather than refuse the newest.
            let mut times: Vec<_> = homes.values().map(|(_, last)| *last).collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            homes.retain(|_, (_, last)| *last > median);
        }
        homes.insert(place(key, session), (account, now));
    }
}

fn place(key: KeyId, session: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, session).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_found_by_its_own_key_only_and_not_for_ever() {
        let (affinity, now) = (Affinity::default(), Instant::now());
        let (ada, bob, account) = (KeyId::new(), KeyId::new(), AccountId::new());
        affinity.settle(ada, "s", account, now);
        assert_eq!(affinity.home(ada, "s", now), Some(account));
        assert_eq!(affinity.home(bob, "s", now), None);
        assert_eq!(affinity.home(ada, "s", now + LIFETIME), None);
    }

    #[test]
    fn the_number_of_conversations_is_bounded() {
        let (affinity, now, key) = (Affinity::default(), Instant::now(), KeyId::new());
        for n in 0..CAPACITY + 10 {
            affinity.settle(key, &n.to_string(), AccountId::new(), now + Duration::from_nanos(n as u64));
        }
        assert!(affinity.homes.lock().expect("not poisoned").len() <= CAPACITY);
        assert!(affinity.home(key, &(CAPACITY + 9).to_string(), now).is_some());
    }
}
