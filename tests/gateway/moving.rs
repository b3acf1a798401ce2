//! `tollway migrate --from … --to …`: an installation moves to another database while it is served,
//! over a kill, and is found there whole; what differs is named.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::support::{Dialect, Gateway, Setup, Sim, eventually, eventually_within, json_of, run};

#[allow(dead_code, reason = "tests of several gateways need more of it")]
#[path = "../support/postgres.rs"]
mod postgres;

const DAY: i64 = 86_400_000;
/// How long ago the past began.
const AGO: i64 = 6 * DAY;

/// Requests of the past: so many that their move takes a while.
const PAST: i64 = 6_000;

const COUNT: &str = "SELECT COUNT(*) FROM usage_requests";

async fn call(gateway: &Gateway, key: &str, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let mut request = gateway.http.request(method, format!("{}{path}", gateway.url)).bearer_auth(key);
    request = request.header("anthropic-version", "2023-06-01");
    if let Some(body) = body {
        request = request.json(body);
    }
    json_of(request.send().await.expect("the gateway answers")).await
}

fn id(thing: &Value) -> String {
    thing["id"].as_str().unwrap_or_else(|| panic!("no id: {thing}")).to_owned()
}

fn url_of(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

fn moved(setup: &Setup, from: &str, to: &str, more: &[&str]) -> Output {
    let arguments = [&["migrate", "--from", from, "--to", to], more].concat();
    run(setup.command(&arguments), "")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Every table is found equal.
fn is_equal(output: &Output) {
    let (table, said) = texts(output);
    assert!(output.status.success() && table.contains(" equal") && !table.contains("DIFFERENT"), "{table}{said}");
}

async fn write(path: &Path, sql: String) {
    let mut connection = SqliteConnection::connect(&url_of(path)).await.expect("the database opens");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a statement");
    connection.close().await.expect("a connection that closes");
}

/// Requests from some days ago until yesterday, with their sums.
async fn write_past(path: &Path, requests: i64) {
    let since = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis()).expect("a time") - AGO;
    let step = (AGO - DAY) / requests;
    write(
        path,
        format!(
            "BEGIN;
             INSERT INTO usage_requests
             WITH RECURSIVE s (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {requests} - 1)
             SELECT 'req_past' || printf('%08d', n), {since} + n * {step}, '', '', 'k' || (n % 7), 'a', 'chat',
                '/v1/chat/completions', 'm', 'm', NULL, NULL, 200, 'ok', NULL, 10, 1, 0, 5, 0, 0, 3, 1, 7, 9 FROM s;
             INSERT INTO usage_attempts
             SELECT id, 1, 'a', at, 9, 'ok', NULL, 'resp_' || id, 10, 1, 5 FROM usage_requests WHERE id LIKE 'req_past%';
             INSERT INTO usage_hourly
             SELECT at / 3600000, '', '', key_id, 'a', 'm', 'chat', COUNT(*), 0, SUM(input), SUM(cached), 0, SUM(output),
                0, 0, SUM(cost) FROM usage_requests WHERE id LIKE 'req_past%' GROUP BY 1, key_id;
             INSERT INTO usage_daily
             SELECT hour / 24, '', '', key_id, 'a', 'm', 'chat', SUM(requests), 0, SUM(input), SUM(cached), 0,
                SUM(output), 0, 0, SUM(cost) FROM usage_hourly WHERE key_id LIKE 'k_' GROUP BY 1, key_id;
             COMMIT;"
        ),
    )
    .await;
}

/// What people keep with the gateway, and find again.
struct Things {
    response: String,
    conversation: String,
    batch: String,
}

impl Things {
    async fn make(gateway: &Gateway, key: &str) -> Self {
        let body = json!({"model": "gpt-6.1-sol", "input": "remember me"});
        let response = id(&gateway.whole(key, Dialect::Responses, &body).await);
        let item = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "kept"}]});
        let begin = json!({"items": [item]});
        let (_, conversation) = call(gateway, key, Method::POST, "/v1/conversations", Some(&begin)).await;
        let params =
            json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]});
        let batch = json!({"requests": [{"custom_id": "one", "params": params}]});
        let (_, batch) = call(gateway, key, Method::POST, "/v1/messages/batches", Some(&batch)).await;
        let things = Self { response, conversation: id(&conversation), batch: id(&batch) };
        eventually_within(Duration::from_secs(30), "the end of the batch", async || {
            let (_, batch) = call(gateway, key, Method::GET, &things.paths()[3], None).await;
            (batch["processing_status"] == "ended").then_some(())
        })
        .await;
        things
    }

    fn paths(&self) -> [String; 4] {
        [
            format!("/v1/responses/{}", self.response),
            format!("/v1/conversations/{}", self.conversation),
            format!("/v1/conversations/{}/items", self.conversation),
            format!("/v1/messages/batches/{}", self.batch),
        ]
    }

    /// All of it, without the gateway's own address.
    async fn look(&self, gateway: &Gateway, key: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for path in self.paths() {
            let (status, found) = call(gateway, key, Method::GET, &path, None).await;
            assert_eq!(status, StatusCode::OK, "{path}: {found}");
            seen.push(found.to_string().replace(&gateway.url, ""));
        }
        let results = gateway.get(key, &format!("/v1/messages/batches/{}/results", self.batch), &[]).await;
        seen.push(results.text().await.expect("results"));
        seen
    }
}

