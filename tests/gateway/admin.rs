//! The admin API over a real socket: what each role may do on every route, that another team's objects
//! are not there, bad input, and the audit row of every change.

use crate::support::{Gateway, Setup, Sim, Tools, run, skip};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// No 5xx, and nothing that is not described.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
const BOOTSTRAP: &str = "an-admin-key-that-is-long-enough";

/// Every operation: method, path, a body that is right, the lowest role (0 viewer, 1 operator, 2 owner),
/// whether those of one team may, the status of success, the action in the audit log.
type Row = (&'static str, &'static str, Value, usize, bool, u16, &'static str);

fn table() -> Vec<Row> {
    let empty = || Value::Null;
    vec![
        ("GET", "/accounts", empty(), 0, false, 200, ""),
        ("POST", "/accounts", json!({"auth_json": "AUTH"}), 1, false, 201, "account.login"),
        ("GET", "/accounts/{account}", empty(), 0, false, 200, ""),
        ("PATCH", "/accounts/{account}", json!({"weight": 2.0, "tags": ["night"]}), 1, false, 200, "account.update"),
        ("POST", "/accounts/{account}/refresh", empty(), 1, false, 200, "account.refresh"),
        ("POST", "/accounts/{account}/probe", empty(), 1, false, 200, ""),
        ("GET", "/events", empty(), 0, false, 200, ""),
        ("POST", "/account-logins", json!({"method": "browser"}), 1, false, 201, ""),
        ("POST", "/account-logins/{id}/finish", json!({"callback": "CALLBACK"}), 1, false, 201, "account."),
        ("GET", "/pools", empty(), 0, false, 200, ""),
        ("POST", "/pools", json!({"name": "NEW", "tags": ["night"]}), 1, false, 201, "pool.create"),
        ("GET", "/pools/{pool}", empty(), 0, false, 200, ""),
        ("PATCH", "/pools/{pool}", json!({"strategy": "round_robin"}), 1, false, 200, "pool.update"),
        ("GET", "/explain", empty(), 0, false, 200, ""),
        ("GET", "/decisions", empty(), 0, false, 200, ""),
        ("GET", "/teams", empty(), 0, true, 200, ""),
        ("POST", "/teams", json!({"name": "NEW"}), 1, false, 201, "team.create"),
        ("GET", "/teams/{team}", empty(), 0, true, 200, ""),
        ("PATCH", "/teams/{team}", json!({"limits": {"budgets": ["5M/day"]}}), 1, false, 200, "team.update"),
        ("GET", "/users", empty(), 0, true, 200, ""),
        ("POST", "/users", json!({"name": "NEW"}), 1, true, 201, "user.create"),
        ("GET", "/users/{user}", empty(), 0, true, 200, ""),
        ("PATCH", "/users/{user}", json!({"email": "ada@example.com"}), 1, true, 200, "user.update"),
        ("GET", "/keys", empty(), 0, true, 200, ""),
        ("POST", "/keys", json!({"name": "NEW", "limits": {"requests_per_minute": 9}}), 1, true, 201, "key.create"),
        ("GET", "/keys/{key}", empty(), 0, true, 200, ""),
        ("PATCH", "/keys/{key}", json!({"limits": {"max_effort": "low"}}), 1, true, 200, "key.update"),
        ("POST", "/keys/{key}/rotate", json!({"grace_seconds": 9}), 1, true, 201, "key.rotate"),
        ("GET", "/keys/{key}/standing", empty(), 0, true, 200, ""),
        ("DELETE", "/keys/{key}", empty(), 1, true, 200, "key.revoke"),
        ("GET", "/aliases", empty(), 0, false, 200, ""),
        ("POST", "/aliases", json!({"name": "NEW", "target": "gpt-5.5:low"}), 1, false, 201, "alias.create"),
        ("GET", "/aliases/{alias}", empty(), 0, false, 200, ""),
        ("PATCH", "/aliases/{alias}", json!({"target": "gpt-5.5"}), 1, false, 200, "alias.update"),
        ("DELETE", "/aliases/{alias}", empty(), 1, false, 204, "alias.remove"),
        ("GET", "/usage", empty(), 0, true, 200, ""),
        ("GET", "/requests", empty(), 0, true, 200, ""),
        ("GET", "/requests/{id}", empty(), 0, true, 200, ""),
        ("GET", "/me", empty(), 0, true, 200, ""),
        ("GET", "/auth/session", empty(), 0, true, 200, ""),
        ("GET", "/admin-keys", empty(), 2, false, 200, ""),
        ("POST", "/admin-keys", json!({"name": "NEW", "role": "viewer"}), 2, false, 201, "admin_key.create"),
        ("DELETE", "/admin-keys/{key}", empty(), 2, false, 200, "admin_key.revoke"),
        ("GET", "/audit", empty(), 0, false, 200, ""),
        ("GET", "/settings", empty(), 0, false, 200, ""),
        ("GET", "/log-level", empty(), 0, false, 200, ""),
        ("PATCH", "/log-level", json!({"level": "info,tollway::relay=debug"}), 1, false, 200, "log_level.update"),
        ("GET", "/keyring", empty(), 2, false, 200, ""),
        ("POST", "/keyring/rotate", empty(), 2, false, 200, "keyring.rotate"),
        ("DELETE", "/pools/{pool}", empty(), 1, false, 204, "pool.remove"),
        ("DELETE", "/users/{user}", empty(), 1, true, 204, "user.remove"),
        ("DELETE", "/accounts/{account}", empty(), 1, false, 204, "account.remove"),
        // The last: the keys of those who work on the team go first.
        ("DELETE", "/teams/{team}", empty(), 1, false, 204, "team.remove"),
    ]
}

struct Caller<'a> {
    gateway: &'a Gateway,
    key: String,
}

