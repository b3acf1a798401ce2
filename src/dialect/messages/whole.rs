//! Folds an answer into one message object.

use super::Shape;
use super::assembly::{Assembly, Sink};
use super::frames::{BlockDelta, Citation, ContentBlock, ImageSource, Json, Message, MessageEnd, SearchResults, Usage};
use crate::codex::event::Depth;
use crate::codex::{self, Event};
use crate::dialect::Folder;
use bytes::Bytes;
use std::sync::Arc;

/// A whole answer in the making.
#[derive(Debug)]
pub(super) struct Whole {
    shape: Arc<Shape>,
    assembly: Assembly,
    blocks: Blocks,
}

impl Whole {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self { assembly: Assembly::new(Arc::clone(&shape)), shape, blocks: Blocks::default() }
    }
}

impl Folder for Whole {
    /// Everything: the message is what the stream would have said, delta by delta.
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>) {
        self.assembly.event(event, &mut self.blocks);
    }

    fn is_done(&self) -> bool {
        self.assembly.is_cut()
    }

    fn spent(&self) -> Option<codex::Usage> {
        self.assembly.spent()
    }

    fn finish(self: Box<Self>) -> Bytes {
        let (end, usage) = self.assembly.outcome().map_or_else(
            || (MessageEnd::default(), Usage::at_start(self.shape.estimate)),
            |outcome| (outcome.end.clone(), outcome.usage),
        );
        let content = self.blocks.0.iter().map(Block::content).collect();
        let message = Message::new(&self.shape.request_id, &self.shape.model, content, end, usage);
        Bytes::from(serde_json::to_vec(&message).unwrap_or_default())
    }
}

/// The blocks of a message.
#[derive(Debug, Default)]
struct Blocks(Vec<Block>);

#[derive(Debug)]
enum Block {
    Text { text: String, citations: Vec<Citation> },
    Thinking { thinking: String, signature: String },
    ToolUse { id: String, name: String, input: String },
    ServerToolUse { id: String, name: &'static str, input: String },
    WebSearchToolResult { tool_use_id: String, content: SearchResults },
    Image { media_type: String, data: String },
}

impl Block {
    fn of(start: &ContentBlock<'_>) -> Self {
        match *start {
            ContentBlock::Text { text, citations } => {
                Self::Text { text: text.to_owned(), citations: citations.to_vec() }
            }
            ContentBlock::Thinking { thinking, signature } => {
                Self::Thinking { thinking: thinking.to_owned(), signature: signature.to_owned() }
            }
            // The input of a block that begins is a placeholder: it comes in deltas.
            ContentBlock::ToolUse { id, name, .. } => {
                Self::ToolUse { id: id.to_owned(), name: name.to_owned(), input: String::new() }
            }
            ContentBlock::ServerToolUse { id, name, .. } => {
                Self::ServerToolUse { id: id.to_owned(), name, input: String::new() }
            }
            ContentBlock::WebSearchToolResult { tool_use_id, content } => {
                Self::WebSearchToolResult { tool_use_id: tool_use_id.to_owned(), content: content.clone() }
            }
            ContentBlock::Image { source } => {
                Self::Image { media_type: source.media_type.to_owned(), data: source.data.to_owned() }
            }
        }
    }

    fn append(&mut self, delta: BlockDelta<'_>) {
        match (self, delta) {
            (Self::Text { text, .. }, BlockDelta::Text { text: more }) => text.push_str(more),
            (Self::Text { citations, .. }, BlockDelta::Citation { citation }) => citations.push(citation.clone()),
            (Self::Thinking { thinking, .. }, BlockDelta::Thinking { thinking: more }) => thinking.push_str(more),
            (Self::Thinking { signature, .. }, BlockDelta::Signature { signature: more }) => signature.push_str(more),
            (
                Self::ToolUse { input, .. } | Self::ServerToolUse { input, .. },
                BlockDelta::InputJson { partial_json },
            ) => input.push_str(partial_json),
            // The assembly gives a block only the deltas of its kind.
            _ => {}
        }
    }

    fn content(&self) -> ContentBlock<'_> {
        match self {
            Self::Text { text, citations } => ContentBlock::Text { text, citations },
            Self::Thinking { thinking, signature } => ContentBlock::Thinking { thinking, signature },
            Self::ToolUse { id, name, input } => ContentBlock::ToolUse { id, name, input: Json(input) },
            Self::ServerToolUse { id, name, input } => ContentBlock::ServerToolUse { id, name, input: Json(input) },
            Self::WebSearchToolResult { tool_use_id, content } => {
                ContentBlock::WebSearchToolResult { tool_use_id, content }
            }
            Self::Image { media_type, data } => ContentBlock::Image { source: ImageSource::new(media_type, data) },
        }
    }
}

impl Sink for Blocks {
    fn start(&mut self, _index: u32, block: ContentBlock<'_>) {
        self.0.push(Block::of(&block));
    }

    fn delta(&mut self, _index: u32, delta: BlockDelta<'_>) {
        if let Some(block) = self.0.last_mut() {
            block.append(delta);
        }
    }

    fn stop(&mut self, _index: u32) {}
}
