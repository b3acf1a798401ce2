//! Renders output items as the backend's server-sent events (protocol.md 3).
//!
//! Pure: ids come in through [`Stamp`]. Nothing here knows accounts, faults or sockets.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::script::{Output, PIXEL, Script, pieces};
use crate::tools::Call;
use crate::usage::Usage;

/// One event before it has a sequence number.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Its `type`.
    pub(crate) kind: String,
    /// Everything else.
    pub(crate) fields: Map<String, Value>,
}

impl Event {
    /// `fields` must be an object.
    pub(crate) fn new(kind: &str, fields: Value) -> Self {
        let Value::Object(fields) = fields else { unreachable!("event fields are an object") };
        Self { kind: kind.to_owned(), fields }
    }

    /// The frame on the wire: `type` first, as the backend writes it.
    pub(crate) fn frame(&self, sequence: usize) -> Bytes {
        let rest = Value::Object(self.fields.clone()).to_string();
        let rest =
            rest.strip_prefix('{').filter(|rest| rest.len() > 1).map_or("}".to_owned(), |rest| format!(",{rest}"));
        let kind = &self.kind;
        Bytes::from(format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{sequence}{rest}\n\n"))
    }

    /// Whether a stream ends here.
    pub(crate) fn terminal(&self) -> bool {
        matches!(self.kind.as_str(), "response.completed" | "response.incomplete" | "response.failed")
    }

    /// Whether it is one of many pieces.
    pub(crate) fn delta(&self) -> bool {
        self.kind.rsplit('.').next() == Some("delta")
    }
}

/// Makes ids such as `msg_0f3…`.
pub(crate) type Stamp<'a> = &'a mut dyn FnMut(&str) -> String;

/// The `response` object that opening and final events carry.
pub(crate) fn envelope(request: &Value, id: &str, created_at: i64) -> Value {
    let given = |key: &str, otherwise: Value| request.get(key).cloned().unwrap_or(otherwise);
    json!({
        "id": id, "object": "response", "created_at": created_at, "status": "in_progress",
        "background": false, "error": null, "incomplete_details": null,
        "instructions": given("instructions", Value::Null), "max_output_tokens": null, "max_tool_calls": null,
        "model": given("model", Value::Null), "output": [],
        "parallel_tool_calls": given("parallel_tool_calls", json!(true)), "previous_response_id": null,
        "prompt_cache_key": given("prompt_cache_key", Value::Null),
        "reasoning": given("reasoning", json!({"effort": null, "summary": null})),
        "safety_identifier": null, "service_tier": given("service_tier", json!("auto")), "store": false,
        "temperature": 1.0, "text": given("text", json!({"format": {"type": "text"}, "verbosity": "medium"})),
        "tool_choice": given("tool_choice", json!("auto")), "tools": given("tools", json!([])),
        "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": null, "user": null, "metadata": {},
    })
}

/// The whole stream of an answer.
pub(crate) fn render(envelope: &Value, script: &Script, usage: Usage, stamp: Stamp<'_>) -> Vec<Event> {
    let mut writer = Writer { events: opening(envelope), index: 0, stamp };
    for (position, output) in script.outputs.iter().enumerate() {
        let cut_short = script.incomplete && position + 1 == script.outputs.len();
        writer.output(output, if cut_short { "incomplete" } else { "completed" });
    }
    let mut events = writer.events;
    let mut closed = envelope.clone();
    closed["usage"] = usage.report();
    if script.outputs.iter().any(|output| matches!(output, Output::Image(_))) {
        closed["tool_usage"] = json!({"image_gen": {"input_tokens": 9, "output_tokens": 272, "total_tokens": 281,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 9}}});
    }
    if script.incomplete {
        closed["status"] = json!("incomplete");
        closed["incomplete_details"] = json!({"reason": "max_output_tokens"});
        events.push(Event::new("response.incomplete", json!({"response": closed})));
    } else {
        closed["status"] = json!("completed");
        closed["end_turn"] = json!(!script.outputs.iter().any(|output| matches!(output, Output::Call(_))));
        events.push(Event::new("response.completed", json!({"response": closed})));
    }
    events
}

/// The two events every stream begins with.
pub(crate) fn opening(envelope: &Value) -> Vec<Event> {
    let of = |kind| Event::new(kind, json!({"response": envelope}));
    vec![of("response.created"), of("response.in_progress")]
}

/// `response.failed` with this error.
pub(crate) fn failed(envelope: &Value, code: Option<&str>, message: &str) -> Event {
    let mut failed = envelope.clone();
    failed["status"] = json!("failed");
    failed["error"] = json!({"code": code, "message": message});
    Event::new("response.failed", json!({"response": failed}))
}

