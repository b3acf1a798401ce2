//! Reports out of the sums, and single requests. A statement holds only the conditions that were asked
//! for: `$1 IS NULL OR team_id = $1` would keep a planner from every index.

use std::collections::BTreeMap;

use super::{
    AttemptRow, DAY, Dimension, HOUR, Holder, HourlySum, LedgerStore, UsageFilter, UsageRow, UsageSum, Used, merge,
    unsigned,
};
use crate::store::{
    UnixMillis,
    backend::{fetch_all, fetch_all_of, fetch_optional},
    error::{Result, StoreError},
};

impl LedgerStore<'_> {
    /// A report. It reads the sums by the day as far as the times hold whole days, and those by the
    /// hour at the edges; by hours, those alone.
    pub async fn report(&self, filter: &UsageFilter, by: Option<Dimension>) -> Result<Vec<UsageSum>> {
        let spans = Spans::of(filter, by);
        let (conditions, asked) = filter.conditions(7);
        let part = |table: &str, base: &str, slot: &str, bounds: [u8; 2]| {
            let (group, grouping) = match by {
                None => ("''".to_owned(), "HAVING COUNT(*) > 0".to_owned()),
                // By the number itself, in whose order the rows lie.
                Some(Dimension::Day | Dimension::Hour) => (format!("CAST({slot} AS TEXT)"), format!("GROUP BY {slot}")),
                Some(by) => (by.column().to_owned(), "GROUP BY grouped".to_owned()),
            };
            let [from, until] = bounds;
            format!(
                "SELECT {group} AS grouped, {SUMS} FROM {table}
                 WHERE {base} >= ${from} AND {base} < ${until}{conditions} {grouping}"
            )
        };
        let by_hour = if by == Some(Dimension::Day) { "hour / 24" } else { "hour" };
        // One statement, so that rows that are written meanwhile are in all of its parts or in none.
        let sql = [
            part("usage_daily", "day", "day", [1, 2]),
            part("usage_hourly", "hour", by_hour, [3, 4]),
            part("usage_hourly", "hour", by_hour, [5, 6]),
        ]
        .join(" UNION ALL ");
        let rows = fetch_all_of!(
            &mut self.store.backend.read().await?,
            SumRow,
            // Made of the constants above and below only.
            sqlx::AssertSqlSafe(sql.clone()),
            asked,
            spans.days.0,
            spans.days.1,
            spans.before.0,
            spans.before.1,
            spans.after.0,
            spans.after.1,
        )?;
        let mut sums: BTreeMap<String, UsageSum> = BTreeMap::new();
        for row in rows {
            let sum = row.into_sum();
            merge(sums.entry(sum.group.clone()).or_default(), &sum);
        }
        let mut sums: Vec<UsageSum> = sums.into_iter().map(|(group, sum)| UsageSum { group, ..sum }).collect();
        if matches!(by, Some(Dimension::Day | Dimension::Hour)) {
            sums.sort_by_key(|sum| sum.group.parse::<i64>().unwrap_or(0));
        }
        Ok(sums)
    }

    /// What one of them used since a Unix hour, by the hour.
    pub async fn hours(&self, of: Holder, id: &str, since: i64) -> Result<Vec<HourlySum>> {
        let column = match of {
            Holder::Team => "team_id",
            Holder::User => "user_id",
            Holder::Key => "key_id",
        };
        let sql = format!(
            "SELECT hour, CAST(SUM(input + output) AS BIGINT), CAST(SUM(cost) AS BIGINT) FROM usage_hourly
             WHERE {column} = $1 AND hour >= $2 GROUP BY hour"
        );
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            (i64, i64, i64),
            sqlx::AssertSqlSafe(sql.clone()),
            id,
            since,
        )?;
        Ok(rows.into_iter().map(|(hour, tokens, cost)| (hour, unsigned(tokens), unsigned(cost))).collect())
    }

    /// Requests, by the time of their arrival, the newest first: at most `limit`, and only those that
    /// come after the one that is `before` in this order; none, when that one was forgotten.
    pub async fn requests(&self, filter: &UsageFilter, before: Option<&str>, limit: u32) -> Result<Vec<UsageRow>> {
        let mut session = self.store.backend.read().await?;
        let mut until = filter.until;
        let mut cursor = (i64::MAX, "");
        if let Some(id) = before {
            let found = fetch_optional!(&mut session, (i64,), "SELECT at FROM usage_requests WHERE id = $1", id)?;
            let Some((at,)) = found else { return Ok(Vec::new()) };
            until = until.min(at.saturating_add(1));
            cursor = (at, id);
        }
        let (conditions, asked) = filter.conditions(6);
        // `at < $2` bounds the index, the cursor then tells those of one millisecond apart.
        let sql = format!(
            "SELECT {REQUEST} FROM usage_requests
             WHERE at >= $1 AND at < $2 AND (at < $3 OR id < $4){conditions}
             ORDER BY at DESC, id DESC LIMIT $5"
        );
        let rows = fetch_all_of!(
            &mut session,
            RequestRow,
            sqlx::AssertSqlSafe(sql.clone()),
            asked,
            filter.from,
            until,
            cursor.0,
            cursor.1,
            i64::from(limit),
        )?;
        Ok(rows.into_iter().map(RequestRow::into_row).collect())
    }

    /// One request with its attempts.
    pub async fn request(&self, id: &str) -> Result<UsageRow> {
        let mut session = self.store.backend.read().await?;
        let sql = format!("SELECT {REQUEST} FROM usage_requests WHERE id = $1");
        let row = fetch_optional!(&mut session, RequestRow, sqlx::AssertSqlSafe(sql.clone()), id)?;
        let mut row = row.ok_or_else(|| StoreError::NotFound { what: "request", asked: id.to_owned() })?.into_row();
        let attempts = fetch_all!(
            &mut session,
            Attempt,
            "SELECT account_id, at, duration_ms, outcome, status, upstream_id, input, cached, output
             FROM usage_attempts WHERE request_id = $1 ORDER BY number",
            id,
        )?;
        row.attempts = attempts.into_iter().map(Attempt::into_row).collect();
        Ok(row)
    }
}

