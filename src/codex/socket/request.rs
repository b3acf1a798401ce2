//! A request over HTTP as a frame on a WebSocket: all of it, or what is new on that connection. Pure.

use http::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// Headers of a request that travel in its frame, and under which name.
pub(super) const IN_METADATA: [(&str, &str); 3] = [
    ("x-codex-turn-state", "x-codex-turn-state"),
    ("x-openai-internal-codex-responses-lite", "ws_request_header_x_openai_internal_codex_responses_lite"),
    ("traceparent", "ws_request_header_traceparent"),
];
/// Members that may differ between a request and the one it continues.
const FREE: [&str; 3] = ["input", "client_metadata", "stream"];

/// A conversation that the backend has on a connection, by hashes.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Its newest response.
    pub(super) response: String,
    /// All members of the request but its input.
    pub(super) rest: u64,
    pub(super) items: Vec<u64>,
}

/// A request, taken apart.
pub(super) struct Request<'a> {
    members: BTreeMap<String, &'a RawValue>,
    items: Vec<&'a RawValue>,
    /// What the backend has when it has read the request.
    pub(super) said: Said,
}

impl<'a> Request<'a> {
    /// `None` for what is no request; HTTP tells what is wrong with it.
    pub(super) fn read(body: &'a [u8], hasher: &RandomState) -> Option<Self> {
        let mut members: BTreeMap<String, &'a RawValue> = serde_json::from_slice(body).ok()?;
        let items: Vec<&'a RawValue> = serde_json::from_str(members.remove("input")?.get()).ok()?;
        let rest: Vec<_> = members.iter().filter(|(name, _)| !FREE.contains(&name.as_str())).collect();
        let rest = hasher.hash_one(rest.iter().map(|(name, value)| (*name, value.get())).collect::<Vec<_>>());
        let said = Said {
            response: String::new(),
            rest,
            items: items.iter().map(|item| hasher.hash_one(item.get())).collect(),
        };
        Some(Self { members, items, said })
    }

    /// How many items the backend has already; `None` if the request does not continue what was said.
    pub(super) fn continues(&self, said: &Said) -> Option<usize> {
        let known = said.items.len();
        let is_continued = said.rest == self.said.rest && self.said.items.len() > known;
        (is_continued && self.said.items.starts_with(&said.items)).then_some(known)
    }

    /// The frame: all of it, or what is new after a response.
    pub(super) fn frame(&self, after: Option<(&str, usize)>, headers: &HeaderMap) -> String {
        let mut frame = String::from("{\"type\":\"response.create\"");
        let mut put = |name: &str, value: &str| {
            frame.push(',');
            frame.push_str(&json!(name).to_string());
            frame.push(':');
            frame.push_str(value);
        };
        for (name, value) in self.members.iter().filter(|(name, _)| *name != "client_metadata") {
            put(name, value.get());
        }
        let metadata = self.members.get("client_metadata").and_then(|raw| serde_json::from_str(raw.get()).ok());
        let mut metadata: Map<String, Value> = metadata.unwrap_or_default();
        for (header, name) in IN_METADATA {
            if let Some(value) = headers.get(header).and_then(|value| value.to_str().ok()) {
                metadata.insert(name.to_owned(), json!(value));
            }
        }
        if !metadata.is_empty() {
            put("client_metadata", &Value::Object(metadata).to_string());
        }
        let known = after.map_or(0, |(response, known)| {
            put("previous_response_id", &json!(response).to_string());
            known
        });
        let new: Vec<&str> = self.items.iter().skip(known).map(|item| item.get()).collect();
        put("input", &format!("[{}]", new.join(",")));
        frame.push('}');
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with_input(items: &Value) -> String {
        json!({"model": "m", "stream": true, "input": items, "client_metadata": {"n": items}}).to_string()
    }

    #[test]
    fn a_request_that_continues_what_was_said_brings_only_what_is_new() {
        let hasher = RandomState::new();
        let first = with_input(&json!(["a"]));
        let mut said = Request::read(first.as_bytes(), &hasher).expect("a request").said;
        said.response = "resp_1".into();
        said.items.push(hasher.hash_one("\"b\""));
        let second = with_input(&json!(["a", "b", "c"]));
        let second = Request::read(second.as_bytes(), &hasher).expect("a request");
        assert_eq!(second.continues(&said), Some(2));
        let mut headers = HeaderMap::new();
        headers.insert("x-codex-turn-state", HeaderValue::from_static("ts"));
        let frame: Value = serde_json::from_str(&second.frame(Some(("resp_1", 2)), &headers)).expect("JSON");
        let metadata = json!({"n": ["a", "b", "c"], "x-codex-turn-state": "ts"});
        let expected = json!({
            "type": "response.create", "model": "m", "stream": true, "previous_response_id": "resp_1",
            "input": ["c"], "client_metadata": metadata,
        });
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_request_that_differs_is_sent_in_full() {
        let hasher = RandomState::new();
        let first = with_input(&json!(["a"]));
        let said = Request::read(first.as_bytes(), &hasher).expect("a request").said;
        let other_model = json!({"model": "n", "input": ["a", "b"]}).to_string();
        for body in [with_input(&json!(["b", "a"])), with_input(&json!(["a"])), other_model] {
            let request = Request::read(body.as_bytes(), &hasher).expect("a request");
            assert_eq!(request.continues(&said), None, "{body}");
        }
        assert!(Request::read(b"{}", &hasher).is_none());
    }
}
