//! One call of the backend, as traces and metrics see it: from its sending to the end of its answer,
//! whichever way that comes. Dropped without an end, it is one whose client hung up.

use super::Ticket;
use crate::codex::event::ResponseSummary;
use crate::codex::{Failure, FailureKind, Usage};
use crate::telemetry::metrics;
use crate::telemetry::traces::{self, Attempt};
use std::time::Instant;
use tracing::Span;

/// What is asked for, in the words of OpenTelemetry's conventions.
const OPERATION: &str = "chat";

/// A call that is under way.
pub(super) struct BackendCall {
    /// Everything done for the call is a child of this.
    span: Span,
    model: String,
    began: Instant,
    /// When output came last, and what takes the times between.
    output: Option<(Instant, metrics::Histogram)>,
    usage: Option<Usage>,
    end: Option<End>,
}

/// How a call has ended.
enum End {
    Well,
    Failed(FailureKind),
}

impl BackendCall {
    /// The backend is called for this model. In a box, for it lives in a future that is large already.
    pub(super) fn begin(ticket: &Ticket, model: &str, address: &str, port: u16, stream: bool) -> Box<Self> {
        let attempt = Attempt { operation: OPERATION, model, address, port, number: ticket.attempts, stream };
        let span = traces::upstream_span(&ticket.span, &attempt);
        let model = model.to_owned();
        Box::new(Self { span, model, began: Instant::now(), output: None, usage: None, end: None })
    }

    /// Its span.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    fn named(&self) -> metrics::Call<'_> {
        metrics::Call { operation: OPERATION, model: &self.model }
    }

    /// A piece of output has come, now.
    pub(super) fn output(&mut self, now: Instant) {
        if let Some((last, between)) = &mut self.output {
            between.record(now.duration_since(*last).as_secs_f64());
            *last = now;
            return;
        }
        let after = now.duration_since(self.began);
        self.output = Some((now, self.named().began(after)));
        self.span.record("gen_ai.response.time_to_first_chunk", after.as_secs_f64());
        tracing::debug!(parent: &self.span, "first output");
    }

    /// The backend says what it has made, and what that took.
    pub(super) fn told(&mut self, summary: &ResponseSummary) {
        self.used(summary.usage);
        let words = [("gen_ai.response.id", &summary.id), ("gen_ai.response.model", &summary.model)];
        for (name, word) in words {
            if let Some(word) = word {
                self.span.record(name, word.as_str());
            }
        }
        if let Some(reason) = finish_reason(summary) {
            traces::record_finish(&self.span, reason);
        }
        if let Some(tier) = &summary.service_tier {
            self.span.record("openai.response.service_tier", tier.as_str());
        }
    }

    /// The same of a call that only says what it took.
    pub(super) fn used(&mut self, usage: Option<Usage>) {
        self.usage = usage.or(self.usage);
    }

    /// The answer is complete.
    pub(super) fn ended(&mut self) {
        self.end.get_or_insert(End::Well);
    }

    /// The call has failed.
    pub(super) fn failed(&mut self, failure: &Failure) {
        if self.end.is_none() {
            self.end = Some(End::Failed(failure.kind));
            if let Some(status) = failure.status {
                self.span.record("http.response.status_code", i64::from(status.as_u16()));
            }
        }
    }
}

impl Drop for BackendCall {
    fn drop(&mut self) {
        let error = match self.end {
            Some(End::Well) => None,
            Some(End::Failed(kind)) => Some(kind.as_str()),
            None => Some("client_gone"),
        };
        self.named().ended(self.began.elapsed(), error, self.usage);
        if let Some(usage) = self.usage {
            traces::record_usage(&self.span, usage);
        }
        if let Some(error) = error {
            self.span.record("error.type", error);
        }
        if matches!(self.end, Some(End::Failed(_))) {
            self.span.record("otel.status_code", "ERROR");
        }
        traces::end(&self.span);
    }
}

/// Why the model has stopped, in the words of the conventions' examples where there is one.
fn finish_reason(summary: &ResponseSummary) -> Option<&str> {
    let said = summary.incomplete_details.as_ref().and_then(|details| details.reason.as_deref());
    match (summary.status.as_deref()?, said) {
        ("completed", _) => Some("stop"),
        ("incomplete", Some("max_output_tokens")) => Some("length"),
        ("incomplete", Some(reason)) => Some(reason),
        ("failed", _) => Some("error"),
        (other, _) => Some(other),
    }
}
