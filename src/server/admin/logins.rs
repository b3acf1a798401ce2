//! Logging accounts in over the API, in two steps: begin, and finish with what the browser ended at or
//! when the code was entered. What is between them is sealed in the database, so that any replica can
//! take the second step.

use super::accounts::{Enrolled, enrol};
use super::caller::{As, RunsAll};
use super::extract::{self, Answer, Body, json};
use super::problem::Fault;
use super::{Admin, gate};
use crate::oauth::{
    AuthorizationCode, DEVICE_CODE_LIFE, DeviceCode, DeviceError, DevicePoll, LoginEntropy, PendingLogin, redirect_uri,
};
use crate::server::assemble::{self, unix_millis};
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// How a login begins.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginBody {
    /// `browser`: open an address, log in, hand back the address that the browser ends at. `device`:
    /// enter a code on another device.
    method: Method,
    /// What to call the account here.
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Method {
    Browser,
    Device,
}

/// A login that waits for a person.
#[derive(Serialize, ToSchema)]
pub(super) struct LoginView {
    /// To finish it with.
    id: String,
    method: Method,
    /// Where the person goes.
    url: String,
    /// What the person types there, of `device`.
    user_code: Option<String>,
    /// How many seconds to wait between two attempts to finish, of `device`.
    interval: Option<u64>,
    /// Unix milliseconds.
    expires_at: i64,
}

/// How a login ends.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FinishBody {
    /// The whole address that the browser ended at, of `browser`.
    callback: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Waiting {
    method: Method,
    name: Option<String>,
    note: String,
}

fn slip(id: &str) -> String {
    format!("login:{id}")
}

fn issuer(admin: &Admin) -> Result<crate::oauth::OAuthClient, Fault> {
    let settings = admin.live.settings();
    let http = assemble::http_client(settings).map_err(|error| Fault::new("internal", error.to_string()))?;
    Ok(assemble::issuer(settings, &http))
}

fn device_fault(error: DeviceError) -> Fault {
    match error {
        DeviceError::NotEnabled | DeviceError::Expired | DeviceError::Denied => {
            Fault::new("conflict", error.to_string())
        }
        DeviceError::Issuer(error) => Fault::new("upstream", error.to_string()),
    }
}

/// Begin to log an account in
#[utoipa::path(post, path = "/account-logins", tag = "Accounts", request_body = LoginBody, responses((status = 201, description = "Waits for a person", body = LoginView)))]
pub(super) async fn begin(_: As<RunsAll>, Shared(admin): Shared<Arc<Admin>>, Body(body): Body<LoginBody>) -> Answer {
    let name = body.name.map(|name| extract::name(&name)).transpose()?;
    let issuer = issuer(&admin)?;
    let id = Uuid::now_v7().simple().to_string();
    let expires_at = gate::end_of(DEVICE_CODE_LIFE);
    let (note, view) = match body.method {
        Method::Browser => {
            let entropy = LoginEntropy::random().map_err(|error| Fault::new("internal", error.to_string()))?;
            let redirect = redirect_uri(admin.live.settings().oauth.callback_port);
            let login = PendingLogin::begin(&issuer, redirect, &entropy);
            let url = login.url.to_string();
            (login.to_note(), LoginView { id, method: body.method, url, user_code: None, interval: None, expires_at })
        }
        Method::Device => {
            let code = issuer.device_start().await.map_err(device_fault)?;
            let (url, interval) = (code.page.to_string(), Some(code.interval.as_secs()));
            let user_code = Some(code.user_code.clone());
            (code.to_note(), LoginView { id, method: body.method, url, user_code, interval, expires_at })
        }
    };
    let waiting = Waiting { method: body.method, name, note: String::from_utf8_lossy(&note).into_owned() };
    let content = zeroize::Zeroizing::new(serde_json::to_vec(&waiting).unwrap_or_default());
    admin.store.slips().put(&slip(&view.id), &content, expires_at).await?;
    json(StatusCode::CREATED, &view)
}

/// Finish a login: with the address that the browser ended at, or to see whether the code was entered
#[utoipa::path(
    post, path = "/account-logins/{id}/finish", tag = "Accounts", params(("id" = String, Path, description = "Of the login")), request_body = FinishBody,
    responses((status = 201, description = "The account is stored", body = Enrolled), (status = 202, description = "Nobody has entered the code yet", body = serde_json::Value))
)]
pub(super) async fn finish(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Path(id): Path<String>,
    Body(body): Body<FinishBody>,
) -> Answer {
    let gone = || Fault::not_found("login that waits", &id);
    let note = admin.store.slips().get(&slip(&id), unix_millis()).await?.ok_or_else(gone)?;
    let waiting: Waiting = serde_json::from_slice(&note).map_err(|_| gone())?;
    let issuer = issuer(&admin)?;
    let code: AuthorizationCode = match waiting.method {
        Method::Browser => {
            let login = PendingLogin::of_note(waiting.note.as_bytes()).ok_or_else(gone)?;
            let callback =
                body.callback.ok_or_else(|| Fault::value("callback: give the address that the browser ended at"))?;
            login.finish(&callback).map_err(|error| Fault::value(format!("callback: {error}")))?
        }
        Method::Device => {
            let code = DeviceCode::of_note(waiting.note.as_bytes()).ok_or_else(gone)?;
            match issuer.device_poll(&code).await.map_err(device_fault)? {
                DevicePoll::Pending => return json(StatusCode::ACCEPTED, &value!({"status": "pending"})),
                DevicePoll::Approved(code) => code,
            }
        }
    };
    // Of two who finish at once, one goes on: a code is good for one exchange.
    admin.store.slips().take(&slip(&id), unix_millis()).await?.ok_or_else(gone)?;
    let failed = |error: crate::oauth::OAuthError| Fault::new("upstream", error.to_string());
    let tokens = issuer.exchange_code(&code).await.map_err(failed)?;
    let enrolment = tokens.enrol(unix_millis()).map_err(|error| Fault::new("upstream", error.to_string()))?;
    let enrolled = enrol(&caller.store(&admin), vec![enrolment], waiting.name.as_deref()).await?;
    json(StatusCode::CREATED, &enrolled)
}