struct Writer<'a> {
    events: Vec<Event>,
    /// The next item's `output_index`.
    index: usize,
    stamp: Stamp<'a>,
}

impl Writer<'_> {
    fn output(&mut self, output: &Output, status: &str) {
        match output {
            Output::Message { pieces, phase, cites } => self.message(pieces, *phase, *cites, status),
            Output::Refusal(text) => self.refusal(text, status),
            Output::Reasoning { summary, sealed } => self.reasoning(summary, sealed.as_deref()),
            Output::Call(call) => self.call(call),
            Output::Search { query } => self.search(query),
            Output::Image(tool) => self.image(tool),
            Output::Compaction { sealed } => {
                let item = json!({"id": (self.stamp)("cmp"), "type": "compaction", "encrypted_content": sealed});
                self.added(&item);
                self.done(&item);
            }
        }
        self.index += 1;
    }

    fn push(&mut self, kind: &str, mut fields: Value) {
        fields["output_index"] = json!(self.index);
        self.events.push(Event::new(kind, fields));
    }

    fn added(&mut self, item: &Value) {
        self.push("response.output_item.added", json!({"item": item}));
    }

    fn done(&mut self, item: &Value) {
        self.push("response.output_item.done", json!({"item": item}));
    }

    fn message(&mut self, pieces: &[String], phase: Option<&str>, cites: bool, status: &str) {
        let id = (self.stamp)("msg");
        let mut item =
            json!({"id": id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"});
        if let Some(phase) = phase {
            item["phase"] = json!(phase);
        }
        let text = pieces.concat();
        let mut part = json!({"type": "output_text", "annotations": [], "logprobs": [], "text": ""});
        self.added(&item);
        self.push("response.content_part.added", json!({"item_id": id, "content_index": 0, "part": part}));
        for piece in pieces {
            self.push(
                "response.output_text.delta",
                json!({"item_id": id, "content_index": 0, "delta": piece, "logprobs": []}),
            );
        }
        if cites {
            let citation = json!({"type": "url_citation", "start_index": 0, "end_index": text.chars().count(),
                "title": "A simulated page", "url": "https://example.com/simulated"});
            part["annotations"] = json!([citation]);
            self.push(
                "response.output_text.annotation.added",
                json!({"item_id": id, "content_index": 0, "annotation_index": 0, "annotation": citation}),
            );
        }
        part["text"] = json!(text);
        self.push(
            "response.output_text.done",
            json!({"item_id": id, "content_index": 0, "text": text, "logprobs": []}),
        );
        self.push("response.content_part.done", json!({"item_id": id, "content_index": 0, "part": part}));
        item["status"] = json!(status);
        item["content"] = json!([part]);
        self.done(&item);
    }

    fn refusal(&mut self, text: &str, status: &str) {
        let id = (self.stamp)("msg");
        let mut item =
            json!({"id": id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"});
        self.added(&item);
        let empty = json!({"type": "refusal", "refusal": ""});
        self.push("response.content_part.added", json!({"item_id": id, "content_index": 0, "part": empty}));
        for piece in pieces(text) {
            self.push("response.refusal.delta", json!({"item_id": id, "content_index": 0, "delta": piece}));
        }
        let part = json!({"type": "refusal", "refusal": text});
        self.push("response.refusal.done", json!({"item_id": id, "content_index": 0, "refusal": text}));
        self.push("response.content_part.done", json!({"item_id": id, "content_index": 0, "part": part}));
        item["status"] = json!(status);
        item["content"] = json!([part]);
        self.done(&item);
    }

    fn reasoning(&mut self, summary: &[String], sealed: Option<&str>) {
        let id = (self.stamp)("rs");
        let mut item = json!({"id": id, "type": "reasoning", "summary": []});
        if let Some(sealed) = sealed {
            item["encrypted_content"] = json!(sealed);
        }
        self.added(&item);
        for (index, text) in summary.iter().enumerate() {
            let at = |fields: Value| {
                let mut fields = fields;
                fields["item_id"] = json!(id);
                fields["summary_index"] = json!(index);
                fields
            };
            let part = |text: &str| json!({"part": {"type": "summary_text", "text": text}});
            self.push("response.reasoning_summary_part.added", at(part("")));
            for piece in pieces(text) {
                self.push("response.reasoning_summary_text.delta", at(json!({"delta": piece})));
            }
            self.push("response.reasoning_summary_text.done", at(json!({"text": text})));
            self.push("response.reasoning_summary_part.done", at(part(text)));
        }
        let parts: Vec<Value> = summary.iter().map(|text| json!({"type": "summary_text", "text": text})).collect();
        item["summary"] = json!(parts);
        self.done(&item);
    }

    fn call(&mut self, call: &Call) {
        let (prefix, kind, field, delta, done) = if call.custom {
            (
                "ctc",
                "custom_tool_call",
                "input",
                "response.custom_tool_call_input.delta",
                "response.custom_tool_call_input.done",
            )
        } else {
            (
                "fc",
                "function_call",
                "arguments",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
            )
        };
        let id = (self.stamp)(prefix);
        let mut item = json!({"id": id, "type": kind, "status": "in_progress", "call_id": (self.stamp)("call"), "name": call.name});
        if let Some(namespace) = &call.namespace {
            item["namespace"] = json!(namespace);
        }
        item[field] = json!("");
        self.added(&item);
        for piece in pieces(&call.input) {
            self.push(delta, json!({"item_id": id, "delta": piece}));
        }
        let mut whole = json!({"item_id": id});
        whole[field] = json!(call.input);
        self.push(done, whole);
        item["status"] = json!("completed");
        item[field] = json!(call.input);
        self.done(&item);
    }

    fn search(&mut self, query: &str) {
        let id = (self.stamp)("ws");
        self.added(&json!({"id": id, "type": "web_search_call", "status": "in_progress"}));
        for stage in ["in_progress", "searching", "completed"] {
            self.push(&format!("response.web_search_call.{stage}"), json!({"item_id": id}));
        }
        let action = json!({"type": "search", "query": query, "queries": [query]});
        self.done(&json!({"id": id, "type": "web_search_call", "status": "completed", "action": action}));
    }

    /// A picture with as many previews as were asked for, or one where nothing was said of them.
    fn image(&mut self, tool: &Value) {
        let said = |key: &str, otherwise: &str| tool.get(key).and_then(Value::as_str).unwrap_or(otherwise).to_owned();
        let (format, size) = (said("output_format", "png"), said("size", "1024x1024"));
        let (quality, background) = (said("quality", "low"), said("background", "opaque"));
        let previews = tool.get("partial_images").and_then(Value::as_u64).unwrap_or(1);
        let id = (self.stamp)("ig");
        self.added(&json!({"id": id, "type": "image_generation_call", "status": "in_progress"}));
        for stage in ["in_progress", "generating"] {
            self.push(&format!("response.image_generation_call.{stage}"), json!({"item_id": id}));
        }
        for index in 0..previews {
            self.push(
                "response.image_generation_call.partial_image",
                json!({"item_id": id, "partial_image_index": index, "partial_image_b64": PIXEL,
                    "output_format": format, "size": size}),
            );
        }
        self.push("response.image_generation_call.completed", json!({"item_id": id}));
        self.done(&json!({"id": id, "type": "image_generation_call", "status": "completed", "background": background,
            "output_format": format, "quality": quality, "size": size, "revised_prompt": "a pixel", "result": PIXEL}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(script: &Script) -> Vec<String> {
        let request = json!({"model": "m"});
        let mut count = 0;
        let mut stamp = |prefix: &str| {
            count += 1;
            format!("{prefix}_{count}")
        };
        let events = render(&envelope(&request, "resp_1", 1), script, Usage::default(), &mut stamp);
        events.into_iter().map(|event| event.kind.trim_start_matches("response.").to_owned()).collect()
    }

    #[test]
    fn a_message_opens_streams_and_closes_in_order() {
        let message = Output::Message { pieces: vec!["a".into(), "b".into()], phase: None, cites: false };
        assert_eq!(
            kinds(&Script { outputs: vec![message], incomplete: false }),
            [
                "created",
                "in_progress",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "completed"
            ]
        );
    }

    #[test]
    fn an_incomplete_answer_ends_with_incomplete() {
        let script = Script { outputs: vec![Output::Refusal("no".into())], incomplete: true };
        assert_eq!(kinds(&script).last().map(String::as_str), Some("incomplete"));
    }

    #[test]
    fn frames_put_the_type_first_and_stay_json() {
        let frame = Event::new("response.x", json!({"a": 1})).frame(7);
        assert_eq!(frame, "event: response.x\ndata: {\"type\":\"response.x\",\"sequence_number\":7,\"a\":1}\n\n");
        let empty = Event::new("codex.keepalive", json!({})).frame(0);
        assert_eq!(empty, "event: codex.keepalive\ndata: {\"type\":\"codex.keepalive\",\"sequence_number\":0}\n\n");
    }
}
