//! The events of an answer as they come, from a body or from a WebSocket.

mod ahead;
mod drain;

use super::client::of_transport;
use super::failure::{Failure, FailureKind};
use super::lanes::Place;
use super::socket::Talk;
use super::sse::{Decoder, Frame};
use crate::alarm::Alarm;
use ahead::Ahead;
use bytes::Bytes;
use drain::Drain;
use http::Version;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// hyper polls a body that is pending twice in one turn of its task: the next poll after these is in
/// another turn.
const A_TURN: u32 = 2;

/// The events of an answer. Dropping it cancels the request at the backend.
#[derive(Debug)]
pub struct EventStream {
    source: Source,
    decoder: Decoder,
    idle_timeout: Duration,
    /// Since when a read is waited for. Outlives a call of `next` that was given up, so that somebody
    /// who looks in between does not make the backend's silence shorter.
    silent_since: Option<Instant>,
    alarm: Alarm,
    /// Whether it is worth asking for more than was read before.
    drain: Drain,
    /// Whether the body has ended.
    ended: bool,
}

/// What has come of a stream.
#[derive(Debug)]
pub enum Came {
    /// An event.
    Frame(Frame),
    /// No more is to come.
    End,
    /// Nothing, in the time that was given.
    Nothing,
}

/// Where events come from.
#[derive(Debug)]
enum Source {
    /// The body of an answer, and its place on a connection.
    Body { response: reqwest::Response, _place: Place },
    /// The same over HTTP/1.1.
    Ahead { ahead: Ahead, _place: Place },
    /// A WebSocket.
    Socket(Box<Talk>),
}

impl Source {
    /// The next bytes; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Body { response, .. } => {
                let chunk = response.chunk().await;
                chunk.map_err(|error| Failure { kind: FailureKind::StreamCut, ..of_transport(&error) })
            }
            Self::Ahead { ahead, .. } => ahead.chunk().await,
            Self::Socket(talk) => talk.chunk().await,
        }
    }
}

impl EventStream {
    pub(super) fn of_body(response: reqwest::Response, place: Place, idle_timeout: Duration) -> Self {
        let source = if response.version() < Version::HTTP_2 {
            Source::Ahead { ahead: Ahead::of(response), _place: place }
        } else {
            Source::Body { response, _place: place }
        };
        Self::of(source, idle_timeout)
    }

    pub(super) fn of_socket(talk: Talk, idle_timeout: Duration) -> Self {
        Self::of(Source::Socket(Box::new(talk)), idle_timeout)
    }

    fn of(source: Source, idle_timeout: Duration) -> Self {
        Self {
            source,
            decoder: Decoder::new(),
            idle_timeout,
            silent_since: None,
            alarm: Alarm::default(),
            drain: Drain::default(),
            ended: false,
        }
    }

    /// The next frame; `None` at the end of the body. Safe to cancel: nothing that was read is lost.
    pub async fn next(&mut self) -> Result<Option<Frame>, Failure> {
        match self.next_by(None).await? {
            Came::Frame(frame) => Ok(Some(frame)),
            Came::End | Came::Nothing => Ok(None),
        }
    }

