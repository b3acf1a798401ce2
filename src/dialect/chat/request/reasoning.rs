//! Reasoning that a client gives back: `reasoning_details` of an assistant's message, in the form in
//! which we gave it out.

use super::fields::{self, Ignored};
use crate::codex::raw::Raw;
use crate::codex::request::InputItem;
use crate::dialect::signature;
use serde::Deserialize;
use std::borrow::Cow;

/// One of the details; only the encrypted ones have `data`.
#[derive(Debug, Deserialize)]
struct Detail<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
    data: Option<Cow<'a, str>>,
}

/// The reasoning among the details that the backend can continue from. What is only to be read needs
/// no way back; what another provider sealed is left out and named. Some clients keep a detail with
/// each call it led to, so the same one counts once.
pub(super) fn items(details: &[Raw<'_>], ignored: &mut Ignored) -> Vec<InputItem> {
    let mut sealed: Vec<Cow<'_, str>> = Vec::new();
    for raw in details {
        if let Ok(Detail { kind, data: Some(data) }) = serde_json::from_str(raw.get())
            && kind == "reasoning.encrypted"
            && !sealed.contains(&data)
        {
            sealed.push(data);
        }
    }
    let mut items = Vec::with_capacity(sealed.len());
    for sealed in sealed {
        match signature::open(&sealed) {
            Some(encrypted) => {
                let encrypted_content = encrypted.to_owned();
                items.push(InputItem::Reasoning { summary: Vec::new(), encrypted_content });
            }
            None => ignored.add(fields::REASONING_DETAILS),
        }
    }
    items
}
