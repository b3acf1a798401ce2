//! The WebSocket transport's requests (protocol.md 4): a frame names an earlier response and brings
//! only what is new. The backend over HTTP remembers nothing, so the connection's own memory makes
//! the whole conversation of it again.
//!
//! The canonical form is the HTTP request: what a client can only say inside a frame (`generate`, its
//! turn state, the mark of the lite form) is taken out of the body and becomes a header.

use super::fields::Members;
use crate::codex::raw::Raw;
use crate::codex::request::can_be_sent_back;
use crate::dialect::{Problem, ProblemKind};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// What a client's frame is.
pub enum ClientFrame<'a> {
    /// `response.create`.
    Create(Create<'a>),
    /// `response.steer`: asks to add to a response that is under way. The answer, since it cannot be done.
    Steer(String),
    /// Any other type: `response.processed`, or one that is not known. It gets no answer.
    Other,
}

/// A `response.create` frame.
pub struct Create<'a> {
    members: Members<'a>,
    /// The response that the new items follow.
    pub previous: Option<String>,
    /// Whether the model is to answer; `false` only makes the prefix known.
    pub generate: bool,
}

/// Headers that travel inside `client_metadata` under their own names.
const OWN_NAMES: [&str; 3] = ["x-codex-turn-state", "x-codex-turn-metadata", "x-codex-window-id"];
/// Any other header does with this before its name, and with underscores for dashes.
const HEADER_PREFIX: &str = "ws_request_header_";
/// What says something of the WebSocket only.
const OF_THE_SOCKET: [&str; 2] = ["x-codex-turn-state", "x-codex-ws-stream-request-start-ms"];

/// Reads a frame.
pub fn read(text: &[u8]) -> Result<ClientFrame<'_>, Problem> {
    let invalid = |message: String| Problem::new(ProblemKind::InvalidRequest, message);
    let members = Members::read(text).map_err(|error| invalid(format!("The frame is not a JSON object: {error}")))?;
    let kind: Option<String> = members.get("type").and_then(|kind| serde_json::from_str(kind.get()).ok());
    match kind.as_deref() {
        None => return Err(Problem::invalid("type", "a frame has a `type`, such as \"response.create\"")),
        Some("response.create") => {}
        Some("response.steer") => return Ok(ClientFrame::Steer(steer_failed(&members))),
        Some(_) => return Ok(ClientFrame::Other),
    }
    if members.get("stream_id").is_some_and(|id| id.get() != "null") {
        let reason = "Responses run one after the other on a connection: open another one instead of a `stream_id`";
        return Err(unsupported("stream_id", reason));
    }
    if members.get("background").is_some_and(|background| background.get() == "true") {
        return Err(unsupported("background", "A WebSocket carries no background responses: send it over HTTP"));
    }
    if members.get("conversation").is_some_and(|conversation| conversation.get() != "null") {
        let reason = "A connection has its own conversation: name what you go on from in `previous_response_id`";
        return Err(unsupported("conversation", reason));
    }
    let previous: Option<String> = match members.get("previous_response_id") {
        None => None,
        Some(id) => serde_json::from_str(id.get())
            .map_err(|_| Problem::invalid("previous_response_id", "`previous_response_id` must be a string"))?,
    };
    let generate = match members.get("generate").map(Raw::get) {
        None | Some("null" | "true") => true,
        Some("false") => false,
        Some(_) => return Err(Problem::invalid("generate", "`generate` must be true or false")),
    };
    Ok(ClientFrame::Create(Create { members, previous, generate }))
}

fn steer_failed(members: &Members<'_>) -> String {
    let member = |name: &str| members.get(name).map(Raw::get).and_then(|raw| serde_json::from_str(raw).ok());
    let [input, previous]: [Option<Value>; 2] = [member("input"), member("previous_response_id")];
    let message = "Steering is not supported: send the input with the next `response.create`";
    json!({
        "type": "response.steer.failed", "sequence_number": 0,
        "error": {"type": "invalid_request_error", "code": "steering_not_supported", "message": message},
        "steer": {"input": input, "previous_response_id": previous},
    })
    .to_string()
}

fn unsupported(param: &str, reason: &str) -> Problem {
    Problem { code: Some("unsupported_parameter".to_owned()), ..Problem::invalid(param, reason) }
}

/// The response that a frame names is not known here: the client sends the whole conversation then.
pub fn previous_not_found(id: &str) -> Problem {
    Problem {
        code: Some("previous_response_not_found".to_owned()),
        ..Problem::invalid("previous_response_id", format!("Previous response with id '{id}' not found."))
    }
}

