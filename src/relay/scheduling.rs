//! Which account a request gets: gathers what is known, asks the pool, and remembers the answer.

use super::decisions::{Account as Told, Explanation};
use super::reasoning::Foreign;
use super::{Relay, Ticket, millis_from_now};
use crate::account::InFlight;
use crate::account::pool::sessions::{Home, Session, Sessions};
use crate::account::pool::{self, Ask, Candidate, Choice, Stay};
use crate::store::{AccountId, GatewayKey, Strategy, UnixMillis};
use crate::telemetry::metrics;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// A request's conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conversation(pub Session);

/// A request's next account, and a place on it.
pub(super) struct Aim {
    /// Keeps the place.
    pub in_flight: InFlight,
    /// What became of the wish to stay.
    pub stay: Stay,
    /// What in the request belongs to another account.
    pub foreign: Foreign,
    /// Whether no other account could serve; `None` where nobody looked, for the conversation stays at home.
    is_last: Option<bool>,
    /// Whether any account may offer the model.
    pub is_offered: bool,
}

impl Aim {
    /// The account.
    pub(super) fn account(&self) -> AccountId {
        self.in_flight.member().manager.id()
    }
}

impl Relay {
    /// What the pool says to a request of this key, for this model.
    pub(super) fn look(&self, key: &GatewayKey, model: Option<&str>) -> Choice {
        let ask = self.ask(key, None, &[], millis_from_now(Duration::ZERO));
        pool::choose(&self.candidates_for(&ask, model), &ask)
    }

    /// Every account as the pool sees it.
    pub fn candidates(&self, model: Option<&str>) -> Vec<Candidate> {
        self.described(self.accounts.candidates(model), model)
    }

    /// Those of a request's scope, and its home, of which it is to be said if it is not in there.
    fn candidates_for(&self, ask: &Ask<'_>, model: Option<&str>) -> Vec<Candidate> {
        let mut candidates = self.accounts.candidates_of(ask.scope, model);
        let outside = ask.home.filter(|home| !ask.scope.allows(*home));
        candidates.extend(outside.and_then(|home| self.accounts.candidate(home, model)));
        self.described(candidates, model)
    }

    /// With what others than the directory know of them.
    fn described(&self, mut candidates: Vec<Candidate>, model: Option<&str>) -> Vec<Candidate> {
        let sessions = self.sessions();
        for candidate in &mut candidates {
            candidate.sessions = sessions.living_on(candidate.id);
        }
        drop(sessions);
        self.routing.bar(&mut candidates);
        if let Some(model) = model {
            self.shelf.mark_lacking(&mut candidates, model);
        }
        candidates
    }

    /// A choice and what it was made from: the conversation's home alone, where that may serve.
    fn choose(&self, ask: &Ask<'_>, model: Option<&str>) -> (Vec<Candidate>, Choice, bool) {
        let home = ask.home.and_then(|home| self.accounts.candidate(home, model));
        if let Some(home) = home {
            let alone = self.described(vec![home], model);
            if let Some(choice) = pool::at_home(&alone[0], ask) {
                return (alone, choice, true);
            }
        }
        let candidates = self.candidates_for(ask, model);
        let choice = pool::choose(&candidates, ask);
        (candidates, choice, false)
    }

    /// Whether no other account could serve what `tried` could not.
    pub(super) fn is_last(&self, aim: &Aim, key: &GatewayKey, tried: &[AccountId], model: Option<&str>) -> bool {
        aim.is_last.unwrap_or_else(|| {
            let ask = self.ask(key, None, tried, millis_from_now(Duration::ZERO));
            !pool::has_another(&self.candidates_for(&ask, model), &ask, aim.account())
        })
    }

    fn strategy(&self, key: &GatewayKey) -> Strategy {
        key.pool.as_ref().map_or(self.options.strategy, |pool| pool.strategy)
    }

    /// The next account for a request, and a place on it: the conversation's own account, if it may
    /// serve, else the pool's best. The others are looked at only where there is no home, or it may not.
    pub(super) fn aim(
        &self,
        key: &GatewayKey,
        conversation: Option<&Conversation>,
        tried: &[AccountId],
        model: Option<&str>,
        ticket: &Ticket,
    ) -> Option<Aim> {
        let now = millis_from_now(Duration::ZERO);
        let home = conversation.and_then(|conversation| self.sessions().home(conversation.0, now));
        let ask = self.ask(key, home, tried, now);
        let (candidates, choice, is_alone) = self.choose(&ask, model);
        let chosen = choice.first();
        let is_last = (!is_alone).then_some(choice.ordered.len() <= 1);
        metrics::choice(ask.strategy.as_str(), choice.stay.as_str(), chosen.is_some());
        self.tell(&Told { key, model, conversation, ask: &ask, candidates: &candidates, choice: &choice }, ticket);
        // An account may have been removed this instant.
        let in_flight = self.accounts.begin(chosen?)?;
        let foreign = foreign(home, in_flight.member().manager.id());
        Some(Aim { in_flight, stay: choice.stay, foreign, is_last, is_offered: choice.is_offered })
    }

    /// What would be decided for a request that is not sent. `name` is what its client calls the
    /// conversation.
    pub fn explain(&self, key: &GatewayKey, model: Option<&str>, name: Option<&str>) -> Explanation {
        let conversation = name.map(|name| Conversation(Session::of(key.id, name)));
        let now = millis_from_now(Duration::ZERO);
        let home = conversation.and_then(|conversation| self.sessions().home(conversation.0, now));
        let ask = self.ask(key, home, &[], now);
        let candidates = self.candidates_for(&ask, model);
        let choice = pool::choose(&candidates, &ask);
        let conversation = conversation.as_ref();
        Told { key, model, conversation, ask: &ask, candidates: &candidates, choice: &choice }.explained()
    }

    fn ask<'a>(&self, key: &'a GatewayKey, home: Option<Home>, tried: &'a [AccountId], now: UnixMillis) -> Ask<'a> {
        Ask {
            strategy: self.strategy(key),
            home: home.map(|home| home.account),
            host: home.map(|home| home.served_by),
            tried,
            ..Ask::of(&key.accounts, now)
        }
    }

    /// The conversation was served there: it stays, makes a detour, or has moved.
    pub(super) fn settle(&self, conversation: Option<&Conversation>, aim: &Aim, items: impl Fn() -> u32) {
        let Some(Conversation(session)) = conversation else { return };
        let now = millis_from_now(Duration::ZERO);
        match aim.stay {
            // Only a move needs the number, which costs a look into the body.
            Stay::NoHome | Stay::Home => self.sessions().stay(*session, aim.account(), now),
            Stay::Detour(_) => {
                let items = items();
                if self.sessions().note_detour(*session, aim.account(), items, now) {
                    self.tell_of_moves();
                }
            }
            Stay::Moves(_) | Stay::Gone => {
                let items = items();
                self.sessions().settle(*session, aim.account(), items, now);
                self.tell_of_moves();
            }
        }
    }

    /// Held for a few look-ups, never across an await.
    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of a conversation that lives at `home` the account `chosen` did not make.
fn foreign(home: Option<Home>, chosen: AccountId) -> Foreign {
    match home {
        Some(home) if home.account != chosen || home.served_by != chosen => Foreign::All,
        Some(home) if home.foreign_items > 0 => {
            Foreign::First(usize::try_from(home.foreign_items).unwrap_or(usize::MAX))
        }
        _ => Foreign::None,
    }
}
