//! One answer out of the events: the final response object, its output filled from the items.
//!
//! The backend leaves `output` empty at the end (protocol.md 3): the truth is in
//! `response.output_item.done`.

use super::echo::Echo;
use super::fields::Members;
use crate::codex::Event;
use crate::codex::raw::Raw;
use crate::dialect::Folder;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Finished items, by their place in the output.
#[derive(Default)]
pub(super) struct Items(Vec<Finished>);

struct Finished {
    index: u32,
    id: Option<String>,
    raw: Box<str>,
}

impl Items {
    pub(super) fn note(&mut self, event: &Event<'_>) {
        if let Event::ItemDone(done) = event {
            self.add(done.output_index, done.raw);
        }
    }

    /// The same for items that nobody has finished.
    pub(super) fn note_all(&mut self, items: &[(u32, Box<RawValue>)]) {
        for (index, raw) in items {
            self.add(*index, raw.as_ref().into());
        }
    }

    fn add(&mut self, index: u32, raw: Raw<'_>) {
        #[derive(Default, Deserialize)]
        struct Named {
            #[serde(default)]
            id: Option<String>,
        }
        let Named { id } = serde_json::from_str(raw.get()).unwrap_or_default();
        let item = Finished { index, id, raw: raw.get().into() };
        // An item that comes twice is the same item, finished again. The place alone does not
        // tell: where indexes are left out, all are 0.
        let is_same = |old: &Finished| old.index == item.index && (old.id == item.id || item.id.is_none());
        match self.0.iter_mut().find(|old| is_same(old)) {
            Some(slot) => *slot = item,
            None => self.0.push(item),
        }
    }

    /// The response object with what SDKs need and the backend left out: its items in `output`,
    /// counts in `usage`, and the members of `echo`. `None` where nothing is missing.
    pub(super) fn fill(&mut self, response: Raw<'_>, echo: &Echo) -> Option<String> {
        let members = Members::read(response.get().as_bytes()).ok()?;
        let mut added: Vec<(&'static str, String)> = Vec::new();
        if members.get("output").is_none_or(is_empty) && (!self.0.is_empty() || members.get("output").is_none()) {
            self.0.sort_by_key(|item| item.index);
            let items: Vec<_> = self.0.iter().map(|item| &*item.raw).collect();
            added.push(("output", format!("[{}]", items.join(","))));
        }
        added.extend(members.get("usage").and_then(with_details).map(|usage| ("usage", usage)));
        echo.apply(&members, added)
    }
}

fn is_empty(output: Raw<'_>) -> bool {
    let inner = output.get().trim_start_matches('[').trim_end_matches(']');
    output.get() == "null" || inner.trim().is_empty()
}

/// Counts that SDKs' types require and the backend may leave out.
const DETAILS: [(&str, &str); 3] = [
    ("input_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cache_write_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
];

/// The usage with its details; `None` if they are there, or if it is no usage.
fn with_details(usage: Raw<'_>) -> Option<String> {
    let mut usage: Map<String, Value> = serde_json::from_str(usage.get()).ok()?;
    let mut is_changed = false;
    for (details, count) in DETAILS {
        let details = usage.entry(details).or_insert(Value::Null);
        if !details.is_object() {
            *details = json!({});
        }
        if details[count].is_null() {
            details[count] = json!(0);
            is_changed = true;
        }
    }
    is_changed.then(|| Value::Object(usage).to_string())
}

/// Folds a Responses stream into its response object.
pub(super) struct Whole {
    items: Items,
    echo: Arc<Echo>,
    response: Option<String>,
}

impl Whole {
    pub(super) fn new(echo: Arc<Echo>) -> Self {
        Self { items: Items::default(), echo, response: None }
    }

    /// Ends the answer before the backend does: with these items beside those that are finished.
    pub(super) fn incomplete(&mut self, open: &[(u32, Box<RawValue>)], response: Raw<'_>) {
        self.items.note_all(open);
        let filled = self.items.fill(response, &self.echo);
        self.response = Some(filled.unwrap_or_else(|| response.get().to_owned()));
    }
}

impl Folder for Whole {
    fn event(&mut self, event: &Event<'_>) {
        self.items.note(event);
        if let Event::Completed(response) | Event::Incomplete(response) = event {
            let filled = self.items.fill(response.raw, &self.echo);
            self.response = Some(filled.unwrap_or_else(|| response.raw.get().to_owned()));
        }
    }

    fn finish(self: Box<Self>) -> Bytes {
        Bytes::from(self.response.unwrap_or_default())
    }
}
