//! An issuer that rotates and punishes reuse, a store with faults on command, and a bench that
//! holds both, for this room's unit tests. Time is tokio's paused clock.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ports::{Context, CredentialStore, Observer, RefreshEvent, RefreshOutcome, StoreFault, Stored, TokenIssuer};
use super::settings::TokenSettings;
use super::tidings::Tidings;
use super::token_manager::TokenManager;
use crate::oauth::{RefreshError, RefreshReason, Timely, TokenSet};
use crate::store::{
    Account, AccountId, AccountShare, AccountState, Credentials, Exchange, Holding, Lease, NewCredentials, Saved,
    Trace, Turn, UnixMillis,
};

/// When every test begins.
pub(crate) const START: UnixMillis = 1_000_000_000;
pub(crate) const HOUR: i64 = 3_600_000;

/// What the issuer does with the next exchange, instead of the usual.
pub(crate) enum Script {
    Fail(RefreshError),
    /// Rotates, and the answer is lost on the way.
    LoseAnswer,
}

pub(crate) struct FakeIssuer {
    spent: Mutex<HashSet<String>>,
    pub(crate) script: Mutex<VecDeque<Script>>,
    pub(crate) calls: AtomicU32,
    /// A token leaves while there is a permit: a connection that is made, a process that runs.
    pub(crate) wire: Semaphore,
    /// An exchange passes while there is a permit.
    gate: Semaphore,
    /// Released once for each exchange that has begun.
    pub(crate) begun: Semaphore,
    pub(crate) life_ms: Mutex<i64>,
    reasons: Mutex<Vec<RefreshReason>>,
}

impl FakeIssuer {
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Exchanges that were asked for, whether or not a token left.
    pub(crate) fn asked(&self) -> usize {
        self.reasons.lock().unwrap().len()
    }

    pub(crate) fn last_reason(&self) -> Option<RefreshReason> {
        self.reasons.lock().unwrap().last().copied()
    }

    /// Makes every exchange wait once it has begun.
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets them go on.
    pub(crate) fn release(&self) {
        self.gate.add_permits(1_000);
    }

    /// Whether this refresh token would still be accepted.
    pub(crate) fn knows(&self, token: &SecretString) -> bool {
        !self.spent.lock().unwrap().contains(token.expose_secret())
    }

    /// What another holder of the token does.
    pub(crate) fn spend(&self, token: &SecretString) {
        self.spent.lock().unwrap().insert(token.expose_secret().to_owned());
    }

    async fn exchange(&self, token: &SecretString, timely: Timely) -> Result<TokenSet, RefreshError> {
        self.wire.acquire().await.unwrap().forget();
        self.wire.add_permits(1);
        if !timely() {
            return Err(RefreshError::Withheld);
        }
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.begun.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.gate.add_permits(1);
        let script = self.script.lock().unwrap().pop_front();
        if let Some(Script::Fail(error)) = script {
            return Err(error);
        }
        if !self.spent.lock().unwrap().insert(token.expose_secret().to_owned()) {
            return Err(permanent("refresh_token_reused"));
        }
        if script.is_some() {
            return Err(transient(true));
        }
        let life = u64::try_from(*self.life_ms.lock().unwrap()).unwrap();
        Ok(TokenSet {
            access_token: Some(format!("at-{call}").into()),
            refresh_token: Some(format!("rt-{call}").into()),
            id_token: None,
            expires_in: Some(Duration::from_millis(life)),
        })
    }
}

impl TokenIssuer for FakeIssuer {
    fn refresh<'a>(
        &'a self,
        token: &'a SecretString,
        reason: RefreshReason,
        timely: Timely,
    ) -> BoxFuture<'a, Result<TokenSet, RefreshError>> {
        self.reasons.lock().unwrap().push(reason);
        Box::pin(self.exchange(token, timely))
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(30)
    }
}

pub(crate) fn permanent(code: &str) -> RefreshError {
    RefreshError::Permanent { code: code.into(), status: 400, message: None }
}

