//! The control API under `/sim`: accounts, faults, what was seen. No auth: it is a test tool.
//!
//! Described for users in docs/simulator.md.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::account::{Account, Traits};
use crate::device::Stage;
use crate::faults::Place;
use crate::grants::{Shut, Standing};
use crate::mishap::json_answer;
use crate::state::{Login, Settings, Sim, World, now};

type Shared = State<Arc<Sim>>;
type Answer = Result<Response, Wrong>;

/// All control routes, under `/sim`.
pub(crate) fn routes() -> Router<Arc<Sim>> {
    Router::new()
        .route("/healthz", get(async || json_answer(200, &json!({"status": "ok"}))))
        .route("/settings", get(settings).post(configure))
        .route("/accounts", get(list_accounts).post(create))
        .route("/accounts/{id}", get(show))
        .route("/accounts/{id}/{action}", post(act))
        .route("/refresh_tokens/{token}", get(standing))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/release", post(release))
        .route("/stats", get(stats))
        .route("/requests", get(requests))
        .route("/reset", post(reset))
        .route("/login", post(script_login))
        .route("/device", get(devices))
        .route("/device/{decision}", post(decide_device))
}

fn fine(body: &Value) -> Response {
    json_answer(200, body)
}

/// A control call that makes no sense: the status and the reason.
#[derive(Debug)]
struct Wrong(u16, String);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        json_answer(self.0, &json!({"error": self.1}))
    }
}

fn wrong(status: u16, why: impl std::fmt::Display) -> Wrong {
    Wrong(status, why.to_string())
}

/// Reads a JSON body whatever its content type; an empty one is `{}`.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Wrong> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text).map_err(|error| wrong(400, error))
}

async fn settings(State(sim): Shared) -> Response {
    fine(&json!(sim.settings()))
}

async fn configure(State(sim): Shared, body: Bytes) -> Answer {
    let mut merged = json!(sim.settings());
    let changes: Map<String, Value> = read(&body)?;
    if let Some(fields) = merged.as_object_mut() {
        fields.extend(changes);
    }
    let settings: Settings = serde_json::from_value(merged).map_err(|error| wrong(400, error))?;
    sim.configure(settings.clone());
    Ok(fine(&json!(settings)))
}

async fn create(State(sim): Shared, body: Bytes) -> Answer {
    let traits: Traits = read(&body)?;
    let (id, tokens) = sim.create(&traits).map_err(|why| wrong(409, why))?;
    let world = sim.world();
    let account = world.accounts.get(&id).ok_or_else(|| wrong(404, &id))?;
    Ok(json_answer(
        201,
        &json!({
            "account_id": id, "chatgpt_account_id": account.chatgpt_account_id, "user_id": account.user_id,
            "email": account.email, "plan": account.plan,
            "access_token": tokens.access, "refresh_token": tokens.refresh, "id_token": tokens.identity,
            "auth_json": tokens.auth_json(&account.chatgpt_account_id),
        }),
    ))
}

/// All there is to know of one account.
fn portrait(world: &World, account: &Account) -> Value {
    let tokens = |standing| world.grants.refresh_tokens(&account.id, standing);
    json!({
        "account_id": account.id, "chatgpt_account_id": account.chatgpt_account_id, "user_id": account.user_id,
        "email": account.email, "plan": account.plan, "fedramp": account.fedramp, "deactivated": account.deactivated,
        "models": account.models, "access_life_s": account.access_life_s, "limits": account.limits,
        "refresh_tokens": {
            "live": tokens(Standing::Live), "used": tokens(Standing::Used).len(),
            "revoked": tokens(Standing::Revoked).len(), "expired": tokens(Standing::Expired).len(),
        },
        "open_access_tokens": world.grants.open_access_tokens(&account.id, now()),
        "counters": account.counters,
    })
}

async fn list_accounts(State(sim): Shared) -> Response {
    let world = sim.world();
    let all: Vec<Value> = world.accounts.values().map(|account| portrait(&world, account)).collect();
    fine(&json!({"accounts": all}))
}

async fn show(State(sim): Shared, Path(id): Path<String>) -> Answer {
    let world = sim.world();
    let account = world.accounts.get(&id).ok_or_else(|| wrong(404, format!("no account {id}")))?;
    Ok(fine(&portrait(&world, account)))
}

async fn act(State(sim): Shared, Path((id, action)): Path<(String, String)>, body: Bytes) -> Answer {
    let mut world = sim.world();
    if !world.accounts.contains_key(&id) {
        return Err(wrong(404, format!("no account {id}")));
    }
    match action.as_str() {
        "set" => {
            let traits: Traits = read(&body)?;
            if traits.chatgpt_account_id.is_some() || traits.user_id.is_some() || traits.expired.is_some() {
                return Err(wrong(400, "ids and expired cannot be set later"));
            }
            if let Some(account) = world.accounts.get_mut(&id) {
                account.set(&traits, now());
            }
        }
        "invalidate_access" => world.grants.shut(&id, Shut::Invalidated),
        "expire_access" => world.grants.shut(&id, Shut::Expired),
        "expire_refresh" => world.grants.end(|token| token.account == id, Standing::Expired),
        "revoke" => {
            world.grants.shut(&id, Shut::Revoked);
            world.grants.end(|token| token.account == id, Standing::Revoked);
        }
        // A second holder of the same login, as a laptop with a copy of auth.json would be.
        "rotate_elsewhere" => rotate_elsewhere(&sim, &mut world, &id)?,
        _ => return Err(wrong(404, format!("no action {action}"))),
    }
    let account = world.accounts.get(&id).ok_or_else(|| wrong(404, &id))?;
    Ok(fine(&portrait(&world, account)))
}

