//! Bodies that nobody reads to their end.
//!
//! A request may be refused before its body was read: an unknown path, a wrong key, too many bytes. If
//! the connection closed then, a client that is still sending would see it reset and not the answer.
//! So what is left of a body is read and thrown away, within limits.

use axum::body::{Body, HttpBody};
use axum::http::Request;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Longer than this nobody is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sees to it that the body is read to its end, or for as many bytes more as `most`.
pub(super) fn read_to_the_end(request: Request<Body>, most: usize) -> Request<Body> {
    request.map(|body| Body::new(Lingering { body, most }))
}

/// A body that goes on being read when it is dropped.
struct Lingering {
    /// What comes from the connection; empty when there is no more.
    body: Body,
    /// How many bytes are read after that.
    most: usize,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = Body::empty();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            return;
        }
        // Without a runtime there is no connection either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let rest = discard(std::mem::take(&mut self.body), self.most);
            runtime.spawn(tokio::time::timeout(PATIENCE, rest));
        }
    }
}

async fn discard(mut body: Body, most: usize) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > most {
            return;
        }
    }
}
