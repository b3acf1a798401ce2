//! Which account is next: pure functions and plain state machines, so that every answer can be
//! explained, simulated and replayed.
//!
//! [`choose`] orders candidates, and [`at_home`] spares most requests that; [`condition`] is what is
//! known of one account, with [`quota`] for its limits and [`health`] for its circuit breaker; [`remedy`]
//! is the table of failures; [`sessions`] remembers where conversations live; [`retries`] bounds what an
//! outage of the backend may cost; [`burn`] says how long quota lasts. None of it knows managers, a clock,
//! the network or the store: times are handed in.

pub mod burn;
pub mod condition;
pub mod health;
pub mod quota;
pub mod remedy;
pub mod retries;
mod score;
pub mod sessions;

use crate::store::{AccountId, AccountScope, AccountState, Strategy, UnixMillis};
use quota::Gauge;

/// What is known about one account when a request needs one. Small and plain: a hundred are
/// gathered for a choice among all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Which.
    pub id: AccountId,
    /// Only active accounts work.
    pub state: AccountState,
    /// Taken out by an operator.
    pub paused: bool,
    /// Its workspace lives where nothing may be sent.
    pub barred: bool,
    /// Its quota is used up until then.
    pub limited_until: Option<UnixMillis>,
    /// The backend refuses the request's model, or its family, on this account until then.
    pub model_until: Option<UnixMillis>,
    /// Whether its plan is known not to offer the request's model: by its catalogue, or by a refusal.
    pub lacks_model: bool,
    /// Its plan does not serve at all; asked again then.
    pub not_included_until: Option<UnixMillis>,
    /// A failure that does not mean quota puts it aside for a short time.
    pub cooling_until: Option<UnixMillis>,
    /// What the circuit breaker says.
    pub circuit: health::Circuit,
    /// Requests under way here.
    pub in_flight: u32,
    /// Conversations that live here and were active of late.
    pub sessions: u32,
    /// Its windows as they are believed to be; an empty place is not known.
    pub windows: [Option<Gauge>; 2],
    /// The operator's share for it, 1 as a rule. Zero is never first.
    pub weight: f32,
    /// Accounts of a higher priority are used first.
    pub priority: i32,
    /// When it was last chosen.
    pub last_used: Option<UnixMillis>,
    /// How often it was chosen, each divided by its weight; newcomers begin where the others are.
    pub turns: f64,
}

impl Candidate {
    /// An account that nothing is known against, nor anything else.
    pub fn new(id: AccountId) -> Self {
        Self {
            id,
            state: AccountState::Active,
            paused: false,
            barred: false,
            limited_until: None,
            model_until: None,
            lacks_model: false,
            not_included_until: None,
            cooling_until: None,
            circuit: health::Circuit::Closed,
            in_flight: 0,
            sessions: 0,
            windows: [None; 2],
            weight: 1.0,
            priority: 0,
            last_used: None,
            turns: 0.0,
        }
    }
}

/// Why an account is not a candidate. The first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The key may not use it.
    OutOfScope,
    /// Somebody has to log in.
    NeedsLogin,
    /// The backend refuses its tokens.
    Quarantined,
    /// An operator has paused it.
    Paused,
    /// Its workspace lives at an address where nothing may be sent.
    Barred,
    /// Its plan does not serve at all; asked again then.
    NotIncluded(UnixMillis),
    /// Its plan does not offer the model.
    ModelNotOffered,
    /// Its quota is used up until then.
    Limited(UnixMillis),
    /// The model's own quota is used up on it until then.
    ModelLimited(UnixMillis),
    /// The backend asked to leave it alone until then.
    Cooling(UnixMillis),
    /// It failed several times in a row; until then.
    Tripped(UnixMillis),
    /// It failed several times in a row, and one request is finding out whether it works again.
    OnTrial,
    /// It was tried for this request.
    Tried,
}

impl Reason {
    /// A word for traces and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutOfScope => "out_of_scope",
            Self::NeedsLogin => "needs_login",
            Self::Quarantined => "quarantined",
            Self::Paused => "paused",
            Self::Barred => "barred",
            Self::NotIncluded(_) => "not_included",
            Self::ModelNotOffered => "model_not_offered",
            Self::Limited(_) => "limited",
            Self::ModelLimited(_) => "model_limited",
            Self::Cooling(_) => "cooling",
            Self::Tripped(_) => "tripped",
            Self::OnTrial => "on_trial",
            Self::Tried => "tried",
        }
    }

    /// When it no longer applies, if time alone ends it.
    pub const fn until(self) -> Option<UnixMillis> {
        match self {
            Self::NotIncluded(until)
            | Self::Limited(until)
            | Self::ModelLimited(until)
            | Self::Cooling(until)
            | Self::Tripped(until) => Some(until),
            _ => None,
        }
    }

    /// Whether it passes so soon that a conversation keeps its home: what the prompt cache holds
    /// outlives it (lessons.md 7).
    pub fn is_passing(self, now: UnixMillis) -> bool {
        const SOON: i64 = 5 * 60 * 1000;
        match self {
            Self::OnTrial | Self::Tried => true,
            _ => self.until().is_some_and(|until| until.saturating_sub(now) <= SOON),
        }
    }
}

