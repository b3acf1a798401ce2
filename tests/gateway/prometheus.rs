//! The dashboard and the alerts that are shipped, in a real Prometheus that scrapes three replicas, with
//! a real Alertmanager behind it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tollway::telemetry::metrics::catalogue;

use crate::collector::{Collector, free_port};
use crate::support::{Dialect, Gateway, Program, Setup, Sim, Tools, eventually, eventually_within, run, skip};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn rules() -> String {
    std::fs::read_to_string(repository("helm/tollway/rules/tollway.yml")).expect("the rules")
}

/// The alerts' names with their expressions.
fn alerts() -> Vec<(String, String)> {
    let mut alerts: Vec<(String, String)> = Vec::new();
    let mut is_expression = false;
    for line in rules().lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push((name.to_owned(), String::new()));
        } else if let (Some(expression), Some(alert)) = (line.strip_prefix("expr: "), alerts.last_mut()) {
            is_expression = true;
            expression.trim_start_matches('|').clone_into(&mut alert.1);
        } else if line.starts_with("for: ") || line.starts_with("labels: ") {
            is_expression = false;
        } else if let (true, Some(alert)) = (is_expression, alerts.last_mut()) {
            alert.1 += " ";
            alert.1 += line;
        }
    }
    alerts
}

/// The panels' titles with their queries.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository("helm/tollway/dashboards/tollway.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut queries = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            // Whoever imports it chooses where its data come from.
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{panel}");
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    assert!(queries.len() > 40);
    queries
}

/// What an expression selects: the names before a brace, and those of the metrics that stand alone.
fn metrics_in(expression: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c: char| !is_name(c));
    let ours = |word: &&str| ["tollway_", "gen_ai_client", "process_"].iter().any(|start| word.starts_with(start));
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn what_is_shown_and_watched_is_measured() {
    for (place, expression) in queries().into_iter().chain(alerts()) {
        for name in metrics_in(&expression) {
            let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_known = catalogue::all().any(|metric| metric.name == name || Some(metric.name) == bare);
            assert!(is_known, "{place}: {name} is in no catalogue");
        }
    }
}

