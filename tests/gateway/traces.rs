//! Traces, as a real collector receives them, and what becomes of requests when there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::collector::{Collector, free_port};
use crate::support::{Dialect, Gateway, Setup, Sim, SimAccount, Tools, eventually, eventually_within, skip};

/// The caller's own trace.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn a_collector_receives_the_trace(protocol: &str, endpoint: fn(&Collector) -> &str) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim);
    let Some(collector) = Collector::start(&Tools::new(), &setup).await else { return skip("rotel") };
    let setup = setup.set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(&collector)).set("TOLLWAY_OTLP__PROTOCOL", protocol);
    let setup = setup.set("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    let setup = setup.set("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging");
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    // So that there are two calls of the backend, and a refresh between them.
    sim.post(&format!("accounts/{}/invalidate_access", account.id), json!({})).await;
    let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(&key);
    let request =
        request.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).header("tracestate", "vendor=secret");
    let answer = request.json(&Dialect::Responses.ask_streamed("hello")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.text().await.expect("the whole stream");

    let ours = |span: &Value| span["trace"] == TRACE;
    let server = collector.span("server", |span| ours(span) && span["name"] == "/v1/responses").await;
    assert_eq!((&server["parent"], &server["service"]), (&json!(PARENT), &json!("tollway")));
    assert_eq!(server["resource"]["deployment.environment.name"], "staging");
    let events = server["events"].to_string();
    assert!(events.contains("account choice") && events.contains("candidates") && events.contains("quota"), "{server}");
    assert!(events.contains("first byte"), "{server}");
    assert!(events.contains("the backend call failed") && events.contains("unauthorized"), "{server}");
    let attributes = &server["attributes"];
    assert_eq!((&attributes["tollway.key"], &attributes["tollway.attempts"]), (&json!("ada"), &json!(2)), "{server}");
    let refresh = collector.span("refresh", |span| ours(span) && span["name"] == "token refresh").await;
    assert_eq!(refresh["parent"], server["id"]);
    for (number, seen) in (1..).zip(sim.requests("/backend-api/codex/responses").await) {
        let onward = seen["headers"]["traceparent"].as_str().unwrap_or_default().to_owned();
        let upstream = collector
            .span(&onward, |span| ours(span) && onward == format!("00-{TRACE}-{}-01", text(&span["id"])))
            .await;
        assert_eq!((&upstream["name"], &upstream["parent"]), (&json!("chat gpt-6.1-sol"), &server["id"]));
        assert_eq!(upstream["attributes"]["tollway.attempt"], number);
        // What the client wrote for its own tracing is nobody else's business.
        assert_eq!(seen["headers"]["tracestate"], Value::Null);
        if number == 1 {
            assert_eq!(upstream["attributes"]["error.type"], "unauthorized");
            continue;
        }
        let attributes = &upstream["attributes"];
        assert!(upstream["events"].to_string().contains("first output"), "{upstream}");
        assert_eq!(attributes["gen_ai.response.finish_reasons"], json!(["stop"]), "{upstream}");
        let same = ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"];
        assert!(same.iter().all(|name| attributes[name].is_i64() && attributes[name] == server["attributes"][name]));
        assert!(attributes["gen_ai.response.time_to_first_chunk"].is_f64(), "{upstream}");
        assert!(text(&attributes["gen_ai.response.id"]).starts_with("resp_"), "{upstream}");
        assert_eq!(attributes["gen_ai.provider.name"], "openai");
        // It lasts as long as the stream, not only until its beginning.
        let end = |span: &Value| span["end"].as_u64().expect("nanoseconds");
        let first = upstream["events"].as_array().expect("events").iter().find(|one| one["name"] == "first output");
        assert!(end(&upstream) > first.expect("there")["at"].as_u64().expect("nanoseconds"), "{upstream}");
        assert!(end(&upstream) <= end(&server), "the call ends before the request does");
    }
    let line = log_line(&gateway, "request").await;
    assert_eq!((text(&line["trace_id"]), &line["span_id"]), (TRACE, &server["id"]));
    gateway.stop().await;
}

