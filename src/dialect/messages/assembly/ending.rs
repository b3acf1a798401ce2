//! How an answer ends: when the backend is through, or where the client wants it to end.

use super::slot::Identity;
use super::{Assembly, Sink};
use crate::codex;
use crate::codex::event::{Item, ResponseRef, ResponseSummary};
use crate::dialect::messages::frames::{MessageEnd, StopReason, Usage};

/// How an answer ended.
#[derive(Debug, Clone)]
pub(in crate::dialect::messages) struct Outcome {
    pub(in crate::dialect::messages) end: MessageEnd,
    pub(in crate::dialect::messages) usage: Usage,
    /// Whether the usage is the backend's count.
    is_counted: bool,
}

impl Assembly {
    /// Whether the answer ended where the client wanted it.
    pub(in crate::dialect::messages) fn is_cut(&self) -> bool {
        self.cutter.cut().is_some()
    }

    /// What a cut answer has used, unless the backend said so.
    pub(in crate::dialect::messages) fn spent(&self) -> Option<codex::Usage> {
        let is_counted = self.outcome.as_ref().is_some_and(|outcome| outcome.is_counted);
        (self.is_cut() && !is_counted).then(|| self.cutter.spent(self.shape.estimate))
    }

    /// The response is over: takes what its output has that no event brought, and closes everything.
    pub(super) fn end(&mut self, response: &ResponseRef<'_>, is_incomplete: bool, sink: &mut impl Sink) {
        for (index, item) in (0..).zip(unseen_output(response, self.slots.done_items())) {
            if let Some(item) = item
                && let Some(slot) = self.slots.of_output(Identity::of(&item, index))
            {
                self.item_done(slot, &item, sink);
            }
        }
        self.slots.finish_all();
        self.advance(sink);
        let summary = response.summary().cloned().unwrap_or_default();
        if self.is_cut() {
            self.outcome = Some(self.cut_outcome(summary.usage.as_ref()));
            return;
        }
        let stop_reason = self.stop_reason(&summary, is_incomplete);
        let counted = summary.usage.as_ref().map_or_else(|| Usage::at_start(self.shape.estimate), Usage::of);
        self.outcome = Some(Outcome {
            end: MessageEnd { stop_reason: Some(stop_reason), stop_sequence: None },
            usage: counted.with_searches(self.searches),
            is_counted: summary.usage.is_some(),
        });
    }

    /// How an answer ended that was cut; `counted` if the backend had ended it too.
    pub(super) fn cut_outcome(&self, counted: Option<&codex::Usage>) -> Outcome {
        let stop_sequence = self.cutter.stop_sequence().map(str::to_owned);
        let stop_reason = if stop_sequence.is_some() { StopReason::StopSequence } else { StopReason::MaxTokens };
        let usage = counted.copied().unwrap_or_else(|| self.cutter.spent(self.shape.estimate));
        Outcome {
            end: MessageEnd { stop_reason: Some(stop_reason), stop_sequence },
            usage: Usage::of(&usage).with_searches(self.searches),
            is_counted: counted.is_some(),
        }
    }

    fn stop_reason(&self, summary: &ResponseSummary, is_incomplete: bool) -> StopReason {
        let reason = summary.incomplete_details.as_ref().and_then(|details| details.reason.as_deref());
        if is_incomplete {
            return match reason {
                Some("content_filter") => StopReason::Refusal,
                Some(reason) if reason.contains("context") => StopReason::ModelContextWindowExceeded,
                // Any other reason is a limit of some kind, and the answer is not whole.
                _ => StopReason::MaxTokens,
            };
        }
        if self.called {
            StopReason::ToolUse
        } else if self.refused {
            StopReason::Refusal
        } else if summary.end_turn == Some(false) {
            StopReason::PauseTurn
        } else {
            StopReason::EndTurn
        }
    }
}

/// The items of the final response's output, if it has more than were announced as done; one that
/// is not legible is `None`.
fn unseen_output(response: &ResponseRef<'_>, done_items: usize) -> Vec<Option<Item>> {
    let output = response.output().unwrap_or_default();
    if output.len() <= done_items {
        return Vec::new();
    }
    output.into_iter().map(|raw| serde_json::from_str(raw.get()).ok()).collect()
}