fn usage(setup: &Setup) -> Value {
    let report = setup.ok(&["usage", "--since", "40d", "--by", "key", "--format", "json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    report["rows"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_moves_to_postgres_while_it_is_served() {
    let Some(server) = postgres::Postgres::start() else { return };
    let to = server.database().await;
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    let account = sim.account(json!({})).await;
    setup.import(&account);
    setup.import(&sim.account(json!({})).await);
    setup.ok(&["team", "create", "core"]);
    setup.ok(&["user", "create", "ada", "--team", "core"]);
    let ada = setup.key_with(&["--name", "ada", "--user", "ada"]);
    let eve = setup.key("eve");
    setup.ok(&["key", "revoke", "eve"]);
    let from = url_of(&setup.database());
    write_past(&setup.database(), PAST).await;

    let gateway = Arc::new(setup.serve().await);
    let things = Things::make(&gateway, &ada).await;
    let over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (gateway, over, ada) = (Arc::clone(&gateway), Arc::clone(&over), ada.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(gateway.status(&ada).await, 200);
            }
        }
    });

    // Killed when some of the requests are there.
    let mut copy = setup.command(&["migrate", "--from", &from, "--to", &to]).spawn().expect("tollway");
    let mut there = PgConnection::connect(&to).await.expect("Postgres");
    eventually("some requests", async || {
        let rows: Result<(i64,), _> = sqlx::query_as(COUNT).fetch_one(&mut there).await;
        rows.is_ok_and(|(rows,)| rows > 0).then_some(())
    })
    .await;
    assert!(copy.try_wait().expect("its state").is_none(), "the copy was over before it was killed");
    copy.kill().expect("killed");
    copy.wait().expect("its end");
    let (rows,): (i64,) = sqlx::query_as(COUNT).fetch_one(&mut there).await.expect("a number");
    assert!(rows < PAST, "killed half-way: {rows}");
    let new = setup.clone().set("TOLLWAY_DATABASE_URL", &to);
    assert!(new.fails(&["key", "list"], "").contains("a copy that is not finished"));

    is_equal(&moved(&setup, &from, &to, &[]));
    let refused = moved(&setup, &from, &to, &["--final"]);
    assert!(!refused.status.success() && texts(&refused).1.contains("stop the server"), "{refused:?}");

    over.store(true, Ordering::Relaxed);
    load.await.expect("nobody notices");
    let before = things.look(&gateway, &ada).await;
    let gateway = Arc::into_inner(gateway).expect("the load is over");
    gateway.stop().await;
    let used = usage(&setup);
    is_equal(&moved(&setup, &from, &to, &["--final"]));

    assert_eq!(usage(&new), used);
    let gateway = new.serve().await;
    assert_eq!(things.look(&gateway, &ada).await, before);
    assert_eq!((gateway.status(&ada).await, gateway.status(&eve).await), (200, 401));
    let next = json!({"model": "gpt-6.1-sol", "input": "and now?", "previous_response_id": things.response});
    gateway.whole(&ada, Dialect::Responses, &next).await;
    new.ok(&["account", "refresh", &account.email]);

    let again = moved(&setup, &from, &to, &[]);
    assert!(texts(&again).1.contains("the target is in use"), "nothing that is served is written over: {again:?}");
    gateway.stop().await;
    there.close().await.expect("closed");
    // And back.
    let back = setup.path("back.db");
    is_equal(&moved(&setup, &to, &url_of(&back), &["--final"]));
    assert_eq!(usage(&setup.clone().set("TOLLWAY_DATABASE_URL", &url_of(&back))), usage(&new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_tampered_with_is_found_and_the_copy_not_released() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({})).await);
    setup.key("ada");
    write_past(&setup.database(), 50).await;
    let (from, path) = (url_of(&setup.database()), setup.path("copy.db"));
    is_equal(&moved(&setup, &from, &url_of(&path), &[]));
    write(&path, "UPDATE usage_requests SET cost = cost + 1 WHERE id = 'req_past00000007'".to_owned()).await;

    let last = moved(&setup, &from, &url_of(&path), &["--final"]);
    let (table, said) = texts(&last);
    assert!(!last.status.success() && said.contains("not the same on both: usage_requests;"), "{said}");
    let different = table.lines().filter(|line| line.contains("DIFFERENT")).collect::<Vec<_>>();
    assert!(different.len() == 1 && different[0].starts_with("usage_requests "), "{table}");
    let new = setup.clone().set("TOLLWAY_DATABASE_URL", &url_of(&path));
    assert!(new.fails(&["usage"], "").contains("a copy that is not finished"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_between_two_copies_are_carried_over_and_strangers_are_not_written_over() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({})).await);
    setup.key("ada");
    setup.key("bob");
    write_past(&setup.database(), 50).await;
    let (from, to) = (url_of(&setup.database()), url_of(&setup.path("copy.db")));
    is_equal(&moved(&setup, &from, &to, &[]));

    // Rotated keys refer to each other; requests were forgotten, and others came.
    setup.ok(&["key", "rotate", "ada"]);
    setup.ok(&["key", "revoke", "bob"]);
    write(&setup.database(), "DELETE FROM usage_requests WHERE id < 'req_past00000020'".to_owned()).await;
    let other = Setup::new(&sim);
    other.key("eve");
    let stranger = moved(&other, &url_of(&other.database()), &to, &[]);
    assert!(texts(&stranger).1.contains("a copy of another installation"), "{stranger:?}");
    let missing = moved(&setup, &url_of(&setup.path("none.db")), &to, &[]);
    assert!(texts(&missing).1.contains("there is no database"), "{missing:?}");

    is_equal(&moved(&setup, &from, &to, &["--final"]));
    // Names, ids and states, and not how long ago.
    let keys = |setup: &Setup| {
        let list = setup.ok(&["key", "list"]);
        list.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(keys(&setup.clone().set("TOLLWAY_DATABASE_URL", &to)), keys(&setup));
}
