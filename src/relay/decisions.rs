//! Why an account was chosen: to the trace at once, and to the store for a while. Diagnostics, not
//! books: under pressure they are dropped, and counted.

use super::scheduling::Conversation;
use super::{Relay, Ticket};
use crate::account::pool::{Ask, Candidate, Choice, Reason, Stay};
use crate::store::{AccountId, Decision, Duty, GatewayKey, Store, UnixMillis};
use crate::telemetry::metrics;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Decisions that wait to be written.
const WAITING: usize = 4096;
/// Decisions written in one transaction.
const AT_ONCE: usize = 1024;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Accounts told of in one decision: the first ones, and as many that were excluded …
const TOLD: usize = 10;
/// … but of those that could have served where the conversation stays at home, for which it was compared with
/// none: nearly always nobody has even looked at them.
const TOLD_AT_HOME: usize = 1;
/// How often old ones are forgotten.
const SWEEP: Duration = Duration::from_mins(10);

/// What a choice was made of.
pub(super) struct Account<'a> {
    pub key: &'a GatewayKey,
    pub model: Option<&'a str>,
    pub conversation: Option<&'a Conversation>,
    pub ask: &'a Ask<'a>,
    pub candidates: &'a [Candidate],
    pub choice: &'a Choice,
}

/// A decision, as it is kept and shown.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The model that was asked for.
    pub model: Option<String>,
    /// The pool of the key, if it is bound to one.
    pub pool: Option<String>,
    /// How accounts were ordered.
    pub strategy: &'static str,
    /// The conversation, as a digest.
    pub session: Option<String>,
    /// What became of the conversation's home: `none`, `hit`, `detour`, `moved`.
    pub affinity: &'static str,
    /// Why the conversation is not at home, where it is not.
    pub affinity_reason: Option<&'static str>,
    /// The account that was chosen.
    pub chosen: Option<AccountId>,
    /// Accounts that could serve, the best first; of a kept decision by which a conversation stays, that one.
    pub candidates: Vec<Scored>,
    /// Accounts that could not.
    pub excluded: Vec<Excluded>,
    /// How many there were of each among those that were looked at, where not all are named: one and none where a
    /// conversation stays, as a rule.
    pub counts: (usize, usize),
    /// Accounts that were tried for the request before.
    pub tried: usize,
}

/// An account that could serve.
#[derive(Debug, Serialize)]
pub struct Scored {
    /// Its id.
    pub account: AccountId,
    /// By what it was ordered; more is better.
    pub score: f64,
    /// Requests under way on it.
    pub in_flight: u32,
    /// Conversations living on it.
    pub sessions: u32,
    /// Of each of its windows: the share used, and when it resets (Unix milliseconds).
    pub windows: Vec<(f64, UnixMillis)>,
}

/// An account that could not.
#[derive(Debug, Serialize)]
pub struct Excluded {
    /// Its id.
    pub account: AccountId,
    /// Why.
    pub reason: &'static str,
    /// Until when, if time alone ends it (Unix milliseconds).
    pub until: Option<UnixMillis>,
}

impl Account<'_> {
    /// In words and numbers, as much as is worth keeping.
    fn told(&self) -> Explanation {
        self.explain(if self.choice.stay == Stay::Home { TOLD_AT_HOME } else { TOLD })
    }

    /// In words and numbers.
    pub(super) fn explained(&self) -> Explanation {
        self.explain(TOLD)
    }

    fn explain(&self, most: usize) -> Explanation {
        let Choice { ordered, excluded, stay, .. } = self.choice;
        let scored = |ranked: &crate::account::pool::Ranked| {
            let candidate = self.candidates.iter().find(|candidate| candidate.id == ranked.id)?;
            let windows = candidate.windows.iter().flatten();
            Some(Scored {
                account: ranked.id,
                score: ranked.score,
                in_flight: candidate.in_flight,
                sessions: candidate.sessions,
                windows: windows.map(|window| (window.used_at(self.ask.now), window.resets_at)).collect(),
            })
        };
        // Whose accounts those are is nobody's question.
        let in_scope = excluded.iter().filter(|(_, reason)| *reason != Reason::OutOfScope);
        let named = in_scope.clone().take(TOLD).map(|(id, reason)| Excluded {
            account: *id,
            reason: reason.as_str(),
            until: reason.until(),
        });
        Explanation {
            model: self.model.map(str::to_owned),
            pool: self.key.pool.as_ref().map(|pool| pool.name.clone()),
            strategy: self.ask.strategy.as_str(),
            session: self.conversation.map(|conversation| conversation.0.to_text()),
            affinity: stay.as_str(),
            affinity_reason: match stay {
                Stay::Detour(reason) | Stay::Moves(reason) => Some(reason.as_str()),
                Stay::Gone => Some("removed"),
                Stay::NoHome | Stay::Home => None,
            },
            chosen: self.choice.first(),
            candidates: ordered.iter().take(most).filter_map(scored).collect(),
            excluded: named.collect(),
            counts: (ordered.len(), in_scope.count()),
            tried: self.ask.tried.len(),
        }
    }
}

