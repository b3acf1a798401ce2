//! Programs that the tests use and the repository does not hold: real clients, `promtool`, a trace
//! collector. `tests/clients/install` puts them into one directory.

use std::path::{Path, PathBuf};

/// The directory of the installed programs.
pub(crate) struct Tools {
    directory: PathBuf,
}

impl Tools {
    /// `TW_TEST_TOOLS`, or the installer's default.
    pub(crate) fn new() -> Self {
        let given = std::env::var_os("TW_TEST_TOOLS").map(PathBuf::from);
        let directory = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/.tools"));
        Self { directory }
    }

    /// A program, if it is installed. On CI it must be.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        let found = self.directory.join(name);
        if found.exists() {
            return Some(found);
        }
        assert!(std::env::var_os("CI").is_none(), "{} is missing: tests/clients/install did not work", found.display());
        None
    }

    /// The interpreter that has the SDKs.
    pub(crate) fn python(&self) -> Option<PathBuf> {
        self.find("venv/bin/python")
    }

    /// The Node.js that the packages want; Debian's is too old for some.
    pub(crate) fn node(&self) -> Option<PathBuf> {
        self.find("node_modules/.bin/node")
    }

    /// Where everything is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A script of tests/clients.
    pub(crate) fn script(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
    }
}

/// Says why a test did nothing.
pub(crate) fn skip(what: &str) {
    eprintln!("SKIPPED: {what} is not installed; run tests/clients/install");
}
