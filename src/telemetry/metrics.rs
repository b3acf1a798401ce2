//! The metric catalogue: each metric once, with its type, unit, labels and meaning.
//!
//! Labels are bounded whatever clients send: dialects, outcomes and states are fixed sets, and a
//! model is named only when the backend has served it.

use super::TelemetryError;
use crate::codex::Usage;
use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

const REQUESTS: &str = "tollway_requests_total";
const DURATION: &str = "tollway_request_duration_seconds";
const FIRST_BYTE: &str = "tollway_time_to_first_byte_seconds";
const TOKENS: &str = "tollway_tokens_total";
const IN_FLIGHT: &str = "tollway_in_flight_requests";
const ATTEMPTS: &str = "tollway_upstream_attempts_total";
const CHOICES: &str = "tollway_account_choices_total";
const FAILOVERS: &str = "tollway_failovers_total";
const RETRIES_REFUSED: &str = "tollway_retries_refused_total";
const QUEUED: &str = "tollway_queued_requests";
const QUEUE_REFUSED: &str = "tollway_queue_refused_total";
const DECISIONS_DROPPED: &str = "tollway_decisions_dropped_total";
const REFRESHES: &str = "tollway_token_refreshes_total";
const USED: &str = "tollway_account_used_ratio";
const RESET: &str = "tollway_account_reset_timestamp_seconds";
const ACCOUNT_IN_FLIGHT: &str = "tollway_account_in_flight_requests";
const ACCOUNT_SESSIONS: &str = "tollway_account_conversations";
const ACCOUNTS: &str = "tollway_accounts";
const LEDGER_ROWS: &str = "tollway_ledger_pending_rows";
const LEDGER_OLDEST: &str = "tollway_ledger_oldest_pending_seconds";
const LEDGER_FAILURES: &str = "tollway_ledger_write_failures_total";
const DATABASE_UP: &str = "tollway_database_up";
const DATABASE_CONNECTIONS: &str = "tollway_database_connections";
const DATABASE_WAIT: &str = "tollway_database_acquire_seconds";
const DATABASE_FAILURES: &str = "tollway_database_errors_total";
const HOME_LOOKUPS: &str = "tollway_conversation_lookups_total";
const LEADER: &str = "tollway_leader";
const BATCH_REQUESTS: &str = "tollway_batch_requests_total";
const BUILD: &str = "tollway_build_info";

/// From a quick refusal to a long agent turn, seconds.
const DURATION_BUCKETS: [f64; 14] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 600.0];
/// To the first byte, seconds.
const FIRST_BYTE_BUCKETS: [f64; 13] = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 120.0];
/// For a connection of the database, seconds: a look into a pool, a round trip, a connection, a queue.
const WAIT_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 10.0];

/// More models than this a backend does not serve.
const MODEL_LIMIT: usize = 64;

