//! A request for pictures: by the backend's call where that takes all of it, else by its tool
//! (protocol.md 2.4, 6.5).

use super::answer::{Look, Shape};
use super::{Answer, Task};
use crate::codex::Request;
use crate::codex::request::{InputItem, InputPart, Reasoning, Role, Tool, ToolChoice};
use crate::dialect::{Context, Prepared, Problem, ProblemKind, ResolvedModel, Wish};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// How a request is met.
pub enum Asked {
    /// By the backend's call: its answer passes.
    Call(Pictures),
    /// By a response in which a model uses the tool.
    Tool(Box<Prepared>),
}

/// A request as the backend's call takes it.
#[derive(Debug)]
pub struct Pictures {
    /// JSON.
    pub body: Bytes,
    /// The fields that were left out.
    pub ignored: Vec<&'static str>,
}

type Fields = Map<String, Value>;

const PASSED: [&str; 7] = ["prompt", "model", "background", "quality", "size", "n", "images"];

/// What the tool takes too, under the same name.
const TOOL: [&str; 8] =
    ["model", "background", "quality", "size", "output_format", "output_compression", "input_fidelity", "moderation"];

/// What only the tool takes.
const ONLY_TOOL: [&str; 4] = ["input_fidelity", "moderation", "output_compression", "output_format"];

/// What may be left out, and is named: it changes how the picture is packed or who is said to ask.
const IGNORED: [&str; 9] = [
    "input_fidelity",
    "moderation",
    "output_compression",
    "output_format",
    "partial_images",
    "safety_identifier",
    "style",
    "user",
    "unknown-fields",
];

/// The most pictures that one request may ask for, as in OpenAI's API.
const MOST: u64 = 10;
/// … and show.
pub(super) const MOST_SHOWN: usize = 16;
/// The most previews of a picture.
const MOST_PREVIEWS: u64 = 3;

/// What the model that has the tool is told.
const INSTRUCTIONS: &str =
    "Use the image_generation tool once. Take the user's message as its prompt, word for word, and add nothing to it.";

/// Reads a request. `host` is the model that uses the tool where one has to.
pub fn prepare(body: &[u8], task: Task, context: &Context, host: &ResolvedModel) -> Result<Asked, Problem> {
    let mut asked: Fields = serde_json::from_slice(body).map_err(|error| {
        Problem::new(ProblemKind::InvalidRequest, format!("The request body is not a JSON object: {error}"))
    })?;
    asked.retain(|_, value| !value.is_null());
    let Some(prompt) = asked.get("prompt").and_then(Value::as_str).filter(|prompt| !prompt.is_empty()) else {
        return Err(Problem::invalid("prompt", "`prompt` must be a non-empty string"));
    };
    let prompt = prompt.to_owned();
    check(&asked)?;
    let shown = if task == Task::Edit { shown(&asked)? } else { Vec::new() };
    if !needs_tool(&asked) {
        return Ok(Asked::Call(for_call(asked, task)));
    }
    if asked.get("n").is_some_and(|n| *n != 1) {
        return Err(Problem::invalid("n", "one picture at a time is made with `stream` or a `mask`: leave `n` out"));
    }
    for_tool(&asked, task, prompt, shown, context, host).map(|prepared| Asked::Tool(Box::new(prepared)))
}

/// Whether the backend's call would leave out what was asked for and the tool would not.
fn needs_tool(asked: &Fields) -> bool {
    let is_alone = asked.get("n").is_none_or(|n| *n == 1);
    let is_default = |name: &str, value: &Value| name == "output_format" && value == "png";
    streams(asked)
        || asked.contains_key("mask")
        || (is_alone && ONLY_TOOL.iter().any(|name| asked.get(*name).is_some_and(|value| !is_default(name, value))))
}

fn streams(asked: &Fields) -> bool {
    asked.get("stream") == Some(&Value::Bool(true))
}

fn for_call(mut asked: Fields, task: Task) -> Pictures {
    let mut ignored = Vec::new();
    asked.retain(|name, value| {
        let passes = PASSED.contains(&name.as_str()) && (name != "images" || task == Task::Edit);
        // What the backend does in any case was not ignored.
        let is_met = name == "response_format" || name == "stream" || (name == "output_format" && value == "png");
        if !passes && !is_met {
            name_it(name, &mut ignored);
        }
        passes
    });
    Pictures { body: Bytes::from(Value::Object(asked).to_string()), ignored }
}

fn name_it(name: &str, ignored: &mut Vec<&'static str>) {
    let named = IGNORED.iter().find(|known| **known == name).copied().unwrap_or("unknown-fields");
    if !ignored.contains(&named) {
        ignored.push(named);
    }
}