/// The Unix days, and the Unix hours around them, that a report is read from; each up to, and without,
/// its second number.
#[derive(Debug, PartialEq, Eq)]
struct Spans {
    before: (i64, i64),
    days: (i64, i64),
    after: (i64, i64),
}

impl Spans {
    fn of(filter: &UsageFilter, by: Option<Dimension>) -> Self {
        let from = filter.from.div_euclid(HOUR);
        let until = -((-filter.until).div_euclid(HOUR));
        let (first, last) = (-((-from).div_euclid(DAY / HOUR)), until.div_euclid(DAY / HOUR));
        if by == Some(Dimension::Hour) || first >= last {
            return Self { before: (from, until), days: (0, 0), after: (0, 0) };
        }
        let hours = DAY / HOUR;
        Self { before: (from, first * hours), days: (first, last), after: (last * hours, until) }
    }
}

impl UsageFilter {
    /// What is asked for, as conditions whose placeholders begin at `first`, and their values.
    fn conditions(&self, first: usize) -> (String, Vec<&str>) {
        let columns = [
            ("team_id", &self.team_id),
            ("user_id", &self.user_id),
            ("key_id", &self.key_id),
            ("account_id", &self.account_id),
            ("model", &self.model),
        ];
        let asked = columns.into_iter().filter_map(|(column, value)| Some((column, value.as_deref()?)));
        let (columns, values): (Vec<_>, Vec<_>) = asked.unzip();
        let conditions = (first..).zip(columns).map(|(number, column)| format!(" AND {column} = ${number}"));
        (conditions.collect(), values)
    }
}

const SUMS: &str = "CAST(SUM(requests) AS BIGINT) AS requests, CAST(SUM(failed) AS BIGINT) AS failed,
    CAST(SUM(input) AS BIGINT) AS input, CAST(SUM(cached) AS BIGINT) AS cached,
    CAST(SUM(cache_write) AS BIGINT) AS cache_write, CAST(SUM(output) AS BIGINT) AS output,
    CAST(SUM(reasoning) AS BIGINT) AS reasoning, CAST(SUM(estimated) AS BIGINT) AS estimated,
    CAST(SUM(cost) AS BIGINT) AS cost";

const REQUEST: &str =
    "id, at, team_id, user_id, key_id, account_id, dialect, endpoint, model_asked, model, effort, tier,
    status, outcome, cause, input, cached, cache_write, output, reasoning, estimated, cost, first_byte_ms, duration_ms";

#[derive(sqlx::FromRow)]
struct SumRow {
    grouped: String,
    requests: i64,
    failed: i64,
    input: i64,
    cached: i64,
    cache_write: i64,
    output: i64,
    reasoning: i64,
    estimated: i64,
    cost: i64,
}