pub(super) fn install() -> Result<PrometheusHandle, TelemetryError> {
    let buckets = |builder: PrometheusBuilder, name: &str, values: &[f64]| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), values).map_err(|_| TelemetryError::Twice)
    };
    let builder = buckets(PrometheusBuilder::new(), DURATION, &DURATION_BUCKETS)?;
    let builder = buckets(builder, FIRST_BYTE, &FIRST_BYTE_BUCKETS)?;
    let builder = buckets(builder, DATABASE_WAIT, &WAIT_BUCKETS)?;
    let handle = builder.install_recorder().map_err(|_| TelemetryError::Twice)?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(REQUESTS, "Requests answered, by dialect, model and HTTP status (499: the client hung up first)");
    describe_histogram!(DURATION, Unit::Seconds, "From a request's arrival to the last byte of its answer");
    describe_histogram!(FIRST_BYTE, Unit::Seconds, "From a request's arrival to the first byte of a good answer");
    describe_counter!(
        TOKENS,
        "Tokens; input includes cached, output includes reasoning. By source: reported by the backend, or estimated for a request that ended before the backend had counted all of it"
    );
    describe_gauge!(IN_FLIGHT, "Requests that are being answered");
    describe_counter!(ATTEMPTS, "Calls of the backend, by outcome; more than one a request after a failover");
    describe_counter!(
        CHOICES,
        "Choices of an account, by strategy, by what became of the conversation's home (none: it is new; hit; detour: another account serves for a moment; moved), and whether there was an account"
    );
    describe_counter!(FAILOVERS, "Requests that went on to another account, by the failure of the one before");
    describe_counter!(RETRIES_REFUSED, "Retries that were not made because the gateway's budget for them was used up");
    describe_gauge!(QUEUED, "Requests that wait for an account to come back");
    describe_counter!(QUEUE_REFUSED, "Requests that found no room to wait in");
    describe_counter!(DECISIONS_DROPPED, "Choices of an account whose reasons were not kept, for want of room");
    describe_counter!(REFRESHES, "Token refreshes, by outcome");
    describe_gauge!(
        USED,
        "The share of an account's window that is used, 0 to 1 and above; windows are named by their length"
    );
    describe_gauge!(RESET, Unit::Seconds, "When an account's window resets, as a Unix time");
    describe_gauge!(ACCOUNT_IN_FLIGHT, "Requests under way on an account");
    describe_gauge!(
        ACCOUNT_SESSIONS,
        "Conversations that live on an account and were active in the last quarter of an hour"
    );
    describe_gauge!(ACCOUNTS, "Accounts, by state");
    describe_gauge!(LEDGER_ROWS, "Rows of the ledger that wait to be written");
    describe_gauge!(LEDGER_OLDEST, Unit::Seconds, "How long the oldest of them has waited");
    describe_counter!(LEDGER_FAILURES, "Writes of the ledger that failed; their rows wait and are written again");
    describe_gauge!(DATABASE_UP, "1 while the database answers, 0 while it does not");
    describe_gauge!(
        DATABASE_CONNECTIONS,
        "Connections to the database, by state: open, in_use, and the most there may be"
    );
    describe_histogram!(DATABASE_WAIT, Unit::Seconds, "How long whatever needed a connection to the database waited");
    describe_counter!(DATABASE_FAILURES, "Statements that the database refused or did not get, by cause");
    describe_counter!(
        HOME_LOOKUPS,
        "Looks into the database for the account of a conversation that began on another replica: found, none, failed"
    );
    describe_gauge!(
        LEADER,
        "1 where this process does what one does for all replicas: asking for usage, refreshing ahead, history, alerts, webhooks, sweeps"
    );
    describe_counter!(BATCH_REQUESTS, "Requests of message batches that were worked on, by outcome");
    describe_gauge!(BUILD, "1, with the version that runs");
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!(IN_FLIGHT).set(0.0);
}

/// A request of a batch was worked on: `succeeded`, `errored`, or `put_back` for later.
pub fn batch_request(outcome: &'static str) {
    counter!(BATCH_REQUESTS, "outcome" => outcome).increment(1);
}

/// A request that is over.
#[derive(Debug)]
pub struct RequestFinished<'a> {
    /// The dialect it came in.
    pub dialect: &'static str,
    /// The model that was asked of the backend, once that was known.
    pub model: Option<&'a str>,
    /// The HTTP status that the client got.
    pub status: u16,
    /// From arrival to the last byte.
    pub duration: Duration,
    /// From arrival to the first byte.
    pub first_byte: Option<Duration>,
    /// Tokens, if any are known of.
    pub usage: Option<Usage>,
    /// Whether the backend did not report them, or not all of them.
    pub estimated: bool,
}

/// A request has arrived.
pub fn request_started() {
    gauge!(IN_FLIGHT).increment(1.0);
}

