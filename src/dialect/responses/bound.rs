//! An output limit (`max_output_tokens`), which the backend does not take: the answer is cut on its
//! way down, and what was open is closed as the backend itself would close it.

use crate::codex::event::{Delta, Item, ItemEvent};
use crate::codex::{Event, Usage};
use crate::dialect::cut::{Bounds, Cutter};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Watches one answer up to its limit.
pub(super) struct Bound {
    cutter: Cutter,
    /// About how many tokens the request has.
    input: u64,
    /// Items that were added and are not finished, by their place.
    open: BTreeMap<u32, Open>,
    /// The response object as it was at the beginning.
    response: Option<String>,
    /// What of the last delta is within the limit.
    allowed: String,
}

/// An item in the making.
#[derive(Default)]
struct Open {
    item: Map<String, Value>,
    parts: BTreeMap<u32, Part>,
    /// The arguments of a call, or its input.
    arguments: String,
}

struct Part {
    is_refusal: bool,
    text: String,
}

impl Bound {
    /// For at most so many tokens, in answer to a request of about `input` tokens.
    pub(super) fn new(limit: u64, input: u64) -> Self {
        let cutter = Cutter::new(Arc::new(Bounds::new(Vec::new(), Some(limit))));
        Self { cutter, input, open: BTreeMap::new(), response: None, allowed: String::new() }
    }

    /// Takes an event. Returns whether the answer ends in it.
    pub(super) fn ends_in(&mut self, event: &Event<'_>) -> bool {
        self.allowed.clear();
        match event {
            Event::Created(response) => self.response = Some(response.raw.get().to_owned()),
            Event::ItemAdded(added) => {
                let item = serde_json::from_str(added.raw.get()).unwrap_or_default();
                self.open.insert(added.output_index, Open { item, ..Open::default() });
            }
            Event::ItemDone(done) => self.finished(done),
            Event::TextDelta(delta) => self.text(delta, false),
            Event::RefusalDelta(delta) => self.text(delta, true),
            Event::ArgumentsDelta(delta) | Event::CustomInputDelta(delta) => {
                self.cutter.counted(&delta.delta).clone_into(&mut self.allowed);
                self.open.entry(delta.output_index).or_default().arguments.push_str(&self.allowed);
            }
            _ => {}
        }
        self.cutter.cut().is_some()
    }

    fn text(&mut self, delta: &Delta<'_>, is_refusal: bool) {
        self.cutter.counted(&delta.delta).clone_into(&mut self.allowed);
        let open = self.open.entry(delta.output_index).or_default();
        let part = open.parts.entry(delta.content_index).or_insert(Part { is_refusal, text: String::new() });
        part.text.push_str(&self.allowed);
    }

    /// What came in pieces was counted then.
    fn finished(&mut self, done: &ItemEvent<'_>) {
        let mut open = self.open.remove(&done.output_index).unwrap_or_default();
        let is_counted = !open.parts.is_empty() || !open.arguments.is_empty();
        match done.item() {
            Ok(Item::Reasoning { encrypted_content: Some(encrypted), .. }) => self.cutter.reasoned(&encrypted),
            Ok(Item::Message { content, .. }) if !is_counted => {
                use crate::codex::event::ContentPart as P;
                for (index, part) in (0..).zip(content) {
                    let (is_refusal, text) = match part {
                        P::OutputText { text, .. } => (false, text),
                        P::Refusal { refusal } => (true, refusal),
                        _ => continue,
                    };
                    let text = self.cutter.counted(&text).to_owned();
                    open.parts.insert(index, Part { is_refusal, text });
                }
            }
            Ok(Item::FunctionCall { arguments: text, .. } | Item::CustomToolCall { input: text, .. })
                if !is_counted =>
            {
                self.cutter.counted(&text).clone_into(&mut open.arguments);
            }
            _ => {}
        }
        if self.cutter.cut().is_some() {
            open.item = serde_json::from_str(done.raw.get()).unwrap_or_default();
            self.open.insert(done.output_index, open);
        }
    }

    /// What of the delta in which the answer ended is within the limit.
    pub(super) fn allowed(&self) -> &str {
        &self.allowed
    }

    /// The events that close what is open, without their numbers.
    pub(super) fn closing(&self) -> Vec<Value> {
        let mut events = Vec::new();
        for (index, open) in &self.open {
            let Some(item) = open.closed() else { continue };
            let id = item["id"].clone();
            for (content_index, part) in &open.parts {
                let (kind, name) = if part.is_refusal {
                    ("response.refusal.done", "refusal")
                } else {
                    ("response.output_text.done", "text")
                };
                let mut done = json!({
                    "type": kind, "item_id": id, "output_index": index, "content_index": content_index, name: part.text,
                });
                if !part.is_refusal {
                    done["logprobs"] = json!([]);
                }
                events.push(done);
                events.push(json!({
                    "type": "response.content_part.done", "item_id": id, "output_index": index,
                    "content_index": content_index, "part": part.closed(),
                }));
            }
            let arguments = &open.arguments;
            match item["type"].as_str() {
                Some("function_call") => events.push(json!({
                    "type": "response.function_call_arguments.done", "item_id": id, "output_index": index,
                    "name": item["name"], "arguments": arguments,
                })),
                Some("custom_tool_call") => events.push(json!({
                    "type": "response.custom_tool_call_input.done", "item_id": id, "output_index": index,
                    "input": arguments,
                })),
                _ => {}
            }
            events.push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
        }
        events
    }

    /// The items that were open, as they are closed.
    pub(super) fn items(&self) -> Vec<(u32, Box<RawValue>)> {
        let closed =
            |(index, open): (&u32, &Open)| Some((*index, serde_json::value::to_raw_value(&open.closed()?).ok()?));
        self.open.iter().filter_map(closed).collect()
    }

    /// The response object of an answer that was cut, its items left out.
    pub(super) fn response(&self, id: &str) -> Option<Box<RawValue>> {
        let mut object: Map<String, Value> =
            self.response.as_ref().and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
        let Usage { input, output, reasoning, total, .. } = self.spent();
        object.entry("id").or_insert_with(|| json!(id));
        object.insert("status".to_owned(), json!("incomplete"));
        object.insert("incomplete_details".to_owned(), json!({"reason": "max_output_tokens"}));
        object.insert("output".to_owned(), json!([]));
        object.insert(
            "usage".to_owned(),
            json!({
                "input_tokens": input, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": output,
                "output_tokens_details": {"reasoning_tokens": reasoning}, "total_tokens": total,
            }),
        );
        serde_json::value::to_raw_value(&object).ok()
    }

    /// About what the answer has used: the backend counts at the end only.
    pub(super) fn spent(&self) -> Usage {
        self.cutter.spent(self.input)
    }
}

impl Open {
    /// The item as far as it came; `None` for one of which nothing can be said.
    fn closed(&self) -> Option<Value> {
        let mut item = self.item.clone();
        match item.get("type").and_then(Value::as_str) {
            Some("message") => {
                item.insert("content".to_owned(), self.parts.values().map(Part::closed).collect());
            }
            Some("function_call") => {
                item.insert("arguments".to_owned(), json!(self.arguments));
            }
            Some("custom_tool_call") => {
                item.insert("input".to_owned(), json!(self.arguments));
            }
            _ => return None,
        }
        item.insert("status".to_owned(), json!("incomplete"));
        Some(Value::Object(item))
    }
}

impl Part {
    fn closed(&self) -> Value {
        if self.is_refusal {
            return json!({"type": "refusal", "refusal": self.text});
        }
        json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": []})
    }
}
