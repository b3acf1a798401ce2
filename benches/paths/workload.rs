//! The hot paths, each as something that can be done again and again: the criterion bench measures how
//! long they take, `benches/instructions` how many instructions. Nothing here is random and there is no
//! clock, so that the same is done every time.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::hint::black_box;
use std::mem::replace;
use std::sync::Arc;
use tollway::codex::Event;
use tollway::codex::event::Depth;
use tollway::codex::sse::{Decoder, Frame};
use tollway::dialect::{Context, ModelMap, Prepared, Reply, chat, messages, responses};

/// How many pieces of text a short and a long answer have.
const DELTAS: [u32; 2] = [64, 512];
/// Bytes of a question, and of one that comes with files.
const PROMPTS: [(&str, usize); 2] = [("small", 200), ("200KB", 200_000)];
/// How many bytes of an answer come and go at once, on a connection that always has more.
const CHUNK: usize = 8192;

/// One of the hot paths.
pub(crate) struct Path {
    /// What is done, and how much of it: `chat/stream/64`.
    pub(crate) name: String,
    /// How many pieces of text that is; of a request, one.
    pub(crate) elements: u32,
    run: Box<dyn Fn()>,
}

impl Path {
    /// Does it once.
    pub(crate) fn run(&self) {
        (self.run)();
    }
}

/// All of them.
pub(crate) fn paths() -> Vec<Path> {
    let answers = DELTAS.into_iter().flat_map(answers);
    let requests = PROMPTS.into_iter().flat_map(|(size, bytes)| Api::ALL.map(|api| request(api, size, bytes)));
    answers.chain(requests).collect()
}

/// An answer is decoded, and translated for each kind of client.
fn answers(deltas: u32) -> Vec<Path> {
    let path = |what: String, run| Path { name: format!("{what}/{deltas}"), elements: deltas, run };
    let stream = stream(deltas);
    let burst: Arc<[Bytes]> = stream.as_bytes().chunks(CHUNK).map(Bytes::copy_from_slice).collect();
    // As they come from a model that is slower than the connection.
    let paced: Arc<[Bytes]> = stream.split_inclusive("\n\n").map(|frame| frame.to_owned().into()).collect();
    let mut paths = vec![
        path("decoder/burst".to_owned(), decode(Arc::clone(&burst))),
        path("decoder/paced".to_owned(), decode(paced)),
    ];
    for api in Api::ALL {
        let reply: Arc<dyn Reply> = Desk::new(api).prepare(&api.body(PROMPTS[0].1)).reply.into();
        paths.push(path(format!("{}/stream", api.name()), translate(Arc::clone(&reply), Arc::clone(&burst))));
        paths.push(path(format!("{}/whole", api.name()), fold(reply, Arc::clone(&burst))));
    }
    paths
}

/// A request is made into what the backend takes.
fn request(api: Api, size: &str, prompt: usize) -> Path {
    let (desk, body) = (Desk::new(api), api.body(prompt));
    let run = move || drop(black_box(desk.prepare(&body)));
    Path { name: format!("{}/request/{size}", api.name()), elements: 1, run: Box::new(run) }
}

/// As a stream is read that passes as it is, or of which the end alone is wanted.
fn decode(chunks: Arc<[Bytes]>) -> Box<dyn Fn()> {
    Box::new(move || {
        for frame in frames(&chunks) {
            let data = frame.data().expect("no comments");
            black_box(Event::parse(&data, Depth::Control).expect("legible"));
        }
    })
}

fn translate(reply: Arc<dyn Reply>, chunks: Arc<[Bytes]>) -> Box<dyn Fn()> {
    Box::new(move || {
        let mut translator = reply.stream();
        let (depth, room) = (translator.depth(), CHUNK + 1024);
        let mut out = BytesMut::with_capacity(room);
        for frame in frames(&chunks) {
            let data = frame.data().expect("no comments");
            translator.event(&Event::parse(&data, depth).expect("legible"), &frame, &mut out);
            // Each write has a buffer of its own, as in the relay.
            if out.len() >= CHUNK {
                black_box(replace(&mut out, BytesMut::with_capacity(room)).freeze());
            }
        }
        translator.finish(None, &mut out);
        black_box(out.freeze());
    })
}

