//! The migrations, embedded; forward only and numbered alike for both databases.

use sqlx::{
    Connection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

use super::{
    backend::Backend,
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
];

/// Brings the schema up to date. Several processes may do so at once; each migration runs once.
pub(super) async fn run(backend: &Backend) -> Result<()> {
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
        Backend::Postgres(pool) => {
            // sqlx locks for the session. A connection of its own, closed also when this future is
            // dropped half-way: back in the pool it would hold the lock against everybody.
            let mut own = pool.acquire().await?.detach();
            migrator(|one| one.postgres).run_direct(None, &mut own, false).await.map_err(StoreError::Migrate)?;
            own.close().await?;
        }
    }
    Ok(())
}

fn migrator(sql: impl Fn(&Embedded) -> &'static str) -> Migrator {
    let migration = |one: &Embedded| {
        Migration::new(one.version, one.name.into(), MigrationType::Simple, sql(one).into_sql_str(), false)
    };
    Migrator::with_migrations(EMBEDDED.iter().map(migration).collect())
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
