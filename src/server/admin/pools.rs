//! Pools, and why accounts are chosen.

use super::Admin;
use super::accounts::tags;
use super::caller::{As, RunsAll, SeesAll};
use super::extract::{self, Answer, Body, List, Page, Params, Seen, json, merge, versioned};
use super::problem::Fault;
use super::tenants::{known, text};
use crate::server::assemble::unix_millis;
use crate::store::{AccountId, DecisionFilter, Pool, PoolDraft, PoolId, Store, Strategy};
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as value};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// A pool of accounts.
#[derive(Serialize, ToSchema)]
#[schema(as = Pool)]
pub(super) struct PoolView {
    #[schema(value_type = String, format = "uuid")]
    id: PoolId,
    /// What operators call it; unique.
    name: String,
    /// `quota`, `round_robin`, `fill_first`, `least_loaded`.
    strategy: &'static str,
    /// Every account with one of these tags belongs to it.
    tags: BTreeSet<String>,
    /// Accounts that belong to it by themselves.
    #[schema(value_type = Vec<String>)]
    accounts: BTreeSet<AccountId>,
    /// All accounts that belong to it.
    #[schema(value_type = Vec<String>)]
    members: Vec<AccountId>,
    /// Goes up with each change.
    version: i64,
    /// Unix milliseconds.
    created_at: i64,
}

/// A pool to be made, or what is changed of one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; bodies are merged as JSON")]
pub(super) struct PoolBody {
    /// 1 to 200 characters; needed to make one.
    name: Option<String>,
    /// `quota`, `round_robin`, `fill_first`, `least_loaded`.
    strategy: Option<String>,
    /// One word each.
    tags: Option<Vec<String>>,
    /// By id, name or email.
    accounts: Option<Vec<String>>,
}

impl From<Pool> for PoolView {
    fn from(pool: Pool) -> Self {
        let Pool { id, name, strategy, tags, accounts, members, version, created_at } = pool;
        Self { id, name, strategy: strategy.as_str(), tags, accounts, members, version, created_at }
    }
}

async fn draft(store: &Store, body: &Value) -> Result<PoolDraft, Fault> {
    known(body, &["name", "strategy", "tags", "accounts"])?;
    let mut accounts = BTreeSet::new();
    match &body["accounts"] {
        Value::Null => {}
        Value::Array(list) => {
            for asked in list {
                accounts.insert(store.accounts().find(asked.as_str().unwrap_or_default()).await?.id);
            }
        }
        _ => return Err(Fault::value("accounts: expected a list")),
    }
    let strategy = match text(body, "strategy")? {
        None => Strategy::default(),
        Some(name) => name.parse().map_err(|error| Fault::value(format!("strategy: {error}")))?,
    };
    Ok(PoolDraft {
        name: extract::name(&text(body, "name")?.unwrap_or_default())?,
        strategy,
        tags: if body["tags"].is_null() { BTreeSet::new() } else { tags(&body["tags"])? },
        accounts,
    })
}

/// All pools
#[utoipa::path(get, path = "/pools", tag = "Pools", params(Page), responses((status = 200, description = "A page", body = List<PoolView>)))]
pub(super) async fn list(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>, Params(page): Params<Page>) -> Answer {
    let pools = admin.store.pools().list().await?;
    json(StatusCode::OK, &page.of(pools.into_iter().map(PoolView::from).collect(), |pool| pool.id.to_string())?)
}

/// Make a pool
#[utoipa::path(post, path = "/pools", tag = "Pools", request_body = PoolBody, responses((status = 201, description = "Made", body = PoolView)))]
pub(super) async fn create(caller: As<RunsAll>, Shared(admin): Shared<Arc<Admin>>, Body(body): Body<Value>) -> Answer {
    let store = caller.store(&admin);
    let pool = store.pools().create(draft(&store, &body).await?, unix_millis()).await?;
    versioned(StatusCode::CREATED, pool.version, &PoolView::from(pool))
}

