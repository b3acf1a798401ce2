//! Real client programs, unmodified and pinned (tests/clients), each through the built gateway.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::{Setup, Sim, Tools, run, skip};

/// Runs a script of tests/clients with a gateway's address, a fresh key and the simulator's control;
/// it must succeed, and what it checked is printed. `program` is what the script starts, if any.
async fn passes(script: &str, program: Option<&str>) {
    passes_with(&[], script, program, &[]).await;
}

/// The same with these settings of the gateway, and these variables for the script.
async fn passes_with(
    settings: &[(&str, &str)],
    script: &str,
    program: Option<&str>,
    variables: &[(&'static str, &'static str)],
) {
    let tools = Tools::new();
    let program = program.map(|name| tools.find(&format!("node_modules/.bin/{name}")));
    let (Some(mut command), Some(program)) =
        (command(&tools, script), program.map_or(Some(None), |found| found.map(Some)))
    else {
        return skip(script);
    };
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let setup = settings.iter().fold(Setup::new(&sim), |setup, (name, value)| setup.set(name, value));
    setup.import(&account);
    let key = setup.key("ada");
    let gateway = setup.serve().await;
    command.args(program).envs(variables.iter().copied());
    command.env("TW_URL", &gateway.url).env("TW_KEY", &key).env("TW_SIM", &sim.url);
    // Set on developers' machines; the scripts choose their own, and none reports to anybody.
    command.env("LANGSMITH_TRACING", "false").env("PYTHONDONTWRITEBYTECODE", "1");
    for name in ["OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"] {
        command.env_remove(name);
    }
    let output = tokio::task::spawn_blocking(|| run(command, "")).await.expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), gateway.log());
    assert!(said.ends_with("all checks passed\n"), "{script} ended early");
}

/// How to run a script: what reads it depends on its language.
fn command(tools: &Tools, script: &str) -> Option<Command> {
    let mut command = if is_node(script) {
        let mut node = Command::new(tools.node()?);
        node.env("TW_TEST_TOOLS", tools.directory()).arg("--import").arg(Tools::script("tools.mjs"));
        node
    } else {
        Command::new(tools.python()?)
    };
    command.arg(Tools::script(script));
    Some(command)
}

fn is_node(script: &str) -> bool {
    PathBuf::from(script).extension().is_some_and(|extension| extension == "mjs")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_for_python_works() {
    passes("python_openai.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_for_python_makes_pictures() {
    passes("python_openai_images.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_for_python_finds_what_is_kept() {
    passes("python_openai_kept.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_for_python_works() {
    passes("python_anthropic.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_for_python_hands_in_batches() {
    passes("python_anthropic_batches.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_for_typescript_works() {
    passes("node_openai.mjs", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_anthropic_sdk_for_typescript_works() {
    passes("node_anthropic.mjs", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_for_typescript_find_what_is_kept() {
    passes("node_kept.mjs", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vercel_ai_sdk_works() {
    passes("ai_sdk.mjs", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_agents_sdk_works() {
    passes("agents_sdk.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn langchain_works() {
    passes("langchain_clients.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_works() {
    passes("codex_cli.py", Some("codex")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_works_in_steps_sessions_and_trouble() {
    passes("codex_work.py", Some("codex")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_gives_up_in_time_when_nobody_can_answer() {
    passes("codex_cli_errors.py", Some("codex")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_works_over_a_websocket() {
    passes("codex_cli_socket.py", Some("codex")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_that_asks_for_a_websocket_goes_on_over_http_where_there_is_none() {
    let settings = [("TOLLWAY_SERVER__WEBSOCKET", "false")];
    passes_with(&settings, "codex_cli.py", Some("codex"), &[("TW_WEBSOCKETS", "true")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_works_over_a_websocket_before_a_backend_without() {
    let settings = [("TOLLWAY_BACKEND__WEBSOCKET", "off")];
    passes_with(&settings, "codex_cli.py", Some("codex"), &[("TW_WEBSOCKETS", "true")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_for_python_works_over_a_websocket() {
    passes("python_socket.py", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_codex_cli_works_in_each_of_its_modes() {
    passes("codex_cli_modes.py", Some("codex")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_works() {
    passes("claude_code.py", Some("claude")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_works_in_steps_with_agents_and_in_trouble() {
    passes("claude_work.py", Some("claude")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_clients_bound_work_with_the_sdks_for_python() {
    passes("python_bounds.py", None).await;
}
