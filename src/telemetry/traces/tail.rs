//! Keeps traces that went wrong, or took long, although they were not to be kept: their spans wait
//! here until the trace's root here has ended. The memory for it is bounded; what there is no room for
//! is not kept.
//!
//! Spans that are to be kept anyway pass at once.

use super::Keep;
use super::watched::Room;
use crate::telemetry::metrics;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceId};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Spans that wait at most, of all traces together; about 1 to 2 KiB each.
const SPANS: usize = 4096;
/// Traces that are known to have been kept, for spans that end after their root.
const KEPT: usize = 1024;

/// Passes on what is to be kept.
#[derive(Debug)]
pub(super) struct Processor<P> {
    next: P,
    /// In the queue behind `next`.
    room: Room,
    keep: Keep,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Of traces whose root has not ended.
    traces: HashMap<TraceId, Vec<SpanData>>,
    /// The same in the order in which they came.
    order: VecDeque<TraceId>,
    /// How many spans those are.
    spans: usize,
    /// Traces that are kept, the oldest first.
    kept: VecDeque<TraceId>,
}

/// What becomes of a span.
enum Fate {
    /// These are passed on.
    Kept(Vec<SpanData>),
    /// It waits for its root, and so many others had to go for it.
    Waits { lost: usize },
    /// So many spans are not kept.
    Gone(usize),
}

impl<P> Processor<P> {
    pub(super) fn new(next: P, room: Room, keep: Keep) -> Self {
        Self { next, room, keep, waiting: Mutex::default() }
    }
}

impl<P: SpanProcessor> Processor<P> {
    fn pass(&self, span: SpanData) {
        if self.room.take() {
            self.next.on_end(span);
        } else {
            metrics::spans("dropped", 1);
        }
    }
}

impl Waiting {
    fn take(&mut self, span: SpanData, keep: Keep) -> Fate {
        let trace = span.span_context.trace_id();
        let is_root = span.parent_span_id == SpanId::INVALID || span.parent_span_is_remote;
        if self.kept.contains(&trace) {
            return Fate::Kept(vec![span]);
        }
        if !is_root {
            let lost = self.make_room();
            self.traces.entry(trace).or_insert_with(|| {
                self.order.push_back(trace);
                Vec::new()
            });
            self.traces.entry(trace).or_default().push(span);
            self.spans += 1;
            return Fate::Waits { lost };
        }
        let mut spans = self.below(&span);
        let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
        spans.push(span);
        let is_error = |span: &SpanData| matches!(span.status, Status::Error { .. });
        if !(keep.errors && spans.iter().any(is_error) || keep.slow.is_some_and(|slow| took >= slow)) {
            return Fate::Gone(spans.len());
        }
        self.kept.push_back(trace);
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
        Fate::Kept(spans)
    }

    /// The oldest trace goes, where there is no room for one more span.
    fn make_room(&mut self) -> usize {
        let mut lost = 0;
        while self.spans >= SPANS
            && let Some(oldest) = self.order.front().copied()
        {
            lost += self.forget(oldest).len();
        }
        lost
    }

    /// The spans below one. Others of its trace are another request's: a client may make several in one
    /// trace.
    fn below(&mut self, root: &SpanData) -> Vec<SpanData> {
        let trace = root.span_context.trace_id();
        let mut others = self.forget(trace);
        let (mut known, mut found) = (vec![root.span_context.span_id()], Vec::new());
        while let Some(parent) = known.pop() {
            for span in others.extract_if(.., |span| span.parent_span_id == parent) {
                known.push(span.span_context.span_id());
                found.push(span);
            }
        }
        if !others.is_empty() {
            self.spans += others.len();
            self.order.push_back(trace);
            self.traces.insert(trace, others);
        }
        found
    }

    fn forget(&mut self, trace: TraceId) -> Vec<SpanData> {
        let spans = self.traces.remove(&trace).unwrap_or_default();
        if !spans.is_empty() {
            self.order.retain(|known| *known != trace);
        }
        self.spans -= spans.len();
        spans
    }
}

