//! Device-code login (protocol.md 1.6): the codes under way and the two endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use crate::account::Traits;
use crate::faults::{Place, When};
use crate::grants::{Code, challenge};
use crate::intake::Intake;
use crate::mishap;
use crate::oauth::DEVICE_REDIRECT;
use crate::state::{CLIENT_ID, Sim, World, now};

/// Life of a user code, in seconds.
const LIFE: i64 = 900;

/// Where a device login stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum Stage {
    /// Nobody typed the code yet.
    #[default]
    Pending,
    /// Approved, perhaps for a certain account; else a new one.
    Approved { account: Option<String> },
    /// The user said no.
    Denied,
    /// Too late.
    Expired,
    /// The client has fetched its code.
    Done,
}

/// One device login.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Device {
    #[serde(rename = "device_auth_id")]
    pub(crate) id: String,
    pub(crate) user_code: String,
    pub(crate) polls: u32,
    pub(crate) expires_at: i64,
    #[serde(flatten)]
    pub(crate) stage: Stage,
}

/// All device logins, by `device_auth_id`.
#[derive(Debug, Default)]
pub(crate) struct Devices(pub(crate) BTreeMap<String, Device>);

impl Devices {
    /// Moves the pending login with this user code (the newest without one) on; gives its code.
    pub(crate) fn decide(&mut self, user_code: Option<&str>, stage: Stage) -> Option<String> {
        let pending = self.0.values_mut().filter(|device| device.stage == Stage::Pending);
        let chosen = pending
            .filter(|device| user_code.is_none_or(|code| code == device.user_code))
            .max_by_key(|device| device.expires_at)?;
        chosen.stage = stage;
        Some(chosen.user_code.clone())
    }
}

/// Begins a device login.
pub(crate) async fn user_code(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    if let Some(answer) = trouble(&sim).await {
        return answer;
    }
    if intake.field("client_id") != CLIENT_ID {
        return mishap::error(400, "invalid_request_error", "invalid_client", "client_id is unknown");
    }
    let mut random = sim.random();
    let mut letters =
        |count: usize| -> String { (0..count).map(|_| random.alphabetic().to_ascii_uppercase()).collect() };
    let user_code = format!("{}-{}", letters(4), letters(4));
    let device_auth_id = sim.token("deviceauth_", 24);
    let device = Device {
        id: device_auth_id.clone(),
        user_code: user_code.clone(),
        polls: 0,
        expires_at: now() + LIFE,
        stage: Stage::Pending,
    };
    sim.world().devices.0.insert(device_auth_id.clone(), device);
    // A string, as the CLI's parser wants it.
    let interval = sim.settings().device_interval_s.to_string();
    mishap::json_answer(200, &json!({"device_auth_id": device_auth_id, "user_code": user_code, "interval": interval}))
}

/// Answers a poll.
pub(crate) async fn poll(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    if let Some(answer) = trouble(&sim).await {
        return answer;
    }
    let approve_after = sim.settings().device_approve_after;
    let mut world = sim.world();
    let known = world.devices.0.get_mut(intake.field("device_auth_id"));
    let Some(device) = known.filter(|device| device.user_code == intake.field("user_code")) else {
        return mishap::error(
            400,
            "invalid_request_error",
            "invalid_request",
            "device_auth_id and user_code do not belong together",
        );
    };
    device.polls += 1;
    if device.stage == Stage::Pending && approve_after.is_some_and(|polls| device.polls >= polls) {
        device.stage = Stage::Approved { account: None };
    }
    if device.stage == Stage::Pending && device.expires_at <= now() {
        device.stage = Stage::Expired;
    }
    match std::mem::replace(&mut device.stage, Stage::Done) {
        Stage::Approved { account } => hand_over(&sim, &mut world, account),
        other => {
            device.stage = other;
            waiting(&device.stage)
        }
    }
}

async fn trouble(sim: &Sim) -> Option<Response> {
    let mut fate = sim.faults.meet(Place::Device, None);
    fate.pass(When::Before).await;
    fate.end.as_ref().and_then(|kind| mishap::instead(kind, "plus"))
}

fn waiting(stage: &Stage) -> Response {
    let (status, code, message) = match stage {
        Stage::Pending | Stage::Approved { .. } => (403, "deviceauth_authorization_pending", "Waiting for the user"),
        Stage::Denied => (400, "access_denied", "The user denied the request"),
        Stage::Expired => (400, "expired_token", "The device code has expired"),
        Stage::Done => (400, "invalid_grant", "The device code was used before"),
    };
    mishap::error(status, "invalid_request_error", code, message)
}

/// The code and the PKCE pair, which in this flow the server chooses.
fn hand_over(sim: &Sim, world: &mut World, account: Option<String>) -> Response {
    let account = match account.map_or_else(|| world.enrol(&Traits::default()), Ok) {
        Ok(account) => account,
        Err(why) => return mishap::detail(500, &why),
    };
    let verifier = sim.token("", 64);
    let text = sim.token("ac_sim_", 40);
    let code = Code {
        account,
        challenge: challenge(&verifier),
        redirect_uri: DEVICE_REDIRECT.to_owned(),
        expires_at: now() + LIFE,
        offline: true,
    };
    world.grants.issue_code(text.clone(), code);
    mishap::json_answer(
        200,
        &json!({"authorization_code": text, "code_challenge": challenge(&verifier), "code_verifier": verifier}),
    )
}
