//! Which log lines the replica that answers writes, while it runs.

use super::Admin;
use super::caller::{As, RunsAll, SeesAll};
use super::extract::{Answer, Body, json};
use super::problem::Fault;
use crate::telemetry::logs::{Level, LevelError};
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Which log lines are written.
#[derive(Serialize, ToSchema)]
#[schema(as = LogLevel)]
pub(super) struct LogLevelView {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or a filter.
    level: String,
    /// The setting, which holds again after a start.
    configured: String,
}

/// Another level.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevelPatch {
    /// A level, or a filter such as `info,tollway::relay=debug`.
    level: String,
}

fn level(admin: &Admin) -> Result<&Level, Fault> {
    admin.live.log().ok_or_else(|| Fault::new("unavailable", "no gateway runs here whose log there could be"))
}

fn view(admin: &Admin, level: String) -> LogLevelView {
    LogLevelView { level, configured: admin.live.settings().log.level.clone() }
}

/// Which log lines are written
#[utoipa::path(get, path = "/log-level", tag = "Gateway", responses((status = 200, description = "Of the replica that answers", body = LogLevelView)))]
pub(super) async fn get(_: As<SeesAll>, Shared(admin): Shared<Arc<Admin>>) -> Answer {
    json(StatusCode::OK, &view(&admin, level(&admin)?.get()))
}

/// Write more log lines, or fewer, from now on
///
/// Holds for the replica that answers, until it ends.
#[utoipa::path(patch, path = "/log-level", tag = "Gateway", request_body = LogLevelPatch, responses((status = 200, description = "In force", body = LogLevelView)))]
pub(super) async fn patch(
    caller: As<RunsAll>,
    Shared(admin): Shared<Arc<Admin>>,
    Body(body): Body<LogLevelPatch>,
) -> Answer {
    let log = level(&admin)?;
    let set = |text: &str| {
        log.set(text).map_err(|error| match error {
            LevelError::Parse(..) | LevelError::Empty => Fault::value(format!("level: {error}")),
            LevelError::Gone(_) => Fault::new("internal", error.to_string()),
        })
    };
    let before = set(&body.level)?;
    let now = log.get();
    let noted = caller.store(&admin).note_change("log_level.update", "log.level", &before, &now).await;
    // What nobody can read about afterwards is not done.
    if let Err(error) = noted {
        set(&before)?;
        return Err(error.into());
    }
    tracing::info!(actor = caller.id, before, now, "the log's level was changed");
    json(StatusCode::OK, &view(&admin, now))
}