    /// What comes next, until `by`. Safe to cancel.
    pub async fn next_by(&mut self, by: Option<Instant>) -> Result<Came, Failure> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Came::Frame(frame));
            }
            if self.ended {
                return Ok(Came::End);
            }
            let silent = *self.silent_since.get_or_insert_with(Instant::now) + self.idle_timeout;
            let until = by.map_or(silent, |by| by.min(silent));
            let came = {
                let Self { source, alarm, .. } = &mut *self;
                let mut chunk = std::pin::pin!(source.chunk());
                std::future::poll_fn(|context| match chunk.as_mut().poll(context) {
                    Poll::Ready(chunk) => Poll::Ready(Some(chunk)),
                    Poll::Pending => alarm.poll(context, until).map(|()| None),
                })
                .await
            };
            match came {
                Some(chunk) => self.arrived(chunk?),
                None if until == silent => {
                    return Err(Failure::of(FailureKind::Timeout, "the backend's stream fell silent"));
                }
                None => return Ok(Came::Nothing),
            }
        }
    }

    /// A frame that is there; `None` where nothing is. Not only what was read before counts, but what
    /// the connection has to hand over: it may do so piece by piece, each in a turn of its own on the
    /// scheduler, so it is given one, unless events come one by one. Safe to cancel.
    pub async fn at_hand(&mut self) -> Result<Option<Frame>, Failure> {
        if let Some(frame) = self.buffered()? {
            return Ok(Some(frame));
        }
        let takes_turns = !matches!(self.source, Source::Ahead { .. });
        if takes_turns && !self.drain.is_due() {
            return Ok(None);
        }
        let frame = self.ready().await?;
        self.drain.found(frame.is_some());
        Ok(frame)
    }

    /// Whether the body has ended, as far as the connection can say now. Safe to cancel.
    pub async fn has_ended(&mut self) -> bool {
        matches!(self.ready().await, Ok(None)) && self.ended
    }

    async fn ready(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.ended {
                return Ok(None);
            }
            let came = match &mut self.source {
                Source::Ahead { ahead, .. } => ahead.at_hand(),
                source => a_turn(source.chunk(), A_TURN).await,
            };
            match came.transpose()? {
                Some(chunk) => self.arrived(chunk),
                None => return Ok(None),
            }
        }
    }

    fn arrived(&mut self, chunk: Option<Bytes>) {
        self.silent_since = None;
        match chunk {
            Some(chunk) => self.decoder.push(chunk),
            None => self.ended = true,
        }
    }

    /// A frame that has been read already.
    pub fn buffered(&mut self) -> Result<Option<Frame>, Failure> {
        self.decoder.next_frame().map_err(|error| Failure::of(FailureKind::StreamCut, error.to_string()))
    }
}

/// What a future has now, or once every other task that is ready has had its turn; `polls` are those of one
/// turn of this task.
async fn a_turn<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            // A task that wakes itself goes to the end of the line; tokio's `yield_now` would ask the
            // operating system for events first.
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use std::convert::Infallible;
    use tokio::sync::mpsc;

    const IDLE: Duration = Duration::from_mins(1);

    /// Events, and where they are sent to it piece by piece.
    fn events(version: Version) -> (mpsc::Sender<&'static str>, EventStream) {
        let (sender, receiver) = mpsc::channel(1);
        let pieces = stream::unfold(receiver, |mut receiver| async move {
            let piece: &str = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())), receiver))
        });
        let mut response = http::Response::new(reqwest::Body::wrap_stream(pieces));
        *response.version_mut() = version;
        (sender, EventStream::of_body(response.into(), Place::of(reqwest::Client::new()), IDLE))
    }

    #[tokio::test]
    async fn all_that_another_task_has_ready_is_at_hand_and_then_nothing_is() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            all_is_at_hand(events(version)).await;
        }
    }

    async fn all_is_at_hand((sender, mut events): (mpsc::Sender<&'static str>, EventStream)) {
        let sending = tokio::spawn(async move {
            for _ in 0..20 {
                sender.send("data: 1\n\n").await.expect("it is read");
            }
            sender
        });
        assert!(events.next().await.expect("legible").is_some());
        for number in 1..20 {
            assert!(events.at_hand().await.expect("legible").is_some(), "piece {number}");
        }
        assert!(events.at_hand().await.expect("legible").is_none(), "nothing is left, and it is not waited for");
        drop(sending.await.expect("all was sent"));
        assert!(events.next().await.expect("a good end").is_none());
        assert!(events.at_hand().await.expect("a good end").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_comes_in_the_time_that_is_given_and_silence_ends_the_stream() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            silence_ends(version).await;
        }
    }

    async fn silence_ends(version: Version) {
        let (sender, mut events) = events(version);
        let began = Instant::now();
        for seconds in [10, 5, 20] {
            let before = Instant::now();
            let came = events.next_by(Some(before + Duration::from_secs(seconds))).await;
            assert!(matches!(came, Ok(Came::Nothing)), "{came:?}");
            assert_eq!(before.elapsed().as_secs(), seconds);
        }
        // Who looked in between has not made the silence any shorter.
        let failure = events.next().await.expect_err("silence");
        assert_eq!((failure.kind, began.elapsed().as_secs()), (FailureKind::Timeout, IDLE.as_secs()));

        let (sender_too, mut events) = self::events(version);
        for _ in 0..3 {
            tokio::time::sleep(IDLE / 2).await;
            sender_too.send("data: 1\n\n").await.expect("it is read");
            assert!(matches!(events.next_by(None).await, Ok(Came::Frame(_))), "each piece begins the silence anew");
        }
        drop(sender);
    }
}
