//! Whatever JSON is posted, wherever: an answer or a 4xx in JSON, never a 5xx, and the gateway lives.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::{Gateway, Sim};

/// Bodies for each route.
const BODIES: usize = 200;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "\\PC{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["text", "function", "user", "auto", "1e999", "\u{0}", "../x"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,9}", inner, 0..5).prop_map(|fields| json!(fields)),
        ]
    })
}

/// The golden requests that are taken, of all dialects: near to what is right, when one place is changed.
fn requests() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut requests = Vec::new();
    for dialect in ["chat", "images", "messages", "responses"] {
        for case in fs::read_dir(root.join(dialect)).expect("the cases").map(|case| case.expect("a case").path()) {
            let request = fs::read(case.join("request.json")).expect("a request");
            requests.extend(serde_json::from_slice::<Value>(&request).ok());
        }
    }
    requests
}

/// How many places a value has: itself, its members, theirs.
fn places(value: &Value) -> usize {
    let inner = match value {
        Value::Array(items) => items.iter().map(places).sum(),
        Value::Object(fields) => fields.values().map(places).sum(),
        _ => 0,
    };
    1 + inner
}

/// Puts `other` in the place with this number.
fn replace(value: &mut Value, mut at: usize, other: Value) {
    if at == 0 {
        *value = other;
        return;
    }
    at -= 1;
    let inner: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(fields) => Box::new(fields.values_mut()),
        _ => return,
    };
    for inner in inner {
        let size = places(inner);
        if at < size {
            return replace(inner, at, other);
        }
        at -= size;
    }
}

/// Arbitrary bodies and golden ones with a place changed, by turns; the same every time.
fn bodies(runner: &mut TestRunner) -> Vec<Value> {
    let mut draw = |from: usize, to: usize| (from..to).new_tree(runner).expect("a number").current();
    let requests = requests();
    let picks: Vec<(usize, usize)> = (0..BODIES).map(|_| (draw(0, requests.len()), draw(0, 1_000_000))).collect();
    let arbitrary: Vec<Value> = picks.iter().map(|_| any_json().new_tree(runner).expect("a value").current()).collect();
    let bodies = picks.into_iter().zip(arbitrary).enumerate().map(|(turn, ((request, place), other))| {
        if turn % 4 == 0 {
            return other;
        }
        let mut body = requests[request].clone();
        let place = place % places(&body);
        replace(&mut body, place, other);
        body
    });
    bodies.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_json_posted_anywhere_is_answered_or_refused() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let document: Value = gateway.get("", "/openapi.json", &[]).await.json().await.expect("the document");
    let paths = document["paths"].as_object().expect("paths");
    let posts: Vec<&String> = paths.iter().filter(|(_, item)| item["post"].is_object()).map(|(path, _)| path).collect();
    assert!(posts.len() >= 5, "{posts:?}");
    let mut runner = TestRunner::deterministic();
    let mut faults = Vec::new();
    for path in posts {
        for body in bodies(&mut runner) {
            let answer = gateway.post(&key, &path.replace(['{', '}'], ""), &body).await;
            let (status, content) = (answer.status(), answer.headers().get("content-type").cloned());
            let said = answer.text().await.unwrap_or_default();
            let is_json = serde_json::from_str::<Value>(&said).is_ok();
            let is_stream = content.is_some_and(|content| content.as_bytes().starts_with(b"text/event-stream"));
            if status.is_server_error() || !(is_json || is_stream && status.is_success()) {
                faults.push(format!("{path}: {status} {said}\n    upon {body}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}
