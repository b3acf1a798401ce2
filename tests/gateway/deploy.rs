//! What is shipped, each under the real program that will read it: the image under a Docker engine,
//! docker-compose.yml under Compose, the chart under Helm, the unit under systemd. The work is done by
//! the scripts of tests/deploy.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Tools, run, skip};

/// What a script ends with that could not do its work here.
const SKIPPED: i32 = 77;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a script of tests/deploy, which must succeed or say why it cannot be run here.
fn passes(script: &str, arguments: &[&str]) {
    let tools = Tools::new();
    let Some(python) = tools.find("deploy-venv/bin/python") else { return skip(script) };
    let mut command = Command::new(python);
    command.arg(here("tests/deploy").join(script)).args(arguments);
    command.env("TW_TEST_TOOLS", tools.directory()).env("TW_TOLLWAY", env!("CARGO_BIN_EXE_tollway"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = run(command, "");
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    if output.status.code() == Some(SKIPPED) {
        eprintln!("SKIPPED: {script}: {said}");
        return;
    }
    assert!(output.status.success(), "{said}\n{complaint}");
    assert!(said.ends_with("all checks passed\n"), "{script} ended early");
}

#[test]
fn the_chart_renders_what_its_golden_files_say_and_kubernetes_and_the_gateway_take_it() {
    passes("chart.py", &["renders"]);
}

#[test]
fn the_chart_refuses_wrong_values_with_a_sentence_that_tells_what_to_do() {
    passes("chart.py", &["refusals"]);
}

#[test]
fn the_chart_asks_the_cluster_what_it_knows_under_helm_3_and_4() {
    passes("chart.py", &["versions"]);
}

#[test]
fn compose_takes_every_profile_and_the_gateway_every_setting() {
    passes("compose.py", &[]);
}

#[test]
fn the_unit_is_right_and_hardened_for_systemd() {
    passes("unit.py", &[]);
}

/// The slow one: it holds the release build, ten minutes of both processors and more. Only where it is
/// asked for.
#[test]
fn the_image_is_built_runs_hardened_and_serves_with_compose() {
    if std::env::var_os("TW_TEST_IMAGE").is_none() {
        eprintln!("SKIPPED: image.py; set TW_TEST_IMAGE to build the image and run it");
        return;
    }
    passes("image.py", &[]);
}