async fn log_line(gateway: &Gateway, message: &str) -> Value {
    eventually(message, async || {
        let log = gateway.log();
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| line["message"] == message)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_receives_the_trace_over_grpc() {
    a_collector_receives_the_trace("grpc", |collector| &collector.grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_receives_the_trace_over_http() {
    a_collector_receives_the_trace("http/protobuf", |collector| &collector.http).await;
}

/// A gateway with one account that sends traces there, and a key.
async fn traced(account: &SimAccount, setup: Setup, variables: &[(&str, &str)]) -> (Gateway, String) {
    setup.import(account);
    let key = setup.key("ada");
    let setup = variables.iter().fold(setup, |setup, (name, value)| setup.set(name, value));
    (setup.serve().await, key)
}

/// Sends so many requests, so many a second, a third of them streamed; gives how long each took.
async fn load(gateway: &Gateway, key: &str, requests: u32, a_second: u32) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / a_second);
    let mut running = tokio::task::JoinSet::new();
    for number in 0..requests {
        ticks.tick().await;
        let dialect = Dialect::ALL[number as usize % Dialect::ALL.len()];
        let body = if number % 3 == 0 { dialect.ask_streamed("hello") } else { dialect.ask("hello") };
        let request = gateway.http.post(format!("{}{}", gateway.url, dialect.path())).bearer_auth(key).json(&body);
        running.spawn(async move {
            let start = Instant::now();
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
            answer.text().await.expect("a whole answer");
            start.elapsed()
        });
    }
    running.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_whole_under_a_hundred_requests_a_second() {
    const REQUESTS: u32 = 600;
    const TRACES: usize = 600;
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    for (protocol, grpc) in [("grpc", true), ("http/protobuf", false)] {
        let setup = Setup::new(&sim);
        let Some(collector) = Collector::start(&Tools::new(), &setup).await else { return skip("rotel") };
        let endpoint = if grpc { &collector.grpc } else { &collector.http };
        let variables = [("TOLLWAY_OTLP__ENDPOINT", endpoint.as_str()), ("TOLLWAY_OTLP__PROTOCOL", protocol)];
        let (gateway, key) = traced(&account, setup, &variables).await;
        load(&gateway, &key, REQUESTS, 100).await;
        gateway.stop().await;
        // A request has a span, and its call of the backend another.
        let traces = eventually_within(Duration::from_mins(1), "all spans", async || {
            let mut traces: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for span in collector.spans() {
                traces.entry(text(&span["trace"]).to_owned()).or_default().push(span);
            }
            let whole = traces.values().filter(|spans| spans.len() >= 2).count();
            (whole >= TRACES).then_some(traces)
        })
        .await;
        for spans in traces.values() {
            let ids: BTreeSet<_> = spans.iter().map(|span| text(&span["id"])).collect();
            let roots = spans.iter().filter(|span| text(&span["parent"]).is_empty()).count();
            let is_whole = spans.iter().all(|span| {
                let parent = text(&span["parent"]);
                parent.is_empty() || ids.contains(parent)
            });
            assert!(roots == 1 && is_whole && ids.len() == spans.len(), "{protocol}: a broken trace: {spans:?}");
        }
    }
}

/// Counters or gauges of one page.
async fn told<const N: usize>(gateway: &Gateway, series: [&str; N]) -> [f64; N] {
    let (_, page) = gateway.ops_page("/metrics").await;
    series.map(|series| {
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{page}"))
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_gone_costs_requests_nothing_and_nothing_grows() {
    const QUEUE: f64 = 64.0;
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    // One that takes connections and never answers is worse than one that refuses them.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mute_address = format!("http://{}", mute.local_addr().expect("its address"));
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = mute.accept().await {
            held.push(connection);
        }
    });
    let gone = format!("http://{}", free_port());
    let (plain, key) = traced(&account, Setup::new(&sim), &[]).await;
    let untraced = median(load(&plain, &key, 200, 50).await);
    plain.stop().await;
    for (endpoint, protocol) in [(&gone, "grpc"), (&mute_address, "grpc"), (&mute_address, "http/protobuf")] {
        let account = sim.account(json!({})).await;
        let variables = [
            ("TOLLWAY_OTLP__ENDPOINT", endpoint.as_str()),
            ("TOLLWAY_OTLP__PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ];
        let (gateway, key) = traced(&account, Setup::new(&sim), &variables).await;
        load(&gateway, &key, 200, 50).await;
        let [before] = told(&gateway, ["process_resident_memory_bytes"]).await;
        let time = median(load(&gateway, &key, 400, 50).await);
        // Timings are for people: a loaded machine says nothing.
        eprintln!("{protocol} to {endpoint}: {time:?} a request, {untraced:?} without traces");
        let [failed, dropped, now] = eventually("spans that were given up", async || {
            let outcome = ["failed", "dropped"].map(|one| format!("tollway_trace_spans_total{{outcome=\"{one}\"}}"));
            let told = told(&gateway, [&outcome[0], &outcome[1], "process_resident_memory_bytes"]).await;
            (told[0] > 0.0).then_some(told)
        })
        .await;
        // A request has two spans; what is being sent is in the queue no more.
        let waiting = 2.0 * 600.0 - failed - dropped;
        assert!(waiting <= 2.0 * QUEUE, "{protocol}: {failed} failed, {dropped} dropped, {waiting} wait");
        // Requests themselves need some, the more of them the slower this machine is.
        assert!(now - before < 64e6, "{protocol}: {before} bytes became {now}");
        let log = gateway.log();
        let said = log.lines().filter(|line| line.contains("the collector does not take spans")).count();
        assert!((1..=2).contains(&said), "{protocol}: said {said} times:\n{log}");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_for_traces_is_used_as_it_is() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (asked, mut paths) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let key = request.headers().get("x-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        let _ = asked.send((request.uri().path().to_owned(), key));
        async { "" }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let base = format!("http://{address}/otel");
    let exact = format!("http://{address}/ingest/here");
    for (variables, path) in [
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str())], "/otel/v1/traces"),
        (
            vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str()),
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", exact.as_str()),
            ],
            "/ingest/here",
        ),
    ] {
        let account = if path == "/ingest/here" { sim.account(json!({})).await } else { account.clone() };
        let mut variables = variables;
        variables.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"));
        variables.push(("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc"));
        let (gateway, key) = traced(&account, Setup::new(&sim), &variables).await;
        assert_eq!(gateway.status(&key).await, 200);
        gateway.stop().await;
        let first = paths.recv().await.expect("a request of the exporter");
        assert_eq!(first, (path.to_owned(), Some("abc".to_owned())));
        while paths.try_recv().is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_kept_although_it_was_not_sampled() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim);
    let Some(collector) = Collector::start(&Tools::new(), &setup).await else { return skip("rotel") };
    let variables = [
        ("TOLLWAY_OTLP__ENDPOINT", collector.grpc.as_str()),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("TOLLWAY_BACKEND__MAX_ATTEMPTS", "1"),
    ];
    let (gateway, key) = traced(&account, setup, &variables).await;
    let ask = async |trace: &str, flags: &str| {
        let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(&key);
        let request = request.header("traceparent", format!("00-{trace}-{PARENT}-{flags}"));
        request.json(&Dialect::Responses.ask("hello")).send().await.expect("an answer").status().as_u16()
    };
    // The caller says no; the caller says yes; nobody asks, and it fails.
    assert_eq!(ask("11111111111111111111111111111111", "00").await, 200);
    assert_eq!(ask("22222222222222222222222222222222", "01").await, 200);
    sim.fault(json!({"kind": "server_error", "times": 1})).await;
    assert!(ask("33333333333333333333333333333333", "00").await >= 500);
    gateway.stop().await;
    for trace in ["22222222222222222222222222222222", "33333333333333333333333333333333"] {
        let server = collector.span(trace, |span| span["trace"] == trace && span["name"] == "/v1/responses").await;
        let call = |span: &Value| span["trace"] == trace && span["parent"] == server["id"];
        assert_eq!(collector.span("the call", call).await["name"], "chat gpt-6.1-sol");
    }
    let spans = collector.spans();
    assert!(!spans.iter().any(|span| span["trace"] == "11111111111111111111111111111111"), "{spans:?}");
}
