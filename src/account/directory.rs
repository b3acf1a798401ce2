//! Every account of this process, in step with the store.
//!
//! The store's revision is followed, so that a change made by another process (the command line, or
//! another replica) is seen within a second and cannot be missed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::live::{InFlight, Live, Load};
use super::pool::Candidate;
use super::pool::condition::{Condition, Defaults};
use super::pool::health::Circuit;
use super::pool::quota::Source;
use super::pool::remedy::Consequence;
use super::ports::{Context, StoreFault, Stored};
use super::settings::backoff;
use super::tidings::Face;
use super::token_manager::TokenManager;
use crate::codex::Failure;
use crate::codex::limits::Limits;
use crate::store::{Account, AccountId, AccountScope, Changes, UnixMillis};

type Members = BTreeMap<AccountId, Arc<Member>>;

/// How often a limit that could not be stored is tried again before the next restart may forget it.
const LIMIT_WRITES: u32 = 8;

/// How soon accounts that could not be read are read again.
const AGAIN: Duration = Duration::from_millis(500);

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
    /// How often `members` has changed.
    changes: AtomicU64,
    /// Told when something was learnt that other processes must know at once.
    news: Notify,
    context: Arc<Context>,
}

impl Accounts {
    /// An empty directory; fill it with [`Accounts::reload`].
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        let (members, applied, changes) = (ArcSwap::default(), Mutex::new(i64::MIN), AtomicU64::new(0));
        Arc::new(Self { members, applied, changes, news: Notify::new(), context })
    }

    /// Every account, by id.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// One account.
    pub fn get(&self, id: AccountId) -> Option<Arc<Member>> {
        self.members.load().get(&id).cloned()
    }

    /// Every account as the pool sees it, for a request of this model.
    pub fn candidates(&self, model: Option<&str>) -> Vec<Candidate> {
        self.candidates_of(&AccountScope::All, model)
    }

    /// The accounts of a scope; those outside cost nothing.
    pub fn candidates_of(&self, scope: &AccountScope, model: Option<&str>) -> Vec<Candidate> {
        let (members, now) = (self.members.load(), self.context.now());
        match scope {
            AccountScope::All => members.values().map(|member| member.candidate(model, now)).collect(),
            AccountScope::Only(ids) => {
                ids.iter().filter_map(|id| Some(members.get(id)?.candidate(model, now))).collect()
            }
        }
    }

    /// One account as the pool sees it.
    pub fn candidate(&self, id: AccountId, model: Option<&str>) -> Option<Candidate> {
        Some(self.members.load().get(&id)?.candidate(model, self.context.now()))
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

    /// Notes an account's limits as the backend reported them; `model` is the one whose answer told
    /// them. Usage that shows quota again ends a limit early.
    pub fn note_limits(self: &Arc<Self>, id: AccountId, limits: &Limits, source: Source, model: Option<&str>) {
        let Some(member) = self.get(id) else { return };
        let now = self.context.now();
        let is_back = self.change(&member, now, |load| {
            load.unwritten = true;
            // One process asks for all of them.
            load.is_news |= source == Source::Usage;
            load.condition.learn(limits, source, model, now)
        });
        if source == Source::Usage {
            self.news.notify_one();
        }
        if is_back {
            tracing::info!(account = %member.name(), "the account's quota is back early");
            self.save_limit(member);
        }
    }

    /// Has an account bear the consequence of a failure: here at once, a limit in the store by a task.
    pub fn suffer(
        self: &Arc<Self>,
        id: AccountId,
        consequence: Consequence,
        failure: &Failure,
        model: Option<&str>,
        defaults: Defaults,
    ) {
        let Some(member) = self.get(id) else { return };
        let (now, random) = (self.context.now(), (self.context.random)());
        let is_changed = self.change(&member, now, |load| {
            let before = load.condition.limited_until;
            load.condition.suffer(consequence, failure, model, defaults, now, random);
            load.unwritten = true;
            // What sets an account or a model aside; a failure that is counted is this process's.
            let is_news = !matches!(consequence, Consequence::None | Consequence::Quarantine | Consequence::Counted);
            load.is_news |= is_news;
            if is_news {
                self.news.notify_one();
            }
            // A burst of equal 429s is one write.
            load.condition.limited_until != before
        });
        if is_changed {
            self.save_limit(member);
        }
    }

    /// The account has begun to answer.
    pub fn succeeded(&self, id: AccountId) {
        let Some(member) = self.get(id) else { return };
        let mut load = member.live.load();
        let was_closed = load.condition.circuit(self.context.now()) == Circuit::Closed;
        load.condition.succeeded();
        drop(load);
        if !was_closed {
            self.context.tidings.tell();
        }
    }

    /// Changes what is known of an account, and says so if it is to be told at once.
    fn change<T>(&self, member: &Member, now: UnixMillis, how: impl FnOnce(&mut Load) -> T) -> T {
        let face = |load: &Load| Face::of(member.manager.id(), &load.condition, now);
        let (changed, is_seen) = {
            let mut load = member.live.load();
            let before = face(&load);
            let changed = how(&mut load);
            (changed, before != face(&load))
        };
        if is_seen {
            self.context.tidings.tell();
        }
        changed
    }

    fn save_limit(self: &Arc<Self>, member: Arc<Member>) {
        member.live.load().unsaved_limits += 1;
        let accounts = Arc::clone(self);
        self.context.tasks.spawn(async move {
            accounts.store_limit(&member).await;
            let mut load = member.live.load();
            load.unsaved_limits -= 1;
            load.saved_limits += 1;
        });
    }

    /// Writes what is known when it writes, so that of two marks the later one is stored last.
    async fn store_limit(&self, member: &Member) {
        let settings = &self.context.settings;
        for attempt in 0..LIMIT_WRITES {
            let (until, reason) = {
                let load = member.live.load();
                (load.condition.limited_until, load.condition.limit_reason.clone())
            };
            let stored =
                self.context.store.set_limited(member.manager.id(), until, reason.as_deref(), self.context.now());
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
        let saved: BTreeMap<_, _> =
            self.members().iter().map(|(id, member)| (*id, member.live.load().saved_limits)).collect();
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
        self.apply(revision, read, &saved);
        fault.map_or(Ok(revision), Err)
    }

    fn apply(&self, revision: i64, read: Vec<(Account, Option<Stored>)>, saved: &BTreeMap<AccountId, u64>) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if revision < *applied {
            return;
        }
        *applied = revision;
        let before = self.members.load_full();
        let turns = before.values().map(|member| member.live.load().condition.turns);
        let fewest = turns.min_by(f64::total_cmp).unwrap_or_default();
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
                (None, Some(stored)) => {
                    let manager = TokenManager::new(stored, Arc::clone(&self.context));
                    Arc::new(Member { manager, live: Live::new(fewest) })
                }
                // Not readable, and never was: the fault is reported by the caller.
                (None, None) => continue,
            };
            // A process that begins cannot tell how old a limit is: any reading of its own is newer.
            let learnt_at = if before.contains_key(&id) { self.context.now() } else { UnixMillis::MIN };
            let saved = saved.get(&id).copied().unwrap_or_default();
            member.live.observe(limit.0, limit.1, saved, learnt_at);
            members.insert(id, member);
        }
        for (id, member) in &*before {
            if !members.contains_key(id) {
                member.manager.retire();
            }
        }
        self.members.store(Arc::new(members));
        self.changes.fetch_add(1, Ordering::Release);
        self.context.tidings.tell();
    }

    /// Another number whenever an account was added, removed or changed by somebody.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Another number whenever something of an account has changed that holders of keys are told at once.
    pub fn tidings(&self) -> u64 {
        self.context.tidings.count()
    }

    /// Follows the store until the process stops. A store that cannot be read is logged once, and
    /// what is known stays in use.
    pub async fn watch(self: Arc<Self>, mut changes: Changes) {
        let (mut seen, mut failing) = (None, false);
        loop {
            let newest = changes.latest().map(|revision| revision.accounts);
            let is_behind = newest.is_some() && newest != seen;
            if is_behind {
                match self.reload().await {
                    Err(fault) if !failing => {
                        failing = true;
                        tracing::error!(error = %fault, "accounts cannot be read from the store; what is known stays in use");
                    }
                    Err(_) => {}
                    Ok(revision) => {
                        if failing {
                            tracing::info!("accounts can be read from the store again");
                        }
                        (seen, failing) = (Some(revision), false);
                    }
                }
            }
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = changes.next() => {}
                () = sleep(AGAIN), if is_behind && seen != newest => {}
            }
        }
    }

    /// Waits until something was learnt that others must know at once.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }
}

