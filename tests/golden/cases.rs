//! The cases on disk.

use super::run::Api;
use std::fs;
use std::path::{Path, PathBuf};

/// One directory with a request.
pub(crate) struct Case {
    pub(crate) api: Api,
    pub(crate) directory: PathBuf,
    pub(crate) request: Vec<u8>,
    pub(crate) stream: Option<Vec<u8>>,
}

impl Case {
    /// What the case shows.
    pub(crate) fn name(&self) -> &str {
        self.directory.file_name().unwrap().to_str().unwrap()
    }
}

/// Where the cases lie.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// All cases, in the order of their names.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (folder, api) in
        [("chat", Api::Chat), ("images", Api::Images), ("messages", Api::Messages), ("responses", Api::Responses)]
    {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let directory = entry.unwrap().path();
            let is_codex =
                folder == "responses" && directory.file_name().unwrap().to_str().unwrap().starts_with("codex_cli");
            cases.push(Case {
                api: if is_codex { Api::CodexCli } else { api },
                request: fs::read(directory.join("request.json")).unwrap(),
                stream: fs::read(directory.join("stream.sse")).ok(),
                directory,
            });
        }
    }
    cases.sort_by(|one, other| one.directory.cmp(&other.directory));
    cases
}
