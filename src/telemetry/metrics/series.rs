//! Series at hand: to find one by its labels costs more than to add to it, and a request adds to twenty.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::{kinds, names};
use crate::codex::Usage;
use ::metrics::{Counter, Histogram, counter, histogram};
use std::borrow::Cow;

/// Series by their labels, each made when it is wanted first. There are as many as there are labels,
/// which are bounded.
pub(super) struct Kept<L, S>(OnceLock<RwLock<HashMap<L, Arc<S>>>>);

impl<L: Eq + Hash, S> Kept<L, S> {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    pub(super) fn of(&self, labels: L, begin: impl FnOnce(&L) -> S) -> Arc<S> {
        let all = self.0.get_or_init(RwLock::default);
        if let Some(known) = all.read().unwrap_or_else(PoisonError::into_inner).get(&labels) {
            return Arc::clone(known);
        }
        let series = Arc::new(begin(&labels));
        Arc::clone(all.write().unwrap_or_else(PoisonError::into_inner).entry(labels).or_insert(series))
    }
}

/// Counters of tokens, by kind. There are none before there are tokens.
#[derive(Default)]
pub(super) struct Tokens(OnceLock<[Counter; 4]>);

impl Tokens {
    pub(super) fn add(&self, usage: Usage, begin: impl Fn(&'static str) -> Counter) {
        let counters = self.0.get_or_init(|| kinds(usage).map(|(kind, _)| begin(kind)));
        for (counter, (_, tokens)) in counters.iter().zip(kinds(usage)) {
            counter.increment(tokens);
        }
    }
}

/// Labels.
pub(super) type DialectAndModel = [(&'static str, Cow<'static, str>); 2];

/// What requests of a dialect, for a model, with a status add to.
pub(super) struct Requests {
    pub(super) number: Counter,
    pub(super) duration: Histogram,
    pub(super) first_byte: OnceLock<Histogram>,
    pub(super) overhead: OnceLock<Histogram>,
    /// What the backend reported, and what was estimated: apart, as in the books, so that what was
    /// reported can be checked against the backend to the token.
    pub(super) reported: Tokens,
    pub(super) estimated: Tokens,
    pub(super) cost: OnceLock<Counter>,
}

impl Requests {
    pub(super) fn new(labels: &DialectAndModel, status: u16) -> Self {
        let [dialect, model] = labels.clone();
        Self {
            number: counter!(names::REQUESTS.name, &[dialect, model, ("status", status.to_string().into())]),
            duration: histogram!(names::DURATION.name, labels),
            first_byte: OnceLock::new(),
            overhead: OnceLock::new(),
            reported: Tokens::default(),
            estimated: Tokens::default(),
            cost: OnceLock::new(),
        }
    }
}

/// What the requests of a team, or of a key, add to.
pub(super) struct Holders {
    pub(super) requests: Counter,
    pub(super) tokens: Tokens,
    pub(super) cost: OnceLock<Counter>,
}

impl Holders {
    pub(super) fn new(requests: Counter) -> Self {
        Self { requests, tokens: Tokens::default(), cost: OnceLock::new() }
    }
}

/// What calls of the backend for a model add to.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) first_chunk: OnceLock<Histogram>,
    pub(super) chunk: OnceLock<Histogram>,
    /// Of those that ended well.
    pub(super) duration: OnceLock<Histogram>,
    /// Input and output.
    pub(super) tokens: OnceLock<[Histogram; 2]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_series_is_begun_once_for_its_labels() {
        static SERIES: Kept<(&'static str, u16), u32> = Kept::new();
        let begun = AtomicU32::new(0);
        let of = |labels| *SERIES.of(labels, |_| begun.fetch_add(1, Ordering::Relaxed));
        assert_eq!((of(("chat", 200)), of(("chat", 429)), of(("chat", 200))), (0, 1, 0));
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| assert_eq!(of(("chat", 429)), 1));
            }
        });
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
