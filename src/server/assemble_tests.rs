//! The client towards the backend, against a server that speaks HTTP/2 as the real one does.

use super::*;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

fn settings() -> Settings {
    crate::config::load(&crate::config::Sources::default()).expect("defaults").settings
}

/// Pieces of an answer, each a frame of its own, as a backend writes events.
const PIECES: usize = 2000;
const PIECE: &[u8] = &[b'x'; 100];

/// Answers every request with the same pieces; gives its address.
async fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = service_fn(async |_: Request<Incoming>| {
        let pieces = std::iter::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(PIECE))));
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(pieces.take(PIECES)))))
    });
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(served.serve_connection(TokioIo::new(connection), answer));
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn answers_that_nobody_reads_end_no_other_on_their_connection() {
    let address = backend().await;
    let settings = settings();
    let client = http_builder(&settings).expect("settings").no_proxy().http2_prior_knowledge().build();
    let client = client.expect("a client");
    // Clients that have gone to sleep: their answers come, and stay.
    let mut unread = Vec::new();
    for _ in 0..50 {
        unread.push(client.get(&address).send().await.expect("an answer"));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let read = client.get(&address).send().await.expect("another answer").bytes().await;
    assert_eq!(read.expect("all of it").len(), PIECES * PIECE.len());
    for late in unread {
        assert_eq!(late.bytes().await.expect("all of what had waited").len(), PIECES * PIECE.len());
    }
}

/// Allows a hundred answers at a time on a connection, none of which ends; counts connections.
async fn endless(connections: Arc<AtomicUsize>) -> url::Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = service_fn(async |_: Request<Incoming>| {
        let event = Bytes::from_static(b"data: {\"type\":\"response.created\",\"response\":{}}\n\n");
        let body = stream::iter([Ok::<_, Infallible>(Frame::data(event))]).chain(stream::pending());
        Ok::<_, Infallible>(Response::new(StreamBody::new(body)))
    });
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let mut served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            served.max_concurrent_streams(100);
            tokio::spawn(served.serve_connection(TokioIo::new(connection), answer));
        }
    });
    format!("http://{address}/backend-api").parse().expect("an address")
}

#[tokio::test]
async fn more_answers_than_a_connection_may_have_take_more_connections() {
    let connections = Arc::new(AtomicUsize::new(0));
    let mut settings = settings();
    settings.backend.base_url = endless(Arc::clone(&connections)).await;
    let same = settings.clone();
    let http = move || {
        let built = http_builder(&same).expect("settings").no_proxy().http2_prior_knowledge().build();
        built.map_err(|error| error.to_string())
    };
    let lanes = codex::Lanes::new(http().expect("a client"), http);
    let client = codex::Client::new(lanes, super::backend(&settings).expect("settings"));
    let token = secrecy::SecretString::from("token");
    let caller = client::Caller { access_token: &token, chatgpt_account_id: "a", fedramp: false, route: None };
    let mut held = Vec::new();
    for number in 0..250 {
        let answer = client.respond(caller, http::HeaderMap::new(), Bytes::from_static(b"{}"));
        let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
        held.push(answer.unwrap_or_else(|_| panic!("answer {number} waits for another one")).expect("an answer"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}
