//! Gateway keys. A new key is shown once, in the answer that made it.

use super::Admin;
use super::caller::{As, Caller, Runs, Sees};
use super::extract::{self, Answer, Body, List, Page, Params, Seen, json, merge, versioned};
use super::limits::{self, LimitsShape};
use super::problem::Fault;
use super::tenants::{hidden, known, team_of, text, user_of};
use crate::server::assemble::unix_millis;
use crate::server::standing;
use crate::store::{AccountId, AccountScope, GatewayKey, KeyChange, KeyId, Limits, NewKey, Right, Rights, Store};
use crate::tenant::{KeyDigest, KeySecret};
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as value};
use std::sync::Arc;
use utoipa::ToSchema;

/// A gateway key.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(super) struct KeyView {
    #[schema(value_type = String, format = "uuid")]
    id: KeyId,
    /// Whose it is.
    name: String,
    /// The visible start of the key.
    prefix: String,
    /// The accounts that it may use, after all limits; null for all.
    #[schema(value_type = Option<Vec<String>>)]
    accounts: Option<Vec<AccountId>>,
    /// The accounts that it was bound to when it was made; null for all, or where a pool is named.
    #[schema(value_type = Option<Vec<String>>)]
    bound_to: Option<Vec<AccountId>>,
    /// The pool that it is bound to.
    pool: Option<String>,
    /// What it may do besides asking models.
    rights: Vec<&'static str>,
    /// The name of the user it belongs to.
    user: Option<String>,
    /// The name of the team it belongs to.
    team: Option<String>,
    /// Its own limits.
    #[schema(value_type = LimitsShape)]
    limits: Limits,
    /// Goes up with each change.
    version: i64,
    /// Unix milliseconds.
    created_at: i64,
    /// Unix milliseconds; from then on it is refused.
    expires_at: Option<i64>,
    /// Unix milliseconds.
    revoked_at: Option<i64>,
    /// The key that takes its place.
    #[schema(value_type = Option<String>, format = "uuid")]
    rotated_to: Option<KeyId>,
    /// Unix milliseconds, roughly.
    last_used_at: Option<i64>,
    /// The key itself: in the answer that made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// A key to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; bodies are read as JSON")]
pub(super) struct NewKeyBody {
    /// 1 to 200 characters.
    name: String,
    /// The hash of a key that its holder has already, as `tollway key hash` prints it; without one,
    /// a key is made and shown.
    hash: Option<String>,
    /// The accounts it may use, by id, name or email; all if left out.
    accounts: Option<Vec<String>>,
    /// The pool it is bound to, by id or name, in the place of accounts.
    pool: Option<String>,
    /// `auth:refresh`, `accounts:email`.
    rights: Option<Vec<String>>,
    /// The user it belongs to, by id, name or email.
    user: Option<String>,
    /// The team it belongs to, by id or name, if to no user.
    team: Option<String>,
    /// Its own limits.
    limits: Option<LimitsShape>,
    /// Unix milliseconds; from then on it is refused.
    expires_at: Option<i64>,
}

/// What is changed of a key.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; bodies are merged as JSON")]
pub(super) struct KeyPatch {
    /// 1 to 200 characters.
    name: Option<String>,
    /// `auth:refresh`, `accounts:email`.
    rights: Option<Vec<String>>,
    /// Its own limits.
    limits: Option<LimitsShape>,
    /// Unix milliseconds; null for never.
    expires_at: Option<i64>,
}

/// How a key is replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateBody {
    /// How long the old key goes on working, seconds; a day if left out.
    #[serde(default = "a_day")]
    #[schema(minimum = 0, maximum = 31_536_000)]
    grace_seconds: u32,
}

fn a_day() -> u32 {
    86_400
}

pub(super) fn view(key: GatewayKey, secret: Option<&KeySecret>) -> KeyView {
    KeyView {
        accounts: match key.accounts {
            AccountScope::All => None,
            AccountScope::Only(ids) => Some(ids.to_vec()),
        },
        bound_to: match key.bound_to {
            AccountScope::Only(ids) if key.pool.is_none() => Some(ids.to_vec()),
            _ => None,
        },
        pool: key.pool.map(|pool| pool.name),
        rights: key.rights.iter().map(|right| right.as_str()).collect(),
        user: key.user.map(|user| user.name.clone()),
        team: key.team.map(|team| team.name.clone()),
        id: key.id,
        name: key.name,
        prefix: key.prefix,
        limits: key.limits,
        version: key.version,
        created_at: key.created_at,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
        rotated_to: key.rotated_to,
        last_used_at: key.last_used_at,
        secret: secret.map(|secret| secret.reveal().to_owned()),
    }
}

/// The key that `asked` means, by its hash too, if the caller may see it.
pub(super) async fn key_of(caller: &Caller, store: &Store, asked: &str) -> Result<GatewayKey, Fault> {
    let key = match asked.parse::<KeyDigest>() {
        Ok(digest) => {
            let key = store.keys().by_hash(&digest.hash(store.pepper().await?.expose_secret())).await?;
            key.ok_or_else(|| Fault::not_found("key", asked))?
        }
        Err(_) => store.keys().find(asked).await.map_err(|error| hidden(caller, error.into(), "key", asked))?,
    };
    let team = key.team.as_ref().map(|team| team.id);
    if caller.sees(team) { Ok(key) } else { Err(Fault::not_found("key", asked)) }
}

