//! Finding the one that an operator means: by id, name, another label, or the start of an id.

use super::error::{Result, StoreError};

/// Shorter starts of an id match too much to be meant.
const SHORTEST_PREFIX: usize = 6;

/// What an operator may call a thing by.
pub(super) trait Labelled {
    /// `account` or `key`; for messages.
    const WHAT: &'static str;

    fn id(&self) -> String;
    fn name(&self) -> &str;
    /// Other labels, which need not be unique: an account's email, a key's visible start.
    fn is_also_called(&self, asked: &str) -> bool;
    /// Whether it is in use, so that its predecessors do not stand in the way of its name.
    fn is_current(&self) -> bool;
}

/// Chooses what `asked` means. An id wins over a name, a name over the other labels and the start
/// of an id; among several of one name, the only one still in use wins.
pub(super) fn choose<T: Labelled>(all: Vec<T>, asked: &str) -> Result<T> {
    let asked = asked.trim();
    let id_start = asked.replace('-', "").to_ascii_lowercase();
    let ranks: [&dyn Fn(&T) -> bool; 3] =
        [&|one| one.id().eq_ignore_ascii_case(asked), &|one| one.name() == asked, &|one| {
            one.is_also_called(asked)
                || id_start.len() >= SHORTEST_PREFIX && one.id().replace('-', "").starts_with(&id_start)
        }];
    let mut rest = if asked.is_empty() { Vec::new() } else { all };
    for matches in ranks {
        let (found, others): (Vec<T>, Vec<T>) = rest.into_iter().partition(matches);
        if !found.is_empty() {
            return only_one(found, asked);
        }
        rest = others;
    }
    Err(StoreError::NotFound { what: T::WHAT, asked: asked.to_owned() })
}

fn only_one<T: Labelled>(found: Vec<T>, asked: &str) -> Result<T> {
    let matches = found.iter().map(|one| format!("{} ({})", one.name(), one.id())).collect();
    let alone = found.len() == 1;
    let mut candidates = found.into_iter().filter(|one| alone || one.is_current());
    match (candidates.next(), candidates.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(StoreError::Ambiguous { what: T::WHAT, asked: asked.to_owned(), matches }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Thing(&'static str, &'static str, &'static str, bool);

    impl Labelled for Thing {
        const WHAT: &'static str = "thing";
        fn id(&self) -> String {
            self.0.to_owned()
        }
        fn name(&self) -> &str {
            self.1
        }
        fn is_also_called(&self, asked: &str) -> bool {
            self.2.eq_ignore_ascii_case(asked)
        }
        fn is_current(&self) -> bool {
            self.3
        }
    }

    const ADA: Thing = Thing("01890000-aaaa", "ada", "team@example.org", true);
    const BOB: Thing = Thing("01890000-bbbb", "bob", "team@example.org", true);
    const OLD_BOB: Thing = Thing("01880000-cccc", "bob", "", false);

    fn find(asked: &str) -> Result<Thing> {
        choose(vec![ADA, BOB, OLD_BOB], asked)
    }

    #[test]
    fn an_id_its_start_a_name_and_a_label_all_find() {
        for asked in ["01890000-aaaa", "01890000-a", "01890000a", "ada", " ada "] {
            assert_eq!(find(asked).unwrap(), ADA, "{asked}");
        }
        assert_eq!(choose(vec![ADA, OLD_BOB], "TEAM@example.org").unwrap(), ADA);
    }

    #[test]
    fn the_one_in_use_has_the_name() {
        assert_eq!(find("bob").unwrap(), BOB);
        assert_eq!(choose(vec![ADA, OLD_BOB], "bob").unwrap(), OLD_BOB);
    }

    #[test]
    fn what_could_be_two_is_refused_with_both_named() {
        for asked in ["team@example.org", "01890000"] {
            let message = find(asked).unwrap_err().to_string();
            assert!(message.contains("ada (01890000-aaaa), bob (01890000-bbbb)"), "{message}");
        }
    }

    #[test]
    fn a_start_of_fewer_than_six_characters_finds_nothing() {
        assert!(matches!(find("0188"), Err(StoreError::NotFound { .. })));
        assert!(matches!(find(""), Err(StoreError::NotFound { .. })));
    }
}
