//! Codex accounts. Nothing here shows a token.

use super::Admin;
use super::caller::{As, RunsAll, SeesAll};
use super::extract::{self, Answer, Body, List, Page, Params, Seen, json, versioned};
use super::problem::Fault;
use super::tenants::{known, text, truth};
use crate::account::{Member, TokenError};
use crate::codex::limits::Window;
use crate::oauth::{Enrolment, auth_json};
use crate::server::assemble::unix_millis;
use crate::store::{Account, AccountChange, AccountId, AccountShare, NewAccount, NewCredentials, Store, Upserted};
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as value};
use std::collections::BTreeSet;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// An account.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
pub(super) struct AccountView {
    #[schema(value_type = String, format = "uuid")]
    id: AccountId,
    /// What operators call it; unique.
    name: String,
    email: Option<String>,
    /// The workspace, as the backend knows it.
    chatgpt_account_id: String,
    plan: Option<String>,
    /// `active`, `needs_login`, `quarantined`.
    state: &'static str,
    state_reason: Option<String>,
    /// What to do.
    state_detail: Option<String>,
    /// Unix milliseconds.
    state_since: i64,
    /// Whether it is left out of service.
    paused: bool,
    /// Unix milliseconds.
    limited_until: Option<i64>,
    limit_reason: Option<String>,
    /// Its share of new work among its like.
    weight: f64,
    /// Accounts of a higher priority are used first.
    priority: i32,
    /// Pools choose by them.
    tags: BTreeSet<String>,
    /// Unix milliseconds.
    access_expires_at: Option<i64>,
    /// Unix milliseconds.
    last_refresh_at: i64,
    /// Goes up with each set of credentials.
    generation: i64,
    /// Goes up with each change by people.
    version: i64,
    /// Unix milliseconds.
    created_at: i64,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            name: account.name,
            email: account.email,
            chatgpt_account_id: account.chatgpt_account_id,
            plan: account.plan,
            state: account.state.as_str(),
            state_reason: account.state_reason,
            state_detail: account.state_detail,
            state_since: account.state_since,
            paused: account.paused,
            limited_until: account.limited_until,
            limit_reason: account.limit_reason,
            weight: account.share.weight,
            priority: account.share.priority,
            tags: account.share.tags,
            access_expires_at: account.access_expires_at,
            last_refresh_at: account.last_refresh_at,
            generation: account.generation,
            version: account.version,
            created_at: account.created_at,
        }
    }
}

/// Credentials to take over.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportBody {
    /// The content of an `auth.json` of the Codex CLI or of codexia: the object, or its text.
    #[schema(value_type = Object)]
    auth_json: Value,
    /// What to call the account here; only where the file holds one.
    name: Option<String>,
}

/// What is changed of an account.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described; bodies are read as JSON")]
pub(super) struct AccountPatch {
    /// 1 to 200 characters; unique.
    name: Option<String>,
    /// Whether it is left out of service.
    paused: Option<bool>,
    /// Not negative.
    weight: Option<f64>,
    priority: Option<i32>,
    /// One word each.
    tags: Option<Vec<String>>,
}

/// What became of imported or finished logins.
#[derive(Serialize, ToSchema)]
pub(super) struct Enrolled {
    /// The accounts.
    accounts: Vec<AccountView>,
    /// How many of them are new here; the others got new credentials.
    created: usize,
}

/// Stores what logins or a file brought.
pub(super) async fn enrol(store: &Store, found: Vec<Enrolment>, name: Option<&str>) -> Result<Enrolled, Fault> {
    let mut enrolled = Enrolled { accounts: Vec::new(), created: 0 };
    for one in found {
        let new = NewAccount {
            name: name.map(str::to_owned),
            email: one.email,
            chatgpt_user_id: one.chatgpt_user_id,
            chatgpt_account_id: one.chatgpt_account_id,
            plan: one.plan,
            fedramp: one.fedramp,
            credentials: NewCredentials {
                access_token: one.access_token,
                refresh_token: one.refresh_token,
                id_token: one.id_token,
                access_expires_at: one.access_expires_at,
            },
        };
        let account = match store.accounts().upsert(new, unix_millis()).await? {
            Upserted::Created(account) => {
                enrolled.created += 1;
                account
            }
            Upserted::Replaced(account) => account,
        };
        enrolled.accounts.push(account.into());
    }
    Ok(enrolled)
}

