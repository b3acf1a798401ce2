//! Teams and users.

use super::Admin;
use super::caller::{As, Caller, Runs, RunsAll, Sees};
use super::extract::{self, Answer, Body, List, Page, Params, Seen, json, merge, versioned};
use super::limits::{self, LimitsShape};
use super::problem::Fault;
use crate::server::assemble::unix_millis;
use crate::store::{Limits, Store, Team, TeamDraft, TeamId, User, UserDraft};
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Serialize;
use serde_json::{Value, json as value};
use std::sync::Arc;
use utoipa::ToSchema;

/// A team.
#[derive(Serialize, ToSchema)]
#[schema(as = Team)]
pub(super) struct TeamView {
    #[schema(value_type = String, format = "uuid")]
    id: TeamId,
    /// What operators call it; unique.
    name: String,
    /// Whether all of its keys are refused.
    suspended: bool,
    /// For all of its keys together.
    #[schema(value_type = LimitsShape)]
    limits: Limits,
    /// Goes up with each change.
    version: i64,
    /// Unix milliseconds.
    created_at: i64,
}

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView {
    #[schema(value_type = String, format = "uuid")]
    id: crate::store::UserId,
    /// What operators call them; unique.
    name: String,
    /// Where they are reached.
    email: Option<String>,
    /// The name of their team.
    team: Option<String>,
    #[schema(value_type = Option<String>, format = "uuid")]
    team_id: Option<TeamId>,
    /// Whether all of their keys are refused.
    suspended: bool,
    /// For all of their keys together.
    #[schema(value_type = LimitsShape)]
    limits: Limits,
    /// Goes up with each change.
    version: i64,
    /// Unix milliseconds.
    created_at: i64,
}

/// A team to be made, or what is changed of one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; bodies are merged as JSON")]
pub(super) struct TeamBody {
    /// 1 to 200 characters; needed to make one.
    name: Option<String>,
    /// Whether all of its keys are refused.
    suspended: Option<bool>,
    /// For all of its keys together.
    limits: Option<LimitsShape>,
}

/// A user to be made, or what is changed of one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; bodies are merged as JSON")]
pub(super) struct UserBody {
    /// 1 to 200 characters; needed to make one.
    name: Option<String>,
    /// Where they are reached; how a sign-in finds them.
    email: Option<String>,
    /// Their team, by id or name.
    team: Option<String>,
    /// Whether all of their keys are refused.
    suspended: Option<bool>,
    /// For all of their keys together.
    limits: Option<LimitsShape>,
}

impl From<Team> for TeamView {
    fn from(team: Team) -> Self {
        let Team { id, name, limits, suspended, version, created_at } = team;
        Self { id, name, suspended, limits, version, created_at }
    }
}

fn user_view(user: User, teams: &[Team]) -> UserView {
    let User { id, name, email, team: team_id, limits, suspended, version, created_at } = user;
    let team = teams.iter().find(|team| Some(team.id) == team_id).map(|team| team.name.clone());
    UserView { id, name, email, team, team_id, suspended, limits, version, created_at }
}

/// The team that `asked` means, if the caller may see it.
pub(super) async fn team_of(caller: &Caller, store: &Store, asked: &str) -> Result<Team, Fault> {
    let team = store.tenants().find_team(asked).await.map_err(|error| hidden(caller, error.into(), "team", asked))?;
    if caller.sees(Some(team.id)) { Ok(team) } else { Err(Fault::not_found("team", asked)) }
}

/// The user that `asked` means, if the caller may see them.
pub(super) async fn user_of(caller: &Caller, store: &Store, asked: &str) -> Result<User, Fault> {
    let user = store.tenants().find_user(asked).await.map_err(|error| hidden(caller, error.into(), "user", asked))?;
    if caller.sees(user.team) { Ok(user) } else { Err(Fault::not_found("user", asked)) }
}

/// That several things match names them, which is nothing for those who may not see them all.
pub(super) fn hidden(caller: &Caller, fault: Fault, what: &str, asked: &str) -> Fault {
    if caller.team.is_some() { Fault::not_found(what, asked) } else { fault }
}

