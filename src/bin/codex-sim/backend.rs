//! The backend's small endpoints: models, usage, accounts check (protocol.md 6).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::account::Account;
use crate::catalogue;
use crate::faults::{Kind, Place, Stall, When};
use crate::intake::Intake;
use crate::mishap;
use crate::script::PIXEL;
use crate::seal;
use crate::state::{Sim, now};

/// Authenticates, meets the faults of `place`, then answers from the account.
async fn with_account(
    sim: &Sim,
    intake: &Intake,
    place: Place,
    answer: impl FnOnce(&mut Account) -> Response,
) -> Response {
    let id = match intake.authenticate(sim) {
        Ok(id) => id,
        Err(denied) => return denied.into_response(),
    };
    let mut fate = sim.faults.meet(place, Some(&id));
    fate.pass(When::Before).await;
    if fate.end == Some(Kind::Stall { at: Stall::Headers }) {
        std::future::pending::<()>().await;
    }
    let fault = match &fate.end {
        Some(Kind::Malformed { .. }) => Some(mishap::malformed()),
        Some(kind) => mishap::instead(kind, "plus"),
        None => None,
    };
    fate.pass(When::After).await;
    match (fault, sim.world().accounts.get_mut(&id)) {
        (Some(fault), _) => fault,
        (None, Some(account)) => answer(account),
        (None, None) => mishap::detail(401, "Unauthorized"),
    }
}

/// `GET /backend-api/codex/models`.
pub(crate) async fn models(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    if !intake.uri.query().unwrap_or_default().contains("client_version=") {
        return mishap::json_answer(
            422,
            &json!({"detail": [{"loc": ["query", "client_version"], "msg": "Field required", "type": "missing"}]}),
        );
    }
    with_account(&sim, &intake, Place::Models, |account| {
        let etag = [(header::ETAG, catalogue::ETAG)];
        if intake.header("if-none-match") == Some(catalogue::ETAG) {
            return (StatusCode::NOT_MODIFIED, etag).into_response();
        }
        let mut answer = mishap::json_answer(200, &catalogue::listing(account.models.as_deref()));
        answer.headers_mut().extend(etag.map(|(name, value)| (name, axum::http::HeaderValue::from_static(value))));
        answer
    })
    .await
}

/// `GET /backend-api/wham/usage`.
pub(crate) async fn usage(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    with_account(&sim, &intake, Place::Usage, |account| {
        account.limits.roll(now());
        let limits = &account.limits;
        let reached = limits.full_until().map(|_| json!({"type": "rate_limit_reached", "details": null}));
        let body = json!({
            "user_id": account.user_id, "account_id": account.chatgpt_account_id, "email": account.email, "plan_type": account.plan,
            "rate_limit": limits.usage(now()), "code_review_rate_limit": null, "additional_rate_limits": null,
            "credits": {"has_credits": limits.has_credits, "unlimited": false, "balance": if limits.has_credits { "5.00" } else { "0" },
                "overage_limit_reached": false, "approx_local_messages": [0, 0], "approx_cloud_messages": [0, 0]},
            "spend_control": {"reached": false, "individual_limit": null}, "rate_limit_reached_type": reached,
            "rate_limit_upsell": null, "promo": null, "rate_limit_reset_credits": {"available_count": 0},
        });
        mishap::json_answer(200, &body)
    })
    .await
}

/// `GET /backend-api/wham/accounts/check`.
pub(crate) async fn accounts_check(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    with_account(&sim, &intake, Place::AccountsCheck, |account| {
        let id = &account.chatgpt_account_id;
        let body = json!({
            "accounts": [{"id": id, "name": null, "structure": "personal", "plan_type": account.plan,
                "workspace_backend_origin": account.workspace_backend_origin,
                "account_routing_override": account.routing_override,
                "is_deactivated": account.deactivated, "can_access_with_session": true, "sso_connection_name": null,
                "is_fedramp_compliant_workspace": account.fedramp, "profile_picture_url": null}],
            "account_ordering": [id], "default_account_id": id,
        });
        mishap::json_answer(200, &body)
    })
    .await
}

/// `POST /backend-api/codex/responses/compact`, the older call (protocol.md 6.3), while
/// `settings.compact_v1` is on.
pub(crate) async fn compact(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    if !sim.settings().compact_v1 {
        return mishap::detail(404, "Not Found");
    }
    with_account(&sim, &intake, Place::Responses, |account| {
        if !intake.body.get("input").is_some_and(serde_json::Value::is_array) {
            return mishap::detail(400, "Input must be a list");
        }
        let sealed = seal::seal(&account.chatgpt_account_id, "compacted");
        mishap::json_answer(
            200,
            &json!({"output": [{"type": "compaction", "id": "cmp_v1", "encrypted_content": sealed}]}),
        )
    })
    .await
}

/// `POST /backend-api/codex/images/generations` and `…/edits`: as many pixels as asked for.
pub(crate) async fn images(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    with_account(&sim, &intake, Place::Responses, |_| {
        if intake.field("prompt").is_empty() {
            return mishap::detail(400, "Field required: prompt");
        }
        let count = intake.body.get("n").and_then(serde_json::Value::as_u64).unwrap_or(1).min(10);
        let data: Vec<_> = (0..count).map(|_| json!({"b64_json": PIXEL})).collect();
        mishap::json_answer(
            200,
            &json!({"created": now(), "data": data, "background": "opaque", "quality": "low", "size": "1024x1024",
                "output_format": "png", "usage": {"input_tokens": 9, "output_tokens": 272, "total_tokens": 281}}),
        )
    })
    .await
}

/// `POST /backend-api/codex/alpha/search`.
pub(crate) async fn search(State(sim): State<Arc<Sim>>, intake: Intake) -> Response {
    with_account(&sim, &intake, Place::Responses, |_| {
        mishap::json_answer(200, &json!({"output": "Found: a simulated page."}))
    })
    .await
}

/// Everything else.
pub(crate) async fn not_found(_: Intake) -> Response {
    mishap::detail(404, "Not Found")
}