/// A request is over.
pub fn request_finished(request: &RequestFinished<'_>) {
    gauge!(IN_FLIGHT).decrement(1.0);
    let model = model_label(request.model, request.status == 200);
    let labels = [("dialect", Cow::Borrowed(request.dialect)), ("model", model.clone())];
    counter!(REQUESTS, "dialect" => request.dialect, "model" => model.clone(), "status" => request.status.to_string())
        .increment(1);
    histogram!(DURATION, &labels).record(request.duration.as_secs_f64());
    if let Some(first_byte) = request.first_byte.filter(|_| request.status == 200) {
        histogram!(FIRST_BYTE, &labels).record(first_byte.as_secs_f64());
    }
    let Some(usage) = request.usage else { return };
    let kinds =
        [("input", usage.input), ("cached", usage.cached), ("output", usage.output), ("reasoning", usage.reasoning)];
    // Apart, as in the books: what was reported can be checked against the backend to the token.
    let source = if request.estimated { "estimated" } else { "reported" };
    for (kind, tokens) in kinds {
        counter!(TOKENS, "model" => model.clone(), "kind" => kind, "source" => source).increment(tokens);
    }
}

/// The backend was called.
pub fn upstream_attempt(outcome: &'static str) {
    counter!(ATTEMPTS, "outcome" => outcome).increment(1);
}

/// An account was chosen for a request, or there was none.
pub fn choice(strategy: &'static str, affinity: &'static str, found: bool) {
    let found = if found { "true" } else { "false" };
    counter!(CHOICES, "strategy" => strategy, "affinity" => affinity, "found" => found).increment(1);
}

/// A request goes on to another account.
pub fn failover(cause: &'static str) {
    counter!(FAILOVERS, "cause" => cause).increment(1);
}

/// A retry was not made: the gateway's budget is used up.
pub fn retry_refused() {
    counter!(RETRIES_REFUSED).increment(1);
}

/// So many requests wait for an account.
pub fn queued(requests: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a queue is short")]
    gauge!(QUEUED).set(requests as f64);
}

/// A request found no room to wait in.
pub fn queue_refused() {
    counter!(QUEUE_REFUSED).increment(1);
}

/// The reasons for a choice are not kept.
pub fn decision_dropped() {
    counter!(DECISIONS_DROPPED).increment(1);
}

/// A token refresh was tried.
pub fn token_refresh(outcome: &'static str) {
    counter!(REFRESHES, "outcome" => outcome).increment(1);
}

/// One account, for its gauges.
#[derive(Debug)]
pub struct AccountGauges {
    /// What operators call it.
    pub account: String,
    /// Requests under way.
    pub in_flight: u32,
    /// Conversations that live there and are awake.
    pub conversations: u32,
    /// Its windows: the length in minutes, the share used, the reset in Unix seconds.
    pub windows: Vec<(i64, f64, f64)>,
}

/// The gauges of all accounts. What is no more (an account was removed, a plan changed) is no
/// number from then on, for a series cannot be taken back.
pub fn accounts(accounts: Vec<AccountGauges>) {
    static SHOWN: LazyLock<Mutex<HashSet<(String, String)>>> = LazyLock::new(Mutex::default);
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut gone = std::mem::take(&mut *shown);
    for AccountGauges { account, in_flight, conversations, windows } in accounts {
        gauge!(ACCOUNT_IN_FLIGHT, "account" => account.clone()).set(f64::from(in_flight));
        gauge!(ACCOUNT_SESSIONS, "account" => account.clone()).set(f64::from(conversations));
        let of_account = (account.clone(), String::new());
        gone.remove(&of_account);
        shown.insert(of_account);
        for (minutes, used, resets_at) in windows {
            let window = window_name(minutes);
            gauge!(USED, "account" => account.clone(), "window" => window.clone()).set(used);
            gauge!(RESET, "account" => account.clone(), "window" => window.clone()).set(resets_at);
            let of_window = (account.clone(), window);
            gone.remove(&of_window);
            shown.insert(of_window);
        }
    }
    for (account, window) in gone {
        if window.is_empty() {
            gauge!(ACCOUNT_IN_FLIGHT, "account" => account.clone()).set(f64::NAN);
            gauge!(ACCOUNT_SESSIONS, "account" => account).set(f64::NAN);
        } else {
            gauge!(USED, "account" => account.clone(), "window" => window.clone()).set(f64::NAN);
            gauge!(RESET, "account" => account, "window" => window).set(f64::NAN);
        }
    }
}