impl Member {
    /// What operators call it.
    pub fn name(&self) -> String {
        self.manager.snapshot().account.name.clone()
    }

    /// Its limits as they are believed to be, and when they were last read.
    pub fn limits(&self, now: UnixMillis) -> Option<(Limits, UnixMillis)> {
        let load = self.live.load();
        let read_at = load.condition.quota.read_at()?;
        Some((load.condition.quota.limits(now), read_at))
    }

    /// Its plan, as the backend said last.
    pub fn plan(&self) -> Option<String> {
        let told = self.live.load().condition.quota.plan().map(str::to_owned);
        told.or_else(|| self.manager.snapshot().account.plan.clone())
    }

    /// Its condition, as it is.
    pub fn condition(&self) -> Condition {
        self.live.load().condition.clone()
    }

    /// The operator's share for it.
    #[expect(clippy::cast_possible_truncation, reason = "a share needs no sixteen digits")]
    pub(super) fn weight(&self) -> f32 {
        self.manager.snapshot().account.share.weight as f32
    }

    /// This account for the pool, for a request of this model. What others know (its workspace, its
    /// catalogue, the conversations on it) is theirs to add.
    pub fn candidate(&self, model: Option<&str>, now: UnixMillis) -> Candidate {
        let snapshot = self.manager.snapshot();
        let share = &snapshot.account.share;
        let mut candidate = Candidate::new(snapshot.account.id);
        candidate.state = snapshot.standing.state;
        candidate.paused = snapshot.account.paused;
        candidate.priority = share.priority;
        #[expect(clippy::cast_possible_truncation, reason = "a share needs no sixteen digits")]
        {
            candidate.weight = share.weight as f32;
        }
        self.live.load().condition.describe(&mut candidate, model, now);
        candidate
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
