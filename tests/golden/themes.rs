//! What is known to break in translators is shown by a case or a test: `THEMES.md` says by which.
//!
//! A line is `- ThemeName: dialect/case, …` or `- ThemeName: test <file>::<name>`, the file as seen
//! from the repository.

use super::cases::{cases, root};
use std::fs;
use std::path::Path;

/// How many cases there are at least, and how many of them have a stream.
const CASES: usize = 150;
const STREAMS: usize = 100;
/// How many themes the list has at least.
const THEMES: usize = 100;

/// The themes' lines: a name, and what shows it.
fn themes() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("THEMES.md")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(": "));
    lines.map(|(name, shown)| (name.to_owned(), shown.to_owned())).collect()
}

/// Whether what is said to show a theme is there.
fn is_there(shown: &str) -> bool {
    let Some(test) = shown.strip_prefix("test ") else {
        return root().join(shown).join("request.json").is_file();
    };
    let Some((file, name)) = test.rsplit_once("::") else { return false };
    let code = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
    code.contains(&format!("fn {name}("))
}

#[test]
fn every_theme_is_shown_by_a_case_or_a_test_that_exists() {
    let mut faults = Vec::new();
    for (name, shown) in themes() {
        for shown in shown.split(',').map(|shown| shown.trim().trim_matches('`')) {
            if !is_there(shown) {
                faults.push(format!("{name}: there is no {shown}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn there_are_cases_enough() {
    let (cases, themes) = (cases(), themes());
    assert!(cases.len() >= CASES, "{} cases", cases.len());
    let streams = cases.iter().filter(|case| case.stream.is_some()).count();
    assert!(streams >= STREAMS, "{streams} streams");
    assert!(themes.len() >= THEMES, "{} themes", themes.len());
    let mut names: Vec<&str> = themes.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), themes.len(), "a theme is listed twice");
}
