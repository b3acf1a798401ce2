//! The numbers by which tokens are renewed.

use std::time::Duration;

/// How a token manager times its work. The defaults are those of the configuration.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// An access token with less life than this is renewed before it is used.
    pub min_life: Duration,
    /// A token of unknown end is renewed when the last refresh is this long ago; the CLI's rule
    /// (protocol.md 1.4).
    pub unknown_life: Duration,
    /// How long a caller whose token still lives waits for a better one.
    pub patience: Duration,
    /// How long callers wait once persisting has failed, before they are told to come back.
    pub persist_patience: Duration,
    /// The upper bound of the first pause after a transient failure; doubles from there.
    pub backoff_base: Duration,
    /// The longest pause.
    pub backoff_cap: Duration,
    /// The same two for a failed write of new credentials: short, because a crash would lose them.
    pub persist_base: Duration,
    /// See `persist_base`.
    pub persist_cap: Duration,
    /// How long a stopping server goes on trying to persist.
    pub shutdown_grace: Duration,
    /// How long after a recovery a second 401 means quarantine and not another refresh.
    pub quarantine_window: Duration,
    /// After a refusal: when to look a second time whether another process has stored newer
    /// credentials, whose commit may come after the issuer's answer to us.
    pub second_look: Duration,
    /// How long a refresh token that another process was about to send, and may have sent, is left
    /// alone; at least until an exchange that began at the last moment is over.
    pub doubt: Duration,
    /// Whether a refresh token is tried once more whose sender died or stood still for longer than the
    /// doubt; otherwise the account needs a login.
    pub resend_after_crash: bool,
    /// Refresh ahead: the earliest time before the end.
    pub ahead_longest: Duration,
    /// Refresh ahead: the latest time before the end.
    pub ahead_shortest: Duration,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            min_life: Duration::from_mins(1),
            unknown_life: Duration::from_hours(8 * 24),
            patience: Duration::from_secs(5),
            persist_patience: Duration::from_secs(2),
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_mins(5),
            persist_base: Duration::from_millis(200),
            persist_cap: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(10),
            quarantine_window: Duration::from_mins(1),
            second_look: Duration::from_secs(1),
            doubt: Duration::from_mins(1),
            resend_after_crash: false,
            ahead_longest: Duration::from_mins(30),
            ahead_shortest: Duration::from_mins(10),
        }
    }
}

/// Full jitter: anything from zero to the bound, which doubles with each attempt (counted from
/// zero) up to `cap`. `random` is in 0.0..1.0.
pub(super) fn backoff(base: Duration, cap: Duration, attempt: u32, random: f64) -> Duration {
    let doubled = base.checked_mul(1_u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX));
    let bound = doubled.unwrap_or(cap).min(cap);
    bound.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap_and_jitter_fills_it() {
        let (base, cap) = (Duration::from_secs(1), Duration::from_mins(5));
        let bound = |attempt| backoff(base, cap, attempt, 1.0).as_secs();

        assert_eq!([bound(0), bound(1), bound(2), bound(8)], [1, 2, 4, 256]);
        assert_eq!([bound(9), bound(31), bound(u32::MAX)], [300; 3]);
        assert_eq!(backoff(base, cap, 3, 0.25), Duration::from_secs(2));
        assert_eq!(backoff(base, cap, 3, 0.0), Duration::ZERO);
    }
}
