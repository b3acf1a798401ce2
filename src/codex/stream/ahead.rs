//! Reads a body over HTTP/1.1 ahead of who wants it.
//!
//! A connection over HTTP/1.1 hands a body over chunk by chunk, each in a turn of the scheduler, and a backend
//! sends a chunk an event. Were it the client's side that is woken for each, a burst would take all its layers
//! through as many turns. So a small task takes the chunks, puts those together that are there together, and
//! wakes the client's side once. Over HTTP/2 there is no need: what has arrived lies there in one place.

use super::super::client::of_transport;
use super::super::failure::{Failure, FailureKind};
use super::drain::Drain;
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// At first so many bytes are put together before they are told of, for the first event is awaited the most …
const FIRST: usize = 4 * 1024;
/// … then twice as many each time, up to here; more is not read before some is taken.
const MOST: usize = 64 * 1024;
/// The reader's own task polls once a turn.
const A_TURN: u32 = 1;

/// What is read ahead. Dropping it ends the reading, and with it the request at the backend.
#[derive(Debug)]
pub(super) struct Ahead {
    shelf: Arc<Shelf>,
    _reader: AbortOnDropHandle<()>,
}

impl Ahead {
    /// Begins to read.
    pub(super) fn of(response: reqwest::Response) -> Self {
        let shelf = Arc::<Shelf>::default();
        let reader = tokio::spawn(read(response, Arc::clone(&shelf)));
        Self { shelf, _reader: AbortOnDropHandle::new(reader) }
    }

    /// The next bytes; `None` at the end. Safe to cancel.
    pub(super) async fn chunk(&self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(came) = self.at_hand() {
                return came;
            }
            self.shelf.filled.notified().await;
        }
    }

    /// The same, if there is something.
    pub(super) fn at_hand(&self) -> Option<Result<Option<Bytes>, Failure>> {
        let mut lying = self.shelf.lying();
        if lying.bytes.is_empty() {
            return lying.end.clone().map(|end| end.map(|()| None));
        }
        let bytes = std::mem::take(&mut lying.bytes);
        drop(lying);
        self.shelf.emptied.notify_one();
        Some(Ok(Some(bytes.freeze())))
    }
}

/// Where the reader puts what it reads.
#[derive(Debug, Default)]
struct Shelf {
    lying: Mutex<Lying>,
    /// There is something that is worth taking.
    filled: Notify,
    /// There is room again.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Lying {
    bytes: BytesMut,
    /// How the body has ended, once it has; comes after the bytes.
    end: Option<Result<(), Failure>>,
}

impl Shelf {
    fn lying(&self) -> MutexGuard<'_, Lying> {
        self.lying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives how much lies there then.
    fn put(&self, chunk: &[u8], likely: usize) -> usize {
        let mut lying = self.lying();
        if lying.bytes.is_empty() {
            lying.bytes.reserve(likely.max(chunk.len()));
        }
        lying.bytes.extend_from_slice(chunk);
        lying.bytes.len()
    }

    async fn room(&self) {
        while self.lying().bytes.len() >= MOST {
            self.emptied.notified().await;
        }
    }
}

/// Reads to the end.
async fn read(mut response: reqwest::Response, shelf: Arc<Shelf>) {
    let (mut drain, mut limit, mut lies) = (Drain::default(), FIRST, 0);
    let end = loop {
        shelf.room().await;
        let mut came = Some(response.chunk().await);
        let (asks, likely, mut chunks) = (drain.is_due(), lies, 0);
        while let Some(Ok(Some(chunk))) = &came {
            chunks += 1;
            lies = shelf.put(chunk, likely);
            came = if asks && lies < limit { super::a_turn(response.chunk(), A_TURN).await } else { None };
        }
        drain.found(chunks > 1);
        match came {
            Some(Ok(_)) => break Ok(()),
            Some(Err(error)) => break Err(Failure { kind: FailureKind::StreamCut, ..of_transport(&error) }),
            None => {}
        }
        limit = (limit * 2).min(MOST);
        shelf.filled.notify_one();
    };
    shelf.lying().end = Some(end);
    shelf.filled.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use std::time::Duration;
    use tokio::sync::mpsc;

    type Piece = Result<Bytes, &'static str>;

    /// A body, and where its pieces come from.
    fn body() -> (mpsc::Sender<Piece>, Ahead) {
        let (sender, receiver) = mpsc::channel(1);
        let pieces = stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        (sender, Ahead::of(http::Response::new(reqwest::Body::wrap_stream(pieces)).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_read_than_there_is_room_for_and_all_of_it_arrives_in_its_order() {
        let (sender, ahead) = body();
        let sending = tokio::spawn(async move {
            for number in 0..=u8::MAX {
                sender.send(Ok(vec![number; 1024].into())).await.expect("it is read");
            }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let lies = ahead.shelf.lying().bytes.len();
        assert!((MOST..MOST + 1024).contains(&lies), "{lies}");
        assert!(!sending.is_finished());
        let mut all = Vec::new();
        while let Some(some) = ahead.chunk().await.expect("legible") {
            all.extend_from_slice(&some);
        }
        assert!(all.chunks(1024).zip(0..=u8::MAX).all(|(piece, number)| piece.iter().all(|byte| *byte == number)));
        assert_eq!(all.len(), 256 * 1024);
        assert!(matches!(ahead.at_hand(), Some(Ok(None))), "the end stays the end");
    }

    #[tokio::test]
    async fn a_failure_comes_after_what_came_before_it() {
        let (sender, ahead) = body();
        sender.send(Ok("data: 1\n\n".into())).await.expect("it is read");
        sender.send(Err("broken")).await.expect("it is read");
        assert_eq!(ahead.chunk().await.expect("legible").as_deref(), Some(&b"data: 1\n\n"[..]));
        let failure = ahead.chunk().await.expect_err("broken");
        assert_eq!(failure.kind, FailureKind::StreamCut);
        assert!(failure.message.ends_with("broken"), "{}", failure.message);
    }

    #[tokio::test]
    async fn whoever_goes_away_ends_the_reading() {
        let (sender, ahead) = body();
        sender.send(Ok("data: 1\n\n".into())).await.expect("it is read");
        assert!(ahead.chunk().await.is_ok_and(|some| some.is_some()));
        drop(ahead);
        tokio::time::timeout(Duration::from_secs(10), sender.closed()).await.expect("the body is let go");
    }
}
