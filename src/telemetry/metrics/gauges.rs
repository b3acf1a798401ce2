//! Gauges of things that come and go: accounts, pools, budgets. What is no more is no number from
//! then on, for a series cannot be taken back.

use super::catalogue::{self as names, Metric};
use ::metrics::{counter, gauge};
use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A series: the metric's name, and its labels' values in the catalogue's order.
type Series = (&'static str, Vec<String>);

/// One account.
#[derive(Debug)]
pub struct AccountGauges {
    /// What operators call it.
    pub account: String,
    /// Whether nobody has to act for it to serve, now or later.
    pub up: bool,
    /// Requests under way.
    pub in_flight: u32,
    /// Conversations that live there and are awake.
    pub conversations: u32,
    /// Its windows: the length in minutes, the share used, the reset in Unix seconds.
    pub windows: Vec<(i64, f64, f64)>,
    /// When its access token ends, Unix seconds, if that is known.
    pub token_ends: Option<f64>,
}

/// One pool's windows of one length.
#[derive(Debug)]
pub struct PoolGauge {
    /// What operators call it.
    pub pool: String,
    /// Their length, minutes.
    pub minutes: i64,
    /// The share that is left.
    pub left: f64,
    /// The share that is used up in an hour.
    pub burn: f64,
    /// How long they last, seconds.
    pub lasts: f64,
}

/// A team's budget.
#[derive(Debug)]
pub struct BudgetGauge {
    /// The team.
    pub team: String,
    /// The budget, in words.
    pub budget: String,
    /// The share that is used.
    pub used: f64,
}

/// What may become of a refresh: there before it happens, or the first would not count in a rate.
const REFRESH_OUTCOMES: [&str; 5] = ["ok", "transient", "permanent", "adopted", "persist_failed"];

/// The gauges of all accounts.
pub fn accounts(accounts: Vec<AccountGauges>) {
    static SHOWN: LazyLock<Shown> = LazyLock::new(Shown::default);
    let mut page = SHOWN.page();
    for AccountGauges { account, up, in_flight, conversations, windows, token_ends } in accounts {
        for outcome in REFRESH_OUTCOMES {
            counter!(names::REFRESHES.name, "account" => account.clone(), "outcome" => outcome).absolute(0);
        }
        page.show(&names::ACCOUNT_UP, &[&account], f64::from(u8::from(up)));
        page.show(&names::ACCOUNT_IN_FLIGHT, &[&account], f64::from(in_flight));
        page.show(&names::ACCOUNT_SESSIONS, &[&account], f64::from(conversations));
        for (minutes, used, resets_at) in windows {
            let window = window_name(minutes);
            page.show(&names::USED, &[&account, &window], used);
            page.show(&names::RESET, &[&account, &window], resets_at);
        }
        if let Some(ends) = token_ends {
            page.show(&names::TOKEN_EXPIRY, &[&account], ends);
        }
    }
}

/// The gauges of all pools.
pub fn pools(pools: Vec<PoolGauge>) {
    static SHOWN: LazyLock<Shown> = LazyLock::new(Shown::default);
    let mut page = SHOWN.page();
    for PoolGauge { pool, minutes, left, burn, lasts } in pools {
        let window = window_name(minutes);
        page.show(&names::POOL_LEFT, &[&pool, &window], left);
        page.show(&names::POOL_BURN, &[&pool, &window], burn);
        page.show(&names::POOL_EXHAUSTION, &[&pool, &window], lasts);
    }
}

/// More budgets than these are not shown.
const BUDGETS: usize = 1000;

/// The gauges of all teams' budgets; of very many, the first.
pub fn budgets(budgets: Vec<BudgetGauge>) {
    static SHOWN: LazyLock<Shown> = LazyLock::new(Shown::default);
    let mut page = SHOWN.page();
    for BudgetGauge { team, budget, used } in budgets.into_iter().take(BUDGETS) {
        page.show(&names::BUDGET_USED, &[&team, &budget], used);
    }
}

/// What was shown last.
#[derive(Default)]
struct Shown(Mutex<HashSet<Series>>);

impl Shown {
    /// Begins to show anew; what is not shown again until the page is dropped is gone.
    fn page(&self) -> Page<'_> {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Page { before, now: HashSet::new() }
    }
}

struct Page<'a> {
    before: MutexGuard<'a, HashSet<Series>>,
    now: HashSet<Series>,
}

impl Page<'_> {
    fn show(&mut self, metric: &Metric, values: &[&str], value: f64) {
        let series = (metric.name, values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>());
        set(&series, metric, value);
        self.now.insert(series);
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        for series in self.before.difference(&self.now) {
            if let Some(metric) = names::all().find(|metric| metric.name == series.0) {
                set(series, metric, f64::NAN);
            }
        }
        *self.before = std::mem::take(&mut self.now);
    }
}

fn set((name, values): &Series, metric: &Metric, value: f64) {
    let labels: Vec<(&'static str, String)> =
        metric.labels.iter().map(|label| label.name).zip(values.iter().cloned()).collect();
    gauge!(*name, &labels).set(value);
}

/// A window by its length: `5h`, `7d`. Lengths are the backend's, and few.
fn window_name(minutes: i64) -> String {
    match minutes {
        whole if whole % 1440 == 0 => format!("{}d", whole / 1440),
        whole if whole % 60 == 0 => format!("{}h", whole / 60),
        minutes => format!("{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_named_by_their_length() {
        assert_eq!([300, 10_080, 43_200, 90].map(window_name), ["5h", "7d", "30d", "90m"]);
    }
}
