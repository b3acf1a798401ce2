//! Moves an installation from one database to another: copies what differs, as often as it is asked
//! to, and compares both to the last value. Knows every table, and nothing of what is in them.
//!
//! All of a run reads one snapshot of the source, so a server may go on writing to it; the last run
//! keeps everybody else away. Until then the target bears a mark, by which a run knows that it may
//! write there, and everybody else that they may not serve from it.

mod rows;
mod tables;

use std::collections::{BTreeMap, HashMap};

use secrecy::SecretString;
use sqlx::{
    ConnectOptions as _, PgConnection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteLockingMode},
};

use super::{
    OpenOptions, Server, Store,
    backend::{Address, Dual, Write, execute, fetch_all, fetch_one, fetch_optional},
    error::{Result, StoreError},
    inspect,
    secrets::PEPPER,
    vault::Keyring,
};
pub use rows::Checksum;
use rows::{Column, Row, Value, change, columns, digest_of, each, names, put};
use tables::{MARK, Slices, TABLES, Table, Way};

/// Rows that are written in one statement, and transaction, at most.
const BATCH: usize = 500;

/// What is moved.
pub struct MoveOptions {
    /// Where the installation is.
    pub from: SecretString,
    /// Where it shall be: an empty database, or one that a move of it has begun.
    pub to: SecretString,
    /// The keys of both.
    pub keyring: Keyring,
    /// How a database server is used, on either side.
    pub server: Server,
    /// Whether nothing comes after it: nobody else may have the source open, and once both are found
    /// equal the target may serve.
    pub last: bool,
}

/// A table, compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// The table.
    pub table: &'static str,
    /// What the source holds.
    pub source: Checksum,
    /// What the target holds.
    pub target: Checksum,
}

/// One connection, in one transaction.
type Source = Dual<Box<SqliteConnection>, Box<PgConnection>>;

struct Moving<'a> {
    source: Source,
    target: Store,
    /// The columns of each table, on the source and on the target.
    columns: HashMap<&'static str, (Vec<Column>, Vec<Column>)>,
    told: &'a dyn Fn(String),
}

/// Copies what differs, and compares; says on the way, to `told`, how far it is.
pub async fn run(options: MoveOptions, told: &dyn Fn(String)) -> Result<Vec<Compared>> {
    let MoveOptions { from, to, keyring, server, last } = options;
    let from = Address::parse(&from, &server)?;
    if let Address::Sqlite(path) = &from
        && !path.exists()
    {
        return refuse(format!("there is no database at {}", path.display()));
    }
    let key_ids = keyring.lacks(&inspect::key_ids_in_use(&from).await?);
    if !key_ids.is_empty() {
        return Err(StoreError::MissingKey { key_ids });
    }
    let target = Store::open_on(OpenOptions { url: to, keyring }, &server).await?;
    target.migrate().await?;
    let source = if last { alone(&from).await? } else { snapshot(&from).await? };
    let mut moving = Moving { source, target, columns: HashMap::new(), told };
    let compared = moving.run(last).await;
    moving.target.close().await;
    compared
}

/// What servers that hold limits together read, out of what was copied (migration 11).
const SUMS_BY_HOLDER: &str = "INSERT INTO usage_holders (holder, id, hour, tokens, cost)
    SELECT 'team', team_id, hour, SUM(input + output), SUM(cost) FROM usage_hourly WHERE team_id <> '' GROUP BY team_id, hour
    UNION ALL
    SELECT 'user', user_id, hour, SUM(input + output), SUM(cost) FROM usage_hourly WHERE user_id <> '' GROUP BY user_id, hour
    UNION ALL
    SELECT 'key', key_id, hour, SUM(input + output), SUM(cost) FROM usage_hourly WHERE key_id <> '' GROUP BY key_id, hour";

fn refuse<T>(problem: impl Into<String>) -> Result<T> {
    Err(StoreError::Moving { problem: problem.into() })
}

/// The source as it is now, whatever is written to it meanwhile.
async fn snapshot(from: &Address) -> Result<Source> {
    let mut source = match from {
        Address::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path).pragma("query_only", "ON");
            Source::Sqlite(Box::new(options.connect().await.map_err(StoreError::Open)?))
        }
        Address::Postgres(address) => {
            Source::Postgres(Box::new(address.options.connect().await.map_err(StoreError::Open)?))
        }
    };
    begin(&mut source, "BEGIN").await?;
    Ok(source)
}

