//! Folds an answer of the tool into what the backend's own call would have answered.

use super::answer::{Assembly, ImageUsage, Picture, Shape};
use crate::codex::event::Depth;
use crate::codex::{Event, Failure};
use crate::dialect::Folder;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;

/// A whole answer in the making.
pub(super) struct Whole {
    shape: Arc<Shape>,
    assembly: Assembly,
}

impl Whole {
    pub(super) fn new(shape: Arc<Shape>) -> Self {
        Self { shape, assembly: Assembly::default() }
    }
}

#[derive(Serialize)]
struct Pictures<'a> {
    created: i64,
    data: Vec<One<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    background: Option<&'a str>,
    output_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<&'a str>,
    usage: ImageUsage,
}

#[derive(Serialize)]
struct One<'a> {
    b64_json: &'a str,
}

impl Folder for Whole {
    /// As the stream reads, so that what one cannot read neither can.
    fn depth(&self) -> Depth {
        Depth::Full
    }

    fn event(&mut self, event: &Event<'_>) {
        if !self.assembly.has_ended {
            self.assembly.event(event);
        }
    }

    fn shortfall(&self) -> Option<Failure> {
        self.assembly.shortfall()
    }

    fn finish(self: Box<Self>) -> Bytes {
        let Self { shape, assembly } = *self;
        let Some(Picture { data, look }) = assembly.picture else {
            return Bytes::from_static(b"{}");
        };
        let look = look.or(&shape.look);
        // `auto` is a wish, not what a picture can be.
        let is_settled = |value: &&str| *value != "auto";
        let pictures = Pictures {
            created: shape.created,
            data: vec![One { b64_json: &data }],
            background: look.background.as_deref().filter(is_settled),
            output_format: look.output_format.as_deref().unwrap_or("png"),
            quality: look.quality.as_deref().filter(is_settled),
            size: look.size.as_deref().filter(is_settled),
            usage: assembly.usage,
        };
        Bytes::from(serde_json::to_vec(&pictures).unwrap_or_default())
    }
}