#[test]
fn every_alert_has_its_runbook_and_a_test_that_it_fires_and_one_that_it_does_not() {
    let (rules, runbooks) = (rules(), std::fs::read_to_string(repository("docs/runbooks.md")).expect("the runbooks"));
    let tests = std::fs::read_to_string(repository("tests/gateway/prometheus/rules_test.yml")).expect("their tests");
    assert!(alerts().len() >= 14);
    for (name, _) in alerts() {
        assert!(rules.contains(&format!("runbook_url: docs/runbooks.md#{}\n", name.to_lowercase())), "{name}");
        assert!(runbooks.contains(&format!("\n## {name}\n")), "{name} has no runbook");
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name} is not seen to fire");
        let silent = tests.lines().any(|l| l.contains(&format!("alertname: {name},")) && l.contains("exp_alerts: []"));
        assert!(silent, "{name} is not seen to keep still");
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let Some(promtool) = Tools::new().find("promtool") else { return skip("promtool") };
    for arguments in [
        ["check", "rules", "helm/tollway/rules/tollway.yml"],
        ["test", "rules", "tests/gateway/prometheus/rules_test.yml"],
    ] {
        let mut command = Command::new(&promtool);
        command.current_dir(repository("")).args(arguments);
        let output = run(command, "");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

/// What Alertmanager tells its receiver.
#[derive(Clone, Default)]
struct Pager(Arc<Mutex<Vec<Value>>>);

impl Pager {
    async fn start() -> (Self, String) {
        let pager = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/page", listener.local_addr().expect("its address"));
        let here = pager.clone();
        let take = move |axum::Json(page): axum::Json<Value>| async move {
            here.0.lock().expect("a list").extend(page["alerts"].as_array().cloned().unwrap_or_default());
        };
        let router = axum::Router::new().route("/page", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (pager, url)
    }

    /// The labels of every alert that it was told of.
    fn paged(&self) -> Vec<Value> {
        self.0.lock().expect("a list").iter().map(|alert| alert["labels"].clone()).collect()
    }
}

/// A Prometheus that scrapes these replicas, and an Alertmanager that pages.
struct Watch {
    _alertmanager: Program,
    _prometheus: Program,
    url: String,
    http: reqwest::Client,
}

impl Watch {
    async fn start(tools: &Tools, setup: &Setup, replicas: &[Gateway], pager: &str) -> Option<Self> {
        let (prometheus, alertmanager) = (tools.find("prometheus")?, tools.find("prometheus-alertmanager")?);
        // Debian's Alertmanager starts with these and not without.
        Path::new("/usr/share/prometheus/alertmanager/default.tmpl").exists().then_some(())?;
        let (web, alerts) = (free_port(), free_port());
        let write = |name: &str, text: String| {
            std::fs::write(setup.path(name), text).expect("a file");
            setup.path(name).display().to_string()
        };
        let config = write(
            "alertmanager.yml",
            format!(
                "route: {{receiver: pager, group_by: ['...'], group_wait: 0s, group_interval: 1s}}\n\
                 receivers: [{{name: pager, webhook_configs: [{{url: '{pager}'}}]}}]\n"
            ),
        );
        let mut command = Command::new(alertmanager);
        command.arg(format!("--config.file={config}"));
        command.arg(format!("--storage.path={}", setup.path("alertmanager").display()));
        command.args([&format!("--web.listen-address={alerts}"), "--cluster.listen-address="]);
        let alertmanager = Program::start(command, &setup.path("alertmanager.log"));
        // Nobody waits ten minutes for a test. How long the gateway's own work takes is this machine's
        // matter: that alert keeps its time.
        let rules = rules();
        let quick = rules.split("- alert: ").map(|alert| match alert.split_once("        for: ") {
            Some((before, after)) if !alert.starts_with("TollwayOverheadHigh") => {
                let rest = after.split_once('\n').expect("more lines").1;
                format!("{before}        for: 1s\n{rest}")
            }
            _ => alert.to_owned(),
        });
        let rules = write("rules.yml", quick.collect::<Vec<_>>().join("- alert: "));
        let targets: Vec<_> = replicas.iter().map(|one| one.ops.trim_start_matches("http://").to_owned()).collect();
        let config = write(
            "prometheus.yml",
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{rules}']\n\
                 alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alerts}']}}]}}]}}\n\
                 scrape_configs: [{{job_name: tollway, static_configs: [{{targets: {}}}]}}]\n",
                json!(targets)
            ),
        );
        let mut command = Command::new(prometheus);
        command.args([&format!("--config.file={config}"), &format!("--web.listen-address={web}")]);
        command.arg(format!("--storage.tsdb.path={}", setup.path("prometheus").display()));
        command.arg("--enable-feature=exemplar-storage");
        let prometheus = Program::start(command, &setup.path("prometheus.log"));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let watch =
            Self { _alertmanager: alertmanager, _prometheus: prometheus, url: format!("http://{web}/api/v1"), http };
        eventually("three replicas that are scraped", async || {
            let up = watch.ask("query", &[("query", "sum(up)")]).await?;
            (up["result"][0]["value"][1] == "3").then_some(())
        })
        .await;
        Some(watch)
    }

    /// The data of an answer; `None` while it does not answer. What it does not understand is a failure.
    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let address = url::Url::parse_with_params(&format!("{}/{path}", self.url), query).expect("an address");
        let answer = self.http.get(address).send().await.ok()?;
        let answer: Value = answer.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// Whether an expression has data.
    async fn knows(&self, expression: &str) -> bool {
        let data = self.ask("query", &[("query", expression)]).await;
        data.is_some_and(|data| data["result"].as_array().is_some_and(|result| !result.is_empty()))
    }

    /// The names of alerts that fire.
    async fn firing(&self) -> BTreeSet<String> {
        let data = self.ask("alerts", &[]).await.expect("Prometheus answers");
        let alerts = data["alerts"].as_array().expect("a list").iter().filter(|alert| alert["state"] == "firing");
        alerts.map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned()).collect()
    }
}

