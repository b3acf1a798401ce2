//! What happens, as numbers. [`catalogue`] says what there is; this file has one function a thing
//! that happens.
//!
//! Labels are bounded whatever clients send: dialects, outcomes and states are fixed sets, a model is
//! named only when the backend has served it, and what operators name is counted up to a limit.

mod bounded;
pub mod catalogue;
mod exemplars;
mod gauges;
mod series;

pub use ::metrics::Histogram;
pub use catalogue::{Metric, reference};
pub use gauges::{AccountGauges, BudgetGauge, PoolGauge, accounts, budgets, pools};

use super::{TelemetryError, traces};
use crate::codex::{FailureKind, Usage};
use ::metrics::{Counter, Gauge, counter, gauge, histogram};
use bounded::Bounded;
use catalogue as names;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use series::{Calls, DialectAndModel, Holders, Kept, Requests};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// More models than this a backend does not serve.
const MODEL_LIMIT: usize = 64;
/// More teams than this have no series of their own.
const TEAM_LIMIT: usize = 200;

static MODELS: Bounded = Bounded::new();
static TEAMS: Bounded = Bounded::new();
static KEYS: Bounded = Bounded::new();
static IN_FLIGHT: OnceLock<Gauge> = OnceLock::new();
static REQUESTS: Kept<(&'static str, Cow<'static, str>, u16), Requests> = Kept::new();
static OF_TEAMS: Kept<(Cow<'static, str>, &'static str), Holders> = Kept::new();
static OF_KEYS: Kept<[(&'static str, Cow<'static, str>); 3], Holders> = Kept::new();
static CALLS: Kept<(&'static str, Cow<'static, str>), Calls> = Kept::new();
static ATTEMPTS: Kept<&'static str, Counter> = Kept::new();
static CHOICES: Kept<[&'static str; 3], Counter> = Kept::new();
/// How many keys have series of their own.
static KEY_LIMIT: OnceLock<usize> = OnceLock::new();

pub(super) fn install(keys: u32) -> Result<PrometheusHandle, TelemetryError> {
    let _ = KEY_LIMIT.set(usize::try_from(keys).unwrap_or(usize::MAX));
    let builder = names::with_buckets(PrometheusBuilder::new()).map_err(|_| TelemetryError::Twice)?;
    let handle = builder.install_recorder().map_err(|_| TelemetryError::Twice)?;
    names::describe();
    begin();
    count_panics();
    Ok(handle)
}

/// Shows at once what may not happen for long: a rate over a series that is not there yet is no rate.
fn begin() {
    gauge!(names::BUILD.name, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for gauge in [names::IN_FLIGHT, names::DRAINING, names::DRAIN_DEADLINE, names::QUEUED] {
        gauge!(gauge.name).set(0.0);
    }
    let (panics, lines) = (names::PANICS, names::LOG_LINES_LOST);
    for plain in [panics, lines, names::RETRIES_REFUSED, names::QUEUE_REFUSED, names::DECISIONS_DROPPED] {
        counter!(plain.name).absolute(0);
    }
    for kind in FailureKind::ALL {
        counter!(names::ATTEMPTS.name, "outcome" => kind.as_str()).absolute(0);
        counter!(names::FAILOVERS.name, "cause" => kind.as_str()).absolute(0);
    }
    counter!(names::ATTEMPTS.name, "outcome" => "ok").absolute(0);
    for level in ["key", "user", "team"] {
        for limit in ["requests_per_minute", "tokens_per_minute", "concurrent_requests", "budget", "forbidden"] {
            counter!(names::LIMIT_REFUSALS.name, "level" => level, "limit" => limit).absolute(0);
        }
    }
    for outcome in ["succeeded", "errored", "put_back"] {
        counter!(names::BATCH_REQUESTS.name, "outcome" => outcome).absolute(0);
    }
    for outcome in ["found", "none", "failed"] {
        counter!(names::HOME_LOOKUPS.name, "outcome" => outcome).absolute(0);
    }
    for outcome in ["exported", "failed", "dropped", "sampled_out"] {
        counter!(names::SPANS.name, "outcome" => outcome).absolute(0);
    }
}

/// Counts panics from now on, beside what was done about them so far.
fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        counter!(names::PANICS.name).increment(1);
        before(panic);
    }));
}

/// A line of the log found no room: whoever reads it does not keep up.
pub(super) fn log_line_lost() {
    counter!(names::LOG_LINES_LOST.name).increment(1);
}

/// A page as OpenMetrics, with exemplars.
pub(super) fn openmetrics(page: &str) -> String {
    exemplars::openmetrics(page)
}