/// A field of a body that is text or nothing.
pub(super) fn text(body: &Value, field: &str) -> Result<Option<String>, Fault> {
    match &body[field] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(Fault::value(format!("{field}: expected text"))),
    }
}

/// A field of a body that is true, false or nothing.
pub(super) fn truth(body: &Value, field: &str) -> Result<Option<bool>, Fault> {
    match &body[field] {
        Value::Null => Ok(None),
        Value::Bool(truth) => Ok(Some(*truth)),
        _ => Err(Fault::value(format!("{field}: expected true or false"))),
    }
}

/// Refuses what is no field, for a misspelt one would be a limit that is not set.
pub(super) fn known(body: &Value, fields: &[&str]) -> Result<(), Fault> {
    let Some(object) = body.as_object() else { return Err(Fault::value("expected an object")) };
    match object.keys().find(|name| !fields.contains(&name.as_str())) {
        Some(unknown) => Err(Fault::value(format!("there is no field {unknown:?}; there are {}", fields.join(", ")))),
        None => Ok(()),
    }
}

async fn team_draft(store: &Store, body: Value) -> Result<TeamDraft, Fault> {
    known(&body, &["name", "suspended", "limits"])?;
    Ok(TeamDraft {
        name: extract::name(&text(&body, "name")?.unwrap_or_default())?,
        suspended: truth(&body, "suspended")?.unwrap_or_default(),
        limits: limits::read(store, body["limits"].clone()).await?,
    })
}

async fn user_draft(caller: &Caller, store: &Store, body: Value) -> Result<UserDraft, Fault> {
    known(&body, &["name", "email", "team", "suspended", "limits"])?;
    let limits = limits::read(store, body["limits"].clone()).await?;
    // Accounts and pools are the whole gateway's.
    if caller.team.is_some() && (limits.accounts.is_some() || limits.pools.is_some()) {
        return Err(Fault::new("forbidden", "limits to accounts or pools are for those who see them"));
    }
    Ok(UserDraft {
        name: extract::name(&text(&body, "name")?.unwrap_or_default())?,
        email: text(&body, "email")?.map(|email| extract::line("email", &email)).transpose()?,
        team: match text(&body, "team")? {
            Some(asked) => Some(team_of(caller, store, &asked).await?.id),
            None => caller.team,
        },
        suspended: truth(&body, "suspended")?.unwrap_or_default(),
        limits,
    })
}

/// All teams
#[utoipa::path(get, path = "/teams", tag = "Teams", params(Page), responses((status = 200, description = "A page", body = List<TeamView>)))]
pub(super) async fn list_teams(
    caller: As<Sees>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(page): Params<Page>,
) -> Answer {
    let teams = admin.store.tenants().teams().await?.into_iter().filter(|team| caller.sees(Some(team.id)));
    json(StatusCode::OK, &page.of(teams.map(TeamView::from).collect(), |team| team.id.to_string())?)
}

/// Make a team
#[utoipa::path(post, path = "/teams", tag = "Teams", request_body = TeamBody, responses((status = 201, description = "Made", body = TeamView)))]
pub(super) async fn create_team(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Body(body): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    let draft = team_draft(&store, body).await?;
    let team = store.tenants().create_team(draft, unix_millis()).await?;
    versioned(StatusCode::CREATED, team.version, &TeamView::from(team))
}

/// One team
#[utoipa::path(get, path = "/teams/{team}", tag = "Teams", params(("team" = String, Path, description = "Id or name")), responses((status = 200, description = "The team", body = TeamView)))]
pub(super) async fn get_team(caller: As<Sees>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let team = team_of(&caller, &admin.store, &asked).await?;
    versioned(StatusCode::OK, team.version, &TeamView::from(team))
}

