//! The model catalogues: asked of each account that the key may use, kept for a while, and an old
//! one rather than none when the backend does not answer. What a client sees is all of them merged.

use super::routing::living;
use super::{Relay, without_token};
use crate::account::pool::Reason;
use crate::codex::client::Catalogue;
use crate::codex::{Failure, FailureKind};
use crate::dialect::catalogue::{self, Slugs};
use crate::dialect::{Problem, ProblemKind};
use crate::store::{AccountId, GatewayKey};
use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderValue;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A catalogue as the backend gave it, or several merged.
#[derive(Debug, Clone)]
pub struct Listing {
    /// `{"models":[…]}`.
    pub body: Bytes,
    /// Its entity tag.
    pub etag: Option<HeaderValue>,
    /// The slugs in it.
    pub(super) slugs: Slugs,
    pub(super) fetched: Instant,
}

/// Claude Code gives up on a model list after three seconds (clients.md 1.1).
const FETCH_LIMIT: Duration = Duration::from_millis(2500);
const AT_ONCE: usize = 8;
impl Relay {
    /// The catalogues of all accounts of this key, merged; `client_version` is the Codex CLI's own,
    /// where it asks.
    pub async fn catalogue(&self, key: &GatewayKey, client_version: Option<&str>) -> Result<Listing, Problem> {
        let version = client_version.filter(|v| v.len() <= 32).map(str::to_owned);
        let ids = self.sources(key);
        let asked = ids.into_iter().map(|id| self.listing(id, version.clone()));
        let answers: Vec<_> = futures_util::stream::iter(asked).buffered(AT_ONCE).collect().await;
        let (mut listings, mut failure) = (Vec::new(), None);
        for answer in answers {
            match answer {
                Ok(listing) => listings.push(listing),
                Err(error) => failure = Some(error),
            }
        }
        let Some(first) = listings.first() else {
            return Err(failure.map_or_else(
                || Problem::new(ProblemKind::NoAccount, "No account that this key may use is able to serve"),
                |failure| Problem::from(&failure),
            ));
        };
        if first.etag.is_some() && listings.iter().all(|one| one.etag == first.etag && one.slugs == first.slugs) {
            self.shelf.note_tag(key.id, None);
            return Ok(first.clone());
        }
        let merged = merge(&listings)?;
        self.shelf.note_tag(key.id, merged.etag.clone());
        Ok(merged)
    }

    /// What the accounts of a key are known to serve; `None` where one is not known. Asks nobody.
    pub fn served(&self, key: &GatewayKey) -> Option<Arc<[Slugs]>> {
        self.shelf.served(key, self.accounts.changes(), || self.shelf.catalogues(&self.sources(key)))
    }

    /// The accounts whose catalogues count: an account that is limited still knows its models.
    fn sources(&self, key: &GatewayKey) -> Vec<AccountId> {
        let choice = self.look(key, None);
        let aside = choice
            .excluded
            .iter()
            .filter(|(_, reason)| reason.until().is_some() || *reason == Reason::OnTrial)
            .map(|(id, _)| *id);
        let mut ids: Vec<_> = choice.ordered.iter().map(|ranked| ranked.id).chain(aside).collect();
        // One order, so that equal catalogues make equal lists.
        ids.sort_unstable();
        ids
    }

    /// Fetches the catalogues that are due, beside the requests.
    pub async fn survey_models(&self, now: Instant) {
        let members = self.accounts.members();
        self.shelf.retain(|id| members.contains_key(&id));
        let due = members.iter().filter(|(id, member)| living(member).is_some() && self.shelf.is_due(**id, now));
        let asked = due.map(|(id, _)| self.listing(*id, None));
        let asked: Vec<_> = asked.collect();
        futures_util::stream::iter(asked).buffer_unordered(AT_ONCE).for_each(|_| async {}).await;
    }

    async fn listing(&self, id: AccountId, version: Option<String>) -> Result<Listing, Failure> {
        let at = (id, version);
        let kept = self.shelf.get(&at);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.fetched.elapsed() < self.options.models_ttl) {
            return Ok(kept.clone());
        }
        match self.fetch(&at, kept.as_ref().and_then(|k| k.etag.as_ref())).await {
            Ok(Catalogue::Fresh { body, etag }) => match catalogue::slugs(&body) {
                Ok(slugs) => {
                    let listing = Listing { body, etag, slugs, fetched: Instant::now() };
                    self.shelf.put(at, listing.clone());
                    Ok(listing)
                }
                Err(_) => kept.ok_or_else(|| fault("the backend's model catalogue is not legible")),
            },
            Ok(Catalogue::NotModified) => match kept {
                Some(kept) => {
                    let listing = Listing { fetched: Instant::now(), ..kept };
                    self.shelf.put(at, listing.clone());
                    Ok(listing)
                }
                None => Err(fault("the backend has no model catalogue")),
            },
            Err(failure) => kept.ok_or(failure),
        }
    }

    async fn fetch(
        &self,
        (id, version): &(AccountId, Option<String>),
        etag: Option<&HeaderValue>,
    ) -> Result<Catalogue, Failure> {
        let gone = || Failure::of(FailureKind::Connection, "the account was removed");
        let member = self.accounts.get(*id).ok_or_else(gone)?;
        // A list of models is no reason to renew a token that still lives.
        let credentials = match living(&member) {
            Some(credentials) => credentials,
            None => member.manager.credentials().await.map_err(|error| without_token(&error))?,
        };
        let account = member.manager.snapshot().account.clone();
        let route = self.routing.of(*id);
        let caller = super::caller(&account, &credentials, route.as_deref());
        tokio::time::timeout(FETCH_LIMIT, self.client.models(caller, version.as_deref(), etag))
            .await
            .unwrap_or_else(|_| Err(Failure::of(FailureKind::Timeout, "the backend did not answer in time")))
    }
}

fn fault(message: &str) -> Failure {
    Failure::of(FailureKind::ServerError, message)
}

/// Every model once, as the first account that has it describes it.
fn merge(listings: &[Listing]) -> Result<Listing, Problem> {
    let illegible = |_| Problem::new(ProblemKind::Upstream, "The backend's model catalogue is not legible");
    let bodies: Vec<_> = listings.iter().map(|listing| &listing.body[..]).collect();
    let body = Bytes::from(catalogue::merge(&bodies).map_err(illegible)?);
    let slugs = catalogue::slugs(&body).map_err(illegible)?;
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let etag = HeaderValue::try_from(format!("W/\"tollway-{:016x}\"", hasher.finish())).ok();
    Ok(Listing { body, etag, slugs, fetched: Instant::now() })
}