impl Create<'_> {
    /// The items that the frame brings; a text is a message.
    pub fn items(&self) -> Result<Vec<Item>, Problem> {
        let Some(input) = self.members.get("input") else { return Ok(Vec::new()) };
        if let Ok(said) = serde_json::from_str::<String>(input.get()) {
            let message = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]});
            return Ok(vec![Item::new(&message.to_string())]);
        }
        let items =
            input.elements().map_err(|_| Problem::invalid("input", "`input` must be a string or a list of items"))?;
        Ok(items.into_iter().map(|item| Item::new(item.get())).collect())
    }

    /// The same request over HTTP, its input being these items.
    pub fn body(&self, conversation: &[Item]) -> Bytes {
        let size = conversation.iter().map(|item| item.raw.len() + 1).sum::<usize>();
        let mut body = String::with_capacity(size + 4096);
        for (name, value) in &self.members.0 {
            let value: Cow<'_, str> = match name.as_ref() {
                "type" | "generate" | "previous_response_id" | "input" | "stream" | "stream_id" | "background" => {
                    continue;
                }
                "client_metadata" => metadata(*value),
                _ => Cow::Borrowed(value.get()),
            };
            put(&mut body, name, &value);
        }
        put(&mut body, "stream", "true");
        put(&mut body, "input", "[");
        for (n, item) in conversation.iter().enumerate() {
            if n > 0 {
                body.push(',');
            }
            body.push_str(&item.raw);
        }
        body.push_str("]}");
        Bytes::from(body)
    }

    /// The headers that the frame carries in its `client_metadata`. What they are worth is for the
    /// reader to know: a client may write anything here.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in self.metadata() {
            let header = match name.strip_prefix(HEADER_PREFIX) {
                Some(rest) => rest.replace('_', "-"),
                None if OWN_NAMES.contains(&name.as_str()) => name,
                None => continue,
            };
            if let (Ok(header), Some(Ok(value))) =
                (HeaderName::try_from(header), value.as_str().map(HeaderValue::try_from))
            {
                headers.insert(header, value);
            }
        }
        headers
    }

    fn metadata(&self) -> Map<String, Value> {
        self.members.get("client_metadata").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }
}

fn put(body: &mut String, name: &str, value: &str) {
    body.push(if body.is_empty() { '{' } else { ',' });
    body.push_str(&json!(name).to_string());
    body.push(':');
    body.push_str(value);
}

/// The metadata without what has become a header or is of no meaning over HTTP.
fn metadata(raw: Raw<'_>) -> Cow<'_, str> {
    let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(raw.get()) else {
        return Cow::Borrowed(raw.get());
    };
    let before = members.len();
    members.retain(|name, _| !name.starts_with(HEADER_PREFIX) && !OF_THE_SOCKET.contains(&name.as_str()));
    if members.len() == before { Cow::Borrowed(raw.get()) } else { Cow::Owned(Value::Object(members).to_string()) }
}

/// The input of a request over HTTP; `None` where it is no list.
pub fn items_of(body: &[u8]) -> Option<Vec<Item>> {
    let members = Members::read(body).ok()?;
    let items = members.get("input")?.elements().ok()?;
    Some(items.into_iter().map(|item| Item::new(item.get())).collect())
}

/// One item of a conversation; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    id: Option<Arc<str>>,
    raw: Arc<str>,
}

impl Item {
    /// An item as it stands in JSON.
    pub fn new(raw: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Named<'a> {
            #[serde(borrow, default, deserialize_with = "crate::codex::text::borrowed")]
            id: Option<Cow<'a, str>>,
        }
        let Named { id } = serde_json::from_str(raw).unwrap_or_default();
        Self { id: id.map(Arc::from), raw: raw.into() }
    }
}

/// The conversation of one connection: its newest line, and which responses lie on it.
///
/// A request without a predecessor begins a new one. One that names an earlier response goes on from
/// there, and what came after that response is forgotten.
#[derive(Debug)]
pub struct Memory {
    items: Vec<Item>,
    /// Each response with the number of items up to its end.
    responses: Vec<(String, usize)>,
    /// How many bytes of items are kept at most; a longer conversation is not kept at all.
    limit: usize,
}

impl Memory {
    /// A memory for at most so many bytes.
    pub fn new(limit: usize) -> Self {
        Self { items: Vec::new(), responses: Vec::new(), limit }
    }

    /// The conversation up to and with a response; `None` if it is not known.
    pub fn until(&self, response: &str) -> Option<&[Item]> {
        let (_, end) = self.responses.iter().rev().find(|(id, _)| id == response)?;
        self.items.get(..*end)
    }

    /// The conversation that a request continues, with its new items. Items that the client repeats
    /// stand there once, since the backend refuses a repeated id.
    pub fn conversation(&self, earlier: &[Item], new: Vec<Item>) -> Vec<Item> {
        let known: HashSet<&str> = earlier.iter().filter_map(|item| item.id.as_deref()).collect();
        let is_new = |item: &Item| item.id.as_deref().is_none_or(|id| !known.contains(id));
        earlier.iter().cloned().chain(new.into_iter().filter(is_new)).collect()
    }

