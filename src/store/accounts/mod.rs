//! Accounts and their sealed credentials: one row each, written together.

mod model;
mod row;

use secrecy::{ExposeSecret, SecretString};

pub use model::{
    Account, AccountChange, AccountShare, AccountState, Credentials, NewAccount, NewCredentials, Saved, UnknownState,
    Upserted,
};

use super::{
    AccountId, Store, UnixMillis,
    audit::Note,
    backend::{Topic, Write, execute, fetch_all, fetch_one, fetch_optional},
    error::{Result, StoreError},
    exchanges, find,
    pools::write_names,
    tenants::check_version,
    vault::Place,
};
use row::{ACCOUNT, ACCOUNTS, AccountRow, CredentialsRow};
use serde_json::{Value, json};

const ACCESS_TOKEN: &str = "access_token";
const REFRESH_TOKEN: &str = "refresh_token";
const ID_TOKEN: &str = "id_token";

/// Where a token of an account lives.
fn place<'a>(column: &'static str, row: &'a str) -> Place<'a> {
    Place { table: "credentials", column, row }
}

/// Accounts in the store; made by `Store::accounts`.
#[derive(Debug, Clone, Copy)]
pub struct AccountStore<'a> {
    store: &'a Store,
}

impl<'a> AccountStore<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// All accounts, by name.
    pub async fn list(&self) -> Result<Vec<Account>> {
        let rows = fetch_all!(&mut self.store.backend.read().await?, AccountRow, ACCOUNTS)?;
        rows.into_iter().map(Account::try_from).collect()
    }

    /// One account.
    pub async fn get(&self, id: AccountId) -> Result<Option<Account>> {
        let mut session = self.store.backend.read().await?;
        let row = fetch_optional!(&mut session, AccountRow, ACCOUNT, id.to_string())?;
        row.map(Account::try_from).transpose()
    }

    /// The account that `asked` means: an id, a name, an email, or the start of an id (six
    /// characters or more). `NotFound` and `Ambiguous` say what went wrong.
    pub async fn find(&self, asked: &str) -> Result<Account> {
        find::choose(self.list().await?, asked)
    }

    /// The credentials of an account, opened; `None` when it was removed.
    pub async fn credentials(&self, id: AccountId) -> Result<Option<Credentials>> {
        let row_id = id.to_string();
        let sealed = fetch_optional!(
            &mut self.store.backend.read().await?,
            CredentialsRow,
            "SELECT access_token, refresh_token, id_token, access_expires_at, last_refresh_at, generation
             FROM credentials WHERE account_id = $1",
            row_id.as_str(),
        )?;
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let open = |column, envelope: &str| self.store.open_text(place(column, &row_id), envelope);
        Ok(Some(Credentials {
            access_token: open(ACCESS_TOKEN, &sealed.access_token)?,
            refresh_token: open(REFRESH_TOKEN, &sealed.refresh_token)?,
            id_token: sealed.id_token.map(|envelope| open(ID_TOKEN, &envelope)).transpose()?,
            access_expires_at: sealed.access_expires_at,
            last_refresh_at: sealed.last_refresh_at,
            generation: sealed.generation,
        }))
    }

    /// Stores an account, or new credentials of one that is there: the same user in the same
    /// workspace. A name that is taken gets a number; an account that is there keeps its name unless
    /// a new one is given.
    pub async fn upsert(&self, new: NewAccount, now: UnixMillis) -> Result<Upserted> {
        let mut write = self.store.backend.write(&[Topic::Accounts]).await?;
        let there = fetch_optional!(
            &mut write,
            (String, String),
            "SELECT id, name FROM accounts
             WHERE chatgpt_account_id = $1 AND COALESCE(chatgpt_user_id, '') = COALESCE($2, '')",
            new.chatgpt_account_id.as_str(),
            new.chatgpt_user_id.as_deref(),
        )?;
        let is_new = there.is_none();
        let (id, old_name) = there.map_or_else(|| (AccountId::new().to_string(), None), |(id, name)| (id, Some(name)));
        let name = free_name(&mut write, &id, wanted_name(&new, old_name.as_deref())).await?;
        if is_new {
            insert(&mut write, &id, &name, &new, now).await?;
        } else {
            replace(&mut write, &id, &name, &new, now).await?;
        }
        self.put_credentials(&mut write, &id, &new.credentials, now).await?;
        let account = Account::try_from(fetch_one!(&mut write, AccountRow, ACCOUNT, id.as_str())?)?;
        let action = if is_new { "account.create" } else { "account.login" };
        let after = Some(told(&account));
        self.store.note(&mut write, Note { action, id: &id, name: &name, before: None, after }).await?;
        write.commit().await?;
        Ok(if is_new { Upserted::Created(account) } else { Upserted::Replaced(account) })
    }

    /// Stores refreshed credentials if those they came from, generation `expected`, are still the
    /// stored ones. On the disk when it returns `Stored`.
    pub async fn save_refreshed(
        &self,
        id: AccountId,
        expected: i64,
        new: &NewCredentials,
        now: UnixMillis,
    ) -> Result<Saved> {
        let id = id.to_string();
        let sealed = self.seal(&id, new)?;
        let mut write = self.store.backend.write(&[Topic::Accounts]).await?;
        let stored = execute!(
            &mut write,
            "UPDATE credentials SET access_token = $3, refresh_token = $4,
                id_token = COALESCE($5, id_token), access_expires_at = $6, last_refresh_at = $7,
                generation = generation + 1
             WHERE account_id = $1 AND generation = $2",
            id.as_str(),
            expected,
            sealed.access,
            sealed.refresh,
            sealed.id,
            new.access_expires_at,
            now,
        )?;
        if stored == 0 {
            return why_not_saved(&mut write, &id).await;
        }
        // A good exchange disproves that a login is needed; another process may have said so first.
        execute!(
            &mut write,
            "UPDATE accounts SET updated_at = $2,
                state_since = CASE WHEN state = 'needs_login' THEN $2 ELSE state_since END,
                state_reason = CASE WHEN state = 'needs_login' THEN NULL ELSE state_reason END,
                state_detail = CASE WHEN state = 'needs_login' THEN NULL ELSE state_detail END,
                state = CASE WHEN state = 'needs_login' THEN 'active' ELSE state END
             WHERE id = $1",
            id.as_str(),
            now,
        )?;
        write.commit().await?;
        Ok(Saved::Stored { generation: expected + 1 })
    }

    /// Sets the state. With `expected_generation`, only if the stored credentials are still those:
    /// what was learnt about old credentials says nothing about new ones. Returns whether it was set.
    pub async fn set_state(
        &self,
        id: AccountId,
        expected_generation: Option<i64>,
        state: AccountState,
        reason: Option<&str>,
        detail: Option<&str>,
        now: UnixMillis,
    ) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Accounts]).await?;
        let changed = execute!(
            &mut write,
            "UPDATE accounts SET
                state_since = CASE WHEN state = $3 THEN state_since ELSE $6 END,
                state = $3, state_reason = $4, state_detail = $5, updated_at = $6
             WHERE id = $1 AND ($2 IS NULL OR EXISTS
                (SELECT 1 FROM credentials WHERE account_id = $1 AND generation = $2))",
            id.to_string(),
            expected_generation,
            state.as_str(),
            reason,
            detail,
            now,
        )?;
        commit_if(write, changed).await
    }

    /// Changes what people say of an account; only its `version`, if one is given, else `Outdated`. A
    /// name that is taken is `Taken`. What keys may use follows from tags, so that they are read again too.
    pub async fn change(
        &self,
        id: AccountId,
        change: &AccountChange,
        version: Option<i64>,
        now: UnixMillis,
    ) -> Result<Account> {
        let mut write = self.store.backend.write(&[Topic::Accounts, Topic::Keys]).await?;
        let id = id.to_string();
        let row = fetch_optional!(&mut write, AccountRow, ACCOUNT, id.as_str())?;
        let not_found = || StoreError::NotFound { what: "account", asked: id.clone() };
        let old = Account::try_from(row.ok_or_else(not_found)?)?;
        check_version("account", &id, Some((old.version,)), version)?;
        let name = change.name.as_deref().unwrap_or(&old.name);
        let share = change.share.as_ref().unwrap_or(&old.share);
        let changed = execute!(
            &mut write,
            "UPDATE accounts SET name = $2, paused = $3, weight = $4, priority = $5, tags = $6, updated_at = $7,
                version = version + 1
             WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM accounts WHERE name = $2 AND id <> $1)",
            id.as_str(),
            name,
            change.paused.unwrap_or(old.paused),
            share.weight,
            i64::from(share.priority),
            write_names(&share.tags),
            now,
        )?;
        if changed == 0 {
            return Err(StoreError::Taken { what: "account", name: name.to_owned() });
        }
        let new = Account::try_from(fetch_one!(&mut write, AccountRow, ACCOUNT, id.as_str())?)?;
        let (before, after) = (Some(told(&old)), Some(told(&new)));
        self.store.note(&mut write, Note { action: "account.update", id: &id, name, before, after }).await?;
        write.commit().await?;
        Ok(new)
    }

    /// Sets or, with `None`, clears until when the backend's limit is used up. Returns whether the
    /// account is there.
    pub async fn set_limited(
        &self,
        id: AccountId,
        until: Option<UnixMillis>,
        reason: Option<&str>,
        now: UnixMillis,
    ) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Accounts]).await?;
        let changed = execute!(
            &mut write,
            "UPDATE accounts SET limited_until = $2, limit_reason = $3, updated_at = $4 WHERE id = $1",
            id.to_string(),
            until,
            reason,
            now,
        )?;
        commit_if(write, changed).await
    }

    /// Removes an account and its credentials. A key that was bound to it stays bound to the others,
    /// or to none; it never becomes a key for every account. Returns whether it was there.
    pub async fn remove(&self, id: AccountId) -> Result<bool> {
        let mut write = self.store.backend.write(&[Topic::Accounts, Topic::Keys]).await?;
        let id = id.to_string();
        let Some(row) = fetch_optional!(&mut write, AccountRow, ACCOUNT, id.as_str())? else { return Ok(false) };
        let account = Account::try_from(row)?;
        exchanges::forget(&mut write, &id).await?;
        let changed = execute!(&mut write, "DELETE FROM accounts WHERE id = $1", id.as_str())?;
        let before = Some(told(&account));
        let note = Note { action: "account.remove", id: &id, name: &account.name, before, after: None };
        self.store.note(&mut write, note).await?;
        commit_if(write, changed).await
    }

    async fn put_credentials(&self, write: &mut Write, id: &str, new: &NewCredentials, now: UnixMillis) -> Result<()> {
        let sealed = self.seal(id, new)?;
        execute!(
            write,
            "INSERT INTO credentials (account_id, access_token, refresh_token, id_token,
                access_expires_at, last_refresh_at, generation)
             VALUES ($1, $2, $3, $4, $5, $6, 1)
             ON CONFLICT (account_id) DO UPDATE SET
                access_token = excluded.access_token, refresh_token = excluded.refresh_token,
                id_token = excluded.id_token, access_expires_at = excluded.access_expires_at,
                last_refresh_at = excluded.last_refresh_at, generation = credentials.generation + 1",
            id,
            sealed.access,
            sealed.refresh,
            sealed.id,
            new.access_expires_at,
            now,
        )?;
        Ok(())
    }

    fn seal(self, id: &str, new: &NewCredentials) -> Result<Sealed> {
        let seal = |column, token: &SecretString| self.store.seal(place(column, id), token.expose_secret().as_bytes());
        Ok(Sealed {
            access: seal(ACCESS_TOKEN, &new.access_token)?,
            refresh: seal(REFRESH_TOKEN, &new.refresh_token)?,
            id: new.id_token.as_ref().map(|token| seal(ID_TOKEN, token)).transpose()?,
        })
    }
}

