//! The issuer's endpoints: authorize, token, revoke (protocol.md 1.2 to 1.7).
//!
//! Reads requests and words answers; the rules of rotation are in [`crate::grants`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use url::Url;

use crate::account::{Account, Traits};
use crate::faults::{Kind, Place, Stall, When};
use crate::grants::{Code, Refused};
use crate::intake::Intake;
use crate::mishap;
use crate::state::{CLIENT_ID, Login, Sim, Tokens, now};

/// Life of an authorisation code, in seconds.
const CODE_LIFE: i64 = 300;

/// Logs the next scripted user in and sends the browser back.
pub(crate) async fn authorize(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    let query = intake.uri.query().unwrap_or_default();
    let query: HashMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let redirect = match check_authorize(&query) {
        Ok(redirect) => redirect,
        Err(fault) => {
            return (StatusCode::BAD_REQUEST, format!("authorize: {fault}\n")).into_response();
        }
    };
    match decide(&sim, &query, redirect) {
        Ok(location) => (StatusCode::FOUND, [(header::LOCATION, location.to_string())]).into_response(),
        Err(fault) => (StatusCode::BAD_REQUEST, format!("authorize: {fault}\n")).into_response(),
    }
}

/// The redirect address, when the request is in order.
fn check_authorize(query: &HashMap<String, String>) -> Result<Url, String> {
    let get = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
    let must = |key: &str, wanted: &str| {
        if get(key) == wanted { Ok(()) } else { Err(format!("{key} must be {wanted}")) }
    };
    must("client_id", CLIENT_ID)?;
    must("response_type", "code")?;
    must("code_challenge_method", "S256")?;
    if get("code_challenge").len() != 43 {
        return Err("code_challenge must be 43 characters of base64url".to_owned());
    }
    if get("state").is_empty() {
        return Err("state is missing".to_owned());
    }
    if !get("scope").split(' ').any(|scope| scope == "openid") {
        return Err("scope must contain openid".to_owned());
    }
    let redirect = Url::parse(get("redirect_uri")).map_err(|error| format!("redirect_uri: {error}"))?;
    let local = matches!(redirect.host_str(), Some("localhost" | "127.0.0.1"));
    if local && redirect.scheme() == "http" && redirect.path() == "/auth/callback" {
        Ok(redirect)
    } else {
        Err("redirect_uri is not registered; use http://localhost:1455/auth/callback".to_owned())
    }
}

fn decide(sim: &Sim, query: &HashMap<String, String>, mut redirect: Url) -> Result<Url, String> {
    let mut world = sim.world();
    let login = world.logins.pop_front().unwrap_or_default();
    let redirect_uri = query["redirect_uri"].clone();
    let state = if login.wrong_state { "not-your-state" } else { query["state"].as_str() };
    if login.deny {
        redirect.query_pairs_mut().extend_pairs([
            ("error", "access_denied"),
            ("error_description", "The user denied the request."),
            ("state", state),
        ]);
        return Ok(redirect);
    }
    let Login { account, expired_code, .. } = login;
    let account = match account {
        Some(account) if world.accounts.contains_key(&account) => account,
        Some(account) => return Err(format!("scripted account {account} does not exist")),
        None => world.enrol(&Traits::default())?,
    };
    let code = Code {
        account,
        challenge: query["code_challenge"].clone(),
        redirect_uri,
        expires_at: if expired_code { now() - 1 } else { now() + CODE_LIFE },
        offline: query["scope"].split(' ').any(|scope| scope == "offline_access"),
    };
    let text = sim.token("ac_sim_", 40);
    world.grants.issue_code(text.clone(), code);
    redirect.query_pairs_mut().extend_pairs([
        ("code", text.as_str()),
        ("scope", query["scope"].as_str()),
        ("state", state),
    ]);
    Ok(redirect)
}

/// Exchanges a code or refreshes; form and JSON alike.
pub(crate) async fn token(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    // An issuer works on what it has received, also when nobody waits for the answer any more.
    let worked = tokio::spawn(async move { exchanged(&sim, &intake).await }).await;
    worked.expect("the work ends by itself")
}

async fn exchanged(sim: &Sim, intake: &Intake) -> Response {
    let owner = sim.world().grants.known(intake.field("refresh_token")).map(|known| known.account.clone());
    if let Some(owner) = &owner {
        intake.belongs_to(owner);
    }
    let mut fate = sim.faults.meet(Place::Token, owner.as_deref());
    fate.pass(When::Before).await;
    if fate.end == Some(Kind::Stall { at: Stall::Headers }) {
        std::future::pending::<()>().await;
    }
    let fault = match &fate.end {
        Some(Kind::Malformed { .. }) => Some(mishap::malformed()),
        Some(kind) => mishap::instead(kind, "plus"),
        None => None,
    };
    if let Some(answer) = fault {
        count(sim, owner.as_deref(), |account| {
            account.counters.refreshes.failed += 1;
        });
        fate.pass(When::After).await;
        return answer;
    }
    let answer = if intake.field("client_id") == CLIENT_ID {
        match intake.field("grant_type") {
            "authorization_code" => exchange(sim, intake),
            "refresh_token" => refresh(sim, intake, owner.as_deref()),
            _ => plain(400, "unsupported_grant_type", "grant_type must be authorization_code or refresh_token"),
        }
    } else {
        plain(401, "invalid_client", "client_id is unknown")
    };
    fate.pass(When::After).await;
    if fate.end == Some(Kind::DropAnswer {}) { mishap::hang_up() } else { answer }
}