fn rights(body: &Value) -> Result<Rights, Fault> {
    let list = match &body["rights"] {
        Value::Null => return Ok(Rights::new()),
        Value::Array(list) => list,
        _ => return Err(Fault::value("rights: expected a list")),
    };
    let right = |one: &Value| one.as_str().unwrap_or_default().parse::<Right>();
    list.iter().map(right).collect::<Result<_, _>>().map_err(|error| Fault::value(format!("rights: {error}")))
}

fn moment(body: &Value, field: &str) -> Result<Option<i64>, Fault> {
    match &body[field] {
        Value::Null => Ok(None),
        one => one.as_i64().map(Some).ok_or_else(|| Fault::value(format!("{field}: expected Unix milliseconds"))),
    }
}

/// What those of one team may not say of a key, for accounts and pools are none of theirs.
fn within_team(caller: &Caller, body: &Value) -> Result<(), Fault> {
    let limits = &body["limits"];
    let foreign = [&body["accounts"], &body["pool"], &limits["accounts"], &limits["pools"]];
    if caller.team.is_some() && foreign.iter().any(|one| !one.is_null()) {
        return Err(Fault::new("forbidden", "accounts and pools are for those who see the whole gateway"));
    }
    Ok(())
}

/// The hash of a key that somebody has already.
fn declared(body: &Value) -> Result<Option<KeyDigest>, Fault> {
    let hash = text(body, "hash")?.map(|hash| hash.parse::<KeyDigest>());
    hash.transpose().map_err(|error| Fault::value(format!("hash: {error}")))
}

async fn draft(
    caller: &Caller,
    store: &Store,
    body: &Value,
    prefix: String,
    digest: KeyDigest,
) -> Result<NewKey, Fault> {
    known(body, &["name", "hash", "accounts", "pool", "rights", "user", "team", "limits", "expires_at"])?;
    within_team(caller, body)?;
    let mut ids = Vec::new();
    for asked in body["accounts"].as_array().into_iter().flatten() {
        ids.push(store.accounts().find(asked.as_str().unwrap_or_default()).await?.id);
    }
    let user = match text(body, "user")? {
        Some(asked) => Some(user_of(caller, store, &asked).await?.id),
        None => None,
    };
    let team = match text(body, "team")? {
        Some(asked) => Some(team_of(caller, store, &asked).await?.id),
        None => caller.team,
    };
    if !matches!(body["accounts"], Value::Null | Value::Array(_)) {
        return Err(Fault::value("accounts: expected a list"));
    }
    if !ids.is_empty() && !body["pool"].is_null() {
        return Err(Fault::value("pool: a key is bound to accounts or to a pool, not to both"));
    }
    Ok(NewKey {
        name: extract::name(&text(body, "name")?.unwrap_or_default())?,
        prefix,
        hash: digest.hash(store.pepper().await?.expose_secret()),
        accounts: if ids.is_empty() { AccountScope::All } else { AccountScope::only(ids) },
        pool: match text(body, "pool")? {
            Some(asked) => Some(store.pools().find(&asked).await?.id),
            None => None,
        },
        rights: rights(body)?,
        team: team.filter(|_| user.is_none()),
        user,
        limits: limits::read(store, body["limits"].clone()).await?,
        expires_at: moment(body, "expires_at")?,
    })
}

fn mint() -> Result<KeySecret, Fault> {
    KeySecret::mint().map_err(|error| Fault::new("internal", error.to_string()))
}

/// All keys
#[utoipa::path(get, path = "/keys", tag = "Keys", params(Page), responses((status = 200, description = "A page", body = List<KeyView>)))]
pub(super) async fn list(caller: As<Sees>, Shared(admin): Shared<Arc<Admin>>, Params(page): Params<Page>) -> Answer {
    let keys = admin.store.keys().list().await?.into_iter();
    let keys = keys.filter(|key| caller.sees(key.team.as_ref().map(|team| team.id)));
    json(StatusCode::OK, &page.of(keys.map(|key| view(key, None)).collect(), |key| key.id.to_string())?)
}

/// Make a key, or let one in by its hash
#[utoipa::path(post, path = "/keys", tag = "Keys", request_body = NewKeyBody, responses((status = 201, description = "Made; the only time that the key is shown, unless it came by its hash", body = KeyView)))]
pub(super) async fn create(caller: As<Runs>, Shared(admin): Shared<Arc<Admin>>, Body(body): Body<Value>) -> Answer {
    let store = caller.store(&admin);
    if let Some(digest) = declared(&body)? {
        let new = draft(&caller, &store, &body, digest.prefix(), digest).await?;
        let key = store.keys().create(new, unix_millis()).await?;
        return versioned(StatusCode::CREATED, key.version, &view(key, None));
    }
    let secret = mint()?;
    let new = draft(&caller, &store, &body, secret.prefix().to_owned(), secret.digest()).await?;
    let key = store.keys().create(new, unix_millis()).await?;
    versioned(StatusCode::CREATED, key.version, &view(key, Some(&secret)))
}