fn fold(reply: Arc<dyn Reply>, chunks: Arc<[Bytes]>) -> Box<dyn Fn()> {
    Box::new(move || {
        let mut folder = reply.whole();
        let depth = folder.depth();
        for frame in frames(&chunks) {
            let data = frame.data().expect("no comments");
            folder.event(&Event::parse(&data, depth).expect("legible"));
        }
        black_box(folder.finish());
    })
}

fn frames(chunks: &[Bytes]) -> impl Iterator<Item = Frame> {
    let (mut decoder, mut chunks) = (Decoder::new(), chunks.iter());
    std::iter::from_fn(move || {
        loop {
            if let Some(frame) = decoder.next_frame().expect("small frames") {
                return Some(frame);
            }
            decoder.push(chunks.next()?.clone());
        }
    })
}

/// Which way a request comes in.
#[derive(Clone, Copy)]
enum Api {
    Responses,
    CodexCli,
    Chat,
    Messages,
}

impl Api {
    const ALL: [Self; 4] = [Self::Responses, Self::CodexCli, Self::Chat, Self::Messages];

    fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::CodexCli => "codex-cli",
            Self::Chat => "chat",
            Self::Messages => "messages",
        }
    }

    /// A turn of an agent that has asked the weather before and has a prompt of this many bytes.
    fn body(self, prompt: usize) -> Bytes {
        let line = "    let name = \"value\"; // one of the lines\n";
        let prompt = &line.repeat(prompt.div_ceil(line.len()))[..prompt];
        let body = match self {
            Self::Responses | Self::CodexCli => responses_body(prompt),
            Self::Chat => chat_body(prompt),
            Self::Messages => messages_body(prompt),
        };
        body.to_string().into()
    }
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

fn responses_body(prompt: &str) -> Value {
    json!({"model": "gpt-5.5", "stream": true, "store": false, "instructions": "Be brief.",
        "prompt_cache_key": "session_1", "tool_choice": "auto", "parallel_tool_calls": true,
        "reasoning": {"effort": "medium", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "How is it in Oslo?"}]},
            {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": r#"{"city":"Oslo"}"#},
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}],
        "tools": [{"type": "function", "name": "get_weather", "description": "Weather of a city",
            "parameters": schema(), "strict": false}]})
}

fn chat_body(prompt: &str) -> Value {
    let call = json!({"name": "get_weather", "arguments": r#"{"city":"Oslo"}"#});
    json!({"model": "gpt-5.5", "stream": true, "stream_options": {"include_usage": true}, "tool_choice": "auto",
        "reasoning_effort": "medium",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How is it in Oslo?"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            {"role": "user", "content": prompt}],
        "tools": [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
            "parameters": schema()}}]})
}

fn messages_body(prompt: &str) -> Value {
    json!({"model": "claude-opus-5", "stream": true, "max_tokens": 32_000, "system": "Be brief.",
        "thinking": {"type": "adaptive"},
        "messages": [
            {"role": "user", "content": "How is it in Oslo?"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Oslo"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"},
                {"type": "text", "text": prompt}]}],
        "tools": [{"name": "get_weather", "description": "Weather of a city", "input_schema": schema()}]})
}

/// Prepares requests as the gateway does, with a few names for models.
struct Desk {
    api: Api,
    context: Context,
    models: ModelMap,
}

impl Desk {
    fn new(api: Api) -> Self {
        let context = Context { request_id: "req_01997b6e3c5f7d8e9a0b".to_owned(), now: 1_790_000_000 };
        let names = [("fast", "gpt-6-luna:low"), ("claude-haiku*", "gpt-6-luna:low"), ("claude-*", "gpt-5.5")];
        Self { api, context, models: ModelMap::new(names) }
    }

