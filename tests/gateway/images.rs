//! OpenAI Images.

use serde_json::json;

use crate::support::{Gateway, Sim, json_of};

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
        [("stream", json!(true), 400), ("response_format", json!("url"), 400), ("model", json!("dall-e-3"), 404)]
    {
        let mut body = json!({"prompt": "a pixel"});
        body[field] = value;
        let (status, body) = json_of(gateway.post(&key, "/v1/images/generations", &body).await).await;
        assert_eq!((status.as_u16(), &body["error"]["param"]), (expected, &json!(field)), "{body}");
    }
    assert!(sim.requests("/backend-api/codex/images/generations").await.is_empty());
}
