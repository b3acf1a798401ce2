//! Every account of this process, in step with the store.
//!
//! The store's revision is polled, so that a change made by another process (the command line, or
//! another replica later) is seen within one interval and cannot be missed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::live::{InFlight, Live};
use super::pool::Candidate;
use super::ports::{Context, StoreFault, Stored};
use super::settings::backoff;
use super::token_manager::TokenManager;
use crate::codex::limits::Limits;
use crate::store::{Account, AccountId, UnixMillis};

type Members = BTreeMap<AccountId, Arc<Member>>;

/// How often a limit that could not be stored is tried again before the next restart may forget it.
const LIMIT_WRITES: u32 = 8;

/// One account: its token manager and its live numbers.
pub struct Member {
    /// Gives credentials, and knows the account's row and standing.
    pub manager: Arc<TokenManager>,
    pub(super) live: Live,
}

/// The directory.
pub struct Accounts {
    members: ArcSwap<Members>,
    /// The revision that `members` shows; of two reloads the one that read earlier must not win.
    applied: Mutex<i64>,
    context: Arc<Context>,
}

impl Accounts {
    /// An empty directory; fill it with [`Accounts::reload`].
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self { members: ArcSwap::default(), applied: Mutex::new(i64::MIN), context })
    }

    /// Every account, by id.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// One account.
    pub fn get(&self, id: AccountId) -> Option<Arc<Member>> {
        self.members.load().get(&id).cloned()
    }

    /// What the pool chooses from.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.members.load().values().map(|member| member.candidate()).collect()
    }

    /// The accounts whose newest credentials are in memory only: not ready while there are any.
    pub fn unpersisted(&self) -> Vec<AccountId> {
        let members = self.members.load();
        let unpersisted = members.values().filter(|member| member.manager.is_unpersisted());
        unpersisted.map(|member| member.manager.id()).collect()
    }

    /// Counts a request on an account until the guard is dropped.
    pub fn begin(&self, id: AccountId) -> Option<InFlight> {
        Some(InFlight::begin(self.get(id)?, self.context.now()))
    }

    /// Puts an account aside because its quota is used up: here at once, in the store by a task.
    pub fn mark_limited(self: &Arc<Self>, id: AccountId, until: UnixMillis, reason: &str) {
        self.set_limit(id, Some(until), Some(reason));
    }

    /// Takes a limited account back.
    pub fn clear_limited(self: &Arc<Self>, id: AccountId) {
        self.set_limit(id, None, None);
    }

    /// Puts an account aside for a short time, in this process only.
    pub fn cool_down(&self, id: AccountId, until: UnixMillis) {
        if let Some(member) = self.get(id) {
            member.live.load().cooling_until = Some(until);
        }
    }

    /// Ends a cool-down.
    pub fn clear_cool_down(&self, id: AccountId) {
        if let Some(member) = self.get(id) {
            member.live.load().cooling_until = None;
        }
    }

    /// Notes how full the fuller of an account's windows is, as the backend reported it.
    pub fn note_usage(&self, id: AccountId, used_percent: f32) {
        if let Some(member) = self.get(id) {
            member.live.load().used_percent = Some(used_percent);
        }
    }

    /// Notes an account's windows as the backend reported them; an empty report says nothing.
    pub fn note_limits(&self, id: AccountId, limits: &Limits) {
        let Some(percent) = limits.used_percent() else { return };
        #[expect(clippy::cast_possible_truncation, reason = "a share needs no sixteen digits")]
        self.note_usage(id, percent as f32);
        if let Some(member) = self.get(id) {
            member.live.load().limits = Some((limits.clone(), self.context.now()));
        }
    }

    fn set_limit(self: &Arc<Self>, id: AccountId, until: Option<UnixMillis>, reason: Option<&str>) {
        let Some(member) = self.get(id) else { return };
        {
            let mut load = member.live.load();
            let unchanged = load.limited_until == until;
            load.limited_until = until;
            load.limit_reason = reason.map(str::to_owned);
            // A burst of equal 429s is one write.
            if unchanged {
                return;
            }
            load.unsaved_limits += 1;
        }
        let accounts = Arc::clone(self);
        self.context.tasks.spawn(async move {
            accounts.store_limit(&member).await;
            member.live.load().unsaved_limits -= 1;
        });
    }

    /// Writes what is known when it writes, so that of two marks the later one is stored last.
    async fn store_limit(&self, member: &Member) {
        let settings = &self.context.settings;
        for attempt in 0..LIMIT_WRITES {
            let load = member.live.load().clone();
            let stored = self.context.store.set_limited(
                member.manager.id(),
                load.limited_until,
                load.limit_reason.as_deref(),
                self.context.now(),
            );
            let Err(fault) = stored.await else { return };
            tracing::warn!(account_id = %member.manager.id(), error = %fault, "the account's limit could not be stored");
            if self.context.shutdown.is_cancelled() {
                return;
            }
            let (base, cap) = (settings.persist_base, settings.persist_cap);
            sleep(backoff(base, cap, attempt, (self.context.random)())).await;
        }
    }

    /// Brings the directory up to the store and returns the revision it then shows. Accounts that
    /// can be read are taken over also when others cannot; the first fault is the error.
    pub async fn reload(&self) -> Result<i64, StoreFault> {
        let store = &self.context.store;
        // The revision first: a change in between then makes the next poll reload once more.
        let revision = store.revision().await?;
        let mut read: Vec<(Account, Option<Stored>)> = Vec::new();
        let mut fault = None;
        for account in store.accounts().await? {
            let held = self.get(account.id).map(|member| member.manager.snapshot().generation());
            if held.is_some_and(|held| held >= account.generation) {
                read.push((account, None));
                continue;
            }
            match store.load(account.id).await {
                Ok(Some(stored)) => read.push((account, Some(stored))),
                Ok(None) => {}
                Err(error) => {
                    fault.get_or_insert(error);
                    read.push((account, None));
                }
            }
        }
        self.apply(revision, read);
        fault.map_or(Ok(revision), Err)
    }

    fn apply(&self, revision: i64, read: Vec<(Account, Option<Stored>)>) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if revision < *applied {
            return;
        }
        *applied = revision;
        let before = self.members.load_full();
        let mut members = Members::new();
        for (row, stored) in read {
            let (id, limit) = (row.id, (row.limited_until, row.limit_reason.clone()));
            let member = match (before.get(&id), stored) {
                (Some(member), Some(stored)) => {
                    member.manager.observe(stored.account, Some(stored.credentials));
                    Arc::clone(member)
                }
                (Some(member), None) => {
                    member.manager.observe(row, None);
                    Arc::clone(member)
                }
                (None, Some(stored)) => Arc::new(Member {
                    manager: TokenManager::new(stored, Arc::clone(&self.context)),
                    live: Live::default(),
                }),
                // Not readable, and never was: the fault is reported by the caller.
                (None, None) => continue,
            };
            member.live.observe(limit.0, limit.1);
            members.insert(id, member);
        }
        for (id, member) in &*before {
            if !members.contains_key(id) {
                member.manager.retire();
            }
        }
        self.members.store(Arc::new(members));
    }

    /// Follows the store until the process stops. A store that cannot be read is logged once, and
    /// what is known stays in use.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut failing) = (None, false);
        loop {
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.catch_up(&mut seen).await {
                Err(fault) if !failing => {
                    failing = true;
                    tracing::error!(error = %fault, "accounts cannot be read from the store; what is known stays in use");
                }
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("accounts can be read from the store again");
                }
                _ => {}
            }
        }
    }

    async fn catch_up(&self, seen: &mut Option<i64>) -> Result<(), StoreFault> {
        let revision = self.context.store.revision().await?;
        if *seen != Some(revision) {
            *seen = Some(self.reload().await?);
        }
        Ok(())
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }
}

impl Member {
    /// The account's windows as last reported, and when that was.
    pub fn limits(&self) -> Option<(Limits, UnixMillis)> {
        self.live.load().limits.clone()
    }

    /// This account for the pool.
    pub fn candidate(&self) -> Candidate {
        let snapshot = self.manager.snapshot();
        let load = self.live.load();
        Candidate {
            id: snapshot.account.id,
            name: snapshot.account.name.clone(),
            state: snapshot.standing.state,
            paused: snapshot.account.paused,
            limited_until: load.limited_until,
            cooling_until: load.cooling_until,
            in_flight: self.live.in_flight(),
            used_percent: load.used_percent,
            last_used: load.last_used,
        }
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
