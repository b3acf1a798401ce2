//! Rows and sums in one statement: many servers write to one Postgres, and a statement for each row
//! would be most of what they ask of it.

use sqlx::postgres::PgPool;

use super::{AttemptRow, UsageRow, signed};
use crate::store::error::Result;

/// What is new is written, and counted: by the hour, by the day, by holder, and off what the server
/// has said that it used beside the ledger. Sums in the order of their keys, so that two servers never
/// wait for each other.
const APPEND: &str = "
WITH new AS (
    INSERT INTO usage_requests (id, at, team_id, user_id, key_id, account_id, dialect, endpoint, model_asked, model,
        effort, tier, status, outcome, cause, input, cached, cache_write, output, reasoning, estimated, cost, attempts,
        first_byte_ms, duration_ms)
    SELECT * FROM UNNEST($1::TEXT[], $2::BIGINT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TEXT[], $7::TEXT[],
        $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[], $12::TEXT[], $13::BIGINT[], $14::TEXT[], $15::TEXT[],
        $16::BIGINT[], $17::BIGINT[], $18::BIGINT[], $19::BIGINT[], $20::BIGINT[], $21::BOOLEAN[], $22::BIGINT[],
        $23::BIGINT[], $24::BIGINT[], $25::BIGINT[])
    ON CONFLICT (id) DO NOTHING
    RETURNING *),
tried AS (
    INSERT INTO usage_attempts (request_id, number, account_id, at, duration_ms, outcome, status, upstream_id, input,
        cached, output)
    SELECT attempts.* FROM UNNEST($26::TEXT[], $27::BIGINT[], $28::TEXT[], $29::BIGINT[], $30::BIGINT[], $31::TEXT[],
        $32::BIGINT[], $33::TEXT[], $34::BIGINT[], $35::BIGINT[], $36::BIGINT[]) AS attempts (request_id, number)
    JOIN new ON new.id = attempts.request_id
    ON CONFLICT DO NOTHING),
hours AS (
    INSERT INTO usage_hourly (hour, team_id, user_id, key_id, account_id, model, dialect, requests, failed, input,
        cached, cache_write, output, reasoning, estimated, cost)
    SELECT at / 3600000, team_id, user_id, key_id, account_id, model, dialect, COUNT(*),
        COUNT(*) FILTER (WHERE outcome <> 'ok'), SUM(input), SUM(cached), SUM(cache_write), SUM(output),
        SUM(reasoning), COUNT(*) FILTER (WHERE estimated), COALESCE(SUM(cost), 0)
    FROM new GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (hour, team_id, user_id, key_id, account_id, model, dialect) DO UPDATE SET
        requests = usage_hourly.requests + excluded.requests, failed = usage_hourly.failed + excluded.failed,
        input = usage_hourly.input + excluded.input, cached = usage_hourly.cached + excluded.cached,
        cache_write = usage_hourly.cache_write + excluded.cache_write,
        output = usage_hourly.output + excluded.output, reasoning = usage_hourly.reasoning + excluded.reasoning,
        estimated = usage_hourly.estimated + excluded.estimated, cost = usage_hourly.cost + excluded.cost),
days AS (
    INSERT INTO usage_daily (day, team_id, user_id, key_id, account_id, model, dialect, requests, failed, input,
        cached, cache_write, output, reasoning, estimated, cost)
    SELECT at / 86400000, team_id, user_id, key_id, account_id, model, dialect, COUNT(*),
        COUNT(*) FILTER (WHERE outcome <> 'ok'), SUM(input), SUM(cached), SUM(cache_write), SUM(output),
        SUM(reasoning), COUNT(*) FILTER (WHERE estimated), COALESCE(SUM(cost), 0)
    FROM new GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (day, team_id, user_id, key_id, account_id, model, dialect) DO UPDATE SET
        requests = usage_daily.requests + excluded.requests, failed = usage_daily.failed + excluded.failed,
        input = usage_daily.input + excluded.input, cached = usage_daily.cached + excluded.cached,
        cache_write = usage_daily.cache_write + excluded.cache_write,
        output = usage_daily.output + excluded.output, reasoning = usage_daily.reasoning + excluded.reasoning,
        estimated = usage_daily.estimated + excluded.estimated, cost = usage_daily.cost + excluded.cost),
spent AS (
    SELECT holders.holder, holders.id, at / 3600000 AS hour, SUM(input + output) AS tokens,
        COALESCE(SUM(cost), 0) AS cost
    FROM new, LATERAL (VALUES ('team', team_id), ('user', user_id), ('key', key_id)) AS holders (holder, id)
    WHERE holders.id <> '' GROUP BY 1, 2, 3),
