//! Teams and users, and the limits that hold for all keys below them.

use super::{
    Limits, Store, TeamId, UnixMillis, UserId,
    audit::Note,
    backend::{Dual, Topic, execute, fetch_all, fetch_optional},
    error::{Result, StoreError},
    find,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{PgConnection, SqliteConnection};
use std::ops::DerefMut;

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Given by the gateway.
    pub id: TeamId,
    /// What operators call it; unique.
    pub name: String,
    /// For all of its keys together.
    pub limits: Limits,
    /// Whether all of its keys are refused.
    pub suspended: bool,
    /// Goes up with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// Somebody, or some service, who has keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Given by the gateway.
    pub id: UserId,
    /// What operators call them; unique.
    pub name: String,
    /// Where they are reached; how a sign-in finds them.
    pub email: Option<String>,
    /// Where they belong.
    pub team: Option<TeamId>,
    /// For all of their keys together.
    pub limits: Limits,
    /// Whether all of their keys are refused.
    pub suspended: bool,
    /// Goes up with each change.
    pub version: i64,
    /// When they were made.
    pub created_at: UnixMillis,
}

/// What people may say of a team.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TeamDraft {
    /// Unique.
    pub name: String,
    /// For all of its keys together.
    pub limits: Limits,
    /// Whether all of its keys are refused.
    pub suspended: bool,
}

/// What people may say of a user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserDraft {
    /// Unique.
    pub name: String,
    /// Where they are reached.
    pub email: Option<String>,
    /// Where they belong; must be there.
    pub team: Option<TeamId>,
    /// For all of their keys together.
    pub limits: Limits,
    /// Whether all of their keys are refused.
    pub suspended: bool,
}

impl Team {
    /// What people said of it.
    pub fn draft(&self) -> TeamDraft {
        TeamDraft { name: self.name.clone(), limits: self.limits.clone(), suspended: self.suspended }
    }
}

impl User {
    /// What people said of them.
    pub fn draft(&self) -> UserDraft {
        UserDraft {
            name: self.name.clone(),
            email: self.email.clone(),
            team: self.team,
            limits: self.limits.clone(),
            suspended: self.suspended,
        }
    }
}

/// Teams and users in the store; made by `Store::tenants`.
#[derive(Debug, Clone, Copy)]
pub struct TenantStore<'a> {
    store: &'a Store,
}