/// The same, without anybody else who has it open.
async fn alone(from: &Address) -> Result<Source> {
    const OTHERS: &str = "the source is open elsewhere: stop the server, and whatever else uses the database, first";
    match from {
        Address::Sqlite(path) => {
            // In this mode SQLite wants the file for itself.
            let options = SqliteConnectOptions::new().filename(path).locking_mode(SqliteLockingMode::Exclusive);
            let opened = async {
                let mut source = Source::Sqlite(Box::new(options.connect().await?));
                begin(&mut source, "BEGIN EXCLUSIVE").await?;
                Ok(source)
            };
            match opened.await {
                Err(StoreError::Query(sqlx::Error::Database(error))) if error.message().contains("locked") => {
                    refuse(OTHERS)
                }
                opened => opened,
            }
        }
        Address::Postgres(_) => {
            let mut source = snapshot(from).await?;
            let (others,) = fetch_one!(
                &mut source,
                (i64,),
                "SELECT COUNT(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
            )?;
            if others > 0 { refuse(OTHERS) } else { Ok(source) }
        }
    }
}

async fn begin(source: &mut Source, sqlite: &'static str) -> Result<()> {
    let sql = match source {
        Source::Sqlite(_) => sqlite,
        Source::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    };
    execute!(&mut *source, sql)?;
    // The snapshot is taken with the first thing read.
    fetch_all!(source, (String,), "SELECT topic FROM revisions")?;
    Ok(())
}

