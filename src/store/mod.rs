//! The store: accounts with their sealed credentials, teams, users, gateway keys, what they used, kept
//! responses and conversations, message batches, and the installation's own secrets, in SQLite or Postgres.
//!
//! One file an aggregate; `vault` seals what is secret. The store keeps and finds plain values. It
//! must not know what they are for: no refreshing, no choosing of accounts, no checking of keys, no
//! clock. Times are Unix milliseconds and come from the caller.
//!
//! Opening goes in this order, so that a wrong key changes nothing:
//!
//! ```text
//! Store::key_ids_in_use(url)        reads only
//! Keyring::parse(text)              or KeyFile::at(path).load_or_create(&in_use)
//! Store::open(OpenOptions { .. })   refuses when a key is missing, before anything is written
//! store.migrate()
//! ```

mod accounts;
mod admin_keys;
mod aliases;
mod audit;
mod backend;
mod batches;
mod changes;
mod conditions;
mod conversations;
mod decisions;
mod error;
mod exchanges;
mod files;
mod find;
mod id;
mod inspect;
mod keys;
mod leadership;
mod leases;
mod ledger;
mod limits;
mod listener;
mod migrate;
pub mod moving;
mod pools;
mod responses;
mod rotation;
mod scope;
mod secrets;
mod server;
mod sessions;
mod slices;
mod slips;
mod tenants;
pub mod vault;
mod webhooks;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use accounts::{
    Account, AccountChange, AccountShare, AccountState, AccountStore, Credentials, NewAccount, NewCredentials, Saved,
    UnknownState, Upserted,
};
pub use admin_keys::{AdminKey, AdminKeyStore, NewAdminKey, Role, UnknownRole};
pub use aliases::{Alias, AliasDraft, AliasStore};
pub use audit::{Actor, AuditFilter, AuditRow};
pub use batches::{BatchCounts, BatchOutcome, BatchStore, ClaimedRequest, Deletion, NewBatch, PageSide, StoredBatch};
pub use changes::{Changes, Following, Teller};
pub use conditions::{AccountEvent, ConditionStore};
pub use conversations::{ConversationStore, KeptConversation, NewItem};
pub use decisions::{Decision, DecisionFilter, DecisionStore};
pub use error::{Result, StoreError, failures};
pub use exchanges::{Exchange, ExchangeStore, Trace, Turn};
pub use id::{AccountId, AdminKeyId, AliasId, IdMap, KeyId, PoolId, TeamId, UserId};
pub use keys::{GatewayKey, KeyChange, KeyStore, NewKey, Right, Rights, UnknownRight};
pub use leadership::Duty;
pub use leases::{Holding, Lease, LeaseStore};
pub use ledger::{
    AttemptRow, Dimension, Forgotten, Holder, HourlySum, LedgerStore, UnknownDimension, UsageFilter, UsageRow,
    UsageSum, Used,
};
pub use limits::{Budget, BudgetUnit, Effort, Limits, Period, UnknownBudget, UnknownEffort, UnknownPeriod};
pub use pools::{Names, Pool, PoolDraft, PoolRef, PoolStore, Strategy, UnknownStrategy};
pub use responses::{KeptResponse, NewResponse, ResponseStore};
pub use rotation::{Rotation, RotationReport};
pub use scope::{AccountScope, AccountSet};
pub use secrets::Pepper;
pub use server::Server;
pub use sessions::{KeptSession, SessionStore};
pub use slices::{Asked, Other, Parts, Share, Sight, Slices};
pub use slips::SlipStore;
pub use tenants::{Team, TeamDraft, TenantStore, User, UserDraft};
pub use webhooks::{Delivery, WebhookStore};

use backend::{Address, Backend, Topic, fetch_all, fetch_one};
use vault::{Keyring, Place};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type UnixMillis = i64;

/// What `Store::open` needs.
pub struct OpenOptions {
    /// `sqlite://PATH` (three slashes for an absolute path) or `postgres://…`.
    pub url: SecretString,
    /// The keys that seal and open; see `vault`.
    pub keyring: Keyring,
}

/// How often each kind of thing was changed. A reader that takes the revision first and the rows
/// afterwards, and does so again when the revision has changed, misses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revision {
    /// Accounts and their credentials.
    pub accounts: i64,
    /// Gateway keys, but not when they were last used.
    pub keys: i64,
    /// Model aliases.
    pub models: i64,
    /// What was learnt of accounts, where others must know it at once.
    pub conditions: i64,
    /// Conversations that have moved to another account.
    pub homes: i64,
}

