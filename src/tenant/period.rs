//! When the period of a budget began and when it ends: days, weeks and months in UTC, or the last so
//! many hours. Pure.

use crate::store::{Limits, Period, UnixMillis};
use time::{Duration, OffsetDateTime, Time};

pub(super) const HOUR: i64 = 3_600_000;

/// The Unix hour from which on use counts.
pub(super) fn first_hour(period: Period, now: UnixMillis) -> i64 {
    match period {
        Period::Rolling { hours } => now.div_euclid(HOUR) - i64::from(hours),
        calendar => bounds(calendar, now).0.div_euclid(HOUR),
    }
}

/// The Unix hour from which on use counts for any of the budgets.
pub fn first_hour_of_all(limits: &Limits, now: UnixMillis) -> i64 {
    let hours = limits.budgets.iter().map(|budget| first_hour(budget.per, now));
    hours.min().unwrap_or_else(|| now.div_euclid(HOUR))
}

/// When a calendar period ends; `None` for a rolling one, which never does.
pub(super) fn end(period: Period, now: UnixMillis) -> Option<UnixMillis> {
    (!matches!(period, Period::Rolling { .. })).then(|| bounds(period, now).1)
}

/// How long a period is at most, hours.
pub(super) fn longest(period: Period) -> i64 {
    match period {
        Period::Day => 24,
        Period::Week => 7 * 24,
        Period::Month => 31 * 24,
        Period::Rolling { hours } => i64::from(hours),
    }
}

fn bounds(period: Period, now: UnixMillis) -> (UnixMillis, UnixMillis) {
    let moment = OffsetDateTime::from_unix_timestamp(now.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let day = moment.replace_time(Time::MIDNIGHT);
    let (start, end) = match period {
        Period::Week => {
            let monday = day - Duration::days(i64::from(day.weekday().number_days_from_monday()));
            (monday, monday + Duration::weeks(1))
        }
        Period::Month => {
            let first = day - Duration::days(i64::from(day.day()) - 1);
            (first, first + Duration::days(i64::from(first.month().length(first.year()))))
        }
        Period::Day | Period::Rolling { .. } => (day, day + Duration::days(1)),
    };
    (start.unix_timestamp() * 1000, end.unix_timestamp() * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn millis(moment: OffsetDateTime) -> UnixMillis {
        moment.unix_timestamp() * 1000
    }

    #[test]
    fn calendar_periods_begin_and_end_where_a_calendar_says() {
        let now = millis(datetime!(2028-02-17 13:45:10 UTC));
        for (period, start, after) in [
            (Period::Day, datetime!(2028-02-17 0:00 UTC), datetime!(2028-02-18 0:00 UTC)),
            (Period::Week, datetime!(2028-02-14 0:00 UTC), datetime!(2028-02-21 0:00 UTC)),
            (Period::Month, datetime!(2028-02-01 0:00 UTC), datetime!(2028-03-01 0:00 UTC)),
        ] {
            assert_eq!(first_hour(period, now), millis(start) / HOUR, "{period}");
            assert_eq!(end(period, now), Some(millis(after)), "{period}");
        }
        assert_eq!(
            bounds(Period::Month, millis(datetime!(2026-12-31 23:59:59 UTC))).1,
            millis(datetime!(2027-01-01 0:00 UTC))
        );
        let rolling = Period::Rolling { hours: 5 };
        assert_eq!((first_hour(rolling, now), end(rolling, now)), (now / HOUR - 5, None));
    }
}