impl<'a> Caller<'a> {
    fn owner(gateway: &'a Gateway) -> Self {
        Self { gateway, key: BOOTSTRAP.to_owned() }
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/admin/v1{path}", self.gateway.admin);
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.gateway.http.request(method, url);
        if !self.key.is_empty() {
            request = request.bearer_auth(&self.key);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status().as_u16(), answer.text().await.expect("a body"));
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status >= 400 {
            assert_eq!(value["status"], json!(status), "a problem says its status: {text}");
            assert!(value["type"].as_str().is_some_and(|kind| kind.starts_with("urn:tollway:problem:")), "{text}");
        }
        (status, value)
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let (status, value) = self.call("POST", path, &body).await;
        assert_eq!(status, 201, "{path}: {value}");
        value
    }

    /// Somebody with a key of this role.
    async fn with(&self, role: &str, team: Option<&str>) -> Caller<'a> {
        let body = json!({"name": format!("{role} {team:?}"), "role": role, "team": team});
        let key = self.made("/admin-keys", body).await["secret"].as_str().expect("a key").to_owned();
        Caller { gateway: self.gateway, key }
    }
}

async fn gateway(sim: &Sim) -> Gateway {
    Setup::new(sim).set("TOLLWAY_ADMIN__KEY", BOOTSTRAP).serve().await
}

/// Things of a team, each of the kinds that a path may name.
struct Things {
    team: String,
    user: String,
    key: String,
    key_secret: String,
    request: String,
}

async fn things(owner: &Caller<'_>, name: &str) -> Things {
    let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let team = id(&owner.made("/teams", json!({"name": name})).await);
    let user = id(&owner.made("/users", json!({"name": format!("{name}-user"), "team": team})).await);
    let key = owner.made("/keys", json!({"name": format!("{name}-key"), "user": user})).await;
    let key_secret = key["secret"].as_str().expect("a key").to_owned();
    let body = json!({"model": "gpt-5.5", "input": "hello"});
    let answer = crate::support::eventually("a server that has seen the account", async || {
        let asked = owner.gateway.http.post(format!("{}/v1/responses", owner.gateway.url)).bearer_auth(&key_secret);
        let answer = asked.json(&body).send().await.ok()?;
        (answer.status() == StatusCode::OK).then_some(answer)
    })
    .await;
    let request = answer.headers()["x-request-id"].to_str().expect("an id").to_owned();
    Things { team, user, key: id(&key), key_secret, request }
}

/// A path with what it names.
fn filled(path: &str, things: &Things, others: &[(&str, &str)]) -> String {
    let mut path = path.to_owned();
    for (name, value) in others {
        path = path.replace(name, value);
    }
    if path == "/explain" {
        path = format!("/explain?key={}&offline=true", things.key);
    }
    path.replace("{team}", &things.team)
        .replace("{user}", &things.user)
        .replace("{key}", &things.key)
        .replace("/requests/{id}", &format!("/requests/{}", things.request))
}