impl<P: SpanProcessor> SpanProcessor for Processor<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.next.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            return self.pass(span);
        }
        let fate = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take(span, self.keep);
        match fate {
            Fate::Kept(spans) => spans.into_iter().for_each(|span| self.pass(sampled(span))),
            Fate::Waits { lost: 0 } => {}
            Fate::Waits { lost } => metrics::spans("dropped", lost),
            Fate::Gone(number) => metrics::spans("sampled_out", number),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// The span as one that is kept: exporters leave others out.
fn sampled(mut span: SpanData) -> SpanData {
    let ids = &span.span_context;
    let flags = ids.trace_flags().with_sampled(true);
    span.span_context =
        SpanContext::new(ids.trace_id(), ids.span_id(), flags, ids.is_remote(), ids.trace_state().clone());
    span
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanKind, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use std::time::SystemTime;

    const KEEP: Keep = Keep { errors: true, slow: Some(Duration::from_secs(10)) };

    fn span(trace: u128, id: u64, parent: u64, seconds: u64, failed: bool) -> SpanData {
        let start = SystemTime::UNIX_EPOCH;
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(trace),
                SpanId::from(id),
                TraceFlags::default(),
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "x".into(),
            start_time: start,
            end_time: start + Duration::from_secs(seconds),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed { Status::error("x") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    fn kept(fate: Fate) -> usize {
        match fate {
            Fate::Kept(spans) => spans.len(),
            Fate::Waits { .. } | Fate::Gone(_) => 0,
        }
    }

    #[test]
    fn a_trace_is_kept_whole_when_something_failed_in_it_or_it_was_slow() {
        for (child_failed, root_seconds, wanted) in [(false, 1, 0), (true, 1, 3), (false, 10, 3)] {
            let mut waiting = Waiting::default();
            assert_eq!(kept(waiting.take(span(1, 3, 2, 1, false), KEEP)), 0);
            assert_eq!(kept(waiting.take(span(1, 2, 1, 1, child_failed), KEEP)), 0);
            assert_eq!(kept(waiting.take(span(1, 1, 0, root_seconds, false), KEEP)), wanted);
            assert_eq!((waiting.spans, waiting.traces.len(), waiting.order.len()), (0, 0, 0));
            // One that ends after its root shares its fate.
            assert_eq!(kept(waiting.take(span(1, 4, 1, 1, false), KEEP)), usize::from(wanted > 0));
        }
    }

    #[test]
    fn two_requests_of_one_trace_do_not_share_their_fate() {
        let mut waiting = Waiting::default();
        waiting.take(span(1, 11, 10, 1, false), KEEP);
        waiting.take(span(1, 21, 20, 1, true), KEEP);
        let root = |id| SpanData { parent_span_is_remote: true, ..span(1, id, 5, 1, false) };
        assert_eq!(kept(waiting.take(root(10), KEEP)), 0);
        assert_eq!(kept(waiting.take(root(20), KEEP)), 2);
        assert_eq!((waiting.spans, waiting.order.len()), (0, 0));
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_trace_goes_first() {
        let mut waiting = Waiting::default();
        for trace in 1..=2 * SPANS as u128 {
            waiting.take(span(trace, 2, 1, 1, true), KEEP);
            assert!(waiting.spans <= SPANS && waiting.order.len() <= SPANS);
        }
        assert_eq!(kept(waiting.take(span(1, 1, 0, 1, false), KEEP)), 0, "its child is gone");
        assert_eq!(kept(waiting.take(span(2 * SPANS as u128, 1, 0, 1, false), KEEP)), 2);
        for trace in 0..2 * KEPT as u128 {
            waiting.take(span(trace + 100_000, 1, 0, 1, true), KEEP);
        }
        assert_eq!(waiting.kept.len(), KEPT);
    }
}
