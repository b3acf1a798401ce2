//! The key file of an installation that was given no master key: made once, readable by its owner
//! alone, and never replaced by a new one while the database still needs the old.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{Keyring, VaultError};
use crate::store::files;

/// Longer than any sensible keyring, short enough that a wrong path does no harm.
const MAX_BYTES: u64 = 64 * 1024;

/// Whether the key file was there; the caller says it in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFileOrigin {
    /// It was there and was read.
    Found,
    /// There was none and nothing was sealed yet, so a new key was made.
    Created,
}

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no file, but the database holds secrets; a new key could not open them.
    #[error(
        "the key file {} is gone, but the database has secrets sealed under {}: put the file back, or give that key as TOLLWAY_MASTER_KEY; nothing was changed", path.display(), key_ids.join(", ")
    )]
    Lost {
        /// Where the file should be.
        path: PathBuf,
        /// The key ids that the database uses.
        key_ids: Vec<String>,
    },
    /// Others than its owner may read or write the file.
    #[error(
        "the key file {} is open to others (mode {mode:04o}): run `chmod 600 {}`, and think about whether somebody has read it", path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no usable key.
    #[error("the key file {} cannot be used", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: VaultError,
    },
    /// No new key could be made.
    #[error("cannot make a new key")]
    Generate(#[source] VaultError),
    /// The file cannot be read or written.
    #[error("cannot read or write the key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The key file at one path.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The key file at `path`; touches nothing yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the key file; when there is none and nothing is sealed yet, makes one.
    ///
    /// `in_use` is what `Store::key_ids_in_use` says about the database. It is asked for so that a
    /// lost file is never silently replaced by a key that opens nothing.
    pub fn load_or_create(&self, in_use: &BTreeSet<String>) -> Result<(Keyring, KeyFileOrigin), KeyFileError> {
        if let Some(keyring) = self.load()? {
            return Ok((keyring, KeyFileOrigin::Found));
        }
        if !in_use.is_empty() {
            let key_ids = in_use.iter().cloned().collect();
            return Err(KeyFileError::Lost { path: self.path.clone(), key_ids });
        }
        let text = Keyring::generate_text().map_err(KeyFileError::Generate)?;
        match self.write_new(&text) {
            Ok(()) => Ok((self.keyring(&text)?, KeyFileOrigin::Created)),
            // Another process started first and won: its key is the one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let keyring = self.load()?.ok_or_else(|| self.io(error))?;
                Ok((keyring, KeyFileOrigin::Found))
            }
            Err(error) => Err(self.io(error)),
        }
    }

    /// Reads the key file; `None` when there is none.
    pub fn load(&self) -> Result<Option<Keyring>, KeyFileError> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        let mode = file.metadata().map_err(|error| self.io(error))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed { path: self.path.clone(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| self.io(error))?;
        self.keyring(&SecretString::from(text.as_str())).map(Some)
    }

    /// The key is on the disk, and its name in the directory, before anything is sealed under it.
    fn write_new(&self, text: &SecretString) -> io::Result<()> {
        if let Some(directory) = files::parent(&self.path) {
            files::create_private_directory(directory)?;
        }
        let mut file = files::create_private_file(&self.path)?;
        let line = Zeroizing::new(format!("{}\n", text.expose_secret()));
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        files::sync_directory_of(&self.path)
    }

    fn keyring(&self, text: &SecretString) -> Result<Keyring, KeyFileError> {
        Keyring::parse(text).map_err(|source| KeyFileError::Malformed { path: self.path.clone(), source })
    }

    fn io(&self, source: io::Error) -> KeyFileError {
        KeyFileError::Io { path: self.path.clone(), source }
    }
}
