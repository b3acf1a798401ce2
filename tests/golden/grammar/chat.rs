//! Chat Completions: reads chunks as a strict client does, and adds them up.

use super::payloads;
use crate::run::Answer;
use serde_json::Value;

/// What a client makes of a stream of chunks.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) refusal: String,
    pub(crate) reasoning: String,
    /// Pieces of one thought put together, as clients do that send them back.
    pub(crate) reasoning_details: Vec<Value>,
    pub(crate) annotations: Vec<Value>,
    pub(crate) images: Vec<Value>,
    /// Calls as the completion has them.
    pub(crate) calls: Vec<Value>,
    pub(crate) finish: Option<String>,
    pub(crate) usage: Option<Value>,
    pub(crate) failed: bool,
}

/// Whether the stream is legal and says the same as the whole answer.
pub(crate) fn check(answer: &Answer) -> Result<(), String> {
    let said = read(&answer.stream)?;
    if said.failed != answer.failed {
        return Err(format!("failed: {}, the stream says {}", answer.failed, said.failed));
    }
    if said.failed { Ok(()) } else { agrees(&said, &answer.whole) }
}

fn agrees(said: &Said, whole: &str) -> Result<(), String> {
    let whole: Value = serde_json::from_str(whole).map_err(|e| e.to_string())?;
    let choice = &whole["choices"][0];
    let message = &choice["message"];
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    let calls = match &message["function_call"] {
        Value::Null => message["tool_calls"].as_array().cloned().unwrap_or_default(),
        call => vec![call.clone()],
    };
    let list = |name: &str| message[name].as_array().cloned().unwrap_or_default();
    let same = said.text == text("content")
        && said.refusal == text("refusal")
        && said.reasoning == text("reasoning_content")
        && said.reasoning_details == list("reasoning_details")
        && said.images == list("images")
        && message["annotations"].as_array() == Some(&said.annotations)
        && said.calls == calls
        && said.finish.as_deref() == choice["finish_reason"].as_str()
        && said.usage.as_ref().is_none_or(|usage| *usage == whole["usage"]);
    if same { Ok(()) } else { Err(format!("the whole answer {message} is not the stream's {said:?}")) }
}

/// Reads chunks as a strict client does.
pub(crate) fn read(stream: &str) -> Result<Said, String> {
    let mut said = Said::default();
    let mut first: Option<Value> = None;
    let mut is_done = false;
    for payload in payloads(stream)? {
        if is_done || said.failed {
            return Err(format!("after the end: {payload}"));
        }
        if payload == "[DONE]" {
            is_done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(payload).map_err(|e| e.to_string())?;
        if chunk["error"].is_object() {
            said.failed = true;
            continue;
        }
        let first = first.get_or_insert_with(|| chunk.clone());
        if ["id", "object", "created", "model"].iter().any(|name| chunk[name] != first[name]) {
            return Err(format!("another head: {payload}"));
        }
        take(&mut said, &chunk)?;
    }
    if let Some(first) = &first
        && first["choices"][0]["delta"]["role"] != "assistant"
    {
        return Err("the first chunk has no role".to_owned());
    }
    match (said.failed, is_done, &said.finish) {
        (false, true, Some(_)) | (true, false, None) => Ok(said),
        other => Err(format!("an end that is none: {other:?}")),
    }
}

fn take(said: &mut Said, chunk: &Value) -> Result<(), String> {
    let choices = chunk["choices"].as_array().ok_or("no choices")?;
    let [choice] = choices.as_slice() else {
        if said.finish.is_none() || said.usage.is_some() || !choices.is_empty() {
            return Err(format!("usage out of place: {chunk}"));
        }
        said.usage = Some(chunk["usage"].clone());
        return Ok(());
    };
    if said.finish.is_some() {
        return Err(format!("after the finish reason: {chunk}"));
    }
    let delta = &choice["delta"];
    said.finish = choice["finish_reason"].as_str().map(str::to_owned);
    said.text += delta["content"].as_str().unwrap_or_default();
    said.refusal += delta["refusal"].as_str().unwrap_or_default();
    said.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
    for annotation in delta["annotations"].as_array().into_iter().flatten() {
        let mut annotation = annotation.clone();
        let index = annotation.as_object_mut().and_then(|annotation| annotation.remove("index"));
        if index != Some(said.annotations.len().into()) {
            return Err(format!("an annotation out of order: {delta}"));
        }
        said.annotations.push(annotation);
    }
    said.images.extend(delta["images"].as_array().cloned().unwrap_or_default());
    for detail in delta["reasoning_details"].as_array().into_iter().flatten() {
        add_detail(&mut said.reasoning_details, detail)?;
    }
    for call in delta["tool_calls"].as_array().into_iter().flatten() {
        let index = call["index"].as_u64().and_then(|i| usize::try_from(i).ok()).ok_or("a call without index")?;
        let mut call = call.clone();
        call.as_object_mut().ok_or("a call that is no object")?.remove("index");
        add_call(&mut said.calls, index, call)?;
    }
    if delta["function_call"].is_object() {
        add_call(&mut said.calls, 0, delta["function_call"].clone())?;
    }
    Ok(())
}

/// More of a thought: what may be read appends, what is encrypted stands for itself.
fn add_detail(details: &mut Vec<Value>, part: &Value) -> Result<(), String> {
    let member = match part["type"].as_str() {
        Some("reasoning.summary") => "summary",
        Some("reasoning.text") => "text",
        Some("reasoning.encrypted")
            if part["data"].is_string() && details.iter().all(|old| old["index"] != part["index"]) =>
        {
            details.push(part.clone());
            return Ok(());
        }
        _ => return Err(format!("no detail: {part}")),
    };
    let more = part[member].as_str().ok_or("a detail without words")?;
    let same = |old: &&mut Value| old["index"] == part["index"];
    match details.iter_mut().find(same) {
        // OpenAI's SDK would join these, too.
        Some(_) if part["id"].is_string() || part["format"].is_string() => {
            return Err(format!("said twice: {part}"));
        }
        Some(old) if old["type"] != part["type"] => return Err(format!("another kind: {part}")),
        Some(old) => old[member] = format!("{}{more}", old[member].as_str().unwrap_or_default()).into(),
        None => details.push(part.clone()),
    }
    Ok(())
}

/// A call begins with its name, at the next index; the rest appends.
fn add_call(calls: &mut Vec<Value>, index: usize, part: Value) -> Result<(), String> {
    let name = |call: &Value| [&call["function"], &call["custom"], call].into_iter().any(|it| it["name"].is_string());
    if index == calls.len() {
        let is_named = name(&part);
        let fault = format!("begins without a name: {part}");
        calls.push(part);
        return if is_named { Ok(()) } else { Err(fault) };
    }
    let call = calls.get_mut(index).filter(|_| !name(&part)).ok_or(format!("out of order: {part}"))?;
    for path in ["/function/arguments", "/custom/input", "/arguments"] {
        if let (Some(Value::String(text)), Some(more)) = (call.pointer_mut(path), part.pointer(path)) {
            text.push_str(more.as_str().unwrap_or_default());
        }
    }
    Ok(())
}
