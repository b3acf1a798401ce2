//! What the backend's catalogues were when they were last asked for, and what follows from them for keys.

use super::catalogue::Listing;
use crate::account::pool::Candidate;
use crate::dialect::catalogue::Slugs;
use crate::store::{AccountId, AccountScope, GatewayKey, IdMap, KeyId};
use http::{HeaderMap, HeaderValue};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How old what is known beside the requests may become.
const SURVEY: Duration = Duration::from_hours(1);
/// How soon the survey asks again where it got no answer.
const AGAIN: Duration = Duration::from_secs(30);
/// Catalogues of client versions: clients can send any.
const VERSIONS: usize = 1024;
/// Keys whose models are remembered.
const KEYS: usize = 10_000;
/// How soon a key's models follow an account that begins or ceases to count without anybody's doing.
const RECENT: Duration = Duration::from_secs(1);

/// Catalogues by account, and by client version where a Codex CLI asked.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    own: Mutex<IdMap<AccountId, Listing>>,
    versions: Mutex<HashMap<(AccountId, String), Listing>>,
    /// Goes up with each catalogue that is put into `own`.
    version: AtomicU64,
    /// When the survey last asked for an account's catalogue.
    asked: Mutex<HashMap<AccountId, Instant>>,
    /// The tag of the last merged catalogue that a key's clients were given, where it is our own.
    tags: Mutex<IdMap<KeyId, HeaderValue>>,
    /// What keys were found to be served.
    served: Mutex<IdMap<KeyId, Served>>,
}

/// The catalogues of a key's accounts; `None` where one of them is not known.
pub(super) type Catalogues = Option<Arc<[Slugs]>>;

/// What a key was found to be served, and what that was found from.
#[derive(Debug)]
struct Served {
    catalogues: Catalogues,
    scope: AccountScope,
    accounts: u64,
    shelf: u64,
    found: Instant,
}

impl Shelf {
    pub(super) fn get(&self, (id, version): &(AccountId, Option<String>)) -> Option<Listing> {
        match version {
            None => lock(&self.own).get(id).cloned(),
            Some(version) => lock(&self.versions).get(&(*id, version.clone())).cloned(),
        }
    }