impl SumRow {
    fn into_sum(self) -> UsageSum {
        UsageSum {
            group: self.grouped,
            requests: unsigned(self.requests),
            failed: unsigned(self.failed),
            used: Used {
                input: unsigned(self.input),
                cached: unsigned(self.cached),
                cache_write: unsigned(self.cache_write),
                output: unsigned(self.output),
                reasoning: unsigned(self.reasoning),
            },
            estimated: unsigned(self.estimated),
            cost: unsigned(self.cost),
        }
    }
}

#[derive(sqlx::FromRow)]
struct RequestRow {
    id: String,
    at: UnixMillis,
    team_id: String,
    user_id: String,
    key_id: String,
    account_id: String,
    dialect: String,
    endpoint: String,
    model_asked: String,
    model: String,
    effort: Option<String>,
    tier: Option<String>,
    status: i64,
    outcome: String,
    cause: Option<String>,
    input: i64,
    cached: i64,
    cache_write: i64,
    output: i64,
    reasoning: i64,
    estimated: bool,
    cost: Option<i64>,
    first_byte_ms: Option<i64>,
    duration_ms: i64,
}

impl RequestRow {
    fn into_row(self) -> UsageRow {
        UsageRow {
            id: self.id,
            at: self.at,
            team_id: self.team_id,
            user_id: self.user_id,
            key_id: self.key_id,
            account_id: self.account_id,
            dialect: self.dialect,
            endpoint: self.endpoint,
            model_asked: self.model_asked,
            model: self.model,
            effort: self.effort,
            tier: self.tier,
            status: u16::try_from(self.status).unwrap_or(0),
            outcome: self.outcome,
            cause: self.cause,
            used: Used {
                input: unsigned(self.input),
                cached: unsigned(self.cached),
                cache_write: unsigned(self.cache_write),
                output: unsigned(self.output),
                reasoning: unsigned(self.reasoning),
            },
            estimated: self.estimated,
            cost: self.cost.map(unsigned),
            first_byte_ms: self.first_byte_ms.map(unsigned),
            duration_ms: unsigned(self.duration_ms),
            attempts: Vec::new(),
        }
    }
}

#[derive(sqlx::FromRow)]
struct Attempt {
    account_id: String,
    at: UnixMillis,
    duration_ms: i64,
    outcome: String,
    status: Option<i64>,
    upstream_id: Option<String>,
    input: i64,
    cached: i64,
    output: i64,
}

impl Attempt {
    fn into_row(self) -> AttemptRow {
        AttemptRow {
            account_id: self.account_id,
            at: self.at,
            duration_ms: unsigned(self.duration_ms),
            outcome: self.outcome,
            status: self.status.and_then(|status| u16::try_from(status).ok()),
            upstream_id: self.upstream_id,
            used: Used {
                input: unsigned(self.input),
                cached: unsigned(self.cached),
                output: unsigned(self.output),
                ..Used::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(from: i64, until: i64, by: Option<Dimension>) -> Spans {
        Spans::of(&UsageFilter { from, until, ..UsageFilter::default() }, by)
    }

    #[test]
    fn whole_days_are_read_from_days_and_the_edges_from_hours() {
        let whole = Spans { before: (48, 48), days: (2, 4), after: (96, 96) };
        assert_eq!(spans(2 * DAY, 4 * DAY, None), whole);
        let odd = Spans { before: (47, 48), days: (2, 4), after: (96, 98) };
        assert_eq!(spans(2 * DAY - 1, 4 * DAY + HOUR + 1, Some(Dimension::Day)), odd);
        let short = Spans { before: (49, 72), days: (0, 0), after: (0, 0) };
        assert_eq!(spans(2 * DAY + HOUR, 3 * DAY, None), short, "less than a day");
        let hours = Spans { before: (48, 96), days: (0, 0), after: (0, 0) };
        assert_eq!(spans(2 * DAY, 4 * DAY, Some(Dimension::Hour)), hours);
    }

    #[test]
    fn only_what_is_asked_for_is_a_condition() {
        assert_eq!(UsageFilter::default().conditions(7), (String::new(), vec![]));
        let some = UsageFilter { key_id: Some("k".into()), model: Some("m".into()), ..UsageFilter::default() };
        assert_eq!(some.conditions(7), (" AND key_id = $7 AND model = $8".to_owned(), vec!["k", "m"]));
    }
}
