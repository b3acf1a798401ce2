//! Which traces are kept: decided when they begin. What is decided when they end is the tail's.

use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// The samplers of `OTEL_TRACES_SAMPLER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share, whatever the caller decided.
    TraceIdRatio,
    /// All, unless the caller decided.
    ParentBasedAlwaysOn,
    /// None, unless the caller decided.
    ParentBasedAlwaysOff,
    /// A share, unless the caller decided.
    ParentBasedTraceIdRatio,
}

/// The head's decision. Where the tail may keep more, the others are recorded too.
pub(super) fn sampler(sampling: Sampling, ratio: f64, records_all: bool) -> Head {
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    let decides = match sampling {
        Sampling::AlwaysOn => Sampler::AlwaysOn,
        Sampling::AlwaysOff => Sampler::AlwaysOff,
        Sampling::TraceIdRatio => Sampler::TraceIdRatioBased(ratio),
        Sampling::ParentBasedAlwaysOn => parent_based(Sampler::AlwaysOn),
        Sampling::ParentBasedAlwaysOff => parent_based(Sampler::AlwaysOff),
        Sampling::ParentBasedTraceIdRatio => parent_based(Sampler::TraceIdRatioBased(ratio)),
    };
    Head { decides, records_all }
}

/// See [`sampler`].
#[derive(Debug, Clone)]
pub(super) struct Head {
    decides: Sampler,
    records_all: bool,
}

impl ShouldSample for Head {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.decides.should_sample(parent, trace, name, kind, attributes, links);
        if self.records_all && result.decision == SamplingDecision::Drop {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceState};

    fn decision(head: &Head, parent: Option<bool>) -> SamplingDecision {
        let trace = TraceId::from(7);
        let parent = parent.map(|sampled| {
            let flags = TraceFlags::default().with_sampled(sampled);
            let ids = SpanContext::new(trace, SpanId::from(9), flags, true, TraceState::default());
            Context::new().with_remote_span_context(ids)
        });
        head.should_sample(parent.as_ref(), trace, "x", &SpanKind::Server, &[], &[]).decision
    }

    #[test]
    fn the_caller_decides_where_it_is_to_and_what_is_not_kept_is_recorded_for_the_tail() {
        use SamplingDecision::{Drop, RecordAndSample, RecordOnly};
        let table = [
            (Sampling::AlwaysOn, 1.0, false, Some(false), RecordAndSample),
            (Sampling::AlwaysOff, 1.0, false, Some(true), Drop),
            (Sampling::AlwaysOff, 1.0, true, Some(true), RecordOnly),
            (Sampling::TraceIdRatio, 0.0, false, Some(true), Drop),
            (Sampling::ParentBasedTraceIdRatio, 0.0, false, Some(true), RecordAndSample),
            (Sampling::ParentBasedTraceIdRatio, 1.0, false, Some(false), Drop),
            (Sampling::ParentBasedTraceIdRatio, 1.0, true, Some(false), RecordOnly),
            (Sampling::ParentBasedTraceIdRatio, 0.0, true, None, RecordOnly),
            (Sampling::ParentBasedAlwaysOff, 1.0, false, None, Drop),
            (Sampling::ParentBasedAlwaysOn, 0.0, false, None, RecordAndSample),
        ];
        for (sampling, ratio, records_all, parent, wanted) in table {
            let found = decision(&sampler(sampling, ratio, records_all), parent);
            assert_eq!(found, wanted, "{sampling:?} {ratio} {records_all} {parent:?}");
        }
    }
}
