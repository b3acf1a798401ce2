//! A listener: accepts connections, bounds the time a request's head may take, and ends gracefully.

use axum::Router;
use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;

/// How a listener treats its connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long connections may take to end once no more are accepted.
    pub linger: Duration,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub IpAddr);

/// Serves `app` until `closing`, then lets the connections end.
pub(super) async fn serve(listener: TcpListener, app: Router, options: Options, closing: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(options.header_timeout);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
    let graceful = GracefulShutdown::new();
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
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A lone event must not wait for the next one (Nagle).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no-delay was not set");
        }
        let with_peer = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer.ip()));
            request
        };
        let service = TowerToHyperService::new(MapRequest::new(app.clone(), with_peer));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        // Not in a block, which would have room for the connection twice.
        tokio::spawn(connection.map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        }));
    }
    drop(listener);
    if tokio::time::timeout(options.linger, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open at the end of the grace");
    }
}
