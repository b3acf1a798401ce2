//! The body of a refresh: asked for its bytes when the connection is ready to write them, it asks in
//! turn whether they may still leave. Between a decision to refresh and that moment a process may have
//! been paused, or have waited for a connection, and another may have refreshed meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Says whether a refresh token may leave now. Must not block.
pub type Timely = Arc<dyn Fn() -> bool + Send + Sync>;

const LEFT: u8 = 1;
const WITHHELD: u8 = 2;

/// What became of the bytes; nothing yet at first.
#[derive(Clone, Default)]
pub(super) struct Fate(Arc<AtomicU8>);

impl Fate {
    /// They were given to the connection, and may have reached the issuer.
    pub(super) fn left(&self) -> bool {
        self.0.load(Ordering::Acquire) == LEFT
    }

    /// They were asked for too late.
    pub(super) fn was_withheld(&self) -> bool {
        self.0.load(Ordering::Acquire) == WITHHELD
    }
}

/// Bytes that leave at once or not at all.
pub(super) struct Departure {
    bytes: Option<Bytes>,
    timely: Timely,
    fate: Fate,
}

#[derive(Debug, thiserror::Error)]
#[error("too late to send")]
pub(super) struct TooLate;

impl Departure {
    pub(super) fn new(bytes: Bytes, timely: Timely) -> (Self, Fate) {
        let fate = Fate::default();
        (Self { bytes: Some(bytes), timely, fate: fate.clone() }, fate)
    }
}

impl Body for Departure {
    type Data = Bytes;
    type Error = TooLate;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, TooLate>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        // Nothing waits between this answer and the write of what it returns.
        if !(self.timely)() {
            self.fate.0.store(WITHHELD, Ordering::Release);
            return Poll::Ready(Some(Err(TooLate)));
        }
        self.fate.0.store(LEFT, Ordering::Release);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
