//! OpenAI Images.

use serde_json::{Value, json};

use crate::support::{Gateway, Setup, Sim, eventually, json_of};

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_made_and_what_could_not_be_honoured_is_named() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let body = json!({"prompt": "a pixel", "model": "gpt-image-2", "n": 2, "user": "u", "response_format": "b64_json"});
    let answer = gateway.post(&key, "/v1/images/generations", &body).await;
    assert_eq!(answer.headers()["x-tollway-ignored"], "user");
    let (status, body) = json_of(answer).await;
    assert_eq!((status.as_u16(), body["data"].as_array().map(Vec::len)), (200, Some(2)), "{body}");
    assert!(body["data"][0]["b64_json"].is_string() && body["usage"]["total_tokens"].is_u64(), "{body}");

    let edit = json!({"prompt": "bluer", "images": [{"image_url": "data:image/png;base64,AAAA"}]});
    assert_eq!(gateway.post(&key, "/v1/images/edits", &edit).await.status(), 200);
    let seen = sim.requests("/backend-api/codex/images/edits").await.pop().expect("asked");
    assert_eq!((&seen["body"], &seen["headers"]["originator"]), (&edit, &json!("tollway")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_refused_before_the_backend_is_asked() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    for (field, value, expected) in
        [("partial_images", json!(4), 400), ("response_format", json!("url"), 400), ("model", json!("dall-e-3"), 404)]
    {
        let mut body = json!({"prompt": "a pixel"});
        body[field] = value;
        let (status, body) = json_of(gateway.post(&key, "/v1/images/generations", &body).await).await;
        assert_eq!((status.as_u16(), &body["error"]["param"]), (expected, &json!(field)), "{body}");
    }
    assert!(sim.requests("/backend-api/codex/images/generations").await.is_empty());
}

/// The events of a stream: name and data.
fn events(stream: &str) -> Vec<(String, Value)> {
    let frames = stream.split("\n\n").filter(|frame| frame.starts_with("event: "));
    let read = |frame: &str| {
        let (name, data) = frame.split_once("\ndata: ").expect("data");
        (name.trim_start_matches("event: ").to_owned(), serde_json::from_str(data).expect("JSON"))
    };
    frames.map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_as_many_previews_as_asked_for_and_then_the_picture() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let body = json!({"prompt": "a pixel", "stream": true, "partial_images": 2, "output_format": "webp", "user": "u"});
    let answer = gateway.post(&key, "/v1/images/generations", &body).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-tollway-ignored"]), (200, &"user".parse().unwrap()));
    let events = events(&answer.text().await.expect("a stream"));
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]
    );
    assert_eq!((&events[1].1["partial_image_index"], &events[1].1["output_format"]), (&json!(1), &json!("webp")));
    let done = &events[2].1;
    assert_eq!((&done["type"], &done["usage"]["total_tokens"]), (&json!("image_generation.completed"), &json!(281)));
    assert!(done["b64_json"].is_string() && done["created_at"].is_u64(), "{done}");
    let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("asked");
    assert_eq!(seen["body"]["tools"][0]["partial_images"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_an_error_where_there_is_no_picture() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let mut body = json!({"prompt": "something awful [refuse]", "stream": true});
    let answer = gateway.post(&key, "/v1/images/generations", &body).await;
    let events = events(&answer.text().await.expect("a stream"));
    let [(name, data)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((name.as_str(), &data["error"]["code"]), ("error", &json!("moderation_blocked")));
    eventually("a log line that says so", async || {
        let log = gateway.log();
        let line = log.lines().find(|line| line.contains("/v1/images/generations"))?;
        let line: Value = serde_json::from_str(line).ok()?;
        assert_eq!(line["outcome"], "cut", "{line}");
        assert!(line["cause"].as_str().is_some_and(|cause| cause.starts_with("No picture was made")), "{line}");
        Some(())
    })
    .await;

    body["stream"] = json!(false);
    body["output_format"] = json!("webp");
    let (status, body) = json_of(gateway.post(&key, "/v1/images/generations", &body).await).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (400, &json!("moderation_blocked")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_takes_long_is_waited_for_and_its_client_may_leave() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = Setup::new(&sim).set("TOLLWAY_SERVER__KEEP_ALIVE", "40ms");
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    sim.fault(json!({"kind": "stall", "at": "mid", "where": "responses", "times": 1})).await;
    let body = json!({"prompt": "a fox", "stream": true, "partial_images": 2});
    let mut answer = gateway.post(&key, "/v1/images/generations", &body).await;
    let mut read = String::new();
    while read.matches(": keep-alive\n\n").count() < 3 {
        read.push_str(&String::from_utf8_lossy(&answer.chunk().await.expect("a stream").expect("signs of life")));
    }
    drop(answer);
    eventually("the backend to see it", async || (sim.counters(&account).await["cancelled"] == json!(1)).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_moves_to_the_next_account_and_its_tokens_are_counted() {
    let sim = Sim::start().await;
    let accounts = [sim.account(json!({})).await, sim.account(json!({})).await];
    let (gateway, key) = Gateway::with_accounts(&sim, &accounts).await;
    sim.fault(json!({"kind": "usage_limit", "where": "responses", "times": 1})).await;
    let body = json!({"prompt": "a fox", "stream": true});
    let answer = gateway.post(&key, "/v1/images/generations", &body).await;
    let events = events(&answer.text().await.expect("a stream"));
    assert_eq!(events.last().map(|(name, _)| name.as_str()), Some("image_generation.completed"));
    let billed = sim.get("stats").await["totals"]["tokens"].clone();
    let (_, page) = gateway.ops_page("/metrics").await;
    let counted = |kind: &str| {
        let lines = page.lines().filter(|line| line.starts_with("tollway_tokens_total") && line.contains(kind));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    assert_eq!(json!(counted("\"output\"")), billed["output"], "{page}");
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

/// A form with these parts; a part with a file name is a file.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, content) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let head = format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--cut--\r\n");
    body
}

async fn post_form(gateway: &Gateway, key: &str, body: Vec<u8>) -> reqwest::Response {
    let request = gateway
        .http
        .post(format!("{}/v1/images/edits", gateway.url))
        .bearer_auth(key)
        .header("content-type", "multipart/form-data; boundary=cut")
        .body(body);
    request.send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_understood_as_json_is() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    // Larger than axum takes of a form unless told otherwise.
    let large = [PNG, &vec![7; 3 << 20]].concat();
    let body = form(&[
        ("prompt", None, b"bluer"),
        ("image[]", Some("a.png"), &large),
        ("image[]", Some("b.png"), PNG),
        ("n", None, b"2"),
    ]);
    let (status, body) = json_of(post_form(&gateway, &key, body).await).await;
    assert_eq!((status.as_u16(), body["data"].as_array().map(Vec::len)), (200, Some(2)), "{body}");
    let seen = sim.requests("/backend-api/codex/images/edits").await.pop().expect("asked");
    assert_eq!((&seen["body"]["n"], seen["body"]["images"].as_array().map(Vec::len)), (&json!(2), Some(2)));

    let masked = form(&[
        ("prompt", None, b"bluer"),
        ("image", Some("a.png"), PNG),
        ("mask", Some("m.png"), PNG),
        ("stream", None, b"true"),
        ("partial_images", None, b"1"),
    ]);
    let streamed = events(&post_form(&gateway, &key, masked).await.text().await.expect("a stream"));
    let names: Vec<_> = streamed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["image_edit.partial_image", "image_edit.completed"]);
    let seen = sim.requests("/backend-api/codex/responses").await.pop().expect("asked");
    assert!(seen["body"]["tools"][0]["input_image_mask"]["image_url"].is_string(), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_not_legible_is_the_clients_fault() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    for (body, param) in [
        (form(&[("prompt", None, b"bluer"), ("image", Some("a.txt"), b"text")]), json!("image")),
        (form(&[("image", Some("a.png"), PNG)]), json!("prompt")),
        (b"no form at all".to_vec(), json!(null)),
    ] {
        let (status, body) = json_of(post_form(&gateway, &key, body).await).await;
        assert_eq!((status.as_u16(), &body["error"]["param"]), (400, &param), "{body}");
    }
    let (status, body) = json_of(gateway.post(&key, "/v1/images/variations", &json!({})).await).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (404, &json!("unsupported_endpoint")), "{body}");
}
