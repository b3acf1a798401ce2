//! Gateway keys. Only a keyed hash of a key is stored; making, hashing and checking keys is the
//! business of others.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Value, json};
use std::sync::Arc;

use super::{
    AccountId, AccountScope, KeyId, Limits, Pool, PoolId, PoolRef, Store, Team, TeamId, UnixMillis, User, UserId,
    audit::Note,
    backend::{Topic, Write, execute, fetch_all, fetch_optional},
    error::{Result, StoreError},
    find, pools,
    tenants::{self, check_version, limits_text, read_limits},
};

/// Something that a key may do besides asking models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Have its accounts' tokens renewed.
    AuthRefresh,
    /// See the email addresses of its accounts.
    AccountsEmail,
}

impl Right {
    /// Every right.
    pub const ALL: [Self; 2] = [Self::AuthRefresh, Self::AccountsEmail];

    /// The name in the database, in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthRefresh => "auth:refresh",
            Self::AccountsEmail => "accounts:email",
        }
    }
}

/// The text is no right.
#[derive(Debug, thiserror::Error)]
#[error("expected auth:refresh or accounts:email")]
pub struct UnknownRight;

impl FromStr for Right {
    type Err = UnknownRight;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|right| right.as_str() == text).ok_or(UnknownRight)
    }
}

/// The rights of a key: none unless given.
pub type Rights = BTreeSet<Right>;

fn write_rights(rights: &Rights) -> String {
    rights.iter().map(|right| right.as_str()).collect::<Vec<_>>().join(" ")
}

/// A right that a newer version has given is none here.
fn read_rights(text: &str) -> Rights {
    text.split(' ').filter_map(|name| name.parse().ok()).collect()
}

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayKey {
    /// Not secret and not part of the key.
    pub id: KeyId,
    /// Whose it is.
    pub name: String,
    /// The visible start of the key; for display only.
    pub prefix: String,
    /// The keyed hash of the whole key.
    pub hash: [u8; 32],
    /// Which accounts it may use: of a key that is bound to a pool, those of the pool; and of these
    /// only what its own limits, its user's and its team's leave.
    pub accounts: AccountScope,
    /// The accounts that it was bound to when it was made, whatever its limits leave of them.
    pub bound_to: AccountScope,
    /// The pool that it is bound to.
    pub pool: Option<PoolRef>,
    /// What else it may do.
    pub rights: Rights,
    /// The user it belongs to.
    pub user: Option<Arc<User>>,
    /// The team it belongs to, by its user or by itself.
    pub team: Option<Arc<Team>>,
    /// Its own limits; those of its user and its team hold beside them.
    pub limits: Limits,
    /// Goes up with each change by people.
    pub version: i64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From then on it is refused.
    pub expires_at: Option<UnixMillis>,
    /// Since then it has been refused.
    pub revoked_at: Option<UnixMillis>,
    /// The key that takes its place.
    pub rotated_to: Option<KeyId>,
    /// Roughly: written now and then, in batches.
    pub last_used_at: Option<UnixMillis>,
}

/// A key to store.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Whose it is.
    pub name: String,
    /// The visible start of the key.
    pub prefix: String,
    /// The keyed hash of the whole key.
    pub hash: [u8; 32],
    /// Which accounts it may use; each of `Only` must be there. Not heeded beside a pool.
    pub accounts: AccountScope,
    /// The pool that it is bound to, which must be there.
    pub pool: Option<PoolId>,
    /// What else it may do.
    pub rights: Rights,
    /// The user it belongs to, who must be there.
    pub user: Option<UserId>,
    /// The team it belongs to, which must be there; not heeded beside a user.
    pub team: Option<TeamId>,
    /// Its own limits.
    pub limits: Limits,
    /// From then on it is refused.
    pub expires_at: Option<UnixMillis>,
}

/// What people change of a key; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// Whose it is.
    pub name: Option<String>,
    /// What else it may do.
    pub rights: Option<Rights>,
    /// Its own limits.
    pub limits: Option<Limits>,
    /// From then on it is refused; `Some(None)` for never.
    pub expires_at: Option<Option<UnixMillis>>,
}

