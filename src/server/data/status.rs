//! What the holder of a key may see of the accounts behind it, and have renewed.

use super::backend::answer;
use super::openapi;
use super::request::{self, Arrival};
use crate::account::{Member, TokenError};
use crate::codex::limits::Window;
use crate::dialect::{Dialect, Problem, ProblemKind};
use crate::relay::{Pool, Standing};
use crate::server::assemble::unix_millis;
use crate::server::state::State;
use crate::store::{AccountId, GatewayKey, Right, UnixMillis};
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const DIALECT: Dialect = Dialect::Responses;

/// A token renewed this recently is not renewed again: each renewal uses up a refresh token.
const JUST_NOW: Duration = Duration::from_secs(10);
/// A window this full is worth a warning.
const NEARLY_FULL: f64 = 90.0;
/// A token that should have been renewed by itself before this.
const NEARLY_OVER: Duration = Duration::from_mins(5);

/// What this key's accounts are doing
///
/// `GET /v1/status`: labels, plans, windows, resets, token life and warnings; never a secret, and an
/// email only for a key with the right `accounts:email`.
#[utoipa::path(
    get, path = "/v1/status", tag = "Gateway",
    responses((status = 200, description = "The accounts, and all of them as one pool", body = Value), openapi::OpenAiErrors)
)]
pub(super) async fn status(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Response {
    let mut arrival = Arrival::new(&state, "/v1/status", &headers);
    let key = match arrival.authenticate(&state, &headers).await {
        Ok(key) => key,
        Err(problem) => return arrival.refuse(DIALECT, &problem),
    };
    let standings = state.relay.standings(&key).await;
    let now = unix_millis();
    let pool = Pool::of(&standings);
    let body = json!({
        "object": "tollway.status",
        "key": {
            "name": key.name,
            "rights": key.rights.iter().map(|right| right.as_str()).collect::<Vec<_>>(),
            "expires_at": key.expires_at.and_then(moment),
        },
        "pool": {
            "available": pool.available, "total": pool.total, "plan": pool.plan,
            "windows": windows(pool.primary, pool.secondary),
            "resets_at": pool.resets_at.and_then(|seconds| moment(seconds.saturating_mul(1000))),
        },
        "accounts": standings.iter().map(|one| account(one, &key, now)).collect::<Vec<_>>(),
    });
    answer(arrival.ticket, &body)
}

fn account(one: &Standing, key: &GatewayKey, now: UnixMillis) -> Value {
    let until = one.back_at();
    json!({
        "id": one.id,
        "label": label(one.id, &one.name, key),
        "plan": one.plan,
        "available": one.is_available(),
        "state": if one.barred { "misplaced" } else { one.obstacle.map_or("active", |reason| reason.as_str()) },
        "back_at": until.and_then(moment),
        "windows": windows(one.limits.primary, one.limits.secondary),
        "windows_as_of": one.limits_at.and_then(moment),
        "token": {
            "expires_at": one.token_ends_at.and_then(moment),
            "expires_in_seconds": one.token_ends_at.map(|end| (end - now).max(0) / 1000),
            "refreshed_at": moment(one.refreshed_at),
        },
        "warnings": warnings(one, now),
    })
}

/// The operator's name for the account; an account without one is called by its email, which is not
/// everybody's to see.
fn label(id: AccountId, name: &str, key: &GatewayKey) -> String {
    if !name.contains('@') || key.rights.contains(&Right::AccountsEmail) {
        return name.to_owned();
    }
    let id = id.to_string();
    format!("account-{}", &id[id.len() - 8..])
}

fn windows(primary: Option<Window>, secondary: Option<Window>) -> Vec<Value> {
    let window = |window: Window| {
        json!({
            "minutes": window.window_minutes,
            "used_percent": window.used_percent,
            "resets_at": window.resets_at.and_then(|seconds| moment(seconds.saturating_mul(1000))),
        })
    };
    [primary, secondary].into_iter().flatten().map(window).collect()
}

/// What somebody should know, without anything of the account's own.
fn warnings(one: &Standing, now: UnixMillis) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    match one.obstacle.map(crate::account::pool::Reason::as_str) {
        Some("needs_login") => warnings.push("the operator has to log this account in again"),
        Some("quarantined") => warnings.push("the backend refuses this account although its token is fresh"),
        Some("paused") => warnings.push("the operator has paused this account"),
        Some("limited") => warnings.push("the usage limit is reached"),
        _ => {}
    }
    if one.barred {
        warnings.push("the workspace lives at an address that the operator has not allowed");
    }
    if one.limits.used_percent().is_some_and(|used| (NEARLY_FULL..100.0).contains(&used)) {
        warnings.push("a window is nearly used up");
    }
    let soon = i64::try_from(NEARLY_OVER.as_millis()).unwrap_or(i64::MAX);
    if one.token_ends_at.is_some_and(|end| end - now < soon) {
        warnings.push("the access token has ended or ends soon; it is renewed when it is needed");
    }
    if one.unpersisted {
        warnings.push("renewed credentials could not be stored yet");
    }
    warnings
}

