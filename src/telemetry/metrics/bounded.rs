//! Names that are not ours, as labels: their number is bounded.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What stands for all the others.
const OTHER: &str = "other";

/// A set of names that only grows, up to a limit.
#[derive(Debug)]
pub(super) struct Bounded(OnceLock<Mutex<HashSet<String>>>);

impl Bounded {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The name itself if it is known, or becomes so now; else `other`, which is not owned.
    /// `worthy` says whether it may become known.
    pub(super) fn label(&self, name: &str, worthy: bool, limit: usize) -> Cow<'static, str> {
        let known = self.0.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(name) || (worthy && known.len() < limit && known.insert(name.to_owned())) {
            return Cow::Owned(name.to_owned());
        }
        Cow::Borrowed(OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_once_it_was_worthy_and_their_number_is_bounded() {
        let models = Bounded::new();
        let label = |name: &str, worthy| models.label(name, worthy, 64);
        assert_eq!(label("made-up", false), "other");
        assert_eq!(label("gpt-x", true), "gpt-x");
        assert_eq!(label("gpt-x", false), "gpt-x");
        for n in 0..128 {
            label(&format!("m{n}"), true);
        }
        assert_eq!(label("one-more", true), "other");
        assert_eq!(label("gpt-x", true), "gpt-x");
    }
}
