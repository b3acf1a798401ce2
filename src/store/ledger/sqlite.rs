//! Rows in few statements: each is a journey to the thread that has the connection, and back.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Sqlite, Transaction};

use super::{AttemptRow, HOUR, UsageRow, UsageSum, merge, signed};
use crate::store::{
    Store,
    backend::{Dual, slices},
    error::Result,
};

/// Writes requests with their attempts and sums; see `LedgerStore::append_as`.
pub(super) async fn all(store: &Store, rows: &[UsageRow]) -> Result<()> {
    let Dual::Sqlite(mut write) = store.backend.write(&[]).await? else { return Ok(()) };
    let new: Vec<&UsageRow> = rows.iter().collect();
    if requests(&mut write, &new).await? == rows.len() {
        attempts(&mut write, &new).await?;
        sums(&mut write, &new).await?;
    } else {
        // Some were there before, as after a commit that was in doubt: seldom, so this may take longer.
        write.rollback().await?;
        let Dual::Sqlite(again) = store.backend.write(&[]).await? else { return Ok(()) };
        write = again;
        let mut new = Vec::new();
        for row in rows {
            if requests(&mut write, &[row]).await? == 1 {
                new.push(row);
            }
        }
        attempts(&mut write, &new).await?;
        sums(&mut write, &new).await?;
    }
    write.commit().await?;
    Ok(())
}

/// Gives how many were not there yet.
async fn requests(write: &mut Transaction<'_, Sqlite>, rows: &[&UsageRow]) -> Result<usize> {
    let mut new = 0;
    for some in slices(rows) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO usage_requests (id, at, team_id, user_id, key_id, account_id, dialect, endpoint, model_asked,
                model, effort, tier, status, outcome, cause, input, cached, cache_write, output, reasoning, estimated,
                cost, attempts, first_byte_ms, duration_ms) ",
        );
        query.push_values(some, |mut values, row| {
            values
                .push_bind(row.id.as_str())
                .push_bind(row.at)
                .push_bind(row.team_id.as_str())
                .push_bind(row.user_id.as_str())
                .push_bind(row.key_id.as_str())
                .push_bind(row.account_id.as_str())
                .push_bind(row.dialect.as_str())
                .push_bind(row.endpoint.as_str())
                .push_bind(row.model_asked.as_str())
                .push_bind(row.model.as_str())
                .push_bind(row.effort.as_deref())
                .push_bind(row.tier.as_deref())
                .push_bind(i64::from(row.status))
                .push_bind(row.outcome.as_str())
                .push_bind(row.cause.as_deref())
                .push_bind(signed(row.used.input))
                .push_bind(signed(row.used.cached))
                .push_bind(signed(row.used.cache_write))
                .push_bind(signed(row.used.output))
                .push_bind(signed(row.used.reasoning))
                .push_bind(row.estimated)
                .push_bind(row.cost.map(signed))
                .push_bind(i64::try_from(row.attempts.len()).unwrap_or(i64::MAX))
                .push_bind(row.first_byte_ms.map(signed))
                .push_bind(signed(row.duration_ms));
        });
        query.push(" ON CONFLICT (id) DO NOTHING");
        let done = query.build().execute(&mut **write).await?;
        new += usize::try_from(done.rows_affected()).unwrap_or(0);
    }
    Ok(new)
}

async fn attempts(write: &mut Transaction<'_, Sqlite>, rows: &[&UsageRow]) -> Result<()> {
    let all: Vec<(&str, i64, &AttemptRow)> = rows
        .iter()
        .flat_map(|row| (1_i64..).zip(&row.attempts).map(|(number, attempt)| (row.id.as_str(), number, attempt)))
        .collect();
    for some in slices(&all) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO usage_attempts (request_id, number, account_id, at, duration_ms, outcome, status,
                upstream_id, input, cached, output) ",
        );
        query.push_values(some, |mut values, (request, number, attempt)| {
            values
                .push_bind(*request)
                .push_bind(*number)
                .push_bind(attempt.account_id.as_str())
                .push_bind(attempt.at)
                .push_bind(signed(attempt.duration_ms))
                .push_bind(attempt.outcome.as_str())
                .push_bind(attempt.status.map(i64::from))
                .push_bind(attempt.upstream_id.as_deref())
                .push_bind(signed(attempt.used.input))
                .push_bind(signed(attempt.used.cached))
                .push_bind(signed(attempt.used.output));
        });
        query.build().execute(&mut **write).await?;
    }
    Ok(())
}