impl Revision {
    fn of(&self, topic: Topic) -> i64 {
        match topic {
            Topic::Accounts => self.accounts,
            Topic::Keys => self.keys,
            Topic::Models => self.models,
            Topic::Conditions => self.conditions,
            Topic::Homes => self.homes,
        }
    }

    /// A topic has come to this revision; says whether that is new. Topics of later versions are
    /// nobody's here.
    fn raise(&mut self, topic: &str, to: i64) -> bool {
        let known = match Topic::ALL.into_iter().find(|known| known.as_str() == topic) {
            Some(Topic::Accounts) => &mut self.accounts,
            Some(Topic::Keys) => &mut self.keys,
            Some(Topic::Models) => &mut self.models,
            Some(Topic::Conditions) => &mut self.conditions,
            Some(Topic::Homes) => &mut self.homes,
            None => return false,
        };
        let is_new = to > *known;
        *known = to.max(*known);
        is_new
    }
}

/// How many connections to the database there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Open ones.
    pub open: u32,
    /// Those that somebody uses now.
    pub in_use: u32,
    /// The most there may be.
    pub most: u32,
}

/// The open store. Clones share their connections.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
    keyring: Arc<Keyring>,
    actor: Option<Arc<Actor>>,
}

impl Store {
    /// The ids of the keys that the database's secrets are sealed under; empty for a database that
    /// is new or not there. Reads only: creates and migrates nothing.
    pub async fn key_ids_in_use(url: &SecretString) -> Result<BTreeSet<String>> {
        Self::key_ids_in_use_on(url, &Server::default()).await
    }

    /// The same, with a database server used as `server` says.
    pub async fn key_ids_in_use_on(url: &SecretString, server: &Server) -> Result<BTreeSet<String>> {
        inspect::key_ids_in_use(&Address::parse(url, server)?).await
    }

    /// Opens the database; makes a SQLite file, and the directory for it, when there is none.
    ///
    /// Refuses with `MissingKey`, before it writes anything, when the database holds secrets that
    /// the keyring does not open.
    pub async fn open(options: OpenOptions) -> Result<Self> {
        Self::open_on(options, &Server::default()).await
    }

    /// The same, with a database server used as `server` says.
    pub async fn open_on(options: OpenOptions, server: &Server) -> Result<Self> {
        let OpenOptions { url, keyring } = options;
        let address = Address::parse(&url, server)?;
        let key_ids = keyring.lacks(&inspect::key_ids_in_use(&address).await?);
        if !key_ids.is_empty() {
            return Err(StoreError::MissingKey { key_ids });
        }
        Ok(Self { backend: address.connect().await?, keyring: Arc::new(keyring), actor: None })
    }

    /// Brings the schema up to date; does nothing when it is.
    pub async fn migrate(&self) -> Result<()> {
        migrate::run(&self.backend).await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        // Cast, because a bare 1 is a 32-bit integer to Postgres and a 64-bit one to SQLite.
        fetch_one!(&mut self.backend.read().await?, (i64,), "SELECT CAST(1 AS BIGINT)")?;
        Ok(())
    }

    /// The current revisions; cheap enough to ask for several times a second.
    pub async fn revision(&self) -> Result<Revision> {
        let rows = fetch_all!(&mut self.backend.read().await?, (String, i64), "SELECT topic, revision FROM revisions")?;
        let of = |wanted: Topic| {
            rows.iter().find(|(topic, _)| topic == wanted.as_str()).map_or(0, |(_, revision)| *revision)
        };
        Ok(Revision {
            accounts: of(Topic::Accounts),
            keys: of(Topic::Keys),
            models: of(Topic::Models),
            conditions: of(Topic::Conditions),
            homes: of(Topic::Homes),
        })
    }

    /// What tells of changes that anybody makes, and the work that finds them out, to be run until
    /// `stop`. One for the process.
    pub fn follow(
        &self,
        following: Following,
        stop: CancellationToken,
    ) -> (Changes, impl Future<Output = ()> + Send + 'static) {
        let (teller, changes) = Changes::told();
        (changes, changes::follow(self.clone(), following, teller, stop))
    }

    /// Has `tell` told how long each caller waits for a connection.
    pub fn tell_waits(&self, tell: fn(Duration)) {
        self.backend.tell_waits(tell);
    }

