//! The migrations, embedded; forward only and numbered alike for both databases.

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

use super::{
    backend::{Backend, fetch_one},
    error::{Result, StoreError},
};

/// One migration in both dialects.
struct Embedded {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! embedded {
    ($($version:literal $name:literal $file:literal),* $(,)?) => {
        &[$(Embedded {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $file)),
            postgres: include_str!(concat!("../../migrations/postgres/", $file)),
        }),*]
    };
}

/// Every file of `migrations/`; a test compares the two. (`sqlx::migrate!` would list them itself,
/// but comes only with sqlx's query macros, which build SQLite a second time.)
const EMBEDDED: &[Embedded] = embedded![
    1 "initial" "0001_initial.sql",
    2 "responses" "0002_responses.sql",
    3 "key_rights" "0003_key_rights.sql",
    4 "batches" "0004_batches.sql",
    5 "pool" "0005_pool.sql",
    6 "tenants" "0006_tenants.sql",
    7 "admin" "0007_admin.sql",
    8 "aliases" "0008_aliases.sql",
    9 "usage_indexes" "0009_usage_indexes.sql",
    10 "leases" "0010_leases.sql",
    11 "slices" "0011_slices.sql",
    12 "changes" "0012_changes.sql",
    13 "usage_hourly_model" "0013_usage_hourly_model.sql",
    14 "homes" "0014_homes.sql",
];

/// Brings the schema up to date. Several processes may do so at once; each migration runs once.
/// A schema that newer programs have added to is taken as it is; one that needs them is refused.
pub(super) async fn run(backend: &Backend) -> Result<()> {
    apply(backend).await?;
    let mut session = backend.read().await?;
    let known = EMBEDDED.last().map_or(0, |last| last.version);
    let (needs,) = fetch_one!(&mut session, (i64,), "SELECT COALESCE(MAX(version), 0) FROM schema_needs")?;
    if needs > known {
        return Err(StoreError::TooNew { needs, known });
    }
    let (newest,) = fetch_one!(&mut session, (i64,), "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")?;
    if newest > known {
        tracing::warn!(newest, known, "the database's schema is newer than this program, and goes with it");
    }
    Ok(())
}

async fn apply(backend: &Backend) -> Result<()> {
    match backend {
        Backend::Sqlite(pools) => {
            let migrator = migrator(|one| one.sqlite);
            // sqlx takes no lock on SQLite. One transaction around the whole run is that lock, and
            // leaves nothing half done.
            let mut all = pools.writer.begin_with("BEGIN IMMEDIATE").await?;
            // Not `run`: its future is not `Send` for a connection that is borrowed.
            migrator.run_direct(None, &mut *all, false).await.map_err(StoreError::Migrate)?;
            all.commit().await?;
        }
        Backend::Postgres(server) => {
            // sqlx locks for the session. A connection of its own, closed also when this future is
            // dropped half-way: back in the pool it would hold the lock against everybody.
            let mut own = server.pool.acquire().await?.detach();
            // Whoever comes second waits for the first, and a migration takes as long as it takes.
            sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0").execute(&mut own).await?;
            if let Some(schema) = &server.schema {
                make_schema(&mut own, schema).await?;
            }
            migrator(|one| one.postgres).run_direct(None, &mut own, false).await.map_err(StoreError::Migrate)?;
            own.close().await?;
        }
    }
    Ok(())
}

/// Makes the schema unless it is there, which is asked first: to make one takes a right that the
/// server's user need not have.
async fn make_schema(connection: &mut PgConnection, schema: &str) -> Result<()> {
    let there: (bool,) = sqlx::query_as("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?;
    if there.0 {
        return Ok(());
    }
    let quoted = schema.replace('"', "\"\"");
    let create = AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS \"{quoted}\""));
    match sqlx::raw_sql(create).execute(&mut *connection).await {
        Ok(_) => Ok(()),
        // Two replicas that begin at once: the other one has made it.
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn migrator(sql: impl Fn(&Embedded) -> &'static str) -> Migrator {
    let migration = |one: &Embedded| {
        Migration::new(one.version, one.name.into(), MigrationType::Simple, sql(one).into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(EMBEDDED.iter().map(migration).collect());
    // What a newer program has added stays; whether that goes with this one the schema says itself.
    migrator.set_ignore_missing(true);
    migrator
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn files(database: &str) -> BTreeMap<String, String> {
        let directory = format!("{}/migrations/{database}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read_to_string(entry.path()).unwrap())
            })
            .collect()
    }

    fn embedded(sql: impl Fn(&Embedded) -> &'static str) -> BTreeMap<String, String> {
        let file = |one: &Embedded| (format!("{:04}_{}.sql", one.version, one.name), sql(one).to_owned());
        EMBEDDED.iter().map(file).collect()
    }

    #[test]
    fn every_migration_file_is_embedded_under_its_own_number() {
        assert_eq!(embedded(|one| one.sqlite), files("sqlite"));
        assert_eq!(embedded(|one| one.postgres), files("postgres"));
    }

    #[test]
    fn versions_only_go_up() {
        assert!(EMBEDDED.is_sorted_by(|one, next| one.version < next.version));
    }
}
