//! Reads a body over HTTP/1.1 ahead of who wants it.
//!
//! A connection over HTTP/1.1 hands a body over chunk by chunk, and wakes for each who reads it; a backend
//! sends a chunk an event. Were that a task, the two would take as many turns of the scheduler as there are
//! events. So what is woken takes the chunk at once, where the connection stands that has it to hand over,
//! which goes on with the next: all that it has read is put together in one turn of its own, and the
//! client's side is woken once. Over HTTP/2 there is no need: what has arrived lies there in one place.

use super::super::client::of_transport;
use super::super::failure::{Failure, FailureKind};
use bytes::{Bytes, BytesMut};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use tokio::sync::Notify;

/// At first so many bytes are put together before some are taken, for the first event is awaited the most …
const FIRST: usize = 4 * 1024;
/// … then twice as many each time, up to here; more is not read.
const MOST: usize = 64 * 1024;
/// How often it is looked again because of a waker that was called meanwhile.
const AGAIN: usize = 2;

/// What is read ahead. Dropping it ends the reading, and with it the request at the backend.
#[derive(Debug)]
pub(super) struct Ahead(Arc<Reader>);

impl Ahead {
    /// Begins to read.
    pub(super) fn of(response: reqwest::Response) -> Self {
        let reader = Arc::new(Reader {
            response: Mutex::new(Some(response)),
            is_called: AtomicBool::new(false),
            shelf: Mutex::new(Shelf { room: FIRST, ..Shelf::default() }),
            filled: Notify::new(),
        });
        reader.read();
        Self(reader)
    }

    /// The next bytes; `None` at the end. Safe to cancel.
    pub(super) async fn chunk(&self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(came) = self.at_hand() {
                return came;
            }
            self.0.filled.notified().await;
        }
    }

    /// The same, if there is something.
    pub(super) fn at_hand(&self) -> Option<Result<Option<Bytes>, Failure>> {
        let mut lying = self.0.shelf();
        if lying.bytes.is_empty() && lying.is_left {
            drop(lying);
            self.0.read();
            lying = self.0.shelf();
        }
        if lying.bytes.is_empty() {
            return lying.end.clone().map(|end| end.map(|()| None));
        }
        let bytes = lying.take();
        let is_left = lying.is_left;
        drop(lying);
        if is_left {
            self.0.read();
        }
        Some(Ok(Some(bytes)))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // What it waits for holds its waker, which holds the reader.
        let response = self.0.response.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(response);
    }
}

/// Reads where it is woken.
#[derive(Debug)]
struct Reader {
    /// `None` at its end.
    response: Mutex<Option<reqwest::Response>>,
    /// Whether the waker was called since the body was asked last.
    is_called: AtomicBool,
    shelf: Mutex<Shelf>,
    /// There is something to take.
    filled: Notify,
}

/// Where it puts what it reads.
#[derive(Debug, Default)]
struct Shelf {
    bytes: BytesMut,
    /// For how many bytes there is room.
    room: usize,
    /// How many bytes were taken at once the last time.
    likely: usize,
    /// Whether the body was left alone for want of room, or of time: nobody will call for it.
    is_left: bool,
    /// How the body has ended, once it has; comes after the bytes.
    end: Option<Result<(), Failure>>,
}

impl Shelf {
    fn put(&mut self, chunk: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.reserve(self.likely.max(chunk.len()));
        } else if self.bytes.capacity() < self.bytes.len() + chunk.len() {
            // A second one is seldom the last.
            self.bytes.reserve(chunk.len().max(FIRST));
        }
        self.bytes.extend_from_slice(chunk);
    }

    fn take(&mut self) -> Bytes {
        self.likely = self.bytes.len();
        self.room = (self.room * 2).min(MOST);
        std::mem::take(&mut self.bytes).freeze()
    }
}

impl Reader {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what there is. Whoever finds somebody else at it leaves it to them; so does one who is called
    /// from within, by a body that wakes while it is polled.
    fn read(self: &Arc<Self>) {
        self.is_called.store(true, Ordering::SeqCst);
        for _ in 0..AGAIN {
            let mut response = match self.response.try_lock() {
                Ok(response) => response,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.is_called.store(false, Ordering::SeqCst);
            self.read_on(&mut response);
            drop(response);
            if !self.is_called.load(Ordering::SeqCst) {
                return;
            }
        }
        // It calls again and again: the client's side looks after it in a turn of its own.
        self.shelf().is_left = true;
        self.filled.notify_one();
    }

    fn read_on(self: &Arc<Self>, response: &mut Option<reqwest::Response>) {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        while let Some(body) = response.as_mut() {
            let is_full = {
                let mut lying = self.shelf();
                lying.is_left = lying.bytes.len() >= lying.room;
                lying.is_left
            };
            if is_full {
                return;
            }
            let Poll::Ready(came) = pin!(body.chunk()).poll(&mut context) else { return };
            let mut lying = self.shelf();
            let is_first = lying.bytes.is_empty();
            match came {
                Ok(Some(chunk)) => lying.put(&chunk),
                Ok(None) => lying.end = Some(Ok(())),
                Err(error) => {
                    lying.end = Some(Err(Failure { kind: FailureKind::StreamCut, ..of_transport(&error) }));
                }
            }
            if lying.end.is_some() {
                *response = None;
            }
            drop(lying);
            if is_first {
                self.filled.notify_one();
            }
        }
    }
}

impl Wake for Reader {
    fn wake(self: Arc<Self>) {
        self.read();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.read();
    }
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
        let lies = ahead.0.shelf().bytes.len();
        assert!((FIRST..FIRST + 1024).contains(&lies), "{lies}");
        assert!(!sending.is_finished());
        let mut all = Vec::new();
        while let Some(some) = ahead.chunk().await.expect("legible") {
            assert!(some.len() < MOST + 1024);
            all.extend_from_slice(&some);
        }
        assert!(all.chunks(1024).zip(0..=u8::MAX).all(|(piece, number)| piece.iter().all(|byte| *byte == number)));
        assert_eq!(all.len(), 256 * 1024);
        assert!(matches!(ahead.at_hand(), Some(Ok(None))), "the end stays the end");
    }

    #[tokio::test]
    async fn a_body_may_wake_while_it_is_polled() {
        let mut turns = 0;
        let pieces = stream::poll_fn(move |context| {
            turns += 1;
            if turns % 20 == 0 {
                return Poll::Ready((turns < 100).then(|| Ok::<_, &str>(Bytes::from_static(b"data: 1\n\n"))));
            }
            context.waker().wake_by_ref();
            Poll::Pending
        });
        let ahead = Ahead::of(http::Response::new(reqwest::Body::wrap_stream(pieces)).into());
        for _ in 0..4 {
            assert_eq!(ahead.chunk().await.expect("legible").as_deref(), Some(&b"data: 1\n\n"[..]));
        }
        assert_eq!(ahead.chunk().await.expect("a good end"), None);
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