    /// Keeps a finished response: the conversation it answered, and what it answered.
    pub fn keep(&mut self, response: String, conversation: Vec<Item>, output: Vec<Item>) {
        let before = self.items.iter().zip(&conversation).take_while(|(old, new)| old == new).count();
        self.responses.retain(|(_, end)| *end <= before);
        self.items = conversation;
        self.items.extend(output.into_iter().filter(|item| can_be_sent_back(&item.raw)));
        if self.items.iter().map(|item| item.raw.len()).sum::<usize>() > self.limit {
            self.items.clear();
            self.responses.clear();
        } else {
            self.responses.push((response, self.items.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(frame: &Value) -> (Value, HeaderMap) {
        let text = frame.to_string();
        let Ok(ClientFrame::Create(create)) = read(text.as_bytes()) else { panic!("a request: {frame}") };
        let body = create.body(&create.items().expect("items"));
        (serde_json::from_slice(&body).expect("JSON"), create.headers())
    }

    fn items(texts: &[&str]) -> Vec<Item> {
        texts.iter().map(|text| Item::new(&json!({"id": text, "type": "message"}).to_string())).collect()
    }

    #[test]
    fn a_frame_becomes_the_request_that_http_would_bring() {
        let (body, headers) = create(&json!({
            "type": "response.create", "model": "m", "generate": false, "previous_response_id": "resp_1",
            "input": "hi", "store": false,
            "client_metadata": {
                "thread_id": "t", "x-codex-turn-state": "ts", "x-codex-window-id": "w:1",
                "ws_request_header_x_openai_internal_codex_responses_lite": "true",
                "x-codex-ws-stream-request-start-ms": "1",
            },
        }));
        let message = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]});
        let expected = json!({
            "model": "m", "store": false, "stream": true, "input": [message],
            "client_metadata": {"thread_id": "t", "x-codex-window-id": "w:1"},
        });
        assert_eq!(body, expected);
        assert_eq!(headers["x-codex-turn-state"], "ts");
        assert_eq!(headers["x-codex-window-id"], "w:1");
        assert_eq!(headers["x-openai-internal-codex-responses-lite"], "true");
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn other_types_are_let_be_and_what_cannot_be_done_is_refused() {
        for kind in ["response.processed", "session.update", "x"] {
            let text = json!({"type": kind}).to_string();
            assert!(matches!(read(text.as_bytes()), Ok(ClientFrame::Other)), "{kind}");
        }
        for (frame, param) in [
            (json!({"model": "m"}), Some("type")),
            (json!({"type": "response.create", "stream_id": "a"}), Some("stream_id")),
            (json!({"type": "response.create", "background": true}), Some("background")),
            (json!({"type": "response.create", "conversation": "conv_1"}), Some("conversation")),
            (json!({"type": "response.create", "generate": 1}), Some("generate")),
            (json!({"type": "response.create", "previous_response_id": 1}), Some("previous_response_id")),
            (json!([]), None),
        ] {
            let text = frame.to_string();
            let problem = read(text.as_bytes()).err().unwrap_or_else(|| panic!("refused: {frame}"));
            assert_eq!((problem.kind, problem.param.as_deref()), (ProblemKind::InvalidRequest, param), "{frame}");
        }
    }

    #[test]
    fn a_chain_of_responses_gives_the_whole_conversation() {
        let mut memory = Memory::new(10_000);
        memory.keep("resp_0".into(), items(&["system"]), vec![]);
        let second = memory.conversation(memory.until("resp_0").expect("known"), items(&["question"]));
        memory.keep("resp_1".into(), second, items(&["answer"]));
        assert_eq!(memory.until("resp_0"), Some(&items(&["system"])[..]));
        assert_eq!(memory.until("resp_1"), Some(&items(&["system", "question", "answer"])[..]));
        assert_eq!(memory.until("resp_2"), None);
    }

    #[test]
    fn going_on_from_an_earlier_response_forgets_what_came_after_it() {
        let mut memory = Memory::new(10_000);
        memory.keep("resp_0".into(), items(&["a"]), vec![]);
        memory.keep("resp_1".into(), items(&["a", "b"]), vec![]);
        memory.keep("resp_2".into(), items(&["a", "c"]), vec![]);
        assert!(memory.until("resp_0").is_some() && memory.until("resp_2").is_some());
        assert_eq!(memory.until("resp_1"), None);
        memory.keep("resp_3".into(), items(&["compacted"]), vec![]);
        assert_eq!(memory.until("resp_2"), None, "another conversation has begun");
    }

    #[test]
    fn an_item_that_the_client_repeats_stands_there_once() {
        let memory = Memory::new(10_000);
        assert_eq!(memory.conversation(&items(&["a", "b"]), items(&["b", "c"])), items(&["a", "b", "c"]));
    }

    #[test]
    fn reasoning_is_kept_only_with_what_makes_it_readable() {
        let mut memory = Memory::new(10_000);
        let sealed = Item::new(r#"{"id":"rs_1","type":"reasoning","encrypted_content":"x"}"#);
        let open = Item::new(r#"{"id":"rs_2","type":"reasoning","encrypted_content":null}"#);
        memory.keep("resp_1".into(), vec![], vec![sealed.clone(), open]);
        assert_eq!(memory.until("resp_1"), Some(&[sealed][..]));
    }

    #[test]
    fn a_conversation_beyond_the_limit_is_not_kept() {
        let mut memory = Memory::new(40);
        memory.keep("resp_0".into(), items(&["a"]), vec![]);
        memory.keep("resp_1".into(), items(&["a", "a longer one"]), vec![]);
        assert_eq!((memory.until("resp_0"), memory.until("resp_1")), (None, None));
    }
}
