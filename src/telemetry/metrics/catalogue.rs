//! The catalogue: each metric once, with its type, unit, labels and meaning. The metrics page is
//! registered from it, and docs/metrics.md is written from it.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use std::fmt::Write as _;

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// What it counts.
    pub kind: Kind,
    /// Of its values; empty for plain numbers.
    pub unit: &'static str,
    /// What its series are told apart by.
    pub labels: &'static [&'static Label],
    /// For people.
    pub meaning: &'static str,
}

/// What a metric's values are.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// In buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// A label, and what bounds its values whatever clients send.
#[derive(Debug)]
pub struct Label {
    /// As Prometheus sees it.
    pub name: &'static str,
    /// Its values.
    pub values: &'static str,
}

/// A question that metrics answer, and those that do.
type Section = (&'static str, &'static [&'static Metric]);

/// From a quick refusal to a long agent turn, seconds.
const ANSWER: &[f64] =
    &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 1800.0];
/// To the first byte, seconds.
const BEGINNING: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0];
/// What a gateway may cost, seconds.
const OVERHEAD: &[f64] = &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
/// As OpenTelemetry's conventions give them for durations of generative AI, seconds; and longer ones,
/// for an agent's turn takes longer than theirs.
const CONVENTIONAL: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36];
/// As the conventions give them for the time to the first token, seconds; and longer ones.
const FIRST_CHUNK: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0];
/// As the conventions give them for the time of one output token, seconds.
const CHUNK: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// As the conventions give them for tokens.
const TOKEN_COUNT: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// For a connection of the database, seconds: a look into a pool, a round trip, a connection, a queue.
const WAIT: &[f64] = &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 10.0];

macro_rules! labels {
    ($($label:ident: $name:literal, $values:literal;)*) => {
        $( const $label: Label = Label { name: $name, values: $values }; )*
        const LABELS: &[&Label] = &[$(&$label),*];
    };
}

labels! {
    ACCOUNT: "account", "the operator's name for an account";
    AFFINITY: "affinity", "`none`, `hit`, `detour`, `moved`";
    BUDGET: "budget", "a budget of a team's limits, such as `5000000 tokens/day`";
    CAUSE: "cause", "why a call of the backend failed: one of the kinds in docs/failures.md";
    CONNECTION: "state", "of connections: `open`, `in_use`, `most`";
    CURRENCY: "currency", "the price table's";
    DATABASE_CAUSE: "cause", "of the database: a word for what went wrong, of a fixed set";
    DIALECT: "dialect", "`responses`, `chat`, `messages`, `images`, `other`";
    ERROR: "error_type", "empty for a call that went well, `client_gone`, or one of the kinds in docs/failures.md";
    FOUND: "found", "`true`, `false`";
    HOLDER: "kind", "`gateway` (keys for the API), `admin` (keys for the admin API)";
    KEY: "key", "the operator's name for a key, of the first `metrics.keys` that are seen; `other` for those beyond";
    LEVEL: "level", "whose limit it is: `key`, `user`, `team`";
    LIMIT: "limit", "`requests_per_minute`, `tokens_per_minute`, `concurrent_requests`, `budget`, `forbidden`";
    MODEL: "model", "the backend's name of a model that it has served, of the first 64; `other`; `none` before a model is known";
    OUTCOME: "outcome", "named in the meaning";
    POOL: "pool", "the operator's name for a pool; `*` for all accounts together";
    SOURCE: "source", "`reported` by the backend, or `estimated` for a request that ended before the backend had counted all of it";
    STATE: "state", "`active`, `limited`, `not_included`, `cooling`, `tripped`, `paused`, `needs_login`, `quarantined`, `barred`";
    STATUS: "status", "the HTTP status; 499 for a client that hung up first";
    STRATEGY: "strategy", "`quota`, `round_robin`, `fill_first`, `least_loaded`";
    TEAM: "team", "the operator's name for a team, of the first 200 that are seen; `other` for those beyond; `none` for keys without one";
    TOKEN_KIND: "kind", "`input` (with cached), `cached`, `output` (with reasoning), `reasoning`";
    USER: "user", "the operator's name for the key's user; `none` for keys without one";
    VERSION: "version", "the program's";
    WINDOW: "window", "a window by its length, such as `5h`, `7d`; lengths are the backend's, and few";
    OPERATION: "gen_ai_operation_name", "`chat`";
    PROVIDER: "gen_ai_provider_name", "`openai`";
    REQUEST_MODEL: "gen_ai_request_model", "as `model`; of a call that names none, its path";
    TOKEN_TYPE: "gen_ai_token_type", "`input`, `output`";
}

