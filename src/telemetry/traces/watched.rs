//! Watches the exporter: counts what it does, and says at most once a minute that it cannot.

use crate::telemetry::metrics;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said that spans were lost.
const SAY: Duration = Duration::from_mins(1);

/// The room in the queue before the exporter, counted so that what finds none is counted too.
#[derive(Debug, Clone)]
pub(super) struct Room {
    size: usize,
    queued: Arc<AtomicUsize>,
}

impl Room {
    pub(super) fn new(size: usize) -> Self {
        Self { size, queued: Arc::default() }
    }

    /// How many spans may be queued.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Takes a place in the queue, if there is one.
    pub(super) fn take(&self) -> bool {
        let has_room = self.queued.fetch_add(1, Ordering::AcqRel) < self.size;
        if !has_room {
            self.leave(1);
        }
        has_room
    }

    /// So many spans have left the queue.
    fn leave(&self, spans: usize) {
        self.queued.fetch_sub(spans, Ordering::AcqRel);
    }
}

/// An exporter that is watched.
#[derive(Debug)]
pub(super) struct Exporter<E> {
    inner: E,
    room: Room,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    said: Option<Instant>,
    /// Spans that were lost since.
    lost: usize,
}

impl<E> Exporter<E> {
    pub(super) fn new(inner: E, room: Room) -> Self {
        Self { inner, room, trouble: Mutex::default() }
    }
}

impl Trouble {
    /// Spans were lost; how many in all, if it is time to say so.
    fn lose(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.lost += spans;
        if self.said.is_some_and(|said| now.duration_since(said) < SAY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.lost))
    }
}

impl<E: SpanExporter> SpanExporter for Exporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.room.leave(spans);
        let result = self.inner.export(batch).await;
        match &result {
            Ok(()) => metrics::spans("exported", spans),
            Err(error) => {
                metrics::spans("failed", spans);
                let lost = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).lose(spans, Instant::now());
                if let Some(lost) = lost {
                    tracing::warn!(%error, lost, "the collector does not take spans; said once a minute at most");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_so_much_room_and_gets_it_back() {
        let room = Room::new(2);
        assert_eq!([room.take(), room.take(), room.take(), room.take()], [true, true, false, false]);
        room.leave(1);
        assert_eq!([room.take(), room.take()], [true, false]);
    }

    #[test]
    fn it_is_said_once_a_minute_with_all_that_was_lost() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(trouble.lose(3, at(0)), Some(3));
        assert_eq!(trouble.lose(4, at(5)), None);
        assert_eq!(trouble.lose(5, at(59)), None);
        assert_eq!(trouble.lose(1, at(60)), Some(10));
    }
}
