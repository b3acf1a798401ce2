//! One answer out of the events: the final response object, its output filled from the items.
//!
//! The backend leaves `output` empty at the end (protocol.md 3): the truth is in
//! `response.output_item.done`.

use super::fields::Members;
use crate::codex::Event;
use crate::dialect::{Context, Folder};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// Finished items, by their place in the output.
#[derive(Default)]
pub(super) struct Items(Vec<Finished>);

struct Finished {
    index: u32,
    id: Option<String>,
    raw: Box<RawValue>,
}

impl Items {
    pub(super) fn note(&mut self, event: &Event<'_>) {
        #[derive(Default, Deserialize)]
        struct Named {
            #[serde(default)]
            id: Option<String>,
        }
        if let Event::ItemDone(done) = event {
            let Named { id } = serde_json::from_str(done.raw.get()).unwrap_or_default();
            let item = Finished { index: done.output_index, id, raw: done.raw.to_owned() };
            // An item that comes twice is the same item, finished again. The place alone does not
            // tell: where indexes are left out, all are 0.
            let is_same = |old: &Finished| old.index == item.index && (old.id == item.id || item.id.is_none());
            match self.0.iter_mut().find(|old| is_same(old)) {
                Some(slot) => *slot = item,
                None => self.0.push(item),
            }
        }
    }

    /// The response object with what SDKs need and the backend left out: its items in `output`, and
    /// the members of [`Absent`]. `None` where nothing is missing.
    pub(super) fn fill(&mut self, response: &RawValue, absent: &Absent<'_>) -> Option<String> {
        let members: Members<'_> = serde_json::from_str(response.get()).ok()?;
        let mut added: Vec<(&str, String)> = Vec::new();
        if members.get("output").is_none_or(is_empty) {
            self.0.sort_by_key(|item| item.index);
            let items: Vec<_> = self.0.iter().map(|item| item.raw.get()).collect();
            added.push(("output", format!("[{}]", items.join(","))));
        }
        for (name, value) in absent.members() {
            if members.get(name).is_none() {
                added.push((name, value));
            }
        }
        added.extend(members.get("usage").and_then(with_details).map(|usage| ("usage", usage)));
        if added.is_empty() {
            return None;
        }
        let mut filled =
            String::with_capacity(response.get().len() + added.iter().map(|(_, v)| v.len() + 16).sum::<usize>());
        let kept = members.0.iter().filter(|(name, _)| added.iter().all(|(other, _)| other != name));
        let kept = kept.map(|(name, value)| (&**name, value.get()));
        for (name, value) in kept.chain(added.iter().map(|(name, value)| (*name, value.as_str()))) {
            filled.push(if filled.is_empty() { '{' } else { ',' });
            filled.push_str(&serde_json::to_string(name).ok()?);
            filled.push(':');
            filled.push_str(value);
        }
        filled.push('}');
        Some(filled)
    }
}

/// What stands in a response object where the backend says nothing.
pub(super) struct Absent<'a> {
    /// The model as the client named it.
    pub(super) model: &'a str,
    /// Unix seconds.
    pub(super) created_at: i64,
}

impl Absent<'_> {
    /// What the SDKs' types require of a response object.
    fn members(&self) -> [(&'static str, String); 6] {
        [
            ("object", json!("response").to_string()),
            ("created_at", self.created_at.to_string()),
            ("model", json!(self.model).to_string()),
            ("parallel_tool_calls", json!(true).to_string()),
            ("tool_choice", json!("auto").to_string()),
            ("tools", json!([]).to_string()),
        ]
    }
}

fn is_empty(output: &RawValue) -> bool {
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
fn with_details(usage: &RawValue) -> Option<String> {
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
    model: String,
    created_at: i64,
    response: Option<String>,
}

impl Whole {
    pub(super) fn new(context: &Context, model: &str) -> Self {
        Self { items: Items::default(), model: model.to_owned(), created_at: context.now, response: None }
    }
}

impl Folder for Whole {
    fn event(&mut self, event: &Event<'_>) {
        self.items.note(event);
        if let Event::Completed(response) | Event::Incomplete(response) = event {
            let absent = Absent { model: &self.model, created_at: self.created_at };
            let filled = self.items.fill(response.raw, &absent);
            self.response = Some(filled.unwrap_or_else(|| response.raw.get().to_owned()));
        }
    }

    fn finish(self: Box<Self>) -> Bytes {
        Bytes::from(self.response.unwrap_or_default())
    }
}