    /// The connections.
    pub fn connections(&self) -> Connections {
        let (open, idle, most) = self.backend.connections();
        Connections { open, in_use: open.saturating_sub(u32::try_from(idle).unwrap_or(u32::MAX)), most }
    }

    /// The same store, which notes every change as this actor's in the audit log.
    #[must_use]
    pub fn acting(&self, actor: Actor) -> Self {
        Self { actor: Some(Arc::new(actor)), ..self.clone() }
    }

    /// Accounts and their credentials.
    pub fn accounts(&self) -> AccountStore<'_> {
        AccountStore::new(self)
    }

    /// Gateway keys.
    pub fn keys(&self) -> KeyStore<'_> {
        KeyStore::new(self)
    }

    /// Kept responses.
    pub fn responses(&self) -> ResponseStore<'_> {
        ResponseStore::new(self)
    }

    /// Conversations.
    pub fn conversations(&self) -> ConversationStore<'_> {
        ConversationStore::new(self)
    }

    /// Pools of accounts.
    pub fn pools(&self) -> PoolStore<'_> {
        PoolStore::new(self)
    }

    /// What is known of accounts, and their history.
    pub fn conditions(&self) -> ConditionStore<'_> {
        ConditionStore::new(self)
    }

    /// Where conversations live.
    pub fn sessions(&self) -> SessionStore<'_> {
        SessionStore::new(self)
    }

    /// Why accounts were chosen.
    pub fn decisions(&self) -> DecisionStore<'_> {
        DecisionStore::new(self)
    }

    /// Teams and users.
    pub fn tenants(&self) -> TenantStore<'_> {
        TenantStore::new(self)
    }

    /// Keys of the admin API.
    pub fn admin_keys(&self) -> AdminKeyStore<'_> {
        AdminKeyStore::new(self)
    }

    /// Models by other names.
    pub fn aliases(&self) -> AliasStore<'_> {
        AliasStore::new(self)
    }

    /// Sealed notes that end by themselves.
    pub fn slips(&self) -> SlipStore<'_> {
        SlipStore::new(self)
    }

    /// What processes take turns in.
    pub fn leases(&self) -> LeaseStore<'_> {
        LeaseStore::new(self)
    }

    /// Refresh tokens that are being spent.
    pub fn exchanges(&self) -> ExchangeStore<'_> {
        ExchangeStore::new(self)
    }

    /// What was used.
    pub fn ledger(&self) -> LedgerStore<'_> {
        LedgerStore::new(self)
    }

    /// What operators' systems are told.
    pub fn webhooks(&self) -> WebhookStore<'_> {
        WebhookStore::new(self)
    }

    /// Message batches.
    pub fn batches(&self) -> BatchStore<'_> {
        BatchStore::new(self)
    }

    /// The id of the master key that seals.
    pub fn sealing_key_id(&self) -> &str {
        self.keyring.sealing_key_id()
    }

    /// The ids of all master keys that are given; the first is the one that seals.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keyring.key_ids()
    }

    /// Whether several servers may work on this database at once.
    pub fn is_shared(&self) -> bool {
        matches!(self.backend, Backend::Postgres(_))
    }

    /// Closes all connections, after the statements that are running. On SQLite this folds the log
    /// into the database file.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    fn seal(&self, place: Place<'_>, plaintext: &[u8]) -> Result<String> {
        self.keyring.seal(place, plaintext).map_err(StoreError::Seal)
    }

    fn open_sealed(&self, place: Place<'_>, envelope: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.keyring.open(place, envelope).map_err(|source| StoreError::Unsealable {
            table: place.table,
            column: place.column,
            row: place.row.to_owned(),
            source,
        })
    }

    fn open_text(&self, place: Place<'_>, envelope: &str) -> Result<SecretString> {
        let plaintext = self.open_sealed(place, envelope)?;
        let text = std::str::from_utf8(&plaintext).map_err(|_| StoreError::Damaged {
            table: place.table,
            row: place.row.to_owned(),
            problem: "a sealed text is not UTF-8",
        })?;
        Ok(SecretString::from(text))
    }
}

/// Says which database it is, and nothing about its address or keys.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.backend {
            Backend::Sqlite(_) => "Store(SQLite)",
            Backend::Postgres(_) => "Store(Postgres)",
        })
    }
}