pub(crate) fn transient(ambiguous: bool) -> RefreshError {
    RefreshError::Transient { code: None, detail: "the issuer is busy".into(), retry_after: None, ambiguous }
}

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) rows: BTreeMap<AccountId, (Account, Credentials)>,
    pub(crate) revision: i64,
    /// So many writes of credentials fail from now on.
    pub(crate) failing_writes: u32,
    /// The next write succeeds and says that it has failed.
    pub(crate) lying_write: bool,
    /// Each account's lease, and when it ends.
    pub(crate) leases: BTreeMap<AccountId, (Lease, Instant)>,
    /// Notes of exchanges, and when they were written.
    pub(crate) exchanges: BTreeMap<AccountId, (Exchange, Instant)>,
}

#[derive(Default)]
pub(crate) struct FakeStore {
    shelf: Mutex<Shelf>,
    pub(crate) unreadable: AtomicBool,
}

impl FakeStore {
    pub(crate) fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    pub(crate) fn row(&self, id: AccountId) -> Account {
        self.shelf().rows[&id].0.clone()
    }

    pub(crate) fn credentials(&self, id: AccountId) -> Credentials {
        self.shelf().rows[&id].1.clone()
    }

    /// What a login, or the command line in another process, does.
    pub(crate) fn log_in(&self, id: AccountId, refresh_token: &str, life_ms: i64) {
        let mut held = self.shelf();
        held.revision += 1;
        let (account, credentials) = held.rows.get_mut(&id).unwrap();
        account.generation += 1;
        account.state = AccountState::Active;
        account.state_reason = None;
        credentials.generation = account.generation;
        credentials.access_token = format!("at-{refresh_token}").into();
        credentials.refresh_token = refresh_token.into();
        credentials.access_expires_at = Some(START + life_ms);
    }

    /// Takes an account's lease as another process would.
    pub(crate) fn take_lease(&self, id: AccountId, holder: &str, ttl: Duration) -> Option<Lease> {
        let mut held = self.shelf();
        let (fence, free) = match held.leases.get(&id) {
            Some((lease, ends)) => (lease.fence + 1, *ends <= Instant::now()),
            None => (1, true),
        };
        let lease = Lease { name: id.to_string(), holder: holder.to_owned(), fence, expires_at: 0 };
        free.then(|| held.leases.insert(id, (lease.clone(), Instant::now() + ttl)))?;
        Some(lease)
    }

    /// Renews it.
    fn renew_lease(&self, lease: &Lease, ttl: Duration) -> bool {
        let mut held = self.shelf();
        let now = Instant::now();
        let row = held.leases.values_mut().find(|(row, ends)| row == lease && *ends > now);
        row.map(|(_, ends)| *ends = now + ttl).is_some()
    }

    /// Notes an exchange as its holder would.
    pub(crate) fn begin_exchange(&self, id: AccountId, lease: &Lease, generation: i64, ttl: Duration) -> bool {
        if !self.renew_lease(lease, ttl) || self.row(id).generation != generation {
            return false;
        }
        let (fence, holder) = (lease.fence, lease.holder.clone());
        let exchange = Exchange { generation, fence, holder, age: Duration::ZERO, lost: false };
        self.shelf().exchanges.insert(id, (exchange, Instant::now()));
        true
    }

    fn end_exchange(&self, id: AccountId, lease: &Lease, trace: Trace) {
        let mut held = self.shelf();
        if let Some((row, ends)) = held.leases.get_mut(&id)
            && row == lease
        {
            *ends = Instant::now();
        }
        match (trace, held.exchanges.get_mut(&id)) {
            (Trace::Goes, Some((exchange, _))) if exchange.fence == lease.fence => {
                held.exchanges.remove(&id);
            }
            (Trace::Lost, Some((exchange, _))) if exchange.fence == lease.fence => exchange.lost = true,
            _ => {}
        }
    }

    fn turn_of(&self, id: AccountId) -> Option<Turn> {
        let held = self.shelf();
        let generation = held.rows.get(&id)?.0.generation;
        let lease = held.leases.get(&id).map(|(lease, ends)| Holding {
            holder: lease.holder.clone(),
            fence: lease.fence,
            left: ends.saturating_duration_since(Instant::now()),
        });
        let exchange = held.exchanges.get(&id);
        let exchange = exchange.map(|(exchange, at)| Exchange { age: at.elapsed(), ..exchange.clone() });
        Some(Turn { generation, lease, exchange })
    }

    /// A store that cannot be reached fails every call.
    fn reach<T>(&self, answer: impl FnOnce() -> T) -> Result<T, StoreFault> {
        if self.unreadable.load(Ordering::SeqCst) { Err(StoreFault("disk gone".into())) } else { Ok(answer()) }
    }