/// Counts rows by the hour and by the day.
async fn sums(write: &mut Transaction<'_, Sqlite>, rows: &[&UsageRow]) -> Result<()> {
    let mut hours: BTreeMap<Cell, UsageSum> = BTreeMap::new();
    for row in rows {
        add(hours.entry(Cell::of(row)).or_default(), row);
    }
    upsert(write, ("usage_hourly", "hour"), &hours).await?;
    let mut days: BTreeMap<Cell, UsageSum> = BTreeMap::new();
    for (mut cell, sum) in hours {
        cell.slot = cell.slot.div_euclid(24);
        merge(days.entry(cell).or_default(), &sum);
    }
    upsert(write, ("usage_daily", "day"), &days).await
}

/// What a sum is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    /// The Unix hour, or day.
    slot: i64,
    team_id: String,
    user_id: String,
    key_id: String,
    account_id: String,
    model: String,
    dialect: String,
}

impl Cell {
    fn of(row: &UsageRow) -> Self {
        Self {
            slot: row.at.div_euclid(HOUR),
            team_id: row.team_id.clone(),
            user_id: row.user_id.clone(),
            key_id: row.key_id.clone(),
            account_id: row.account_id.clone(),
            model: row.model.clone(),
            dialect: row.dialect.clone(),
        }
    }
}

fn add(sum: &mut UsageSum, row: &UsageRow) {
    let one = UsageSum {
        group: String::new(),
        requests: 1,
        failed: u64::from(row.outcome != "ok"),
        used: row.used,
        estimated: u64::from(row.estimated),
        cost: row.cost.unwrap_or(0),
    };
    merge(sum, &one);
}

/// Adds sums to those of a table, whose slots are of this name.
async fn upsert(
    write: &mut Transaction<'_, Sqlite>,
    (table, slot): (&'static str, &'static str),
    sums: &BTreeMap<Cell, UsageSum>,
) -> Result<()> {
    let all: Vec<(&Cell, &UsageSum)> = sums.iter().collect();
    for some in slices(&all) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO ");
        query.push(table).push(" (").push(slot).push(
            ", team_id, user_id, key_id, account_id, model, dialect, requests, failed, input, cached, cache_write,
                output, reasoning, estimated, cost) ",
        );
        query.push_values(some, |mut values, (cell, sum)| {
            values
                .push_bind(cell.slot)
                .push_bind(cell.team_id.as_str())
                .push_bind(cell.user_id.as_str())
                .push_bind(cell.key_id.as_str())
                .push_bind(cell.account_id.as_str())
                .push_bind(cell.model.as_str())
                .push_bind(cell.dialect.as_str())
                .push_bind(signed(sum.requests))
                .push_bind(signed(sum.failed))
                .push_bind(signed(sum.used.input))
                .push_bind(signed(sum.used.cached))
                .push_bind(signed(sum.used.cache_write))
                .push_bind(signed(sum.used.output))
                .push_bind(signed(sum.used.reasoning))
                .push_bind(signed(sum.estimated))
                .push_bind(signed(sum.cost));
        });
        query.push(" ON CONFLICT (").push(slot).push(
            ", team_id, user_id, key_id, account_id, model, dialect) DO UPDATE SET
                requests = requests + excluded.requests, failed = failed + excluded.failed,
                input = input + excluded.input, cached = cached + excluded.cached,
                cache_write = cache_write + excluded.cache_write, output = output + excluded.output,
                reasoning = reasoning + excluded.reasoning, estimated = estimated + excluded.estimated,
                cost = cost + excluded.cost",
        );
        query.build().execute(&mut **write).await?;
    }
    Ok(())
}