impl<'a> TenantStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All teams, by name.
    pub async fn teams(&self) -> Result<Vec<Team>> {
        teams(&mut self.store.backend.read().await?).await
    }

    /// All users, by name.
    pub async fn users(&self) -> Result<Vec<User>> {
        users(&mut self.store.backend.read().await?).await
    }

    /// The team that `asked` means: a name, an id or the start of one.
    pub async fn find_team(&self, asked: &str) -> Result<Team> {
        find::choose(self.teams().await?, asked)
    }

    /// The user that `asked` means: a name, an email, an id or the start of one.
    pub async fn find_user(&self, asked: &str) -> Result<User> {
        find::choose(self.users().await?, asked)
    }

    /// Makes a team. A name that is taken is `Taken`.
    pub async fn create_team(&self, draft: TeamDraft, now: UnixMillis) -> Result<Team> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let id = TeamId::new();
        let made = execute!(
            &mut write,
            "INSERT INTO teams (id, name, limits, suspended, version, created_at) VALUES ($1, $2, $3, $4, 1, $5)
             ON CONFLICT (name) DO NOTHING",
            id.to_string(),
            draft.name.as_str(),
            limits_text(&draft.limits),
            draft.suspended,
            now,
        )?;
        if made == 0 {
            return Err(StoreError::Taken { what: "team", name: draft.name });
        }
        let after = Some(json!(draft));
        let note = Note { action: "team.create", id: &id.to_string(), name: &draft.name, before: None, after };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        let TeamDraft { name, limits, suspended } = draft;
        Ok(Team { id, name, limits, suspended, version: 1, created_at: now })
    }

    /// Changes a team; only its `version`, if one is given, else `Outdated`.
    pub async fn update_team(&self, id: TeamId, draft: &TeamDraft, version: Option<i64>) -> Result<()> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let old = teams(&mut write).await?.into_iter().find(|team| team.id == id);
        check_version("team", &id.to_string(), old.as_ref().map(|team| (team.version,)), version)?;
        let changed = execute!(
            &mut write,
            "UPDATE teams SET name = $2, limits = $3, suspended = $4, version = version + 1
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM teams WHERE name = $2 AND id <> $1)",
            id.to_string(),
            draft.name.as_str(),
            limits_text(&draft.limits),
            draft.suspended,
        )?;
        if changed == 0 {
            return Err(StoreError::Taken { what: "team", name: draft.name.clone() });
        }
        let (before, after) = (old.map(|old| json!(old.draft())), Some(json!(draft)));
        let note = Note { action: "team.update", id: &id.to_string(), name: &draft.name, before, after };
        self.store.note(&mut write, note).await?;
        write.commit().await
    }

    /// Removes a team. One that has users or usable keys is `InUse`.
    pub async fn remove_team(&self, id: TeamId) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let old = teams(&mut write).await?.into_iter().find(|team| team.id == id);
        let Some(old) = old else { return Ok(false) };
        let id = id.to_string();
        let held = fetch_optional!(
            &mut write,
            (String,),
            "SELECT 'user ' || name FROM users WHERE team_id = $1
             UNION ALL SELECT 'key ' || name FROM gateway_keys WHERE team_id = $1 AND revoked_at IS NULL
             UNION ALL SELECT 'admin key ' || name FROM admin_keys WHERE team_id = $1 AND revoked_at IS NULL LIMIT 1",
            id.as_str(),
        )?;
        if let Some((by,)) = held {
            return Err(StoreError::InUse { what: "team", by });
        }
        execute!(&mut write, "UPDATE gateway_keys SET team_id = NULL WHERE team_id = $1", id.as_str())?;
        // A revoked admin key of the team goes with it: without a team it would be one for all.
        execute!(&mut write, "DELETE FROM admin_keys WHERE team_id = $1", id.as_str())?;
        execute!(&mut write, "DELETE FROM teams WHERE id = $1", id.as_str())?;
        let before = Some(json!(old.draft()));
        let note = Note { action: "team.remove", id: &id, name: &old.name, before, after: None };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Makes a user. A name that is taken is `Taken`; a team that is not there is `NotFound`.
    pub async fn create_user(&self, draft: UserDraft, now: UnixMillis) -> Result<User> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        must_be_there(&mut write, draft.team).await?;
        let id = UserId::new();
        let made = execute!(
            &mut write,
            "INSERT INTO users (id, name, email, team_id, limits, suspended, version, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7) ON CONFLICT (name) DO NOTHING",
            id.to_string(),
            draft.name.as_str(),
            draft.email.as_deref(),
            draft.team.map(|team| team.to_string()),
            limits_text(&draft.limits),
            draft.suspended,
            now,
        )?;
        if made == 0 {
            return Err(StoreError::Taken { what: "user", name: draft.name });
        }
        let after = Some(json!(draft));
        let note = Note { action: "user.create", id: &id.to_string(), name: &draft.name, before: None, after };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        let UserDraft { name, email, team, limits, suspended } = draft;
        Ok(User { id, name, email, team, limits, suspended, version: 1, created_at: now })
    }

    /// Changes a user; only their `version`, if one is given, else `Outdated`.
    pub async fn update_user(&self, id: UserId, draft: &UserDraft, version: Option<i64>) -> Result<()> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        must_be_there(&mut write, draft.team).await?;
        let old = users(&mut write).await?.into_iter().find(|user| user.id == id);
        check_version("user", &id.to_string(), old.as_ref().map(|user| (user.version,)), version)?;
        let changed = execute!(
            &mut write,
            "UPDATE users SET name = $2, email = $3, team_id = $4, limits = $5, suspended = $6, version = version + 1
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM users WHERE name = $2 AND id <> $1)",
            id.to_string(),
            draft.name.as_str(),
            draft.email.as_deref(),
            draft.team.map(|team| team.to_string()),
            limits_text(&draft.limits),
            draft.suspended,
        )?;
        if changed == 0 {
            return Err(StoreError::Taken { what: "user", name: draft.name.clone() });
        }
        let (before, after) = (old.map(|old| json!(old.draft())), Some(json!(draft)));
        let note = Note { action: "user.update", id: &id.to_string(), name: &draft.name, before, after };
        self.store.note(&mut write, note).await?;
        write.commit().await
    }

    /// Removes a user. One who has a usable key is `InUse`.
    pub async fn remove_user(&self, id: UserId) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Keys]).await?;
        let old = users(&mut write).await?.into_iter().find(|user| user.id == id);
        let Some(old) = old else { return Ok(false) };
        let id = id.to_string();
        let held = fetch_optional!(
            &mut write,
            (String,),
            "SELECT 'key ' || name FROM gateway_keys WHERE user_id = $1 AND revoked_at IS NULL LIMIT 1",
            id.as_str(),
        )?;
        if let Some((by,)) = held {
            return Err(StoreError::InUse { what: "user", by });
        }
        execute!(&mut write, "UPDATE gateway_keys SET user_id = NULL WHERE user_id = $1", id.as_str())?;
        execute!(&mut write, "DELETE FROM users WHERE id = $1", id.as_str())?;
        let before = Some(json!(old.draft()));
        let note = Note { action: "user.remove", id: &id, name: &old.name, before, after: None };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        Ok(true)
    }
}

