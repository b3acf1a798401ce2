//! Model lists and what names mean.

use serde_json::{Value, json};

use crate::support::{Dialect, Gateway, Setup, Sim, eventually, json_of};

async fn list(gateway: &Gateway, key: &str, path: &str, headers: &[(&str, &str)]) -> Value {
    let (status, body) = json_of(gateway.get(key, path, headers).await).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn ids(list: &Value, field: &str) -> Vec<String> {
    let models = list[field].as_array().cloned().unwrap_or_default();
    let id = |model: &Value| model["id"].as_str().or(model["slug"].as_str()).unwrap_or_default().to_owned();
    models.iter().map(id).collect()
}

/// One account with one model, another with another, and settings.
async fn two(settings: &[(&str, &str)]) -> (Sim, Gateway, String, String) {
    let sim = Sim::start().await;
    let mut setup = Setup::new(&sim);
    for (name, model) in [("sol", "gpt-6.1-sol"), ("five", "gpt-5.5")] {
        let traits = json!({"email": format!("{name}@example.com"), "models": [model]});
        setup.import(&sim.account(traits).await);
    }
    for (name, value) in settings {
        setup = setup.set(name, value);
    }
    let both = setup.key("ada");
    let one = setup.key_with(&["--name", "bob", "--accounts", "five@example.com"]);
    (sim, setup.serve().await, both, one)
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_merged_over_the_accounts_of_the_key_in_every_shape() {
    let (_sim, gateway, both, one) = two(&[]).await;
    let openai = list(&gateway, &both, "/v1/models", &[]).await;
    assert_eq!(ids(&openai, "data"), ["gpt-6.1-sol", "gpt-5.5"]);
    let anthropic = list(&gateway, &both, "/v1/models?limit=1000", &[("anthropic-version", "2023-06-01")]).await;
    assert_eq!((ids(&anthropic, "data").len(), &anthropic["has_more"]), (2, &json!(false)));
    let codex = list(&gateway, &both, "/backend-api/codex/models?client_version=0.169.0", &[]).await;
    assert_eq!(ids(&codex, "models"), ["gpt-6.1-sol", "gpt-5.5"]);
    assert_eq!(ids(&list(&gateway, &one, "/v1/models", &[]).await, "data"), ["gpt-5.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_list_has_a_tag_of_its_own_that_answers_repeat() {
    let (_sim, gateway, both, _) = two(&[]).await;
    let path = "/backend-api/codex/models?client_version=0.169.0";
    let first = gateway.get(&both, path, &[]).await;
    let tag = first.headers()["etag"].to_str().expect("text").to_owned();
    assert_eq!(gateway.get(&both, path, &[("if-none-match", &tag)]).await.status(), 304);
    let body =
        json!({"model": "gpt-5.5", "stream": true, "store": false, "input": [{"role": "user", "content": "hi"}]});
    let request = gateway.http.post(format!("{}/v1/responses", gateway.url)).bearer_auth(&both).json(&body);
    let answer = request.header("originator", "codex_exec").send().await.expect("an answer");
    assert_eq!(answer.headers()["x-models-etag"], tag.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_model_is_asked_of_an_account_that_has_it() {
    let (sim, gateway, both, _) = two(&[]).await;
    list(&gateway, &both, "/v1/models", &[]).await;
    for model in ["gpt-5.5", "gpt-6.1-sol", "gpt-5.5", "gpt-6.1-sol"] {
        let mut ask = Dialect::Responses.ask("hi");
        ask["model"] = json!(model);
        gateway.whole(&both, Dialect::Responses, &ask).await;
    }
    assert_eq!(sim.requests("/backend-api/codex/responses").await.len(), 4, "none was refused and tried elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_found_by_each_of_its_names_and_an_unknown_one_is_a_404_of_the_dialect() {
    let (_sim, gateway, both, _) = two(&[]).await;
    list(&gateway, &both, "/v1/models", &[]).await;
    for id in ["gpt-5.5", "openai-codex/gpt-5.5", "gpt-5.5-high", "claude-opus-5"] {
        assert_eq!(list(&gateway, &both, &format!("/v1/models/{id}"), &[]).await["id"], id);
    }
    let (status, body) = json_of(gateway.get(&both, "/v1/models/gpt-9", &[]).await).await;
    assert_eq!((status.as_u16(), &body["error"]["code"]), (404, &json!("model_not_found")));
    let version = [("anthropic-version", "2023-06-01")];
    let (status, body) = json_of(gateway.get(&both, "/v1/models/gpt-9", &version).await).await;
    assert_eq!((status.as_u16(), &body["error"]["type"]), (404, &json!("not_found_error")));
    for dialect in Dialect::ALL {
        let mut ask = dialect.ask("hi");
        ask["model"] = json!("gpt-9");
        let (status, body) = json_of(gateway.send(&both, dialect, &ask).await).await;
        assert_eq!(status, 404, "{dialect:?}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effort_behind_a_name_and_the_fallback_go_upstream() {
    let (sim, gateway, both, _) = two(&[("TOLLWAY_MODELS__FALLBACK", "gpt-5.5:low")]).await;
    list(&gateway, &both, "/v1/models", &[]).await;
    for (name, slug, effort) in [("gpt-5.5-high", "gpt-5.5", "high"), ("gpt-4o", "gpt-5.5", "low")] {
        let upstream = eventually("the request", async || {
            let mut ask = Dialect::Responses.ask("hi");
            ask["model"] = json!(name);
            gateway.send(&both, Dialect::Responses, &ask).await.bytes().await.ok()?;
            sim.requests("/backend-api/codex/responses").await.pop()
        });
        let body = upstream.await["body"].clone();
        assert_eq!((&body["model"], &body["reasoning"]["effort"]), (&json!(slug), &json!(effort)), "{name}");
    }
}
