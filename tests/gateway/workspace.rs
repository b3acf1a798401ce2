//! Workspaces that live elsewhere: where the backend says, if the operator allows it.

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, eventually};

/// Two simulators: the configured one sends its account's workspace to the other.
async fn two(choice: &str) -> (Sim, Sim, Setup, String) {
    let (home, abroad) = (Sim::start().await, Sim::start().await);
    let traits = json!({"workspace_backend_origin": abroad.url, "account_routing_override": choice});
    let account = home.account(traits).await;
    let setup = Setup::new(&home);
    setup.import(&account);
    let key = setup.key("ada");
    (home, abroad, setup, key)
}

async fn seen(sim: &Sim) -> Vec<Value> {
    sim.requests("/backend-api/codex/responses").await
}

async fn ask(gateway: &Gateway, key: &str) {
    // The other simulator does not know the account: that it was asked is what counts.
    drop(gateway.send(key, Dialect::Responses, &Dialect::Responses.ask("hi")).await.bytes().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_where_the_workspace_lives_and_say_so() {
    let (home, abroad, setup, key) = two("us").await;
    let gateway = setup.set("TOLLWAY_BACKEND__WORKSPACE_ORIGINS", &abroad.url).serve().await;
    let request = eventually("a request abroad", async || {
        ask(&gateway, &key).await;
        seen(&abroad).await.pop()
    });
    assert_eq!(request.await["headers"]["x-openai-account-routing-override"], "us");
    let before = seen(&home).await.len();
    ask(&gateway, &key).await;
    assert_eq!(seen(&home).await.len(), before, "once it is known, nothing goes home");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_workspace_lives_where_nothing_may_be_sent_is_not_used() {
    let (_home, abroad, setup, key) = two("NO_CONSTRAINT").await;
    let gateway = setup.serve().await;
    let refused = eventually("a refusal", async || {
        let answer = gateway.send(&key, Dialect::Responses, &Dialect::Responses.ask("hi")).await;
        (answer.status() == 503).then_some(())
    });
    refused.await;
    assert!(seen(&abroad).await.is_empty());
    assert!(gateway.log().contains("backend.workspace_origins"), "{}", gateway.log());
}
