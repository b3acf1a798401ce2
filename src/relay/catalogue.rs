//! The model catalogue: asked of an account that the key may use, kept for a while, and an old one
//! rather than none when the backend does not answer.

use super::{Relay, without_token};
use crate::account::pool::Reason;
use crate::codex::Failure;
use crate::codex::client::{Caller, Catalogue};
use crate::dialect::{Problem, ProblemKind};
use crate::store::{AccountId, GatewayKey};
use bytes::Bytes;
use http::HeaderValue;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A catalogue as the backend gave it.
#[derive(Debug, Clone)]
pub struct Listing {
    /// `{"models":[…]}`.
    pub body: Bytes,
    /// Its entity tag.
    pub etag: Option<HeaderValue>,
    fetched: Instant,
}

/// Catalogues by account and client version. Client versions come from clients: bounded.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    listings: Mutex<HashMap<(AccountId, Option<String>), Listing>>,
}

const CAPACITY: usize = 1024;

impl Shelf {
    fn get(&self, at: &(AccountId, Option<String>)) -> Option<Listing> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).get(at).cloned()
    }

    fn put(&self, at: (AccountId, Option<String>), listing: Listing) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if listings.len() >= CAPACITY {
            listings.clear();
        }
        listings.insert(at, listing);
    }
}

impl Relay {
    /// The catalogue for this key; `client_version` is the Codex CLI's own, where it asks.
    pub async fn catalogue(&self, key: &GatewayKey, client_version: Option<&str>) -> Result<Listing, Problem> {
        let version = client_version.filter(|v| v.len() <= 32).map(str::to_owned);
        let choice = self.look(key);
        // An account that is limited still knows its models.
        let limited = choice
            .excluded
            .iter()
            .filter(|(_, reason)| matches!(reason, Reason::Limited(_) | Reason::Cooling(_)))
            .map(|(id, _)| *id);
        let mut failure = None;
        for id in choice.ordered.iter().copied().chain(limited).take(2) {
            match self.listing(id, version.clone()).await {
                Ok(listing) => return Ok(listing),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.map_or_else(
            || Problem::new(ProblemKind::NoAccount, "No account that this key may use is able to serve"),
            |failure| Problem::from(&failure),
        ))
    }

    async fn listing(&self, id: AccountId, version: Option<String>) -> Result<Listing, Failure> {
        let at = (id, version);
        let kept = self.shelf.get(&at);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.fetched.elapsed() < self.options.models_ttl) {
            return Ok(kept.clone());
        }
        match self.fetch(&at, kept.as_ref().and_then(|k| k.etag.as_ref())).await {
            Ok(Catalogue::Fresh { body, etag }) => {
                let listing = Listing { body, etag, fetched: Instant::now() };
                self.shelf.put(at, listing.clone());
                Ok(listing)
            }
            Ok(Catalogue::NotModified) => match kept {
                Some(kept) => {
                    let listing = Listing { fetched: Instant::now(), ..kept };
                    self.shelf.put(at, listing.clone());
                    Ok(listing)
                }
                None => Err(Failure::of(crate::codex::FailureKind::ServerError, "the backend has no model catalogue")),
            },
            Err(failure) => kept.ok_or(failure),
        }
    }

    async fn fetch(
        &self,
        (id, version): &(AccountId, Option<String>),
        etag: Option<&HeaderValue>,
    ) -> Result<Catalogue, Failure> {
        let gone = || Failure::of(crate::codex::FailureKind::Connection, "the account was removed");
        let member = self.accounts.get(*id).ok_or_else(gone)?;
        let credentials = member.manager.credentials().await.map_err(|error| without_token(&error))?;
        let account = member.manager.snapshot().account.clone();
        let caller = Caller {
            access_token: &credentials.access_token,
            chatgpt_account_id: &account.chatgpt_account_id,
            fedramp: account.fedramp,
        };
        tokio::time::timeout(FETCH_LIMIT, self.client.models(caller, version.as_deref(), etag)).await.unwrap_or_else(
            |_| Err(Failure::of(crate::codex::FailureKind::Timeout, "the backend did not answer in time")),
        )
    }
}

/// Claude Code gives up on a model list after three seconds (clients.md 1.1).
const FETCH_LIMIT: Duration = Duration::from_millis(2500);
