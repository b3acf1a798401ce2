//! A client that costs little and believes nothing: it checks that every delta came, once, in its
//! order, and that the stream ended as its dialect says, and notes when each delta arrived.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::{MARK, find, now};

/// An API, and how its streams look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Responses,
    Codex,
    Chat,
    Messages,
    /// Responses of which the answer is kept, as SDKs ask by default.
    Kept,
}

impl Dialect {
    pub(crate) const ALL: [Self; 4] = [Self::Responses, Self::Codex, Self::Chat, Self::Messages];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Responses => "Responses",
            Self::Codex => "Codex paths",
            Self::Chat => "Chat Completions",
            Self::Messages => "Messages",
            Self::Kept => "Responses, kept",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Responses | Self::Kept => "/v1/responses",
            Self::Codex => "/backend-api/codex/responses",
            Self::Chat => "/v1/chat/completions",
            Self::Messages => "/v1/messages",
        }
    }

    /// What stands before a delta's mark.
    fn before_mark(self) -> &'static [u8] {
        match self {
            Self::Responses | Self::Codex | Self::Kept => b"\"delta\":\"#",
            Self::Chat => b"\"content\":\"#",
            Self::Messages => b"\"text\":\"#",
        }
    }

    /// What only a good end has.
    fn good_end(self) -> &'static [u8] {
        match self {
            Self::Responses | Self::Codex | Self::Kept => b"\"type\":\"response.completed\"",
            Self::Chat => b"data: [DONE]",
            Self::Messages => b"\"type\":\"message_stop\"",
        }
    }

    fn body(self, stream: bool, prompt: &str) -> String {
        match self {
            Self::Responses => {
                format!(
                    r#"{{"model":"gpt-5.5","stream":{stream},"store":false,"instructions":"Be brief.","input":[{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{prompt}"}}]}}]}}"#
                )
            }
            Self::Kept => format!(
                r#"{{"model":"gpt-5.5","stream":{stream},"store":true,"input":[{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{prompt}"}}]}}]}}"#
            ),
            Self::Codex => {
                format!(
                    r#"{{"model":"gpt-5.5","stream":{stream},"input":[{{"type":"message","role":"developer","content":[{{"type":"input_text","text":"Be brief."}}]}},{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{prompt}"}}]}}],"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":{{"effort":"medium"}},"store":false,"include":["reasoning.encrypted_content"],"prompt_cache_key":"bench","text":{{"verbosity":"low"}}}}"#
                )
            }
            Self::Chat => {
                format!(
                    r#"{{"model":"gpt-5.5","stream":{stream},"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{prompt}"}}]}}"#
                )
            }
            Self::Messages => {
                format!(
                    r#"{{"model":"gpt-5.5","stream":{stream},"max_tokens":32000,"system":"Be brief.","messages":[{{"role":"user","content":"{prompt}"}}]}}"#
                )
            }
        }
    }

    /// A whole request.
    pub(crate) fn request(self, key: &str, stream: bool, prompt: &str) -> Vec<u8> {
        let body = self.body(stream, prompt);
        let own = match self {
            Self::Codex => {
                "originator: codex_exec\r\nuser-agent: codex_exec/0.169.0 (Debian 12.0.0; x86_64)\r\nsession-id: bench\r\n"
            }
            Self::Messages => "anthropic-version: 2023-06-01\r\n",
            _ => "",
        };
        format!(
            "POST {} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n{own}content-type: application/json\r\naccept: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
            self.path(),
            body.len()
        )
        .into_bytes()
    }
}

/// What one answer was like; times in nanoseconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// From the request's last byte to the answer's head.
    pub(crate) head: u64,
    /// From the request's last byte to the first delta.
    pub(crate) first: u64,
    /// From a delta's write at the backend to its arrival here.
    pub(crate) transits: Vec<u32>,
    /// How many deltas came.
    pub(crate) deltas: u32,
}

/// A kept connection.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    body: Vec<u8>,
}

