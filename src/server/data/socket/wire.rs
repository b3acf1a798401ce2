//! One WebSocket as a connection uses it: text frames in order, pings, and an end.

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval_at, timeout};

/// A client that takes nothing for so long is gone.
const SEND_PATIENCE: Duration = Duration::from_mins(1);
/// … and one that answers none of so many pings.
const UNANSWERED_PINGS: u32 = 2;
/// How many requests may wait for the one that is running.
const WAITING: usize = 4;

/// Why a WebSocket is closed (RFC 6455, 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// 1000: it has served its time.
    Normal,
    /// 1001: the gateway is shutting down, or the client said nothing for long.
    GoingAway,
    /// 1003: binary frames are not understood.
    Unsupported,
    /// 1008: the key is not valid any more, or the client does not wait for answers.
    Policy,
    /// 1009: a frame is too large.
    TooLarge,
}

impl Close {
    fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Unsupported => 1003,
            Self::Policy => 1008,
            Self::TooLarge => 1009,
        }
    }
}

/// Why there is nothing more to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client is gone, or has said goodbye.
    Gone,
    /// It is to be closed with this code.
    Close(Close),
}

/// What came in.
pub(super) enum Heard {
    Text(Utf8Bytes),
    /// It is time to look after the connection.
    Tick,
    End(Ended),
}

/// A WebSocket and its pings.
pub(super) struct Wire {
    socket: WebSocket,
    pings: Interval,
    unanswered: u32,
    /// Requests that came while another one was being answered.
    waiting: VecDeque<Utf8Bytes>,
}

impl Wire {
    pub(super) fn new(socket: WebSocket, ping: Duration) -> Self {
        let ping = ping.max(Duration::from_millis(10));
        let mut pings = interval_at(tokio::time::Instant::now() + ping, ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { socket, pings, unanswered: 0, waiting: VecDeque::new() }
    }

    /// A request that came earlier.
    pub(super) fn waiting(&mut self) -> Option<Utf8Bytes> {
        self.waiting.pop_front()
    }

    /// The next frame that matters. Safe to cancel: nothing that was read is lost.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            tokio::select! {
                message = self.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        self.unanswered = 0;
                        return Heard::Text(text);
                    }
                    Some(Ok(Message::Pong(_) | Message::Ping(_))) => self.unanswered = 0,
                    Some(Ok(Message::Binary(_))) => return Heard::End(Ended::Close(Close::Unsupported)),
                    Some(Ok(Message::Close(_))) => {
                        self.hear_out().await;
                        return Heard::End(Ended::Gone);
                    }
                    Some(Err(error)) if is_too_large(&error) => return Heard::End(Ended::Close(Close::TooLarge)),
                    Some(Err(_)) | None => return Heard::End(Ended::Gone),
                },
                _ = self.pings.tick() => {
                    if self.unanswered >= UNANSWERED_PINGS {
                        return Heard::End(Ended::Gone);
                    }
                    self.unanswered += 1;
                    if self.put(Message::Ping(axum::body::Bytes::new())).await.is_err() {
                        return Heard::End(Ended::Gone);
                    }
                    return Heard::Tick;
                }
            }
        }
    }

    /// Waits for `work` and goes on listening, so that a client that leaves ends the work. Requests
    /// that come meanwhile wait their turn.
    pub(super) async fn listen_during<F: Future>(&mut self, work: F) -> Result<F::Output, Ended> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                heard = self.hear() => match heard {
                    Heard::Text(_) if self.waiting.len() >= WAITING => return Err(Ended::Close(Close::Policy)),
                    Heard::Text(text) => self.waiting.push_back(text),
                    Heard::Tick => {}
                    Heard::End(ended) => return Err(ended),
                },
            }
        }
    }

    /// Sends a text frame.
    pub(super) async fn say(&mut self, text: String) -> Result<(), Ended> {
        self.put(Message::Text(text.into())).await
    }

    /// Says goodbye, and hears the client's if it comes soon.
    pub(super) async fn close(mut self, close: Close, reason: &'static str) {
        let frame = CloseFrame { code: close.code(), reason: Utf8Bytes::from_static(reason) };
        if self.put(Message::Close(Some(frame))).await.is_ok() {
            self.hear_out().await;
        }
    }

    /// Reads to the end, which comes soon once one side has said goodbye: the answer to the other
    /// side's goodbye leaves while reading.
    async fn hear_out(&mut self) {
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = timeout(Duration::from_secs(1), rest).await;
    }

    async fn put(&mut self, message: Message) -> Result<(), Ended> {
        match timeout(SEND_PATIENCE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Ended::Gone),
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    use tokio_tungstenite::tungstenite::Error;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(Error::Capacity(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}
