//! `GET /backend-api/codex/responses` as a WebSocket (protocol.md 4): what was said on a connection is
//! known on it and nowhere else.
//!
//! Requests are judged and answered by the same rooms as over HTTP; only the form differs.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use crate::events::{self, Event};
use crate::faults::{Kind, Place, Stall, When};
use crate::intake::Intake;
use crate::mishap::{self, HangUp};
use crate::playback::{self, Step, Watch};
use crate::responses::{Caller, answer, caller, full, refused, turn_state};
use crate::state::{Sim, now};
use crate::usage::Usage;

type Asked = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Largest frame, in bytes.
const LARGEST: usize = 64 << 20;

/// The handshake.
pub(crate) async fn open(State(sim): State<Arc<Sim>>, asked: Asked, intake: Intake) -> Response {
    let Ok(asked) = asked else { return mishap::detail(405, "Method Not Allowed") };
    if !sim.settings().websocket {
        let headers = [(header::UPGRADE, "websocket")];
        return (StatusCode::UPGRADE_REQUIRED, headers, "WebSocket transport is not available").into_response();
    }
    let id = match intake.authenticate(&sim) {
        Ok(id) => id,
        Err(denied) => return denied.into_response(),
    };
    let mut fate = sim.faults.meet(Place::Handshake, Some(&id));
    fate.pass(When::Before).await;
    let Some(caller) = caller(&sim, id.clone()) else { return mishap::detail(401, "Unauthorized") };
    if let Some(refusal) = fate.end.as_ref().and_then(|kind| mishap::instead(kind, &caller.plan)) {
        return refusal;
    }
    if !intake.header("openai-beta").is_some_and(|beta| beta.starts_with("responses_websockets=")) {
        return mishap::detail(400, "Missing OpenAI-Beta: responses_websockets");
    }
    let of_a_frame = ["x-codex-turn-state", "x-openai-internal-codex-responses-lite"];
    if let Some(name) = of_a_frame.iter().find(|name| intake.header(name).is_some()) {
        return mishap::detail(400, &format!("{name} belongs in client_metadata"));
    }
    let headers = caller.limits.headers(&caller.plan);
    let connection = Connection { sim, id, intake, known: BTreeMap::new(), early: VecDeque::new() };
    let mut response = asked
        .max_message_size(LARGEST)
        .max_frame_size(LARGEST)
        .on_upgrade(async move |socket| drop(connection.run(socket).await));
    for (name, value) in headers {
        crate::responses::put(response.headers_mut(), name, &value);
    }
    response
}

/// One connection and what was said on it.
struct Connection {
    sim: Arc<Sim>,
    id: String,
    intake: Intake,
    /// By response: the whole conversation up to its end.
    known: BTreeMap<String, Vec<Value>>,
    /// Frames that came while a response was under way.
    early: VecDeque<String>,
}

/// The connection is over.
struct Over;

