//! `/openapi.json` is true: schemathesis makes requests of it, right ones and wrong ones, and holds
//! each answer to it.

use std::process::Command;

use serde_json::json;

use crate::support::{Gateway, Sim, Tools, run, skip};

/// Statuses, content types and bodies; what a request must not be is each dialect's own affair.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_document_says() {
    let Some(schemathesis) = Tools::new().find("venv/bin/st") else { return skip("schemathesis") };
    let sim = Sim::start().await;
    let account = sim.account(json!({})).await;
    let (gateway, key) = Gateway::with_account(&sim, &account).await;
    let mut command = Command::new(schemathesis);
    command.args(["run", &format!("{}/openapi.json", gateway.url), "--checks", CHECKS]);
    command.args(["--header", &format!("Authorization: Bearer {key}"), "--phases", "examples,coverage,fuzzing"]);
    // The same requests every time: a failure is a change of ours.
    command.args(["--max-examples", "40", "--seed", "1", "--suppress-health-check", "all", "--no-color"]);
    command.current_dir(gateway.setup.root());
    let output = tokio::task::spawn_blocking(|| run(command, "")).await.expect("schemathesis runs");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), gateway.log());
}
