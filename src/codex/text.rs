//! Text in JSON that may be missing, without a copy of it.

use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// For `deserialize_with`: borrows where the text has no escapes. Under an `Option`, serde's own
/// `borrow` still gives a copy.
pub(crate) fn borrowed<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'a>>::deserialize(deserializer)?.map(|text| text.0))
}
