//! Real client programs, unmodified and pinned (tests/clients), each through the built gateway.

use std::process::Command;

use serde_json::json;

use crate::support::{Gateway, Sim, Tools, run, skip};

/// Runs a script of tests/clients with a gateway's address and a fresh key; it must succeed, and
/// what it checked is printed.
async fn passes(script: &str, program: Option<&str>) {
    let tools = Tools::new();
    let program = program.map(|name| tools.find(&format!("node_modules/.bin/{name}")));
    let (Some(python), Some(program)) = (tools.python(), program.map_or(Some(None), |found| found.map(Some))) else {
        return skip(script);
    };
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let mut command = Command::new(python);
    command.arg(Tools::script(script)).args(program);
    command.env("TW_URL", &gateway.url).env("TW_KEY", &key);
    // Set on developers' machines; the scripts choose their own.
    for name in ["OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"] {
        command.env_remove(name);
    }
    let output = tokio::task::spawn_blocking(|| run(command, "")).await.expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), gateway.log());
    assert!(said.ends_with("all checks passed\n"), "{script} ended early");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_for_python_works() {
    passes("python_openai.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_for_python_works() {
    passes("python_anthropic.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_works() {
    passes("codex_cli.py", Some("codex")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_works() {
    passes("claude_code.py", Some("claude")).await;
}