/// Brings what the operating system knows of the process up to date.
pub(super) fn process() {
    metrics_process::Collector::default().collect();
}

/// A request of a batch was worked on: `succeeded`, `errored`, or `put_back` for later.
pub fn batch_request(outcome: &'static str) {
    counter!(names::BATCH_REQUESTS.name, "outcome" => outcome).increment(1);
}

/// Whose request it is, by the names that operators gave.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The key.
    pub key: &'a str,
    /// Its user, if it has one.
    pub user: Option<&'a str>,
    /// Its team, if it has one.
    pub team: Option<&'a str>,
}

/// What a request would cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost<'a> {
    /// Millionths.
    pub micros: u64,
    /// Of what.
    pub currency: &'a str,
}

/// A request that is over.
#[derive(Debug)]
pub struct RequestFinished<'a> {
    /// The dialect it came in.
    pub dialect: &'static str,
    /// The model that was asked of the backend, once that was known.
    pub model: Option<&'a str>,
    /// Whose it is, once that was known.
    pub holder: Option<Holder<'a>>,
    /// How it ended, in one word.
    pub outcome: &'static str,
    /// The HTTP status that the client got.
    pub status: u16,
    /// From arrival to the last byte.
    pub duration: Duration,
    /// From arrival to the first byte.
    pub first_byte: Option<Duration>,
    /// What the gateway added, if the backend was called.
    pub overhead: Option<Duration>,
    /// Tokens, if any are known of.
    pub usage: Option<Usage>,
    /// Whether the backend did not report them, or not all of them.
    pub estimated: bool,
    /// What they would cost, if the price is known.
    pub cost: Option<Cost<'a>>,
    /// The request's span: a bucket of a histogram names the trace of one request in it.
    pub trace: &'a tracing::Span,
}

/// A request has arrived.
pub fn request_started() {
    in_flight().increment(1.0);
}

fn in_flight() -> &'static Gauge {
    IN_FLIGHT.get_or_init(|| gauge!(names::IN_FLIGHT.name))
}

/// A request is over.
pub fn request_finished(request: &RequestFinished<'_>) {
    in_flight().decrement(1.0);
    let (dialect, status) = (request.dialect, request.status);
    let model = model_label(request.model, status == 200);
    let labels = [("dialect", Cow::Borrowed(dialect)), ("model", model.clone())];
    let series = REQUESTS.of((dialect, model.clone(), status), |_| Requests::new(&labels, status));
    series.number.increment(1);
    observe(&series, &labels, request);
    if let Some(overhead) = request.overhead {
        let series = series.overhead.get_or_init(|| histogram!(names::OVERHEAD_TIME.name, "dialect" => dialect));
        series.record(overhead.as_secs_f64());
    }
    if let Some(usage) = request.usage {
        let (tokens, source) =
            if request.estimated { (&series.estimated, "estimated") } else { (&series.reported, "reported") };
        tokens.add(
            usage,
            |kind| counter!(names::TOKENS.name, "model" => model.clone(), "kind" => kind, "source" => source),
        );
    }
    if let Some(Cost { micros, currency }) = request.cost {
        // A process has one currency.
        let begin = || counter!(names::COST.name, "currency" => currency.to_owned(), "model" => model.clone());
        series.cost.get_or_init(begin).increment(micros);
    }
    if let Some(holder) = request.holder {
        used_by(holder, request);
    }
}

/// How long it took, with the trace of one request for each bucket.
fn observe(series: &Requests, labels: &DialectAndModel, request: &RequestFinished<'_>) {
    let trace = traces::sampled_trace_id(request.trace);
    let exemplar = |metric: &Metric, value: Duration| {
        if let Some(trace) = &trace {
            exemplars::record(metric, labels, value.as_secs_f64(), trace);
        }
    };
    series.duration.record(request.duration.as_secs_f64());
    exemplar(&names::DURATION, request.duration);
    if let Some(first_byte) = request.first_byte.filter(|_| request.status == 200) {
        let series = series.first_byte.get_or_init(|| histogram!(names::FIRST_BYTE.name, labels));
        series.record(first_byte.as_secs_f64());
        exemplar(&names::FIRST_BYTE, first_byte);
    }
}