/// Tags as they were given; each is one word.
pub(super) fn tags(given: &Value) -> Result<BTreeSet<String>, Fault> {
    let wrong = || Fault::value("tags: expected a list of words");
    let list = given.as_array().ok_or_else(wrong)?;
    let word = |one: &Value| {
        let word = one.as_str().map(str::trim).filter(|word| !word.is_empty() && word.len() <= 100);
        word.filter(|word| !word.contains(|c: char| c.is_whitespace() || c.is_control())).map(str::to_owned)
    };
    list.iter().map(|one| word(one).ok_or_else(wrong)).collect()
}

async fn member_of(admin: &Admin, asked: &str) -> Result<Arc<Member>, Fault> {
    let account = admin.store.accounts().find(asked).await?;
    let accounts = &admin.live.parts(&admin.store).await?.accounts;
    accounts.get(account.id).ok_or_else(|| Fault::not_found("account", asked))
}

/// All accounts
#[utoipa::path(get, path = "/accounts", tag = "Accounts", params(Page), responses((status = 200, description = "A page", body = List<AccountView>)))]
pub(super) async fn list(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>, Params(page): Params<Page>) -> Answer {
    let accounts = admin.store.accounts().list().await?;
    json(StatusCode::OK, &page.of(accounts.into_iter().map(AccountView::from).collect(), |one| one.id.to_string())?)
}

/// Take over credentials from an `auth.json`
#[utoipa::path(post, path = "/accounts", tag = "Accounts", request_body = ImportBody, responses((status = 201, description = "Stored", body = Enrolled)))]
pub(super) async fn import(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Body(body): Body<ImportBody>,
) -> Answer {
    let text = match body.auth_json {
        Value::String(text) => text,
        object => object.to_string(),
    };
    let name = body.name.map(|name| extract::name(&name)).transpose()?;
    let mut found = auth_json::parse(text.as_bytes()).map_err(|error| Fault::value(error.to_string()))?;
    if name.is_some() && found.len() > 1 {
        return Err(Fault::value(format!("the file holds {} accounts; leave out the name", found.len())));
    }
    // The first lays down the slip of a request that may come again; the others would find it there.
    let rest = found.split_off(found.len().min(1));
    let mut enrolled = enrol(&caller.store(&admin), found, name.as_deref()).await?;
    let others = super::caller::Caller { once: None, ..(*caller).clone() };
    let more = enrol(&others.store(&admin), rest, None).await?;
    enrolled.created += more.created;
    enrolled.accounts.extend(more.accounts);
    json(StatusCode::CREATED, &enrolled)
}

/// One account
#[utoipa::path(get, path = "/accounts/{account}", tag = "Accounts", params(("account" = String, Path, description = "Id, name or email")), responses((status = 200, description = "The account", body = AccountView)))]
pub(super) async fn get(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let account = admin.store.accounts().find(&asked).await?;
    versioned(StatusCode::OK, account.version, &AccountView::from(account))
}

/// Change an account: its name, whether it is paused, its part in its pools
#[utoipa::path(patch, path = "/accounts/{account}", tag = "Accounts", params(("account" = String, Path, description = "Id, name or email")), request_body(content = AccountPatch, content_type = "application/merge-patch+json"), responses((status = 200, description = "Changed", body = AccountView)))]
pub(super) async fn patch(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    Seen(seen): Seen,
    Body(patch): Body<Value>,
) -> Answer {
    let store = caller.store(&admin);
    known(&patch, &["name", "paused", "weight", "priority", "tags"])?;
    let old = store.accounts().find(&asked).await?;
    let weight = match &patch["weight"] {
        Value::Null => old.share.weight,
        given => given
            .as_f64()
            .filter(|weight| (0.0..=1e6).contains(weight))
            .ok_or_else(|| Fault::value("weight: expected a number from 0 to 1000000"))?,
    };
    let priority = match &patch["priority"] {
        Value::Null => old.share.priority,
        given => given
            .as_i64()
            .and_then(|one| i32::try_from(one).ok())
            .ok_or_else(|| Fault::value("priority: expected a whole number"))?,
    };
    let tags = if patch["tags"].is_null() { old.share.tags.clone() } else { tags(&patch["tags"])? };
    let change = AccountChange {
        name: text(&patch, "name")?.map(|name| extract::name(&name)).transpose()?,
        paused: truth(&patch, "paused")?,
        share: Some(AccountShare { weight, priority, tags }),
    };
    let account = store.accounts().change(old.id, &change, seen.or(Some(old.version)), unix_millis()).await?;
    versioned(StatusCode::OK, account.version, &AccountView::from(account))
}

