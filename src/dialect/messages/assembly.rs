//! Puts the backend's events together into Anthropic's content blocks.
//!
//! Anthropic allows one open block at a time; the backend may interleave items. So one item at a
//! time has the floor: what it says is written at once, and what others say meanwhile waits in
//! their slots until it is their turn, in the order in which they began. An item takes the floor
//! when it first has something to show; a call not before its name is known.
//!
//! What was shown stands. A finished item (`output_item.done`, or the output of the final response)
//! only adds what its deltas had left out, so that streams without deltas, without `done` or with
//! neither but the final output all give the same blocks.

mod ending;
mod piece;
mod slot;

use super::frames::{BlockDelta, Citation, ContentBlock, ImageSource, Json};
use super::{Shape, Thinking};
use crate::codex::event::{ContentPart, Delta, Event, Item};
use crate::dialect::cut::Cutter;
use crate::dialect::signature;
pub(super) use ending::Outcome;
use piece::{Image, Piece, Search, citation};
use slot::{Identity, Kind, Slots};
use std::borrow::Cow;
use std::sync::Arc;

/// Where blocks go: into frames, or into a message.
pub(super) trait Sink {
    /// A block begins.
    fn start(&mut self, index: u32, block: ContentBlock<'_>);
    /// The open block grows.
    fn delta(&mut self, index: u32, delta: BlockDelta<'_>);
    /// The open block is complete.
    fn stop(&mut self, index: u32);
}

/// The block that is open.
#[derive(Debug)]
enum Block {
    /// Text of this part of a message.
    Text { part: u32 },
    /// Reasoning; the last part shown, and whether it is signed.
    Thinking { part: Option<u32>, signed: bool },
    /// A call; whether any arguments came.
    Call { has_input: bool },
}

/// One answer in the making.
#[derive(Debug)]
pub(super) struct Assembly {
    shape: Arc<Shape>,
    slots: Slots,
    /// The slot that has the floor.
    speaking: Option<usize>,
    /// The open block, always of the slot that has the floor.
    block: Option<Block>,
    /// The index of the next block.
    next_index: u32,
    /// Whether the client got a call: what makes the stop reason `tool_use`.
    called: bool,
    /// Whether the model declined.
    refused: bool,
    /// Searches that the backend ran, for the usage.
    searches: u64,
    /// Ends the answer where the client wants it.
    cutter: Cutter,
    /// The part whose text was said last and may be held back by the cutter.
    text_part: Option<u32>,
    /// Set by a completed or incomplete response; nothing is taken after it.
    outcome: Option<Outcome>,
}

impl Assembly {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self {
            cutter: Cutter::new(Arc::clone(&shape.bounds)),
            shape,
            slots: Slots::default(),
            speaking: None,
            block: None,
            next_index: 0,
            called: false,
            refused: false,
            searches: 0,
            text_part: None,
            outcome: None,
        }
    }

    /// How the answer ended; `None` while it has not.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Takes the next event.
    pub(super) fn event(&mut self, event: &Event<'_>, sink: &mut impl Sink) {
        if self.outcome.is_some() {
            return;
        }
        self.take(event, sink);
        if self.is_cut() && self.outcome.is_none() {
            self.outcome = Some(self.cut_outcome(None));
        }
    }

    fn take(&mut self, event: &Event<'_>, sink: &mut impl Sink) {
        match event {
            Event::TextDelta(delta) => self.text(delta, sink),
            Event::RefusalDelta(delta) => {
                self.refused = true;
                self.text(delta, sink);
            }
            Event::Annotation(event) => {
                let slot = self.slots.of_delta(Kind::Message, None, event.output_index);
                self.cite(slot, citation(event.annotation.get()), sink);
            }
            Event::SummaryDelta(delta) => self.reasoning(delta, delta.summary_index, sink),
            Event::ReasoningDelta(delta) => self.reasoning(delta, raw_part(delta.content_index), sink),
            Event::ArgumentsDelta(delta) => {
                let slot = self.slots.of_delta(Kind::Call, delta.item_id.as_deref(), delta.output_index);
                self.arguments(slot, &delta.delta, sink);
            }
            Event::ArgumentsDone(done) => {
                let slot = self.slots.of_delta(Kind::Call, done.item_id.as_deref(), done.output_index);
                self.slots[slot].name_call(done.name.as_deref(), None);
                let rest = self.slots[slot].rest(0, &done.arguments);
                self.say(slot, Piece::Input(Cow::Borrowed(rest)), sink);
                // A call without a name is finished by its item, which has one.
                if self.slots[slot].can_open() {
                    self.finish(slot, sink);
                }
            }
            Event::ItemAdded(event) => {
                if let Ok(item) = event.item() {
                    self.item_added(event.output_index, &item, sink);
                }
            }
            Event::ItemDone(event) => {
                if let Ok(item) = event.item()
                    && let Some(slot) = self.slots.of_done(Identity::of(&item, event.output_index))
                {
                    self.item_done(slot, &item, sink);
                }
            }
            Event::Completed(response) => self.end(response, false, sink),
            Event::Incomplete(response) => self.end(response, true, sink),
            _ => {}
        }
    }

    fn text(&mut self, delta: &Delta<'_>, sink: &mut impl Sink) {
        let slot = self.slots.of_delta(Kind::Message, delta.item_id.as_deref(), delta.output_index);
        self.slots[slot].count(delta.content_index, delta.delta.len());
        self.say(slot, Piece::Text { part: delta.content_index, text: Cow::Borrowed(&delta.delta) }, sink);
    }

    fn cite(&mut self, slot: usize, citation: Option<Citation>, sink: &mut impl Sink) {
        if let Some(citation) = citation {
            self.slots[slot].citations += 1;
            self.say(slot, Piece::Citation(citation), sink);
        }
    }

    fn reasoning(&mut self, delta: &Delta<'_>, part: u32, sink: &mut impl Sink) {
        let slot = self.slots.of_delta(Kind::Reasoning, delta.item_id.as_deref(), delta.output_index);
        self.slots[slot].count(part, delta.delta.len());
        self.say(slot, Piece::Thinking { part, text: Cow::Borrowed(&delta.delta) }, sink);
    }

    fn arguments(&mut self, slot: usize, text: &str, sink: &mut impl Sink) {
        self.slots[slot].count(0, text.len());
        self.say(slot, Piece::Input(Cow::Borrowed(text)), sink);
    }

    fn finish_call(&mut self, slot: usize, arguments: &str, sink: &mut impl Sink) {
        let rest = self.slots[slot].rest(0, arguments);
        self.say(slot, Piece::Input(Cow::Borrowed(rest)), sink);
        self.finish(slot, sink);
    }

    fn item_added(&mut self, output_index: u32, item: &Item, sink: &mut impl Sink) {
        let Some(slot) = self.slots.of_added(Identity::of(item, output_index)) else { return };
        if let Item::FunctionCall { call_id, name, .. } = item {
            self.slots[slot].name_call(name.as_deref(), call_id.as_deref());
            self.say(slot, Piece::Input(Cow::Borrowed("")), sink);
        }
    }

    fn item_done(&mut self, slot: usize, item: &Item, sink: &mut impl Sink) {
        match item {
            Item::Message { content, .. } => self.message_done(slot, content, sink),
            Item::Reasoning { summary, content, encrypted_content, .. } => {
                self.reasoning_done(slot, summary, content.as_deref().unwrap_or_default(), sink);
                self.cutter.reasoned(encrypted_content.as_deref().unwrap_or_default());
                self.say(slot, Piece::Signature(encrypted_content.as_deref().map(Cow::Borrowed)), sink);
            }
            Item::FunctionCall { call_id, name, arguments, .. } => {
                let fallback = format!("call_{}_{slot}", self.shape.request_id);
                self.slots[slot].name_call(name.as_deref(), call_id.as_deref().or(Some(&fallback)));
                return self.finish_call(slot, arguments, sink);
            }
            Item::CustomToolCall { call_id, name, input, .. } => {
                let fallback = format!("call_{}_{slot}", self.shape.request_id);
                self.slots[slot].name_call(name.as_deref(), call_id.as_deref().or(Some(&fallback)));
                let object = serde_json::json!({ "input": input }).to_string();
                return self.finish_call(slot, &object, sink);
            }
            Item::WebSearchCall { status, action, .. } => {
                let id = format!("srvtoolu_{}_{slot}", self.shape.request_id);
                if let Some(search) = Search::of(id, status.as_deref(), action.as_ref()) {
                    self.say(slot, Piece::Search(Box::new(search)), sink);
                }
            }
            Item::ImageGenerationCall { result, output_format, .. } => {
                if let Some(data) = result.as_ref().filter(|data| !data.is_empty()) {
                    let media_type = format!("image/{}", output_format.as_deref().unwrap_or("png"));
                    self.say(slot, Piece::Image(Image { media_type, data: data.clone() }), sink);
                }
            }
            Item::Other => {}
        }
        self.finish(slot, sink);
    }

    fn message_done(&mut self, slot: usize, content: &[ContentPart], sink: &mut impl Sink) {
        for (part, content) in (0..).zip(content) {
            let (text, annotations) = match content {
                ContentPart::OutputText { text, annotations } => (text, annotations.as_slice()),
                ContentPart::Refusal { refusal } => {
                    self.refused = true;
                    (refusal, &[][..])
                }
                _ => continue,
            };
            let rest = self.slots[slot].rest(part, text);
            self.say(slot, Piece::Text { part, text: Cow::Borrowed(rest) }, sink);
            for annotation in annotations.iter().skip(self.slots[slot].citations) {
                self.cite(slot, citation(&annotation.to_string()), sink);
            }
        }
    }

    fn reasoning_done(&mut self, slot: usize, summary: &[ContentPart], raw: &[ContentPart], sink: &mut impl Sink) {
        let parts = (0..).zip(summary).chain((0..).map(raw_part).zip(raw));
        for (part, content) in parts {
            if let ContentPart::SummaryText { text } | ContentPart::ReasoningText { text } = content {
                let rest = self.slots[slot].rest(part, text);
                self.say(slot, Piece::Thinking { part, text: Cow::Borrowed(rest) }, sink);
            }
        }
    }

    /// Writes a piece if its slot has or can take the floor, else keeps it for the slot's turn.
    fn say(&mut self, slot: usize, piece: Piece<'_>, sink: &mut impl Sink) {
        if self.slots[slot].finished || self.is_hidden(&piece) {
            return;
        }
        if self.speaking.is_none() && self.slots[slot].can_open() {
            if !self.slots[slot].waiting.is_empty() {
                self.slots[slot].waiting.push(piece.into_owned());
                return self.advance(sink);
            }
            self.speaking = Some(slot);
        }
        if self.speaking == Some(slot) {
            self.write(slot, piece, sink);
        } else {
            self.slots[slot].waiting.push(piece.into_owned());
        }
    }

    /// Whether a piece leaves no trace in the answer, and so must not take the floor.
    fn is_hidden(&self, piece: &Piece<'_>) -> bool {
        match piece {
            Piece::Text { text, .. } => text.is_empty(),
            Piece::Thinking { text, .. } => text.is_empty() || self.shape.thinking != Thinking::Summary,
            Piece::Signature(_) => self.shape.thinking == Thinking::Hidden,
            Piece::Citation(_) | Piece::Input(_) | Piece::Search(_) | Piece::Image(_) => false,
        }
    }

    fn finish(&mut self, slot: usize, sink: &mut impl Sink) {
        self.slots[slot].finished = true;
        self.advance(sink);
    }

    /// Gives the floor to whoever is next, for as long as finished slots leave it.
    fn advance(&mut self, sink: &mut impl Sink) {
        while let Some(slot) = self.speaking.or_else(|| self.slots.next_ready()) {
            self.speaking = Some(slot);
            for piece in std::mem::take(&mut self.slots[slot].waiting) {
                self.write(slot, piece, sink);
            }
            if !self.slots[slot].finished {
                return;
            }
            self.release(sink);
            self.close(sink);
            self.speaking = None;
        }
    }

    fn write(&mut self, slot: usize, piece: Piece<'_>, sink: &mut impl Sink) {
        if self.is_cut() {
            return;
        }
        match piece {
            Piece::Text { part, text } => self.write_text(part, &text, sink),
            Piece::Citation(citation) => {
                if matches!(self.block, Some(Block::Text { .. })) {
                    sink.delta(self.index(), BlockDelta::Citation { citation: &citation });
                }
            }
            Piece::Thinking { part, text } => self.write_thinking(part, &text, sink),
            Piece::Signature(encrypted) => self.write_signature(encrypted.as_deref(), sink),
            Piece::Input(text) => self.write_input(slot, &text, sink),
            Piece::Search(search) => self.write_search(&search, sink),
            Piece::Image(Image { media_type, data }) => {
                let image = ContentBlock::Image { source: ImageSource::new(&media_type, &data) };
                self.open(Block::Call { has_input: true }, image, sink);
            }
        }
        if self.is_cut() {
            self.close(sink);
        }
    }

    /// As much of the text as the client wants to see; its end may have to wait for what follows.
    fn write_text(&mut self, part: u32, text: &str, sink: &mut impl Sink) {
        if self.text_part.is_some_and(|last| last != part) {
            self.release(sink);
        }
        self.text_part = Some(part);
        let text = self.cutter.text(text);
        self.show_text(part, &text, sink);
    }

    /// Shows the text that waited: its part is over.
    fn release(&mut self, sink: &mut impl Sink) {
        if let Some(part) = self.text_part.take() {
            let held = self.cutter.release();
            self.show_text(part, &held, sink);
        }
    }

    fn show_text(&mut self, part: u32, text: &str, sink: &mut impl Sink) {
        if text.is_empty() {
            return;
        }
        if !matches!(self.block, Some(Block::Text { part: open }) if open == part) {
            self.open(Block::Text { part }, ContentBlock::Text { text: "", citations: &[] }, sink);
        }
        sink.delta(self.index(), BlockDelta::Text { text });
    }

    fn write_thinking(&mut self, part: u32, text: &str, sink: &mut impl Sink) {
        self.open_thinking(sink);
        if let Some(Block::Thinking { part: last, .. }) = &mut self.block
            && last.replace(part).is_some_and(|last| last != part)
        {
            sink.delta(self.index(), BlockDelta::Thinking { thinking: "\n\n" });
        }
        sink.delta(self.index(), BlockDelta::Thinking { thinking: text });
    }

    fn write_signature(&mut self, encrypted: Option<&str>, sink: &mut impl Sink) {
        if self.block.is_none() && encrypted.is_none() {
            return;
        }
        self.open_thinking(sink);
        if let Some(Block::Thinking { signed, .. }) = &mut self.block {
            *signed = true;
            sink.delta(self.index(), BlockDelta::Signature { signature: &signature::seal(encrypted) });
        }
    }

    fn open_thinking(&mut self, sink: &mut impl Sink) {
        if self.block.is_none() {
            let block = Block::Thinking { part: None, signed: false };
            self.open(block, ContentBlock::Thinking { thinking: "", signature: "" }, sink);
        }
    }

    fn write_input(&mut self, slot: usize, text: &str, sink: &mut impl Sink) {
        if self.block.is_none() {
            self.called = true;
            let (id, name) = self.slots[slot].call();
            let (id, name) = (id.to_owned(), self.shape.names.restore(name).to_owned());
            let start = ContentBlock::ToolUse { id: &id, name: &name, input: Json("{}") };
            self.open(Block::Call { has_input: false }, start, sink);
        }
        let text = self.cutter.counted(text);
        if let Some(Block::Call { has_input }) = &mut self.block
            && !text.is_empty()
        {
            *has_input |= !text.trim().is_empty();
            sink.delta(self.index(), BlockDelta::InputJson { partial_json: text });
        }
    }

    fn write_search(&mut self, search: &Search, sink: &mut impl Sink) {
        self.searches += 1;
        let start = ContentBlock::ServerToolUse { id: &search.id, name: "web_search", input: Json("{}") };
        self.open(Block::Call { has_input: true }, start, sink);
        sink.delta(self.index(), BlockDelta::InputJson { partial_json: &search.input });
        let results = ContentBlock::WebSearchToolResult { tool_use_id: &search.id, content: &search.results };
        self.open(Block::Call { has_input: true }, results, sink);
    }

    /// Opens a block, after closing the one before.
    fn open(&mut self, block: Block, start: ContentBlock<'_>, sink: &mut impl Sink) {
        self.close(sink);
        sink.start(self.next_index, start);
        self.next_index += 1;
        self.block = Some(block);
    }

    fn close(&mut self, sink: &mut impl Sink) {
        match self.block.take() {
            None => return,
            Some(Block::Thinking { signed: false, .. }) => {
                sink.delta(self.index(), BlockDelta::Signature { signature: &signature::seal(None) });
            }
            Some(Block::Call { has_input: false }) => {
                sink.delta(self.index(), BlockDelta::InputJson { partial_json: "{}" });
            }
            Some(_) => {}
        }
        sink.stop(self.index());
    }

    /// The index of the block opened last.
    fn index(&self) -> u32 {
        self.next_index.saturating_sub(1)
    }
}

/// Parts of raw reasoning are numbered apart from the summary's.
fn raw_part(content_index: u32) -> u32 {
    content_index | 1 << 31
}