/// What an alert looks at, without what it compares that with: a quiet one has no data of its own.
fn without_comparisons(expression: &str) -> String {
    let mut kept = Vec::new();
    let mut is_number = false;
    for word in expression.split_whitespace() {
        if ["==", ">", "<"].contains(&word) {
            is_number = true;
        } else if is_number && (word == "*" || word.parse::<f64>().is_ok()) {
            // Part of the number.
        } else {
            is_number = false;
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// One of the replicas, with a team whose key asks, and with two accounts.
async fn replica(sim: &Sim, collector: &Collector) -> (Gateway, String, Vec<String>) {
    let setup = Setup::new(sim)
        .set("TOLLWAY_METRICS__KEYS", "10")
        .set("TOLLWAY_OTLP__ENDPOINT", &collector.grpc)
        .set("TOLLWAY_POOL__QUEUE", "4")
        .set("TOLLWAY_POOL__STRATEGY", "round_robin");
    let mut accounts = Vec::new();
    for _ in 0..2 {
        let account = sim.account(json!({"used_percent": 10, "secondary_used_percent": 5})).await;
        setup.import(&account);
        accounts.push(account.id);
    }
    setup.ok(&["team", "create", "core", "--budget", "500M/day"]);
    let key = setup.key_with(&["--name", "laptop", "--team", "core"]);
    let narrow = setup.key_with(&["--name", "narrow", "--models", "gpt-none"]);
    let gateway = setup.serve().await;
    assert_eq!(gateway.status(&narrow).await, 403);
    (gateway, key, accounts)
}

/// Asks all replicas again and again, in every dialect.
async fn ask_on(replicas: Arc<Vec<(Gateway, String)>>) {
    for number in 0.. {
        for (gateway, key) in replicas.iter() {
            let dialect = Dialect::ALL[number % Dialect::ALL.len()];
            // Each a conversation of its own, so that all accounts serve.
            let words = format!("hello {number}");
            let body = if number % 2 == 0 { dialect.ask_streamed(&words) } else { dialect.ask(&words) };
            let answer = gateway.send(key, dialect, &body).await;
            let _ = answer.text().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_alert_has_data_and_a_dead_login_pages_and_nothing_else_does() {
    let tools = Tools::new();
    let sim = Sim::with(&["--rate-limits"]).await;
    // Windows that this load does not empty.
    sim.post("settings", json!({"percent_per_response": 0.0005, "rate_limits": true})).await;
    let setup = Setup::new(&sim);
    let Some(collector) = Collector::start(&tools, &setup).await else { return skip("rotel") };
    let (mut gateways, mut replicas, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let (gateway, key, of_it) = replica(&sim, &collector).await;
        gateways.push(gateway);
        replicas.push(key);
        accounts.push(of_it);
    }
    let (pager, address) = Pager::start().await;
    let Some(watch) = Watch::start(&tools, &setup, &gateways, &address).await else { return skip("prometheus") };
    let replicas = Arc::new(gateways.into_iter().zip(replicas).collect::<Vec<_>>());
    let asking = tokio::spawn(ask_on(replicas.clone()));
    // Something fails, and is answered by the other account.
    sim.fault(json!({"kind": "server_error", "times": 1})).await;

    let shown = queries()
        .into_iter()
        .map(|(title, query)| (title, query.replace("$__rate_interval", "30s").replace("$job", ".*")));
    let watched = alerts().into_iter().map(|(name, expression)| (name, without_comparisons(&expression)));
    let mut asked: Vec<_> = shown.chain(watched).collect();
    eventually_within(Duration::from_secs(90), "data for everything", async || {
        let mut empty = Vec::new();
        for (place, query) in std::mem::take(&mut asked) {
            if !watch.knows(&query).await {
                empty.push((place, query));
            }
        }
        asked = empty;
        if !asked.is_empty() {
            eprintln!("no data yet: {asked:#?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        asked.is_empty().then_some(())
    })
    .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let range = [("start", (now - 600).to_string()), ("end", (now + 60).to_string())];
    let range = range.each_ref().map(|(name, value)| (*name, value.as_str()));
    let query = [&[("query", "tollway_request_duration_seconds_bucket")][..], &range].concat();
    let exemplars = watch.ask("query_exemplars", &query).await.expect("exemplars");
    let trace = exemplars[0]["exemplars"][0]["labels"]["trace_id"].as_str().expect("a trace").to_owned();
    eventually("the trace of an exemplar", async || collector.spans().into_iter().find(|span| span["trace"] == trace))
        .await;
    assert_eq!(watch.firing().await, BTreeSet::new(), "before anything has happened");

    let (victim, others) = accounts[0].split_first().expect("two accounts");
    assert_eq!(others.len(), 1);
    sim.post(&format!("accounts/{victim}/revoke"), json!({})).await;
    eventually("a gauge that says so", async || {
        let (_, metrics) = replicas[0].0.ops_page("/metrics").await;
        metrics.lines().any(|line| line.starts_with("tollway_account_up{") && line.ends_with(" 0")).then_some(())
    })
    .await;
    eventually("an alert that fires", async || (!watch.firing().await.is_empty()).then_some(())).await;
    let first = eventually("a page", async || {
        let labels = pager.paged();
        (!labels.is_empty()).then_some(labels)
    })
    .await;
    assert_eq!(first[0]["alertname"], "TollwayAccountNeedsLogin", "{first:?}");
    // Whatever else would fire on this has had its time.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let names: BTreeSet<_> = pager.paged().iter().map(|labels| labels["alertname"].to_string()).collect();
    assert_eq!(names, BTreeSet::from(["\"TollwayAccountNeedsLogin\"".to_owned()]));
    assert_eq!(watch.firing().await, BTreeSet::from(["TollwayAccountNeedsLogin".to_owned()]));
    asking.abort();
}
