//! A backend that costs as little as one can: it reads just enough of a request to know its path and
//! its end, and answers with bytes that were made before. Each delta carries its number and the
//! moment at which it was written, so that order, count and transit can be checked at the far end.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// The clock of all stamps.
pub(crate) static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the kit began.
pub(crate) fn now() -> u64 {
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A mark in a delta: `#`, five digits, `:`, fifteen digits, `;`.
pub(crate) const MARK: usize = 23;

/// What the backend does; changed between scenarios.
#[derive(Default)]
pub(crate) struct Plan {
    /// Deltas a stream.
    pub(crate) deltas: AtomicU32,
    /// Between deltas, microseconds; 0: all in one burst.
    pub(crate) pace: AtomicU64,
    /// Whether streams stop in their middle until `go_on`.
    pub(crate) held: AtomicUsize,
    /// Streams that wait in their middle.
    pub(crate) waiting: AtomicUsize,
    /// Lets held streams go on.
    pub(crate) go_on: Notify,
}

/// How an answer's events stand on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// After a head, in the chunks of HTTP/1.1.
    Chunks,
    /// Bare, for a library that knows the frames of HTTP/2.
    Frames,
}

/// Where an answer is written to.
pub(crate) trait Sink {
    /// Writes what there is, and leaves `bytes` empty.
    async fn send(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()>;
}

impl Sink for TcpStream {
    async fn send(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<()> {
        self.write_all(bytes).await?;
        bytes.clear();
        Ok(())
    }
}

/// A stream that was made before: its pieces, and where the marks' digits are.
pub(crate) struct Template {
    wire: Wire,
    /// From the head of the answer to the last event before the deltas.
    opening: Vec<u8>,
    /// One chunk a delta.
    deltas: Vec<Vec<u8>>,
    /// What follows them, without the full text.
    closing: [String; 4],
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n\
    x-request-id: req_bench\r\nx-codex-primary-used-percent: 12.5\r\nx-codex-primary-window-minutes: 300\r\n\
    x-codex-primary-reset-at: 1999999999\r\nx-codex-secondary-used-percent: 20\r\n\
    x-codex-secondary-window-minutes: 10080\r\nx-codex-secondary-reset-at: 1999999999\r\n\
    transfer-encoding: chunked\r\n\r\n";

/// The fields of the head, without those that are of HTTP/1.1 alone.
pub(crate) fn fields() -> impl Iterator<Item = (&'static str, &'static str)> {
    HEAD.split("\r\n").filter_map(|line| line.split_once(": ")).filter(|(name, _)| *name != "transfer-encoding")
}

impl Wire {
    fn event(self, kind: &str, json: &str) -> Vec<u8> {
        let event = format!("event: {kind}\ndata: {json}\n\n");
        match self {
            Self::Chunks => format!("{:x}\r\n{event}\r\n", event.len()).into_bytes(),
            Self::Frames => event.into_bytes(),
        }
    }
}

impl Template {
    pub(crate) fn new(count: u32, wire: Wire) -> Self {
        let response = |status: &str, usage: &str| {
            format!(
                r#"{{"id":"resp_bench","object":"response","created_at":1790000000,"status":"{status}","model":"gpt-5.5","output":[],"parallel_tool_calls":true,"tool_choice":"auto","tools":[]{usage}}}"#
            )
        };
        let item = r#"{"id":"msg_bench","type":"message","status":"in_progress","role":"assistant","content":[]}"#;
        let mut opening = if wire == Wire::Chunks { HEAD.as_bytes().to_vec() } else { Vec::new() };
        let mut number = 0_u32;
        let mut next = |kind: &str, rest: &str| {
            let json = format!(r#"{{"type":"{kind}","sequence_number":{number},{rest}}}"#);
            number += 1;
            wire.event(kind, &json)
        };
        opening.extend(next("response.created", &format!(r#""response":{}"#, response("in_progress", ""))));
        opening.extend(next("response.in_progress", &format!(r#""response":{}"#, response("in_progress", ""))));
        opening.extend(next("response.output_item.added", &format!(r#""output_index":0,"item":{item}"#)));
        let part = r#""item_id":"msg_bench","output_index":0,"content_index":0,"part":{"type":"output_text","annotations":[],"logprobs":[],"text":""}"#;
        opening.extend(next("response.content_part.added", part));
        let deltas = (0..count)
            .map(|index| {
                let delta = format!(
                    r##""item_id":"msg_bench","output_index":0,"content_index":0,"delta":"#{index:05}:000000000000000;","logprobs":[]"##
                );
                next("response.output_text.delta", &delta)
            })
            .collect();
        let usage = format!(
            r#","usage":{{"input_tokens":120,"input_tokens_details":{{"cached_tokens":64}},"output_tokens":{},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}}"#,
            count,
            count + 120
        );
        let closing = [
            format!(
                r#"{{"type":"response.output_text.done","sequence_number":{},"item_id":"msg_bench","output_index":0,"content_index":0,"logprobs":[],"text":"@"}}"#,
                count + 4
            ),
            format!(
                r#"{{"type":"response.content_part.done","sequence_number":{},"item_id":"msg_bench","output_index":0,"content_index":0,"part":{{"type":"output_text","annotations":[],"logprobs":[],"text":"@"}}}}"#,
                count + 5
            ),
            format!(
                r#"{{"type":"response.output_item.done","sequence_number":{},"output_index":0,"item":{{"id":"msg_bench","type":"message","status":"completed","role":"assistant","content":[{{"type":"output_text","annotations":[],"logprobs":[],"text":"@"}}]}}}}"#,
                count + 6
            ),
            format!(
                r#"{{"type":"response.completed","sequence_number":{},"response":{}}}"#,
                count + 7,
                response("completed", &usage)
            ),
        ];
        Self { wire, opening, deltas, closing }
    }

    /// A delta's chunk with its stamp, and the mark as it stands in the full text.
    fn delta(&self, index: usize, stamp: u64, out: &mut Vec<u8>, text: &mut String) {
        let template = &self.deltas[index];
        let mark = format!("#{index:05}:{stamp:015};");
        let at = find(template, b"\"delta\":\"#").map_or(0, |at| at + 9);
        out.extend_from_slice(&template[..at]);
        out.extend_from_slice(mark.as_bytes());
        out.extend_from_slice(&template[at + MARK..]);
        text.push_str(&mark);
    }

    fn closing(&self, text: &str, out: &mut Vec<u8>) {
        let kinds = [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ];
        for (kind, json) in kinds.iter().zip(&self.closing) {
            out.extend(self.wire.event(kind, &json.replacen('@', text, 1)));
        }
        if self.wire == Wire::Chunks {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(step) = haystack[from..].iter().position(|byte| byte == first) {
        let at = from + step;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, plan: Arc<Plan>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely there are no descriptors left; asking again at once would leave nobody the time to close one.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let plan = plan.clone();
        tokio::spawn(async move {
            // A peer that goes away in the middle is the scenario's end, not ours.
            let _ = connection(stream, &plan).await;
        });
    }
}

async fn connection(mut stream: TcpStream, plan: &Plan) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(16 * 1024);
    let mut template = Template::new(plan.deltas.load(Ordering::Relaxed), Wire::Chunks);
    loop {
        let Some(head_end) = head(&mut stream, &mut read).await? else { return Ok(()) };
        let text = String::from_utf8_lossy(&read[..head_end]).into_owned();
        body(&mut stream, &mut read, head_end, &text).await?;
        let deltas = plan.deltas.load(Ordering::Relaxed);
        if template.deltas.len() != deltas as usize {
            template = Template::new(deltas, Wire::Chunks);
        }
        let path = text.split(' ').nth(1).unwrap_or_default();
        if is_answered(path) {
            answer(&mut stream, &template, plan, plan.pace.load(Ordering::Relaxed)).await?;
        } else {
            let (status, body) = small(path);
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
        }
    }
}

/// Reads up to the end of a head; `None` where the peer has closed.
async fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(at) = find(read, b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads over a body, of a known length or in chunks.
async fn body(stream: &mut TcpStream, read: &mut Vec<u8>, head_end: usize, head: &str) -> std::io::Result<()> {
    let lower = head.to_ascii_lowercase();
    let length: Option<usize> =
        lower.split("content-length:").nth(1).and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok());
    let chunked = lower.contains("transfer-encoding: chunked");
    let is_over = |read: &[u8]| match length {
        Some(length) => (read.len() >= head_end + length).then_some(head_end + length),
        None if chunked => find(&read[head_end..], b"0\r\n\r\n").map(|at| head_end + at + 5),
        None => Some(head_end),
    };
    loop {
        if let Some(end) = is_over(read) {
            read.drain(..end);
            return Ok(());
        }
        if stream.read_buf(read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether a path is asked for an answer's stream.
pub(crate) fn is_answered(path: &str) -> bool {
    path.ends_with("/codex/responses") || path.starts_with("/v1/")
}

/// Writes an answer, its deltas so many microseconds apart; 0: all in one burst.
pub(crate) async fn answer(sink: &mut impl Sink, template: &Template, plan: &Plan, pace: u64) -> std::io::Result<()> {
    let mut out = Vec::with_capacity(template.opening.len() + template.deltas.len() * 400 + 4096);
    let mut text = String::with_capacity(template.deltas.len() * MARK);
    out.extend_from_slice(&template.opening);
    let mut ticks = (pace > 0).then(|| tokio::time::interval(Duration::from_micros(pace)));
    for index in 0..template.deltas.len() {
        if let Some(ticks) = &mut ticks {
            sink.send(&mut out).await?;
            ticks.tick().await;
        }
        if index == template.deltas.len() / 2 && plan.held.load(Ordering::Relaxed) > 0 {
            sink.send(&mut out).await?;
            plan.waiting.fetch_add(1, Ordering::Relaxed);
            plan.go_on.notified().await;
            plan.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        template.delta(index, now(), &mut out, &mut text);
    }
    if ticks.is_some() {
        sink.send(&mut out).await?;
    }
    template.closing(&text, &mut out);
    sink.send(&mut out).await
}

/// What the gateway asks for besides answers: a status and JSON.
pub(crate) fn small(path: &str) -> (http::StatusCode, String) {
    if path.contains("/codex/models") {
        let model = r#"{"slug":"gpt-5.5","display_name":"GPT-5.5","visibility":"list","supported_in_api":true,"priority":1,"context_window":272000,"supported_reasoning_levels":[{"effort":"low","description":""},{"effort":"medium","description":""}]}"#;
        (http::StatusCode::OK, format!(r#"{{"models":[{model}]}}"#))
    } else if path.contains("/wham/accounts/check") {
        (http::StatusCode::OK, r#"{"accounts":[{"id":"acct","structure":"personal","plan_type":"pro","workspace_backend_origin":"NO_CONSTRAINT","account_routing_override":"NO_CONSTRAINT"}],"account_ordering":["acct"],"default_account_id":"acct"}"#.to_owned())
    } else if path.contains("/wham/usage") {
        (http::StatusCode::OK, r#"{"plan_type":"pro","rate_limit":{"allowed":true,"limit_reached":false,"primary_window":{"used_percent":12,"limit_window_seconds":18000,"reset_after_seconds":9000,"reset_at":1999999999},"secondary_window":null}}"#.to_owned())
    } else {
        (http::StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#.to_owned())
    }
}