impl Connection {
    async fn run(mut self, mut socket: WebSocket) -> Result<(), Over> {
        loop {
            let text = match self.early.pop_front() {
                Some(text) => text,
                None => match socket.recv().await {
                    Some(Ok(Message::Text(text))) => text.to_string(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    _ => return Err(Over),
                },
            };
            let frame: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            self.intake.capture_frame(&self.sim, &frame, text.len());
            if frame["type"] == "response.create" {
                self.turn(&mut socket, frame).await?;
            }
        }
    }

    /// The request that the frame makes of what is known; the refusal otherwise.
    fn complete(&self, frame: &Value) -> Result<(Value, bool), Value> {
        let mut request = frame.clone();
        let Some(fields) = request.as_object_mut() else { return Err(error("", "Input should be an object")) };
        fields.remove("type");
        let generate = fields.remove("generate").is_none_or(|generate| generate != json!(false));
        let Some(previous) = fields.remove("previous_response_id") else { return Ok((request, generate)) };
        let Some(earlier) = previous.as_str().and_then(|id| self.known.get(id)) else {
            let message = format!("Previous response with id {previous} not found.");
            return Err(error("previous_response_not_found", &message));
        };
        let new = request["input"].as_array().cloned().unwrap_or_default();
        let all: Vec<Value> = earlier.iter().cloned().chain(new).collect();
        let mut seen = HashSet::new();
        let ids = all.iter().filter_map(|item| item["id"].as_str());
        for id in ids {
            if !seen.insert(id) {
                return Err(error("", &format!("Duplicate item found with id {id}.")));
            }
        }
        request["input"] = json!(all);
        Ok((request, generate))
    }

    async fn turn(&mut self, socket: &mut WebSocket, frame: Value) -> Result<(), Over> {
        let sim = Arc::clone(&self.sim);
        let watch = Watch::new(&sim, &self.id);
        let mut fate = sim.faults.meet(Place::Responses, Some(&self.id));
        fate.pass(When::Before).await;
        let caller = caller(&sim, self.id.clone()).ok_or(Over)?;
        let fault = fate.end.as_ref().and_then(|kind| mishap::instead(kind, &caller.plan));
        let (request, generate) = match self.complete(&frame) {
            Ok(complete) => complete,
            Err(refusal) => {
                watch.answered();
                return say(socket, &refusal).await;
            }
        };
        if let Some(refusal) = fault.or_else(|| full(&caller)).or_else(|| refused(&request, &caller)) {
            watch.answered();
            let refusal = as_frame(refusal, &caller).await?;
            return say(socket, &refusal).await;
        }
        if fate.end == Some(Kind::Stall { at: Stall::Headers }) {
            return self.hang(socket).await;
        }
        let (mut events, usage) =
            if generate { answer(&sim, &caller, &request, &fate) } else { prewarmed(&sim, &request) };
        fate.pass(When::After).await;
        if fate.end == Some(Kind::DropAnswer {}) {
            watch.answered();
            return Err(Over);
        }
        let given = frame["client_metadata"]["x-codex-turn-state"].as_str();
        let metadata = json!({"headers": {
            "x-codex-turn-state": turn_state(&sim, &caller, given), "openai-model": request["model"],
        }});
        if generate {
            events.insert(0, Event::new("response.metadata", metadata));
        }
        let delay = Duration::from_millis(sim.settings().delta_delay_ms);
        let steps = playback::schedule(&events, delay, &fate);
        self.play(socket, steps, watch, usage).await?;
        self.learn(&request, &events);
        Ok(())
    }

    /// What a finished response adds to what is known.
    fn learn(&mut self, request: &Value, events: &[Event]) {
        let Some(last) = events.last().filter(|last| last.kind != "response.failed") else { return };
        let Some(id) = last.fields.get("response").and_then(|response| response["id"].as_str()) else { return };
        let mut items = request["input"].as_array().cloned().unwrap_or_default();
        let done = events.iter().filter(|event| event.kind == "response.output_item.done");
        items.extend(done.filter_map(|event| event.fields.get("item").cloned()));
        self.known.insert(id.to_owned(), items);
    }

    async fn play(
        &mut self,
        socket: &mut WebSocket,
        steps: VecDeque<Step>,
        mut watch: Watch,
        usage: Option<Usage>,
    ) -> Result<(), Over> {
        let mut pending = String::new();
        for step in steps {
            let (bytes, last) = match step {
                Step::Send(bytes) => (bytes, false),
                Step::Finish(bytes) => (bytes, true),
                Step::Wait(pause) => {
                    self.listen(socket, pause).await?;
                    continue;
                }
                Step::Hang => return self.hang(socket).await,
                Step::Tear => {
                    watch.broken();
                    return Err(Over);
                }
            };
            pending.push_str(&String::from_utf8_lossy(&bytes));
            if last {
                match usage {
                    Some(usage) => watch.completed(usage),
                    None => watch.broken(),
                }
            }
            while let Some(end) = pending.find("\n\n") {
                let frame: String = pending.drain(..end + 2).collect();
                if let Some((_, data)) = frame.split_once("data: ") {
                    let data = data.trim_end().to_owned();
                    socket.send(Message::text(data)).await.map_err(|_| Over)?;
                }
            }
            if last {
                return Ok(());
            }
        }
        watch.broken();
        Err(Over)
    }

    /// Waits, and notices a client that leaves.
    async fn listen(&mut self, socket: &mut WebSocket, pause: Duration) -> Result<(), Over> {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Ok(()),
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.early.push_back(text.to_string()),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _ => return Err(Over),
                },
            }
        }
    }

    async fn hang(&mut self, socket: &mut WebSocket) -> Result<(), Over> {
        loop {
            self.listen(socket, Duration::from_hours(1)).await?;
        }
    }
}

async fn say(socket: &mut WebSocket, frame: &Value) -> Result<(), Over> {
    socket.send(Message::text(frame.to_string())).await.map_err(|_| Over)
}

/// An error of the transport itself.
fn error(code: &str, message: &str) -> Value {
    let code = if code.is_empty() { Value::Null } else { json!(code) };
    json!({
        "type": "error", "status": 400, "headers": {},
        "error": {"type": "invalid_request_error", "code": code, "message": message, "param": null},
    })
}

/// A refusal as the frame that says the same; a connection that closes for one that is hung up on.
async fn as_frame(refusal: Response, caller: &Caller) -> Result<Value, Over> {
    if refusal.extensions().get::<HangUp>().is_some() {
        return Err(Over);
    }
    let status = refusal.status().as_u16();
    let mut headers: Map<String, Value> =
        caller.limits.headers(&caller.plan).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    for (name, value) in refusal.headers() {
        headers.insert(name.to_string(), json!(String::from_utf8_lossy(value.as_bytes())));
    }
    let body = axum::body::to_bytes(refusal.into_body(), 1 << 20).await.map_err(|_| Over)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let error = match body.get("error") {
        Some(error) => error.clone(),
        None => json!({"type": null, "code": null, "message": body["detail"]}),
    };
    Ok(json!({"type": "error", "status": status, "error": error, "headers": headers}))
}

/// A response without output.
fn prewarmed(sim: &Sim, request: &Value) -> (Vec<Event>, Option<Usage>) {
    let id = format!("resp_{:032x}", sim.random().u128(..));
    let mut envelope = events::envelope(request, &id, now());
    let mut events = events::opening(&envelope);
    let usage = Usage { input: 0, cached: 0, output: 0, reasoning: 0 };
    envelope["status"] = json!("completed");
    envelope["usage"] = usage.report();
    events.push(Event::new("response.completed", json!({"response": envelope})));
    (events, Some(usage))
}
