//! When a stream's writes wait for what may come together with them.

/// Whether it is worth asking the connection for more before a write. That costs turns of the scheduler,
/// so it is not done each time while events come one by one; a burst is noticed within a few events.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// How many writes in a row had nothing to wait for.
    in_vain: u32,
}

impl Drain {
    /// So many times it is asked in vain …
    const PATIENCE: u32 = 2;
    /// … and from then on at every so many writes.
    const EVERY: u32 = 8;

    /// Before a write.
    pub(super) fn is_due(&mut self) -> bool {
        self.in_vain = self.in_vain.saturating_add(1);
        self.in_vain <= Self::PATIENCE || self.in_vain.is_multiple_of(Self::EVERY)
    }

    /// Whether there was something.
    pub(super) fn found(&mut self, some: bool) {
        if some {
            self.in_vain = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of so many writes asks, where there is never anything.
    fn asks(drain: &mut Drain, writes: usize) -> Vec<bool> {
        (0..writes).map(|_| drain.is_due()).collect()
    }

    #[test]
    fn single_events_leave_at_once_and_a_burst_is_noticed() {
        let mut drain = Drain::default();
        let lonely = asks(&mut drain, 80);
        assert_eq!(lonely.iter().filter(|asked| **asked).count(), 2 + 10, "{lonely:?}");
        while !drain.is_due() {}
        drain.found(true);
        for _ in 0..100 {
            assert!(drain.is_due(), "a burst is drained");
            drain.found(true);
        }
        drain.found(false);
        assert_eq!(asks(&mut drain, 3), [true, true, false]);
    }
}