/// A window by its length: `5h`, `7d`. Lengths are the backend's, and few.
fn window_name(minutes: i64) -> String {
    match minutes {
        whole if whole % 1440 == 0 => format!("{}d", whole / 1440),
        whole if whole % 60 == 0 => format!("{}h", whole / 60),
        minutes => format!("{minutes}m"),
    }
}

/// How many accounts are in each state; every state is named, so that a series never goes missing.
pub fn accounts_by_state(accounts: &BTreeMap<&'static str, usize>) {
    for (state, number) in accounts {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 accounts")]
        gauge!(ACCOUNTS, "state" => *state).set(*number as f64);
    }
}

/// What the ledger has not written: how many rows, the age of the oldest, and how often a write has
/// failed since the process began.
pub fn ledger(rows: usize, oldest: Duration, failures: u64) {
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 rows in memory")]
    gauge!(LEDGER_ROWS).set(rows as f64);
    gauge!(LEDGER_OLDEST).set(oldest.as_secs_f64());
    counter!(LEDGER_FAILURES).absolute(failures);
}

/// Whether the database answers, and its connections by state.
pub fn database(is_up: bool, connections: [(&'static str, u32); 3]) {
    gauge!(DATABASE_UP).set(f64::from(u8::from(is_up)));
    for (state, number) in connections {
        gauge!(DATABASE_CONNECTIONS, "state" => state).set(f64::from(number));
    }
}

/// It was looked into the database for a conversation's account: `found`, `none` or `failed`.
pub fn home_lookup(outcome: &'static str) {
    counter!(HOME_LOOKUPS, "outcome" => outcome).increment(1);
}

/// Whether this process does what one does for all replicas.
pub fn leader(is_leader: bool) {
    gauge!(LEADER).set(f64::from(u8::from(is_leader)));
}

/// Somebody waited for a connection to the database.
pub fn database_wait(waited: Duration) {
    histogram!(DATABASE_WAIT).record(waited.as_secs_f64());
}

/// How many statements have failed for this cause since the process began.
pub fn database_failures(cause: &'static str, count: u64) {
    counter!(DATABASE_FAILURES, "cause" => cause).absolute(count);
}

/// The model's own name once the backend has served it, else `other`: clients can send any name.
fn model_label(model: Option<&str>, served: bool) -> Cow<'static, str> {
    static SERVED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let Some(model) = model else { return Cow::Borrowed("none") };
    let mut known = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if known.contains(model) || (served && known.len() < MODEL_LIMIT && known.insert(model.to_owned())) {
        return Cow::Owned(model.to_owned());
    }
    Cow::Borrowed("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_named_by_their_length() {
        assert_eq!([300, 10_080, 43_200, 90].map(window_name), ["5h", "7d", "30d", "90m"]);
    }

    #[test]
    fn a_model_is_named_once_it_was_served_and_their_number_is_bounded() {
        assert_eq!(model_label(Some("made-up"), false), "other");
        assert_eq!(model_label(Some("gpt-x"), true), "gpt-x");
        assert_eq!(model_label(Some("gpt-x"), false), "gpt-x");
        for n in 0..2 * MODEL_LIMIT {
            model_label(Some(&format!("m{n}")), true);
        }
        assert_eq!(model_label(Some("one-more"), true), "other");
        assert_eq!(model_label(None, false), "none");
    }
}