/// OAuth's own error shape, where `error` is a string.
fn plain(status: u16, error: &str, description: &str) -> Response {
    mishap::json_answer(status, &json!({"error": error, "error_description": description}))
}

fn count(sim: &Sim, account: Option<&str>, add: impl FnOnce(&mut Account)) {
    if let Some(id) = account
        && let Some(account) = sim.world().accounts.get_mut(id)
    {
        add(account);
    }
}

fn exchange(sim: &Sim, intake: &Intake) -> Response {
    let mut world = sim.world();
    let redirect_uri = redirect_identity(intake.field("redirect_uri"));
    let code = match world.grants.redeem(intake.field("code"), intake.field("code_verifier"), redirect_uri, now()) {
        Ok(code) => code,
        Err(why) => return plain(400, "invalid_grant", why),
    };
    intake.belongs_to(&code.account);
    let tokens = match sim.mint(&world, &code.account) {
        Ok(tokens) => tokens,
        Err(why) => return plain(400, "invalid_grant", &why),
    };
    world.admit(&code.account, &tokens);
    if let Some(account) = world.accounts.get_mut(&code.account) {
        account.counters.logins += 1;
    }
    let mut answer = tokens.answer();
    if !code.offline
        && let Some(fields) = answer.as_object_mut()
    {
        fields.remove("refresh_token");
    }
    mishap::json_answer(200, &answer)
}

/// The redirect of a device login lies on the issuer, whatever name the client calls it by.
pub(crate) const DEVICE_REDIRECT: &str = "/deviceauth/callback";

fn redirect_identity(given: &str) -> &str {
    if given.ends_with(DEVICE_REDIRECT) { DEVICE_REDIRECT } else { given }
}

fn refresh(sim: &Sim, intake: &Intake, owner: Option<&str>) -> Response {
    let punish = sim.settings().revoke_family_on_reuse;
    let mut world = sim.world();
    let minted: Option<Tokens> = owner.and_then(|owner| sim.mint(&world, owner).ok());
    let (Some(owner), Some(tokens)) = (owner, minted) else {
        sim.traffic.unknown_refreshes.fetch_add(1, Ordering::Relaxed);
        return plain(400, "invalid_grant", "refresh token is unknown");
    };
    let deactivated = world.accounts.get(owner).is_some_and(|account| account.deactivated);
    let outcome = if deactivated {
        Err("account_deactivated")
    } else {
        world.grants.rotate(intake.field("refresh_token"), tokens.refresh.clone(), punish).map_err(code_of)
    };
    if outcome.is_ok() {
        world.grants.admit(owner, tokens.access.clone(), now() + tokens.expires_in);
    }
    if let Some(account) = world.accounts.get_mut(owner) {
        let refreshes = &mut account.counters.refreshes;
        match outcome {
            Ok(()) => refreshes.ok += 1,
            Err("refresh_token_reused") => refreshes.reused += 1,
            Err(_) => refreshes.failed += 1,
        }
    }
    match outcome {
        Ok(()) => mishap::json_answer(200, &tokens.answer()),
        Err(code) => refusal(code),
    }
}

fn code_of(refused: Refused) -> &'static str {
    match refused {
        Refused::Unknown | Refused::Invalidated => "refresh_token_invalidated",
        Refused::Reused => "refresh_token_reused",
        Refused::Expired => "refresh_token_expired",
    }
}

/// 401 in the shape of protocol.md 1.5.
fn refusal(code: &str) -> Response {
    let message = match code {
        "refresh_token_reused" => {
            "Your refresh token has already been used to generate a new access token. Please try signing in again."
        }
        "refresh_token_expired" => "Your refresh token has expired. Please try signing in again.",
        "account_deactivated" => "Your account has been deactivated.",
        _ => "Your refresh token has been invalidated. Please try signing in again.",
    };
    let body = json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": code}});
    mishap::json_answer(401, &body)
}

/// Takes a token back; like the real one it says nothing about unknown tokens.
pub(crate) async fn revoke(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    let owner = sim.world().grants.known(intake.field("token")).map(|known| known.account.clone());
    let mut fate = sim.faults.meet(Place::Revoke, owner.as_deref());
    fate.pass(When::Before).await;
    if let Some(answer) = fate.end.as_ref().and_then(|kind| mishap::instead(kind, "plus")) {
        return answer;
    }
    let revoked = sim.world().grants.revoke(intake.field("token"));
    if let Some(account) = revoked {
        intake.belongs_to(&account);
    }
    mishap::json_answer(200, &json!({}))
}