    fn change<T>(&self, id: AccountId, change: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let mut held = self.shelf();
        held.revision += 1;
        held.rows.get_mut(&id).map(|(account, _)| change(account))
    }

    fn save(&self, id: AccountId, expected: i64, new: &NewCredentials, now: i64) -> Result<Saved, StoreFault> {
        let mut held = self.shelf();
        if held.failing_writes > 0 {
            held.failing_writes -= 1;
            return Err(StoreFault("disk full".into()));
        }
        let lying = std::mem::take(&mut held.lying_write);
        let Some((account, credentials)) = held.rows.get_mut(&id) else {
            return Ok(Saved::Gone);
        };
        if account.generation != expected {
            return Ok(Saved::Stale);
        }
        account.generation += 1;
        if account.state == AccountState::NeedsLogin {
            account.state = AccountState::Active;
            (account.state_reason, account.state_detail) = (None, None);
        }
        *credentials = Credentials {
            access_token: new.access_token.clone(),
            refresh_token: new.refresh_token.clone(),
            id_token: new.id_token.clone(),
            access_expires_at: new.access_expires_at,
            last_refresh_at: now,
            generation: account.generation,
        };
        let generation = account.generation;
        held.revision += 1;
        if lying { Err(StoreFault("lost the answer".into())) } else { Ok(Saved::Stored { generation }) }
    }
}

impl CredentialStore for FakeStore {
    fn revision(&self) -> BoxFuture<'_, Result<i64, StoreFault>> {
        Box::pin(async { Ok(self.shelf().revision) })
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Vec<Account>, StoreFault>> {
        Box::pin(async { Ok(self.shelf().rows.values().map(|row| row.0.clone()).collect()) })
    }

    fn load(&self, id: AccountId) -> BoxFuture<'_, Result<Option<Stored>, StoreFault>> {
        Box::pin(async move {
            let row = self.reach(|| self.shelf().rows.get(&id).cloned())?;
            Ok(row.map(|(account, credentials)| Stored { account, credentials }))
        })
    }

    fn turn(&self, id: AccountId) -> BoxFuture<'_, Result<Option<Turn>, StoreFault>> {
        Box::pin(async move { self.reach(|| self.turn_of(id)) })
    }

    fn take<'a>(
        &'a self,
        id: AccountId,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreFault>> {
        Box::pin(async move { self.reach(|| self.take_lease(id, holder, ttl)) })
    }

    fn note<'a>(
        &'a self,
        id: AccountId,
        lease: &'a Lease,
        generation: i64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreFault>> {
        Box::pin(async move { self.reach(|| self.begin_exchange(id, lease, generation, ttl)) })
    }

    fn renew<'a>(&'a self, lease: &'a Lease, ttl: Duration) -> BoxFuture<'a, Result<bool, StoreFault>> {
        Box::pin(async move { self.reach(|| self.renew_lease(lease, ttl)) })
    }

    fn release<'a>(&'a self, id: AccountId, lease: &'a Lease, trace: Trace) -> BoxFuture<'a, Result<(), StoreFault>> {
        Box::pin(async move { self.reach(|| self.end_exchange(id, lease, trace)) })
    }

    fn save_refreshed<'a>(
        &'a self,
        id: AccountId,
        expected: i64,
        new: &'a NewCredentials,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<Saved, StoreFault>> {
        Box::pin(async move { self.save(id, expected, new, now) })
    }

    fn set_state<'a>(
        &'a self,
        id: AccountId,
        expected: i64,
        state: AccountState,
        reason: Option<&'a str>,
        detail: Option<&'a str>,
        now: UnixMillis,
    ) -> BoxFuture<'a, Result<bool, StoreFault>> {
        Box::pin(async move {
            let changed = self.change(id, |account| {
                let current = account.generation == expected;
                if current {
                    account.state = state;
                    account.state_reason = reason.map(str::to_owned);
                    account.state_detail = detail.map(str::to_owned);
                    account.state_since = now;
                }
                current
            });
            Ok(changed.unwrap_or_default())
        })
    }

    fn set_limited<'a>(
        &'a self,
        id: AccountId,
        until: Option<UnixMillis>,
        reason: Option<&'a str>,
        _now: UnixMillis,
    ) -> BoxFuture<'a, Result<(), StoreFault>> {
        Box::pin(async move {
            self.change(id, |account| {
                account.limited_until = until;
                account.limit_reason = reason.map(str::to_owned);
            });
            Ok(())
        })
    }
}