    pub(super) fn put(&self, (id, version): (AccountId, Option<String>), mut listing: Listing) {
        if let Some(version) = version {
            let mut versions = lock(&self.versions);
            if versions.len() >= VERSIONS {
                versions.clear();
            }
            versions.insert((id, version), listing);
            return;
        }
        let mut own = lock(&self.own);
        // Accounts of one plan have one catalogue: it is there once, and looked through once.
        if let Some(same) = own.values().find(|other| other.slugs == listing.slugs) {
            listing.slugs = same.slugs.clone();
        }
        own.insert(id, listing);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Forgets the accounts that are no more.
    pub(super) fn retain(&self, is_there: impl Fn(AccountId) -> bool) {
        lock(&self.own).retain(|id, _| is_there(*id));
        lock(&self.versions).retain(|(id, _), _| is_there(*id));
        lock(&self.asked).retain(|id, _| is_there(*id));
    }

    /// The catalogues of these accounts, each once; `None` where one is not known.
    pub(super) fn catalogues(&self, ids: &[AccountId]) -> Catalogues {
        if ids.is_empty() {
            return None;
        }
        let own = lock(&self.own);
        let mut found: Vec<Slugs> = Vec::new();
        for id in ids {
            let slugs = &own.get(id)?.slugs;
            if !found.iter().any(|other| Arc::ptr_eq(other, slugs)) {
                found.push(slugs.clone());
            }
        }
        Some(found.into())
    }

    /// What a key is served: what `find` finds, unless that was found a moment ago and nothing has
    /// changed since. `accounts` counts the changes of the directory.
    pub(super) fn served(&self, key: &GatewayKey, accounts: u64, find: impl FnOnce() -> Catalogues) -> Catalogues {
        let version = self.version.load(Ordering::Acquire);
        let is_valid = |known: &&Served| {
            (known.accounts, known.shelf) == (accounts, version)
                && known.found.elapsed() < RECENT
                && known.scope == key.accounts
        };
        if let Some(known) = lock(&self.served).get(&key.id).filter(is_valid) {
            return known.catalogues.clone();
        }
        let catalogues = find();
        let (scope, found) = (key.accounts.clone(), Instant::now());
        let mut served = lock(&self.served);
        if served.len() >= KEYS {
            served.clear();
        }
        served.insert(key.id, Served { catalogues: catalogues.clone(), scope, accounts, shelf: version, found });
        catalogues
    }

    /// Marks the accounts that are known not to list this model.
    pub(super) fn mark_lacking(&self, candidates: &mut [Candidate], slug: &str) {
        let own = lock(&self.own);
        let mut last: Option<(&Slugs, bool)> = None;
        for candidate in candidates {
            let Some(Listing { slugs, .. }) = own.get(&candidate.id) else { continue };
            let lacks = match last {
                Some((seen, lacks)) if Arc::ptr_eq(seen, slugs) => lacks,
                _ => !slugs.contains(slug),
            };
            last = Some((slugs, lacks));
            candidate.lacks_model |= lacks;
        }
    }

    /// A Codex CLI reads its models again when an answer names another tag than its own: where it
    /// has a merged catalogue, the tag of one account would make it do so after every answer.
    pub(super) fn label(&self, key: KeyId, headers: &mut HeaderMap) {
        if let (Some(named), Some(tag)) = (headers.get_mut("x-models-etag"), lock(&self.tags).get(&key)) {
            *named = tag.clone();
        }
    }

    pub(super) fn note_tag(&self, key: KeyId, tag: Option<HeaderValue>) {
        let mut tags = lock(&self.tags);
        match tag {
            Some(tag) => drop(tags.insert(key, tag)),
            None => drop(tags.remove(&key)),
        }
    }

    /// Whether the survey is to ask now; notes that it does.
    pub(super) fn is_due(&self, id: AccountId, now: Instant) -> bool {
        let known = lock(&self.own).get(&id).is_some_and(|listing| listing.fetched.elapsed() < SURVEY);
        let mut asked = lock(&self.asked);
        let due = !known && asked.get(&id).is_none_or(|at| now.duration_since(*at) >= AGAIN);
        if due {
            asked.insert(id, now);
        }
        due
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn listing(slugs: &[&str]) -> Listing {
        let slugs = Arc::new(slugs.iter().map(|slug| (*slug).to_owned()).collect());
        Listing { body: Bytes::new(), etag: None, slugs, fetched: Instant::now() }
    }

    #[test]
    fn equal_catalogues_are_one_and_an_unknown_one_makes_all_unknown() {
        let (shelf, ids) = (Shelf::default(), [AccountId::new(), AccountId::new(), AccountId::new()]);
        shelf.put((ids[0], None), listing(&["a", "b"]));
        shelf.put((ids[1], None), listing(&["a", "b"]));
        assert_eq!(shelf.catalogues(&ids[..2]).map(|all| all.len()), Some(1));
        assert_eq!(shelf.catalogues(&ids), None);
        shelf.put((ids[2], None), listing(&["b"]));
        assert_eq!(shelf.catalogues(&ids).map(|all| all.len()), Some(2));
        assert_eq!(shelf.catalogues(&[]), None);
        let mut candidates: Vec<_> = ids.iter().map(|id| Candidate::new(*id)).collect();
        shelf.mark_lacking(&mut candidates, "a");
        assert_eq!(candidates.iter().map(|one| one.lacks_model).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn what_a_key_is_served_is_found_again_when_anything_has_changed() {
        let (shelf, id) = (Shelf::default(), AccountId::new());
        let mut key = crate::tenant::testing::key(crate::store::Limits::default(), None, None);
        let found = std::cell::Cell::new(0);
        let find = |_: &GatewayKey| {
            found.set(found.get() + 1);
            shelf.catalogues(&[id])
        };
        let ask = |key: &GatewayKey, accounts| shelf.served(key, accounts, || find(key));
        assert_eq!((ask(&key, 0), ask(&key, 0), found.get()), (None, None, 1));
        shelf.put((id, None), listing(&["a"]));
        assert!(ask(&key, 0).is_some() && found.get() == 2, "a catalogue");
        assert!(ask(&key, 1).is_some() && found.get() == 3, "the directory");
        key.accounts = AccountScope::only([id]);
        assert!(ask(&key, 1).is_some() && found.get() == 4, "the key's accounts");
        assert!(ask(&key, 1).is_some() && found.get() == 4, "nothing");
    }
}
