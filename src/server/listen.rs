//! A listener: accepts connections, bounds the time a request's head may take, and ends gracefully.

mod patience;

use super::origin;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use patience::{Limits, Watched, busy_with};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a listener treats its connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// How long connections may take to end once no more are accepted.
    pub linger: Duration,
}

/// What a connection over HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks at a beginning that came in pieces.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Serves `app` until `closing`, then lets the connections end.
pub(super) async fn serve<S>(listener: TcpListener, app: S, options: Options, closing: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule: the next moment may be better.
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A lone event must not wait for the next one (Nagle).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no-delay was not set");
        }
        let (app, closing) = (app.clone(), closing.clone());
        connections.spawn(async move {
            let beginning = tokio::select! {
                beginning = timeout(options.header_timeout, begins_with_preface(&stream)) => beginning,
                () = closing.cancelled() => return,
            };
            let ended = match beginning {
                Ok(Ok(is_http2)) => converse(stream, is_http2, peer.ip(), app, options, closing).await,
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err("nothing was sent in time".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection ended early");
            }
        });
    }
    drop(listener);
    connections.close();
    if timeout(options.linger, connections.wait()).await.is_err() {
        tracing::warn!("connections were still open at the end of the grace");
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Whether a client speaks HTTP/2, by what it sends first. That is only looked at: what is taken from a connection
/// before its reader has to be put before what that reads, which costs it twice the room for as long as it lives.
async fn begins_with_preface(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut seen).await?;
        if length == 0 || seen[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Serves a connection to its end. In boxes, for what a future awaits it has room for twice.
fn converse<S>(
    stream: TcpStream,
    is_http2: bool,
    peer: IpAddr,
    app: S,
    options: Options,
    closing: CancellationToken,
) -> Pin<Box<dyn Future<Output = Ended> + Send>>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Send + 'static,
{
    let from = origin::told(peer);
    if is_http2 {
        let service = service_fn(move |request| app.call(origin::stamp(request, from.as_ref())));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
        let connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        Box::pin(to_the_end(connection, http2::Connection::graceful_shutdown, closing))
    } else {
        let stream = Watched::new(stream, Limits { head: options.header_timeout, idle: options.idle_timeout });
        let turn = stream.turn();
        let service = service_fn(move |request| {
            let busy = turn.begin();
            let answer = app.call(origin::stamp(request, from.as_ref()));
            async { answer.await.map(|response| busy_with(response, busy)) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
        Box::pin(to_the_end(Box::pin(connection), http1::UpgradeableConnection::graceful_shutdown, closing))
    }
}

/// Drives a connection until it has ended; from `closing` on it takes no more requests.
async fn to_the_end<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<Box<C>>,
    close: fn(Pin<&mut C>),
    closing: CancellationToken,
) -> Ended {
    tokio::select! {
        biased;
        ended = &mut connection => return Ok(ended?),
        () = closing.cancelled() => {}
    }
    close(connection.as_mut());
    Ok(connection.await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use hyper_util::service::TowerToHyperService;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    const OPTIONS: Options = Options {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_secs(3),
        linger: Duration::from_secs(5),
    };

    async fn listening() -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        // Longer than a connection may rest, before its head and before its body.
        let slow = || async {
            let long = || sleep(OPTIONS.idle_timeout * 4 / 3);
            long().await;
            let body = futures_util::stream::once(async move {
                long().await;
                Ok::<_, Infallible>("hello")
            });
            ([("content-length", "5")], Body::from_stream(body))
        };
        let routes = Router::new().route("/", get(|| async { "hello" })).route("/slow", get(slow));
        let app = TowerToHyperService::new(routes);
        let closing = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, app, OPTIONS, closing.clone()));
        (address, closing, serving)
    }

    /// What comes until the other end closes.
    async fn rest(stream: &mut TcpStream) -> Vec<u8> {
        let mut read = Vec::new();
        let all = timeout(Duration::from_secs(10), stream.read_to_end(&mut read)).await;
        all.expect("an end").expect("a clean one");
        read
    }

    #[tokio::test]
    async fn a_connection_speaks_what_its_client_begins_with_however_that_is_cut() {
        let (address, ..) = listening().await;
        for first in [1, 3, PREFACE.len() - 1, PREFACE.len()] {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.set_nodelay(true).expect("no delay");
            stream.write_all(&PREFACE[..first]).await.expect("sent");
            sleep(LOOK_AGAIN * 2).await;
            stream.write_all(&PREFACE[first..]).await.expect("sent");
            // Empty settings; ours come first, in a frame of the same type.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("sent");
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            assert_eq!(head[3], 4, "settings, after {first} bytes");
        }
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"P").await.expect("sent");
        sleep(LOOK_AGAIN * 2).await;
        stream.write_all(b"UT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("sent");
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 405"), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn whoever_sends_nothing_is_left() {
        let (address, ..) = listening().await;
        for beginning in ["", "PRI * HT", "GET / HT"] {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(beginning.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            // What was never taken off the connection resets it.
            let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok() && !answer.starts_with(b"HTTP/1.1 200"), "{beginning:?}");
        }
    }

    /// Asks on a connection that is kept, and reads the answer.
    async fn ask(stream: &mut TcpStream, path: &str) {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let read = timeout(Duration::from_secs(20), stream.read_buf(&mut answer)).await;
            assert!(read.expect("in time").expect("read") > 0, "{}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test]
    async fn a_connection_rests_longer_than_a_head_may_take_and_not_for_ever() {
        let (address, ..) = listening().await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        for path in ["/", "/", "/slow", "/"] {
            ask(&mut stream, path).await;
            sleep(OPTIONS.header_timeout * 2).await;
        }
        assert!(rest(&mut stream).await.is_empty());
    }

    #[tokio::test]
    async fn a_second_head_must_come_as_soon_as_a_first_one() {
        let (address, ..) = listening().await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        ask(&mut stream, "/").await;
        let (mut reader, mut writer) = stream.split();
        let drip = async {
            // In all shorter than a connection may rest.
            for _ in 0..20 {
                if writer.write_all(b"G").await.is_err() {
                    return true;
                }
                sleep(OPTIONS.header_timeout / 3).await;
            }
            false
        };
        let mut answer = Vec::new();
        tokio::select! {
            gave_up = drip => assert!(gave_up, "it is listened to for ever"),
            ended = reader.read_to_end(&mut answer) => drop(ended),
        }
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn closing_ends_connections_that_wait_for_a_request() {
        let (address, closing, serving) = listening().await;
        let mut silent = TcpStream::connect(address).await.expect("a connection");
        let mut kept = TcpStream::connect(address).await.expect("a connection");
        kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        let mut answer = [0; 12];
        kept.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        closing.cancel();
        assert!(rest(&mut silent).await.is_empty());
        assert!(rest(&mut kept).await.ends_with(b"hello"));
        timeout(OPTIONS.linger / 2, serving).await.expect("soon").expect("no panic");
    }
}