/// What a request asks of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The accounts that its key may use.
    pub scope: &'a AccountScope,
    /// How those are ordered.
    pub strategy: Strategy,
    /// Where its conversation lives.
    pub home: Option<AccountId>,
    /// Who served it last, if that was not its home: the next best place.
    pub host: Option<AccountId>,
    /// Accounts that were tried for it already.
    pub tried: &'a [AccountId],
    /// Now.
    pub now: UnixMillis,
}

impl<'a> Ask<'a> {
    /// A request of no conversation, tried nowhere yet.
    pub fn of(scope: &'a AccountScope, now: UnixMillis) -> Self {
        Self { scope, strategy: Strategy::default(), home: None, host: None, tried: &[], now }
    }
}

/// An account that may serve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Which.
    pub id: AccountId,
    /// By what it was ordered; more is better. What it means depends on the strategy.
    pub score: f64,
}

/// What became of the wish to stay where the conversation lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// The conversation is new, or there is none.
    NoHome,
    /// Its home serves.
    Home,
    /// Its home cannot serve for a moment: another account does, and the conversation stays.
    Detour(Reason),
    /// Its home cannot serve for long: the conversation moves.
    Moves(Reason),
    /// Its home is no more.
    Gone,
}

impl Stay {
    /// A word for traces and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHome => "none",
            Self::Home => "hit",
            Self::Detour(_) => "detour",
            Self::Moves(_) | Self::Gone => "moved",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// To be tried in this order.
    pub ordered: Vec<Ranked>,
    /// The others, each with its reason, in the order they came.
    pub excluded: Vec<(AccountId, Reason)>,
    /// What became of the conversation's home.
    pub stay: Stay,
    /// Whether any account of the scope may offer the model; if none does, those that serve are asked
    /// only so that the backend says so.
    pub is_offered: bool,
}

impl Choice {
    /// The first.
    pub fn first(&self) -> Option<AccountId> {
        self.ordered.first().map(|ranked| ranked.id)
    }

    /// The earliest time at which an account is back that is only aside for a time, and why it is
    /// aside; what a client is told when nothing is left.
    pub fn soonest_back(&self) -> Option<(UnixMillis, Reason)> {
        let aside = self.excluded.iter().filter_map(|(_, reason)| Some((reason.until()?, *reason)));
        aside.min_by_key(|(until, _)| *until)
    }
}

/// Orders the candidates that may serve a request: the conversation's own account first, if it may
/// serve, then by priority and by the strategy. Equal input gives equal output.
///
/// An account whose circuit is open counts as excluded only while another account may serve: when
/// all have failed it is the backend that is ill, and asking is better than refusing.
pub fn choose(candidates: &[Candidate], ask: &Ask<'_>) -> Choice {
    // Where nobody has the model, the backend is to say so.
    let is_offered = candidates.iter().any(|one| ask.scope.allows(one.id) && !one.lacks_model);
    let mut eligible = Vec::with_capacity(candidates.len());
    let mut excluded = Vec::new();
    for candidate in candidates {
        let reason = exclusion(candidate, ask.scope, ask.now)
            .filter(|reason| is_offered || *reason != Reason::ModelNotOffered)
            .or_else(|| ask.tried.contains(&candidate.id).then_some(Reason::Tried));
        match reason {
            None => eligible.push(candidate),
            Some(reason) => excluded.push((candidate.id, reason)),
        }
    }
    if eligible.is_empty() {
        readmit_tripped(candidates, ask, &mut eligible, &mut excluded);
    }
    let mut ordered = score::order(&eligible, ask.strategy, ask.now);
    let stay = stay(ask, &mut ordered, &excluded);
    Choice { ordered, excluded, stay, is_offered }
}

/// What [`choose`] says first to a request whose conversation's home may serve, by a look at that account
/// alone: nearly every request has one, and is not to cost more for each account that there is. `None`
/// where the others have to be looked at.
pub fn at_home(home: &Candidate, ask: &Ask<'_>) -> Option<Choice> {
    let serves = ask.home == Some(home.id) && obstacle(home, ask).is_none();
    // It is not known to lack the model, so that somebody may offer it.
    let (stay, is_offered) = (Stay::Home, true);
    let ordered = || vec![score::rank(home, ask.strategy, ask.now)];
    serves.then(|| Choice { ordered: ordered(), excluded: Vec::new(), stay, is_offered })
}

