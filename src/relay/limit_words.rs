//! What a client is told of its limits: problems, and the headers that its SDK reads (clients.md 2).
//! Pure.

use crate::dialect::{Problem, ProblemKind};
use crate::store::{BudgetUnit, UnixMillis};
use crate::tenant::{Counted, Exceeded, Forbidden, Gauge, Level, Standing};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What may not be asked with this key.
pub(super) fn forbidden(level: Level, what: &Forbidden) -> Problem {
    let whose = whose(level);
    match what {
        Forbidden::Dialect { asked } => Problem::new(
            ProblemKind::PermissionDenied,
            format!("This key may not use the {asked} API: {whose} limits do not allow it"),
        ),
        Forbidden::Model { asked } => Problem {
            param: Some("model".to_owned()),
            ..Problem::new(
                ProblemKind::PermissionDenied,
                format!("This key may not use the model '{asked}': {whose} limits do not allow it"),
            )
        },
        Forbidden::Effort { asked, most } => Problem::invalid(
            "reasoning.effort",
            format!(
                "The reasoning effort '{asked}' is above '{}', the highest that {whose} limits allow",
                most.as_str()
            ),
        ),
    }
}

/// A limit that leaves no room.
pub(super) fn exceeded(exceeded: &Exceeded, currency: &str, now: UnixMillis) -> Problem {
    let Exceeded { level, name, full } = exceeded;
    let gauge = &full.gauge;
    let wait = Duration::from_millis(u64::try_from(full.back_at - now).unwrap_or(0));
    let limit = limit(gauge, currency);
    let used = amount(gauge.used, gauge, currency);
    let held = if gauge.held > 0 {
        format!(", {} held for requests under way", amount(gauge.held, gauge, currency))
    } else {
        String::new()
    };
    let of = format!("{} '{name}'", level.as_str());
    let when = moment(full.back_at);
    let is_spent = matches!(gauge.what, Counted::Budget(_)) && !full.awaits_others;
    if is_spent {
        let message = format!("The budget of the {of} is used up: {limit}, {used} used. It has room again at {when}");
        let resets_at = Some(full.back_at.div_euclid(1000));
        return Problem { retry_after: Some(wait), resets_at, ..Problem::new(ProblemKind::UsageLimit, message) };
    }
    let message = if full.awaits_others {
        format!("The limit of the {of} leaves no room at the moment: {limit}, {used} used{held}")
    } else {
        format!("The limit of the {of} is reached: {limit}, {used} used{held}. It has room again at {when}")
    };
    Problem { retry_after: Some(wait), ..Problem::new(ProblemKind::RateLimited, message) }
}

fn whose(level: Level) -> &'static str {
    match level {
        Level::Key => "its own",
        Level::User => "its user's",
        Level::Team => "its team's",
    }
}

fn limit(gauge: &Gauge, currency: &str) -> String {
    let most = amount(gauge.limit, gauge, currency);
    match gauge.what {
        Counted::Requests | Counted::Tokens => format!("{most} per minute"),
        Counted::Concurrent => format!("{most} at once"),
        Counted::Budget(budget) => format!("{most} per {}", budget.per),
    }
}

fn amount(number: u64, gauge: &Gauge, currency: &str) -> String {
    match gauge.what {
        Counted::Requests | Counted::Concurrent => format!("{number} requests"),
        Counted::Budget(budget) if budget.unit == BudgetUnit::Cost => {
            format!("{}.{:02} {currency}", number / 1_000_000, number % 1_000_000 / 10_000)
        }
        Counted::Tokens | Counted::Budget(_) => format!("{number} tokens"),
    }
}

/// The tightest limit of each kind, in the headers of the dialect; empty where there are none.
pub(super) fn headers(dialect: &str, standings: &[Standing], now: UnixMillis) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (kind, what) in [("requests", Counted::Requests), ("tokens", Counted::Tokens)] {
        let of_kind = standings.iter().map(|one| &one.gauge).filter(|gauge| gauge.what == what);
        let Some(gauge) = of_kind.min_by_key(|gauge| gauge.remaining()) else { continue };
        let (names, reset) = if dialect == "messages" {
            (
                ["limit", "remaining", "reset"].map(|part| format!("anthropic-ratelimit-{kind}-{part}")),
                moment(gauge.resets_at),
            )
        } else {
            (
                ["limit", "remaining", "reset"].map(|part| format!("x-ratelimit-{part}-{kind}")),
                span(gauge.resets_at - now),
            )
        };
        let values = [gauge.limit.to_string(), gauge.remaining().to_string(), reset];
        put(&mut headers, names, values);
    }
    let budgets = standings.iter().map(|one| &one.gauge).filter(|gauge| matches!(gauge.what, Counted::Budget(_)));
    if let Some(gauge) = budgets.min_by_key(|gauge| gauge.remaining().saturating_mul(1000) / gauge.limit.max(1))
        && let Counted::Budget(budget) = gauge.what
    {
        let names = ["limit", "remaining", "reset"].map(|part| format!("x-tollway-budget-{part}"));
        // What is held may come back; a client plans with what was used.
        let left = gauge.limit.saturating_sub(gauge.used);
        put(&mut headers, names, [gauge.limit.to_string(), left.to_string(), moment(gauge.resets_at)]);
        headers.insert("x-tollway-budget-unit", HeaderValue::from_static(budget.unit.as_str()));
    }
    headers
}