/// One key
#[utoipa::path(get, path = "/keys/{key}", tag = "Keys", params(("key" = String, Path, description = "Id, name, visible start or hash")), responses((status = 200, description = "The key", body = KeyView)))]
pub(super) async fn get(caller: As<Sees>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let key = key_of(&caller, &admin.store, &asked).await?;
    versioned(StatusCode::OK, key.version, &view(key, None))
}

/// Change a key
#[utoipa::path(patch, path = "/keys/{key}", tag = "Keys", params(("key" = String, Path, description = "Id, name, visible start or hash")), request_body(content = KeyPatch, content_type = "application/merge-patch+json"), responses((status = 200, description = "Changed", body = KeyView)))]
pub(super) async fn patch(
    caller: As<Runs>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Seen(seen): Seen,
    Body(patch): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    let old = key_of(&caller, &store, &asked).await?;
    known(&patch, &["name", "rights", "limits", "expires_at"])?;
    within_team(&caller, &patch)?;
    if caller.team.is_some()
        && (old.limits.accounts.is_some() || old.limits.pools.is_some())
        && patch.get("limits").is_some()
    {
        return Err(Fault::new("forbidden", "these limits name accounts or pools; they are for those who see them"));
    }
    let rights_now: Vec<_> = old.rights.iter().map(|right| right.as_str()).collect();
    let now = value!({"name": old.name, "rights": rights_now, "limits": old.limits, "expires_at": old.expires_at});
    let body = merge(now, patch);
    let change = KeyChange {
        name: Some(extract::name(&text(&body, "name")?.unwrap_or_default())?),
        rights: Some(rights(&body)?),
        limits: Some(limits::read(&store, body["limits"].clone()).await?),
        expires_at: Some(moment(&body, "expires_at")?),
    };
    store.keys().update(old.id, &change, seen.or(Some(old.version))).await?;
    let key = store.keys().find(&old.id.to_string()).await?;
    versioned(StatusCode::OK, key.version, &view(key, None))
}

/// Revoke a key for good; it stays in lists
#[utoipa::path(delete, path = "/keys/{key}", tag = "Keys", params(("key" = String, Path, description = "Id, name, visible start or hash")), responses((status = 200, description = "Revoked, now or before", body = KeyView)))]
pub(super) async fn revoke(
    caller: As<Runs>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    seen: Seen,
) -> Answer {
    let store = caller.store(&admin);
    let key = key_of(&caller, &store, &asked).await?;
    seen.is_still("key", key.version)?;
    store.keys().revoke(key.id, unix_millis()).await?;
    json(StatusCode::OK, &view(store.keys().find(&key.id.to_string()).await?, None))
}

/// Make a new key in the place of an old one, which goes on working for a while
#[utoipa::path(post, path = "/keys/{key}/rotate", tag = "Keys", params(("key" = String, Path, description = "Id, name, visible start or hash")), request_body = RotateBody, responses((status = 201, description = "The new key; the only time that it is shown", body = KeyView)))]
pub(super) async fn rotate(
    caller: As<Runs>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Body(body): Body<RotateBody>,
) -> Answer {
    let store = caller.store(&admin);
    let old = key_of(&caller, &store, &asked).await?;
    let (secret, now) = (mint()?, unix_millis());
    let new = NewKey {
        name: old.name.clone(),
        prefix: secret.prefix().to_owned(),
        hash: secret.digest().hash(store.pepper().await?.expose_secret()),
        accounts: old.bound_to.clone(),
        pool: old.pool.as_ref().map(|pool| pool.id),
        rights: old.rights.clone(),
        user: old.user.as_ref().map(|user| user.id),
        team: old.team.as_ref().map(|team| team.id),
        limits: old.limits.clone(),
        // The successor lives as long again as its predecessor was to live.
        expires_at: old.expires_at.map(|at| now.saturating_add(at.saturating_sub(old.created_at))),
    };
    let ends = now.saturating_add(i64::from(body.grace_seconds) * 1000);
    let key = store.keys().rotate(old.id, new, ends, now).await?;
    versioned(StatusCode::CREATED, key.version, &view(key, Some(&secret)))
}

/// How a key's limits stand at this moment, with its user's and its team's
#[utoipa::path(get, path = "/keys/{key}/standing", tag = "Keys", params(("key" = String, Path, description = "Id, name, visible start or hash")), responses((status = 200, description = "As its holder sees it at `/v1/me`", body = Value)))]
pub(super) async fn standing(caller: As<Sees>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let key = key_of(&caller, &admin.store, &asked).await?;
    let books = admin.live.books(&admin.store, &key).await?;
    json(StatusCode::OK, &standing::body(&key, &books.standings(&key), books.prices.currency()))
}
