//! The top level of a request: which fields the backend refuses, and a reader that keeps the order
//! and the bytes of all others.

use crate::codex::raw::Raw;
use crate::codex::skim;
use crate::dialect::Problem;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Fields that the backend refuses (protocol.md 2.4) and that can be left out without changing what
/// the model is asked; each is named in `x-tollway-ignored`.
pub const DROPPED: [&str; 15] = [
    "max_completion_tokens",
    "max_tool_calls",
    "temperature",
    "top_p",
    "top_logprobs",
    "truncation",
    "user",
    "safety_identifier",
    "prompt_cache_retention",
    "prompt_cache_options",
    "context_management",
    "stream_options",
    "prompt",
    "moderation",
    "seed",
];

/// Fields that ask for what is kept of earlier responses. Whoever keeps has answered them before the
/// request comes here; one that is still there comes by a way on which nothing is kept, and leaving
/// it out would answer another question.
pub const REFUSED: [(&str, &str); 3] = [
    ("previous_response_id", "Tollway keeps no responses here: send the whole conversation in `input`"),
    ("conversation", "Tollway keeps no conversations here: send the whole conversation in `input`"),
    ("background", "Tollway does not run responses in the background here: send the request without `background`"),
];

/// What `metadata` may be: sixteen pairs of text (clients.md 2).
pub(crate) fn check_metadata(value: Raw<'_>) -> Result<(), Problem> {
    #[derive(Deserialize)]
    struct Pairs(BTreeMap<String, String>);
    let fits = |pairs: &Pairs| {
        pairs.0.len() <= 16 && pairs.0.iter().all(|(k, v)| k.chars().count() <= 64 && v.chars().count() <= 512)
    };
    match serde_json::from_str::<Option<Pairs>>(value.get()) {
        Ok(pairs) if pairs.iter().all(fits) => Ok(()),
        _ => Err(Problem::invalid(
            "metadata",
            "`metadata` must be an object of at most 16 texts, of at most 512 characters under names of at most 64",
        )),
    }
}

/// Writes a name as JSON.
pub(super) fn quote(name: &str, out: &mut String) {
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        out.push('"');
        out.push_str(name);
        out.push('"');
    } else {
        out.push_str(&Value::from(name).to_string());
    }
}

/// A JSON object, its members in order, their values as they stand in the body.
pub(crate) struct Members<'a>(pub Vec<(Cow<'a, str>, Raw<'a>)>);

impl<'a> Members<'a> {
    /// Reads an object. What a parser would say of it is said by one.
    pub(crate) fn read(object: &'a [u8]) -> Result<Self, serde_json::Error> {
        let mut members = Vec::with_capacity(20);
        let skimmed = skim::members(object, |name, value| {
            members.push((Cow::Borrowed(std::str::from_utf8(name).ok()?), Raw::skimmed(value)?));
            Some(())
        });
        match skimmed {
            Some(()) => Ok(Self(members)),
            None => serde_json::from_slice(object),
        }
    }

    /// The last value of a member, as JSON readers take it.
    pub(crate) fn get(&self, name: &str) -> Option<Raw<'a>> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The object as JSON, with `changed` in the place of the members of these names; new ones at
    /// its end. All others keep their order and their bytes.
    pub(crate) fn with<V: AsRef<str>>(&self, changed: &[(&'static str, V)]) -> String {
        let size = |value: &str| value.len() + 24;
        let kept: usize = self.0.iter().map(|(name, value)| name.len() + size(value.get())).sum();
        let mut out =
            String::with_capacity(kept + changed.iter().map(|(_, value)| size(value.as_ref())).sum::<usize>());
        let mut put = |name: &str, value: &str| {
            out.push(if out.is_empty() { '{' } else { ',' });
            quote(name, &mut out);
            out.push(':');
            out.push_str(value);
        };
        let mut written = vec![false; changed.len()];
        for (name, value) in &self.0 {
            match changed.iter().position(|(other, _)| other == name) {
                None => put(name, value.get()),
                Some(at) if !written[at] => {
                    written[at] = true;
                    put(name, changed[at].1.as_ref());
                }
                Some(_) => {}
            }
        }
        for ((name, value), _) in changed.iter().zip(&written).filter(|(_, written)| !**written) {
            put(name, value.as_ref());
        }
        if out.is_empty() {
            out.push('{');
        }
        out.push('}');
        out
    }

    /// The object without the members of these names.
    pub(crate) fn lacking(&self, names: &[&str]) -> Self {
        let rest =
            self.0.iter().filter(|(name, _)| !names.contains(&&**name)).map(|(name, value)| (name.clone(), *value));
        Self(rest.collect())
    }

    /// The object as JSON without the members of these names.
    pub(crate) fn without(&self, names: &[&str]) -> String {
        self.lacking(names).with::<&str>(&[])
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(Cow<'de, str>, Raw<'de>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(20);
                while let Some(Name(key)) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}

/// A member's name, borrowed unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text).map(Name)
    }
}
