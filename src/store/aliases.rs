//! Models by other names, as operators have set them. Those of the settings are not here.

use std::ops::DerefMut;

use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, SqliteConnection};

use super::{
    AliasId, Store, UnixMillis,
    audit::Note,
    backend::{Dual, Topic, execute, fetch_all},
    error::{Result, StoreError},
    find,
    tenants::check_version,
};

/// A model by another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Given by the gateway.
    pub id: AliasId,
    /// What clients ask for; unique. It may end in `*`.
    pub name: String,
    /// What they get: `slug` or `slug:effort`.
    pub target: String,
    /// Goes up with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// What people may say of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AliasDraft {
    /// What clients ask for; unique.
    pub name: String,
    /// What they get.
    pub target: String,
}

impl Alias {
    /// What people said of it.
    pub fn draft(&self) -> AliasDraft {
        AliasDraft { name: self.name.clone(), target: self.target.clone() }
    }
}

impl AliasDraft {
    /// Why it is none, if so.
    pub fn fault(&self) -> Option<&'static str> {
        let (slug, effort) = self.target.split_once(':').unwrap_or((&self.target, "any"));
        if self.name.is_empty() || self.name.strip_suffix('*').unwrap_or(&self.name).contains('*') {
            return Some("name: only the end of it may be `*`, and it is not empty");
        }
        (slug.is_empty() || effort.is_empty()).then_some("target: expected a model, as `slug` or `slug:effort`")
    }
}

/// Model aliases in the store; made by `Store::aliases`.
#[derive(Debug, Clone, Copy)]
pub struct AliasStore<'a> {
    store: &'a Store,
}

impl<'a> AliasStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All aliases, by name.
    pub async fn list(&self) -> Result<Vec<Alias>> {
        read(&mut self.store.backend.read().await?).await
    }

    /// The alias that `asked` means: a name, an id or the start of one.
    pub async fn find(&self, asked: &str) -> Result<Alias> {
        find::choose(self.list().await?, asked)
    }

    /// Makes an alias. A name that is taken is `Taken`.
    pub async fn create(&self, draft: AliasDraft, now: UnixMillis) -> Result<Alias> {
        let mut write = self.store.backend.write(&[Topic::Models]).await?;
        let id = AliasId::new();
        let made = execute!(
            &mut write,
            "INSERT INTO model_aliases (id, name, target, version, created_at) VALUES ($1, $2, $3, 1, $4)
             ON CONFLICT (name) DO NOTHING",
            id.to_string(),
            draft.name.as_str(),
            draft.target.as_str(),
            now,
        )?;
        if made == 0 {
            return Err(StoreError::Taken { what: "alias", name: draft.name });
        }
        let after = Some(json!(draft));
        let note = Note { action: "alias.create", id: &id.to_string(), name: &draft.name, before: None, after };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        let AliasDraft { name, target } = draft;
        Ok(Alias { id, name, target, version: 1, created_at: now })
    }

    /// Changes an alias; only its `version`, if one is given, else `Outdated`.
    pub async fn update(&self, id: AliasId, draft: &AliasDraft, version: Option<i64>) -> Result<()> {
        let mut write = self.store.backend.write(&[Topic::Models]).await?;
        let old = read(&mut write).await?.into_iter().find(|alias| alias.id == id);
        check_version("alias", &id.to_string(), old.as_ref().map(|alias| (alias.version,)), version)?;
        let changed = execute!(
            &mut write,
            "UPDATE model_aliases SET name = $2, target = $3, version = version + 1
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM model_aliases WHERE name = $2 AND id <> $1)",
            id.to_string(),
            draft.name.as_str(),
            draft.target.as_str(),
        )?;
        if changed == 0 {
            return Err(StoreError::Taken { what: "alias", name: draft.name.clone() });
        }
        let (before, after) = (old.map(|old| json!(old.draft())), Some(json!(draft)));
        let note = Note { action: "alias.update", id: &id.to_string(), name: &draft.name, before, after };
        self.store.note(&mut write, note).await?;
        write.commit().await
    }

    /// Removes an alias; only its `version`, if one is given, else `Outdated`. Returns whether it was
    /// there.
    pub async fn remove(&self, id: AliasId, version: Option<i64>) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Models]).await?;
        let old = read(&mut write).await?.into_iter().find(|alias| alias.id == id);
        let Some(old) = old else { return Ok(false) };
        let id = id.to_string();
        check_version("alias", &id, Some((old.version,)), version)?;
        execute!(&mut write, "DELETE FROM model_aliases WHERE id = $1", id.as_str())?;
        let before = Some(json!(old.draft()));
        let note = Note { action: "alias.remove", id: &id, name: &old.name, before, after: None };
        self.store.note(&mut write, note).await?;
        write.commit().await?;
        Ok(true)
    }
}

async fn read<S, P>(session: &mut Dual<S, P>) -> Result<Vec<Alias>>
where
    S: DerefMut<Target = SqliteConnection>,
    P: DerefMut<Target = PgConnection>,
{
    let rows = fetch_all!(
        session,
        (String, String, String, i64, UnixMillis),
        "SELECT id, name, target, version, created_at FROM model_aliases ORDER BY name"
    )?;
    let alias = |(id, name, target, version, created_at): (String, String, String, i64, UnixMillis)| {
        let damaged = |_| StoreError::Damaged { table: "model_aliases", row: id.clone(), problem: "its id is no UUID" };
        Ok(Alias { id: id.parse().map_err(damaged)?, name, target, version, created_at })
    };
    rows.into_iter().map(alias).collect()
}

impl find::Labelled for Alias {
    const WHAT: &'static str = "alias";

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
