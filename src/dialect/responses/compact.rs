//! Compaction as one call, made of a response: the same request with a trigger at its end, whose
//! stream holds one compaction item (protocol.md 6.3).

use super::request::prepare as prepare_response;
use crate::codex::raw::Raw;
use crate::codex::{Event, Failure, FailureKind, Usage};
use crate::dialect::{Context, Folder, ModelMap, Prepared, Problem, Reply, Translator};
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// What means nothing in a compaction.
const POINTLESS: [&str; 3] = ["text", "tool_choice", "service_tier"];

/// Reads a compaction request of anybody's.
pub fn prepare(body: &Bytes, context: &Context, models: &ModelMap) -> Result<Prepared, Problem> {
    let prepared = prepare_response(body, context, models, false)?;
    let illegible = |_| Problem::invalid("input", "`input` must be a string or a list of items");
    let mut request: Map<String, Value> = serde_json::from_slice(&prepared.body).map_err(illegible)?;
    for name in POINTLESS {
        request.remove(name);
    }
    let Some(Value::Array(input)) = request.get_mut("input") else {
        return Err(Problem::invalid("input", "`input` must be a string or a list of items"));
    };
    // What the user said stays as it was said; the compaction stands for all else.
    let is_users = |item: &&Value| item.get("role").and_then(Value::as_str) == Some("user");
    let kept = input.iter().filter(is_users).enumerate().map(|(index, item)| message(item, index, context)).collect();
    let trigger = json!({"type": "compaction_trigger"});
    if input.last() != Some(&trigger) {
        input.push(trigger);
    }
    let body = Bytes::from(Value::Object(request).to_string());
    let reply = Compaction { kept, context: context.clone() };
    Ok(Prepared { stream: false, body, reply: Box::new(reply), ..prepared })
}

/// A user's message as SDKs read it.
fn message(item: &Value, index: usize, context: &Context) -> Value {
    let parts = match item.get("content") {
        Some(Value::String(text)) => json!([{"type": "input_text", "text": text}]),
        parts => parts.cloned().unwrap_or_else(|| json!([])),
    };
    let id = item.get("id").cloned().unwrap_or_else(|| json!(format!("msg_{}_{index}", suffix(context))));
    json!({"type": "message", "id": id, "status": "completed", "role": "user", "content": parts})
}

fn suffix(context: &Context) -> &str {
    context.request_id.trim_start_matches("req_")
}

/// Makes the answer.
struct Compaction {
    kept: Vec<Value>,
    context: Context,
}

impl Reply for Compaction {
    /// Not asked for: the request never streams.
    fn stream(&self) -> Box<dyn Translator> {
        Box::new(super::stream::Passthrough::new(&self.context, "", std::sync::Arc::default(), true))
    }

    fn whole(&self) -> Box<dyn Folder> {
        Box::new(Folded { kept: self.kept.clone(), context: self.context.clone(), item: None, usage: None })
    }
}

struct Folded {
    kept: Vec<Value>,
    context: Context,
    item: Option<String>,
    usage: Option<Usage>,
}

impl Folder for Folded {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::ItemDone(done) if is_compaction(done.raw) => self.item = Some(done.raw.get().to_owned()),
            Event::Completed(response) | Event::Incomplete(response) => {
                self.usage = response.summary().and_then(|summary| summary.usage);
            }
            _ => {}
        }
    }

    fn shortfall(&self) -> Option<Failure> {
        let missing = || Failure::of(FailureKind::ServerError, "the backend answered without a compaction");
        self.item.is_none().then(missing)
    }

    fn finish(self: Box<Self>) -> Bytes {
        let Self { mut kept, context, item, usage } = *self;
        kept.extend(item.and_then(|item| serde_json::from_str::<Value>(&item).ok()));
        let usage = usage.unwrap_or_default();
        let body = json!({
            "id": format!("resp_{}", suffix(&context)),
            "object": "response.compaction",
            "created_at": context.now,
            "output": kept,
            "usage": {
                "input_tokens": usage.input,
                "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write.unwrap_or(0)},
                "output_tokens": usage.output,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.total,
            },
        });
        Bytes::from(body.to_string())
    }
}

fn is_compaction(item: Raw<'_>) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    let kind = serde_json::from_str::<Kind>(item.get()).map(|item| item.kind).unwrap_or_default();
    matches!(kind.as_str(), "compaction" | "compaction_summary")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(body: &Value) -> Result<Prepared, Problem> {
        let context = Context { request_id: "req_1".into(), now: 7 };
        prepare(&Bytes::from(body.to_string()), &context, &ModelMap::default())
    }

    #[test]
    fn the_trigger_comes_last_and_once() {
        for input in [json!("hi"), json!([{"role": "user", "content": "hi"}, {"type": "compaction_trigger"}])] {
            let prepared = prepared(&json!({"model": "m", "input": input, "text": {}})).expect("legible");
            let request: Value = serde_json::from_slice(&prepared.body).expect("JSON");
            let items = request["input"].as_array().expect("items");
            assert_eq!((items.len(), &items[1]), (2, &json!({"type": "compaction_trigger"})));
            assert!(request.get("text").is_none() && request["stream"] == json!(true));
        }
        assert!(prepared(&json!({"model": "m", "input": 7})).is_err());
    }

    #[test]
    fn the_answer_has_what_the_user_said_and_the_compaction() {
        let input = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]);
        let mut folder = prepared(&json!({"model": "m", "input": input})).expect("legible").reply.whole();
        let depth = folder.depth();
        assert!(folder.shortfall().is_some());
        for event in [
            &br#"{"type":"response.output_item.done","output_index":0,"item":{"type":"compaction","id":"cmp_1","encrypted_content":"x"}}"#[..],
            &br#"{"type":"response.completed","response":{"usage":{"input_tokens":5,"output_tokens":2}}}"#[..],
        ] {
            folder.event(&Event::parse(event, depth).expect("legible"));
        }
        assert!(folder.shortfall().is_none());
        let answer: Value = serde_json::from_slice(&folder.finish()).expect("JSON");
        assert_eq!(answer["output"][0]["content"], json!([{"type": "input_text", "text": "hi"}]));
        assert_eq!(answer["output"][1], json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}));
        assert_eq!((&answer["usage"]["total_tokens"], answer["output"].as_array().map(Vec::len)), (&json!(7), Some(2)));
    }
}