fn wrong(what: impl Into<String>) -> std::io::Error {
    std::io::Error::other(what.into())
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::with_capacity(64 * 1024), body: Vec::new() })
    }

    /// Sends a request and reads its answer to the end. The connection may be used again after it.
    pub(crate) async fn ask(&mut self, request: &[u8], dialect: Dialect, deltas: Option<u32>) -> std::io::Result<Seen> {
        self.stream.write_all(request).await?;
        let began = now();
        let (status, framing) = self.head().await?;
        let mut seen = Seen { head: now() - began, ..Seen::default() };
        self.body.clear();
        let mut searched = 0;
        let mut framing = framing;
        loop {
            let over = framing.take(&mut self.read, &mut self.body)?;
            let at = now();
            if deltas.is_some() {
                searched = marks(&self.body, searched, dialect, at, &mut seen)?;
                if seen.deltas > 0 && seen.first == 0 {
                    seen.first = at - began;
                }
            }
            if over {
                break;
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(wrong("the answer was cut"));
            }
        }
        if status != 200 {
            return Err(wrong(format!("status {status}: {}", String::from_utf8_lossy(&self.body))));
        }
        if let Some(deltas) = deltas
            && (seen.deltas != deltas || find(&self.body, dialect.good_end()).is_none())
        {
            return Err(wrong(format!(
                "{} of {deltas} deltas, or no good end: {}",
                seen.deltas,
                String::from_utf8_lossy(&self.body)
            )));
        }
        Ok(seen)
    }

    /// Sends a request and goes away in the middle of its answer, after the first delta.
    pub(crate) async fn leave(mut self, request: &[u8], dialect: Dialect) -> std::io::Result<()> {
        self.stream.write_all(request).await?;
        let (status, _) = self.head().await?;
        let mut seen = Seen::default();
        // Chunks' sizes stand between events and never in a mark.
        while marks(&self.read, 0, dialect, now(), &mut seen).map(|_| seen.deltas)? == 0 {
            if status != 200 || self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(wrong(format!("status {status}, cut before a delta")));
            }
        }
        if find(&self.read, dialect.good_end()).is_some() {
            return Err(wrong("the answer was over before its client could leave"));
        }
        Ok(())
    }

    async fn head(&mut self) -> std::io::Result<(u16, Framing)> {
        let end = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at + 4;
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(wrong("no answer"));
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        self.read.drain(..end);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| wrong("no status"))?;
        let length =
            head.split("content-length:").nth(1).and_then(|rest| rest.split("\r\n").next()?.trim().parse().ok());
        let framing = match length {
            Some(length) => Framing::Length(length),
            None if head.contains("chunked") => Framing::Chunks { left: 0 },
            None => return Err(wrong("an answer of unknown length")),
        };
        Ok((status, framing))
    }
}

/// How a body ends.
enum Framing {
    /// After so many more bytes.
    Length(usize),
    /// After an empty chunk; `left` bytes of the present one are to come, its line end included.
    Chunks { left: usize },
}

impl Framing {
    /// Moves what has arrived to `body`; says whether that was all.
    fn take(&mut self, read: &mut Vec<u8>, body: &mut Vec<u8>) -> std::io::Result<bool> {
        let left = match self {
            Self::Length(left) => {
                let some = read.len().min(*left);
                body.extend(read.drain(..some));
                *left -= some;
                return Ok(*left == 0);
            }
            Self::Chunks { left } => left,
        };
        let mut at = 0;
        let over = loop {
            if *left > 0 {
                let some = (read.len() - at).min(*left);
                // The last two bytes are the line's end.
                body.extend_from_slice(&read[at..at + some.min(left.saturating_sub(2))]);
                at += some;
                *left -= some;
                if *left > 0 {
                    break false;
                }
            }
            let Some(line) = find(&read[at..], b"\r\n") else { break false };
            let size = std::str::from_utf8(&read[at..at + line])
                .ok()
                .and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
            let size = size.ok_or_else(|| wrong("no chunk size"))?;
            if size == 0 {
                if read.len() < at + line + 4 {
                    break false;
                }
                at += line + 4;
                break true;
            }
            at += line + 2;
            *left = size + 2;
        };
        read.drain(..at);
        Ok(over)
    }
}

/// Looks for marks from `searched` on; gives where to go on.
fn marks(body: &[u8], searched: usize, dialect: Dialect, at: u64, seen: &mut Seen) -> std::io::Result<usize> {
    let before = dialect.before_mark();
    let mut from = searched;
    while let Some(found) = find(&body[from..], before) {
        let digits = from + found + before.len();
        if body.len() < digits + MARK {
            return Ok(from + found);
        }
        let number = |range: std::ops::Range<usize>| std::str::from_utf8(&body[range]).ok()?.parse::<u64>().ok();
        let (Some(index), Some(stamp)) = (number(digits..digits + 5), number(digits + 6..digits + 21)) else {
            return Err(wrong("a mark is damaged"));
        };
        if index != u64::from(seen.deltas) {
            return Err(wrong(format!("delta {index} came where {} was expected", seen.deltas)));
        }
        seen.deltas += 1;
        seen.transits.push(u32::try_from(at.saturating_sub(stamp)).unwrap_or(u32::MAX));
        from = digits + MARK;
    }
    Ok(from.max(body.len().saturating_sub(before.len())))
}

/// `clients` connections, each asking one request after another, `requests` in all.
pub(crate) async fn load(
    address: SocketAddr,
    request: &[u8],
    dialect: Dialect,
    deltas: Option<u32>,
    clients: usize,
    requests: usize,
) -> std::io::Result<Vec<Seen>> {
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        let share = requests / clients + usize::from(client < requests % clients);
        let request = request.to_vec();
        tasks.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut all = Vec::with_capacity(share);
            for _ in 0..share {
                let ask = connection.ask(&request, dialect, deltas);
                all.push(
                    tokio::time::timeout(Duration::from_mins(1), ask)
                        .await
                        .map_err(|_| wrong("no answer within a minute"))??,
                );
            }
            Ok::<_, std::io::Error>(all)
        });
    }
    let mut all = Vec::with_capacity(requests);
    while let Some(done) = tasks.join_next().await {
        all.extend(done.map_err(std::io::Error::other)??);
    }
    Ok(all)
}