/// Gateway keys in the store; made by `Store::keys`.
#[derive(Debug, Clone, Copy)]
pub struct KeyStore<'a> {
    store: &'a Store,
}

impl<'a> KeyStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All keys, the newest first; also expired and revoked ones.
    pub async fn list(&self) -> Result<Vec<GatewayKey>> {
        let mut session = self.store.backend.read().await?;
        let owners = Owners {
            pools: pools::read(&mut session).await?,
            teams: tenants::teams(&mut session).await?.into_iter().map(Arc::new).collect(),
            users: tenants::users(&mut session).await?.into_iter().map(Arc::new).collect(),
        };
        // One statement, so that a key is never seen with half of its accounts.
        let rows = fetch_all!(
            &mut session,
            KeyRow,
            "SELECT k.id, k.name, k.prefix, k.hash, k.scoped, k.rights, k.created_at, k.expires_at, k.revoked_at,
                k.rotated_to, k.last_used_at, k.pool_id, k.team_id, k.user_id, k.limits, k.version, b.account_id
             FROM gateway_keys k LEFT JOIN key_accounts b ON b.key_id = k.id
             ORDER BY k.id DESC, b.account_id",
        )?;
        let of_one_key = |one: &KeyRow, next: &KeyRow| one.id == next.id;
        rows.chunk_by(of_one_key).map(|rows| GatewayKey::from_rows(rows, &owners)).collect()
    }

    /// The key that `asked` means: an id, a name, the visible start of a key, or the start of an id
    /// (six characters or more). Of several keys of one name, the one that is in use.
    pub async fn find(&self, asked: &str) -> Result<GatewayKey> {
        find::choose(self.list().await?, asked)
    }

    /// The key of this hash.
    pub async fn by_hash(&self, hash: &[u8; 32]) -> Result<Option<GatewayKey>> {
        Ok(self.list().await?.into_iter().find(|key| key.hash == *hash))
    }

    /// Stores a key. One whose hash is there already is `KnownHash`.
    pub async fn create(&self, new: NewKey, now: UnixMillis) -> Result<GatewayKey> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let key = insert(&mut write, new, now).await?;
        let (id, after) = (key.id.to_string(), Some(told(&key)));
        let note = Note { action: "key.create", id: &id, name: &key.name, before: None, after };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        Ok(key)
    }

    /// Changes a key; only its `version`, if one is given, else `Outdated`.
    pub async fn update(&self, id: KeyId, change: &KeyChange, version: Option<i64>) -> Result<()> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let row = fetch_optional!(
            &mut write,
            (i64, String, String, Option<UnixMillis>, String),
            "SELECT version, name, rights, expires_at, limits FROM gateway_keys WHERE id = $1",
            id.to_string(),
        )?;
        check_version("key", &id.to_string(), row.as_ref().map(|row| (row.0,)), version)?;
        execute!(
            &mut write,
            "UPDATE gateway_keys SET name = COALESCE($2, name), rights = COALESCE($3, rights),
                limits = COALESCE($4, limits), expires_at = CASE WHEN $5 THEN $6 ELSE expires_at END,
                version = version + 1
             WHERE id = $1",
            id.to_string(),
            change.name.as_deref(),
            change.rights.as_ref().map(write_rights),
            change.limits.as_ref().map(limits_text),
            change.expires_at.is_some(),
            change.expires_at.flatten(),
        )?;
        if let Some((_, name, rights, expires_at, limits)) = row {
            let limits = read_limits(&limits, "gateway_keys", &id.to_string())?;
            let rights = read_rights(&rights);
            let told = |name: &str, rights: &Rights, expires_at: Option<UnixMillis>, limits: &Limits| {
                Some(json!({"name": name, "rights": write_rights(rights), "expires_at": expires_at, "limits": limits}))
            };
            let new_name = change.name.as_ref().unwrap_or(&name);
            let after = told(
                new_name,
                change.rights.as_ref().unwrap_or(&rights),
                change.expires_at.unwrap_or(expires_at),
                change.limits.as_ref().unwrap_or(&limits),
            );
            let before = told(&name, &rights, expires_at, &limits);
            let note = Note { action: "key.update", id: &id.to_string(), name: new_name, before, after };
            self.store.note(&mut write, note).await?;
        }
        write.commit().await
    }

    /// Revokes a key for good. Returns whether it was there and not yet revoked.
    pub async fn revoke(&self, id: KeyId, now: UnixMillis) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let changed = execute!(
            &mut write,
            "UPDATE gateway_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
            id.to_string(),
            now,
        )?;
        if changed > 0 {
            let name = name_of(&mut write, id).await?;
            let after = Some(json!({"revoked_at": now}));
            let note = Note { action: "key.revoke", id: &id.to_string(), name: &name, before: None, after };
            self.store.note(&mut write, note).await?;
            write.commit().await?;
        }
        Ok(changed > 0)
    }

    /// Stores `new` in the place of `old`, which ends at `old_expires_at`, or earlier if it would
    /// have anyway. A key that is revoked or already rotated is `NotCurrent`.
    pub async fn rotate(
        &self,
        old: KeyId,
        new: NewKey,
        old_expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<GatewayKey> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let state = fetch_optional!(
            &mut write,
            (Option<UnixMillis>, Option<String>),
            "SELECT revoked_at, rotated_to FROM gateway_keys WHERE id = $1",
            old.to_string(),
        )?;
        let not_current = |state| StoreError::NotCurrent { id: old, state };
        match state {
            None => {
                return Err(StoreError::NotFound { what: "key", asked: old.to_string() });
            }
            Some((Some(_), _)) => return Err(not_current("revoked")),
            Some((None, Some(_))) => return Err(not_current("already rotated")),
            Some((None, None)) => {}
        }
        let key = insert(&mut write, new, now).await?;
        execute!(
            &mut write,
            "UPDATE gateway_keys SET rotated_to = $2,
                expires_at = CASE WHEN expires_at < $3 THEN expires_at ELSE $3 END
             WHERE id = $1",
            old.to_string(),
            key.id.to_string(),
            old_expires_at,
        )?;
        let after = Some(json!({"rotated_to": key.id, "ends": old_expires_at}));
        let note = Note { action: "key.rotate", id: &old.to_string(), name: &key.name, before: None, after };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        Ok(key)
    }

    /// Notes when keys were used; a time earlier than the one noted is ignored. Not a change that
    /// the revision tells.
    pub async fn touch(&self, used: &[(KeyId, UnixMillis)]) -> Result<()> {
        let mut write = self.store.backend.write(&[]).await?;
        // In order of ids: two replicas that touch the same keys never wait for each other.
        let mut used = used.to_vec();
        used.sort_unstable();
        for (id, at) in used {
            execute!(
                &mut write,
                "UPDATE gateway_keys SET last_used_at = $2
                 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
                id.to_string(),
                at,
            )?;
        }
        write.commit().await
    }
}

