//! What was used: reports out of the sums, and single requests.

use super::Admin;
use super::caller::{As, Caller, Sees};
use super::extract::{Answer, List, Page, Params, json};
use super::keys::key_of;
use super::problem::Fault;
use super::tenants::{team_of, user_of};
use crate::server::assemble::unix_millis;
use crate::store::{AttemptRow, Dimension, Store, UnixMillis, UsageFilter, UsageRow, UsageSum, Used};
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};
use utoipa::{IntoParams, ToSchema};

const DAY: i64 = 86_400_000;

/// Which use, and by what.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// One line for each: `team`, `user`, `key`, `account`, `model`, `dialect`, `day`, `hour`; one in all if left out.
    by: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    which: Which,
}

/// Which use.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// From when: `2026-11-01`, `2026-11-01T12:00:00Z`, or so long ago: `7d`, `12h`; 30d if left out.
    since: Option<String>,
    /// Until when, in the same forms; now if left out.
    until: Option<String>,
    /// Only this team's: id or name.
    team: Option<String>,
    /// Only this user's: id, name or email.
    user: Option<String>,
    /// Only this key's: id, name or visible start.
    key: Option<String>,
    /// Only on this account: id, name or email.
    account: Option<String>,
    /// Only this model's, as it goes upstream.
    model: Option<String>,
}

/// Which requests.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RequestQuery {
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    limit: Option<String>,
    cursor: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    which: Which,
}

/// A report.
#[derive(Serialize, ToSchema)]
pub(super) struct Report {
    /// Unix milliseconds.
    from: i64,
    /// Unix milliseconds.
    until: i64,
    by: Option<&'static str>,
    /// Of `cost`.
    currency: String,
    data: Vec<Line>,
}

/// A line of a report.
#[derive(Serialize, ToSchema)]
pub(super) struct Line {
    /// An id, a name, or the Unix day or hour.
    group: String,
    /// The same for people.
    label: String,
    requests: u64,
    /// Of these, that did not end well.
    failed: u64,
    /// Of these, whose tokens are estimated in part.
    estimated_requests: u64,
    input_tokens: u64,
    cached_tokens: u64,
    cache_write_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    /// Notional money, with six decimals.
    cost: String,
}

/// A request as the books have it.
#[derive(Serialize, ToSchema)]
pub(super) struct RequestView {
    id: String,
    /// Unix milliseconds.
    at: i64,
    /// Empty for none; so are the other ids.
    team_id: String,
    user_id: String,
    key_id: String,
    /// Null for those who do not see the gateway's accounts.
    account_id: Option<String>,
    dialect: String,
    endpoint: String,
    model_asked: String,
    model: String,
    effort: Option<String>,
    tier: Option<String>,
    status: u16,
    outcome: String,
    cause: Option<String>,
    input_tokens: u64,
    cached_tokens: u64,
    cache_write_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    /// Whether the backend did not count all of it.
    estimated: bool,
    /// Notional money, with six decimals; null for a model without a price.
    cost: Option<String>,
    first_byte_ms: Option<u64>,
    duration_ms: u64,
    /// The calls of the backend; only of a single request.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView>>,
}

/// A call of the backend.
#[derive(Serialize, ToSchema)]
pub(super) struct AttemptView {
    account_id: Option<String>,
    /// Unix milliseconds.
    at: i64,
    duration_ms: u64,
    outcome: String,
    status: Option<u16>,
    upstream_id: Option<String>,
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
}

