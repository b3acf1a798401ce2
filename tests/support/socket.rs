//! A client of the WebSocket transport, as plain as can be: text frames in, text frames out.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// An open connection.
pub(crate) struct Socket(WebSocketStream<TcpStream>);

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// With a goodbye and its code.
    Closed(u16),
    /// Without.
    Cut,
}

impl Socket {
    /// Opens a connection to the Responses API; the status and the body of a refusal otherwise.
    pub(crate) async fn open(url: &str, key: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        Self::open_at(url, "/v1/responses", key, headers).await
    }

    /// The same on another path.
    pub(crate) async fn open_at(
        url: &str,
        path: &str,
        key: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, (u16, String)> {
        let address = url.trim_start_matches("http://");
        let mut request = format!("ws://{address}{path}").into_client_request().expect("an address");
        let bearer = HeaderValue::try_from(format!("Bearer {key}")).expect("a key");
        request.headers_mut().insert("authorization", bearer);
        for (name, value) in headers {
            let value = HeaderValue::try_from(*value).expect("a value");
            request.headers_mut().insert(HeaderName::try_from(*name).expect("a name"), value);
        }
        let stream = TcpStream::connect(address).await.expect("the gateway listens");
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(refusal)) => {
                let body = refusal.body().clone().unwrap_or_default();
                Err((refusal.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
            }
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: &Value) {
        self.raw(Message::text(frame.to_string())).await;
    }

    /// Sends a message of any kind; the other side may be gone already.
    pub(crate) async fn raw(&mut self, message: Message) {
        let _ = self.0.send(message).await;
    }

    /// The next frame, or how the connection ended.
    pub(crate) async fn next(&mut self) -> Result<Value, End> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.0.next()).await;
            match next.expect("a frame within 30 s") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).expect("a frame is JSON")),
                Some(Ok(Message::Close(Some(frame)))) => return Err(End::Closed(frame.code.into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return Err(End::Cut),
            }
        }
    }

    /// The frames up to one that ends a response, and that one.
    pub(crate) async fn response(&mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await.unwrap_or_else(|end| panic!("{end:?} after {frames:?}"));
            let ends = ["response.completed", "response.incomplete", "response.failed", "error"];
            let ended = ends.iter().any(|end| frame["type"] == **end);
            frames.push(frame);
            if ended {
                return frames;
            }
        }
    }

    /// Sends a request and reads its response, which must be complete; gives its id and its text.
    pub(crate) async fn ask(&mut self, request: &Value) -> (String, String) {
        self.send(request).await;
        let frames = self.response().await;
        let last = frames.last().expect("a frame");
        assert_eq!(last["type"], "response.completed", "{frames:?}");
        let id = last["response"]["id"].as_str().expect("an id").to_owned();
        let deltas = frames.iter().filter(|frame| frame["type"] == "response.output_text.delta");
        (id, deltas.filter_map(|frame| frame["delta"].as_str()).collect())
    }

    /// Reads to the end.
    pub(crate) async fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }
}

/// A `response.create` frame with one user message.
pub(crate) fn create(text: &str) -> Value {
    json!({"type": "response.create", "model": "gpt-6.1-sol", "store": false, "input": [user(text)]})
}

/// The same, after an earlier response.
pub(crate) fn create_after(previous: &str, text: &str) -> Value {
    let mut frame = create(text);
    frame["previous_response_id"] = json!(previous);
    frame
}

/// A user's message.
fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}
