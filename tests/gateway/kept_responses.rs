//! Responses that are kept: chains, look-ups, what survives a restart, and who may see what.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, eventually, json_of};

const BACKEND: &str = "/backend-api/codex/responses";

async fn call(gateway: &Gateway, key: &str, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let mut request = gateway.http.request(method, format!("{}{path}", gateway.url)).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(body);
    }
    json_of(request.send().await.expect("the gateway answers")).await
}

async fn get(gateway: &Gateway, key: &str, path: &str) -> (StatusCode, Value) {
    call(gateway, key, Method::GET, path, None).await
}

async fn ask(gateway: &Gateway, key: &str, body: Value) -> Value {
    let mut body = body;
    body["model"] = json!("gpt-6.1-sol");
    gateway.whole(key, Dialect::Responses, &body).await
}

fn id(response: &Value) -> &str {
    response["id"].as_str().expect("an id")
}

/// The `input` of the last request that the backend saw.
async fn last_input(sim: &Sim) -> Vec<Value> {
    let last = sim.requests(BACKEND).await.pop().expect("a request");
    last["body"]["input"].as_array().cloned().expect("a list")
}

/// The text of each message in an `input`.
fn said(input: &[Value]) -> Vec<&str> {
    input.iter().filter_map(|item| item["content"][0]["text"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_followed_by_its_id_with_all_that_was_said() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let first = ask(&gateway, &key, json!({"input": "one [reason]", "instructions": "be brief"})).await;
    assert_eq!((&first["store"], &first["previous_response_id"]), (&json!(true), &Value::Null));

    // Streamed, and continued from at once: what is still in the queue counts.
    let events = gateway
        .streamed(
            &key,
            Dialect::Responses,
            &json!({"model": "gpt-6.1-sol", "input": "two", "previous_response_id": id(&first), "stream": true}),
        )
        .await;
    for kind in ["response.created", "response.in_progress", "response.completed"] {
        let event = events.iter().find(|event| event.name == kind).expect(kind).json();
        assert_eq!(event["response"]["previous_response_id"], first["id"], "{kind}");
        assert_eq!(event["response"]["store"], json!(true), "{kind}");
    }
    let second = events.last().expect("an end").json()["response"].clone();
    let third = ask(&gateway, &key, json!({"input": "three", "previous_response_id": id(&second)})).await;
    assert_eq!(third["previous_response_id"], second["id"]);

    let input = last_input(&sim).await;
    assert_eq!(
        said(&input),
        [
            "one [reason]",
            first["output"][1]["content"][0]["text"].as_str().expect("text"),
            "two",
            "You said: two",
            "three"
        ]
    );
    let reasoning = input.iter().find(|item| item["type"] == "reasoning").expect("reasoning goes back");
    assert_eq!(reasoning["encrypted_content"], first["output"][0]["encrypted_content"]);
    assert!(input.iter().all(|item| item.get("id").is_none()), "{input:?}");
    let sent = sim.requests(BACKEND).await.pop().expect("a request")["body"].clone();
    assert!(sent.get("previous_response_id").is_none() && sent.get("instructions").is_none(), "{sent}");
    assert_eq!(sent["store"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_on_its_account_and_in_its_cache() {
    let sim = Sim::start().await;
    let accounts = [sim.account(json!({})).await, sim.account(json!({})).await, sim.account(json!({})).await];
    let (gateway, key) = Gateway::with_accounts(&sim, &accounts).await;
    let first = json!({"input": "one [reason]", "prompt_cache_key": "a-conversation"});
    let mut last = ask(&gateway, &key, first).await;
    for text in ["two", "three", "four"] {
        last = ask(&gateway, &key, json!({"input": text, "previous_response_id": id(&last)})).await;
    }
    let requests = sim.requests(BACKEND).await;
    let accounts: Vec<&Value> = requests.iter().map(|request| &request["account"]).collect();
    assert!(accounts.windows(2).all(|pair| pair[0] == pair[1]), "{accounts:?}");
    assert!(requests.iter().all(|request| request["body"]["prompt_cache_key"] == "a-conversation"));
    assert!(last["usage"]["input_tokens_details"]["cached_tokens"].as_u64() > Some(0), "{last}");

    // Without a name of the client's, the conversation has one of its own.
    let mut last = ask(&gateway, &key, json!({"input": "five [reason]"})).await;
    for text in ["six", "seven", "eight"] {
        last = ask(&gateway, &key, json!({"input": text, "previous_response_id": id(&last)})).await;
    }
    let requests = sim.requests(BACKEND).await;
    let accounts: Vec<&Value> = requests[4..].iter().map(|request| &request["account"]).collect();
    assert!(accounts.windows(2).all(|pair| pair[0] == pair[1]), "{accounts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_as_openai_does() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let unkept = ask(&gateway, &key, json!({"input": "one", "store": false})).await;
    assert_eq!(unkept["store"], json!(false));
    let follow = json!({"model": "gpt-6.1-sol", "input": "two", "previous_response_id": id(&unkept)});
    let (status, error) = json_of(gateway.send(&key, Dialect::Responses, &follow).await).await;
    let message = format!("Previous response with id '{}' not found.", id(&unkept));
    let expected = json!({"error": {"message": message, "type": "invalid_request_error",
        "param": "previous_response_id", "code": "previous_response_not_found"}});
    assert_eq!((status, error), (StatusCode::BAD_REQUEST, expected));

    let refer = json!({"model": "gpt-6.1-sol", "input": [{"type": "item_reference", "id": "rs_1"}, {"role": "user", "content": "hi"}]});
    let (status, error) = json_of(gateway.send(&key, Dialect::Responses, &refer).await).await;
    assert_eq!((status, &error["error"]["param"]), (StatusCode::NOT_FOUND, &json!("input")), "{error}");
    for (method, path) in [
        (Method::GET, "/v1/responses/resp_1"),
        (Method::DELETE, "/v1/responses/resp_1"),
        (Method::GET, "/v1/responses/resp_1/input_items"),
        (Method::GET, "/v1/conversations/conv_1"),
    ] {
        let (status, error) = call(&gateway, &key, method, path, None).await;
        assert_eq!(
            (status, &error["error"]["type"]),
            (StatusCode::NOT_FOUND, &json!("invalid_request_error")),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_to_an_item_is_as_good_as_the_item() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let first = ask(&gateway, &key, json!({"input": "one [reason]"})).await;
    let refer = |number: usize| json!({"type": "item_reference", "id": first["output"][number]["id"]});
    let user = |text: &str| json!({"role": "user", "content": [{"type": "input_text", "text": text}]});
    ask(&gateway, &key, json!({"input": [user("one"), refer(0), refer(1), user("two")]})).await;
    let input = last_input(&sim).await;
    assert_eq!(input.len(), 4);
    assert_eq!(input[1]["encrypted_content"], first["output"][0]["encrypted_content"]);
    assert_eq!(input[2]["content"][0]["text"], first["output"][1]["content"][0]["text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_looked_up_listed_and_deleted() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let input = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}]);
    let made = ask(
        &gateway,
        &key,
        json!({"input": input, "metadata": {"topic": "demo"}, "temperature": 0.2,
        "max_output_tokens": 77, "truncation": "auto"}),
    )
    .await;
    assert_eq!(made["metadata"], json!({"topic": "demo"}));
    assert_eq!((&made["temperature"], &made["max_output_tokens"]), (&json!(0.2), &json!(77)));
    let path = format!("/v1/responses/{}", id(&made));
    assert_eq!(get(&gateway, &key, &path).await, (StatusCode::OK, made.clone()));

    let (_, page) = get(&gateway, &key, &format!("{path}/input_items?limit=1&order=asc")).await;
    assert_eq!((&page["object"], &page["has_more"]), (&json!("list"), &json!(true)));
    assert_eq!(page["data"][0]["content"], json!([{"type": "input_text", "text": "be brief"}]));
    let after = page["last_id"].as_str().expect("an id");
    let (_, rest) = get(&gateway, &key, &format!("{path}/input_items?order=asc&after={after}")).await;
    assert_eq!((&rest["data"][0]["content"][0]["text"], &rest["has_more"]), (&json!("one"), &json!(false)));

    let (status, gone) = call(&gateway, &key, Method::DELETE, &path, None).await;
    assert_eq!((status, gone), (StatusCode::OK, json!({"id": id(&made), "object": "response", "deleted": true})));
    assert_eq!(get(&gateway, &key, &path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_its_limit_cut_is_kept_as_it_was_given() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    sim.fault(json!({"kind": "slow", "ms": 5, "times": 2})).await;
    let body = json!({"model": "gpt-6.1-sol", "input": "[long 500]", "max_output_tokens": 20, "stream": true});
    let events = gateway.streamed(&key, Dialect::Responses, &body).await;
    let last = events.last().expect("an end");
    let cut = last.json()["response"].clone();
    assert_eq!((last.name.as_str(), &cut["status"]), ("response.incomplete", &json!("incomplete")));
    assert_eq!(cut["incomplete_details"], json!({"reason": "max_output_tokens"}));
    assert_eq!(cut["usage"]["output_tokens"], 20);
    let text = cut["output"][0]["content"][0]["text"].as_str().expect("text");
    assert_eq!(Dialect::Responses.streamed_text(&events), text);
    assert_eq!(get(&gateway, &key, &format!("/v1/responses/{}", id(&cut))).await, (StatusCode::OK, cut.clone()));
    let whole = ask(&gateway, &key, json!({"input": "[long 500]", "max_output_tokens": 20})).await;
    assert_eq!(whole["output"][0]["content"], cut["output"][0]["content"]);
    eventually("the backend to be left", async || {
        (sim.counters(&account).await["cancelled"] == json!(2)).then_some(())
    })
    .await;
    let next = ask(&gateway, &key, json!({"input": "on", "previous_response_id": id(&cut)})).await;
    assert_eq!(said(&last_input(&sim).await), ["[long 500]", text, "on"]);
    assert_eq!(next["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_what_another_key_keeps() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim);
    setup.import(&sim.account(json!({})).await);
    let (ada, bob) = (setup.key("ada"), setup.key("bob"));
    let gateway = setup.serve().await;
    let made = ask(&gateway, &ada, json!({"input": "a secret [reason]"})).await;
    let (_, conversation) = call(&gateway, &ada, Method::POST, "/v1/conversations", Some(&json!({}))).await;
    let (response, conversation) = (id(&made), id(&conversation));
    for path in [
        format!("/v1/responses/{response}"),
        format!("/v1/responses/{response}/input_items"),
        format!("/v1/conversations/{conversation}"),
        format!("/v1/conversations/{conversation}/items"),
    ] {
        assert_eq!(get(&gateway, &ada, &path).await.0, StatusCode::OK, "{path}");
        assert_eq!(get(&gateway, &bob, &path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    for path in [format!("/v1/responses/{response}"), format!("/v1/conversations/{conversation}")] {
        assert_eq!(call(&gateway, &bob, Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let reference = json!({"type": "item_reference", "id": made["output"][0]["id"]});
    for (body, expected) in [
        (json!({"model": "gpt-6.1-sol", "input": "x", "previous_response_id": response}), StatusCode::BAD_REQUEST),
        (json!({"model": "gpt-6.1-sol", "input": "x", "conversation": conversation}), StatusCode::NOT_FOUND),
        (json!({"model": "gpt-6.1-sol", "input": [reference]}), StatusCode::NOT_FOUND),
    ] {
        let (status, error) = json_of(gateway.send(&bob, Dialect::Responses, &body).await).await;
        assert_eq!(status, expected, "{body}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_there_after_a_restart_and_written_nowhere_in_the_clear() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    // Many at once, so that some are still in the queue when SIGTERM comes.
    let asks = (0..40).map(|number| ask(&gateway, &key, json!({"input": format!("a-word-nobody-may-read {number}")})));
    let made = futures_util::future::join_all(asks).await;
    let setup = gateway.stop().await;
    let database = std::fs::read(setup.database()).expect("the database");
    assert!(!database.windows(22).any(|window| window == b"a-word-nobody-may-read"));
    let gateway = setup.serve().await;
    for response in &made {
        let (status, kept) = get(&gateway, &key, &format!("/v1/responses/{}", id(response))).await;
        assert_eq!((status, &kept), (StatusCode::OK, response));
    }
    let next = ask(&gateway, &key, json!({"input": "on", "previous_response_id": id(&made[0])})).await;
    assert_eq!(next["previous_response_id"], made[0]["id"]);
    assert_eq!(said(&last_input(&sim).await)[0], "a-word-nobody-may-read 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_retention_goes_unless_it_is_built_upon() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_RESPONSES__RETENTION", "2s");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    let made = ask(&gateway, &key, json!({"input": "one"})).await;
    let path = format!("/v1/responses/{}", id(&made));
    assert_eq!(get(&gateway, &key, &path).await.0, StatusCode::OK);
    eventually("the end of the retention", async || {
        (get(&gateway, &key, &path).await.0 == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_keeps_nothing_says_so() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_RESPONSES__RETENTION", "0s");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    let asked = json!({"model": "gpt-6.1-sol", "input": "one", "store": true});
    let answer = gateway.send(&key, Dialect::Responses, &asked).await;
    assert_eq!(answer.headers().get("x-tollway-ignored").and_then(|names| names.to_str().ok()), Some("store"));
    let (_, made) = json_of(answer).await;
    assert_eq!(made["store"], json!(false));
    for (field, value) in
        [("previous_response_id", json!(id(&made))), ("conversation", json!("conv_1")), ("background", json!(true))]
    {
        let mut body = json!({"model": "gpt-6.1-sol", "input": "two"});
        body[field] = value;
        let (status, error) = json_of(gateway.send(&key, Dialect::Responses, &body).await).await;
        assert_eq!((status, &error["error"]["param"]), (StatusCode::BAD_REQUEST, &json!(field)), "{error}");
        assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("responses.retention")));
    }
    assert_eq!(get(&gateway, &key, &format!("/v1/responses/{}", id(&made))).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_too_large_is_answered_and_named_as_not_kept() {
    let sim = Sim::start().await;
    let setup = Setup::new(&sim).set("TOLLWAY_RESPONSES__MAX_SIZE", "2000B");
    setup.import(&sim.account(json!({})).await);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    let asked = json!({"model": "gpt-6.1-sol", "input": "x".repeat(3000)});
    let answer = gateway.send(&key, Dialect::Responses, &asked).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers().get("x-tollway-ignored").and_then(|names| names.to_str().ok()), Some("store"));
    assert_eq!(json_of(answer).await.1["store"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_slow_does_not_hold_up_an_answer() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    // Another process that writes for a long time: SQLite has one writer.
    let url = format!("sqlite://{}", gateway.setup.database().display());
    let lock = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1).connect(&url).await.expect("the database");
    let held = lock.begin_with("BEGIN IMMEDIATE").await.expect("the lock");
    let answers = async {
        let first = ask(&gateway, &key, json!({"input": "one"})).await;
        ask(&gateway, &key, json!({"input": "two", "previous_response_id": id(&first)})).await
    };
    let second = tokio::time::timeout(Duration::from_secs(4), answers).await.expect("answers without the database");
    assert_eq!(get(&gateway, &key, &format!("/v1/responses/{}", id(&second))).await.1, second);
    drop(held);
    lock.close().await;
    let setup = gateway.stop().await;
    let gateway = setup.serve().await;
    assert_eq!(get(&gateway, &key, &format!("/v1/responses/{}", id(&second))).await.1, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_remembers_what_was_said_in_it() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let begin =
        json!({"metadata": {"topic": "demo"}, "items": [{"type": "message", "role": "user", "content": "zero"}]});
    let (status, made) = call(&gateway, &key, Method::POST, "/v1/conversations", Some(&begin)).await;
    assert_eq!(
        (status, &made["object"], &made["metadata"]["topic"]),
        (StatusCode::OK, &json!("conversation"), &json!("demo"))
    );
    let path = format!("/v1/conversations/{}", id(&made));

    let first = ask(&gateway, &key, json!({"input": "one", "conversation": id(&made)})).await;
    assert_eq!(first["conversation"], json!({"id": id(&made)}));
    ask(&gateway, &key, json!({"input": "two", "conversation": {"id": id(&made)}})).await;
    assert_eq!(said(&last_input(&sim).await), ["zero", "one", "You said: one", "two"]);

    let (_, page) = get(&gateway, &key, &format!("{path}/items?order=asc&limit=100")).await;
    assert_eq!(said(page["data"].as_array().expect("items")), ["zero", "one", "You said: one", "two", "You said: two"]);
    let more = json!({"items": [{"role": "user", "content": "three"}]});
    let (_, added) = call(&gateway, &key, Method::POST, &format!("{path}/items"), Some(&more)).await;
    let item = format!("{path}/items/{}", id(&added["data"][0]));
    assert_eq!(get(&gateway, &key, &item).await.1["content"][0]["text"], "three");
    assert_eq!(call(&gateway, &key, Method::DELETE, &item, None).await, (StatusCode::OK, made.clone()));
    assert_eq!(get(&gateway, &key, &item).await.0, StatusCode::NOT_FOUND);

    let update = json!({"metadata": {"topic": "other"}});
    let (_, updated) = call(&gateway, &key, Method::POST, &path, Some(&update)).await;
    assert_eq!((&updated["id"], &updated["metadata"]["topic"]), (&made["id"], &json!("other")));
    let (_, gone) = call(&gateway, &key, Method::DELETE, &path, None).await;
    assert_eq!(gone, json!({"id": id(&made), "object": "conversation.deleted", "deleted": true}));
    assert_eq!(get(&gateway, &key, &path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_request_counts_what_it_follows() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let path = "/v1/responses/input_tokens";
    let count = async |body: Value| call(&gateway, &key, Method::POST, path, Some(&body)).await;
    let (status, plain) = count(json!({"input": "hello world"})).await;
    assert_eq!((status, &plain["object"]), (StatusCode::OK, &json!("response.input_tokens")), "{plain}");
    let first = ask(&gateway, &key, json!({"input": "a rather longer question"})).await;
    let (_, following) = count(json!({"input": "hello world", "previous_response_id": id(&first)})).await;
    assert!(following["input_tokens"].as_u64() > plain["input_tokens"].as_u64(), "{following} {plain}");
    let (status, refused) = count(json!({"input": 3})).await;
    assert_eq!((status, &refused["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("input")));
    let asked = sim.requests(BACKEND).await.len();
    assert_eq!(asked, 1, "a count asks nobody");
}