fn used_by(Holder { key, user, team }: Holder<'_>, request: &RequestFinished<'_>) {
    let of_team = team.map_or(Cow::Borrowed("none"), |team| TEAMS.label(team, true, TEAM_LIMIT));
    let outcome = request.outcome;
    let series = OF_TEAMS.of((of_team.clone(), outcome), |(team, _)| {
        Holders::new(counter!(names::TEAM_REQUESTS.name, "team" => team.clone(), "outcome" => outcome))
    });
    series.requests.increment(1);
    if let Some(usage) = request.usage {
        let tokens = |kind| counter!(names::TEAM_TOKENS.name, "team" => of_team.clone(), "kind" => kind);
        series.tokens.add(usage, tokens);
    }
    if let Some(Cost { micros, currency }) = request.cost {
        let begin = || counter!(names::TEAM_COST.name, "team" => of_team.clone(), "currency" => currency.to_owned());
        series.cost.get_or_init(begin).increment(micros);
    }
    let limit = KEY_LIMIT.get().copied().unwrap_or_default();
    if limit == 0 {
        return;
    }
    // A key belongs to one user and one team: what bounds keys bounds all three.
    let user = user.unwrap_or("none");
    let labels = match KEYS.label(&format!("{of_team}/{user}/{key}"), true, limit) {
        Cow::Owned(_) => {
            [("team", of_team), ("user", Cow::Owned(user.to_owned())), ("key", Cow::Owned(key.to_owned()))]
        }
        Cow::Borrowed(other) => ["team", "user", "key"].map(|name| (name, Cow::Borrowed(other))),
    };
    let series = OF_KEYS.of(labels.clone(), |labels| Holders::new(counter!(names::KEY_REQUESTS.name, labels)));
    series.requests.increment(1);
    if let Some(usage) = request.usage {
        series.tokens.add(usage, |kind| {
            let [team, user, key] = labels.clone();
            counter!(names::KEY_TOKENS.name, &[team, user, key, ("kind", Cow::Borrowed(kind))])
        });
    }
}

fn kinds(usage: Usage) -> [(&'static str, u64); 4] {
    [("input", usage.input), ("cached", usage.cached), ("output", usage.output), ("reasoning", usage.reasoning)]
}

/// One call of the backend.
#[derive(Debug)]
pub struct Call<'a> {
    /// What is asked for: `chat`.
    pub operation: &'static str,
    /// The model that is asked for.
    pub model: &'a str,
}

impl Call<'_> {
    fn labels(&self, served: bool) -> [(&'static str, Cow<'static, str>); 3] {
        [
            ("gen_ai_operation_name", Cow::Borrowed(self.operation)),
            ("gen_ai_provider_name", Cow::Borrowed("openai")),
            ("gen_ai_request_model", model_label(Some(self.model), served)),
        ]
    }

    fn series(&self, served: bool) -> Arc<Calls> {
        CALLS.of((self.operation, model_label(Some(self.model), served)), |_| Calls::default())
    }

    /// Its first output came after this; gives what takes the times between the pieces that follow,
    /// for they come often.
    pub fn began(&self, after: Duration) -> Histogram {
        let series = self.series(true);
        let of = |metric: &Metric| histogram!(metric.name, &self.labels(true));
        series.first_chunk.get_or_init(|| of(&names::CALL_FIRST_CHUNK)).record(after.as_secs_f64());
        series.chunk.get_or_init(|| of(&names::CALL_CHUNK)).clone()
    }

    /// It is over; `error` says why, if it did not end well.
    pub fn ended(&self, after: Duration, error: Option<&'static str>, usage: Option<Usage>) {
        let served = error.is_none();
        let series = self.series(served);
        let duration = |error: &'static str| {
            let [operation, provider, model] = self.labels(served);
            histogram!(names::CALL_DURATION.name, &[operation, provider, model, ("error_type", Cow::Borrowed(error))])
        };
        match error {
            None => series.duration.get_or_init(|| duration("")).record(after.as_secs_f64()),
            Some(error) => duration(error).record(after.as_secs_f64()),
        }
        let Some(usage) = usage else { return };
        let tokens = |kind: &'static str| {
            let [operation, provider, model] = self.labels(served);
            let kind = ("gen_ai_token_type", Cow::Borrowed(kind));
            histogram!(names::CALL_TOKENS.name, &[operation, provider, model, kind])
        };
        let histograms = series.tokens.get_or_init(|| ["input", "output"].map(tokens));
        for (histogram, tokens) in histograms.iter().zip([usage.input, usage.output]) {
            #[expect(clippy::cast_precision_loss, reason = "no call has 2^52 tokens")]
            histogram.record(tokens as f64);
        }
    }
}

/// The backend was called.
pub fn upstream_attempt(outcome: &'static str) {
    ATTEMPTS.of(outcome, |_| counter!(names::ATTEMPTS.name, "outcome" => outcome)).increment(1);
}

