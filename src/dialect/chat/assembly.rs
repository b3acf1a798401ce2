//! From the backend's events to the pieces of one assistant message, whatever order or gaps the
//! events come with.
//!
//! Each output item has a [`Slot`] that counts what of it has gone out. Deltas go out as they come;
//! a finished item sends what its deltas lacked, and so does the final response for items that were
//! never finished. So a stream without deltas, without `output_item.added` or with nothing but the
//! final response says the same as a complete one, and nothing is said twice.

mod slot;

use crate::codex::event::ResponseRef;
use crate::codex::event::{AnnotationEvent, ContentPart, Delta, Item};
use crate::codex::raw::Raw;
use crate::codex::{Event, Usage};
use serde_json::Value;
use slot::{Body, Key, Kind, Reasoned, Slot};

/// A piece of the assistant's message, in the order in which a stream sends it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Refusal(&'a str),
    /// Reasoning that may be read; a blank line between two thoughts belongs to neither.
    Reasoning {
        text: &'a str,
        thought: Option<Thought<'a>>,
    },
    /// The encrypted form of a thought, which the backend can continue from.
    Encrypted {
        thought: Thought<'a>,
        encrypted: &'a str,
    },
    /// An image that the backend made, base64.
    Image {
        index: u32,
        format: &'a str,
        data: &'a str,
    },
    /// A citation in the backend's form, `{"type":"url_citation","url":…}`; its places count from
    /// `origin`, characters of text that went out before the part it belongs to.
    Citation {
        citation: &'a Value,
        origin: u64,
    },
    /// A call begins. Indexes count from 0 in the order of these pieces.
    Call {
        index: u32,
        id: &'a str,
        name: &'a str,
        family: Family,
    },
    /// Arguments of a function or input of a custom tool.
    Arguments {
        index: u32,
        family: Family,
        text: &'a str,
    },
}

/// What a piece of reasoning belongs to: the summary of one item of reasoning, its reasoning as it
/// is, or its encrypted form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thought<'a> {
    /// Counts from 0 in the order in which they began.
    pub(super) index: u32,
    /// The item's id.
    pub(super) id: Option<&'a str>,
    /// Whether it is a summary, or the reasoning itself.
    pub(super) is_summary: bool,
    /// Whether this is its first piece.
    pub(super) is_new: bool,
}

/// The two kinds of tools that clients run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Function,
    Custom,
}

/// Where pieces go.
pub(super) trait Sink {
    fn take(&mut self, piece: Piece<'_>);
}

/// How an answer ended.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) finish: Finish,
    pub(super) usage: Option<Usage>,
    pub(super) service_tier: Option<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Calls,
    Length,
    ContentFilter,
}

/// An answer in the making.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    slots: Vec<Slot>,
    /// Calls that have begun: the next one's index.
    calls: u32,
    /// Images that have gone out: the next one's index.
    images: u32,
    /// Characters of text that have gone out.
    said: u64,
    /// Reasoning that has gone out.
    reasoned: Reasoned,
    outcome: Option<Outcome>,
}