async fn name_of(write: &mut Write, id: KeyId) -> Result<String> {
    let row = fetch_optional!(write, (String,), "SELECT name FROM gateway_keys WHERE id = $1", id.to_string())?;
    Ok(row.map(|(name,)| name).unwrap_or_default())
}

/// What the audit log says of a new key.
fn told(key: &GatewayKey) -> Value {
    let accounts = match &key.bound_to {
        AccountScope::All => None,
        AccountScope::Only(ids) => Some(ids),
    };
    json!({
        "name": key.name, "prefix": key.prefix, "user": key.user.as_ref().map(|user| user.id),
        "team": key.team.as_ref().map(|team| team.id), "pool": key.pool.as_ref().map(|pool| pool.id),
        "accounts": accounts, "rights": write_rights(&key.rights), "limits": key.limits, "expires_at": key.expires_at,
    })
}

async fn insert(write: &mut Write, new: NewKey, now: UnixMillis) -> Result<GatewayKey> {
    let id = KeyId::new();
    let (user, team) = owners_of(write, &new).await?;
    let bound_to = match new.accounts.clone() {
        _ if new.pool.is_some() => AccountScope::only([]),
        scope => scope,
    };
    let made = execute!(
        write,
        "INSERT INTO gateway_keys (id, name, prefix, hash, scoped, rights, created_at, expires_at, pool_id, user_id,
            team_id, limits)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (hash) DO NOTHING",
        id.to_string(),
        new.name.as_str(),
        new.prefix.as_str(),
        new.hash.as_slice(),
        new.pool.is_some() || new.accounts != AccountScope::All,
        write_rights(&new.rights),
        now,
        new.expires_at,
        new.pool.map(|pool| pool.to_string()),
        new.user.map(|user| user.to_string()),
        new.team.filter(|_| new.user.is_none()).map(|team| team.to_string()),
        limits_text(&new.limits),
    )?;
    if made == 0 {
        return Err(StoreError::KnownHash);
    }
    let pool = match new.pool {
        Some(pool) => Some(pool_of(write, pool).await?),
        None => None,
    };
    if let AccountScope::Only(ids) = &bound_to {
        bind(write, id, ids).await?;
    }
    let accounts = pool.as_ref().map_or_else(|| bound_to.clone(), |pool| AccountScope::only(pool.members.clone()));
    let pools = pools::read(write).await?;
    let upper = [Some(&new.limits), user.as_ref().map(|user| &user.limits), team.as_ref().map(|team| &team.limits)];
    let accounts = upper.into_iter().flatten().fold(accounts, |scope, limits| narrowed(scope, limits, &pools));
    Ok(GatewayKey {
        id,
        name: new.name,
        prefix: new.prefix,
        hash: new.hash,
        accounts,
        bound_to,
        pool: pool.as_ref().map(Pool::to_ref),
        rights: new.rights,
        user,
        team,
        limits: new.limits,
        version: 1,
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        rotated_to: None,
        last_used_at: None,
    })
}

