//! Waiting for something to become true, with a deadline.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until there is an answer; panics with `what` when there is none in time.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, ask).await
}

/// The same, with a deadline of one's own.
pub(crate) async fn eventually_within<T>(
    deadline: Duration,
    what: impl Debug,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what:?}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}
