//! The picture of the house (lib.rs), checked: dependencies point one way, every module says what
//! it is for, and no room is a lumber room.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms it may know. What is not in the table is not allowed.
const ROOMS: &[(&str, &[&str])] = &[
    ("cli", &["server", "account", "tenant", "ledger", "config", "telemetry", "codex", "oauth", "store"]),
    (
        "server",
        &[
            "relay",
            "kept",
            "batch",
            "webhook",
            "dialect",
            "account",
            "tenant",
            "ledger",
            "config",
            "telemetry",
            "codex",
            "oauth",
            "oidc",
            "store",
        ],
    ),
    ("relay", &["dialect", "account", "tenant", "ledger", "telemetry", "codex", "oauth", "store"]),
    ("kept", &["dialect", "codex", "store"]),
    ("batch", &["dialect", "store"]),
    ("webhook", &["store"]),
    ("dialect", &["codex"]),
    ("account", &["telemetry", "codex", "oauth", "store"]),
    ("tenant", &["store"]),
    ("ledger", &["store"]),
    // The types of its values: addresses of the issuer, grants, strategies, formats of logs and traces.
    ("config", &["oauth", "oidc", "store", "telemetry"]),
    // What the backend counted is what the metrics count.
    ("telemetry", &["codex"]),
    ("codex", &[]),
    ("oauth", &[]),
    // Roles are the store's, and PKCE is the same towards every provider.
    ("oidc", &["oauth", "store"]),
    ("store", &[]),
];

/// Names that say nothing about what is inside.
const LUMBER: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc", "manager"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The text without comments, so that a picture in a doc comment is no dependency.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source file");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms named behind `root`, alone (`crate::store::…`) or in a group (`crate::{store::…, oauth}`).
fn rooms_behind(root: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (place, _) in code.match_indices(root) {
        let rest = &code[place + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_names(group)),
            None => found.extend(first_name(rest)),
        }
    }
    found
}

fn first_name(path: &str) -> Option<String> {
    let end = path.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

/// The first name of each path in a group, up to its closing brace.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0_u32, 0);
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(first_name(group[start..place].trim_start()));
                start = place + 1;
                if letter == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

#[test]
fn dependencies_point_one_way() {
    let mut back = Vec::new();
    for (room, may_know) in ROOMS {
        for file in rust_files(&source().join(room)) {
            for other in rooms_behind("crate::", &code(&file)) {
                let is_room = ROOMS.iter().any(|(name, _)| *name == other);
                if is_room && other != *room && !may_know.contains(&other.as_str()) {
                    back.push(format!("{} knows {other}", file.display()));
                }
            }
        }
    }
    assert!(back.is_empty(), "arrows that point back:\n{}", back.join("\n"));
}

#[test]
fn the_table_has_every_room_and_no_cycle() {
    let there: BTreeSet<String> = fs::read_dir(source())
        .expect("src")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir() && !path.ends_with("bin"))
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .collect();
    let told: BTreeSet<String> = ROOMS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(there, told, "src and the table differ");
    // A room that knows nobody left is taken away, until nobody is left: else there is a cycle.
    let mut left = ROOMS.to_vec();
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(room, _)| *room).collect();
        let before = left.len();
        left.retain(|(_, knows)| knows.iter().any(|known| names.contains(known)));
        assert!(left.len() < before, "these know each other in a circle: {names:?}");
    }
}

#[test]
fn the_simulator_is_a_witness_of_its_own() {
    for file in rust_files(&source().join("bin/codex-sim")) {
        assert!(!code(&file).contains("tollway::"), "{} uses the gateway's code", file.display());
    }
}

#[test]
fn the_program_knows_the_command_line_alone() {
    let rooms = rooms_behind("tollway::", &code(&source().join("main.rs")));
    assert!(rooms.iter().all(|room| room == "cli"), "main.rs knows {rooms:?}");
}

#[test]
fn every_module_says_what_it_is_for_and_none_is_a_lumber_room() {
    for file in rust_files(&source()) {
        let text = fs::read_to_string(&file).expect("a source file");
        assert!(text.starts_with("//!"), "{} does not say what it is for", file.display());
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        assert!(!LUMBER.contains(&stem), "{} has a name that says nothing", file.display());
    }
}

#[test]
fn arrows_are_found_alone_and_in_groups() {
    let code = "use crate::store::Store;\nuse crate::{oauth, codex::{Client, sse}, config::Settings};\nfn f() { crate::relay::go() }";
    let found: Vec<String> = rooms_behind("crate::", code).into_iter().collect();
    assert_eq!(found, ["codex", "config", "oauth", "relay", "store"]);
}
