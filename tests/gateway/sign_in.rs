//! People sign in: a browser, a certified OpenID Connect provider, and the gateway between them.

use crate::support::people::{BOOTSTRAP, Parts, where_people_sign_in};
use crate::support::{Gateway, Setup, Sim, eventually, skip};
use serde_json::Value;

/// A gateway where people can sign in, with a team.
async fn gateway(setup: Setup, issuer: &str) -> Gateway {
    let setup = where_people_sign_in(setup, issuer, "http://{admin}");
    let gateway = setup.serve().await;
    gateway.make_team("core").await;
    gateway
}

async fn signs_in(client: &[(&str, &str)], claims_in_token: bool) {
    let Some(parts) = Parts::find() else { return skip("oidc-provider, playwright-core or chromium") };
    let sim = Sim::start().await;
    let setup = client.iter().fold(Setup::new(&sim), |setup, (name, value)| setup.set(name, value));
    let (provider, issuer) = parts.provider(&setup, claims_in_token).await;
    let gateway = gateway(setup, &issuer).await;
    parts.sign_in(&gateway.admin, &issuer, 1, || format!("{}\n{}", provider.output(), gateway.log())).await;
    for line in ["somebody signed in", "a sign-in was refused"] {
        eventually(line, async || gateway.log().contains(line).then_some(())).await;
    }
    let log = gateway.log();
    for secret in ["a+secret with/odd:letters", "csrf_token=", "code="] {
        assert!(!log.contains(secret), "{secret:?} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_with_a_browser_at_a_confidential_client_whose_groups_are_at_userinfo() {
    let client = [("TOLLWAY_OIDC__CLIENT_SECRET", "a+secret with/odd:letters")];
    signs_in(&client, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_with_a_browser_at_a_public_client_whose_groups_are_in_the_token() {
    signs_in(&[("TOLLWAY_OIDC__CLIENT_ID", "tollway-public")], true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_nobody_can_sign_in_and_a_provider_that_is_away_is_said_to_be() {
    let sim = Sim::start().await;
    let plain = Setup::new(&sim).set("TOLLWAY_ADMIN__KEY", BOOTSTRAP).serve().await;
    let away = gateway(Setup::new(&sim), "http://127.0.0.1:9").await;
    for (gateway, path, expected) in [
        (&plain, "login", 404),
        (&plain, "callback?state=x&code=y", 404),
        (&away, "login", 502),
        (&away, "callback?state=x&code=y", 400),
    ] {
        let url = format!("{}/admin/v1/auth/{path}", gateway.admin);
        let answer = gateway.http.get(&url).send().await.expect("an answer");
        assert_eq!(answer.status(), expected, "{path}");
        let problem: Value = answer.json().await.expect("a problem");
        assert_eq!(problem["status"], expected, "{path}");
        let page = gateway.http.get(&url).header("accept", "text/html").send().await.expect("an answer");
        assert_eq!(page.status(), expected, "{path}");
        let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(page.text().await.expect("a page").starts_with("<!doctype html>"), "{path}");
    }
    // A cookie alone is nobody.
    let me = away.http.get(format!("{}/admin/v1/auth/session", away.admin)).header("cookie", "tollway_session=x");
    assert_eq!(me.send().await.expect("an answer").status(), 401);
}
