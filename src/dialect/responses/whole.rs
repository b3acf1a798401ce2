//! One answer out of the events: the final response object, its output filled from the items.
//!
//! The backend leaves `output` empty at the end (protocol.md 3): the truth is in
//! `response.output_item.done`.

use super::fields::Members;
use crate::codex::Event;
use crate::dialect::Folder;
use bytes::Bytes;
use serde_json::value::RawValue;

/// Finished items, by their place in the output.
#[derive(Default)]
pub(super) struct Items(Vec<(u32, Box<RawValue>)>);

impl Items {
    pub(super) fn note(&mut self, event: &Event<'_>) {
        if let Event::ItemDone(done) = event {
            let (index, item) = (done.output_index, done.raw.to_owned());
            // An item that comes twice is the same item, finished again.
            match self.0.iter_mut().find(|(at, _)| *at == index) {
                Some(slot) => slot.1 = item,
                None => self.0.push((index, item)),
            }
        }
    }

    /// The response object with its output filled, unless the backend filled it itself.
    pub(super) fn fill(&mut self, response: &RawValue) -> Option<String> {
        let members: Members<'_> = serde_json::from_str(response.get()).ok()?;
        let is_empty = members.get("output").is_none_or(|output| {
            let inner = output.get().trim_start_matches('[').trim_end_matches(']');
            output.get() == "null" || inner.trim().is_empty()
        });
        if !is_empty {
            return None;
        }
        self.0.sort_by_key(|(index, _)| *index);
        let items: Vec<_> = self.0.iter().map(|(_, item)| item.get()).collect();
        let mut filled = String::with_capacity(response.get().len() + items.iter().map(|i| i.len() + 1).sum::<usize>());
        for (name, value) in members.0.iter().filter(|(name, _)| name != "output") {
            filled.push(if filled.is_empty() { '{' } else { ',' });
            filled.push_str(&serde_json::to_string(name).ok()?);
            filled.push(':');
            filled.push_str(value.get());
        }
        filled.push_str(if filled.is_empty() { "{\"output\":[" } else { ",\"output\":[" });
        filled.push_str(&items.join(","));
        filled.push_str("]}");
        Some(filled)
    }
}

/// Folds a Responses stream into its response object.
#[derive(Default)]
pub(super) struct Whole {
    items: Items,
    response: Option<String>,
}

impl Folder for Whole {
    fn event(&mut self, event: &Event<'_>) {
        self.items.note(event);
        if let Event::Completed(response) | Event::Incomplete(response) = event {
            self.response = Some(self.items.fill(response.raw).unwrap_or_else(|| response.raw.get().to_owned()));
        }
    }

    fn finish(self: Box<Self>) -> Bytes {
        Bytes::from(self.response.unwrap_or_default())
    }
}