/// What the audit log says of an account.
fn told(account: &Account) -> Value {
    let Account { name, email, plan, paused, share, .. } = account;
    json!({
        "name": name, "email": email, "plan": plan, "paused": paused,
        "weight": share.weight, "priority": share.priority, "tags": share.tags,
    })
}

/// The envelopes of one set of credentials.
struct Sealed {
    access: String,
    refresh: String,
    id: Option<String>,
}

/// A write that changed nothing must not look like a change: without commit it is undone, the bump
/// of the revision with it.
async fn commit_if(write: Write, changed: u64) -> Result<bool> {
    if changed > 0 {
        write.commit().await?;
    }
    Ok(changed > 0)
}

/// Somebody was faster, or the account is gone.
async fn why_not_saved(write: &mut Write, id: &str) -> Result<Saved> {
    let (there,) = fetch_one!(write, (i64,), "SELECT COUNT(*) FROM credentials WHERE account_id = $1", id)?;
    Ok(if there > 0 { Saved::Stale } else { Saved::Gone })
}

async fn insert(write: &mut Write, id: &str, name: &str, new: &NewAccount, now: UnixMillis) -> Result<()> {
    execute!(
        write,
        "INSERT INTO accounts (id, name, email, chatgpt_user_id, chatgpt_account_id, plan, fedramp,
            state, state_since, paused, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, FALSE, $9, $9)",
        id,
        name,
        new.email.as_deref(),
        new.chatgpt_user_id.as_deref(),
        new.chatgpt_account_id.as_str(),
        new.plan.as_deref(),
        new.fedramp,
        AccountState::Active.as_str(),
        now,
    )?;
    Ok(())
}

