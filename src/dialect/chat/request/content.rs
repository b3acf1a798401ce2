//! What a message holds: text, or parts.

use super::fields::{parse, wrong};
use crate::codex::raw::Raw;
use crate::codex::request::InputPart;
use crate::dialect::Problem;
use serde::Deserialize;
use std::borrow::Cow;

/// A content part as clients write it: Chat's own spellings, and those of Responses, which some
/// clients send to this path.
#[derive(Debug, Deserialize)]
struct Part<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    image_url: Option<Image>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    file: Option<File>,
    #[serde(flatten)]
    flat_file: File,
}

/// An image: `{"url","detail"}`, or the address alone.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Image {
    Address(String),
    Object {
        url: String,
        #[serde(default)]
        detail: Option<String>,
    },
}

#[derive(Debug, Default, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the wire")]
struct File {
    #[serde(default)]
    file_data: Option<String>,
    #[serde(default)]
    file_url: Option<String>,
    #[serde(default)]
    file_id: Option<String>,
    #[serde(default)]
    filename: Option<String>,
}

/// The parts of a content; `said` when it is the model's own.
pub(super) fn parts(content: Option<Raw<'_>>, said: bool, path: &str) -> Result<Vec<InputPart>, Problem> {
    let Some(raw) = content.filter(|raw| raw.get() != "null") else { return Ok(Vec::new()) };
    if raw.get().starts_with('"') {
        return Ok(vec![text(parse(raw, path)?, said)]);
    }
    if !raw.get().starts_with('[') {
        return Err(Problem::invalid(path, format!("`{path}` must be a string or a list of parts")));
    }
    let raws = raw.elements().map_err(|error| wrong(path, &error))?;
    raws.into_iter()
        .enumerate()
        .map(|(at, raw)| {
            let path = format!("{path}[{at}]");
            part(parse(raw, &path)?, said, &path)
        })
        .collect()
}

/// The parts of a tool's output. Some clients write a list of parts as text; where an image is among
/// them it is read, for as text it would cost a page of tokens and show nothing.
pub(super) fn output(content: Option<Raw<'_>>, path: &str) -> Result<Vec<InputPart>, Problem> {
    let parts = parts(content, false, path)?;
    if let [InputPart::InputText { text }] = parts.as_slice()
        && text.starts_with('[')
        && let Ok(raw) = Raw::read(text)
        && let Ok(written) = self::parts(Some(raw), false, path)
        && written.iter().any(|part| matches!(part, InputPart::InputImage { .. }))
    {
        return Ok(written);
    }
    Ok(parts)
}

fn text(text: String, said: bool) -> InputPart {
    if said { InputPart::OutputText { text } } else { InputPart::InputText { text } }
}

fn part(part: Part<'_>, said: bool, path: &str) -> Result<InputPart, Problem> {
    let missing = |name: &str| Problem::invalid(path, format!("`{path}.{name}` is required"));
    match &*part.kind {
        "text" | "input_text" | "output_text" => Ok(text(part.text.ok_or_else(|| missing("text"))?, said)),
        "refusal" => Ok(InputPart::Refusal { refusal: part.refusal.ok_or_else(|| missing("refusal"))? }),
        "image_url" | "input_image" => match part.image_url.ok_or_else(|| missing("image_url"))? {
            Image::Address(image_url) => Ok(InputPart::InputImage { image_url, detail: part.detail }),
            Image::Object { url, detail } => Ok(InputPart::InputImage { image_url: url, detail }),
        },
        "file" | "input_file" => file(part.file.unwrap_or(part.flat_file), path),
        "input_audio" => Err(Problem::invalid(path, "the backend does not take audio: send a transcript as text")),
        other => Err(Problem::invalid(path, format!("`{path}.type`: unknown type '{other}'"))),
    }
}

fn file(file: File, path: &str) -> Result<InputPart, Problem> {
    if file.file_data.is_none() && file.file_url.is_none() {
        let reason = match file.file_id {
            Some(_) => "Tollway keeps no files: send `file_data` instead of `file_id`".to_owned(),
            None => format!("`{path}.file.file_data` is required"),
        };
        return Err(Problem::invalid(path, reason));
    }
    Ok(InputPart::InputFile { filename: file.filename, file_data: file.file_data, file_url: file.file_url })
}