#[derive(Default)]
pub(crate) struct Tally(Mutex<Vec<RefreshOutcome>>);

impl Observer for Tally {
    fn refresh(&self, event: &RefreshEvent<'_>) {
        self.0.lock().unwrap().push(event.outcome);
    }
}

/// Everything a manager needs, and the handles to disturb it.
pub(crate) struct Bench {
    pub(crate) issuer: Arc<FakeIssuer>,
    pub(crate) store: Arc<FakeStore>,
    tally: Arc<Tally>,
    pub(crate) context: Arc<Context>,
}

impl Bench {
    /// Jitter is the whole bound, so that times are known.
    pub(crate) fn new() -> Self {
        let issuer = Arc::new(FakeIssuer {
            spent: Mutex::default(),
            script: Mutex::default(),
            calls: AtomicU32::new(0),
            wire: Semaphore::new(1_000),
            gate: Semaphore::new(1_000),
            begun: Semaphore::new(0),
            life_ms: Mutex::new(HOUR),
            reasons: Mutex::default(),
        });
        let (store, tally) = (Arc::new(FakeStore::default()), Arc::new(Tally::default()));
        let begin = Instant::now();
        let context = Arc::new(Context {
            issuer: Arc::clone(&issuer) as Arc<dyn TokenIssuer>,
            store: Arc::clone(&store) as Arc<dyn CredentialStore>,
            observer: Arc::clone(&tally) as Arc<dyn Observer>,
            clock: Arc::new(move || START + i64::try_from(begin.elapsed().as_millis()).unwrap()),
            random: Arc::new(|| 1.0),
            holder: "test".into(),
            settings: TokenSettings::default(),
            tidings: Tidings::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        Self { issuer, store, tally, context }
    }

    /// Adds an account whose access token lives so long from the start.
    pub(crate) fn add(&self, name: &str, life_ms: i64) -> AccountId {
        let id = AccountId::new();
        let account = account(id, name);
        let credentials = Credentials {
            access_token: "at-0".into(),
            refresh_token: format!("rt-{name}").into(),
            id_token: None,
            access_expires_at: Some(START + life_ms),
            last_refresh_at: START - HOUR,
            generation: 1,
        };
        let mut held = self.store.shelf();
        held.revision += 1;
        held.rows.insert(id, (account, credentials));
        id
    }

    /// A process's manager of an account, with what is stored now.
    pub(crate) fn manager_of(&self, id: AccountId) -> Arc<TokenManager> {
        let (account, credentials) = self.store.shelf().rows[&id].clone();
        TokenManager::new(Stored { account, credentials }, Arc::clone(&self.context))
    }

    pub(crate) fn manager(&self, life_ms: i64) -> Arc<TokenManager> {
        let id = self.add("ada", life_ms);
        self.manager_of(id)
    }

    /// Takes the risk of sending a token again whose sender did not come back.
    pub(crate) fn resend_after_crash(&mut self) {
        let context = Arc::get_mut(&mut self.context).expect("no manager yet");
        context.settings.resend_after_crash = true;
    }

    pub(crate) fn script(&self, script: Script) {
        self.issuer.script.lock().unwrap().push_back(script);
    }

    pub(crate) fn outcomes(&self) -> Vec<RefreshOutcome> {
        self.tally.0.lock().unwrap().clone()
    }

    /// Lets every task come to its end.
    pub(crate) async fn settle(&self) {
        self.context.tasks.close();
        self.context.tasks.wait().await;
        self.context.tasks.reopen();
    }
}

fn account(id: AccountId, name: &str) -> Account {
    Account {
        id,
        name: name.into(),
        email: None,
        chatgpt_user_id: None,
        chatgpt_account_id: "acc".into(),
        plan: None,
        fedramp: false,
        state: AccountState::Active,
        state_reason: None,
        state_detail: None,
        state_since: START,
        paused: false,
        share: AccountShare::default(),
        limited_until: None,
        limit_reason: None,
        access_expires_at: None,
        last_refresh_at: START - HOUR,
        generation: 1,
        created_at: START,
        updated_at: START,
        version: 1,
    }
}
