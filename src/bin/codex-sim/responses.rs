//! `POST /backend-api/codex/responses`: who may, what is refused, and the stream.
//!
//! Puts the pure rooms together; the answer itself is written in [`crate::script`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::account::Limits;
use crate::events::{self, Event};
use crate::faults::{Fate, Kind, Place, Position, Stall, When};
use crate::intake::Intake;
use crate::playback::{self, Watch};
use crate::state::{Sim, now};
use crate::usage::{self, Prompt, Usage};
use crate::{catalogue, mishap, rules, script, seal};

/// What an answer needs to know of its account.
#[derive(Debug)]
pub(crate) struct Caller {
    id: String,
    chatgpt_account_id: String,
    pub(crate) plan: String,
    pub(crate) limits: Limits,
    models: Option<Vec<String>>,
}

/// Answers a turn.
pub(crate) async fn respond(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    let id = match intake.authenticate(&sim) {
        Ok(id) => id,
        Err(denied) => return denied.into_response(),
    };
    let watch = Watch::new(&sim, &id);
    let mut fate = sim.faults.meet(Place::Responses, Some(&id));
    fate.pass(When::Before).await;
    let Some(caller) = caller(&sim, id) else {
        return mishap::detail(401, "Unauthorized");
    };
    let fault = fate.end.as_ref().and_then(|kind| mishap::instead(kind, &caller.plan));
    if let Some(refusal) = fault.or_else(|| full(&caller)).or_else(|| refused(&intake.body, &caller)) {
        fate.pass(When::After).await;
        watch.answered();
        return with_headers(refusal, &sim, &caller, &intake);
    }
    if fate.end == Some(Kind::Stall { at: Stall::Headers }) {
        std::future::pending::<()>().await;
    }
    let (events, usage) = answer(&sim, &caller, &intake.body, &fate);
    fate.pass(When::After).await;
    if fate.end == Some(Kind::DropAnswer {}) {
        watch.answered();
        return mishap::hang_up();
    }
    let delay = Duration::from_millis(sim.settings().delta_delay_ms);
    let steps = playback::schedule(&events, delay, &fate);
    let stream = (
        [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")],
        playback::body(steps, watch, usage),
    );
    with_headers(stream.into_response(), &sim, &caller, &intake)
}

pub(crate) fn caller(sim: &Sim, id: String) -> Option<Caller> {
    let mut world = sim.world();
    let account = world.accounts.get_mut(&id)?;
    account.limits.roll(now());
    Some(Caller {
        id,
        chatgpt_account_id: account.chatgpt_account_id.clone(),
        plan: account.plan.clone(),
        limits: account.limits.clone(),
        models: account.models.clone(),
    })
}

pub(crate) fn full(caller: &Caller) -> Option<Response> {
    caller.limits.full_until().map(|resets_at| mishap::usage_limit(&caller.plan, resets_at))
}

pub(crate) fn refused(request: &Value, caller: &Caller) -> Option<Response> {
    let opens = |sealed: &str| seal::opens(&caller.chatgpt_account_id, sealed);
    let refusal = rules::check(request, caller.models.as_deref(), opens).err()?;
    Some(mishap::json_answer(refusal.status, &refusal.body))
}

/// The events of the answer and what it costs; nothing when a fault makes it fail.
pub(crate) fn answer(sim: &Sim, caller: &Caller, request: &Value, fate: &Fate) -> (Vec<Event>, Option<Usage>) {
    let mut random = sim.random();
    let mut stamp = |prefix: &str| format!("{prefix}_{:032x}", random.u128(..));
    let envelope = events::envelope(request, &stamp("resp"), now());
    let nonce = || {
        let nonce: String = sim.token("", 16);
        seal::seal(&caller.chatgpt_account_id, &nonce)
    };
    let script = script::write(request, nonce);
    let prompt = Prompt::of(request);
    let input = prompt.tokens();
    let key = request.get("prompt_cache_key").and_then(Value::as_str);
    let cached = sim.world().accounts.get_mut(&caller.id).map_or(0, |account| account.cached(key, &prompt));
    let (output, reasoning) = usage::of_outputs(&script.outputs);
    let usage = Usage { input, cached, output, reasoning };
    let mut events = events::render(&envelope, &script, usage, &mut stamp);
    if sim.settings().rate_limits {
        events.insert(1, Event::new("codex.rate_limits", caller.limits.event(&caller.plan)));
    }
    match &fate.end {
        Some(Kind::FailedEvent { code, message, at, event }) => {
            events.truncate(if *at == Position::BeforeText { 2 } else { events.len() / 2 });
            events.push(failure(&envelope, code.as_deref(), message, event));
            (events, None)
        }
        _ => (events, Some(usage)),
    }
}

fn failure(envelope: &Value, code: Option<&str>, message: &str, event: &str) -> Event {
    if event == "error" {
        return Event::new("error", json!({"code": code, "message": message, "param": null}));
    }
    events::failed(envelope, code, message)
}

/// Adds the headers of protocol.md 5.1 and 3 to a good or bad answer.
fn with_headers(mut response: Response<Body>, sim: &Sim, caller: &Caller, intake: &Intake) -> Response {
    let headers = response.headers_mut();
    for (name, value) in caller.limits.headers(&caller.plan) {
        put(headers, name, &value);
    }
    let id = uuid::Builder::from_random_bytes(sim.random().u128(..).to_be_bytes()).into_uuid();
    put(headers, "x-request-id", &id.to_string());
    put(headers, "x-models-etag", catalogue::ETAG);
    put(headers, "openai-model", intake.field("model"));
    put(headers, "x-codex-turn-state", &turn_state(sim, caller, intake.header("x-codex-turn-state")));
    response
}

/// Never replaces what a fault has set.
pub(crate) fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.entry(HeaderName::from_static(name)).or_insert(value);
    }
}

/// The turn state a client gave, or a new one. Another account's is counted and replaced.
pub(crate) fn turn_state(sim: &Sim, caller: &Caller, given: Option<&str>) -> String {
    let mine = format!("ts1.{}.", caller.id);
    if let Some(given) = given {
        if given.starts_with(&mine) {
            return given.to_owned();
        }
        if let Some(account) = sim.world().accounts.get_mut(&caller.id) {
            account.counters.foreign_turn_state += 1;
        }
    }
    sim.token(&mine, 16)
}