/// An account was chosen for a request, or there was none.
pub fn choice(strategy: &'static str, affinity: &'static str, found: bool) {
    let found = if found { "true" } else { "false" };
    let series = CHOICES.of(
        [strategy, affinity, found],
        |_| counter!(names::CHOICES.name, "strategy" => strategy, "affinity" => affinity, "found" => found),
    );
    series.increment(1);
}

/// A request goes on to another account.
pub fn failover(cause: &'static str) {
    counter!(names::FAILOVERS.name, "cause" => cause).increment(1);
}

/// A retry was not made: the gateway's budget is used up.
pub fn retry_refused() {
    counter!(names::RETRIES_REFUSED.name).increment(1);
}

/// A request was refused because of a limit: whose (`key`, `user`, `team`), and which.
pub fn limit_refused(level: &'static str, limit: &'static str) {
    counter!(names::LIMIT_REFUSALS.name, "level" => level, "limit" => limit).increment(1);
}

/// So many requests wait for an account.
pub fn queued(requests: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a queue is short")]
    gauge!(names::QUEUED.name).set(requests as f64);
}

/// A request found no room to wait in.
pub fn queue_refused() {
    counter!(names::QUEUE_REFUSED.name).increment(1);
}

/// The reasons for a choice are not kept.
pub fn decision_dropped() {
    counter!(names::DECISIONS_DROPPED.name).increment(1);
}

/// A token refresh was tried.
pub fn token_refresh(account: &str, outcome: &'static str) {
    counter!(names::REFRESHES.name, "account" => account.to_owned(), "outcome" => outcome).increment(1);
}

/// The process was told to stop, and has ended by then (a Unix time).
pub fn draining(deadline: i64) {
    gauge!(names::DRAINING.name).set(1.0);
    #[expect(clippy::cast_precision_loss, reason = "Unix seconds")]
    gauge!(names::DRAIN_DEADLINE.name).set(deadline as f64);
}

/// So many keys of this kind (`gateway`, `admin`) end soon.
pub fn keys_expiring(kind: &'static str, number: usize) {
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 keys")]
    gauge!(names::KEYS_EXPIRING.name, "kind" => kind).set(number as f64);
}

/// So many spans have had this outcome.
pub(super) fn spans(outcome: &'static str, number: usize) {
    counter!(names::SPANS.name, "outcome" => outcome).increment(number as u64);
}

/// How many accounts are in each state; every state is named, so that a series never goes missing.
pub fn accounts_by_state(accounts: &BTreeMap<&'static str, usize>) {
    for (state, number) in accounts {
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 accounts")]
        gauge!(names::ACCOUNTS.name, "state" => *state).set(*number as f64);
    }
}

/// What the ledger has not written: how many rows, the age of the oldest, and how often a write has
/// failed since the process began.
pub fn ledger(rows: usize, oldest: Duration, failures: u64) {
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 rows in memory")]
    gauge!(names::LEDGER_ROWS.name).set(rows as f64);
    gauge!(names::LEDGER_OLDEST.name).set(oldest.as_secs_f64());
    counter!(names::LEDGER_FAILURES.name).absolute(failures);
}

/// Whether the database answers, and its connections by state.
pub fn database(is_up: bool, connections: [(&'static str, u32); 3]) {
    gauge!(names::DATABASE_UP.name).set(f64::from(u8::from(is_up)));
    for (state, number) in connections {
        gauge!(names::DATABASE_CONNECTIONS.name, "state" => state).set(f64::from(number));
    }
}

/// It was looked into the database for a conversation's account: `found`, `none` or `failed`.
pub fn home_lookup(outcome: &'static str) {
    counter!(names::HOME_LOOKUPS.name, "outcome" => outcome).increment(1);
}

/// Whether this process does what one does for all replicas.
pub fn leader(is_leader: bool) {
    gauge!(names::LEADER.name).set(f64::from(u8::from(is_leader)));
}

/// Somebody waited for a connection to the database.
pub fn database_wait(waited: Duration) {
    histogram!(names::DATABASE_WAIT.name).record(waited.as_secs_f64());
}

/// How many statements have failed for this cause since the process began.
pub fn database_failures(cause: &'static str, count: u64) {
    counter!(names::DATABASE_FAILURES.name, "cause" => cause).absolute(count);
}

/// The model's own name once the backend has served it, else `other`: clients can send any name.
fn model_label(model: Option<&str>, served: bool) -> Cow<'static, str> {
    model.map_or(Cow::Borrowed("none"), |model| MODELS.label(model, served, MODEL_LIMIT))
}