fn money(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

async fn filter(caller: &Caller, store: &Store, which: &Which) -> Result<UsageFilter, Fault> {
    let now = unix_millis();
    let at = |text: &Option<String>, name: &str, default: &str| {
        let text = text.as_deref().unwrap_or(default);
        moment(text, now).ok_or_else(|| {
            let forms = "a date (2026-11-01), a moment (2026-11-01T12:00:00Z) or a time ago (7d)";
            Fault::new("invalid_request", format!("{name}: {text:?} is not {forms}"))
        })
    };
    let team = match &which.team {
        Some(asked) => Some(team_of(caller, store, asked).await?.id),
        None => caller.team,
    };
    let account = match &which.account {
        Some(_) if caller.team.is_some() => {
            return Err(Fault::new("forbidden", "accounts are for those who see the whole gateway"));
        }
        Some(asked) => Some(store.accounts().find(asked).await?.id),
        None => None,
    };
    let user = match &which.user {
        Some(asked) => Some(user_of(caller, store, asked).await?.id.to_string()),
        None => None,
    };
    let key = match &which.key {
        Some(asked) => Some(key_of(caller, store, asked).await?.id.to_string()),
        None => None,
    };
    Ok(UsageFilter {
        from: at(&which.since, "since", "30d")?,
        until: at(&which.until, "until", "0s")?,
        team_id: team.map(|id| id.to_string()),
        user_id: user,
        key_id: key,
        account_id: account.map(|id| id.to_string()),
        model: which.model.clone(),
    })
}

/// A report
#[utoipa::path(get, path = "/usage", tag = "Usage", params(UsageQuery, Which), responses((status = 200, description = "The report", body = Report)))]
pub(super) async fn report(
    caller: As<Sees>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(query): Params<UsageQuery>,
) -> Answer {
    let by = query.by.as_deref().map(str::parse::<Dimension>).transpose();
    let by = by.map_err(|error| Fault::new("invalid_request", format!("by: {error}")))?;
    if by == Some(Dimension::Account) && caller.team.is_some() {
        return Err(Fault::new("forbidden", "accounts are for those who see the whole gateway"));
    }
    let filter = filter(&caller, &admin.store, &query.which).await?;
    let sums = admin.store.ledger().report(&filter, by).await?;
    let names = names(&admin.store, by).await?;
    let report = Report {
        from: filter.from,
        until: filter.until,
        by: by.map(Dimension::as_str),
        currency: admin.currency.clone(),
        data: sums.into_iter().map(|sum| line(sum, by, &names)).collect(),
    };
    json(StatusCode::OK, &report)
}

/// What ids are called now.
async fn names(store: &Store, by: Option<Dimension>) -> Result<HashMap<String, String>, Fault> {
    Ok(match by {
        Some(Dimension::Team) => {
            store.tenants().teams().await?.into_iter().map(|team| (team.id.to_string(), team.name)).collect()
        }
        Some(Dimension::User) => {
            store.tenants().users().await?.into_iter().map(|user| (user.id.to_string(), user.name)).collect()
        }
        Some(Dimension::Key) => {
            store.keys().list().await?.into_iter().map(|key| (key.id.to_string(), key.name)).collect()
        }
        Some(Dimension::Account) => {
            let accounts = store.accounts().list().await?;
            accounts.into_iter().map(|account| (account.id.to_string(), account.name)).collect()
        }
        _ => HashMap::new(),
    })
}

fn line(sum: UsageSum, by: Option<Dimension>, names: &HashMap<String, String>) -> Line {
    let slot = |length: i64| {
        let seconds = sum.group.parse::<i64>().unwrap_or(0).saturating_mul(length);
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    let label = match by {
        None => "all".to_owned(),
        Some(Dimension::Day) => slot(86_400).date().to_string(),
        Some(Dimension::Hour) => slot(3_600).format(&Rfc3339).unwrap_or_default(),
        Some(_) if sum.group.is_empty() => "–".to_owned(),
        Some(_) => names.get(&sum.group).unwrap_or(&sum.group).clone(),
    };
    let UsageSum { group, requests, failed, used, estimated, cost } = sum;
    Line {
        group,
        label,
        requests,
        failed,
        estimated_requests: estimated,
        input_tokens: used.input,
        cached_tokens: used.cached,
        cache_write_tokens: used.cache_write,
        output_tokens: used.output,
        reasoning_tokens: used.reasoning,
        cost: money(cost),
    }
}

/// A date, a moment, or so long ago.
fn moment(text: &str, now: UnixMillis) -> Option<UnixMillis> {
    if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        return Some(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp() * 1000);
    }
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(moment.unix_timestamp() * 1000);
    }
    let ago = humantime::parse_duration(text).ok()?.as_millis();
    let at = now.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX)).max(0);
    // Whole days back are read from the sums by the day.
    Some(if ago > 0 && ago % u128::from(DAY.unsigned_abs()) == 0 { at.div_euclid(DAY) * DAY } else { at })
}