async fn every_operation_is_in_the_table(gateway: &Gateway) {
    let url = format!("{}/admin/v1/openapi.json", gateway.admin);
    let document: Value = gateway.http.get(url).send().await.expect("an answer").json().await.expect("a document");
    let mut described: Vec<String> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        // What browsers go to before they are anybody is sign_in.rs's.
        if ["/auth/login", "/auth/callback", "/auth/logout"].contains(&path.as_str()) {
            continue;
        }
        for method in ["get", "post", "patch", "delete", "put"].iter().filter(|method| item[**method].is_object()) {
            described.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    let mut tabled: Vec<String> = table().iter().map(|(method, path, ..)| format!("{method} {path}")).collect();
    described.sort();
    tabled.sort();
    assert_eq!(described, tabled);
}

async fn refuses_bad_input(caller: &Caller<'_>, method: &str, path: &str) {
    let (status, _) = caller.call(method, path, &json!({"no such field": 1})).await;
    assert_eq!(status, 422, "{method} {path}: an unknown field");
    let url = format!("{}/admin/v1{path}", caller.gateway.admin);
    let verb = Method::from_bytes(method.as_bytes()).expect("a method");
    let raw = caller.gateway.http.request(verb, url).bearer_auth(BOOTSTRAP).header("content-type", "application/json");
    assert_eq!(raw.body("{").send().await.expect("an answer").status(), 400, "{method} {path}: no JSON");
}

async fn revoke_team_keys(owner: &Caller<'_>) {
    let keys = owner.call("GET", "/admin-keys?limit=500", &Value::Null).await.1;
    for key in keys["data"].as_array().expect("keys").iter().filter(|key| !key["team_id"].is_null()) {
        owner.call("DELETE", &format!("/admin-keys/{}", key["id"].as_str().expect("an id")), &Value::Null).await;
    }
}

async fn written(owner: &Caller<'_>, request: &str) {
    crate::support::eventually("the request is on the books", async || {
        let (status, _) = owner.call("GET", &format!("/requests/{request}"), &Value::Null).await;
        (status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_holds_for_every_role_and_notes_what_it_changes() {
    let sim = Sim::start().await;
    let account = sim.account(json!({"email": "one@example.com"})).await;
    let gateway = gateway(&sim).await;
    let owner = Caller::owner(&gateway);
    let roles = [owner.with("viewer", None).await, owner.with("operator", None).await, owner.with("owner", None).await];
    let enrolled = owner.made("/accounts", json!({"auth_json": account.auth_json})).await;
    let account_id = enrolled["accounts"][0]["id"].as_str().expect("an id").to_owned();
    let pool = owner.made("/pools", json!({"name": "p"})).await["id"].as_str().expect("an id").to_owned();
    let alias = owner.made("/aliases", json!({"name": "fast*", "target": "gpt-5.5"})).await;
    let alias = alias["id"].as_str().expect("an id").to_owned();
    let ours = things(&owner, "ours").await;
    let theirs = things(&owner, "theirs").await;
    written(&owner, &ours.request).await;
    written(&owner, &theirs.request).await;
    let team_roles = [owner.with("viewer", Some("ours")).await, owner.with("operator", Some("ours")).await];
    let spare_key = owner.made("/admin-keys", json!({"name": "spare", "role": "viewer"})).await;
    let spare_key = spare_key["id"].as_str().expect("an id");

    every_operation_is_in_the_table(&gateway).await;
    for (method, path, body, role, of_team, success, action) in table() {
        let what = format!("{method} {path}");
        let mut others =
            vec![("{account}", account_id.as_str()), ("{pool}", pool.as_str()), ("{alias}", alias.as_str())];
        if path.starts_with("/admin-keys/") {
            others.push(("{key}", spare_key));
        }
        let mut body = body;
        let mut login = String::new();
        if body["auth_json"] == "AUTH" {
            body["auth_json"] = account.auth_json.clone();
        }
        if body["name"] == "NEW" {
            body["name"] = json!(format!("new {}", path.trim_start_matches('/')));
        }
        if path.starts_with("/account-logins/{id}") {
            let began = owner.made("/account-logins", json!({"method": "browser"})).await;
            login = began["id"].as_str().expect("an id").to_owned();
            let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
            let page = browser.get(began["url"].as_str().expect("an address")).send().await.expect("the issuer");
            body["callback"] = json!(page.headers()["location"].to_str().expect("an address"));
        }
        if !login.is_empty() {
            others.push(("{id}", &login));
        }
        let path = filled(path, &ours, &others);

        // Nobody, and those who may not.
        let nobody = Caller { gateway: &gateway, key: String::new() };
        assert_eq!(nobody.call(method, &path, &body).await.0, 401, "{what}: nobody");
        for (held, caller) in roles.iter().enumerate().take(role) {
            assert_eq!(caller.call(method, &path, &body).await.0, 403, "{what}: role {held}");
        }
        for (held, caller) in team_roles.iter().enumerate() {
            let expected = if of_team && held >= role { None } else { Some(403) };
            if let Some(expected) = expected {
                assert_eq!(caller.call(method, &path, &body).await.0, expected, "{what}: team role {held}");
            }
            // Another team's object is not there, for whoever may see objects of that kind.
            let foreign = filled(&what[method.len() + 1..], &theirs, &[]);
            if of_team && held >= role && what.contains('{') {
                assert_eq!(caller.call(method, &foreign, &body).await.0, 404, "{what}: another team's");
            }
        }
        if !body.is_null() {
            refuses_bad_input(&roles[role], method, &path).await;
        }
        if method == "DELETE" && path.starts_with("/teams/") {
            revoke_team_keys(&owner).await;
        }
        // The lowest role that may, does; and it is noted once.
        let before = owner.call("GET", "/audit?limit=500", &Value::Null).await.1;
        let (status, answer) = roles[role].call(method, &path, &body).await;
        assert_eq!(status, success, "{what}: {answer}");
        let after = owner.call("GET", "/audit?limit=500", &Value::Null).await.1;
        let count = |log: &Value| log["data"].as_array().expect("rows").len();
        let expected = usize::from(!action.is_empty());
        assert_eq!(count(&after) - count(&before), expected, "{what}: rows in the audit log");
        if expected == 1 {
            let row = &after["data"][0];
            assert!(row["action"].as_str().is_some_and(|noted| noted.starts_with(action)), "{what}: {row}");
            assert!(row["actor"].as_str().is_some_and(|actor| actor.starts_with("admin_key:")), "{row}");
            assert_eq!(row["source"], "127.0.0.1", "{row}");
        }
        if path == format!("/keys/{}", ours.key) && method == "DELETE" {
            // So that its user and its team can go too.
            let successor = owner.call("GET", "/keys?limit=500", &Value::Null).await.1;
            for key in successor["data"].as_array().expect("keys").iter().filter(|key| key["team"] == "ours") {
                owner.call("DELETE", &format!("/keys/{}", key["id"].as_str().unwrap()), &Value::Null).await;
            }
        }
    }
    let log = owner.call("GET", "/audit?limit=500", &Value::Null).await.1.to_string();
    let refresh_token = account.auth_json["tokens"]["refresh_token"].as_str().unwrap().to_owned();
    for secret in [&ours.key_secret, &owner.key, &roles[0].key, &refresh_token] {
        assert!(!log.contains(secret), "no secret is in the audit log");
        assert!(!gateway.setup.log().contains(secret), "no secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_made_to_what_was_seen_and_creates_once() {
    let sim = Sim::start().await;
    let gateway = gateway(&sim).await;
    let owner = Caller::owner(&gateway);
    let url = |path: &str| format!("{}/admin/v1{path}", gateway.admin);
    let send = async |request: reqwest::RequestBuilder| {
        let answer = request.bearer_auth(BOOTSTRAP).send().await.expect("an answer");
        let headers = answer.headers().clone();
        (answer.status().as_u16(), headers, answer.json::<Value>().await.unwrap_or_default())
    };
    let create = |key: &str, name: &str| {
        gateway.http.post(url("/keys")).header("idempotency-key", key).json(&json!({"name": name}))
    };
    let (status, headers, first) = send(create("a", "laptop")).await;
    assert_eq!((status, headers["etag"].to_str().unwrap()), (201, "\"v1\""));
    let (status, headers, again) = send(create("a", "laptop")).await;
    assert_eq!((status, &again, &headers["idempotency-replayed"]), (201, &first, &"true".parse().unwrap()));
    assert!(first["secret"].as_str().is_some_and(|key| key.starts_with("tw-")), "the same key is told again");
    assert_eq!(send(create("a", "another")).await.0, 422, "another request under the same key");
    assert_eq!(send(create("b", "laptop")).await.0, 201, "another create");
    let both = [send(create("c", "twice")), send(create("c", "twice"))];
    let [one, two] = both;
    let (one, two) = tokio::join!(one, two);
    assert!(matches!((one.0, two.0), (201, 409 | 201) | (409, 201)), "{} {}", one.0, two.0);
    let (_, list) = owner.call("GET", "/keys?limit=500", &Value::Null).await;
    assert_eq!(list["data"].as_array().unwrap().len(), 3, "of two at once one is made");
    let raw = std::fs::read(gateway.setup.database()).expect("the database");
    let secret = first["secret"].as_str().unwrap().as_bytes();
    assert!(!raw.windows(secret.len()).any(|window| window == secret), "the kept answer is sealed");

    let id = first["id"].as_str().unwrap();
    let change = |tag: &str| {
        let patch = json!({"limits": {"budgets": ["$20/month"]}});
        gateway.http.patch(url(&format!("/keys/{id}"))).header("if-match", tag).json(&patch)
    };
    let (status, headers, changed) = send(change("\"v1\"")).await;
    assert_eq!((status, headers["etag"].to_str().unwrap()), (200, "\"v2\""), "{changed}");
    assert_eq!(changed["limits"]["budgets"][0]["amount"], 20_000_000);
    let (status, _, problem) = send(change("\"v1\"")).await;
    assert_eq!((status, problem["type"].as_str()), (412, Some("urn:tollway:problem:outdated")));

    // Pages follow each other without gaps.
    let (_, page) = owner.call("GET", "/keys?limit=2", &Value::Null).await;
    let next = format!("/keys?limit=2&cursor={}", page["next_cursor"].as_str().expect("there is more"));
    let (_, rest) = owner.call("GET", &next, &Value::Null).await;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    assert_eq!(owner.call("GET", "/keys?limit=0", &Value::Null).await.0, 400);
    assert_eq!(owner.call("GET", "/keys?cursor=nonsense!", &Value::Null).await.0, 400);
    assert_eq!(owner.call("GET", "/nothing", &Value::Null).await.0, 404);
    assert_eq!(owner.call("DELETE", "/keys", &Value::Null).await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_let_in_by_its_hash_and_found_by_it() {
    let sim = Sim::start().await;
    let gateway = gateway(&sim).await;
    let owner = Caller::owner(&gateway);
    for team in ["ours", "theirs"] {
        owner.made("/teams", json!({"name": team})).await;
    }
    let (ours, theirs) = (owner.with("operator", Some("ours")).await, owner.with("operator", Some("theirs")).await);
    let secret = gateway.setup.ok(&["key", "generate"]);
    let hash = gateway.setup.ok_with(&["key", "hash"], &secret).trim().to_owned();
    let made = ours.made("/keys", json!({"name": "ci", "hash": hash})).await;
    assert_eq!((&made["team"], &made["secret"]), (&json!("ours"), &Value::Null), "{made}");
    assert!(!made.to_string().contains(&hash), "only its start is shown: {made}");
    let path = format!("/keys/{hash}");
    assert_eq!(ours.call("GET", &path, &Value::Null).await.1["id"], made["id"]);
    assert_eq!(theirs.call("GET", &path, &Value::Null).await.0, 404, "another team's");
    assert_eq!(owner.call("POST", "/keys", &json!({"name": "x", "hash": hash})).await.0, 409, "it is there");
    for wrong in ["", "sha256:12", secret.trim()] {
        let (status, told) = owner.call("POST", "/keys", &json!({"name": "x", "hash": wrong})).await;
        assert_eq!(status, 422, "{told}");
        assert!(!told.to_string().contains(secret.trim()), "a key in the wrong place is not repeated");
    }
    let me = gateway.http.get(format!("{}/v1/me", gateway.url)).bearer_auth(secret.trim());
    assert_eq!(me.send().await.expect("an answer").status(), StatusCode::OK, "its holder is let in");
    let shown = owner.made("/keys", json!({"name": "made here"})).await;
    let hash = gateway.setup.ok_with(&["key", "hash"], shown["secret"].as_str().expect("a key"));
    let path = format!("/keys/{}", hash.trim());
    assert_eq!(owner.call("GET", &path, &Value::Null).await.1["id"], shown["id"], "any key is found by its hash");
    let stale = gateway.http.delete(format!("{}/admin/v1{path}", gateway.admin)).header("if-match", "\"v9\"");
    let status = stale.bearer_auth(BOOTSTRAP).send().await.expect("an answer").status();
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "only what was seen is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_team_s_operator_runs_that_team_and_guessing_is_slow() {
    let sim = Sim::start().await;
    let gateway = gateway(&sim).await;
    let owner = Caller::owner(&gateway);
    for team in ["ours", "theirs"] {
        owner.made("/teams", json!({"name": team})).await;
        owner.made("/users", json!({"name": format!("{team}-user"), "team": team})).await;
    }
    let lead = owner.with("operator", Some("ours")).await;
    let user = lead.made("/users", json!({"name": "eve"})).await;
    assert_eq!(user["team"], "ours", "where else");
    assert_eq!(lead.made("/keys", json!({"name": "k", "user": "eve"})).await["team"], "ours");
    assert_eq!(lead.made("/keys", json!({"name": "t"})).await["team"], "ours");
    let foreign = json!({"name": "x", "user": "theirs-user"});
    assert_eq!(lead.call("POST", "/keys", &foreign).await.0, 404);
    assert_eq!(lead.call("PATCH", "/users/eve", &json!({"team": "theirs"})).await.0, 404);
    assert_eq!(lead.call("POST", "/keys", &json!({"name": "x", "pool": "p"})).await.0, 403);
    assert_eq!(lead.call("GET", "/usage?by=account", &Value::Null).await.0, 403);
    assert_eq!(lead.call("GET", "/usage?team=theirs", &Value::Null).await.0, 404);
    let (_, users) = lead.call("GET", "/users", &Value::Null).await;
    let names: Vec<_> = users["data"].as_array().unwrap().iter().map(|user| user["name"].clone()).collect();
    assert_eq!(names, ["ours-user", "eve"]);

    let guess = Caller { gateway: &gateway, key: "twa-guess".into() };
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(guess.call("GET", "/me", &Value::Null).await.0);
    }
    assert_eq!((statuses[0], statuses[11]), (401, 429), "{statuses:?}");
    assert_eq!(owner.call("GET", "/me", &Value::Null).await.0, 200, "the bootstrap key is asked for first");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_calls_it_here_and_from_afar_and_is_noted() {
    let sim = Sim::start().await;
    let gateway = gateway(&sim).await;
    let setup = gateway.setup.clone();
    let made: Value =
        serde_json::from_str(&setup.ok(&["api", "POST", "/teams", "--data", r#"{"name": "core"}"#])).unwrap();
    assert_eq!(made["name"], "core");
    setup.key("laptop");
    let told = setup.fails(&["api", "GET", "/teams/nobody"], "");
    assert!(told.contains("404") && told.contains("urn:tollway:problem:not_found"), "{told}");

    let admin_key = setup.ok(&["admin-key", "create", "--name", "ci", "--role", "viewer", "--team", "core"]);
    assert!(setup.ok(&["admin-key", "list"]).contains("viewer"));
    let remote = setup.clone().set("TOLLWAY_ADMIN__KEY", admin_key.trim());
    let teams: Value = serde_json::from_str(&remote.ok(&["api", "GET", "/teams", "--url", &gateway.admin])).unwrap();
    assert_eq!(teams["data"][0]["name"], "core");
    let told = remote.fails(&["api", "POST", "/teams", "--data", r#"{"name": "x"}"#, "--url", &gateway.admin], "");
    assert!(told.contains("403"), "{told}");
    setup.ok(&["admin-key", "revoke", "ci"]);
    let told = remote.fails(&["api", "GET", "/teams", "--url", &gateway.admin], "");
    assert!(told.contains("401"), "{told}");

    let log = setup.ok(&["api", "GET", "/audit"]);
    let log: Value = serde_json::from_str(&log).unwrap();
    let noted: Vec<_> = log["data"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(noted, ["admin_key.revoke", "admin_key.create", "key.create", "team.create"]);
    assert!(log["data"][0]["actor"].as_str().is_some_and(|actor| actor.starts_with("cli:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_its_document_says() {
    let Some(schemathesis) = Tools::new().find("venv/bin/st") else { return skip("schemathesis") };
    let sim = Sim::start().await;
    let gateway = gateway(&sim).await;
    let owner = Caller::owner(&gateway);
    let account = sim.account(json!({})).await;
    owner.made("/accounts", json!({"auth_json": account.auth_json, "name": "0"})).await;
    things(&owner, "0").await;
    let mut command = std::process::Command::new(schemathesis);
    command.args(["run", &format!("{}/admin/v1/openapi.json", gateway.admin), "--checks", CHECKS]);
    command.args(["--header", &format!("Authorization: Bearer {BOOTSTRAP}"), "--phases", "examples,coverage,fuzzing"]);
    command.args(["--max-examples", "25", "--seed", "1", "--suppress-health-check", "all", "--no-color"]);
    command.current_dir(gateway.setup.root());
    let output = tokio::task::spawn_blocking(|| run(command, "")).await.expect("schemathesis runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), gateway.log());
}