macro_rules! catalogue {
    ($($question:literal { $(
        $metric:ident: $kind:expr, $unit:literal, [$($label:ident),*], $name:literal, $meaning:literal;
    )* })*) => {
        $( $(
            #[doc = $meaning]
            pub const $metric: Metric = Metric {
                name: $name, kind: $kind, unit: $unit, labels: &[$(&$label),*], meaning: $meaning,
            };
        )* )*
        /// Every metric, by the question that it answers.
        pub const SECTIONS: &[Section] = &[$( ($question, &[$(&$metric),*]) ),*];
    };
}

use Kind::{Counter, Gauge, Histogram};

catalogue! {
    "Is it up, and fast?" {
        BUILD: Gauge, "", [VERSION], "tollway_build_info", "1, with the version that runs";
        REQUESTS: Counter, "", [DIALECT, MODEL, STATUS], "tollway_requests_total", "Requests answered";
        IN_FLIGHT: Gauge, "", [], "tollway_in_flight_requests", "Requests that are being answered";
        DURATION: Histogram(ANSWER), "seconds", [DIALECT, MODEL], "tollway_request_duration_seconds", "From a request's arrival to the last byte of its answer";
        FIRST_BYTE: Histogram(BEGINNING), "seconds", [DIALECT, MODEL], "tollway_time_to_first_byte_seconds", "From a request's arrival to the first byte of a good answer";
        OVERHEAD_TIME: Histogram(OVERHEAD), "seconds", [DIALECT], "tollway_overhead_seconds", "What Tollway itself adds to a request that the backend was called for: from the request's last byte to the first call, and the work on what the backend sends; without the waiting for a token, for room, for the backend and for the client";
        DRAINING: Gauge, "", [], "tollway_draining", "1 from the signal to stop until the process ends, else 0";
        DRAIN_DEADLINE: Gauge, "seconds", [], "tollway_drain_deadline_timestamp_seconds", "The Unix time by which a replica that was told to stop has ended, by its own settings; 0 while it was not told";
        PANICS: Counter, "", [], "tollway_panics_total", "Panics: each is a bug, ends one request or one piece of background work, and is in the log";
        LOG_LINES_LOST: Counter, "", [], "tollway_log_lines_lost_total", "Lines that the log had no room for, because whoever reads it does not keep up; requests do not wait for that";
    }
    "What does the backend do?" {
        CALL_DURATION: Histogram(CONVENTIONAL), "seconds", [OPERATION, PROVIDER, REQUEST_MODEL, ERROR], "gen_ai_client_operation_duration_seconds", "OpenTelemetry's `gen_ai.client.operation.duration`: one call of the backend, from its sending to the end of its answer; more than one a request after a failover";
        CALL_FIRST_CHUNK: Histogram(FIRST_CHUNK), "seconds", [OPERATION, PROVIDER, REQUEST_MODEL], "gen_ai_client_operation_time_to_first_chunk_seconds", "OpenTelemetry's `gen_ai.client.operation.time_to_first_chunk`: from a call's sending to its first output";
        CALL_CHUNK: Histogram(CHUNK), "seconds", [OPERATION, PROVIDER, REQUEST_MODEL], "gen_ai_client_operation_time_per_output_chunk_seconds", "OpenTelemetry's `gen_ai.client.operation.time_per_output_chunk`: from one piece of output to the next";
        CALL_TOKENS: Histogram(TOKEN_COUNT), "tokens", [OPERATION, PROVIDER, REQUEST_MODEL, TOKEN_TYPE], "gen_ai_client_token_usage", "OpenTelemetry's `gen_ai.client.token.usage`: the tokens of one call, as the backend reported them; input has cached, output has reasoning";
        ATTEMPTS: Counter, "", [OUTCOME], "tollway_upstream_attempts_total", "Calls of the backend; the outcome is `ok` or one of the kinds in docs/failures.md";
        FAILOVERS: Counter, "", [CAUSE], "tollway_failovers_total", "Requests that went on to another account, by the failure of the one before";
        RETRIES_REFUSED: Counter, "", [], "tollway_retries_refused_total", "Retries that were not made because the gateway's budget for them was used up";
    }
    "Is quota running out, and when?" {
        ACCOUNTS: Gauge, "", [STATE], "tollway_accounts", "Accounts, by state";
        ACCOUNT_UP: Gauge, "", [ACCOUNT], "tollway_account_up", "1 while an account serves, or will again by itself or by an operator's word (paused); 0 when somebody has to act: `needs_login`, `quarantined`, `not_included`, `barred`";
        USED: Gauge, "ratio", [ACCOUNT, WINDOW], "tollway_account_used_ratio", "The share of an account's window that is used, 0 to 1 and above";
        RESET: Gauge, "seconds", [ACCOUNT, WINDOW], "tollway_account_reset_timestamp_seconds", "When an account's window resets, as a Unix time";
        POOL_LEFT: Gauge, "ratio", [POOL, WINDOW], "tollway_pool_left_ratio", "The share of the windows of a pool's accounts that is left; accounts that need somebody to act are left out";
        POOL_BURN: Gauge, "ratio", [POOL, WINDOW], "tollway_pool_burn_ratio_per_hour", "The share of a pool's windows that is used up in an hour, as measured over the last half hour";
        POOL_EXHAUSTION: Gauge, "seconds", [POOL, WINDOW], "tollway_pool_exhaustion_seconds", "How long a pool's windows last at the present burn, with the resets that come before; +Inf where they last";
        ACCOUNT_IN_FLIGHT: Gauge, "", [ACCOUNT], "tollway_account_in_flight_requests", "Requests under way on an account";
        ACCOUNT_SESSIONS: Gauge, "", [ACCOUNT], "tollway_account_conversations", "Conversations that live on an account and were active in the last quarter of an hour";
        CHOICES: Counter, "", [STRATEGY, AFFINITY, FOUND], "tollway_account_choices_total", "Choices of an account, by what became of the conversation's home (none: it is new; hit; detour: another account serves for a moment; moved), and whether there was an account";
        QUEUED: Gauge, "", [], "tollway_queued_requests", "Requests that wait for an account to come back";
        QUEUE_REFUSED: Counter, "", [], "tollway_queue_refused_total", "Requests that found no room to wait in";
        DECISIONS_DROPPED: Counter, "", [], "tollway_decisions_dropped_total", "Choices of an account whose reasons were not kept, for want of room";
    }
    "Are accounts and keys kept alive?" {
        REFRESHES: Counter, "", [ACCOUNT, OUTCOME], "tollway_token_refreshes_total", "Token refreshes. Outcomes: `ok`; `transient`: may work later; `permanent`: only a login helps; `adopted`: another replica had done it; `persist_failed`: new credentials that were not stored at once";
        TOKEN_EXPIRY: Gauge, "seconds", [ACCOUNT], "tollway_account_token_expiry_timestamp_seconds", "When an account's access token ends, as a Unix time; it is renewed well before";
        KEYS_EXPIRING: Gauge, "", [HOLDER], "tollway_keys_expiring", "Keys that are in force and end within seven days";
    }
    "Who uses it?" {
        TOKENS: Counter, "tokens", [MODEL, TOKEN_KIND, SOURCE], "tollway_tokens_total", "Tokens, of all attempts";
        COST: Counter, "millionths of the currency", [CURRENCY, MODEL], "tollway_notional_cost_micros_total", "What the tokens would cost by the price table";
        TEAM_REQUESTS: Counter, "", [TEAM, OUTCOME], "tollway_team_requests_total", "Requests answered. Outcomes: `ok`, `refused`, `cut`, `client_gone`";
        TEAM_TOKENS: Counter, "tokens", [TEAM, TOKEN_KIND], "tollway_team_tokens_total", "Tokens by team";
        TEAM_COST: Counter, "millionths of the currency", [TEAM, CURRENCY], "tollway_team_notional_cost_micros_total", "Notional cost by team";
        BUDGET_USED: Gauge, "ratio", [TEAM, BUDGET], "tollway_budget_used_ratio", "The share of a team's budget that is used; what is kept free for requests under way is not";
        LIMIT_REFUSALS: Counter, "", [LEVEL, LIMIT], "tollway_limit_refusals_total", "Requests that were refused because a limit left no room";
        KEY_REQUESTS: Counter, "", [TEAM, USER, KEY], "tollway_key_requests_total", "Requests answered by key; only with `metrics.keys`";
        KEY_TOKENS: Counter, "tokens", [TEAM, USER, KEY, TOKEN_KIND], "tollway_key_tokens_total", "Tokens by key; only with `metrics.keys`";
        BATCH_REQUESTS: Counter, "", [OUTCOME], "tollway_batch_requests_total", "Requests of message batches that were worked on. Outcomes: `succeeded`, `errored`, `put_back` for later";
    }
    "Is it written down?" {
        LEDGER_ROWS: Gauge, "", [], "tollway_ledger_pending_rows", "Rows of the ledger that wait to be written";
        LEDGER_OLDEST: Gauge, "seconds", [], "tollway_ledger_oldest_pending_seconds", "How long the oldest of them has waited";
        LEDGER_FAILURES: Counter, "", [], "tollway_ledger_write_failures_total", "Writes of the ledger that failed; their rows wait and are written again";
        DATABASE_UP: Gauge, "", [], "tollway_database_up", "1 while the database answers, 0 while it does not";
        DATABASE_CONNECTIONS: Gauge, "", [CONNECTION], "tollway_database_connections", "Connections to the database: those that are open, those in use, and the most there may be";
        DATABASE_WAIT: Histogram(WAIT), "seconds", [], "tollway_database_acquire_seconds", "How long whatever needed a connection to the database waited";
        DATABASE_FAILURES: Counter, "", [DATABASE_CAUSE], "tollway_database_errors_total", "Statements that the database refused or did not get";
        HOME_LOOKUPS: Counter, "", [OUTCOME], "tollway_conversation_lookups_total", "Looks into the database for the account of a conversation that began on another replica. Outcomes: `found`, `none`, `failed`";
        LEADER: Gauge, "", [], "tollway_leader", "1 where this process does what one does for all replicas: asking for usage, refreshing ahead, history, alerts, webhooks, sweeps";
        SPANS: Counter, "", [OUTCOME], "tollway_trace_spans_total", "Spans of traces. Outcomes: `exported`; `failed`: the collector did not take them; `dropped`: there was no room for them; `sampled_out`";
    }
    "What does the process need?" {
        PROCESS_CPU: Counter, "seconds", [], "process_cpu_seconds_total", "Processor time, user and system";
        PROCESS_FDS: Gauge, "", [], "process_open_fds", "Open file descriptors";
        PROCESS_MAX_FDS: Gauge, "", [], "process_max_fds", "The most that may be open";
        PROCESS_RESIDENT: Gauge, "bytes", [], "process_resident_memory_bytes", "Memory in use";
        PROCESS_VIRTUAL: Gauge, "bytes", [], "process_virtual_memory_bytes", "Address space in use";
        PROCESS_MAX_VIRTUAL: Gauge, "bytes", [], "process_virtual_memory_max_bytes", "The most that it may have";
        PROCESS_START: Gauge, "seconds", [], "process_start_time_seconds", "When the process began, as a Unix time";
        PROCESS_THREADS: Gauge, "", [], "process_threads", "Threads";
    }
}

