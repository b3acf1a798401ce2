//! How long a connection over HTTP/1.1 is waited for: for the rest of a head, and for the next request.
//!
//! hyper has one limit for both. Who does not send the rest of a head is broken, or an attacker; a connection that
//! rests lies in somebody's pool, and to end it before they do costs them the request that is just on its way.

use crate::alarm::Alarm;
use axum::body::HttpBody;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What is waited for, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first piece of a head to its end.
    pub head: Duration,
    /// From one request's end to the next one's beginning.
    pub idle: Duration,
}

/// Which requests of a connection are served, and until when the last one was.
#[derive(Debug, Clone)]
pub(super) struct Turn(Arc<Turns>);

#[derive(Debug)]
struct Turns {
    /// Goes up when a request begins and when it is over: it is odd while one is served.
    number: AtomicUsize,
    rests_since: Mutex<Instant>,
}

impl Turn {
    fn first() -> Self {
        Self(Arc::new(Turns { number: AtomicUsize::new(0), rests_since: Mutex::new(Instant::now()) }))
    }

    /// A request has begun.
    pub(super) fn begin(&self) -> Busy {
        self.0.number.fetch_add(1, Ordering::Relaxed);
        Busy { turn: self.clone(), for_ever: false }
    }

    fn number(&self) -> usize {
        self.0.number.load(Ordering::Relaxed)
    }

    fn rests_since(&self) -> MutexGuard<'_, Instant> {
        self.0.rests_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being served, until it is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    turn: Turn,
    /// Whether the connection is no longer HTTP's when the request is over.
    for_ever: bool,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if !self.for_ever {
            *self.turn.rests_since() = Instant::now();
            self.turn.0.number.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An answer whose connection is busy until its body has left: that holds on to it.
pub(super) fn busy_with(
    response: Response,
    mut busy: Busy,
) -> axum::http::Response<impl HttpBody<Data = Bytes, Error = axum::Error> + Send + 'static> {
    busy.for_ever = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    response.map(|body| {
        body.map_err(move |error| {
            let _ = &busy;
            error
        })
    })
}

/// A connection that fails when it is waited for in vain.
pub(super) struct Watched<T> {
    stream: T,
    limits: Limits,
    turn: Turn,
    /// In which turn a part of a head has come, and since when the rest is waited for.
    part: Option<(usize, Option<Instant>)>,
    alarm: Alarm,
}

impl<T> Watched<T> {
    pub(super) fn new(stream: T, limits: Limits) -> Self {
        Self { stream, limits, turn: Turn::first(), part: None, alarm: Alarm::default() }
    }

    /// Who serves requests says here that they begin.
    pub(super) fn turn(&self) -> Turn {
        self.turn.clone()
    }

    fn came(&mut self) {
        let turn = self.turn.number();
        if self.part.is_none_or(|(of, _)| of != turn) {
            self.part = Some((turn, None));
        }
    }

    /// Ready when nothing has come in time.
    fn in_vain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn.number();
        let until = match &mut self.part {
            // Nobody asks again when the request is over, if nothing had come meanwhile.
            _ if turn % 2 == 1 => Instant::now() + self.limits.idle,
            Some((of, since)) if *of == turn => *since.get_or_insert_with(Instant::now) + self.limits.head,
            _ => *self.turn.rests_since() + self.limits.idle,
        };
        self.alarm.poll(context, until)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            if buffer.filled().len() > before {
                self.came();
            }
            return Poll::Ready(read);
        }
        ready!(self.in_vain(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was sent in time")))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