holders AS (
    INSERT INTO usage_holders (holder, id, hour, tokens, cost) SELECT * FROM spent ORDER BY 1, 2, 3
    ON CONFLICT (holder, id, hour) DO UPDATE SET
        tokens = usage_holders.tokens + excluded.tokens, cost = usage_holders.cost + excluded.cost)
UPDATE limit_slices SET used_tokens = GREATEST(used_tokens - sums.tokens, 0),
    used_cost = GREATEST(used_cost - sums.cost, 0)
FROM (SELECT holder, id, SUM(tokens) AS tokens, SUM(cost) AS cost FROM spent GROUP BY 1, 2) AS sums
WHERE limit_slices.holder = sums.holder AND limit_slices.id = sums.id AND replica = $37";

/// Writes requests with their attempts and sums; see `LedgerStore::append_as`.
pub(super) async fn all(pool: &PgPool, replica: Option<&str>, rows: &[UsageRow]) -> Result<()> {
    let texts = |text: fn(&UsageRow) -> &str| rows.iter().map(text).collect::<Vec<&str>>();
    let options = |text: fn(&UsageRow) -> Option<&str>| rows.iter().map(text).collect::<Vec<Option<&str>>>();
    let numbers = |number: fn(&UsageRow) -> i64| rows.iter().map(number).collect::<Vec<i64>>();
    let maybe = |number: fn(&UsageRow) -> Option<u64>| {
        rows.iter().map(|row| number(row).map(signed)).collect::<Vec<Option<i64>>>()
    };
    let query = sqlx::query(APPEND)
        .bind(texts(|row| &row.id))
        .bind(numbers(|row| row.at))
        .bind(texts(|row| &row.team_id))
        .bind(texts(|row| &row.user_id))
        .bind(texts(|row| &row.key_id))
        .bind(texts(|row| &row.account_id))
        .bind(texts(|row| &row.dialect))
        .bind(texts(|row| &row.endpoint))
        .bind(texts(|row| &row.model_asked))
        .bind(texts(|row| &row.model))
        .bind(options(|row| row.effort.as_deref()))
        .bind(options(|row| row.tier.as_deref()))
        .bind(numbers(|row| i64::from(row.status)))
        .bind(texts(|row| &row.outcome))
        .bind(options(|row| row.cause.as_deref()))
        .bind(numbers(|row| signed(row.used.input)))
        .bind(numbers(|row| signed(row.used.cached)))
        .bind(numbers(|row| signed(row.used.cache_write)))
        .bind(numbers(|row| signed(row.used.output)))
        .bind(numbers(|row| signed(row.used.reasoning)))
        .bind(rows.iter().map(|row| row.estimated).collect::<Vec<bool>>())
        .bind(maybe(|row| row.cost))
        .bind(numbers(|row| i64::try_from(row.attempts.len()).unwrap_or(i64::MAX)))
        .bind(maybe(|row| row.first_byte_ms))
        .bind(numbers(|row| signed(row.duration_ms)));
    let attempts: Vec<(&str, i64, &AttemptRow)> = rows
        .iter()
        .flat_map(|row| (1_i64..).zip(&row.attempts).map(|(number, attempt)| (row.id.as_str(), number, attempt)))
        .collect();
    let texts = |text: fn(&AttemptRow) -> &str| attempts.iter().map(|(_, _, one)| text(one)).collect::<Vec<&str>>();
    let numbers = |number: fn(&AttemptRow) -> i64| attempts.iter().map(|(_, _, one)| number(one)).collect::<Vec<i64>>();
    query
        .bind(attempts.iter().map(|(request, _, _)| *request).collect::<Vec<&str>>())
        .bind(attempts.iter().map(|(_, number, _)| *number).collect::<Vec<i64>>())
        .bind(texts(|one| &one.account_id))
        .bind(numbers(|one| one.at))
        .bind(numbers(|one| signed(one.duration_ms)))
        .bind(texts(|one| &one.outcome))
        .bind(attempts.iter().map(|(_, _, one)| one.status.map(i64::from)).collect::<Vec<Option<i64>>>())
        .bind(attempts.iter().map(|(_, _, one)| one.upstream_id.as_deref()).collect::<Vec<Option<&str>>>())
        .bind(numbers(|one| signed(one.used.input)))
        .bind(numbers(|one| signed(one.used.cached)))
        .bind(numbers(|one| signed(one.used.output)))
        .bind(replica.unwrap_or_default())
        .execute(pool)
        .await?;
    Ok(())
}
