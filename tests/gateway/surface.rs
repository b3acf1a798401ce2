//! The HTTP surface: forms of addresses, methods, other origins, encodings, sizes and versions.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, json_of};

async fn gateway_with(settings: &[(&str, &str)]) -> (Sim, Gateway, String) {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let mut setup = Setup::new(&sim);
    for (name, value) in settings {
        setup = setup.set(name, value);
    }
    setup.import(&account);
    let key = setup.key("ada");
    (sim, setup.serve().await, key)
}

async fn gateway() -> (Sim, Gateway, String) {
    gateway_with(&[]).await
}

async fn call(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = gateway.http.request(method, format!("{}{path}", gateway.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("the gateway answers")
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_base_address_is_served() {
    let (_sim, gateway, key) = gateway().await;
    for dialect in Dialect::ALL {
        let bare = dialect.path().trim_start_matches("/v1");
        for path in [bare.to_owned(), format!("/v1/v1{bare}"), format!("/v1{bare}/"), format!("//v1/{bare}?beta=true")]
        {
            let (status, answer) = json_of(gateway.post(&key, &path, &dialect.ask("hello")).await).await;
            assert_eq!((status.as_u16(), dialect.text(&answer).as_str()), (200, "You said: hello"), "{path}: {answer}");
        }
    }
    for path in
        ["/models", "/v1/models/", "/v1/v1/models", "//models", "/v1/models/gpt-6.1-sol/", "/models/gpt-6.1-sol"]
    {
        assert_eq!(gateway.get(&key, path, &[]).await.status(), 200, "{path}");
    }
    let count = gateway.post(&key, "/messages/count_tokens", &Dialect::Messages.ask("hello")).await;
    assert_eq!(count.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_addresses_and_wrong_methods_are_told_in_the_callers_dialect() {
    let (_sim, gateway, _key) = gateway().await;
    let anthropic: &[(&str, &str)] = &[("anthropic-version", "2023-06-01")];
    for (path, headers, kind) in [
        ("/v1/nothing", &[] as &[(&str, &str)], "invalid_request_error"),
        ("/v1/nothing", anthropic, "not_found_error"),
        ("/v1/nothing", &[("x-api-key", "tw-1")], "not_found_error"),
        ("/v1/messages/nothing", &[], "not_found_error"),
    ] {
        let (status, body) = json_of(call(&gateway, Method::GET, path, headers).await).await;
        assert_eq!((status.as_u16(), body["error"]["type"].as_str()), (404, Some(kind)), "{path}: {body}");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/v1/chat/completions", "POST"),
        (Method::GET, "/v1/messages", "POST"),
        (Method::POST, "/v1/models", "GET,HEAD"),
        (Method::GET, "/chat/completions/", "POST"),
    ] {
        let answer = call(&gateway, method.clone(), path, &[]).await;
        assert_eq!(header(&answer, "allow"), allow, "{method} {path}");
        let (status, body) = json_of(answer).await;
        assert_eq!((status.as_u16(), body["error"]["type"].as_str()), (405, Some("invalid_request_error")), "{body}");
    }
    let options = call(&gateway, Method::OPTIONS, "/v1/chat/completions", &[]).await;
    assert_eq!((options.status().as_u16(), header(&options, "allow").as_str()), (204, "POST"));
    let head = call(&gateway, Method::HEAD, "/", &[]).await;
    assert_eq!(head.status(), 200, "Claude Code asks so whether anybody is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_backend_cannot_do_is_refused_for_good() {
    let (_sim, gateway, key) = gateway().await;
    for path in ["/v1/embeddings", "/v1/audio/speech", "/moderations", "/v1/files", "/v1/assistants", "/v1/completions"]
    {
        let answer = gateway.post(&key, path, &json!({"input": "hello"})).await;
        assert_eq!(header(&answer, "x-should-retry"), "false", "{path}");
        assert!(header(&answer, "x-request-id").starts_with("req_"), "{path}");
        let (status, body) = json_of(answer).await;
        assert_eq!((status.as_u16(), body["error"]["code"].as_str()), (404, Some("unsupported_endpoint")), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_call_where_the_switch_is_on() {
    const PAGE: &str = "https://chat.example.com";
    let asks = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-stainless-os"),
    ];
    let (_sim, gateway, _key) = gateway().await;
    let off = call(&gateway, Method::OPTIONS, "/v1/responses", &asks).await;
    assert_eq!(header(&off, "access-control-allow-origin"), "");
    let (_sim, gateway, key) =
        gateway_with(&[("TOLLWAY_SERVER__CORS_ORIGINS", &format!("{PAGE}, https://b.example"))]).await;
    let preflight = call(&gateway, Method::OPTIONS, "/responses/", &asks).await;
    assert!(preflight.status().is_success(), "{}", preflight.status());
    assert_eq!(header(&preflight, "access-control-allow-origin"), PAGE);
    assert_eq!(header(&preflight, "access-control-allow-headers"), asks[2].1);
    let bearer = format!("Bearer {key}");
    for (bearer, status) in [(bearer.as_str(), 200), ("Bearer tw-wrong", 401)] {
        let models = call(&gateway, Method::GET, "/v1/models", &[("origin", PAGE), ("authorization", bearer)]).await;
        assert_eq!(
            (models.status().as_u16(), header(&models, "access-control-expose-headers").as_str()),
            (status, "*")
        );
        assert_eq!(header(&models, "access-control-allow-origin"), PAGE);
    }
    let stranger =
        call(&gateway, Method::OPTIONS, "/v1/responses", &[("origin", "https://evil.example"), asks[1]]).await;
    assert_eq!(header(&stranger, "access-control-allow-origin"), "");
}

/// A zstd frame of one raw block, or of a million zeros many times over.
fn zstd(content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).expect("a small body");
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    frame.extend_from_slice(&((size << 3) | 1).to_le_bytes()[..3]);
    frame.extend_from_slice(content);
    frame
}

/// 256 MiB of spaces in eight kilobytes.
fn zstd_bomb() -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    for block in 0..2048_u32 {
        let is_last = u32::from(block == 2047);
        frame.extend_from_slice(&((131_072 << 3) | (1 << 1) | is_last).to_le_bytes()[..3]);
        frame.push(b' ');
    }
    frame
}

/// A deflate stream of one stored block.
fn stored(content: &[u8]) -> Vec<u8> {
    let size = u16::try_from(content.len()).expect("a small body");
    [&[1][..], &size.to_le_bytes(), &(!size).to_le_bytes(), content].concat()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).expect("a small body");
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [&head[..], &stored(content), &crc32fast::hash(content).to_le_bytes(), &size.to_le_bytes()].concat()
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in content {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    [&[0x78, 0x01][..], &stored(content), &((b << 16) | a).to_be_bytes()].concat()
}

async fn encoded(gateway: &Gateway, key: &str, encoding: &str, body: Vec<u8>) -> (u16, Value) {
    let request = gateway.http.post(format!("{}/v1/messages", gateway.url)).bearer_auth(key).body(body);
    let (status, answer) =
        json_of(request.header("content-encoding", encoding).send().await.expect("the gateway answers")).await;
    (status.as_u16(), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_read_and_bombs_and_unknown_encodings_refused() {
    let (_sim, gateway, key) = gateway().await;
    let ask = Dialect::Messages.ask("hello").to_string();
    for (encoding, body) in [
        ("gzip", gzip(ask.as_bytes())),
        ("GZIP", gzip(ask.as_bytes())),
        ("deflate", deflate(ask.as_bytes())),
        ("zstd", zstd(ask.as_bytes())),
        ("identity", ask.clone().into_bytes()),
    ] {
        let (status, answer) = encoded(&gateway, &key, encoding, body).await;
        assert_eq!(
            (status, Dialect::Messages.text(&answer).as_str()),
            (200, "You said: hello"),
            "{encoding}: {answer}"
        );
    }
    for (encoding, body, status, kind) in [
        ("zstd", zstd_bomb(), 413, "request_too_large"),
        ("br", ask.clone().into_bytes(), 415, "invalid_request_error"),
        ("gzip, zstd", ask.clone().into_bytes(), 415, "invalid_request_error"),
        ("gzip", ask.clone().into_bytes(), 400, "invalid_request_error"),
    ] {
        let (got, answer) = encoded(&gateway, &key, encoding, body).await;
        assert_eq!((got, Dialect::Messages.error_type(&answer)), (status, kind), "{encoding}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_fifty_megabytes_passes_and_one_beyond_the_limit_is_413() {
    let (_sim, gateway, key) = gateway().await;
    for (dialect, megabytes, status) in
        [(Dialect::Responses, 50, 200), (Dialect::Chat, 65, 413), (Dialect::Messages, 65, 413)]
    {
        let mut body = dialect.ask("hello").to_string();
        body.push_str(&" ".repeat(megabytes << 20));
        let request = gateway.http.post(format!("{}{}", gateway.url, dialect.path())).bearer_auth(&key).body(body);
        let (got, answer) = json_of(request.send().await.expect("an answer")).await;
        assert_eq!(got.as_u16(), status, "{dialect:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_spoken_on_the_same_port() {
    let (_sim, gateway, key) = gateway().await;
    let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    for dialect in Dialect::ALL {
        let ask = dialect.ask_streamed("hello");
        let request = http.post(format!("{}{}", gateway.url, dialect.path())).bearer_auth(&key).json(&ask);
        let answer = request.send().await.expect("the gateway answers");
        assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
        let events = crate::support::events(&answer.text().await.expect("a stream"));
        assert_eq!(dialect.streamed_text(&events), "You said: hello", "{dialect:?}");
    }
    let unknown = http.get(format!("{}/v1/nothing", gateway.url)).send().await.expect("an answer");
    assert_eq!((unknown.version(), unknown.status().as_u16()), (reqwest::Version::HTTP_2, 404));
}
