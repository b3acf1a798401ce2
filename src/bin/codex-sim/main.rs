//! `codex-sim`: a simulated ChatGPT/Codex backend and its OAuth issuer, on loopback, over HTTP.
//!
//! A witness of its own: it shares no code with the gateway, so that the two can only agree by
//! both being right. It keeps everything in memory and is driven by what the user types (see
//! [`script`]) and by a control API (see [`control`]); docs/simulator.md describes both.

mod account;
mod backend;
mod catalogue;
mod control;
mod device;
mod events;
mod faults;
mod grants;
mod intake;
mod items;
mod jwt;
mod markers;
mod mishap;
mod oauth;
mod playback;
mod responses;
mod rules;
mod schema;
mod script;
mod seal;
mod socket;
mod stages;
mod state;
mod tools;
mod traffic;
mod usage;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use clap::Parser;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tower::ServiceExt as _;
use tower_http::decompression::RequestDecompressionLayer;

use crate::intake::WireEncoding;
use crate::mishap::HangUp;
use crate::state::{Settings, Sim};

/// Simulates the ChatGPT/Codex backend and its OAuth issuer for tests, load runs and demos.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8790")]
    listen: SocketAddr,
    /// Makes ids and tokens repeatable; random when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Life of access tokens, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 864_000)]
    access_token_life: i64,
    /// Pause before each delta, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delta_delay: u64,
    /// Send codex.rate_limits events and let accounts run into their limits by use.
    #[arg(long)]
    rate_limits: bool,
    /// Approve device logins by themselves at this poll.
    #[arg(long, value_name = "POLLS")]
    approve_devices_after: Option<u32>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    let address = format!("http://{}", listener.local_addr()?);
    println!("codex-sim listening on {address}");
    let settings = Settings {
        access_life_s: arguments.access_token_life,
        delta_delay_ms: arguments.delta_delay,
        rate_limits: arguments.rate_limits,
        device_approve_after: arguments.approve_devices_after,
        ..Settings::default()
    };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let router = router(Arc::new(Sim::new(address, settings, seed)));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = accept(listener, router) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

fn router(sim: Arc<Sim>) -> Router {
    let backend = Router::new()
        .route("/oauth/authorize", get(oauth::authorize))
        .route("/oauth/token", post(oauth::token))
        .route("/oauth/revoke", post(oauth::revoke))
        .route("/api/accounts/deviceauth/usercode", post(device::user_code))
        .route("/api/accounts/deviceauth/token", post(device::poll))
        .route("/backend-api/codex/responses/compact", post(backend::compact))
        .route("/backend-api/codex/images/generations", post(backend::images))
        .route("/backend-api/codex/images/edits", post(backend::images))
        .route("/backend-api/codex/alpha/search", post(backend::search))
        .route("/backend-api/codex/responses", get(socket::open).post(responses::respond))
        .route("/backend-api/codex/models", get(backend::models))
        .route("/backend-api/codex/usage", get(backend::usage))
        .route("/backend-api/wham/usage", get(backend::usage))
        .route("/backend-api/wham/accounts/check", get(backend::accounts_check))
        .fallback(backend::not_found)
        .method_not_allowed_fallback(backend::not_found)
        .layer(from_fn_with_state(Arc::clone(&sim), intake::follow))
        .layer(RequestDecompressionLayer::new());
    backend.nest("/sim", control::routes().layer(DefaultBodyLimit::disable())).with_state(sim)
}

/// Accepts connections until the process ends.
async fn accept(listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, router.clone()))),
            // Out of file descriptors, say: others may leave.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

/// Serves one connection. An error ends it without an answer: that is how it hangs up.
async fn serve(stream: TcpStream, router: Router) {
    // Without it small events wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(router.clone(), request));
    let connection = auto::Builder::new(TokioExecutor::new());
    // The client may be gone, or was hung up on: nothing to do about either.
    let _ = connection.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, std::io::Error> {
    let mut request = request.map(Body::new);
    let encoding =
        request.headers().get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(encoding) = encoding {
        request.extensions_mut().insert(WireEncoding(encoding));
    }
    let response: Result<Response, Infallible> = router.oneshot(request).await;
    let Ok(response) = response;
    if response.extensions().get::<HangUp>().is_some() {
        return Err(std::io::Error::other("hung up on command"));
    }
    Ok(response)
}