/// The user and the team that a new key belongs to.
async fn owners_of(write: &mut Write, new: &NewKey) -> Result<(Option<Arc<User>>, Option<Arc<Team>>)> {
    let user = match new.user {
        None => None,
        Some(id) => {
            let user = tenants::users(write).await?.into_iter().find(|user| user.id == id);
            Some(user.ok_or_else(|| StoreError::NotFound { what: "user", asked: id.to_string() })?)
        }
    };
    let team = match user.as_ref().map_or(new.team, |user| user.team) {
        None => None,
        Some(id) => {
            let team = tenants::teams(write).await?.into_iter().find(|team| team.id == id);
            Some(team.ok_or_else(|| StoreError::NotFound { what: "team", asked: id.to_string() })?)
        }
    };
    Ok((user.map(Arc::new), team.map(Arc::new)))
}

async fn pool_of(write: &mut Write, id: PoolId) -> Result<Pool> {
    let pools = pools::read(write).await?;
    let not_found = || StoreError::NotFound { what: "pool", asked: id.to_string() };
    pools.into_iter().find(|pool| pool.id == id).ok_or_else(not_found)
}

async fn bind(write: &mut Write, key: KeyId, accounts: &[AccountId]) -> Result<()> {
    for account in accounts {
        let bound = execute!(
            write,
            "INSERT INTO key_accounts (key_id, account_id) SELECT $1, id FROM accounts WHERE id = $2",
            key.to_string(),
            account.to_string(),
        )?;
        if bound == 0 {
            return Err(StoreError::NotFound { what: "account", asked: account.to_string() });
        }
    }
    Ok(())
}

