//! The store: SQLite and Postgres, one file an aggregate; the vault seals what is secret.
