//! Pools: named sets of accounts, and how one of them is chosen. A key may be bound to a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::DerefMut;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, SqliteConnection};

use super::{
    AccountId, PoolId, Store, UnixMillis,
    audit::Note,
    backend::{Dual, Topic, Write, execute, fetch_all, fetch_optional},
    error::{Result, StoreError},
    find,
    tenants::check_version,
};

/// How accounts are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// By the quota that would be lost otherwise.
    #[default]
    Quota,
    /// Each in its turn, by weight.
    RoundRobin,
    /// One after the other: the next when the one before is used up.
    FillFirst,
    /// The fewest requests under way, by weight.
    LeastLoaded,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 4] = [Self::Quota, Self::RoundRobin, Self::FillFirst, Self::LeastLoaded];

    /// The name in the database, in JSON, in settings and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::RoundRobin => "round_robin",
            Self::FillFirst => "fill_first",
            Self::LeastLoaded => "least_loaded",
        }
    }
}

/// The text is no strategy.
#[derive(Debug, thiserror::Error)]
#[error("expected quota, round_robin, fill_first or least_loaded")]
pub struct UnknownStrategy;

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == text).ok_or(UnknownStrategy)
    }
}

/// Tags, or other names that stand in one column.
pub type Names = BTreeSet<String>;

pub(super) fn write_names(names: &Names) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

pub(super) fn read_names(text: &str) -> Names {
    text.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What a key needs to know of the pool that it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRef {
    /// Which.
    pub id: PoolId,
    /// What operators call it.
    pub name: String,
    /// How its accounts are ordered.
    pub strategy: Strategy,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Given by the gateway.
    pub id: PoolId,
    /// What operators call it; unique.
    pub name: String,
    /// How its accounts are ordered.
    pub strategy: Strategy,
    /// Every account with one of these tags belongs to it.
    pub tags: Names,
    /// Accounts that belong to it by themselves.
    pub accounts: BTreeSet<AccountId>,
    /// All accounts that belong to it, either way.
    pub members: Vec<AccountId>,
    /// Goes up with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// What people may say of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PoolDraft {
    /// Unique.
    pub name: String,
    /// How its accounts are ordered.
    pub strategy: Strategy,
    /// Every account with one of these tags belongs to it.
    pub tags: Names,
    /// Accounts that belong to it by themselves; each must be there.
    pub accounts: BTreeSet<AccountId>,
}

impl Pool {
    /// What people said of it.
    pub fn draft(&self) -> PoolDraft {
        let Self { name, strategy, tags, accounts, .. } = self;
        PoolDraft { name: name.clone(), strategy: *strategy, tags: tags.clone(), accounts: accounts.clone() }
    }

    /// What a key needs to know of it.
    pub fn to_ref(&self) -> PoolRef {
        PoolRef { id: self.id, name: self.name.clone(), strategy: self.strategy }
    }
}

/// Pools in the store; made by `Store::pools`.
#[derive(Debug, Clone, Copy)]
pub struct PoolStore<'a> {
    store: &'a Store,
}

impl<'a> PoolStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All pools, by name.
    pub async fn list(&self) -> Result<Vec<Pool>> {
        read(&mut self.store.backend.read().await?).await
    }

    /// The pool that `asked` means: a name, an id or the start of one.
    pub async fn find(&self, asked: &str) -> Result<Pool> {
        find::choose(self.list().await?, asked)
    }

    /// Makes a pool. A name that is taken is `Taken`.
    pub async fn create(&self, draft: PoolDraft, now: UnixMillis) -> Result<Pool> {
        let mut write = self.store.backend.write(&[Topic::Accounts, Topic::Keys]).await?;
        let id = PoolId::new();
        let made = execute!(
            &mut write,
            "INSERT INTO pools (id, name, strategy, tags, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (name) DO NOTHING",
            id.to_string(),
            draft.name.as_str(),
            draft.strategy.as_str(),
            write_names(&draft.tags),
            now,
        )?;
        if made == 0 {
            return Err(StoreError::Taken { what: "pool", name: draft.name });
        }
        self.settle(write, id, &draft, None).await
    }

    /// Changes a pool; only its `version`, if one is given, else `Outdated`. Its accounts and tags
    /// become those given.
    pub async fn update(&self, id: PoolId, draft: &PoolDraft, version: Option<i64>) -> Result<Pool> {
        let mut write = self.store.backend.write(&[Topic::Accounts, Topic::Keys]).await?;
        let old = read(&mut write).await?.into_iter().find(|pool| pool.id == id);
        check_version("pool", &id.to_string(), old.as_ref().map(|pool| (pool.version,)), version)?;
        let changed = execute!(
            &mut write,
            "UPDATE pools SET name = $2, strategy = $3, tags = $4, version = version + 1
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM pools WHERE name = $2 AND id <> $1)",
            id.to_string(),
            draft.name.as_str(),
            draft.strategy.as_str(),
            write_names(&draft.tags),
        )?;
        if changed == 0 {
            return Err(StoreError::Taken { what: "pool", name: draft.name.clone() });
        }
        execute!(&mut write, "DELETE FROM pool_accounts WHERE pool_id = $1", id.to_string())?;
        self.settle(write, id, draft, old.map(|pool| pool.draft())).await
    }

    /// Binds a pool's accounts, notes the change and commits it.
    async fn settle(&self, mut write: Write, id: PoolId, draft: &PoolDraft, old: Option<PoolDraft>) -> Result<Pool> {
        bind(&mut write, &id.to_string(), &draft.accounts).await?;
        let note = Note {
            action: if old.is_some() { "pool.update" } else { "pool.create" },
            id: &id.to_string(),
            name: &draft.name,
            before: old.map(|old| json!(old)),
            after: Some(json!(draft)),
        };
        self.store.note(&mut write, note).await?;
        let pool = read(&mut write).await?.into_iter().find(|pool| pool.id == id);
        let pool = pool.ok_or_else(|| StoreError::NotFound { what: "pool", asked: id.to_string() })?;
        write.commit().await?;
        Ok(pool)
    }

    /// Removes a pool. One that a usable key is bound to is `InUse`; keys that are revoked let go.
    pub async fn remove(&self, id: PoolId) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Accounts, Topic::Keys]).await?;
        let old = read(&mut write).await?.into_iter().find(|pool| pool.id == id);
        let Some(old) = old else { return Ok(false) };
        let id = id.to_string();
        let bound = fetch_optional!(
            &mut write,
            (String,),
            "SELECT name FROM gateway_keys WHERE pool_id = $1 AND revoked_at IS NULL ORDER BY name LIMIT 1",
            id.as_str(),
        )?;
        if let Some((key,)) = bound {
            return Err(StoreError::InUse { what: "pool", by: format!("key {key}") });
        }
        // A revoked key stays bound to nothing rather than to everything: `scoped` stays.
        execute!(&mut write, "UPDATE gateway_keys SET pool_id = NULL WHERE pool_id = $1", id.as_str())?;
        execute!(&mut write, "DELETE FROM pools WHERE id = $1", id.as_str())?;
        let before = Some(json!(old.draft()));
        let note = Note { action: "pool.remove", id: &id, name: &old.name, before, after: None };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        Ok(true)
    }
}

