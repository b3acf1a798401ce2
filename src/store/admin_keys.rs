//! Keys of the admin API, by hash, and what their holders may do.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    AdminKeyId, Store, TeamId, UnixMillis,
    audit::Note,
    backend::{execute, fetch_all, fetch_optional},
    error::{Result, StoreError},
    find,
};

/// What somebody may do; a higher role may do all that a lower one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees.
    Viewer,
    /// Changes accounts, pools, teams, users, keys and limits.
    Operator,
    /// Changes who may do what, and master keys.
    Owner,
}

impl Role {
    /// Every role, the lowest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Owner];

    /// The name in the database, in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Owner => "owner",
        }
    }
}

/// The text is no role.
#[derive(Debug, thiserror::Error)]
#[error("expected viewer, operator or owner")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// A key of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminKey {
    /// Given by the gateway.
    pub id: AdminKeyId,
    /// Whose it is.
    pub name: String,
    /// The visible start of the key.
    pub prefix: String,
    /// What its holder may do.
    pub role: Role,
    /// The only team whose objects its holder sees; none for all.
    pub team: Option<TeamId>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// From then on it is refused.
    pub expires_at: Option<UnixMillis>,
    /// Since then it has been refused.
    pub revoked_at: Option<UnixMillis>,
}

/// An admin key to store.
#[derive(Debug, Clone)]
pub struct NewAdminKey {
    /// Whose it is.
    pub name: String,
    /// The visible start of the key.
    pub prefix: String,
    /// The keyed hash of the whole key.
    pub hash: [u8; 32],
    /// What its holder may do.
    pub role: Role,
    /// The only team whose objects its holder sees, which must be there.
    pub team: Option<TeamId>,
    /// From then on it is refused.
    pub expires_at: Option<UnixMillis>,
}

/// Admin keys in the store; made by `Store::admin_keys`.
#[derive(Debug, Clone, Copy)]
pub struct AdminKeyStore<'a> {
    store: &'a Store,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    prefix: String,
    role: String,
    team_id: Option<String>,
    created_at: UnixMillis,
    expires_at: Option<UnixMillis>,
    revoked_at: Option<UnixMillis>,
}

impl TryFrom<Row> for AdminKey {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let damaged = |problem| StoreError::Damaged { table: "admin_keys", row: row.id.clone(), problem };
        Ok(Self {
            id: row.id.parse().map_err(|_| damaged("its id is not a UUID"))?,
            role: row.role.parse().map_err(|_| damaged("its role is unknown; a newer version may have written it"))?,
            team: row.team_id.as_deref().map(str::parse).transpose().map_err(|_| damaged("its team is not a UUID"))?,
            name: row.name,
            prefix: row.prefix,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        })
    }
}

impl<'a> AdminKeyStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All admin keys, the newest first; also expired and revoked ones.
    pub async fn list(&self) -> Result<Vec<AdminKey>> {
        let rows = fetch_all!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT id, name, prefix, role, team_id, created_at, expires_at, revoked_at FROM admin_keys
             ORDER BY id DESC",
        )?;
        rows.into_iter().map(AdminKey::try_from).collect()
    }

    /// The admin key that `asked` means: an id, a name, the visible start, or the start of an id.
    pub async fn find(&self, asked: &str) -> Result<AdminKey> {
        find::choose(self.list().await?, asked)
    }

    /// The key of this hash.
    pub async fn by_hash(&self, hash: &[u8; 32]) -> Result<Option<AdminKey>> {
        let row = fetch_optional!(
            &mut self.store.backend.read().await?,
            Row,
            "SELECT id, name, prefix, role, team_id, created_at, expires_at, revoked_at FROM admin_keys
             WHERE hash = $1",
            hash.as_slice(),
        )?;
        row.map(AdminKey::try_from).transpose()
    }

    /// Stores an admin key. A team that is not there is `NotFound`.
    pub async fn create(&self, new: NewAdminKey, now: UnixMillis) -> Result<AdminKey> {
        let mut write = self.store.backend.write(&[]).await?;
        super::tenants::must_be_there(&mut write, new.team).await?;
        let id = AdminKeyId::new();
        execute!(
            &mut write,
            "INSERT INTO admin_keys (id, name, prefix, hash, role, team_id, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            id.to_string(),
            new.name.as_str(),
            new.prefix.as_str(),
            new.hash.as_slice(),
            new.role.as_str(),
            new.team.map(|team| team.to_string()),
            now,
            new.expires_at,
        )?;
        let NewAdminKey { name, prefix, role, team, expires_at, .. } = new;
        let after = json!({"name": name, "role": role, "team": team, "expires_at": expires_at});
        let note =
            Note { action: "admin_key.create", id: &id.to_string(), name: &name, before: None, after: Some(after) };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        Ok(AdminKey { id, name, prefix, role, team, created_at: now, expires_at, revoked_at: None })
    }

    /// Revokes an admin key for good. Returns whether it was there and not yet revoked.
    pub async fn revoke(&self, key: &AdminKey, now: UnixMillis) -> Result<bool> {
        let mut write = self.store.backend.write(&[]).await?;
        let id = key.id.to_string();
        let changed = execute!(
            &mut write,
            "UPDATE admin_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
            id.as_str(),
            now,
        )?;
        if changed > 0 {
            let after = Some(json!({"revoked_at": now}));
            let note = Note { action: "admin_key.revoke", id: &id, name: &key.name, before: None, after };
            self.store.note(&mut write, note).await?;
            write.commit().await?;
        }
        Ok(changed > 0)
    }
}

impl find::Labelled for AdminKey {
    const WHAT: &'static str = "admin key";

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
        self.revoked_at.is_none()
    }
}