/// Takes decisions to the store.
pub(super) struct Recorder {
    sender: mpsc::Sender<Decision>,
    receiver: std::sync::Mutex<Option<mpsc::Receiver<Decision>>>,
    /// How long they are kept; not at all, if this is zero.
    retention: Duration,
}

impl Recorder {
    pub(super) fn new(retention: Duration) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver: std::sync::Mutex::new(Some(receiver)), retention }
    }
}

impl Relay {
    /// Tells the trace and the recorder of a choice.
    pub(super) fn tell(&self, account: &Account<'_>, ticket: &Ticket) {
        let keeps = !self.recorder.retention.is_zero();
        let room = || self.recorder.sender.try_reserve().inspect_err(|_| metrics::decision_dropped()).ok();
        let permit = keeps.then(room).flatten();
        // What nobody will read is not written down.
        if permit.is_none() && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let Ok(content) = serde_json::to_string(&account.told()) else { return };
        let choice = account.choice;
        tracing::debug!(
            parent: &ticket.span,
            account_id = choice.first().map(|id| id.to_string()),
            affinity = choice.stay.as_str(),
            candidates = choice.ordered.len(),
            decision = content,
            "account choice"
        );
        if let Some(permit) = permit {
            let (request_id, at) = (ticket.request_id.clone(), account.ask.now);
            permit.send(Decision { request_id, key: account.key.id, at, content });
        }
    }

    /// Writes decisions until `stop`, and what is there then; forgets old ones.
    pub async fn write_decisions(
        self: Arc<Self>,
        store: Store,
        duty: Duty,
        now: fn() -> UnixMillis,
        stop: CancellationToken,
    ) {
        let taken = self.recorder.receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(mut receiver) = taken else { return };
        let mut sweep = tokio::time::interval(SWEEP);
        let mut batch = Vec::with_capacity(AT_ONCE);
        loop {
            let is_last = tokio::select! {
                biased;
                count = receiver.recv_many(&mut batch, AT_ONCE) => {
                    if batch.len() < AT_ONCE && !stop.is_cancelled() {
                        tokio::select! {
                            () = tokio::time::sleep(GATHER) => {}
                            () = stop.cancelled() => {}
                        }
                        while batch.len() < AT_ONCE && let Ok(more) = receiver.try_recv() {
                            batch.push(more);
                        }
                    }
                    count == 0
                }
                _ = sweep.tick() => {
                    if duty.is_ours() {
                        self.forget_decisions(&store, now()).await;
                    }
                    false
                }
                () = stop.cancelled() => true,
            };
            if !batch.is_empty()
                && let Err(error) = store.decisions().record(&batch).await
            {
                tracing::warn!(%error, lost = batch.len(), "decisions of the pool were not written");
            }
            batch.clear();
            if is_last {
                return;
            }
        }
    }

    async fn forget_decisions(&self, store: &Store, now: UnixMillis) {
        let kept = i64::try_from(self.recorder.retention.as_millis()).unwrap_or(i64::MAX);
        if let Err(error) = store.decisions().forget(now.saturating_sub(kept)).await {
            tracing::warn!(%error, "old decisions of the pool were not forgotten");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::pool;
    use crate::store::Limits;

    #[test]
    fn what_is_kept_of_a_look_at_the_home_alone_is_that_it_was_chosen_and_compared_with_none() {
        let key = crate::tenant::testing::key(Limits::default(), None, None);
        let candidates = [Candidate::new(AccountId::new())];
        let ask = Ask { home: Some(candidates[0].id), ..Ask::of(&key.accounts, 0) };
        let choice = pool::at_home(&candidates[0], &ask).expect("it serves");
        let (model, conversation) = (Some("gpt-x"), None);
        let account = Account { key: &key, model, conversation, ask: &ask, candidates: &candidates, choice: &choice };
        let kept = account.told();
        assert_eq!((kept.chosen, kept.affinity, kept.counts), (Some(candidates[0].id), "hit", (1, 0)));
        assert_eq!(kept.candidates.first().map(|one| one.account), kept.chosen);
    }

    #[test]
    fn what_is_kept_of_a_conversation_that_stays_is_where_and_how_many_there_were() {
        let key = crate::tenant::testing::key(Limits::default(), None, None);
        let candidates: Vec<_> = (0..3).map(|_| Candidate::new(AccountId::new())).collect();
        for (home, named) in [(None, 3), (Some(candidates[2].id), 1)] {
            let ask = Ask { home, host: home, ..Ask::of(&key.accounts, 0) };
            let choice = pool::choose(&candidates, &ask);
            let account = Account {
                key: &key,
                model: None,
                conversation: None,
                ask: &ask,
                candidates: &candidates,
                choice: &choice,
            };
            let kept = account.told();
            assert_eq!((kept.candidates.len(), kept.counts), (named, (3, 0)));
            assert_eq!(kept.candidates.first().map(|one| one.account), kept.chosen);
            assert!(home.is_none_or(|home| kept.chosen == Some(home)));
            assert_eq!(account.explained().candidates.len(), 3, "a dry run compares");
        }
    }
}
