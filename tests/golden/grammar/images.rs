//! A picture: previews in their order, then the picture, or an error.

use super::payloads;
use crate::run::Answer;
use serde_json::Value;

pub(crate) fn check(answer: &Answer) -> Result<(), String> {
    let events: Vec<Value> = payloads(&answer.stream)?
        .into_iter()
        .map(|data| serde_json::from_str(data).map_err(|error| format!("{error}: {data}")))
        .collect::<Result<_, _>>()?;
    for (frame, event) in answer.stream.split_terminator("\n\n").zip(&events) {
        let name = frame.lines().next().and_then(|line| line.strip_prefix("event: "));
        if name != event["type"].as_str() {
            return Err(format!("an event of another name than its type: {frame}"));
        }
    }
    let Some((last, previews)) = events.split_last() else { return Err("no event".to_owned()) };
    let kind = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    if let Some(odd) = previews.iter().find(|event| !kind(event).ends_with(".partial_image")) {
        return Err(format!("not a preview: {odd}"));
    }
    let whole: Value = serde_json::from_str(&answer.whole).map_err(|error| error.to_string())?;
    if answer.failed {
        let is_told = kind(last) == "error" && last["error"]["code"] == whole["body"]["error"]["code"];
        return is_told.then_some(()).ok_or(format!("a failure that is not told: {last}"));
    }
    if !kind(last).ends_with(".completed") {
        return Err(format!("a stream that does not end: {last}"));
    }
    let is_same = last["b64_json"] == whole["data"][0]["b64_json"]
        && last["usage"] == whole["usage"]
        && last["created_at"] == whole["created"];
    is_same.then_some(()).ok_or_else(|| "the stream and the whole answer differ".to_owned())
}