async fn bind(write: &mut Write, pool: &str, accounts: &BTreeSet<AccountId>) -> Result<()> {
    for account in accounts {
        let bound = execute!(
            write,
            "INSERT INTO pool_accounts (pool_id, account_id) SELECT $1, id FROM accounts WHERE id = $2",
            pool,
            account.to_string(),
        )?;
        if bound == 0 {
            return Err(StoreError::NotFound { what: "account", asked: account.to_string() });
        }
    }
    Ok(())
}

#[derive(sqlx::FromRow)]
struct PoolRow {
    id: String,
    name: String,
    strategy: String,
    tags: String,
    version: i64,
    created_at: UnixMillis,
}

/// All pools with their members.
pub(super) async fn read<S, P>(session: &mut Dual<S, P>) -> Result<Vec<Pool>>
where
    S: DerefMut<Target = SqliteConnection>,
    P: DerefMut<Target = PgConnection>,
{
    let rows = fetch_all!(
        &mut *session,
        PoolRow,
        "SELECT id, name, strategy, tags, version, created_at FROM pools ORDER BY name"
    )?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let bound = fetch_all!(&mut *session, (String, String), "SELECT pool_id, account_id FROM pool_accounts")?;
    let tagged = fetch_all!(&mut *session, (String, String), "SELECT id, tags FROM accounts ORDER BY id")?;
    let mut own: BTreeMap<String, BTreeSet<AccountId>> = BTreeMap::new();
    for (pool, account) in bound {
        let damaged =
            |_| StoreError::Damaged { table: "pool_accounts", row: pool.clone(), problem: "an id is no UUID" };
        own.entry(pool.clone()).or_default().insert(account.parse().map_err(damaged)?);
    }
    let mut all = Vec::with_capacity(tagged.len());
    for (id, tags) in tagged {
        let damaged = |_| StoreError::Damaged { table: "accounts", row: id.clone(), problem: "its id is not a UUID" };
        all.push((id.parse::<AccountId>().map_err(damaged)?, read_names(&tags)));
    }
    rows.into_iter().map(|row| row.into_pool(&mut own, &all)).collect()
}

impl PoolRow {
    fn into_pool(self, own: &mut BTreeMap<String, BTreeSet<AccountId>>, all: &[(AccountId, Names)]) -> Result<Pool> {
        let damaged = |problem| StoreError::Damaged { table: "pools", row: self.id.clone(), problem };
        let accounts = own.remove(&self.id).unwrap_or_default();
        let tags = read_names(&self.tags);
        let is_member = |(id, of_account): &&(AccountId, Names)| accounts.contains(id) || !tags.is_disjoint(of_account);
        Ok(Pool {
            id: self.id.parse().map_err(|_| damaged("its id is not a UUID"))?,
            strategy: self.strategy.parse().map_err(|_: UnknownStrategy| {
                damaged("its strategy is unknown; a newer version may have written it")
            })?,
            members: all.iter().filter(is_member).map(|(id, _)| *id).collect(),
            name: self.name,
            tags,
            accounts,
            version: self.version,
            created_at: self.created_at,
        })
    }
}

impl find::Labelled for Pool {
    const WHAT: &'static str = "pool";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_also_called(&self, _: &str) -> bool {
        false
    }

    fn is_current(&self) -> bool {
        true
    }
}
