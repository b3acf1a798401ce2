//! What the backend's events say of a picture: the part that a stream and a whole answer share.

use super::Task;
use crate::codex::event::{ContentPart, Item, PartialImage, ResponseRef};
use crate::codex::raw::Raw;
use crate::codex::{Event, Failure, FailureKind, Usage};
use serde::{Deserialize, Serialize};

/// What an answer must know of its request.
#[derive(Debug)]
pub(super) struct Shape {
    pub task: Task,
    /// Unix seconds.
    pub created: i64,
    /// How many previews the client wants.
    pub partial_images: u32,
    /// What was asked for: what stands in an answer where the backend does not say.
    pub look: Look,
}

/// How a picture is made and packed.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub background: Option<String>,
    pub output_format: Option<String>,
    pub quality: Option<String>,
    pub size: Option<String>,
}

impl Look {
    /// The same, with what is missing taken from `other`.
    pub(super) fn or(self, other: &Self) -> Self {
        Self {
            background: self.background.or_else(|| other.background.clone()),
            output_format: self.output_format.or_else(|| other.output_format.clone()),
            quality: self.quality.or_else(|| other.quality.clone()),
            size: self.size.or_else(|| other.size.clone()),
        }
    }

    pub(super) fn of_preview(preview: &PartialImage<'_>) -> Self {
        let owned = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Self {
            background: owned(&preview.background),
            output_format: owned(&preview.output_format),
            quality: owned(&preview.quality),
            size: owned(&preview.size),
        }
    }
}

/// A picture that is done.
#[derive(Debug)]
pub(super) struct Picture {
    /// Base64.
    pub data: String,
    pub look: Look,
}

/// What has been learnt so far.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub picture: Option<Picture>,
    pub usage: ImageUsage,
    /// What the model said instead.
    said: String,
    /// Why the response ended early, if it did.
    incomplete: Option<String>,
    /// Whether the response has ended.
    pub has_ended: bool,
}

impl Assembly {
    pub(super) fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::ItemDone(done) => {
                if let Ok(item) = done.item() {
                    self.item(item);
                }
            }
            Event::Completed(response) => self.end(response, false),
            Event::Incomplete(response) => self.end(response, true),
            _ => {}
        }
    }

    fn item(&mut self, item: Item) {
        match item {
            Item::ImageGenerationCall { result: Some(data), background, output_format, quality, size, .. }
                if !data.is_empty() =>
            {
                self.picture = Some(Picture { data, look: Look { background, output_format, quality, size } });
            }
            Item::Message { content, .. } => {
                for part in content {
                    if let ContentPart::OutputText { text, .. } | ContentPart::Refusal { refusal: text } = part {
                        self.said.push_str(&text);
                    }
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, response: &ResponseRef<'_>, early: bool) {
        self.has_ended = true;
        let Ok(last) = serde_json::from_str::<Last<'_>>(response.raw.get()) else { return };
        if self.picture.is_none() && self.said.is_empty() {
            // Items come as events of their own; a few streams have them only here.
            last.output
                .iter()
                .filter_map(|item| serde_json::from_str(item.get()).ok())
                .for_each(|item| self.item(item));
        }
        let counted = last.tool_usage.and_then(|tools| tools.image_gen);
        self.usage = counted.or_else(|| last.usage.as_ref().map(ImageUsage::of_text)).unwrap_or_default();
        if early {
            self.incomplete = Some(last.incomplete_details.and_then(|details| details.reason).unwrap_or_default());
        }
    }

    /// Why there is no picture, after the response has ended.
    pub(super) fn shortfall(&self) -> Option<Failure> {
        if self.picture.is_some() {
            return None;
        }
        let failure = match &self.incomplete {
            Some(reason) if reason != "content_filter" => {
                Failure::of(FailureKind::ServerError, "The backend stopped before the picture was made")
            }
            None if self.said.is_empty() => {
                Failure::of(FailureKind::ServerError, "The backend answered without a picture")
            }
            _ => {
                let why = if self.said.is_empty() { "its content was filtered" } else { &self.said };
                let mut failure = Failure::of(FailureKind::Policy, format!("No picture was made: {why}"));
                failure.code = Some("moderation_blocked".to_owned());
                failure
            }
        };
        Some(failure)
    }
}

/// The final event's response, as far as it tells of pictures.
#[derive(Deserialize)]
struct Last<'a> {
    #[serde(borrow, default)]
    output: Vec<Raw<'a>>,
    #[serde(default)]
    usage: Option<Usage>,
    #[serde(default)]
    tool_usage: Option<ToolUsage>,
    #[serde(default)]
    incomplete_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct ToolUsage {
    #[serde(default)]
    image_gen: Option<ImageUsage>,
}

/// Tokens of a picture.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct ImageUsage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    total_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(default)]
struct InputDetails {
    image_tokens: u64,
    text_tokens: u64,
}

impl ImageUsage {
    /// What the whole response took, where the backend does not count the picture by itself.
    fn of_text(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.input,
            input_tokens_details: InputDetails { image_tokens: 0, text_tokens: usage.input },
            output_tokens: usage.output,
            total_tokens: usage.total,
        }
    }
}
