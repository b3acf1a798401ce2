//! An assistant's turn, piece by piece. The backend's events come interleaved, sometimes without
//! deltas, sometimes with a name that comes late; what leaves here is in order and complete, and
//! nothing leaves twice.

use super::Shape;
use crate::codex::event::{ContentPart, Delta, Item, ItemEvent};
use crate::codex::{Event, Usage};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Takes the pieces of a turn.
pub(super) trait Sink {
    fn text(&mut self, text: &str);
    fn reasoning(&mut self, text: &str);
    fn refusal(&mut self, text: &str);
    fn annotation(&mut self, annotation: &RawValue);
    /// A call begins. `index` counts the calls that were begun.
    fn call(&mut self, index: usize, call: &Call);
    /// More of a call's arguments or input.
    fn arguments(&mut self, index: usize, call: &Call, more: &str);
}

/// A call of a tool.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// What the tool's output will refer to.
    pub id: String,
    /// The name as the client knows it; empty until it is known.
    pub name: String,
    pub is_custom: bool,
    /// Arguments or input that came before the name.
    held: String,
    /// How many bytes of arguments or input have left or are held.
    received: usize,
    /// Its place among the calls that the client knows of, once it does: these have no gaps.
    place: Option<usize>,
}

/// How far an output item is.
#[derive(Debug, Default)]
struct Progress {
    output_index: u32,
    item_id: Option<String>,
    /// Bytes of text, refusal and summary that have left.
    text: usize,
    refusal: usize,
    reasoning: usize,
    /// The summary part that was written last.
    summary_part: Option<u32>,
    /// Which call of the turn this item is.
    call: Option<usize>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    ToolCalls,
    FunctionCall,
    Length,
    ContentFilter,
}

impl Finish {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
            Self::FunctionCall => "function_call",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
        }
    }
}

/// The state of a turn.
#[derive(Debug)]
pub(super) struct Turn {
    shape: Arc<Shape>,
    items: Vec<Progress>,
    calls: Vec<Call>,
    /// How many calls the client knows of.
    announced: usize,
    /// Whether reasoning has left: a blank line parts what follows.
    reasoned: bool,
    pub finish: Option<Finish>,
    pub usage: Option<Usage>,
    pub service_tier: Option<String>,
}