impl Assembly {
    /// How the answer ended; `None` while it has not.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: &Event<'_>, sink: &mut impl Sink) {
        if self.outcome.is_some() {
            return;
        }
        match event {
            Event::ItemAdded(added) => {
                if let Ok(item) = added.item() {
                    self.added(&item, added.output_index, sink);
                }
            }
            Event::ItemDone(done) => {
                if let Ok(item) = done.item() {
                    self.done(&item, done.output_index, sink);
                }
            }
            Event::TextDelta(delta) => self.text(delta, sink),
            Event::RefusalDelta(delta) => self.refusal(delta, sink),
            Event::SummaryDelta(delta) => self.reasoning(delta, delta.summary_index, true, sink),
            Event::ReasoningDelta(delta) => self.reasoning(delta, delta.content_index, false, sink),
            Event::Annotation(added) => self.annotation(added, sink),
            Event::ArgumentsDelta(delta) => self.arguments(Kind::Function, delta, sink),
            Event::CustomInputDelta(delta) => self.arguments(Kind::Custom, delta, sink),
            Event::ArgumentsDone(done) => {
                let key = Key { index: done.output_index, item: done.item_id.as_deref(), call: None };
                self.arguments_done(Kind::Function, &key, done.name.as_deref(), &done.arguments, sink);
            }
            Event::CustomInputDone(done) => {
                let key = Key { index: done.output_index, item: done.item_id.as_deref(), call: None };
                self.arguments_done(Kind::Custom, &key, None, &done.input, sink);
            }
            Event::Completed(response) => self.ended(response, false, sink),
            Event::Incomplete(response) => self.ended(response, true, sink),
            _ => {}
        }
    }

    fn added(&mut self, item: &Item, index: u32, sink: &mut impl Sink) {
        let Some((kind, key)) = slot::identify(item, index) else { return };
        let slot = match slot::find_open(&self.slots, kind, &key) {
            Some(at) => &mut self.slots[at],
            None => slot::open(&mut self.slots, kind, &key),
        };
        slot.adopt(&key);
        if let (Body::Call(call), Some((name, text))) = (&mut slot.body, call_of(item)) {
            call.name = call.name.take().or_else(|| name.map(str::to_owned));
            call.finish_arguments(text, &mut self.calls, sink);
        }
    }

    /// The slot that a delta belongs to; `None` if its item is finished, for then all of it has been said.
    fn open_slot(&mut self, kind: Kind, key: &Key<'_>) -> Option<&mut Slot> {
        if slot::is_finished(&self.slots, kind, key) {
            return None;
        }
        Some(match slot::find_open(&self.slots, kind, key) {
            Some(at) => &mut self.slots[at],
            None => slot::open(&mut self.slots, kind, key),
        })
    }

    fn text(&mut self, delta: &Delta<'_>, sink: &mut impl Sink) {
        let said = self.said;
        if let Some(Slot { body: Body::Message(message), .. }) = self.open_slot(Kind::Message, &Key::of(delta)) {
            message.begin(delta.content_index, said);
            message.text.note(delta.content_index, delta.delta.len());
            emit(&delta.delta, Piece::Text, sink);
            self.said += characters(&delta.delta);
        }
    }

    fn refusal(&mut self, delta: &Delta<'_>, sink: &mut impl Sink) {
        if let Some(Slot { body: Body::Message(message), .. }) = self.open_slot(Kind::Message, &Key::of(delta)) {
            message.refusal.note(delta.content_index, delta.delta.len());
            emit(&delta.delta, Piece::Refusal, sink);
        }
    }

    fn reasoning(&mut self, delta: &Delta<'_>, part: u32, is_summary: bool, sink: &mut impl Sink) {
        let mut reasoned = self.reasoned;
        let Some(slot) = self.open_slot(Kind::Reasoning, &Key::of(delta)) else { return };
        let Slot { item_id, body: Body::Reasoning(reasoning), .. } = slot else { return };
        reasoning.say(part, is_summary, &delta.delta, item_id.as_deref(), &mut reasoned, sink);
        self.reasoned = reasoned;
    }

    fn annotation(&mut self, added: &AnnotationEvent<'_>, sink: &mut impl Sink) {
        let key = Key { index: added.output_index, item: None, call: None };
        let Some(Slot { body: Body::Message(message), .. }) = self.open_slot(Kind::Message, &key) else { return };
        if let Ok(citation) = serde_json::from_str(added.annotation.get()) {
            message.annotations += 1;
            sink.take(Piece::Citation { citation: &citation, origin: message.origin(added.content_index) });
        }
    }

    fn arguments(&mut self, kind: Kind, delta: &Delta<'_>, sink: &mut impl Sink) {
        if let Some(Slot { body: Body::Call(call), .. }) = self.open_slot(kind, &Key::of(delta)) {
            call.append(&delta.delta, sink);
        }
    }

    fn arguments_done(&mut self, kind: Kind, key: &Key<'_>, name: Option<&str>, text: &str, sink: &mut impl Sink) {
        let calls = &mut self.calls;
        if slot::is_finished(&self.slots, kind, key) {
            return;
        }
        // Without a slot there is nothing yet to call: the finished item will tell.
        let Some(at) = slot::find_open(&self.slots, kind, key) else { return };
        if let Body::Call(call) = &mut self.slots[at].body {
            call.name = call.name.take().or_else(|| name.map(str::to_owned));
            call.finish_arguments(text, calls, sink);
        }
    }

    fn done(&mut self, item: &Item, index: u32, sink: &mut impl Sink) {
        let Some((kind, key)) = slot::identify(item, index) else { return };
        if slot::is_finished(&self.slots, kind, &key) {
            return;
        }
        let at = slot::find_open(&self.slots, kind, &key).unwrap_or_else(|| {
            slot::open(&mut self.slots, kind, &key);
            self.slots.len() - 1
        });
        self.finish_item(at, &key, item, sink);
    }

    /// Sends what the deltas of an item lacked.
    fn finish_item(&mut self, at: usize, key: &Key<'_>, item: &Item, sink: &mut impl Sink) {
        let slot = &mut self.slots[at];
        slot.adopt(key);
        slot.is_done = true;
        match (&mut slot.body, item) {
            (Body::Message(message), Item::Message { content, .. }) => message.finish(content, &mut self.said, sink),
            (Body::Reasoning(reasoning), Item::Reasoning { summary, content, encrypted_content, .. }) => {
                let id = slot.item_id.as_deref();
                let raw = content.iter().flatten().zip(0..).map(|(part, at)| (part, at, false));
                for (part, at, is_summary) in summary.iter().zip(0..).map(|(part, at)| (part, at, true)).chain(raw) {
                    let (ContentPart::SummaryText { text } | ContentPart::ReasoningText { text }) = part else {
                        continue;
                    };
                    let rest = reasoning.rest(at, is_summary, text);
                    reasoning.say(at, is_summary, rest, id, &mut self.reasoned, sink);
                }
                if let Some(encrypted) = encrypted_content.as_deref().filter(|encrypted| !encrypted.is_empty()) {
                    let index = self.reasoned.next_detail();
                    let thought = Thought { index, id, is_summary: false, is_new: true };
                    sink.take(Piece::Encrypted { thought, encrypted });
                }
            }
            (Body::Image, Item::ImageGenerationCall { result: Some(data), output_format, .. }) if !data.is_empty() => {
                let format = output_format.as_deref().unwrap_or("png");
                sink.take(Piece::Image { index: self.images, format, data });
                self.images += 1;
            }
            (Body::Call(call), item) => {
                if let Some((name, text)) = call_of(item) {
                    call.name = call.name.take().or_else(|| name.map(str::to_owned));
                    call.close(slot.item_id.as_deref(), text, &mut self.calls, sink);
                }
            }
            _ => {}
        }
    }

    fn ended(&mut self, response: &ResponseRef<'_>, is_incomplete: bool, sink: &mut impl Sink) {
        self.hydrate(&response.output().unwrap_or_default(), sink);
        let summary = response.summary().cloned().unwrap_or_default();
        let is_incomplete = is_incomplete || summary.status.as_deref() == Some("incomplete");
        if !is_incomplete {
            for slot in self.slots.iter_mut().filter(|slot| !slot.is_done) {
                if let Body::Call(call) = &mut slot.body {
                    call.close(slot.item_id.as_deref(), "", &mut self.calls, sink);
                }
            }
        }
        let reason = summary.incomplete_details.and_then(|details| details.reason);
        let finish = match reason.as_deref() {
            Some("content_filter") => Finish::ContentFilter,
            _ if is_incomplete => Finish::Length,
            _ if self.calls > 0 => Finish::Calls,
            _ => Finish::Stop,
        };
        self.outcome = Some(Outcome { finish, usage: summary.usage, service_tier: summary.service_tier });
    }

    /// Takes from the final response the items that never finished. Its items stand there without
    /// their indexes and may have other ids, so the first item of a kind is the first slot of that kind.
    fn hydrate(&mut self, output: &[Raw<'_>], sink: &mut impl Sink) {
        let mut is_taken = vec![false; self.slots.len()];
        for (raw, index) in output.iter().zip(0..) {
            let Ok(item) = serde_json::from_str::<Item>(raw.get()) else { continue };
            let Some((kind, key)) = slot::identify(&item, index) else { continue };
            let same = |at: &usize| !is_taken[*at] && self.slots[*at].kind() == kind;
            let by_id = (0..is_taken.len()).filter(same).find(|at| self.slots[*at].is_named(&key));
            let by_place = || (0..is_taken.len()).filter(same).find(|at| self.slots[*at].may_be(&key));
            if let Some(at) = by_id.or_else(by_place) {
                is_taken[at] = true;
                if !self.slots[at].is_done {
                    self.finish_item(at, &key, &item, sink);
                }
            } else {
                slot::open(&mut self.slots, kind, &key);
                self.finish_item(self.slots.len() - 1, &key, &item, sink);
            }
        }
    }
}

/// Name and arguments of a call.
fn call_of(item: &Item) -> Option<(Option<&str>, &str)> {
    match item {
        Item::FunctionCall { name, arguments: text, .. } | Item::CustomToolCall { name, input: text, .. } => {
            Some((name.as_deref().filter(|name| !name.is_empty()), text))
        }
        _ => None,
    }
}

/// How long a text is as citations count it.
fn characters(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

/// Sends a piece unless it is empty.
fn emit<'a>(text: &'a str, piece: fn(&'a str) -> Piece<'a>, sink: &mut impl Sink) {
    if !text.is_empty() {
        sink.take(piece(text));
    }
}
