//! What an operator sees: metrics, log lines, health.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Command;

use serde_json::{Value, json};
use tollway::telemetry::metrics::catalogue::{self, Kind};

use crate::support::{Dialect, Gateway, Setup, Sim, Tools, eventually, run, skip};

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

/// Bytes that a pipe holds on Linux: lines on top of them would have to wait for a reader.
const PIPE: usize = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn requests_do_not_wait_for_whoever_reads_the_log_and_no_line_is_lost() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.expired_account().await);
    let key = setup.key("ada");
    let path = setup.root().join("serve.log");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo can be run").success());
    // Open for both, so that opening it waits for nobody either.
    let log = File::options().read(true).write(true).open(&path).expect("a pipe");
    let gateway = setup.serve().await;
    // A request's line has more than 300 bytes.
    let requests = PIPE / 300;
    for _ in 0..requests {
        assert_eq!(gateway.status(&key).await, 200);
    }
    let found = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        lines.filter(|line| line.contains(r#""message":"request""#)).take(requests).count()
    });
    assert_eq!(found.await.expect("no panic"), requests);
}

/// The series of a page: the metric's name, its labels' names, and the line.
fn series(page: &str) -> Vec<(String, BTreeSet<String>, &str)> {
    let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parts = lines.map(|line| {
        let (name, labels) = match line.split_once('{') {
            Some((name, rest)) => (name, rest.rsplit_once("} ").expect("an end").0),
            None => (line.split_once(' ').expect("a value").0, ""),
        };
        let names = labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
        (name.to_owned(), names.collect(), line)
    });
    parts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_the_page_is_in_the_catalogue_with_its_labels() {
    let sim = Sim::with(&["--rate-limits"]).await;
    let account = sim.expired_account().await;
    let setup = Setup::new(&sim).set("TOLLWAY_METRICS__KEYS", "10");
    setup.import(&account);
    setup.ok(&["team", "create", "core", "--budget", "5M/day"]);
    setup.ok(&["user", "create", "ada", "--team", "core"]);
    let key = setup.key_with(&["--name", "laptop", "--user", "ada", "--expires", "1d"]);
    let gateway = setup.serve().await;
    for dialect in Dialect::ALL {
        gateway.streamed(&key, dialect, &dialect.ask_streamed("hello")).await;
    }
    let page = eventually("every metric of the catalogue", async || {
        let (_, page) = gateway.ops_page("/metrics").await;
        let there: BTreeSet<_> = series(&page).into_iter().map(|(name, ..)| name).collect();
        let is_there = |metric: &catalogue::Metric| match metric.kind {
            Kind::Histogram(_) => there.contains(&format!("{}_bucket", metric.name)),
            _ => there.contains(metric.name),
        };
        let missing: Vec<_> = catalogue::all().filter(|metric| !is_there(metric)).map(|metric| metric.name).collect();
        if !missing.is_empty() {
            eprintln!("not there yet: {missing:?}");
        }
        missing.is_empty().then_some(page)
    })
    .await;
    for (name, mut labels, line) in series(&page) {
        let found = catalogue::all().find(|metric| {
            let rest = name.strip_prefix(metric.name);
            matches!((metric.kind, rest), (_, Some("")) | (Kind::Histogram(_), Some("_bucket" | "_sum" | "_count")))
        });
        let metric = found.unwrap_or_else(|| panic!("not in the catalogue: {line}"));
        if name.ends_with("_bucket") {
            assert!(labels.remove("le"), "{line}");
        }
        let wanted: BTreeSet<_> = metric.labels.iter().map(|label| label.name.to_owned()).collect();
        assert_eq!(labels, wanted, "{line}");
    }
    for wanted in ["team=\"core\",user=\"ada\",key=\"laptop\"", "tollway_keys_expiring{kind=\"gateway\"} 1"] {
        assert!(page.contains(wanted), "{wanted} is not in\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_series_is_bounded_whatever_clients_send() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim).set("TOLLWAY_METRICS__KEYS", "10");
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    gateway.whole(&key, Dialect::Chat, &Dialect::Chat.ask("hello")).await;
    let odd = async |number: u32| {
        let client = &gateway.http;
        let (url, ops) = (&gateway.url, &gateway.ops);
        let mut model = Dialect::ALL[number as usize % 3].ask("hello");
        model["model"] = json!(format!("model\"\n{number}"));
        let path = Dialect::ALL[number as usize % 3].path();
        let requests = [
            client.post(format!("{url}{path}")).bearer_auth(&key).json(&model),
            client.post(format!("{url}{path}")).bearer_auth(format!("tw-odd{number}")).json(&json!({})),
            client.get(format!("{url}/v1/odd{number}/{number}?odd={number}")).bearer_auth(&key),
            client.get(format!("{ops}/odd{number}")).header("x-odd", number.to_string()),
        ];
        for request in requests {
            let answer = request.send().await.expect("an answer");
            assert!(answer.status().is_client_error(), "{}", answer.status());
        }
    };
    let after = async |numbers: std::ops::Range<u32>| {
        futures_util::future::join_all(numbers.map(&odd)).await;
        series(&gateway.ops_page("/metrics").await.1).len()
    };
    let first = after(0..100).await;
    for begin in (100..2500).step_by(100) {
        after(begin..begin + 100).await;
    }
    let last = after(2500..2510).await;
    assert!(last <= first + 40, "{first} series after 400 odd requests, {last} after 10,000");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_file_descriptors_that_may_be_had_are_taken() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let sim = Sim::start().await;
    // As it is in many a container: programs inherit it.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum }).expect("a lower limit is allowed");
    let gateway = Setup::new(&sim).serve().await;
    let (_, page) = gateway.ops_page("/metrics").await;
    let most = format!("\nprocess_max_fds {}\n", maximum.expect("a limit"));
    assert!(page.contains(&most), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_level_is_changed_while_it_runs() {
    const BOOTSTRAP: &str = "an-admin-key-that-is-long-enough";
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim).set("TOLLWAY_ADMIN__KEY", BOOTSTRAP);
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    let call = async |method: reqwest::Method, path: &str, body: Value| {
        let request = gateway.http.request(method, format!("{}/admin/v1{path}", gateway.admin)).bearer_auth(BOOTSTRAP);
        let request = if body.is_null() { request } else { request.json(&body) };
        crate::support::json_of(request.send().await.expect("an answer")).await
    };
    let (get, patch) = (reqwest::Method::GET, reqwest::Method::PATCH);
    let lines =
        |level: &str| gateway.log().lines().filter(|line| line.contains(&format!("\"level\":\"{level}\""))).count();
    assert_eq!(lines("DEBUG"), 0);
    let (status, now) = call(patch.clone(), "/log-level", json!({"level": "info,tollway=debug"})).await;
    assert_eq!((status.as_u16(), &now), (200, &json!({"level": "info,tollway=debug", "configured": "info"})));
    assert_eq!(gateway.status(&key).await, 200);
    eventually("lines at debug", async || (lines("DEBUG") > 0).then_some(())).await;
    let (_, settings) = call(get.clone(), "/settings", Value::Null).await;
    let shown = settings.as_array().expect("a list").iter().find(|one| one["key"] == "log.level").expect("there");
    assert_eq!((&shown["value"], &shown["origin"]), (&json!("info,tollway=debug"), &json!("admin API, until the end")));
    for wrong in ["tollway=loud", ""] {
        let (status, problem) = call(patch.clone(), "/log-level", json!({"level": wrong})).await;
        assert_eq!(status.as_u16(), 422, "{problem}");
    }
    let (_, audit) = call(get.clone(), "/audit?action=log_level.update", Value::Null).await;
    let row = &audit["data"][0];
    assert_eq!((&row["before"], &row["after"]), (&json!("info"), &json!("info,tollway=debug")), "{audit}");
    let (_, now) = call(patch.clone(), "/log-level", json!({"level": "warn"})).await;
    assert_eq!(now["level"], "warn");
    // Lines come in their order, and a moment after what they tell of.
    let told = async |what: &str| eventually(what, async || gateway.log().contains(what).then(|| gateway.log())).await;
    let before = told("\"path\":\"/audit\"").await.len();
    assert_eq!(gateway.status(&key).await, 200);
    call(patch, "/log-level", json!({"level": "info"})).await;
    let log = told("\"now\":\"info\"").await;
    assert!(!log[before..].contains("\"message\":\"request\""), "nothing is said at warn:\n{log}");
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
