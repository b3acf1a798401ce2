//! The simulator's memory: accounts, tokens, logins under way, settings.
//!
//! One mutex over the world, held for a few lines at a time and never across an await. Knows
//! nothing of HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::account::{Account, Traits};
use crate::device::Devices;
use crate::faults::Faults;
use crate::grants::Grants;
use crate::jwt::{self, Mark};
use crate::traffic::Traffic;

/// The only client the issuer knows (protocol.md 1.1).
pub(crate) const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// What can be changed while it runs, through `POST /sim/settings`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Settings {
    /// Life of new access tokens, in seconds.
    pub(crate) access_life_s: i64,
    /// Pause before each delta, in milliseconds.
    pub(crate) delta_delay_ms: u64,
    /// Send `codex.rate_limits` events, and let accounts run into their limits by use.
    pub(crate) rate_limits: bool,
    /// Whether the reuse of a refresh token ends its whole family.
    pub(crate) revoke_family_on_reuse: bool,
    /// What one answer adds to the primary window, in percent.
    pub(crate) percent_per_response: f64,
    /// The `interval` of device logins, in seconds.
    pub(crate) device_interval_s: u64,
    /// Device logins approve themselves at this poll; never when null.
    pub(crate) device_approve_after: Option<u32>,
    /// Whether the older compaction call is there.
    pub(crate) compact_v1: bool,
    /// Whether the WebSocket transport is there; 426 where it is not.
    pub(crate) websocket: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            access_life_s: 864_000,
            delta_delay_ms: 0,
            rate_limits: false,
            revoke_family_on_reuse: true,
            percent_per_response: 0.01,
            device_interval_s: 1,
            device_approve_after: None,
            compact_v1: false,
            websocket: true,
        }
    }
}

/// How the next visit of `/oauth/authorize` ends.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Login {
    /// Who logs in; a new account when none is named.
    pub(crate) account: Option<String>,
    /// The user says no.
    pub(crate) deny: bool,
    /// The redirect carries another state.
    pub(crate) wrong_state: bool,
    /// The code has expired before it arrives.
    pub(crate) expired_code: bool,
}

/// Everything that changes together.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// By [`Account::id`].
    pub(crate) accounts: BTreeMap<String, Account>,
    /// All tokens.
    pub(crate) grants: Grants,
    /// Scripted browser logins, first come first served.
    pub(crate) logins: VecDeque<Login>,
    /// Device logins under way.
    pub(crate) devices: Devices,
    /// Accounts made so far.
    made: u64,
}

/// The three tokens of a login or refresh.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) identity: String,
    /// Seconds the access token lives.
    pub(crate) expires_in: i64,
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Sim {
    world: Mutex<World>,
    settings: Mutex<Settings>,
    /// As they were at the start, for `POST /sim/reset`.
    initial: Settings,
    /// Faults to come.
    pub(crate) faults: Faults,
    /// Requests seen.
    pub(crate) traffic: Traffic,
    /// The address tokens and links name.
    pub(crate) issuer: String,
    seed: u64,
    next: AtomicU64,
}

