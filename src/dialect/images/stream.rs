//! Writes a picture's previews and the picture as events.
//!
//! The grammar: as many `partial_image` events as were asked for, or fewer, then one `completed`; or
//! an `error` in place of everything that is left.

use super::answer::{Assembly, ImageUsage, Look, Picture, Shape};
use super::{Task, error};
use crate::codex::event::Depth;
use crate::codex::sse::Frame;
use crate::codex::{Event, Failure};
use crate::dialect::{Problem, ProblemKind, Translator};
use bytes::BytesMut;
use serde::Serialize;
use std::sync::Arc;

/// A streamed answer in the making.
pub(super) struct Stream {
    shape: Arc<Shape>,
    assembly: Assembly,
}

impl Stream {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self { shape, assembly: Assembly::default() }
    }

    fn kind(&self, stage: Stage) -> &'static str {
        match (self.shape.task, stage) {
            (Task::Generate, Stage::Preview) => "image_generation.partial_image",
            (Task::Generate, Stage::Done) => "image_generation.completed",
            (Task::Edit, Stage::Preview) => "image_edit.partial_image",
            (Task::Edit, Stage::Done) => "image_edit.completed",
        }
    }

    fn write(&self, stage: Stage, data: &str, look: Look, rest: Rest, out: &mut BytesMut) {
        let look = look.or(&self.shape.look);
        let kind = self.kind(stage);
        let written = Written {
            kind,
            b64_json: data,
            background: look.background.as_deref().unwrap_or("auto"),
            created_at: self.shape.created,
            output_format: look.output_format.as_deref().unwrap_or("png"),
            quality: look.quality.as_deref().unwrap_or("auto"),
            size: look.size.as_deref().unwrap_or("auto"),
            rest,
        };
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(&serde_json::to_vec(&written).unwrap_or_default());
        out.extend_from_slice(b"\n\n");
    }
}

#[derive(Clone, Copy)]
enum Stage {
    Preview,
    Done,
}

/// One event.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    b64_json: &'a str,
    background: &'a str,
    created_at: i64,
    output_format: &'a str,
    quality: &'a str,
    size: &'a str,
    #[serde(flatten)]
    rest: Rest,
}

/// What the two kinds of event do not share.
#[derive(Serialize)]
#[serde(untagged)]
enum Rest {
    Preview { partial_image_index: u32 },
    Done { usage: ImageUsage },
}

impl Translator for Stream {
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>, _frame: &Frame, out: &mut BytesMut) {
        if self.assembly.has_ended {
            return;
        }
        self.assembly.event(event);
        if let Event::PartialImage(preview) = event {
            let index = preview.partial_image_index;
            // A preview that nobody asked for would be taken for one that somebody did.
            let is_wanted = index < self.shape.partial_images && !preview.partial_image_b64.is_empty();
            if is_wanted && self.assembly.picture.is_none() {
                let rest = Rest::Preview { partial_image_index: index };
                self.write(Stage::Preview, &preview.partial_image_b64, Look::of_preview(preview), rest, out);
            }
        }
    }

    fn shortfall(&self) -> Option<Failure> {
        self.assembly.has_ended.then(|| self.assembly.shortfall()).flatten()
    }

    fn finish(&mut self, failure: Option<&Problem>, out: &mut BytesMut) {
        if let Some(failure) = failure {
            return error::write(failure, out);
        }
        if !self.assembly.has_ended {
            let cut = "the backend's stream ended before the picture was complete";
            return error::write(&Problem::new(ProblemKind::Upstream, cut), out);
        }
        if let Some(shortfall) = self.assembly.shortfall() {
            return error::write(&Problem::from(&shortfall), out);
        }
        if let Some(Picture { data, look }) = self.assembly.picture.take() {
            self.write(Stage::Done, &data, look, Rest::Done { usage: self.assembly.usage }, out);
        }
    }
}
