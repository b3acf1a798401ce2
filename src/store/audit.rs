//! The audit log: who changed what. A row is written in the transaction of the change itself, so that
//! there is never one without the other; the database refuses to change or delete a row.

use serde_json::Value;

use super::{
    Store, UnixMillis,
    backend::{Write, execute, fetch_all},
    error::Result,
    slips,
};

/// Somebody who changes things. A store that acts for one notes each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `admin_key:ID`, `person:SUBJECT`, `bootstrap`, or `cli:USER`.
    pub id: String,
    /// What people call them.
    pub name: String,
    /// The network address they came from.
    pub source: Option<String>,
    /// The id of the request that said so.
    pub request_id: Option<String>,
    /// When.
    pub at: UnixMillis,
    /// The slip that is laid down with the first change, so that a request which is sent twice
    /// changes things once: its id.
    pub once: Option<String>,
}

/// A change.
pub(super) struct Note<'a> {
    /// `team.create`.
    pub(super) action: &'static str,
    /// The changed thing's id.
    pub(super) id: &'a str,
    /// What people call it.
    pub(super) name: &'a str,
    /// What was there; none of what is new.
    pub(super) before: Option<Value>,
    /// What is there now; none of what is gone.
    pub(super) after: Option<Value>,
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Sorts by time.
    pub id: String,
    /// When.
    pub at: UnixMillis,
    /// Who: see [`Actor::id`].
    pub actor: String,
    /// What people called them then.
    pub actor_name: String,
    /// The network address they came from.
    pub source: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// `team.create`.
    pub action: String,
    /// `team`.
    pub target_kind: String,
    /// Its id.
    pub target_id: String,
    /// What people called it then.
    pub target_name: String,
    /// What was there.
    pub before: Option<Value>,
    /// What was there afterwards.
    pub after: Option<Value>,
}

/// Which rows are wanted.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this thing.
    pub target_id: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// Older than the row of this id.
    pub before: Option<String>,
}

impl Store {
    /// Notes a change, if somebody is named who makes it.
    pub(super) async fn note(&self, write: &mut Write, note: Note<'_>) -> Result<()> {
        let Some(actor) = &self.actor else { return Ok(()) };
        if let Some(slip) = &actor.once {
            slips::claim(self, write, slip, actor.at).await?;
        }
        let kind = note.action.split('.').next().unwrap_or_default();
        execute!(
            write,
            "INSERT INTO audit_log (id, at, actor, actor_name, source, request_id, action, target_kind, target_id,
                target_name, before, after)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            uuid::Uuid::now_v7().to_string(),
            actor.at,
            actor.id.as_str(),
            actor.name.as_str(),
            actor.source.as_deref(),
            actor.request_id.as_deref(),
            note.action,
            kind,
            note.id,
            note.name,
            note.before.map(|value| value.to_string()),
            note.after.map(|value| value.to_string()),
        )?;
        Ok(())
    }

    /// Notes what changes nothing in the store by itself, such as a refresh that was asked for.
    pub async fn note_deed(&self, action: &'static str, id: &str, name: &str) -> Result<()> {
        self.note_event(action, id, name, None).await
    }

    /// The same, with what is so afterwards, such as what somebody who signed in may do.
    pub async fn note_event(&self, action: &'static str, id: &str, name: &str, after: Option<Value>) -> Result<()> {
        let mut write = self.backend.write(&[]).await?;
        self.note(&mut write, Note { action, id, name, before: None, after }).await?;
        write.commit().await
    }

    /// Notes a change of what is not in the store, such as the level of a running log.
    pub async fn note_change(&self, action: &'static str, name: &str, before: &str, after: &str) -> Result<()> {
        let (before, after) = (Some(Value::from(before)), Some(Value::from(after)));
        let mut write = self.backend.write(&[]).await?;
        self.note(&mut write, Note { action, id: name, name, before, after }).await?;
        write.commit().await
    }

    /// The log, the newest first: at most `limit` rows.
    pub async fn audit(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>> {
        let rows = fetch_all!(
            &mut self.backend.read().await?,
            Row,
            "SELECT id, at, actor, actor_name, source, request_id, action, target_kind, target_id, target_name,
                before, after
             FROM audit_log
             WHERE ($1 IS NULL OR target_id = $1) AND ($2 IS NULL OR actor = $2) AND ($3 IS NULL OR action = $3)
                AND ($4 IS NULL OR id < $4)
             ORDER BY id DESC LIMIT $5",
            filter.target_id.as_deref(),
            filter.actor.as_deref(),
            filter.action.as_deref(),
            filter.before.as_deref(),
            i64::from(limit),
        )?;
        Ok(rows.into_iter().map(Row::into_row).collect())
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    at: UnixMillis,
    actor: String,
    actor_name: String,
    source: Option<String>,
    request_id: Option<String>,
    action: String,
    target_kind: String,
    target_id: String,
    target_name: String,
    before: Option<String>,
    after: Option<String>,
}

impl Row {
    fn into_row(self) -> AuditRow {
        // What does not read as JSON is shown as the text that it is.
        let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        AuditRow {
            id: self.id,
            at: self.at,
            actor: self.actor,
            actor_name: self.actor_name,
            source: self.source,
            request_id: self.request_id,
            action: self.action,
            target_kind: self.target_kind,
            target_id: self.target_id,
            target_name: self.target_name,
            before: self.before.map(value),
            after: self.after.map(value),
        }
    }
}
