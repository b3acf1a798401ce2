//! Responses. Events pass, so that a stream is as legal as the backend's; its end is ours.

use crate::run::Answer;
use serde_json::Value;
use std::collections::BTreeMap;

const TERMINALS: [&str; 4] = ["response.completed", "response.incomplete", "response.failed", "error"];

/// Whether the numbers never fall back and the stream ends as the whole answer does.
pub(crate) fn check(answer: &Answer) -> Result<(), String> {
    let mut last = None;
    for event in events(&answer.stream)? {
        let number = event["sequence_number"].as_u64();
        if number.is_some() && number <= last {
            return Err(format!("the number falls back: {event}"));
        }
        last = number.or(last);
    }
    ends(answer)
}

/// Whether there is one terminal event, nothing after it, and the same outcome as of the whole answer.
pub(crate) fn ends(answer: &Answer) -> Result<(), String> {
    let mut events = events(&answer.stream)?;
    let last = events.pop().map(|event| kind(&event).to_owned()).unwrap_or_default();
    if let Some(early) = events.iter().find(|event| TERMINALS.contains(&kind(event))) {
        return Err(format!("an event after {early}"));
    }
    let ended_well = ["response.completed", "response.incomplete"].contains(&last.as_str());
    if TERMINALS.contains(&last.as_str()) && ended_well != answer.failed {
        Ok(())
    } else {
        Err(format!("ends with {last:?}"))
    }
}

/// The events, as a reader of server-sent events finds them.
pub(crate) fn events(stream: &str) -> Result<Vec<Value>, String> {
    let stream = stream.replace("\r\n", "\n");
    let frames = stream.split("\n\n").map(|frame| {
        let lines = frame.lines().filter_map(|line| line.strip_prefix("data:"));
        lines.collect::<Vec<_>>().join("\n")
    });
    let parse = |data: String| serde_json::from_str(&data).map_err(|error| format!("{error}: {data}"));
    frames.filter(|data| !data.trim().is_empty()).map(parse).collect()
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap_or_default()
}

/// What has been said of one item between its `added` and its `done`.
#[derive(Default)]
struct Open {
    kind: String,
    /// By name of the delta's event, with the part's index.
    said: BTreeMap<(String, u64), String>,
}

/// Holds a stream to OpenAI's grammar in full: `response.created` first, items opened once and closed
/// once, nothing said of an item that is not open, and each text equal to its deltas.
pub(crate) fn strict(stream: &str) -> Result<(), String> {
    let (mut open, mut done) = (BTreeMap::<u64, Open>::new(), Vec::new());
    for (at, event) in events(stream)?.iter().enumerate() {
        let need = |holds: bool, fault: &str| if holds { Ok(()) } else { Err(format!("{fault}: {event}")) };
        let kind = kind(event);
        need((kind == "response.created") == (at == 0), "created first, and once")?;
        need(event["sequence_number"] == at, "a number out of order")?;
        let Some(index) = event["output_index"].as_u64() else { continue };
        match kind {
            "response.output_item.added" => {
                need(!done.contains(&index), "opened again")?;
                let item =
                    Open { kind: event["item"]["type"].as_str().unwrap_or_default().to_owned(), ..Open::default() };
                need(open.insert(index, item).is_none(), "opened twice")?;
            }
            "response.output_item.done" => {
                let item = open.remove(&index).ok_or(format!("closed but not open: {event}"))?;
                need(event["item"]["type"] == item.kind.as_str(), "another type at its end")?;
                done.push(index);
                agrees(&item, &event["item"]).map_err(|fault| format!("{fault}: {event}"))?;
            }
            _ => {
                let item = open.get_mut(&index).ok_or(format!("of an item that is not open: {event}"))?;
                if let Some((name, delta)) = kind.strip_suffix(".delta").zip(event["delta"].as_str()) {
                    let part = ["content_index", "summary_index"].iter().find_map(|part| event[part].as_u64());
                    item.said.entry((name.to_owned(), part.unwrap_or(0))).or_default().push_str(delta);
                }
            }
        }
    }
    if open.is_empty() { Ok(()) } else { Err("an item is never done".to_owned()) }
}

/// Whether a finished item says what its deltas said.
fn agrees(open: &Open, item: &Value) -> Result<(), String> {
    for ((name, part), said) in &open.said {
        let part = usize::try_from(*part).unwrap_or_default();
        let whole = match name.as_str() {
            "response.refusal" => &item["content"][part]["refusal"],
            "response.output_text" | "response.reasoning_text" => &item["content"][part]["text"],
            "response.reasoning_summary_text" => &item["summary"][part]["text"],
            "response.function_call_arguments" => &item["arguments"],
            "response.custom_tool_call_input" => &item["input"],
            _ => continue,
        };
        if whole.as_str() != Some(said) {
            return Err(format!("{name} {part} said {said:?}, and in the end {whole}"));
        }
    }
    Ok(())
}
