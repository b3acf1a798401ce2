//! A form (`multipart/form-data`) as the JSON that says the same: what the SDKs send for edits.

use crate::dialect::{Problem, ProblemKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::request::MOST_SHOWN;

/// Fields whose text is a number.
const NUMBERS: [&str; 3] = ["n", "output_compression", "partial_images"];

/// The most bytes of one picture, as in OpenAI's API.
const LARGEST: usize = 50 * 1024 * 1024;

/// A form that is being read.
#[derive(Debug, Default)]
pub struct Form {
    fields: Map<String, Value>,
    shown: Vec<Value>,
}

impl Form {
    /// Takes a part. A picture's kind is told by its bytes: SDKs send bytes without a file name as
    /// `application/octet-stream`.
    pub fn part(&mut self, name: &str, content: &[u8]) -> Result<(), Problem> {
        match name {
            "image" | "image[]" => {
                self.shown.push(json!({ "image_url": picture("image", content)? }));
                if self.shown.len() > MOST_SHOWN {
                    return Err(Problem::invalid("image", format!("at most {MOST_SHOWN} pictures can be shown")));
                }
            }
            // OpenAI's other way to name the members of a list.
            _ if name.strip_prefix("image[").is_some_and(|rest| rest.ends_with(']')) => {
                return self.part("image[]", content);
            }
            "mask" => {
                self.once("mask", json!({ "image_url": picture("mask", content)? }))?;
            }
            _ => {
                let Ok(text) = std::str::from_utf8(content) else {
                    return Err(Problem::invalid(name, format!("`{name}` must be text in UTF-8")));
                };
                self.once(name, value(name, text)?)?;
            }
        }
        Ok(())
    }

    fn once(&mut self, name: &str, value: Value) -> Result<(), Problem> {
        match self.fields.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(Problem::invalid(name, format!("`{name}` is there twice"))),
        }
    }

    /// The same as JSON text.
    pub fn into_json(mut self) -> Result<Vec<u8>, Problem> {
        if self.shown.is_empty() {
            return Err(Problem::invalid("image", "`image` must be a picture, or several"));
        }
        self.fields.insert("images".to_owned(), Value::Array(self.shown));
        serde_json::to_vec(&self.fields).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))
    }
}

/// What the text of a field stands for.
fn value(name: &str, text: &str) -> Result<Value, Problem> {
    if name == "stream" {
        return match text {
            "true" | "True" | "1" => Ok(json!(true)),
            "false" | "False" | "0" | "" => Ok(json!(false)),
            _ => Err(Problem::invalid(name, "`stream` must be `true` or `false`")),
        };
    }
    if text.is_empty() {
        // How a form says that there is nothing.
        return Ok(Value::Null);
    }
    if NUMBERS.contains(&name) {
        let number: u64 =
            text.parse().map_err(|_| Problem::invalid(name, format!("`{name}` must be a whole number")))?;
        return Ok(json!(number));
    }
    Ok(json!(text))
}

/// The picture as a `data:` address.
fn picture(param: &str, content: &[u8]) -> Result<String, Problem> {
    if content.len() > LARGEST {
        return Err(Problem::invalid(param, format!("a picture of {} bytes is larger than 50 MB", content.len())));
    }
    let Some(kind) = kind(content) else {
        return Err(Problem::invalid(param, format!("`{param}` must be a PNG, WebP or JPEG file")));
    };
    Ok(format!("data:{kind};base64,{}", STANDARD.encode(content)))
}

fn kind(content: &[u8]) -> Option<&'static str> {
    if content.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if content.starts_with(b"\xFF\xD8\xFF") {
        Some("image/jpeg")
    } else if content.starts_with(b"RIFF") && content.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n rest";

    type Part<'a> = (&'a str, &'a [u8]);

    fn json_of(parts: &[Part<'_>]) -> Result<Value, Problem> {
        let mut form = Form::default();
        for (name, content) in parts {
            form.part(name, content)?;
        }
        form.into_json().map(|body| serde_json::from_slice(&body).expect("JSON"))
    }

    #[test]
    fn a_form_says_what_its_json_says() {
        let shown = format!("data:image/png;base64,{}", STANDARD.encode(PNG));
        let form = json_of(&[
            ("prompt", b"bluer"),
            ("image[]", PNG),
            ("image[]", PNG),
            ("mask", PNG),
            ("n", b"2"),
            ("stream", b"true"),
            ("user", b""),
        ]);
        let expected = json!({
            "prompt": "bluer", "n": 2, "stream": true, "user": null, "mask": {"image_url": shown},
            "images": [{"image_url": shown}, {"image_url": shown}],
        });
        assert_eq!(form.expect("legible"), expected);
    }

    #[test]
    fn a_part_that_is_not_what_it_should_be_is_named() {
        let many = [("image[]", PNG); 17];
        let cases: [(&str, &[Part<'_>]); 7] = [
            ("image", &[("prompt", b"a")]),
            ("image", &[("image", b"GIF89a")]),
            ("image", &many),
            ("mask", &[("image", PNG), ("mask", b"text")]),
            ("n", &[("n", b"two")]),
            ("stream", &[("stream", b"yes")]),
            ("prompt", &[("prompt", b"a"), ("prompt", b"b")]),
        ];
        for (param, parts) in cases {
            assert_eq!(json_of(parts).expect_err(param).param.as_deref(), Some(param));
        }
    }
}