/// Have access tokens renewed
///
/// `POST /v1/auth/refresh`, for keys with the right `auth:refresh`: all accounts of the key, or the
/// one that `account` names by id or label. However many ask, each account is renewed once.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = "Gateway",
    responses((status = 200, description = "What became of each account", body = Value), openapi::OpenAiErrors)
)]
pub(super) async fn refresh(Shared(state): Shared<Arc<State>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let mut arrival = Arrival::new(&state, "/v1/auth/refresh", &head.headers);
    let chosen = async {
        let key = arrival.authenticate(&state, &head.headers).await?;
        if !key.rights.contains(&Right::AuthRefresh) {
            let message = "This key may not renew tokens: it needs the right `auth:refresh`";
            return Err(Problem::new(ProblemKind::PermissionDenied, message));
        }
        let asked = asked(&request::read(&state, body).await?)?;
        Ok((choose(&state, &key, asked.as_deref())?, key))
    };
    let (members, key) = match chosen.await {
        Ok(chosen) => chosen,
        Err(problem) => return arrival.refuse(DIALECT, &problem),
    };
    let renewed = members.iter().map(|member| renew(member, &key));
    let data = futures_util::future::join_all(renewed).await;
    answer(arrival.ticket, &json!({"object": "list", "data": data}))
}

/// The account that a body names; an empty body names none.
fn asked(body: &[u8]) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    struct Wanted {
        #[serde(default)]
        account: Option<String>,
    }
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let illegible = |_| Problem::invalid("account", "the body must be empty or `{\"account\": \"…\"}`");
    Ok(serde_json::from_slice::<Wanted>(body).map_err(illegible)?.account)
}

fn choose(state: &State, key: &GatewayKey, asked: Option<&str>) -> Result<Vec<Arc<Member>>, Problem> {
    let mut members: Vec<_> = state.accounts.members().values().cloned().collect();
    members.retain(|member| key.accounts.allows(member.manager.id()));
    let Some(asked) = asked else { return Ok(members) };
    members.retain(|member| {
        let id = member.manager.id();
        id.to_string() == asked || label(id, &member.manager.snapshot().account.name, key) == asked
    });
    if members.is_empty() {
        let message = format!("There is no account '{asked}' that this key may use");
        return Err(Problem { param: Some("account".to_owned()), ..Problem::new(ProblemKind::NotFound, message) });
    }
    Ok(members)
}

async fn renew(member: &Arc<Member>, key: &GatewayKey) -> Value {
    let before = member.manager.snapshot();
    let just_now = i64::try_from(JUST_NOW.as_millis()).unwrap_or(i64::MAX);
    let is_fresh = unix_millis() - before.credentials.last_refresh_at < just_now && before.generation() > 1;
    let (outcome, error) = if is_fresh {
        ("fresh", None)
    } else {
        match member.manager.refresh_now().await {
            Ok(_) => ("refreshed", None),
            Err(TokenError::Unavailable { .. }) => {
                ("failed", Some("the issuer could not renew it now; try again later"))
            }
            Err(_) => ("failed", Some("the operator has to log this account in again")),
        }
    };
    let after = member.manager.snapshot();
    json!({
        "id": member.manager.id(),
        "label": label(member.manager.id(), &after.account.name, key),
        "outcome": outcome,
        "error": error,
        "expires_at": after.credentials.access_expires_at.and_then(moment),
    })
}

fn moment(millis: UnixMillis) -> Option<String> {
    let seconds = OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000)).ok()?;
    seconds.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_asks_for_all_and_an_illegible_one_is_refused() {
        assert_eq!(asked(b"  ").ok(), Some(None));
        assert_eq!(asked(b"{\"account\":\"ada\"}").ok(), Some(Some("ada".to_owned())));
        assert!(asked(b"[1").is_err());
    }

    #[test]
    fn times_are_written_for_people_and_programs_alike() {
        assert_eq!(moment(1_795_000_000_500).as_deref(), Some("2026-11-18T11:06:40Z"));
    }
}
