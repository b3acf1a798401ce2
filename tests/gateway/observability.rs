//! What an operator sees: metrics that Prometheus takes, traces that a real collector receives.

use std::net::TcpListener;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Program, Setup, Sim, Tools, eventually, run, skip};

/// The caller's own trace.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The value of a series; zero when it is not there.
fn value(page: &str, series: &str) -> f64 {
    let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_default()
}

/// The sum of all series of a metric that carry these labels.
fn sum(page: &str, metric: &str, labels: &[&str]) -> f64 {
    let series =
        page.lines().filter(|line| line.starts_with(&format!("{metric}{{")) && labels.iter().all(|l| line.contains(l)));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_page_passes_promtool() {
    let Some(promtool) = Tools::new().find("promtool") else { return skip("promtool") };
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    for dialect in Dialect::ALL {
        gateway.whole(&key, dialect, &dialect.ask("hello")).await;
        gateway.streamed(&key, dialect, &dialect.ask_streamed("hello")).await;
    }
    let (status, page) = gateway.ops_page("/metrics").await;
    assert_eq!(status, 200);
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]);
    let output = run(command, &page);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_move_with_what_happens() {
    let sim = Sim::start().await;
    let account = sim.expired_account().await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let answer = gateway.whole(&key, Dialect::Messages, &Dialect::Messages.ask("hello")).await;
    let (input, output) = Dialect::Messages.usage(&answer);
    gateway.streamed(&key, Dialect::Chat, &Dialect::Chat.ask_streamed("hello")).await;
    assert_eq!(gateway.status("tw-unknown").await, 401);
    sim.fault(json!({"kind": "server_error", "times": 2})).await;
    gateway.status(&key).await;
    // A stream's request is settled a moment after its last byte.
    let page = eventually("all requests settled", async || {
        let (_, page) = gateway.ops_page("/metrics").await;
        (value(&page, "tollway_in_flight_requests") == 0.0).then_some(page)
    })
    .await;
    let expected = [
        ("tollway_requests_total", vec!["dialect=\"messages\"", "model=\"gpt-6.1-sol\"", "status=\"200\""], 1.0),
        ("tollway_requests_total", vec!["dialect=\"chat\"", "status=\"200\""], 1.0),
        ("tollway_requests_total", vec!["status=\"401\""], 1.0),
        ("tollway_token_refreshes_total", vec!["outcome=\"ok\""], 1.0),
        ("tollway_upstream_attempts_total", vec!["outcome=\"ok\""], 2.0),
        ("tollway_accounts", vec!["state=\"active\""], 1.0),
        ("tollway_request_duration_seconds_count", vec!["dialect=\"messages\""], 1.0),
        ("tollway_time_to_first_byte_seconds_count", vec!["dialect=\"chat\""], 1.0),
    ];
    for (metric, labels, wanted) in expected {
        let found = sum(&page, metric, &labels);
        assert!((found - wanted).abs() < f64::EPSILON, "{metric} {labels:?} is {found}, not {wanted}:\n{page}");
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful of tokens")]
    let (input, output) = (input as f64, output as f64);
    assert!(sum(&page, "tollway_tokens_total", &["kind=\"input\""]) >= input);
    assert!(sum(&page, "tollway_tokens_total", &["kind=\"output\""]) >= output);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_log_line_a_request_says_what_happened() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let answer = gateway.send(&key, Dialect::Chat, &Dialect::Chat.ask("hello")).await;
    let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
    let lines: Vec<Value> = eventually("a log line", async || {
        let log = gateway.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours: Vec<Value> = lines.filter(|line| line["message"] == "request" && line["request_id"] == id).collect();
        (!ours.is_empty()).then_some(ours)
    })
    .await;
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(
        (line["status"].as_u64(), line["dialect"].as_str(), line["key"].as_str()),
        (Some(200), Some("chat"), Some("ada"))
    );
    assert!(line["duration_ms"].is_number() && line["input_tokens"].is_number(), "{line}");
}

/// A collector in front of a receiver: the address that takes OTLP over gRPC and the one over HTTP.
struct Collector {
    receiver: Program,
    _agent: Program,
    grpc: String,
    http: String,
}

impl Collector {
    async fn start(tools: &Tools, directory: &Setup) -> Option<Self> {
        let (python, program) = (tools.python()?, tools.find("rotel-agent")?);
        let mut command = Command::new(python);
        command.arg(Tools::script("otlp_receiver.py"));
        let receiver = Program::start(command, &directory.path("spans.jsonl"));
        let port: u16 =
            eventually("the receiver's port", async || receiver.output().lines().next()?.parse().ok()).await;
        let (grpc, http) = (free_port(), free_port());
        let mut command = Command::new(program);
        command.args(["start", "--otlp-grpc-endpoint", &grpc, "--otlp-http-endpoint", &http]);
        command.args(["--exporter", "otlp", "--otlp-exporter-protocol", "http"]);
        command.args(["--otlp-exporter-endpoint", &format!("http://127.0.0.1:{port}"), "--batch-timeout", "200ms"]);
        let agent = Program::start(command, &directory.path("collector.log"));
        eventually("the collector listens", async || std::net::TcpStream::connect(&grpc).ok()).await;
        Some(Self { receiver, _agent: agent, grpc: format!("http://{grpc}"), http: format!("http://{http}") })
    }

    /// The spans that have arrived.
    fn spans(&self) -> Vec<Value> {
        self.receiver.output().lines().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a span of the caller's trace.
    async fn span(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the span of {what}"), async || {
            self.spans().into_iter().find(|span| span["trace"] == TRACE && wanted(span))
        })
        .await
    }
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

async fn a_collector_receives_the_trace(protocol: &str, endpoint: fn(&Collector) -> &str) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim);
    let Some(collector) = Collector::start(&Tools::new(), &setup).await else { return skip("rotel") };
    let setup = setup.set("TOLLWAY_OTLP__ENDPOINT", endpoint(&collector)).set("TOLLWAY_OTLP__PROTOCOL", protocol);
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    // So that there are two calls of the backend, and a refresh between them.
    sim.post(&format!("accounts/{}/invalidate_access", account.id), json!({})).await;
    let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(&key);
    let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let answer = request.json(&Dialect::Responses.ask("hello")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);

    let server = collector.span("server", |span| span["name"] == "/v1/responses").await;
    assert_eq!((&server["parent"], &server["service"]), (&json!(PARENT), &json!("tollway")));
    let events = server["events"].to_string();
    assert!(events.contains("account choice") && events.contains("candidates") && events.contains("quota"), "{server}");
    let refresh = collector.span("refresh", |span| span["name"] == "token refresh").await;
    assert_eq!(refresh["parent"], server["id"]);
    for seen in sim.requests("/backend-api/codex/responses").await {
        let onward = seen["headers"]["traceparent"].as_str().unwrap_or_default().to_owned();
        let upstream = collector.span(&onward, |span| onward == format!("00-{TRACE}-{}-01", text(&span["id"]))).await;
        assert_eq!((&upstream["name"], &upstream["parent"]), (&json!("chat gpt-6.1-sol"), &server["id"]));
    }
    gateway.stop().await;
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_receives_the_trace_over_grpc() {
    a_collector_receives_the_trace("grpc", |collector| &collector.grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_receives_the_trace_over_http() {
    a_collector_receives_the_trace("http/protobuf", |collector| &collector.http).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_tell_what_they_know() {
    let sim = Sim::start().await;
    let (gateway, _) = Gateway::with_accounts(&sim, &[]).await;
    assert_eq!(gateway.ops_page("/healthz").await.0, 200);
    let (status, page) = gateway.ops_page("/readyz").await;
    let page: Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!((status.as_u16(), page["status"].as_str()), (200, Some("ready")));
    assert_eq!(page["accounts"]["active"], 0);
}