    fn prepare(&self, body: &Bytes) -> Prepared {
        let Self { api, context, models } = self;
        let prepared = match api {
            Api::Responses => responses::request::prepare(body, context, models, false),
            Api::CodexCli => responses::request::prepare(body, context, models, true),
            Api::Chat => chat::prepare(body, context, models),
            Api::Messages => messages::prepare(body, context, models),
        };
        prepared.unwrap_or_else(|problem| panic!("{problem:?}"))
    }
}

/// An answer as the backend writes it (protocol.md 3): pieces of text, and a call of a tool.
fn stream(deltas: u32) -> String {
    let mut stream = Written::default();
    let response = r#""id":"resp_068f2a91","object":"response","created_at":1790000000,"model":"gpt-5.5","output":[]"#;
    let begun = format!(r#""response":{{{response},"status":"in_progress","usage":null}}"#);
    stream.event("response.created", &begun);
    stream.event("response.in_progress", &begun);
    stream.message(deltas);
    stream.call();
    let usage = format!(
        r#""usage":{{"input_tokens":120,"input_tokens_details":{{"cached_tokens":100}},"output_tokens":{deltas},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}"#,
        120 + deltas
    );
    stream.event("response.completed", &format!(r#""response":{{{response},"status":"completed",{usage}}}"#));
    stream.frames
}

#[derive(Default)]
struct Written {
    frames: String,
    events: u32,
}

impl Written {
    fn event(&mut self, kind: &str, fields: &str) {
        let number = self.events;
        self.events += 1;
        write!(self.frames, "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{number},{fields}}}\n\n")
            .expect("strings have room");
    }

    fn message(&mut self, deltas: u32) {
        let id = "msg_068f2a91c4d74b7a0068e9d2f4a6c8819d8f3e2b1c0a9f8e7d";
        let place = format!(r#""item_id":"{id}","output_index":0,"content_index":0"#);
        let item = |status: &str, content: &str| {
            format!(
                r#""output_index":0,"item":{{"id":"{id}","type":"message","status":"{status}","role":"assistant","content":[{content}]}}"#
            )
        };
        let part = |text: &str| format!(r#"{{"type":"output_text","annotations":[],"logprobs":[],"text":"{text}"}}"#);
        self.event("response.output_item.added", &item("in_progress", ""));
        self.event("response.content_part.added", &format!(r#"{place},"part":{}"#, part("")));
        let mut text = String::new();
        for number in 0..deltas {
            // Each tenth begins a line.
            let piece = if number % 10 == 9 { r"\nthen" } else { " word" };
            text.push_str(piece);
            self.event("response.output_text.delta", &format!(r#"{place},"delta":"{piece}","logprobs":[]"#));
        }
        self.event("response.output_text.done", &format!(r#"{place},"text":"{text}","logprobs":[]"#));
        self.event("response.content_part.done", &format!(r#"{place},"part":{}"#, part(&text)));
        self.event("response.output_item.done", &item("completed", &part(&text)));
    }

    fn call(&mut self) {
        let id = "fc_068f2a91c4d74b7a0068e9d2f7b1d0819da3c5e7092b4d6f8a";
        let item = |arguments: &str| {
            format!(
                r#""output_index":1,"item":{{"id":"{id}","type":"function_call","call_id":"call_2","name":"get_weather","arguments":"{arguments}"}}"#
            )
        };
        let place = format!(r#""item_id":"{id}","output_index":1"#);
        self.event("response.output_item.added", &item(""));
        let pieces = [r#"{\""#, "city", r#"\":\""#, "Bergen", r#"\"}"#];
        for piece in pieces {
            self.event("response.function_call_arguments.delta", &format!(r#"{place},"delta":"{piece}""#));
        }
        let arguments = pieces.concat();
        self.event("response.function_call_arguments.done", &format!(r#"{place},"arguments":"{arguments}""#));
        self.event("response.output_item.done", &item(&arguments));
    }
}