/// Whether any account but `chosen` may serve: whether [`choose`] has more to say than [`at_home`] did.
pub fn has_another(candidates: &[Candidate], ask: &Ask<'_>, chosen: AccountId) -> bool {
    candidates.iter().any(|candidate| candidate.id != chosen && obstacle(candidate, ask).is_none())
}

/// Why a candidate is not to serve this request, where somebody offers the model.
fn obstacle(candidate: &Candidate, ask: &Ask<'_>) -> Option<Reason> {
    exclusion(candidate, ask.scope, ask.now).or_else(|| ask.tried.contains(&candidate.id).then_some(Reason::Tried))
}

/// Puts the accounts back whose only fault is an open circuit, the one that is to close first in
/// front.
fn readmit_tripped<'a>(
    candidates: &'a [Candidate],
    ask: &Ask<'_>,
    eligible: &mut Vec<&'a Candidate>,
    excluded: &mut Vec<(AccountId, Reason)>,
) {
    let is_tripped = |id: AccountId, reason: Reason| {
        matches!(reason, Reason::Tripped(_) | Reason::OnTrial) && !ask.tried.contains(&id)
    };
    let back =
        |candidate: &&Candidate| excluded.iter().any(|(id, reason)| *id == candidate.id && is_tripped(*id, *reason));
    eligible.extend(candidates.iter().filter(back));
    excluded.retain(|(id, reason)| !is_tripped(*id, *reason));
}

/// Puts the conversation's home first, or says why it is not.
fn stay(ask: &Ask<'_>, ordered: &mut [Ranked], excluded: &[(AccountId, Reason)]) -> Stay {
    let Some(home) = ask.home else { return Stay::NoHome };
    let mut put_first = |wanted: AccountId| {
        let place = ordered.iter().position(|ranked| ranked.id == wanted);
        if let Some(place) = place {
            ordered[..=place].rotate_right(1);
        }
        place.is_some()
    };
    if put_first(home) {
        return Stay::Home;
    }
    ask.host.map(put_first);
    match excluded.iter().find(|(id, _)| *id == home) {
        Some((_, reason)) if reason.is_passing(ask.now) => Stay::Detour(*reason),
        Some((_, reason)) => Stay::Moves(*reason),
        None => Stay::Gone,
    }
}

/// Why a candidate is not eligible at `now`, if it is not. The one rule, also for an account that
/// a session would like to keep (lessons.md 7).
pub fn exclusion(candidate: &Candidate, scope: &AccountScope, now: UnixMillis) -> Option<Reason> {
    if !scope.allows(candidate.id) {
        return Some(Reason::OutOfScope);
    }
    match candidate.state {
        AccountState::NeedsLogin => return Some(Reason::NeedsLogin),
        AccountState::Quarantined => return Some(Reason::Quarantined),
        AccountState::Active => {}
    }
    if candidate.paused {
        return Some(Reason::Paused);
    }
    if candidate.barred {
        return Some(Reason::Barred);
    }
    let ahead = |until: Option<UnixMillis>, at_most: i64| {
        // What is further away than anybody is put aside for was said by another clock.
        until.filter(|until| (1..=at_most).contains(&until.saturating_sub(now)))
    };
    if let Some(until) = ahead(candidate.limited_until, LONGEST_LIMIT) {
        return Some(Reason::Limited(until));
    }
    if let Some(until) = ahead(candidate.not_included_until, remedy::CLOSED) {
        return Some(Reason::NotIncluded(until));
    }
    if candidate.lacks_model {
        return Some(Reason::ModelNotOffered);
    }
    if let Some(until) = ahead(candidate.model_until, LONGEST_LIMIT) {
        return Some(Reason::ModelLimited(until));
    }
    if let Some(until) = ahead(candidate.cooling_until, LONGEST_COOLING) {
        return Some(Reason::Cooling(until));
    }
    match candidate.circuit {
        health::Circuit::Open(until) if until > now => Some(Reason::Tripped(until)),
        health::Circuit::Closed | health::Circuit::Open(_) => None,
        health::Circuit::OnTrial => Some(Reason::OnTrial),
    }
}

/// No window is longer than a month (protocol.md 5.1).
pub const LONGEST_LIMIT: i64 = 32 * 24 * 3600 * 1000;
/// A backend that wants more than an hour is asked once an hour.
pub const LONGEST_COOLING: i64 = 3600 * 1000;

#[cfg(test)]
mod tests;