/// Change a team
#[utoipa::path(patch, path = "/teams/{team}", tag = "Teams", params(("team" = String, Path, description = "Id or name")), request_body(content = TeamBody, content_type = "application/merge-patch+json"), responses((status = 200, description = "Changed", body = TeamView)))]
pub(super) async fn patch_team(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Seen(seen): Seen,
    Body(patch): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    let old = team_of(&caller, &store, &asked).await?;
    known(&patch, &["name", "suspended", "limits"])?;
    let draft = team_draft(&store, merge(value!(old.draft()), patch)).await?;
    store.tenants().update_team(old.id, &draft, seen.or(Some(old.version))).await?;
    let team = store.tenants().find_team(&old.id.to_string()).await?;
    versioned(StatusCode::OK, team.version, &TeamView::from(team))
}

/// Remove a team that nobody belongs to
#[utoipa::path(delete, path = "/teams/{team}", tag = "Teams", params(("team" = String, Path, description = "Id or name")), responses((status = 204, description = "Removed")))]
pub(super) async fn delete_team(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    seen: Seen,
) -> Answer {
    let store = caller.store(&admin);
    let team = team_of(&caller, &store, &asked).await?;
    seen.is_still("team", team.version)?;
    store.tenants().remove_team(team.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// All users
#[utoipa::path(get, path = "/users", tag = "Users", params(Page), responses((status = 200, description = "A page", body = List<UserView>)))]
pub(super) async fn list_users(
    caller: As<Sees>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(page): Params<Page>,
) -> Answer {
    let teams = admin.store.tenants().teams().await?;
    let users = admin.store.tenants().users().await?.into_iter().filter(|user| caller.sees(user.team));
    json(StatusCode::OK, &page.of(users.map(|user| user_view(user, &teams)).collect(), |user| user.id.to_string())?)
}

/// Make a user
#[utoipa::path(post, path = "/users", tag = "Users", request_body = UserBody, responses((status = 201, description = "Made", body = UserView)))]
pub(super) async fn create_user(
    caller: As<Runs>,
    Shared(admin): Shared<Arc<Admin>>,
    Body(body): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    let draft = user_draft(&caller, &store, body).await?;
    let user = store.tenants().create_user(draft, unix_millis()).await?;
    versioned(StatusCode::CREATED, user.version, &user_view(user, &store.tenants().teams().await?))
}

/// One user
#[utoipa::path(get, path = "/users/{user}", tag = "Users", params(("user" = String, Path, description = "Id, name or email")), responses((status = 200, description = "The user", body = UserView)))]
pub(super) async fn get_user(caller: As<Sees>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let user = user_of(&caller, &admin.store, &asked).await?;
    versioned(StatusCode::OK, user.version, &user_view(user, &admin.store.tenants().teams().await?))
}

/// Change a user
#[utoipa::path(patch, path = "/users/{user}", tag = "Users", params(("user" = String, Path, description = "Id, name or email")), request_body(content = UserBody, content_type = "application/merge-patch+json"), responses((status = 200, description = "Changed", body = UserView)))]
pub(super) async fn patch_user(
    caller: As<Runs>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Seen(seen): Seen,
    Body(patch): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    let old = user_of(&caller, &store, &asked).await?;
    known(&patch, &["name", "email", "team", "suspended", "limits"])?;
    // Limits that the whole gateway's operators have set are not for a team's to change.
    if caller.team.is_some()
        && (old.limits.accounts.is_some() || old.limits.pools.is_some())
        && !patch["limits"].is_null()
    {
        return Err(Fault::new("forbidden", "these limits name accounts or pools; they are for those who see them"));
    }
    let draft = user_draft(&caller, &store, merge(value!(old.draft()), patch)).await?;
    store.tenants().update_user(old.id, &draft, seen.or(Some(old.version))).await?;
    let user = store.tenants().find_user(&old.id.to_string()).await?;
    versioned(StatusCode::OK, user.version, &user_view(user, &store.tenants().teams().await?))
}

/// Remove a user who has no usable key
#[utoipa::path(delete, path = "/users/{user}", tag = "Users", params(("user" = String, Path, description = "Id, name or email")), responses((status = 204, description = "Removed")))]
pub(super) async fn delete_user(
    caller: As<Runs>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    seen: Seen,
) -> Answer {
    let store = caller.store(&admin);
    let user = user_of(&caller, &store, &asked).await?;
    seen.is_still("user", user.version)?;
    store.tenants().remove_user(user.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
