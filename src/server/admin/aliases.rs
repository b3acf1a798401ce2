//! Models by other names. Those of the settings are not here; of two of one name, the one here counts.

use super::Admin;
use super::caller::{As, RunsAll, SeesAll};
use super::extract::{self, Answer, Body, List, Page, Params, Seen, json, merge, versioned};
use super::problem::Fault;
use super::tenants::{known, text};
use crate::server::assemble::unix_millis;
use crate::store::{Alias, AliasDraft, AliasId};
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::{Value, json as value};
use std::sync::Arc;
use utoipa::ToSchema;

/// A model by another name.
#[derive(Serialize, ToSchema)]
#[schema(as = Alias)]
pub(super) struct AliasView {
    #[schema(value_type = String, format = "uuid")]
    id: AliasId,
    /// What clients ask for; unique. It may end in `*`.
    name: String,
    /// What they get: `slug` or `slug:effort`.
    target: String,
    /// Goes up with each change.
    version: i64,
    /// Unix milliseconds.
    created_at: i64,
}

/// An alias to be made, or what is changed of one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; bodies are merged as JSON")]
pub(super) struct AliasBody {
    /// 1 to 200 characters, of which the last may be `*`; needed to make one.
    name: Option<String>,
    /// `slug` or `slug:effort`; needed to make one.
    target: Option<String>,
}

impl From<Alias> for AliasView {
    fn from(alias: Alias) -> Self {
        let Alias { id, name, target, version, created_at } = alias;
        Self { id, name, target, version, created_at }
    }
}

fn draft(body: &Value) -> Result<AliasDraft, Fault> {
    known(body, &["name", "target"])?;
    let draft = AliasDraft {
        name: extract::name(&text(body, "name")?.unwrap_or_default())?,
        target: extract::line("target", text(body, "target")?.unwrap_or_default().trim())?,
    };
    match draft.fault() {
        None => Ok(draft),
        Some(fault) => Err(Fault::value(fault)),
    }
}

/// All aliases, but those of the settings
#[utoipa::path(get, path = "/aliases", tag = "Aliases", params(Page), responses((status = 200, description = "A page", body = List<AliasView>)))]
pub(super) async fn list(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>, Params(page): Params<Page>) -> Answer {
    let aliases = admin.store.aliases().list().await?.into_iter().map(AliasView::from).collect();
    json(StatusCode::OK, &page.of(aliases, |alias: &AliasView| alias.id.to_string())?)
}

/// Give a model another name
#[utoipa::path(post, path = "/aliases", tag = "Aliases", request_body = AliasBody, responses((status = 201, description = "Made", body = AliasView)))]
pub(super) async fn create(caller: As<RunsAll>, Shared(admin): Shared<Arc<Admin>>, Body(body): Body<Value>) -> Answer {
    let alias = caller.store(&admin).aliases().create(draft(&body)?, unix_millis()).await?;
    versioned(StatusCode::CREATED, alias.version, &AliasView::from(alias))
}

/// One alias
#[utoipa::path(get, path = "/aliases/{alias}", tag = "Aliases", params(("alias" = String, Path, description = "Id or name")), responses((status = 200, description = "The alias", body = AliasView)))]
pub(super) async fn get(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let alias = admin.store.aliases().find(&asked).await?;
    versioned(StatusCode::OK, alias.version, &AliasView::from(alias))
}

/// Change an alias
#[utoipa::path(patch, path = "/aliases/{alias}", tag = "Aliases", params(("alias" = String, Path, description = "Id or name")), request_body(content = AliasBody, content_type = "application/merge-patch+json"), responses((status = 200, description = "Changed", body = AliasView)))]
pub(super) async fn patch(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Seen(seen): Seen,
    Body(patch): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    let old = store.aliases().find(&asked).await?;
    known(&patch, &["name", "target"])?;
    let draft = draft(&merge(value!(old.draft()), patch))?;
    store.aliases().update(old.id, &draft, seen.or(Some(old.version))).await?;
    let alias = store.aliases().find(&old.id.to_string()).await?;
    versioned(StatusCode::OK, alias.version, &AliasView::from(alias))
}

/// Forget an alias
#[utoipa::path(delete, path = "/aliases/{alias}", tag = "Aliases", params(("alias" = String, Path, description = "Id or name")), responses((status = 204, description = "Removed")))]
pub(super) async fn delete(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Seen(seen): Seen,
) -> Answer {
    let store = caller.store(&admin);
    let alias = store.aliases().find(&asked).await?;
    store.aliases().remove(alias.id, seen).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
