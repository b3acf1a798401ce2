//! The end: signals, and draining.

use super::assemble::unix_millis;
use super::state::State;
use crate::telemetry::metrics;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal as unix_signal};

/// Waits for SIGTERM or SIGINT. From the call on, not from the first look, neither kills the process:
/// whoever has seen that it is ready may tell it to stop.
pub fn signal() -> impl Future<Output = ()> {
    // As process 1 in a container nothing but a handler makes SIGTERM count.
    let (terminate, interrupt) = (unix_signal(SignalKind::terminate()), unix_signal(SignalKind::interrupt()));
    async {
        tokio::select! {
            () = received(terminate) => tracing::info!("SIGTERM: draining"),
            () = received(interrupt) => tracing::info!("SIGINT: draining"),
        }
    }
}

async fn received(signal: std::io::Result<Signal>) {
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "a signal handler could not be set");
            std::future::pending::<()>().await;
        }
    }
}

/// Readiness goes red; after `delay` new requests are refused, and those that run may finish within
/// `grace`.
pub(super) async fn drain(state: &State, delay: Duration, grace: Duration) {
    state.draining.store(true, Ordering::Relaxed);
    let longest = delay + grace + 2 * super::LAST_WRITES;
    metrics::draining(unix_millis().saturating_add(i64::try_from(longest.as_millis()).unwrap_or(i64::MAX)) / 1000);
    // Load balancers need a moment to see that readiness is red, and send requests until then.
    tokio::time::sleep(delay).await;
    state.closing.cancel();
    state.running.close();
    tokio::select! {
        () = state.running.wait() => tracing::info!("every request has finished"),
        () = tokio::time::sleep(grace) => {
            tracing::warn!(running = state.running.len(), "the grace is over; requests that still run are cut");
        }
    }
}