impl Turn {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self {
            shape,
            items: Vec::new(),
            calls: Vec::new(),
            announced: 0,
            reasoned: false,
            finish: None,
            usage: None,
            service_tier: None,
        }
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: &Event<'_>, sink: &mut impl Sink) {
        match event {
            Event::ItemAdded(added) => self.item(added, false, sink),
            Event::ItemDone(done) => self.item(done, true, sink),
            Event::TextDelta(delta) => {
                self.progress(delta).text += delta.delta.len();
                sink.text(&delta.delta);
            }
            Event::RefusalDelta(delta) => {
                self.progress(delta).refusal += delta.delta.len();
                sink.refusal(&delta.delta);
            }
            Event::SummaryDelta(delta) => self.summary(delta, sink),
            Event::ReasoningDelta(delta) => {
                self.progress(delta).reasoning += delta.delta.len();
                self.reasoned = true;
                sink.reasoning(&delta.delta);
            }
            Event::ArgumentsDelta(delta) | Event::CustomInputDelta(delta) => {
                let at = self.place(delta.output_index, delta.item_id.as_deref());
                if let Some(call) = self.items[at].call {
                    self.more(call, &delta.delta, sink);
                } else {
                    let call = self.open(at, Call::default());
                    self.more(call, &delta.delta, sink);
                }
            }
            Event::ArgumentsDone(done) => {
                let at = self.place(done.output_index, done.item_id.as_deref());
                let call = self.items[at].call.unwrap_or_else(|| self.open(at, Call::default()));
                if let Some(name) = &done.name {
                    self.name(call, name);
                }
                self.complete(call, &done.arguments, sink);
            }
            Event::Annotation(added) => sink.annotation(added.annotation),
            Event::Completed(response) => self.end(&response.summary().unwrap_or_default(), false),
            Event::Incomplete(response) => self.end(&response.summary().unwrap_or_default(), true),
            _ => {}
        }
    }

    fn end(&mut self, summary: &crate::codex::event::ResponseSummary, incomplete: bool) {
        self.usage = summary.usage;
        self.service_tier.clone_from(&summary.service_tier);
        let reason = summary.incomplete_details.as_ref().and_then(|details| details.reason.as_deref());
        let called = self.announced > 0;
        self.finish = Some(match (incomplete, reason) {
            (true, Some("content_filter")) => Finish::ContentFilter,
            (true, _) => Finish::Length,
            (false, _) if called && self.shape.legacy => Finish::FunctionCall,
            (false, _) if called => Finish::ToolCalls,
            (false, _) => Finish::Stop,
        });
    }

    /// Where an item's state is kept: by its index; by its id where the index is another item's.
    fn place(&mut self, output_index: u32, item_id: Option<&str>) -> usize {
        let by_index = self.items.iter().position(|item| item.output_index == output_index);
        let by_id = item_id.and_then(|id| self.items.iter().position(|item| item.item_id.as_deref() == Some(id)));
        by_index.or(by_id).unwrap_or_else(|| {
            self.items.push(Progress { output_index, item_id: item_id.map(str::to_owned), ..Progress::default() });
            self.items.len() - 1
        })
    }

    fn progress(&mut self, delta: &Delta<'_>) -> &mut Progress {
        let at = self.place(delta.output_index, delta.item_id.as_deref());
        &mut self.items[at]
    }

    fn summary(&mut self, delta: &Delta<'_>, sink: &mut impl Sink) {
        let reasoned = self.reasoned;
        let progress = self.progress(delta);
        let is_new_part = progress.summary_part != Some(delta.summary_index);
        progress.summary_part = Some(delta.summary_index);
        progress.reasoning += delta.delta.len();
        if is_new_part && reasoned {
            sink.reasoning("\n\n");
        }
        self.reasoned = true;
        sink.reasoning(&delta.delta);
    }

    fn item(&mut self, event: &ItemEvent<'_>, done: bool, sink: &mut impl Sink) {
        // An item that is not legible says nothing; the deltas have said it.
        let Ok(item) = event.item() else { return };
        match item {
            Item::FunctionCall { id, call_id, name, arguments, .. } => {
                let call = self.call(event.output_index, id, call_id, name.as_deref(), false);
                if done {
                    self.complete(call, &arguments, sink);
                }
                self.announce(call, sink);
            }
            Item::CustomToolCall { id, call_id, name, input } => {
                let call = self.call(event.output_index, id, call_id, name.as_deref(), true);
                if done {
                    self.complete(call, &input, sink);
                }
                self.announce(call, sink);
            }
            Item::Message { id, content, .. } if done => {
                self.message(event.output_index, id.as_deref(), &content, sink);
            }
            Item::Reasoning { id, summary, .. } if done => {
                let at = self.place(event.output_index, id.as_deref());
                if self.items[at].reasoning == 0 {
                    self.whole_summary(at, &summary, sink);
                }
            }
            _ => {}
        }
    }

    /// What a finished message holds and no delta has said.
    fn message(&mut self, index: u32, id: Option<&str>, content: &[ContentPart], sink: &mut impl Sink) {
        let at = self.place(index, id);
        let (mut text, mut refusal) = (self.items[at].text, self.items[at].refusal);
        for part in content {
            match part {
                ContentPart::OutputText { text: words, .. } => {
                    if let Some(rest) = unsaid(words, &mut text) {
                        self.items[at].text += rest.len();
                        sink.text(rest);
                    }
                }
                ContentPart::Refusal { refusal: words } => {
                    if let Some(rest) = unsaid(words, &mut refusal) {
                        self.items[at].refusal += rest.len();
                        sink.refusal(rest);
                    }
                }
                _ => {}
            }
        }
    }

    fn whole_summary(&mut self, at: usize, summary: &[ContentPart], sink: &mut impl Sink) {
        for part in summary {
            if let ContentPart::SummaryText { text } = part {
                if self.reasoned {
                    sink.reasoning("\n\n");
                }
                self.reasoned = true;
                self.items[at].reasoning += text.len();
                sink.reasoning(text);
            }
        }
    }

    fn call(
        &mut self,
        output_index: u32,
        item_id: Option<String>,
        call_id: Option<String>,
        name: Option<&str>,
        is_custom: bool,
    ) -> usize {
        let at = self.place(output_index, item_id.as_deref());
        let call = self.items[at].call.unwrap_or_else(|| self.open(at, Call::default()));
        self.calls[call].is_custom = is_custom;
        if let Some(id) = call_id.or(item_id)
            && self.calls[call].id.is_empty()
        {
            self.calls[call].id = id;
        }
        if let Some(name) = name {
            self.name(call, name);
        }
        call
    }

    fn open(&mut self, at: usize, call: Call) -> usize {
        self.calls.push(call);
        let index = self.calls.len() - 1;
        self.items[at].call = Some(index);
        index
    }

    fn name(&mut self, call: usize, name: &str) {
        if self.calls[call].name.is_empty() {
            self.shape.names.restore(name).clone_into(&mut self.calls[call].name);
        }
    }

    /// Says that a call begins, once its name and id are known.
    fn announce(&mut self, index: usize, sink: &mut impl Sink) {
        let call = &mut self.calls[index];
        if call.place.is_some() || call.name.is_empty() || call.id.is_empty() {
            return;
        }
        let place = self.announced;
        self.announced += 1;
        call.place = Some(place);
        let held = std::mem::take(&mut call.held);
        sink.call(place, &self.calls[index]);
        if !held.is_empty() {
            sink.arguments(place, &self.calls[index], &held);
        }
    }

    fn more(&mut self, index: usize, more: &str, sink: &mut impl Sink) {
        let call = &mut self.calls[index];
        call.received += more.len();
        match call.place {
            Some(place) => sink.arguments(place, call, more),
            None => call.held.push_str(more),
        }
    }

    /// What the whole arguments hold beyond the deltas.
    fn complete(&mut self, index: usize, whole: &str, sink: &mut impl Sink) {
        let mut said = self.calls[index].received;
        if let Some(rest) = unsaid(whole, &mut said) {
            self.more(index, rest, sink);
        }
    }
}

/// What of `words` lies beyond the `said` bytes that have left already; `said` is used up.
fn unsaid<'a>(words: &'a str, said: &mut usize) -> Option<&'a str> {
    let skip = (*said).min(words.len());
    *said -= skip;
    words.get(skip..).filter(|rest| !rest.is_empty())
}