fn for_tool(
    asked: &Fields,
    task: Task,
    prompt: String,
    shown: Vec<String>,
    context: &Context,
    host: &ResolvedModel,
) -> Result<Prepared, Problem> {
    let stream = streams(asked);
    let previews = asked.get("partial_images").and_then(Value::as_u64).filter(|_| stream).unwrap_or(0);
    let mut tool = Map::new();
    let mut ignored = Vec::new();
    for (name, value) in asked {
        match name.as_str() {
            "prompt" | "images" | "n" | "stream" | "response_format" => {}
            "partial_images" if stream => {}
            "mask" if task == Task::Edit => {
                let mask = address(value).ok_or_else(|| no_address("mask"))?;
                tool.insert("input_image_mask".to_owned(), json!({ "image_url": mask }));
            }
            name if TOOL.contains(&name) => drop(tool.insert(name.to_owned(), value.clone())),
            name => name_it(name, &mut ignored),
        }
    }
    if previews > 0 {
        tool.insert("partial_images".to_owned(), json!(previews));
    }
    tool.insert("action".to_owned(), json!(if task == Task::Edit { "edit" } else { "generate" }));

    let text = |name: &str| asked.get(name).and_then(Value::as_str).map(str::to_owned);
    let look = Look {
        background: text("background"),
        output_format: text("output_format"),
        quality: text("quality"),
        size: text("size"),
    };
    let shape = Shape { task, created: context.now, partial_images: u32::try_from(previews).unwrap_or(0), look };

    let mut parts = vec![InputPart::InputText { text: prompt }];
    parts.extend(shown.into_iter().map(|image_url| InputPart::InputImage { image_url, detail: None }));
    let mut request = Request::new(host.slug.clone());
    request.instructions = Some(INSTRUCTIONS.to_owned());
    request.input = vec![InputItem::Message { role: Role::User, content: parts }];
    request.tools = vec![Tool::ImageGeneration(tool)];
    request.tool_choice = Some(ToolChoice::Object(json!({ "type": "image_generation" })));
    request.reasoning = host.effort.clone().map(|effort| Reasoning { effort: Some(effort), summary: None });
    let wish = Wish::of(&request, None);
    let body = request.to_json(0).map_err(|e| Problem::new(ProblemKind::Internal, e.to_string()))?;
    Ok(Prepared {
        model: request.model,
        requested_model: text("model").unwrap_or_else(|| host.slug.clone()),
        stream,
        body,
        ignored,
        session: None,
        beginning: None,
        wish,
        reply: Box::new(Answer(Arc::new(shape))),
    })
}

/// The addresses of the pictures that are to be changed.
fn shown(asked: &Fields) -> Result<Vec<String>, Problem> {
    let pictures = asked.get("images").and_then(Value::as_array).filter(|pictures| !pictures.is_empty());
    let Some(pictures) = pictures else {
        return Err(Problem::invalid("images", "`images` must be a list of `{\"image_url\": …}`"));
    };
    if pictures.len() > MOST_SHOWN {
        return Err(Problem::invalid("images", format!("at most {MOST_SHOWN} pictures can be shown")));
    }
    let addresses = pictures.iter().enumerate();
    addresses.map(|(at, picture)| address(picture).ok_or_else(|| no_address(&format!("images.{at}")))).collect()
}

/// Where a picture is: in its own address, or on the web.
fn address(picture: &Value) -> Option<String> {
    let url = picture.get("image_url")?.as_str()?;
    (url.starts_with("data:image/") || url.starts_with("https://") || url.starts_with("http://"))
        .then(|| url.to_owned())
}

fn no_address(param: &str) -> Problem {
    let message =
        "a picture must be `{\"image_url\": \"data:image/…\"}` or an address on the web: no files are kept here";
    Problem::invalid(param, message)
}

