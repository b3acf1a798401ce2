//! Tool names and call ids within the backend's bounds: at most 64 characters of `[A-Za-z0-9_-]`
//! (names), at most 64 characters (ids).
//!
//! A name is shortened by a pure function, so that the same tool has the same name in the list of
//! tools, in the history and in the next turn, and the prompt cache keeps matching.

use aws_lc_rs::digest;
use std::borrow::Cow;
use std::collections::HashMap;

/// The longest name or id that the backend takes.
const LIMIT: usize = 64;

/// `_` and eight hexadecimal digits.
const TAIL: usize = 9;

/// The changed names of one request, to be restored in its answer.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, String>);

impl Names {
    /// The name that goes upstream for a tool that the request offers.
    pub(super) fn offer(&mut self, name: &str) -> String {
        let short = shorten(name);
        if let Cow::Owned(short) = &short {
            self.0.insert(short.clone(), name.to_owned());
        }
        short.into_owned()
    }

    /// The client's name for a tool that the backend calls.
    pub(super) fn restore<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }
}

/// The name that goes upstream. A changed name ends in a hash of the original, so that two long
/// names with the same beginning stay two.
pub(super) fn shorten(name: &str) -> Cow<'_, str> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.len() <= LIMIT && name.chars().all(is_legal) {
        return Cow::Borrowed(name);
    }
    let head: String = name.chars().take(LIMIT - TAIL).map(|c| if is_legal(c) { c } else { '_' }).collect();
    Cow::Owned(format!("{head}_{}", fingerprint(name)))
}

/// The call id that goes upstream: as it is unless it is too long or empty.
pub(super) fn call_id(id: &str) -> Cow<'_, str> {
    if !id.is_empty() && id.len() <= LIMIT {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("call_{}", fingerprint(id)))
}

fn fingerprint(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(4).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legal_name_is_kept_and_an_illegal_one_comes_back() {
        assert!(matches!(shorten("mcp__github__create_issue"), Cow::Borrowed(_)));
        let mut names = Names::default();
        let long = |end: &str| format!("mcp__{}__{end}", "server".repeat(12));
        let (one, two, bad) = (names.offer(&long("one")), names.offer(&long("two")), names.offer("käse.list"));
        assert!([&one, &two, &bad].iter().all(|name| name.len() <= LIMIT && name.is_ascii()));
        assert_ne!(one, two);
        assert_eq!((names.restore(&one), names.restore(&bad)), (long("one").as_str(), "käse.list"));
        assert_eq!(shorten(&long("one")), one, "the history gets the same name");
    }

    #[test]
    fn an_overlong_call_id_is_the_same_on_both_sides() {
        let id = "x".repeat(100);
        assert_eq!(call_id(&id), call_id(&id));
        assert!(call_id(&id).len() <= LIMIT);
        assert_eq!(call_id("call_1"), "call_1");
    }
}
