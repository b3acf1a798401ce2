//! A JSON value as it is written.

use super::skim;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A JSON value as it stands in a text that was found to be legible. Unlike the library's it can be
/// taken out of what was skimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// As it is written.
    pub fn get(self) -> &'a str {
        self.0
    }

    /// A whole text, if it is one value.
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(text).map(Self::from)
    }

    /// What the skimmer has found within a text. Cut at characters of ASCII, so that it is text itself.
    pub(crate) fn skimmed(value: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(value).ok().map(Self)
    }

    /// The elements of a list.
    pub fn elements(self) -> Result<Vec<Self>, serde_json::Error> {
        let mut elements = Vec::new();
        let skimmed = skim::elements(self.0.as_bytes(), |value| {
            elements.push(Self::skimmed(value)?);
            Some(())
        });
        match skimmed {
            Some(()) => Ok(elements),
            None => serde_json::from_str(self.0),
        }
    }
}

impl<'a> From<&'a RawValue> for Raw<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::from)
    }
}
