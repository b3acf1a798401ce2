//! The gateway itself: who I am, admin keys, the audit log, settings and master keys.

use super::Admin;
use super::caller::{As, Caller, Owns, Sees, SeesAll};
use super::extract::{self, Answer, Body, List, Page, Params, json};
use super::problem::Fault;
use super::tenants::team_of;
use crate::server::assemble::unix_millis;
use crate::store::{AdminKey, AdminKeyId, AuditFilter, AuditRow, NewAdminKey, Role, Rotation, Store, TeamId};
use crate::telemetry::logs::Level;
use crate::tenant::KeySecret;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Who calls.
#[derive(Serialize, ToSchema)]
pub(super) struct MeView {
    id: String,
    name: String,
    /// `viewer`, `operator`, `owner`.
    role: &'static str,
    /// The only team whose objects are seen.
    #[schema(value_type = Option<String>, format = "uuid")]
    team_id: Option<TeamId>,
    /// What a page sends as X-CSRF-Token with changes, of a session.
    csrf_token: Option<String>,
    /// Unix milliseconds: when the session ends.
    expires_at: Option<i64>,
}

/// A key of the admin API.
#[derive(Serialize, ToSchema)]
#[schema(as = AdminKey)]
pub(super) struct AdminKeyView {
    #[schema(value_type = String, format = "uuid")]
    id: AdminKeyId,
    name: String,
    /// The visible start of the key.
    prefix: String,
    /// `viewer`, `operator`, `owner`.
    role: &'static str,
    /// The only team whose objects its holder sees.
    #[schema(value_type = Option<String>, format = "uuid")]
    team_id: Option<TeamId>,
    /// Unix milliseconds.
    created_at: i64,
    /// Unix milliseconds.
    expires_at: Option<i64>,
    /// Unix milliseconds.
    revoked_at: Option<i64>,
    /// The key itself: in the answer that made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// An admin key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminKeyBody {
    /// 1 to 200 characters.
    name: String,
    /// `viewer`, `operator`, `owner`.
    #[schema(value_type = String)]
    role: Role,
    /// The only team whose objects its holder sees, by id or name; an owner has none.
    team: Option<String>,
    /// Unix milliseconds.
    expires_at: Option<i64>,
}

/// A change.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditView {
    id: String,
    /// Unix milliseconds.
    at: i64,
    /// `admin_key:ID`, `person:SUBJECT`, `bootstrap`, `cli:USER`.
    actor: String,
    actor_name: String,
    /// The network address they came from.
    source: Option<String>,
    request_id: Option<String>,
    /// `team.create`.
    action: String,
    target_kind: String,
    target_id: String,
    target_name: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// A setting in force.
#[derive(Serialize, ToSchema)]
pub(super) struct SettingView {
    key: String,
    /// Secrets are redacted.
    value: String,
    /// Where it comes from.
    origin: String,
}

/// The master keys.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyringView {
    /// The id of the key that seals.
    sealing: String,
    /// The ids of all keys that this gateway was given, and opens with.
    given: Vec<String>,
    /// The ids of all keys that the database's secrets are sealed under.
    in_use: Vec<String>,
}

/// What a rotation did.
#[derive(Serialize, ToSchema)]
pub(super) struct RotationView {
    /// Values that are now under the first key.
    resealed: u64,
    /// Values that were under it already.
    current: u64,
    /// Values that were replaced meanwhile, and looked at again.
    raced: u64,
    /// Values still under another key; above zero: run it again before dropping a key.
    remaining: u64,
}

fn view(key: AdminKey, secret: Option<&KeySecret>) -> AdminKeyView {
    let AdminKey { id, name, prefix, role, team: team_id, created_at, expires_at, revoked_at } = key;
    let secret = secret.map(|secret| secret.reveal().to_owned());
    AdminKeyView { id, name, prefix, role: role.as_str(), team_id, created_at, expires_at, revoked_at, secret }
}

/// Who I am, and what I may do
#[utoipa::path(get, path = "/me", tag = "Gateway", responses((status = 200, description = "The caller", body = MeView)))]
pub(super) async fn me(caller: As<Sees>) -> Answer {
    json(StatusCode::OK, &who(&caller))
}

/// The caller as they see themselves.
pub(super) fn who(caller: &Caller) -> MeView {
    MeView {
        id: caller.id.clone(),
        name: caller.name.clone(),
        role: caller.role.as_str(),
        team_id: caller.team,
        csrf_token: caller.csrf.clone(),
        expires_at: caller.expires_at,
    }
}

/// All admin keys
#[utoipa::path(get, path = "/admin-keys", tag = "Gateway", params(Page), responses((status = 200, description = "A page", body = List<AdminKeyView>)))]
pub(super) async fn admin_keys(_: As<Owns>, Shared(admin): Shared<Arc<Admin>>, Params(page): Params<Page>) -> Answer {
    let keys = admin.store.admin_keys().list().await?;
    json(StatusCode::OK, &page.of(keys.into_iter().map(|key| view(key, None)).collect(), |key| key.id.to_string())?)
}