/// One pool
#[utoipa::path(get, path = "/pools/{pool}", tag = "Pools", params(("pool" = String, Path, description = "Id or name")), responses((status = 200, description = "The pool", body = PoolView)))]
pub(super) async fn get(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let pool = admin.store.pools().find(&asked).await?;
    versioned(StatusCode::OK, pool.version, &PoolView::from(pool))
}

/// Change a pool
#[utoipa::path(patch, path = "/pools/{pool}", tag = "Pools", params(("pool" = String, Path, description = "Id or name")), request_body(content = PoolBody, content_type = "application/merge-patch+json"), responses((status = 200, description = "Changed", body = PoolView)))]
pub(super) async fn patch(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Seen(seen): Seen,
    Body(patch): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    let old = store.pools().find(&asked).await?;
    known(&patch, &["name", "strategy", "tags", "accounts"])?;
    let draft = draft(&store, &merge(value!(old.draft()), patch)).await?;
    let pool = store.pools().update(old.id, &draft, seen.or(Some(old.version))).await?;
    versioned(StatusCode::OK, pool.version, &PoolView::from(pool))
}

/// Forget a pool that no usable key is bound to
#[utoipa::path(delete, path = "/pools/{pool}", tag = "Pools", params(("pool" = String, Path, description = "Id or name")), responses((status = 204, description = "Removed")))]
pub(super) async fn delete(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    seen: Seen,
) -> Answer {
    let store = caller.store(&admin);
    let pool = store.pools().find(&asked).await?;
    seen.is_still("pool", pool.version)?;
    store.pools().remove(pool.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A request that is not sent.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainQuery {
    /// The key it would come with: id, name or visible start.
    key: String,
    /// The model it would ask for, by its own name.
    model: Option<String>,
    /// What its client calls the conversation.
    session: Option<String>,
    /// Do not ask the backend first which models accounts offer.
    #[serde(default)]
    #[param(required = false)]
    offline: bool,
}

/// Which account a request would get, and why, without sending it
#[utoipa::path(get, path = "/explain", tag = "Pools", params(ExplainQuery), responses((status = 200, description = "The decision", body = Value)))]
pub(super) async fn explain(
    _: As<SeesAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(query): Params<ExplainQuery>,
) -> Answer {
    let key = admin.store.keys().find(&query.key).await?;
    let relay = &admin.live.parts(&admin.store).await?.relay;
    if !query.offline && query.model.is_some() {
        let survey = relay.survey_models(std::time::Instant::now());
        // What is not known by then counts as offered, as in a server that has just started.
        let _ = tokio::time::timeout(Duration::from_secs(5), survey).await;
    }
    json(StatusCode::OK, &relay.explain(&key, query.model.as_deref(), query.session.as_deref()))
}

/// Which decisions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DecisionQuery {
    /// Of this request.
    request: Option<String>,
    /// Of this key: id, name or visible start.
    key: Option<String>,
    /// The newest so many, 20 if left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Why past requests got their accounts, the newest first
#[utoipa::path(get, path = "/decisions", tag = "Pools", params(DecisionQuery), responses((status = 200, description = "Decisions", body = Value)))]
pub(super) async fn decisions(
    _: As<SeesAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(query): Params<DecisionQuery>,
) -> Answer {
    let key = match &query.key {
        Some(asked) => Some(admin.store.keys().find(asked).await?.id),
        None => None,
    };
    let limit = Page::new(query.limit.or(Some(20)), None).limit()?;
    let filter = DecisionFilter { request_id: query.request, key };
    let found = admin.store.decisions().list(&filter, limit).await?;
    let shown = found.into_iter().map(|decision| {
        let mut content: Value = serde_json::from_str(&decision.content).unwrap_or_default();
        content["request_id"] = Value::from(decision.request_id);
        content["key_id"] = Value::from(decision.key.to_string());
        content["at"] = Value::from(decision.at);
        content
    });
    json(StatusCode::OK, &value!({"data": shown.collect::<Vec<_>>()}))
}
