//! The circuit breaker of one account: after several failures in a row it is left alone for a
//! while, then one request finds out whether it works again.
//!
//! Only failures that an account may be to blame for count here; a limit is no failure, and an
//! overload is the backend's own.

use crate::store::UnixMillis;

/// Failures in a row that open the circuit.
const THRESHOLD: u32 = 5;
/// The first pause, milliseconds; it doubles each time a trial fails.
const FIRST: i64 = 10_000;
/// The longest pause, milliseconds, jitter included.
pub const LONGEST: i64 = 360_000;
/// A trial that has not ended by then, milliseconds, ended without telling: another may begin.
const TRIAL: i64 = 600_000;

/// What a breaker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Circuit {
    /// Requests flow.
    #[default]
    Closed,
    /// None until then; from then on one, as a trial.
    Open(UnixMillis),
    /// A trial is under way.
    OnTrial,
}

/// An account's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// How often it has opened since it was last closed.
    opened: u32,
    /// Until when it is open, if it is.
    until: Option<UnixMillis>,
    /// When the trial under way began.
    trial: Option<UnixMillis>,
}

impl Breaker {
    /// What it says at `now`.
    pub fn circuit(&self, now: UnixMillis) -> Circuit {
        match (self.until, self.trial) {
            (None, _) => Circuit::Closed,
            // A clock set back far would hold a trial for ever.
            (Some(_), Some(began)) if (0..TRIAL).contains(&now.saturating_sub(began)) => Circuit::OnTrial,
            // No pause is so long: the clock was set back.
            (Some(until), _) if until.saturating_sub(now) > LONGEST => Circuit::Open(now),
            (Some(until), _) => Circuit::Open(until),
        }
    }

    /// A request begins. Of an open circuit it is the trial, which is what this says.
    pub fn begin(&mut self, now: UnixMillis) -> bool {
        if matches!(self.circuit(now), Circuit::Open(until) if until <= now) {
            self.trial = Some(now);
            return true;
        }
        false
    }

    /// The trial ended without telling anything: its client left, or the caller was at fault.
    pub fn trial_ended(&mut self) {
        self.trial = None;
    }

    /// The account answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The account failed; `random` in 0.0..1.0 spreads the pauses. Says whether that opened the
    /// circuit.
    pub fn failed(&mut self, now: UnixMillis, random: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let on_trial = self.trial.take().is_some();
        let is_open = self.until.is_some();
        if (is_open && !on_trial) || (!is_open && self.failures < THRESHOLD) {
            return false;
        }
        let pause = FIRST.saturating_mul(1 << self.opened.min(5)).min(LONGEST * 5 / 6);
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "minutes in milliseconds")]
        let jitter = (pause as f64 * 0.2 * random) as i64;
        self.opened = self.opened.saturating_add(1);
        self.until = Some(now.saturating_add(pause + jitter));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tripped(now: UnixMillis) -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=THRESHOLD {
            assert_eq!(breaker.failed(now, 0.0), n == THRESHOLD);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_a_success_in_between_starts_the_count_again() {
        let mut breaker = Breaker::default();
        for _ in 0..THRESHOLD - 1 {
            breaker.failed(0, 0.0);
        }
        breaker.succeeded();
        breaker.failed(0, 0.0);
        assert_eq!(breaker.circuit(0), Circuit::Closed);
        assert_eq!(tripped(0).circuit(0), Circuit::Open(FIRST));
    }

    #[test]
    fn one_trial_at_a_time_closes_it_or_doubles_the_pause() {
        let mut breaker = tripped(0);
        breaker.begin(FIRST);
        assert_eq!(breaker.circuit(FIRST), Circuit::OnTrial);
        assert!(breaker.failed(FIRST, 0.0));
        assert_eq!(breaker.circuit(FIRST), Circuit::Open(3 * FIRST));
        breaker.begin(3 * FIRST);
        breaker.succeeded();
        assert_eq!(breaker.circuit(3 * FIRST), Circuit::Closed);
    }

    #[test]
    fn requests_that_were_under_way_when_it_opened_do_not_lengthen_the_pause() {
        let mut breaker = tripped(0);
        assert!(!breaker.failed(5, 0.0));
        assert_eq!(breaker.circuit(5), Circuit::Open(FIRST));
    }

    #[test]
    fn a_trial_whose_client_left_makes_room_for_another() {
        let mut breaker = tripped(0);
        assert!(breaker.begin(FIRST));
        breaker.trial_ended();
        assert_eq!(breaker.circuit(FIRST), Circuit::Open(FIRST));
        breaker.begin(FIRST);
        assert_eq!(breaker.circuit(FIRST + TRIAL), Circuit::Open(FIRST), "one that never told");
    }

    #[test]
    fn neither_many_failures_nor_a_clock_that_is_set_back_keep_it_open_for_long() {
        let mut breaker = tripped(0);
        let mut now = 0;
        for _ in 0..100 {
            let Circuit::Open(until) = breaker.circuit(now) else { panic!("open") };
            assert!(until - now <= LONGEST);
            now = until;
            breaker.begin(now);
            breaker.failed(now, 0.999);
        }
        let before = now - 3_600_000;
        assert_eq!(breaker.circuit(before), Circuit::Open(before), "a trial may begin");
    }
}