impl Moving<'_> {
    async fn run(&mut self, last: bool) -> Result<Vec<Compared>> {
        self.compare_schemas().await?;
        let is_new = self.may_begin().await?;
        self.copy_whole(is_new).await?;
        self.copy_rows().await?;
        for table in TABLES {
            if let Way::Slices(slices) = table.way {
                self.copy_slices(table, slices).await?;
            }
        }
        let mut compared = Vec::new();
        for table in TABLES {
            (self.told)(format!("{}: comparing", table.name));
            compared.push(self.compare(table).await?);
        }
        if last && compared.iter().all(|table| table.source == table.target) {
            let mut write = self.target.backend.write(&[]).await?;
            if self.target.is_shared() {
                execute!(&mut write, "DELETE FROM usage_holders")?;
                execute!(&mut write, SUMS_BY_HOLDER)?;
            }
            execute!(&mut write, "DELETE FROM revisions WHERE topic = $1", MARK)?;
            write.commit().await?;
        }
        Ok(compared)
    }

    async fn compare_schemas(&mut self) -> Result<()> {
        const VERSIONS: &str = "SELECT version FROM _sqlx_migrations ORDER BY version";
        let source = fetch_all!(&mut self.source, (i64,), VERSIONS)?;
        let mut session = self.target.backend.read().await?;
        if fetch_all!(&mut session, (i64,), VERSIONS)? != source {
            return refuse("the source's schema is of another version: start this version on it first");
        }
        for table in TABLES {
            let both = (columns(&mut self.source, table).await?, columns(&mut session, table).await?);
            let named = |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
            if both.0.is_empty() || named(&both.0) != named(&both.1) {
                return refuse(format!("the columns of {} are not the same on both databases", table.name));
            }
            self.columns.insert(table.name, both);
        }
        Ok(())
    }

    /// Whether the target is empty; refused where it is neither that nor a copy of this source.
    async fn may_begin(&mut self) -> Result<bool> {
        const OF_PEPPER: &str = "SELECT value FROM secrets WHERE name = $1";
        let source = fetch_optional!(&mut self.source, (String,), OF_PEPPER, PEPPER.row)?;
        let mut session = self.target.backend.read().await?;
        let target = fetch_optional!(&mut session, (String,), OF_PEPPER, PEPPER.row)?;
        if !self.target.is_being_moved().await? {
            for table in TABLES.iter().filter(|table| table.name != "revisions") {
                let sql = format!("SELECT CAST(1 AS BIGINT) FROM {} LIMIT 1", table.name);
                if fetch_optional!(&mut session, (i64,), sqlx::AssertSqlSafe(sql.clone()))?.is_some() {
                    return refuse("the target is in use: it has rows, and no move that has not been finished");
                }
            }
            return Ok(true);
        }
        let opened = |envelope: &Option<(String,)>| {
            envelope.as_ref().map(|(envelope,)| self.target.open_sealed(PEPPER, envelope)).transpose()
        };
        if opened(&source)? != opened(&target)? {
            return refuse("the target is a copy of another installation");
        }
        Ok(false)
    }

    fn columns(&self, table: &Table) -> (Vec<Column>, Vec<Column>) {
        self.columns.get(table.name).cloned().unwrap_or_default()
    }

    /// Replaces the small tables, all or none, where any of them differs.
    async fn copy_whole(&mut self, is_new: bool) -> Result<()> {
        let whole = || TABLES.iter().filter(|table| table.way == Way::Whole);
        let mut differ = is_new;
        for table in whole() {
            let Compared { source, target, .. } = self.compare(table).await?;
            differ |= source != target;
        }
        if !differ {
            return Ok(());
        }
        (self.told)("accounts, keys and all other small tables: copying".to_owned());
        let mut write = self.target.backend.write(&[]).await?;
        if let Write::Sqlite(_) = write {
            // Rows of one table refer to each other.
            execute!(&mut write, "PRAGMA defer_foreign_keys = ON")?;
        }
        for table in whole().collect::<Vec<_>>().into_iter().rev() {
            change(&mut write, &format!("DELETE FROM {}{}", table.name, table.condition()), &[]).await?;
        }
        for table in whole() {
            let (of_source, of_target) = self.columns(table);
            let sql = format!("SELECT {} FROM {}{}", names(&of_source), table.name, table.condition());
            let mut rows = Vec::new();
            each(&mut self.source, &sql, &[], &of_source, |row| rows.push(row)).await?;
            put(&mut write, table, &of_target, &rows, true).await?;
        }
        let mark = "INSERT INTO revisions (topic, revision) VALUES ($1, 1) ON CONFLICT (topic) DO NOTHING";
        execute!(&mut write, mark, MARK)?;
        write.commit().await
    }

    /// Copies the rows that differ, and then drops those that are gone: what they belong to last.
    async fn copy_rows(&mut self) -> Result<()> {
        let mut gone: Vec<(&Table, Vec<Vec<Value>>)> = Vec::new();
        for table in TABLES.iter().filter(|table| matches!(table.way, Way::Rows | Way::Log)) {
            let stale = self.copy_rows_of(table).await?;
            gone.push((table, stale));
        }
        for (table, stale) in gone.into_iter().rev().filter(|(table, _)| table.way == Way::Rows) {
            let sql = format!("DELETE FROM {} WHERE {}", table.name, table.by_key());
            for keys in stale.chunks(BATCH) {
                let mut write = self.target.backend.write(&[]).await?;
                for key in keys {
                    change(&mut write, &sql, key).await?;
                }
                write.commit().await?;
            }
        }
        Ok(())
    }

    /// Gives the keys of rows that the source has no more.
    async fn copy_rows_of(&mut self, table: &Table) -> Result<Vec<Vec<Value>>> {
        let (of_source, of_target) = self.columns(table);
        let key_of = |row: &Row| -> Vec<String> {
            let place = |name: &&str| of_source.iter().position(|column| column.name == **name);
            table.key.iter().filter_map(place).filter_map(|at| row.get(at)?.text()).collect()
        };
        let select = |columns: &[Column]| format!("SELECT {} FROM {}", names(columns), table.name);
        let mut there: HashMap<Vec<String>, u128> = HashMap::new();
        let mut session = self.target.backend.read().await?;
        let note = |row: Row| {
            there.insert(key_of(&row), digest_of(&row));
        };
        each(&mut session, &select(&of_target), &[], &of_target, note).await?;
        drop(session);
        let mut wanted = Vec::new();
        let sift = |row: Row| {
            let key = key_of(&row);
            if there.remove(&key) != Some(digest_of(&row)) {
                wanted.push(key);
            }
        };
        each(&mut self.source, &select(&of_source), &[], &of_source, sift).await?;
        if !wanted.is_empty() {
            (self.told)(format!("{}: copying {} rows", table.name, wanted.len()));
        }
        let values = |key: Vec<String>| key.into_iter().map(Value::Text).collect::<Vec<_>>();
        let one = format!("{} WHERE {}", select(&of_source), table.by_key());
        let wanted: Vec<_> = wanted.into_iter().map(values).collect();
        for keys in wanted.chunks(BATCH) {
            let mut rows = Vec::new();
            for key in keys {
                each(&mut self.source, &one, key, &of_source, |row| rows.push(row)).await?;
            }
            let mut write = self.target.backend.write(&[]).await?;
            put(&mut write, table, &of_target, &rows, table.way == Way::Rows).await?;
            write.commit().await?;
        }
        Ok(there.into_keys().map(values).collect())
    }

    /// Copies each slice that does not sum up to the same on both, in a transaction of its own: what
    /// was killed goes on with the slice that it was at.
    async fn copy_slices(&mut self, table: &Table, slices: Slices) -> Result<()> {
        let Slices { slot, length, sum, .. } = slices;
        let sql = format!(
            "SELECT CAST({slot} / {length} AS BIGINT), COUNT(*), CAST(SUM({sum}) AS BIGINT) FROM {} GROUP BY 1",
            table.name
        );
        let of_source = fetch_all!(&mut self.source, (i64, i64, i64), sqlx::AssertSqlSafe(sql.clone()))?;
        let mut session = self.target.backend.read().await?;
        let of_target = fetch_all!(&mut session, (i64, i64, i64), sqlx::AssertSqlSafe(sql.clone()))?;
        drop(session);
        // What both say, by slice.
        let mut both: BTreeMap<i64, [Option<(i64, i64)>; 2]> = BTreeMap::new();
        for (side, sums) in [of_source, of_target].into_iter().enumerate() {
            for (slice, rows, sum) in sums {
                both.entry(slice).or_default()[side] = Some((rows, sum));
            }
        }
        both.retain(|_, [source, target]| source != target);
        let all = both.len();
        for (number, (slice, _)) in both.into_iter().enumerate() {
            if number % 100 == 0 {
                (self.told)(format!("{}: copying slice {} of {all}", table.name, number + 1));
            }
            self.copy_slice(table, slices, slice).await?;
        }
        Ok(())
    }

    async fn copy_slice(&mut self, table: &Table, slices: Slices, slice: i64) -> Result<()> {
        let bounds = [slice, slice + 1].map(|slice| Value::Integer(slice.saturating_mul(slices.length)));
        let within = format!("WHERE {0} >= $1 AND {0} < $2", slices.slot);
        let mut write = self.target.backend.write(&[]).await?;
        // What is beneath goes with it.
        change(&mut write, &format!("DELETE FROM {} {within}", table.name), &bounds).await?;
        let mut parts = vec![(table, within.clone())];
        if let Some((name, column)) = slices.beneath {
            let beneath = TABLES.iter().filter(|table| table.name == name);
            let of_these = format!("WHERE {column} IN (SELECT {} FROM {} {within})", table.key.join(", "), table.name);
            parts.extend(beneath.map(|table| (table, of_these.clone())));
        }
        for (table, condition) in parts {
            let (of_source, of_target) = self.columns(table);
            let sql = format!("SELECT {} FROM {} {condition}", names(&of_source), table.name);
            let mut rows = Vec::new();
            each(&mut self.source, &sql, &bounds, &of_source, |row| rows.push(row)).await?;
            for rows in rows.chunks(BATCH * 4) {
                put(&mut write, table, &of_target, rows, true).await?;
            }
        }
        write.commit().await
    }

    async fn compare(&mut self, table: &Table) -> Result<Compared> {
        let (of_source, of_target) = self.columns(table);
        let sql = format!("SELECT {} FROM {}{}", names(&of_source), table.name, table.condition());
        let (mut source, mut target) = (Checksum::default(), Checksum::default());
        each(&mut self.source, &sql, &[], &of_source, |row| source.add(&row)).await?;
        let mut session = self.target.backend.read().await?;
        each(&mut session, &sql, &[], &of_target, |row| target.add(&row)).await?;
        Ok(Compared { table: table.name, source, target })
    }
}

impl Table {
    fn condition(&self) -> String {
        self.only.map_or_else(String::new, |only| format!(" WHERE {only}"))
    }

    fn by_key(&self) -> String {
        let equal = (1..).zip(self.key).map(|(number, column)| format!("{column} = ${number}"));
        equal.collect::<Vec<_>>().join(" AND ")
    }
}

impl Store {
    /// Whether it is a copy that a move has begun and not finished; nobody may serve from it.
    pub async fn is_being_moved(&self) -> Result<bool> {
        let mark = "SELECT revision FROM revisions WHERE topic = $1";
        let found = fetch_optional!(&mut self.backend.read().await?, (i64,), mark, MARK)?;
        Ok(found.is_some())
    }
}
