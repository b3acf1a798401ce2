//! What can go wrong in the store. No message holds a secret, a statement's values or a database URL.

use std::{
    io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

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
    /// The schema lacks what this program needs of it: a newer one has taken it away.
    #[error(
        "the database's schema needs a program that knows migration {needs}, and this one ends at {known}: start the version that has migrated it, or a newer one"
    )]
    TooNew {
        /// The migration that must be known.
        needs: i64,
        /// The last one that is.
        known: i64,
    },
    /// A statement failed.
    #[error("the database refused a statement")]
    Query(#[source] sqlx::Error),
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

/// Why a statement failed, for the metrics: few, fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// No connection, or one that broke.
    Connection,
    /// No connection became free in time.
    Pool,
    /// The server's limit for a statement or a lock, or an operator, ended it.
    Timeout,
    /// Others were in the way: a deadlock, or a busy file.
    Conflict,
    /// The database takes no writes.
    ReadOnly,
    /// No room is left: the disk, memory, connections.
    Full,
    /// Anything else.
    Other,
}

impl Cause {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Connection, "connection"),
        (Self::Pool, "pool"),
        (Self::Timeout, "timeout"),
        (Self::Conflict, "conflict"),
        (Self::ReadOnly, "read_only"),
        (Self::Full, "full"),
        (Self::Other, "other"),
    ];

    fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Pool,
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::Protocol(_) => {
                Self::Connection
            }
            // SQLSTATE, and SQLite's numbers (of which the last byte is the kind).
            sqlx::Error::Database(error) => match error.code().as_deref().unwrap_or_default() {
                "57014" | "55P03" => Self::Timeout,
                "25006" | "8" => Self::ReadOnly,
                "5" | "6" | "261" | "517" => Self::Conflict,
                "13" => Self::Full,
                code if code.starts_with("08") || code.starts_with("57P") => Self::Connection,
                code if code.starts_with("40") => Self::Conflict,
                code if code.starts_with("53") => Self::Full,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// How often statements have failed since the process began, by cause.
static FAILURES: [AtomicU64; Cause::ALL.len()] = [const { AtomicU64::new(0) }; Cause::ALL.len()];

/// How often statements have failed since the process began, by cause; every cause is named.
pub fn failures() -> impl Iterator<Item = (&'static str, u64)> {
    Cause::ALL.iter().zip(&FAILURES).map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        FAILURES[Cause::of(&error) as usize].fetch_add(1, Ordering::Relaxed);
        Self::Query(error)
    }
}

impl StoreError {
    /// Whether the database could not be asked, or could not do it now, so that the same may go well
    /// later: it says nothing of what was asked.
    pub fn is_outage(&self) -> bool {
        let (Self::Open(error) | Self::Query(error)) = self else { return false };
        Cause::of(error) != Cause::Other
    }

    /// Whether a database that is only being started, or is not to be reached yet, would say so.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Open(sqlx::Error::Database(error)) => {
                let code = error.code();
                let code = code.as_deref().unwrap_or_default();
                // Starting up, too many connections, no such database yet.
                code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") || code == "3D000"
            }
            Self::Open(error) | Self::Query(error) => matches!(Cause::of(error), Cause::Connection | Cause::Pool),
            _ => false,
        }
    }
}
