//! `tollway usage`.

use super::open;
use super::show::{self, say, table};
use crate::config::Settings;
use crate::ledger::Prices;
use crate::server::assemble::{self, unix_millis};
use crate::store::{Dimension, Store, UnixMillis, UsageFilter, UsageSum};
use anyhow::{Context, Result, anyhow};
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Write as _;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};

const DAY: i64 = 86_400_000;

/// What was used, by whom and for what
#[derive(clap::Args)]
pub(super) struct Options {
    /// One line for each: team, user, key, account, model, dialect, day, hour; one line in all if left out
    #[arg(long)]
    by: Option<Dimension>,
    /// From when: 2026-11-01, 2026-11-01T12:00:00Z, or so long ago: 7d, 12h; rounded to full hours
    #[arg(long, default_value = "30d", value_name = "TIME")]
    since: String,
    /// Until when, in the same forms; now if left out
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only this team's: name or id
    #[arg(long)]
    team: Option<String>,
    /// Only this user's: name, email or id
    #[arg(long)]
    user: Option<String>,
    /// Only this key's: name, id or visible start
    #[arg(long)]
    key: Option<String>,
    /// Only on this account: name, email or id
    #[arg(long)]
    account: Option<String>,
    /// Only this model's, as it goes upstream
    #[arg(long)]
    model: Option<String>,
    /// table, json or csv
    #[arg(long, default_value = "table", value_name = "FORM")]
    format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

/// Prints a report.
pub(super) async fn run(settings: &Settings, options: Options) -> Result<()> {
    let store = open::store(settings).await?;
    let prices = assemble::prices(settings)?;
    let done = report(&store, options, &prices).await;
    store.close().await;
    done
}

async fn report(store: &Store, options: Options, prices: &Prices) -> Result<()> {
    let now = unix_millis();
    let filter = UsageFilter {
        from: moment(&options.since, now).context("--since")?,
        until: options.until.as_deref().map_or(Ok(now), |text| moment(text, now)).context("--until")?,
        team_id: id(options.team, async |asked| Ok(store.tenants().find_team(&asked).await?.id.to_string())).await?,
        user_id: id(options.user, async |asked| Ok(store.tenants().find_user(&asked).await?.id.to_string())).await?,
        key_id: id(options.key, async |asked| Ok(store.keys().find(&asked).await?.id.to_string())).await?,
        account_id: id(options.account, async |asked| Ok(store.accounts().find(&asked).await?.id.to_string())).await?,
        model: options.model,
    };
    let sums = store.ledger().report(&filter, options.by).await?;
    let names = names(store, options.by).await?;
    let label = |sum: &UsageSum| label(sum, options.by, &names);
    match options.format {
        Format::Json => print_json(&sums, &filter, options.by, prices.currency(), label),
        Format::Csv => print_csv(&sums, options.by, prices.currency(), label),
        Format::Table => print_table(&sums, options.by, prices.currency(), label),
    }
}

async fn id(asked: Option<String>, find: impl AsyncFnOnce(String) -> Result<String>) -> Result<Option<String>> {
    match asked {
        None => Ok(None),
        Some(asked) => find(asked).await.map(Some),
    }
}

/// What ids are called now.
async fn names(store: &Store, by: Option<Dimension>) -> Result<HashMap<String, String>> {
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

fn label(sum: &UsageSum, by: Option<Dimension>, names: &HashMap<String, String>) -> String {
    let slot = |length: i64| {
        let seconds = sum.group.parse::<i64>().unwrap_or(0) * length;
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    match by {
        None => "all".to_owned(),
        Some(Dimension::Day) => slot(86_400).date().to_string(),
        Some(Dimension::Hour) => slot(3_600).format(&Rfc3339).unwrap_or_default(),
        Some(_) if sum.group.is_empty() => "–".to_owned(),
        Some(_) => names.get(&sum.group).unwrap_or(&sum.group).clone(),
    }
}

fn print_table(
    sums: &[UsageSum],
    by: Option<Dimension>,
    currency: &str,
    label: impl Fn(&UsageSum) -> String,
) -> Result<()> {
    let head = by.map_or("", Dimension::as_str).to_uppercase();
    let cost = format!("COST ({currency})");
    let columns = [head.as_str(), "REQUESTS", "FAILED", "INPUT", "CACHED", "OUTPUT", "REASONING", "ESTIMATED", &cost];
    let rows = sums.iter().map(|sum| {
        let used = sum.used;
        let numbers = [sum.requests, sum.failed, used.input, used.cached, used.output, used.reasoning, sum.estimated];
        let [requests, failed, input, cached, output, reasoning, estimated] = numbers.map(|number| number.to_string());
        [label(sum), requests, failed, input, cached, output, reasoning, estimated, money(sum.cost)]
    });
    Ok(show::print(&table(columns, rows))?)
}

fn print_json(
    sums: &[UsageSum],
    filter: &UsageFilter,
    by: Option<Dimension>,
    currency: &str,
    label: impl Fn(&UsageSum) -> String,
) -> Result<()> {
    let rows = sums.iter().map(|sum| {
        json!({
            "group": sum.group, "name": label(sum), "requests": sum.requests, "failed": sum.failed,
            "input_tokens": sum.used.input, "cached_tokens": sum.used.cached,
            "cache_write_tokens": sum.used.cache_write, "output_tokens": sum.used.output,
            "reasoning_tokens": sum.used.reasoning, "estimated_requests": sum.estimated, "cost_micros": sum.cost,
        })
    });
    let report = json!({
        "from": filter.from, "until": filter.until, "by": by.map(Dimension::as_str), "currency": currency,
        "rows": rows.collect::<Vec<_>>(),
    });
    Ok(say!("{}", serde_json::to_string_pretty(&report)?)?)
}

fn print_csv(
    sums: &[UsageSum],
    by: Option<Dimension>,
    currency: &str,
    label: impl Fn(&UsageSum) -> String,
) -> Result<()> {
    let mut out = format!(
        "{},id,requests,failed,input_tokens,cached_tokens,cache_write_tokens,output_tokens,reasoning_tokens,estimated_requests,cost_{}\n",
        by.map_or("all", Dimension::as_str),
        currency.to_lowercase(),
    );
    for sum in sums {
        let used = sum.used;
        let numbers = [
            sum.requests,
            sum.failed,
            used.input,
            used.cached,
            used.cache_write,
            used.output,
            used.reasoning,
            sum.estimated,
        ];
        let numbers = numbers.map(|number| number.to_string()).join(",");
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{},{},{numbers},{}", cell(&label(sum)), cell(&sum.group), money(sum.cost));
    }
    Ok(show::print(&out)?)
}

/// A cell of a CSV file (RFC 4180). One that a spreadsheet would take for a formula is none.
fn cell(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn money(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A date, a moment, or so long ago.
fn moment(text: &str, now: UnixMillis) -> Result<UnixMillis> {
    if let Ok(date) = Date::parse(text, format_description!("[year]-[month]-[day]")) {
        return Ok(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp() * 1000);
    }
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(moment.unix_timestamp() * 1000);
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| anyhow!("{text:?} is no date (2026-11-01), no moment (2026-11-01T12:00:00Z) and no time (7d)"))?;
    let at = now.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
    // Whole days back are read from the sums by the day.
    Ok(if ago.as_millis() % u128::from(DAY.unsigned_abs()) == 0 { at.div_euclid(DAY) * DAY } else { at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_given_in_three_forms() {
        let now = 1_795_000_000_000;
        assert_eq!(moment("2026-11-01", now).ok(), Some(1_793_491_200_000));
        assert_eq!(moment("2026-11-01T01:00:00+01:00", now).ok(), Some(1_793_491_200_000));
        assert_eq!(moment("2h", now).ok(), Some(now - 7_200_000));
        assert_eq!(moment("7d", now).ok().map(|at| at % DAY), Some(0));
        assert!(moment("yesterday", now).is_err());
    }

    #[test]
    fn a_cell_holds_what_it_is_given_and_no_formula() {
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(money(20_500_001), "20.500001");
    }
}