/// A key and one of its accounts, if it has any.
#[derive(sqlx::FromRow)]
struct KeyRow {
    id: String,
    name: String,
    prefix: String,
    hash: Vec<u8>,
    scoped: bool,
    rights: String,
    created_at: UnixMillis,
    expires_at: Option<UnixMillis>,
    revoked_at: Option<UnixMillis>,
    rotated_to: Option<String>,
    last_used_at: Option<UnixMillis>,
    pool_id: Option<String>,
    team_id: Option<String>,
    user_id: Option<String>,
    limits: String,
    version: i64,
    account_id: Option<String>,
}

/// What keys refer to.
struct Owners {
    pools: Vec<Pool>,
    teams: Vec<Arc<Team>>,
    users: Vec<Arc<User>>,
}

impl GatewayKey {
    /// `rows` are all of one key, and at least one.
    fn from_rows(rows: &[KeyRow], owners: &Owners) -> Result<Self> {
        let row = &rows[0];
        let damaged = |problem| StoreError::Damaged { table: "gateway_keys", row: row.id.clone(), problem };
        let accounts = rows.iter().filter_map(|row| row.account_id.as_deref());
        let accounts = accounts.map(|id| id.parse().map_err(|_| damaged("an account's id is not a UUID")));
        let accounts =
            if row.scoped { AccountScope::Only(accounts.collect::<Result<_>>()?) } else { AccountScope::All };
        // A pool made after the pools were read: the revision has moved, and both are read again.
        let pool = row.pool_id.as_ref().map(|id| owners.pools.iter().find(|pool| pool.id.to_string() == *id));
        let user = row.user_id.as_ref().and_then(|id| owners.users.iter().find(|user| user.id.to_string() == *id));
        let team = user.map_or_else(|| row.team_id.clone(), |user| user.team.map(|team| team.to_string()));
        let team = team.and_then(|id| owners.teams.iter().find(|team| team.id.to_string() == id));
        let limits = read_limits(&row.limits, "gateway_keys", &row.id)?;
        let own = match pool {
            Some(pool) => AccountScope::only(pool.map(|pool| pool.members.clone()).unwrap_or_default()),
            None => accounts.clone(),
        };
        let upper = [Some(&limits), user.map(|user| &user.limits), team.map(|team| &team.limits)];
        Ok(Self {
            id: row.id.parse().map_err(|_| damaged("its id is not a UUID"))?,
            name: row.name.clone(),
            prefix: row.prefix.clone(),
            hash: row.hash.as_slice().try_into().map_err(|_| damaged("its hash is not 32 bytes"))?,
            accounts: upper.into_iter().flatten().fold(own, |scope, limits| narrowed(scope, limits, &owners.pools)),
            bound_to: accounts,
            pool: pool.flatten().map(Pool::to_ref),
            rights: read_rights(&row.rights),
            user: user.cloned(),
            team: team.cloned(),
            limits,
            version: row.version,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            rotated_to: row
                .rotated_to
                .as_deref()
                .map(|id| id.parse().map_err(|_| damaged("rotated_to is not a UUID")))
                .transpose()?,
            last_used_at: row.last_used_at,
        })
    }
}

/// What is left of a scope under limits that name accounts or pools.
fn narrowed(scope: AccountScope, limits: &Limits, pools: &[Pool]) -> AccountScope {
    let of_pools = limits.pools.as_ref().map(|allowed| {
        let members = pools.iter().filter(|pool| allowed.contains(&pool.id)).flat_map(|pool| pool.members.clone());
        members.collect::<Vec<_>>()
    });
    let mut scope = scope;
    for allowed in [limits.accounts.clone(), of_pools].into_iter().flatten() {
        scope = match scope {
            AccountScope::All => AccountScope::only(allowed),
            AccountScope::Only(ids) => AccountScope::only(ids.iter().copied().filter(|id| allowed.contains(id))),
        };
    }
    scope
}

impl find::Labelled for GatewayKey {
    const WHAT: &'static str = "key";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_also_called(&self, asked: &str) -> bool {
        self.prefix == asked
    }

    fn is_current(&self) -> bool {
        self.revoked_at.is_none() && self.rotated_to.is_none()
    }
}
