//! What can go wrong in the store. No message holds a secret, a statement's values or a database URL.

use std::{io, path::PathBuf};

use super::{KeyId, vault::VaultError};

/// Shorthand for the store's results.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database URL is of no kind that is known. The URL is not repeated: it may hold a password.
    #[error("the database URL cannot be used: {reason}")]
    Url {
        /// What is wrong, in words.
        reason: &'static str,
    },
    /// The directory or file of a new SQLite database could not be made.
    #[error("cannot create {}", path.display())]
    Create {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database cannot be reached or opened.
    #[error("cannot open the database")]
    Open(#[source] sqlx::Error),
    /// The database holds secrets that no key of the keyring opens. Nothing was changed.
    #[error(
        "the database has secrets sealed under key id {}, which the master key given does not include: add that key to TOLLWAY_MASTER_KEY (or its _FILE, or the key file) after the current one; nothing was changed", key_ids.join(", ")
    )]
    MissingKey {
        /// The ids of the missing keys.
        key_ids: Vec<String>,
    },
    /// The schema could not be brought up to date.
    #[error("cannot migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("the database refused a statement")]
    Query(#[from] sqlx::Error),
    /// A value could not be sealed.
    #[error("cannot seal a secret")]
    Seal(#[source] VaultError),
    /// A sealed value does not open: changed, moved, or sealed under a key that is not there.
    #[error("cannot open the sealed value in {table}.{column} of row {row}")]
    Unsealable {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's primary key.
        row: String,
        /// What the vault says.
        #[source]
        source: VaultError,
    },
    /// A row holds what this program never wrote.
    #[error("{table} row {row} is damaged: {problem}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// The row's primary key.
        row: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It cannot go while something else needs it.
    #[error("the {what} is still in use by {by}")]
    InUse {
        /// `pool`.
        what: &'static str,
        /// Who needs it.
        by: String,
    },
    /// Another one has the name.
    #[error("there is another {what} called {name:?}")]
    Taken {
        /// `team`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A gateway key of this hash was stored before.
    #[error("a key of this hash is there already")]
    KnownHash,
    /// Somebody else changed it in the meantime.
    #[error("the {what} {id} has been changed by somebody else since it was read")]
    Outdated {
        /// `team`.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// The same request has made its change before.
    #[error("this request has been made before")]
    Repeated,
    /// The installation cannot be moved from one database to the other.
    #[error("{problem}")]
    Moving {
        /// Why not, and what to do.
        problem: String,
    },
    /// Nothing matches.
    #[error("no {what} is called {asked:?}")]
    NotFound {
        /// `account` or `key`.
        what: &'static str,
        /// What was asked for.
        asked: String,
    },
    /// More than one matches.
    #[error("{asked:?} is more than one {what}: {}; name one of them by its id", matches.join(", "))]
    Ambiguous {
        /// `account` or `key`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// Each match as `name (id)`.
        matches: Vec<String>,
    },
    /// Only a key that is neither revoked nor rotated can be rotated.
    #[error("the key {id} is {state}, so it cannot be rotated")]
    NotCurrent {
        /// The key.
        id: KeyId,
        /// `revoked` or `already rotated`.
        state: &'static str,
    },
}