fn check(asked: &Fields) -> Result<(), Problem> {
    let unsupported = |param: &str, why: &str| Problem {
        code: Some("unsupported_parameter".to_owned()),
        ..Problem::invalid(param, why)
    };
    if asked.get("response_format").is_some_and(|format| format != "b64_json") {
        return Err(unsupported("response_format", "Tollway keeps no pictures: ask for `b64_json`, or leave it out"));
    }
    if asked.get("output_format").is_some_and(|format| !["png", "jpeg", "webp"].iter().any(|known| format == known)) {
        return Err(unsupported("output_format", "`output_format` must be `png`, `jpeg` or `webp`"));
    }
    if asked.get("stream").is_some_and(|stream| !stream.is_boolean()) {
        return Err(Problem::invalid("stream", "`stream` must be a boolean"));
    }
    for (name, least, most) in [("n", 1, MOST), ("partial_images", 0, MOST_PREVIEWS), ("output_compression", 0, 100)] {
        if asked.get(name).is_some_and(|given| given.as_u64().is_none_or(|given| !(least..=most).contains(&given))) {
            return Err(Problem::invalid(name, format!("`{name}` must be a whole number from {least} to {most}")));
        }
    }
    for name in ["background", "quality", "size", "input_fidelity", "moderation"] {
        if asked.get(name).is_some_and(|given| !given.is_string()) {
            return Err(Problem::invalid(name, format!("`{name}` must be a string")));
        }
    }
    match asked.get("model") {
        Some(Value::String(model)) if model.starts_with("dall-e") => {
            let message = format!("The model '{model}' does not exist here: pictures are made by `gpt-image` models");
            Err(Problem { param: Some("model".to_owned()), ..Problem::new(ProblemKind::ModelNotFound, message) })
        }
        None | Some(Value::String(_)) => Ok(()),
        Some(_) => Err(Problem::invalid("model", "`model` must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "data:image/png;base64,AAAA";

    fn asked(body: &Value, task: Task) -> Result<Asked, Problem> {
        let context = Context { request_id: "req_1".to_owned(), now: 1 };
        let host = ResolvedModel { slug: "gpt-5.5".to_owned(), effort: Some("low".to_owned()) };
        prepare(body.to_string().as_bytes(), task, &context, &host)
    }

    fn refused(body: &Value, task: Task) -> Problem {
        asked(body, task).err().expect("a refusal")
    }

    #[test]
    fn what_the_backends_call_takes_passes_and_the_rest_is_named() {
        let body = json!({"prompt": "a", "n": 2, "size": "1024x1024", "user": "u", "new": 1, "output_format": "webp",
            "response_format": "b64_json", "style": null});
        let Ok(Asked::Call(pictures)) = asked(&body, Task::Generate) else { panic!("by the call") };
        let body: Value = serde_json::from_slice(&pictures.body).expect("JSON");
        assert_eq!(body, json!({"prompt": "a", "n": 2, "size": "1024x1024"}));
        let mut ignored = pictures.ignored;
        ignored.sort_unstable();
        assert_eq!(ignored, ["output_format", "unknown-fields", "user"]);
    }

    #[test]
    fn what_only_the_tool_can_do_is_done_by_the_tool() {
        let body = json!({"prompt": "a", "images": [{"image_url": SHOWN}], "mask": {"image_url": SHOWN},
            "output_format": "webp", "n": 1, "user": "u", "model": "gpt-image-2"});
        let Ok(Asked::Tool(prepared)) = asked(&body, Task::Edit) else { panic!("by the tool") };
        let body: Value = serde_json::from_slice(&prepared.body).expect("JSON");
        let tool = json!({"type": "image_generation", "action": "edit", "model": "gpt-image-2",
            "output_format": "webp", "input_image_mask": {"image_url": SHOWN}});
        assert_eq!(body["tools"], json!([tool]));
        assert_eq!((&body["model"], &body["reasoning"]["effort"]), (&json!("gpt-5.5"), &json!("low")));
        assert_eq!(body["input"][0]["content"][1]["image_url"], SHOWN);
        assert_eq!((prepared.stream, prepared.ignored), (false, vec!["user"]));
    }

    #[test]
    fn previews_are_asked_for_only_in_a_stream() {
        let previews =
            |stream| match asked(&json!({"prompt": "a", "partial_images": 2, "stream": stream}), Task::Generate) {
                Ok(Asked::Tool(prepared)) => serde_json::from_slice::<Value>(&prepared.body).expect("JSON")["tools"][0]
                    ["partial_images"]
                    .as_u64(),
                Ok(Asked::Call(pictures)) => {
                    assert_eq!(pictures.ignored, ["partial_images"]);
                    None
                }
                Err(problem) => panic!("{problem:?}"),
            };
        assert_eq!((previews(true), previews(false)), (Some(2), None));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_its_parameter() {
        for (field, value) in [
            ("prompt", json!("")),
            ("stream", json!("yes")),
            ("response_format", json!("url")),
            ("output_format", json!("svg")),
            ("output_compression", json!(101)),
            ("partial_images", json!(4)),
            ("size", json!(1024)),
            ("n", json!(0)),
            ("n", json!(11)),
            ("model", json!("dall-e-3")),
        ] {
            let mut body = json!({"prompt": "a"});
            body[field] = value;
            assert_eq!(refused(&body, Task::Generate).param.as_deref(), Some(field));
        }
        let several = json!({"prompt": "a", "stream": true, "n": 2});
        assert_eq!(refused(&several, Task::Generate).param.as_deref(), Some("n"));
    }

    #[test]
    fn pictures_to_change_are_needed_few_and_within_reach() {
        let many: Vec<_> = (0..17).map(|_| json!({"image_url": SHOWN})).collect();
        for (images, param) in [
            (json!([]), "images"),
            (json!(many), "images"),
            (json!([{"image_url": SHOWN}, {"file_id": "file-1"}]), "images.1"),
            (json!([{"image_url": "file:///etc/passwd"}]), "images.0"),
        ] {
            let body = json!({"prompt": "a", "images": images});
            assert_eq!(refused(&body, Task::Edit).param.as_deref(), Some(param));
        }
        let masked = json!({"prompt": "a", "images": [{"image_url": SHOWN}], "mask": {"file_id": "file-1"}});
        assert_eq!(refused(&masked, Task::Edit).param.as_deref(), Some("mask"));
        let body = prepare(
            b"--boundary",
            Task::Edit,
            &Context { request_id: String::new(), now: 0 },
            &ResolvedModel { slug: String::new(), effort: None },
        );
        assert!(body.is_err());
    }
}