/// For the column; a struct of plain fields always has a JSON form.
pub(super) fn limits_text(limits: &Limits) -> String {
    serde_json::to_string(limits).unwrap_or_else(|_| "{}".to_owned())
}

/// From the column.
pub(super) fn read_limits(text: &str, table: &'static str, row: &str) -> Result<Limits> {
    serde_json::from_str(text).map_err(|_| StoreError::Damaged {
        table,
        row: row.to_owned(),
        problem: "its limits are not legible; a newer version may have written them",
    })
}

/// Whether the row is there, and is the one that was seen.
pub(super) fn check_version(what: &'static str, id: &str, row: Option<(i64,)>, seen: Option<i64>) -> Result<()> {
    match row {
        None => Err(StoreError::NotFound { what, asked: id.to_owned() }),
        Some((version,)) if seen.is_some_and(|seen| seen != version) => {
            Err(StoreError::Outdated { what, id: id.to_owned() })
        }
        Some(_) => Ok(()),
    }
}

pub(super) async fn must_be_there<S, P>(session: &mut Dual<S, P>, team: Option<TeamId>) -> Result<()>
where
    S: DerefMut<Target = SqliteConnection>,
    P: DerefMut<Target = PgConnection>,
{
    let Some(team) = team else { return Ok(()) };
    let row = fetch_optional!(session, (String,), "SELECT id FROM teams WHERE id = $1", team.to_string())?;
    row.map(drop).ok_or_else(|| StoreError::NotFound { what: "team", asked: team.to_string() })
}

/// All teams, by name.
pub(super) async fn teams<S, P>(session: &mut Dual<S, P>) -> Result<Vec<Team>>
where
    S: DerefMut<Target = SqliteConnection>,
    P: DerefMut<Target = PgConnection>,
{
    let rows = fetch_all!(
        session,
        (String, String, String, bool, i64, UnixMillis),
        "SELECT id, name, limits, suspended, version, created_at FROM teams ORDER BY name"
    )?;
    let team = |(id, name, limits, suspended, version, created_at): (String, String, String, bool, i64, i64)| {
        let damaged = |_| StoreError::Damaged { table: "teams", row: id.clone(), problem: "its id is not a UUID" };
        let limits = read_limits(&limits, "teams", &id)?;
        Ok(Team { id: id.parse().map_err(damaged)?, name, limits, suspended, version, created_at })
    };
    rows.into_iter().map(team).collect()
}

#[derive(sqlx::FromRow)]
struct UserRow {
    id: String,
    name: String,
    email: Option<String>,
    team_id: Option<String>,
    limits: String,
    suspended: bool,
    version: i64,
    created_at: UnixMillis,
}

/// All users, by name.
pub(super) async fn users<S, P>(session: &mut Dual<S, P>) -> Result<Vec<User>>
where
    S: DerefMut<Target = SqliteConnection>,
    P: DerefMut<Target = PgConnection>,
{
    let rows = fetch_all!(
        session,
        UserRow,
        "SELECT id, name, email, team_id, limits, suspended, version, created_at FROM users ORDER BY name"
    )?;
    let user = |row: UserRow| {
        let damaged = |_| StoreError::Damaged { table: "users", row: row.id.clone(), problem: "an id is not a UUID" };
        Ok(User {
            id: row.id.parse().map_err(damaged)?,
            team: row.team_id.as_deref().map(str::parse).transpose().map_err(damaged)?,
            limits: read_limits(&row.limits, "users", &row.id)?,
            name: row.name,
            email: row.email,
            suspended: row.suspended,
            version: row.version,
            created_at: row.created_at,
        })
    };
    rows.into_iter().map(user).collect()
}

impl find::Labelled for Team {
    const WHAT: &'static str = "team";

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

impl find::Labelled for User {
    const WHAT: &'static str = "user";

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_also_called(&self, asked: &str) -> bool {
        self.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(asked))
    }

    fn is_current(&self) -> bool {
        true
    }
}