/// Make an admin key
#[utoipa::path(post, path = "/admin-keys", tag = "Gateway", request_body = AdminKeyBody, responses((status = 201, description = "Made; the only time that the key is shown", body = AdminKeyView)))]
pub(super) async fn create_admin_key(
    caller: As<Owns>,
    Shared(admin): Shared<Arc<Admin>>,
    Body(body): Body<AdminKeyBody>,
) -> Answer {
    let store = caller.store(&admin);
    let team = match &body.team {
        Some(asked) => Some(team_of(&caller, &store, asked).await?.id),
        None => None,
    };
    if team.is_some() && body.role == Role::Owner {
        return Err(Fault::value("team: an owner owns the whole gateway"));
    }
    let secret = KeySecret::mint_admin().map_err(|error| Fault::new("internal", error.to_string()))?;
    let new = NewAdminKey {
        name: extract::name(&body.name)?,
        prefix: secret.prefix().to_owned(),
        hash: secret.hash(store.pepper().await?.expose_secret()),
        role: body.role,
        team,
        expires_at: body.expires_at,
    };
    let key = store.admin_keys().create(new, unix_millis()).await?;
    json(StatusCode::CREATED, &view(key, Some(&secret)))
}

/// Revoke an admin key for good
#[utoipa::path(delete, path = "/admin-keys/{key}", tag = "Gateway", params(("key" = String, Path, description = "Id, name or visible start")), responses((status = 200, description = "Revoked, now or before", body = AdminKeyView)))]
pub(super) async fn revoke_admin_key(
    caller: As<Owns>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
) -> Answer {
    let store = caller.store(&admin);
    let key = store.admin_keys().find(&asked).await?;
    store.admin_keys().revoke(&key, unix_millis()).await?;
    json(StatusCode::OK, &view(store.admin_keys().find(&key.id.to_string()).await?, None))
}

/// Which changes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Of the thing of this id.
    target: Option<String>,
    /// By this actor.
    actor: Option<String>,
    /// Of this action, such as `key.revoke`.
    action: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Who changed what, the newest first
#[utoipa::path(get, path = "/audit", tag = "Gateway", params(AuditQuery), responses((status = 200, description = "A page", body = List<AuditView>)))]
pub(super) async fn audit(
    _: As<SeesAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(query): Params<AuditQuery>,
) -> Answer {
    let page = Page::new(query.limit, query.cursor);
    let filter =
        AuditFilter { target_id: query.target, actor: query.actor, action: query.action, before: page.after()? };
    let rows = admin.store.audit(&filter, page.limit()? + 1).await?;
    let view = |row: AuditRow| AuditView {
        id: row.id,
        at: row.at,
        actor: row.actor,
        actor_name: row.actor_name,
        source: row.source,
        request_id: row.request_id,
        action: row.action,
        target_kind: row.target_kind,
        target_id: row.target_id,
        target_name: row.target_name,
        before: row.before,
        after: row.after,
    };
    json(StatusCode::OK, &page.cut(rows.into_iter().map(view).collect(), |row| row.id.clone())?)
}

/// Every setting in force and where it comes from
#[utoipa::path(get, path = "/settings", tag = "Gateway", responses((status = 200, description = "Secrets are redacted", body = Vec<SettingView>)))]
pub(super) async fn settings(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>) -> Answer {
    // What was changed while it runs is in force too.
    let level = admin.live.log().map(Level::get).filter(|level| *level != admin.live.settings().log.level);
    let shown = admin.shown.iter().map(|one| match &level {
        Some(level) if one.key == "log.level" => {
            SettingView { key: one.key.clone(), value: level.clone(), origin: "admin API, until the end".to_owned() }
        }
        _ => SettingView { key: one.key.clone(), value: one.value.clone(), origin: one.origin.clone() },
    });
    json(StatusCode::OK, &shown.collect::<Vec<_>>())
}

/// The master keys that secrets are sealed under, by id
#[utoipa::path(get, path = "/keyring", tag = "Gateway", responses((status = 200, description = "The keyring", body = KeyringView)))]
pub(super) async fn keyring(_: As<Owns>, Shared(admin): Shared<Arc<Admin>>) -> Answer {
    let settings = admin.live.settings();
    let server = settings.database_server("tollway".to_owned());
    let in_use = Store::key_ids_in_use_on(&settings.database_url(), &server).await?;
    let sealing = admin.store.sealing_key_id().to_owned();
    let given = admin.store.key_ids().map(str::to_owned).collect();
    json(StatusCode::OK, &KeyringView { sealing, given, in_use: in_use.into_iter().collect() })
}

/// Seal everything under the first master key; safe to repeat
#[utoipa::path(post, path = "/keyring/rotate", tag = "Gateway", responses((status = 200, description = "Done", body = RotationView)))]
pub(super) async fn rotate_keyring(caller: As<Owns>, Shared(admin): Shared<Arc<Admin>>) -> Answer {
    let report = caller.store(&admin).rotate_keyring(Rotation::default()).await?;
    let crate::store::RotationReport { resealed, current, raced, remaining } = report;
    json(StatusCode::OK, &RotationView { resealed, current, raced, remaining })
}

/// There is nothing at this address.
pub(super) async fn not_found() -> Fault {
    Fault::new("not_found", "there is no such address; see /admin/v1/openapi.json")
}

/// There is something, but not for this method.
pub(super) async fn method_not_allowed() -> Fault {
    Fault::new("method_not_allowed", "see /admin/v1/openapi.json for what this address takes")
}
