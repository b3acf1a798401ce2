//! How an answer ended, for the backend or at the client's own bounds.

use super::Shape;
use super::assembly::{Assembly, Finish};
use super::frames::{Usage, finish_reason};
use crate::dialect::cut::{Cut, Cutter};

/// What stands at the end of an answer.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    pub(super) finish_reason: &'static str,
    pub(super) usage: Option<Usage>,
    pub(super) service_tier: Option<&'a str>,
}

impl<'a> Ending<'a> {
    /// `None` while the answer has not ended. Where it was cut, the backend's count stands if it is
    /// there already; else usage is an estimate, for the API has no other place to say so.
    pub(super) fn of(assembly: &'a Assembly, cutter: &Cutter, shape: &Shape) -> Option<Self> {
        let (outcome, cut) = (assembly.outcome(), cutter.cut());
        let finish = match (cut, outcome) {
            (Some(Cut::Stop(_)), _) => Finish::Stop,
            (Some(Cut::Limit), _) => Finish::Length,
            (None, outcome) => outcome?.finish,
        };
        let counted = outcome.and_then(|outcome| outcome.usage);
        let usage = counted.or_else(|| cut.map(|_| cutter.spent(shape.estimate)));
        Some(Self {
            finish_reason: finish_reason(finish, shape.is_legacy),
            usage: usage.as_ref().map(Usage::from),
            service_tier: outcome.and_then(|outcome| outcome.service_tier.as_deref()),
        })
    }
}
