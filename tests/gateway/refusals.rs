//! Refusals, and whether they arrive.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Gateway, Sim};

/// Sends `head` and 8 MiB in pieces, and gives the answer: a connection that closes meanwhile
/// makes the writing fail, or loses the answer.
async fn sent_whole(gateway: &Gateway, head: &str) -> String {
    let address = gateway.url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let body = vec![b' '; 1 << 16];
    let head =
        format!("{head}\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len() * 128);
    stream.write_all(head.as_bytes()).await.expect("the head goes out");
    for _ in 0..128 {
        stream.write_all(&body).await.expect("the body goes out");
    }
    let mut answer = String::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
    read.expect("the answer ends").expect("an answer and no reset");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, _) = Gateway::with_account(&sim, &account).await;
    let unknown = sent_whole(&gateway, "POST /v1/files HTTP/1.1").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
    let stranger = sent_whole(&gateway, "POST /v1/responses HTTP/1.1\r\nauthorization: Bearer tw-not-a-key").await;
    assert!(stranger.starts_with("HTTP/1.1 401"), "{stranger}");
}