/// What a login does not tell (an email, a plan) stays as it was.
async fn replace(write: &mut Write, id: &str, name: &str, new: &NewAccount, now: UnixMillis) -> Result<()> {
    execute!(
        write,
        "UPDATE accounts SET name = $2, email = COALESCE($3, email), plan = COALESCE($4, plan),
            fedramp = $5, version = version + 1, state_since = CASE WHEN state = $6 THEN state_since ELSE $7 END, state = $6,
            state_reason = NULL, state_detail = NULL, limited_until = NULL, limit_reason = NULL,
            updated_at = $7
         WHERE id = $1",
        id,
        name,
        new.email.as_deref(),
        new.plan.as_deref(),
        new.fedramp,
        AccountState::Active.as_str(),
        now,
    )?;
    Ok(())
}

/// The name before a number is added to it.
fn wanted_name<'a>(new: &'a NewAccount, old_name: Option<&'a str>) -> &'a str {
    [new.name.as_deref(), old_name, new.email.as_deref()]
        .into_iter()
        .flatten()
        .map(str::trim)
        .find(|name| !name.is_empty())
        .unwrap_or(&new.chatgpt_account_id)
}

/// `wanted`, or `wanted-2`, `wanted-3` … if another account than `id` has it.
async fn free_name(write: &mut Write, id: &str, wanted: &str) -> Result<String> {
    let taken = fetch_all!(write, (String,), "SELECT name FROM accounts WHERE id <> $1", id)?;
    let is_free = |name: &String| !taken.iter().any(|(other,)| other == name);
    let numbered = (2_u64..).map(|number| format!("{wanted}-{number}"));
    let mut candidates = std::iter::once(wanted.to_owned()).chain(numbered);
    Ok(candidates.find(is_free).unwrap_or_else(|| wanted.to_owned()))
}

impl find::Labelled for Account {
    const WHAT: &'static str = "account";

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