fn put<const N: usize>(headers: &mut HeaderMap, names: [String; N], values: [String; N]) {
    for (name, value) in names.into_iter().zip(values) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

/// As OpenAI writes it: `250ms`, `1s`, `6m0s`. Seconds are rounded up: who waits this long waits
/// long enough.
fn span(millis: i64) -> String {
    let millis = millis.max(0);
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let seconds = (millis + 999) / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// As Anthropic writes it, RFC 3339, rounded up.
fn moment(at: UnixMillis) -> String {
    let seconds = at.div_euclid(1000) + i64::from(at.rem_euclid(1000) > 0);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Budget, Period};
    use crate::tenant::Full;

    const T: UnixMillis = 1_700_000_000_000;

    fn gauge(what: Counted, limit: u64, used: u64, held: u64) -> Gauge {
        Gauge { what, limit, used, held, resets_at: T + 90_500 }
    }

    fn standing(level: Level, gauge: Gauge) -> Standing {
        Standing { level, name: "ada".to_owned(), gauge }
    }

    #[test]
    fn each_dialect_reads_its_own_headers_of_the_tightest_limit() {
        let budget = Budget { unit: BudgetUnit::Tokens, amount: 1000, per: Period::Day };
        let standings = [
            standing(Level::Key, gauge(Counted::Requests, 60, 10, 0)),
            standing(Level::Team, gauge(Counted::Requests, 100, 80, 0)),
            standing(Level::User, gauge(Counted::Tokens, 5000, 1000, 500)),
            standing(Level::User, gauge(Counted::Budget(budget), 1000, 250, 100)),
        ];
        let text = |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let openai = headers("chat", &standings, T);
        for (name, value) in [
            ("x-ratelimit-limit-requests", "100"),
            ("x-ratelimit-remaining-requests", "20"),
            ("x-ratelimit-reset-requests", "1m31s"),
            ("x-ratelimit-remaining-tokens", "3500"),
            ("x-tollway-budget-remaining", "750"),
            ("x-tollway-budget-unit", "tokens"),
        ] {
            assert_eq!(text(&openai, name).as_deref(), Some(value), "{name}");
        }
        let anthropic = headers("messages", &standings, T);
        assert_eq!(text(&anthropic, "anthropic-ratelimit-requests-remaining").as_deref(), Some("20"));
        assert_eq!(text(&anthropic, "anthropic-ratelimit-tokens-reset").as_deref(), Some("2023-11-14T22:14:51Z"));
        assert_eq!(text(&anthropic, "x-ratelimit-limit-requests"), None);
        assert!(headers("chat", &[], T).is_empty());
    }

    #[test]
    fn a_refusal_says_which_limit_whose_and_until_when() {
        let budget = Counted::Budget(Budget { unit: BudgetUnit::Cost, amount: 20_500_000, per: Period::Month });
        let full = |gauge, awaits_others| Full { gauge, back_at: T + 90_500, awaits_others, short: None };
        let told = |full| exceeded(&Exceeded { level: Level::Team, name: "core".to_owned(), full }, "USD", T);
        let spent = told(full(gauge(budget, 20_500_000, 20_510_000, 0), false));
        assert_eq!((spent.kind, spent.resets_at), (ProblemKind::UsageLimit, Some(1_700_000_090)));
        assert_eq!(
            spent.message,
            "The budget of the team 'core' is used up: 20.50 USD per month, 20.51 USD used. It has room again at 2023-11-14T22:14:51Z"
        );
        let minute = told(full(gauge(Counted::Tokens, 500, 400, 90), false));
        assert_eq!((minute.kind, minute.retry_after), (ProblemKind::RateLimited, Some(Duration::from_millis(90_500))));
        assert!(
            minute.message.contains("500 tokens per minute, 400 tokens used, 90 tokens held"),
            "{}",
            minute.message
        );
    }

    #[test]
    fn spans_are_written_as_openai_does() {
        let spans = [(0, "0ms"), (250, "250ms"), (1000, "1s"), (360_000, "6m0s"), (3_600_001, "1h0m1s"), (-5, "0ms")];
        for (millis, text) in spans {
            assert_eq!(span(millis), text);
        }
    }
}
