//! What one of several processes does for all of them: whoever holds the lease of a duty does it, for
//! as long as it is sure to hold it. A file has one server, which does everything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Lease, Store};

/// How long the lease lasts if it is not renewed: for so long nobody does the duty of a process that
/// was killed.
const TTL: Duration = Duration::from_secs(5);
/// How often it is renewed, and how long a call may take.
const RENEW: Duration = Duration::from_millis(1_600);
/// The holder stops so long before the others may begin: what it has begun meanwhile is small.
const MARGIN: Duration = Duration::from_millis(500);
/// How long others wait beyond the end of the lease that they have seen.
const BEHIND: Duration = Duration::from_millis(200);

/// Whether this process does what one does for all. Clones say the same.
#[derive(Debug, Clone)]
pub struct Duty {
    /// Until when it is ours for certain; none where nobody else is there.
    until: Option<Arc<Mutex<Option<Instant>>>>,
}

impl Duty {
    /// A duty that is ours, and nobody else's.
    pub fn alone() -> Self {
        Self { until: None }
    }

    fn contested() -> Self {
        Self { until: Some(Arc::default()) }
    }

    /// Whether it is ours now. To be asked before each single piece of work: a process that has
    /// stood still finds that it is no more.
    pub fn is_ours(&self) -> bool {
        let Some(until) = &self.until else { return true };
        until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn hold(&self, to: Option<Instant>) {
        if let Some(until) = &self.until {
            *until.lock().unwrap_or_else(PoisonError::into_inner) = to;
        }
    }
}

impl Store {
    /// A duty that processes take turns in, and the work of taking it, to be run until `stop`.
    /// `holder` is one word for this run of this process.
    pub fn lead(
        &self,
        duty: &'static str,
        holder: String,
        stop: CancellationToken,
    ) -> (Duty, impl Future<Output = ()> + Send + 'static) {
        let ours = if self.is_shared() { Duty::contested() } else { Duty::alone() };
        let campaign = Campaign { store: self.clone(), duty, holder, ours: ours.clone(), lease: None };
        (ours, campaign.run(stop))
    }
}

struct Campaign {
    store: Store,
    duty: &'static str,
    holder: String,
    ours: Duty,
    lease: Option<Lease>,
}

impl Campaign {
    async fn run(mut self, stop: CancellationToken) {
        if !self.store.is_shared() {
            return;
        }
        loop {
            let pause = tokio::select! {
                () = stop.cancelled() => break,
                pause = self.round() => pause,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.ours.hold(None);
        if let Some(lease) = self.lease.take() {
            // The next one need not wait for its end; if this fails, it does.
            let _ = timeout(RENEW, self.store.leases().release(&lease)).await;
            tracing::info!(duty = self.duty, "what is done once for all replicas is left to others");
        }
    }

    /// Renews, or looks whether the lease is to be had. Gives the time to wait.
    async fn round(&mut self) -> Duration {
        // Before the question: the lease began to last at the earliest then.
        let asked = Instant::now();
        let certain = asked + TTL.saturating_sub(MARGIN);
        if let Some(lease) = &self.lease {
            match timeout(RENEW, self.store.leases().renew(lease, TTL)).await {
                Ok(Ok(true)) => self.ours.hold(Some(certain)),
                Ok(Ok(false)) => {
                    tracing::warn!(duty = self.duty, "another replica does now what is done once for all of them");
                    self.lease = None;
                    self.ours.hold(None);
                }
                // It is ours until it ends by itself.
                Ok(Err(_)) | Err(_) => {}
            }
            return RENEW.saturating_sub(asked.elapsed());
        }
        match timeout(RENEW, self.store.leases().look(self.duty)).await {
            Ok(Ok(Some(held))) if !held.left.is_zero() => return held.left.min(TTL) + BEHIND.mul_f64(fastrand::f64()),
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return RENEW,
        }
        if let Ok(Ok(Some(lease))) = timeout(RENEW, self.store.leases().take(self.duty, &self.holder, TTL)).await {
            tracing::info!(duty = self.duty, "this replica does now what is done once for all of them");
            self.lease = Some(lease);
            // Asked before the look: the lease began later, so this errs towards too short.
            self.ours.hold(Some(certain));
        }
        RENEW.saturating_sub(asked.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_duty_is_ours_until_its_time_is_over_and_not_a_moment_longer() {
        assert!(Duty::alone().is_ours());
        let duty = Duty::contested();
        assert!(!duty.is_ours());
        duty.hold(Some(Instant::now() + Duration::from_secs(4)));
        let elsewhere = duty.clone();
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(elsewhere.is_ours());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!elsewhere.is_ours());
    }
}