/// Forget an account and its credentials
#[utoipa::path(delete, path = "/accounts/{account}", tag = "Accounts", params(("account" = String, Path, description = "Id, name or email")), responses((status = 204, description = "Removed; its login still stands at the issuer until it ends")))]
pub(super) async fn delete(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
    seen: Seen,
) -> Answer {
    let store = caller.store(&admin);
    let account = store.accounts().find(&asked).await?;
    seen.is_still("account", account.version)?;
    store.accounts().remove(account.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Refresh an account's token now
#[utoipa::path(post, path = "/accounts/{account}/refresh", tag = "Accounts", params(("account" = String, Path, description = "Id, name or email")), responses((status = 200, description = "Refreshed", body = AccountView)))]
pub(super) async fn refresh(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(asked): Path<String>,
) -> Answer {
    let member = member_of(&admin, &asked).await?;
    let name = member.name();
    caller.store(&admin).note_deed("account.refresh", &member.manager.id().to_string(), &name).await?;
    member.manager.refresh_now().await.map_err(|error| match error {
        TokenError::Unavailable { .. } => Fault::new("upstream", error.to_string()),
        other => Fault::new("conflict", other.to_string()),
    })?;
    let account = admin.store.accounts().find(&member.manager.id().to_string()).await?;
    versioned(StatusCode::OK, account.version, &AccountView::from(account))
}

/// Ask the backend now how much of an account is used
#[utoipa::path(post, path = "/accounts/{account}/probe", tag = "Accounts", params(("account" = String, Path, description = "Id, name or email")), responses((status = 200, description = "What the backend says", body = Value)))]
pub(super) async fn probe(_: As<RunsAll>, Shared(admin): Shared<Arc<Admin>>, Path(asked): Path<String>) -> Answer {
    let member = member_of(&admin, &asked).await?;
    let was_limited = member.condition().limited_until(unix_millis()).is_some();
    let relay = &admin.live.parts(&admin.store).await?.relay;
    let failed = |failure: crate::codex::failure::Failure| {
        Fault::new("upstream", format!("the backend was asked in vain: {}", failure.message))
    };
    relay.ask_usage(&member).await.map_err(failed)?;
    let now = unix_millis();
    let (limits, _) = member.limits(now).ok_or_else(|| Fault::new("upstream", "the backend told of no window"))?;
    let told = |window: Window| value!({"used_percent": window.used_percent, "window_minutes": window.window_minutes, "resets_at": window.resets_at});
    let windows: Vec<_> = [limits.primary, limits.secondary].into_iter().flatten().map(told).collect();
    let body = value!({
        "account": member.name(), "plan": limits.plan, "windows": windows, "credits": limits.credits,
        "was_limited": was_limited, "limited_until": member.condition().limited_until(now),
    });
    json(StatusCode::OK, &body)
}

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Of this account: id, name or email.
    account: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    cursor: Option<String>,
}

/// A change of an account's state.
#[derive(Serialize, ToSchema)]
pub(super) struct EventView {
    id: String,
    #[schema(value_type = String, format = "uuid")]
    account_id: AccountId,
    /// Unix milliseconds.
    at: i64,
    was: String,
    became: String,
    reason: Option<String>,
    /// Unix milliseconds.
    until: Option<i64>,
}

/// How accounts' states have changed, the newest first
#[utoipa::path(get, path = "/events", tag = "Accounts", params(EventQuery), responses((status = 200, description = "A page", body = List<EventView>)))]
pub(super) async fn events(
    _: As<SeesAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(query): Params<EventQuery>,
) -> Answer {
    let page = Page::new(query.limit, query.cursor);
    let account = match query.account {
        Some(asked) => Some(admin.store.accounts().find(&asked).await?.id),
        None => None,
    };
    let events = admin.store.conditions().events(account, page.after()?.as_deref(), page.limit()? + 1).await?;
    let view = |(id, event): (String, crate::store::AccountEvent)| EventView {
        id,
        account_id: event.account,
        at: event.at,
        was: event.was,
        became: event.became,
        reason: event.reason,
        until: event.until,
    };
    json(StatusCode::OK, &page.cut(events.into_iter().map(view).collect(), |event| event.id.clone())?)
}