fn rotate_elsewhere(sim: &Sim, world: &mut World, id: &str) -> Result<(), Wrong> {
    let live: Vec<String> = world.grants.refresh_tokens(id, Standing::Live).into_iter().map(str::to_owned).collect();
    for token in live {
        let tokens = sim.mint(world, id).map_err(|why| wrong(404, why))?;
        world.grants.rotate(&token, tokens.refresh, true).map_err(|why| wrong(409, format!("{why:?}")))?;
        world.grants.admit(id, tokens.access, now() + tokens.expires_in);
    }
    Ok(())
}

async fn standing(State(sim): Shared, Path(token): Path<String>) -> Response {
    let world = sim.world();
    match world.grants.known(&token) {
        Some(known) => fine(&json!({"state": known.standing, "account_id": known.account, "family": known.family})),
        None => fine(&json!({"state": "unknown", "account_id": null, "family": null})),
    }
}

async fn list_faults(State(sim): Shared) -> Response {
    fine(&json!({"faults": sim.faults.list()}))
}

async fn add_fault(State(sim): Shared, body: Bytes) -> Answer {
    let spec: Map<String, Value> = read(&body)?;
    let stored = sim.faults.add(spec).map_err(|why| wrong(400, why))?;
    Ok(json_answer(201, &stored))
}

async fn clear_faults(State(sim): Shared) -> Response {
    sim.faults.clear();
    fine(&json!({"faults": []}))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Release {
    #[serde(rename = "where")]
    place: Option<Place>,
    keep: bool,
}

async fn release(State(sim): Shared, body: Bytes) -> Answer {
    let Release { place, keep } = read(&body)?;
    Ok(fine(&json!({"released": sim.faults.release(place, keep)})))
}

async fn stats(State(sim): Shared) -> Response {
    let accounts: Map<String, Value> =
        sim.world().accounts.iter().map(|(id, account)| (id.clone(), json!(account.counters))).collect();
    let sum = |pointer: &str| -> u64 {
        accounts.values().filter_map(|one| one.pointer(pointer).and_then(Value::as_u64)).sum()
    };
    let (in_flight, max_in_flight) = sim.traffic.flights();
    let totals = json!({
        "responses": sum("/responses"), "completed": sum("/completed"), "cancelled": sum("/cancelled"), "broken": sum("/broken"),
        "refreshes": {"ok": sum("/refreshes/ok"), "reused": sum("/refreshes/reused"), "failed": sum("/refreshes/failed"),
            "unknown": sim.traffic.unknown_refreshes.load(Ordering::Relaxed)},
        "reuse_detected": sum("/refreshes/reused"), "logins": sum("/logins"),
        "tokens": {"input": sum("/tokens/input"), "cached": sum("/tokens/cached"), "output": sum("/tokens/output"), "reasoning": sum("/tokens/reasoning")},
    });
    fine(&json!({
        "requests": sim.traffic.total(), "in_flight": in_flight, "max_in_flight": max_in_flight,
        "cancelled_before_answer": sim.traffic.cancelled_early.load(Ordering::Relaxed),
        "waiting": sim.faults.waiting(), "totals": totals, "accounts": accounts, "paths": sim.traffic.paths(),
    }))
}

#[derive(Debug, Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn requests(State(sim): Shared, Query(Limit { limit }): Query<Limit>) -> Response {
    fine(&json!({"requests": sim.traffic.recent(limit.unwrap_or(usize::MAX))}))
}

async fn reset(State(sim): Shared) -> Response {
    sim.reset();
    fine(&json!({"status": "reset"}))
}

async fn script_login(State(sim): Shared, body: Bytes) -> Answer {
    let login: Login = read(&body)?;
    let mut world = sim.world();
    if let Some(account) = login.account.as_ref().filter(|account| !world.accounts.contains_key(*account)) {
        return Err(wrong(404, format!("no account {account}")));
    }
    world.logins.push_back(login);
    Ok(fine(&json!({"scripted": world.logins.len()})))
}

async fn devices(State(sim): Shared) -> Response {
    fine(&json!({"devices": sim.world().devices.0.values().collect::<Vec<_>>()}))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Decision {
    user_code: Option<String>,
    account: Option<String>,
}

async fn decide_device(State(sim): Shared, Path(decision): Path<String>, body: Bytes) -> Answer {
    let Decision { user_code, account } = read(&body)?;
    let mut world = sim.world();
    if let Some(account) = account.as_ref().filter(|account| !world.accounts.contains_key(*account)) {
        return Err(wrong(404, format!("no account {account}")));
    }
    let stage = match decision.as_str() {
        "approve" => Stage::Approved { account },
        "deny" => Stage::Denied,
        "expire" => Stage::Expired,
        _ => return Err(wrong(404, format!("no decision {decision}"))),
    };
    let decided =
        world.devices.decide(user_code.as_deref(), stage).ok_or_else(|| wrong(404, "no such pending device login"))?;
    Ok(fine(&json!({"user_code": decided})))
}
