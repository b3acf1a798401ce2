//! From content blocks to the backend's parts.

use super::blocks::{Block, Content, Document, Image, SearchResult, Source, invalid};
use super::ignored::{self, Ignored};
use crate::codex::raw::Raw;
use crate::codex::request::InputPart;
use crate::dialect::Problem;
use std::borrow::Cow;

/// Text for the model; empty text is left out, which the backend would refuse.
pub(super) fn text(text: Cow<'_, str>) -> Option<InputPart> {
    (!text.is_empty()).then(|| InputPart::InputText { text: text.into_owned() })
}

impl Content<'_> {
    /// The content as parts: of a system prompt, a tool's result or a document.
    pub(super) fn parts(self, path: &str, ignored: &mut Ignored) -> Result<Vec<InputPart>, Problem> {
        let blocks = match self {
            Self::Text(whole) => return Ok(text(whole).into_iter().collect()),
            Self::Blocks(blocks) => blocks,
        };
        let mut parts = Vec::with_capacity(blocks.len());
        for (index, raw) in blocks.into_iter().enumerate() {
            let path = || format!("{path}.{index}");
            let block = Block::parse(raw).map_err(|e| invalid(&path(), &e))?;
            parts.extend(self::parts(block, &path, ignored)?);
        }
        Ok(parts)
    }
}

/// A block as parts. Blocks that are no content of a person or a tool give none.
pub(super) fn parts(
    block: Block<'_>,
    path: &dyn Fn() -> String,
    ignored: &mut Ignored,
) -> Result<Vec<InputPart>, Problem> {
    let part = match block {
        Block::Text(whole) | Block::Unknown(Some(whole)) => text(whole),
        Block::Image(image) => Some(self::image(image, path)?),
        Block::Document(document) => return self::document(document, path, ignored),
        Block::SearchResult(result) => self::search_result(&result),
        Block::ToolReference(tool) => text(format!("Tool {} is now available.", tool.tool_name).into()),
        Block::Unknown(None) => {
            ignored.add(ignored::BLOCK_TYPE);
            None
        }
        Block::ServerStep
        | Block::ToolUse(_)
        | Block::ToolResult(_)
        | Block::Thinking(_)
        | Block::RedactedThinking(_) => None,
    };
    Ok(part.into_iter().collect())
}

fn image(image: Image<'_>, path: &dyn Fn() -> String) -> Result<InputPart, Problem> {
    let image_url = match (&*image.source.kind, image.source.data, image.source.url) {
        ("base64", Some(data), _) => data_url(image.source.media_type.as_deref().unwrap_or("image/png"), &data),
        ("url", _, Some(url)) => url.into_owned(),
        (kind, ..) => return Err(bad_source(path, kind)),
    };
    Ok(InputPart::InputImage { image_url, detail: None })
}

fn document(
    document: Document<'_>,
    path: &dyn Fn() -> String,
    ignored: &mut Ignored,
) -> Result<Vec<InputPart>, Problem> {
    let Document { source, title, context } = document;
    let mut parts: Vec<_> = context.and_then(text).into_iter().collect();
    match source {
        Source { kind, data: Some(data), media_type, .. } if kind == "base64" => {
            let media_type = media_type.as_deref().unwrap_or("application/pdf");
            parts.push(InputPart::InputFile {
                filename: Some(filename(title.as_deref(), media_type)),
                file_data: Some(data_url(media_type, &data)),
                file_url: None,
            });
        }
        Source { kind, url: Some(url), .. } if kind == "url" => {
            parts.push(InputPart::InputFile { filename: None, file_data: None, file_url: Some(url.into_owned()) });
        }
        Source { kind, data: Some(data), .. } if kind == "text" => {
            parts.extend(title.and_then(text));
            parts.extend(text(data));
        }
        Source { kind, content: Some(content), .. } if kind == "content" => {
            parts.extend(title.and_then(text));
            parts.extend(inner_parts(content, path, ignored)?);
        }
        Source { kind, .. } => return Err(bad_source(path, &kind)),
    }
    Ok(parts)
}

/// A name that tells the backend what the file is.
fn filename(title: Option<&str>, media_type: &str) -> String {
    let title = title.unwrap_or("document");
    let extension = std::path::Path::new(title).extension();
    if media_type == "application/pdf" && !extension.is_some_and(|end| end.eq_ignore_ascii_case("pdf")) {
        return format!("{title}.pdf");
    }
    title.to_owned()
}

/// The content of a document: text and images, nothing deeper.
fn inner_parts(content: Raw<'_>, path: &dyn Fn() -> String, ignored: &mut Ignored) -> Result<Vec<InputPart>, Problem> {
    let blocks = match Content::parse(content, &path())? {
        Content::Text(whole) => return Ok(text(whole).into_iter().collect()),
        Content::Blocks(blocks) => blocks,
    };
    let mut parts = Vec::with_capacity(blocks.len());
    for raw in blocks {
        match Block::parse(raw).map_err(|e| invalid(&path(), &e))? {
            Block::Text(whole) => parts.extend(text(whole)),
            Block::Image(image) => parts.push(self::image(image, path)?),
            _ => ignored.add(ignored::BLOCK_TYPE),
        }
    }
    Ok(parts)
}

/// A passage that the client found: title and source, then its text.
fn search_result(result: &SearchResult<'_>) -> Option<InputPart> {
    let mut lines: Vec<Cow<'_, str>> =
        [&result.title, &result.source].into_iter().flatten().map(|line| Cow::Borrowed(&**line)).collect();
    let content = result.content.and_then(|raw| Content::parse(raw, "").ok());
    match content {
        Some(Content::Text(whole)) => lines.push(whole),
        Some(Content::Blocks(blocks)) => {
            lines.extend(blocks.into_iter().filter_map(|raw| match Block::parse(raw) {
                Ok(Block::Text(whole)) => Some(whole),
                _ => None,
            }));
        }
        None => {}
    }
    text(lines.join("\n").into())
}

fn data_url(media_type: &str, data: &str) -> String {
    format!("data:{media_type};base64,{data}")
}

/// A source that cannot be reached from here: above all `file`, for there is no Files API.
fn bad_source(path: &dyn Fn() -> String, kind: &str) -> Problem {
    let path = format!("{}.source", path());
    let message = if kind == "file" {
        format!("{path}: files of the Files API are not available here; send the content as base64 or by URL")
    } else {
        format!("{path}: a source of type '{kind}' is not supported or lacks its data")
    };
    Problem::invalid(&path, message)
}