/// Every metric.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    SECTIONS.iter().flat_map(|(_, metrics)| metrics.iter().copied())
}

/// Gives histograms their buckets.
pub(super) fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    all().try_fold(builder, |builder, metric| match metric.kind {
        Histogram(buckets) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets),
        Counter | Gauge => Ok(builder),
    })
}

/// Tells the recorder what each metric means.
pub(super) fn describe() {
    for metric in all() {
        match metric.kind {
            Counter => ::metrics::describe_counter!(metric.name, metric.meaning),
            Gauge => ::metrics::describe_gauge!(metric.name, metric.meaning),
            Histogram(_) => ::metrics::describe_histogram!(metric.name, metric.meaning),
        }
    }
}

/// The reference page, Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         This page is printed by `tollway metrics`; a test compares the two. `GET /metrics` on \
         `server.ops_listen` answers in Prometheus' text format, or in OpenMetrics where that is asked for; only \
         OpenMetrics carries exemplars (the trace of one request in a bucket of `tollway_request_duration_seconds` \
         and `tollway_time_to_first_byte_seconds`), which Prometheus keeps with \
         `--enable-feature=exemplar-storage`.\n\n\
         What each replica tells is its own: add the counters up, and take of what all of them know (accounts, \
         pools, keys, budgets) the maximum or the minimum, not the sum. Names that begin with `gen_ai_` are those \
         of OpenTelemetry's conventions for generative AI as of semantic conventions 1.37 to 1.41, in Prometheus' \
         spelling, for Tollway as a client of the backend; what Tollway's own clients see is under `tollway_`. \
         Money is notional: what the tokens would cost by the price table (docs/ledger.md).\n\n\
         The number of series is bounded whatever clients send: see the labels at the end. A gauge of what is no \
         more (an account was removed) becomes `NaN`.\n",
    );
    // Writing to a string cannot fail.
    for (question, metrics) in SECTIONS {
        let _ = write!(page, "\n## {question}\n\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
        for Metric { name, kind, unit, labels, meaning } in *metrics {
            let labels = labels.iter().map(|label| format!("`{}`", label.name)).collect::<Vec<_>>().join(", ");
            let (kind, buckets) = match kind {
                Counter => ("counter", String::new()),
                Gauge => ("gauge", String::new()),
                Histogram(buckets) => {
                    let bounds: Vec<_> = buckets.iter().map(ToString::to_string).collect();
                    ("histogram", format!(". Buckets: {}", bounds.join(", ")))
                }
            };
            let _ = writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {meaning}{buckets} |");
        }
    }
    page.push_str("\n## Labels\n\n| label | values |\n|---|---|\n");
    for Label { name, values } in LABELS {
        let _ = writeln!(page, "| `{name}` | {values} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_metric_is_named_once_and_as_prometheus_wants_it() {
        let mut names = BTreeSet::new();
        for metric in all() {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            let is_counter = matches!(metric.kind, Counter);
            assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
            for unit in ["seconds", "bytes"] {
                let says = metric.name.trim_end_matches("_total").ends_with(unit);
                assert_eq!(says, metric.unit == unit, "{}", metric.name);
            }
        }
    }

    #[test]
    fn buckets_go_up() {
        for metric in all() {
            if let Histogram(buckets) = metric.kind {
                assert!(buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
            }
        }
    }

    #[test]
    fn the_reference_page_is_this_catalogue() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, reference(), "run `tollway metrics > docs/metrics.md`");
    }
}