/// Unix seconds now.
pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// Locks, also after a panic elsewhere: counters may then be off by one, nothing worse.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// An empty simulator whose ids follow from `seed`.
    pub(crate) fn new(issuer: String, settings: Settings, seed: u64) -> Self {
        Self {
            world: Mutex::default(),
            settings: Mutex::new(settings.clone()),
            initial: settings,
            faults: Faults::default(),
            traffic: Traffic::default(),
            issuer,
            seed,
            next: AtomicU64::new(0),
        }
    }

    /// The world, locked.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Replaces the settings.
    pub(crate) fn configure(&self, settings: Settings) {
        *lock(&self.settings) = settings;
    }

    /// Forgets everything but the seed's position.
    pub(crate) fn reset(&self) {
        self.faults.clear();
        self.traffic.clear();
        self.configure(self.initial.clone());
        *self.world() = World::default();
    }

    /// A fresh source of randomness, determined by the seed and how many came before.
    pub(crate) fn random(&self) -> fastrand::Rng {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        // Spread neighbouring numbers, so that neighbouring seeds do not repeat each other.
        fastrand::Rng::with_seed(
            self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(turn.wrapping_mul(0xD1B5_4A32_D192_ED03)),
        )
    }

    /// `prefix` and `length` letters and digits.
    pub(crate) fn token(&self, prefix: &str, length: usize) -> String {
        let mut random = self.random();
        let tail: String = (0..length).map(|_| random.alphanumeric()).collect();
        format!("{prefix}{tail}")
    }

    /// Makes an account and its first tokens. Refused when it exists already.
    pub(crate) fn create(&self, traits: &Traits) -> Result<(String, Tokens), String> {
        let mut world = self.world();
        let id = world.enrol(traits)?;
        let mut tokens = self.mint(&world, &id)?;
        if traits.expired == Some(true) {
            let account = &world.accounts[&id];
            tokens.access = self.access_token(account, now() - 86_400, now() - 60);
            tokens.expires_in = -60;
        }
        world.admit(&id, &tokens);
        Ok((id, tokens))
    }

    /// New tokens for an account; the caller decides what becomes of them.
    pub(crate) fn mint(&self, world: &World, id: &str) -> Result<Tokens, String> {
        let account = world.accounts.get(id).ok_or_else(|| format!("no account {id}"))?;
        let expires_in = account.access_life_s.unwrap_or(self.settings().access_life_s);
        let issued_at = now();
        let mark = self.mark(issued_at, issued_at + 3_600);
        Ok(Tokens {
            access: self.access_token(account, issued_at, issued_at + expires_in),
            refresh: self.token("rt_sim_", 48),
            identity: jwt::identity(account.subject(), &mark, CLIENT_ID),
            expires_in,
        })
    }

    fn access_token(&self, account: &Account, issued_at: i64, expires_at: i64) -> String {
        jwt::access(account.subject(), &self.mark(issued_at, expires_at), CLIENT_ID)
    }

    fn mark(&self, issued_at: i64, expires_at: i64) -> Mark {
        Mark { issued_at, expires_at, id: self.token("", 22), issuer: self.issuer.clone() }
    }
}

impl World {
    /// Adds an account without tokens; gives its id.
    pub(crate) fn enrol(&mut self, traits: &Traits) -> Result<String, String> {
        self.made += 1;
        let mut account = Account::new(traits, self.made, now());
        let twin = |other: &Account| {
            other.chatgpt_account_id == account.chatgpt_account_id && other.user_id == account.user_id
        };
        if self.accounts.values().any(twin) {
            return Err(format!("account {} of {} exists already", account.chatgpt_account_id, account.user_id));
        }
        if self.accounts.contains_key(&account.id) {
            account.id = format!("{}~{}", account.chatgpt_account_id, account.user_id);
        }
        let id = account.id.clone();
        self.accounts.insert(id.clone(), account);
        Ok(id)
    }

    /// Lets the tokens of a new login in.
    pub(crate) fn admit(&mut self, id: &str, tokens: &Tokens) {
        self.grants.login(id, tokens.refresh.clone());
        self.grants.admit(id, tokens.access.clone(), now() + tokens.expires_in);
    }
}

impl Tokens {
    /// The token endpoint's answer (protocol.md 1.3).
    pub(crate) fn answer(&self) -> Value {
        json!({
            "id_token": self.identity, "access_token": self.access, "refresh_token": self.refresh,
            "token_type": "Bearer", "expires_in": self.expires_in, "scope": "openid profile email offline_access",
        })
    }

    /// The Codex CLI's `auth.json` (protocol.md 1.9).
    pub(crate) fn auth_json(&self, chatgpt_account_id: &str) -> Value {
        let last_refresh = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        json!({
            "auth_mode": "chatgpt", "OPENAI_API_KEY": null,
            "tokens": {"id_token": self.identity, "access_token": self.access, "refresh_token": self.refresh, "account_id": chatgpt_account_id},
            "last_refresh": last_refresh,
        })
    }
}