/// Single requests, the newest first
#[utoipa::path(get, path = "/requests", tag = "Usage", params(RequestQuery, Which), responses((status = 200, description = "A page", body = List<RequestView>)))]
pub(super) async fn requests(
    caller: As<Sees>,
    Shared(admin): Shared<Arc<Admin>>,
    Params(query): Params<RequestQuery>,
) -> Answer {
    // As text, for a number does not pass through a flattened query.
    let limit = query.limit.as_deref().map(str::parse).transpose();
    let limit = limit.map_err(|_| Fault::new("invalid_request", "limit is a number from 1 to 500"))?;
    let page = Page::new(limit, query.cursor);
    let filter = filter(&caller, &admin.store, &query.which).await?;
    // Until now is until after the request that ended a moment ago.
    let filter = UsageFilter { until: filter.until.saturating_add(i64::from(query.which.until.is_none())), ..filter };
    let rows = admin.store.ledger().requests(&filter, page.after()?.as_deref(), page.limit()? + 1).await?;
    let views = rows.into_iter().map(|row| view(&caller, row, false)).collect();
    json(StatusCode::OK, &page.cut(views, |request| request.id.clone())?)
}

/// One request, with its calls of the backend
#[utoipa::path(get, path = "/requests/{id}", tag = "Usage", params(("id" = String, Path, description = "As its client was told")), responses((status = 200, description = "The request", body = RequestView)))]
pub(super) async fn request(caller: As<Sees>, Shared(admin): Shared<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    let row = admin.store.ledger().request(&id).await?;
    let is_ours = caller.team.is_none_or(|team| row.team_id == team.to_string());
    if !is_ours {
        return Err(Fault::not_found("request", &id));
    }
    json(StatusCode::OK, &view(&caller, row, true))
}

fn view(caller: &Caller, row: UsageRow, whole: bool) -> RequestView {
    let all = caller.team.is_none();
    let Used { input, cached, cache_write, output, reasoning } = row.used;
    let attempt = |attempt: AttemptRow| AttemptView {
        account_id: Some(attempt.account_id).filter(|_| all),
        at: attempt.at,
        duration_ms: attempt.duration_ms,
        outcome: attempt.outcome,
        status: attempt.status,
        upstream_id: attempt.upstream_id.filter(|_| all),
        input_tokens: attempt.used.input,
        cached_tokens: attempt.used.cached,
        output_tokens: attempt.used.output,
    };
    RequestView {
        id: row.id,
        at: row.at,
        team_id: row.team_id,
        user_id: row.user_id,
        key_id: row.key_id,
        account_id: Some(row.account_id).filter(|_| all),
        dialect: row.dialect,
        endpoint: row.endpoint,
        model_asked: row.model_asked,
        model: row.model,
        effort: row.effort,
        tier: row.tier,
        status: row.status,
        outcome: row.outcome,
        cause: row.cause,
        input_tokens: input,
        cached_tokens: cached,
        cache_write_tokens: cache_write,
        output_tokens: output,
        reasoning_tokens: reasoning,
        estimated: row.estimated,
        cost: row.cost.map(money),
        first_byte_ms: row.first_byte_ms,
        duration_ms: row.duration_ms,
        attempts: whole.then(|| row.attempts.into_iter().map(attempt).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_given_in_three_forms() {
        let now = 1_795_000_000_000;
        assert_eq!(moment("2026-11-01", now), Some(1_793_491_200_000));
        assert_eq!(moment("2026-11-01T01:00:00+01:00", now), Some(1_793_491_200_000));
        assert_eq!(moment("2h", now), Some(now - 7_200_000));
        assert_eq!(moment("7d", now).map(|at| at % DAY), Some(0));
        assert_eq!(moment("0s", now), Some(now));
        assert_eq!(moment("yesterday", now), None);
    }
}
