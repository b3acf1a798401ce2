//! The client against a scripted issuer on loopback.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;

use super::super::device::DevicePoll;
use super::super::error::DeviceError;
use super::super::testing::client;
use super::*;

/// What the issuer was sent last: path, content type, originator, body.
type Seen = Arc<Mutex<Vec<(String, String, String, String)>>>;

#[derive(Clone)]
struct Issuer {
    seen: Seen,
    answer: (u16, &'static str),
}

async fn answer(State(issuer): State<Issuer>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name| {
        let value = parts.headers.get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let path = parts.uri.path().to_owned();
    let (kind, originator) = (header("content-type"), header("originator"));
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    issuer.seen.lock().unwrap().push((path, kind, originator, body));
    let (status, text) = issuer.answer;
    let status = StatusCode::from_u16(status).unwrap();
    (status, [("retry-after", "7")], text).into_response()
}

/// An issuer that gives this answer to everything.
async fn issuer(status: u16, body: &'static str) -> (OAuthClient, Seen) {
    let seen = Seen::default();
    let app = Router::new().fallback(answer).with_state(Issuer { seen: Arc::clone(&seen), answer: (status, body) });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (client(&address.parse().unwrap()), seen)
}

fn code() -> AuthorizationCode {
    AuthorizationCode {
        code: "c/1".into(),
        verifier: "v1".into(),
        redirect_uri: "http://localhost:1455/auth/callback".into(),
    }
}

async fn refresh(client: &OAuthClient, token: &str, reason: RefreshReason) -> Result<TokenSet, RefreshError> {
    client.refresh(&token.into(), reason, Arc::new(|| true)).await
}

async fn refresh_error(status: u16, body: &'static str) -> RefreshError {
    let (client, _) = issuer(status, body).await;
    let refreshed = refresh(&client, "rt_old", RefreshReason::Forced).await;
    refreshed.err().unwrap()
}

#[test]
fn endpoints_follow_the_issuer_and_a_token_override_moves_revoke_with_it() {
    let endpoints = Endpoints::of(&"http://localhost:9/base/?x=1".parse().unwrap());
    assert_eq!(endpoints.token.as_str(), "http://localhost:9/base/oauth/token");
    assert_eq!(endpoints.device_redirect.as_str(), "http://localhost:9/base/deviceauth/callback");

    let moved = endpoints.with_token("http://other:8/t".parse().unwrap());
    assert_eq!(moved.token.as_str(), "http://other:8/t");
    assert_eq!(moved.revoke.as_str(), "http://other:8/oauth/revoke");
}

#[test]
fn the_authorize_url_has_the_parameters_of_the_cli_in_its_order() {
    let client = client(&"https://auth.example".parse().unwrap());

    let url = client.authorize_url("http://localhost:1455/auth/callback", "ch", "st");

    assert_eq!(
        url.as_str(),
        "https://auth.example/oauth/authorize?response_type=code\
         &client_id=app_EMoamEEZ73f0CkXaXp7hrann\
         &redirect_uri=http%3A%2F%2Flocalhost%3A1455%2Fauth%2Fcallback\
         &scope=openid+profile+email+offline_access&code_challenge=ch&code_challenge_method=S256\
         &id_token_add_organizations=true&codex_cli_simplified_flow=true&state=st&originator=tollway"
    );
}

#[tokio::test]
async fn a_refresh_is_sent_as_the_cli_sends_it_and_absent_fields_stay_absent() {
    let (client, seen) = issuer(200, r#"{"access_token":"at","refresh_token":"rt_new","expires_in":60}"#).await;

    let set = refresh(&client, "rt_old", RefreshReason::ProactiveExpiry).await.unwrap();

    assert_eq!(set.refresh_token.unwrap().expose_secret(), "rt_new");
    assert!(set.id_token.is_none());
    let (path, kind, originator, body) = seen.lock().unwrap().remove(0);
    assert_eq!((&*path, &*kind, &*originator), ("/oauth/token", "application/json", "tollway"));
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"client_id": CLIENT_ID, "grant_type": "refresh_token",
               "refresh_reason": "proactive_expiry", "refresh_token": "rt_old"})
    );
}

#[tokio::test]
async fn a_refusal_is_permanent_and_does_not_repeat_what_was_sent() {
    let error =
        refresh_error(400, r#"{"error":{"code":"refresh_token_reused","message":"rt_old seen"},"echo":"rt_old"}"#)
            .await;

    assert!(!format!("{error:?} {error}").contains("rt_old"));
    assert_eq!(
        error,
        RefreshError::Permanent {
            code: "refresh_token_reused".into(),
            status: 400,
            message: Some("[removed] seen".into())
        }
    );
}

#[tokio::test]
async fn a_busy_issuer_is_transient_with_its_retry_after() {
    let RefreshError::Transient { retry_after, ambiguous, .. } = refresh_error(429, "").await else {
        panic!("a 429 is not permanent");
    };

    assert_eq!((retry_after, ambiguous), (Some(Duration::from_secs(7)), false));
}

#[tokio::test]
async fn a_success_without_tokens_may_have_used_up_the_refresh_token() {
    for body in ["<html>", "{}", r#"{"access_token":""}"#, r#"{"access_token":5}"#] {
        let error = refresh_error(200, body).await;

        assert!(matches!(error, RefreshError::Transient { ambiguous: true, .. }), "{body}");
    }
}

#[tokio::test]
async fn an_issuer_that_hangs_up_leaves_the_outcome_open_and_a_closed_port_does_not() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = client(&format!("http://{address}").parse().unwrap());
    let hang_up = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 16]).await.unwrap();
    });

    let broken = refresh(&client, "rt", RefreshReason::Forced).await.err().unwrap();
    hang_up.await.unwrap();
    let refused = refresh(&client, "rt", RefreshReason::Forced).await.err().unwrap();

    assert!(matches!(broken, RefreshError::Transient { ambiguous: true, .. }), "{broken:?}");
    assert!(matches!(refused, RefreshError::Transient { ambiguous: false, .. }), "{refused:?}");
}

#[tokio::test]
async fn a_token_that_it_is_too_late_to_send_does_not_leave() {
    let (client, seen) = issuer(200, r#"{"access_token":"at","refresh_token":"rt_new"}"#).await;

    let withheld = client.refresh(&"rt_old".into(), RefreshReason::Forced, Arc::new(|| false)).await;

    assert_eq!(withheld.err(), Some(RefreshError::Withheld));
    assert!(seen.lock().unwrap().iter().all(|(.., body)| !body.contains("rt_old")));
}

#[tokio::test]
async fn a_code_is_exchanged_as_a_form() {
    let (client, seen) = issuer(200, r#"{"access_token":"at","refresh_token":"rt","id_token":"id"}"#).await;

    let tokens = client.exchange_code(&code()).await.unwrap();

    assert_eq!(tokens.access_token.expose_secret(), "at");
    let (path, kind, _, body) = seen.lock().unwrap().remove(0);
    assert_eq!((&*path, &*kind), ("/oauth/token", "application/x-www-form-urlencoded"));
    let form: HashMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    assert_eq!(form["grant_type"], "authorization_code");
    assert_eq!((&*form["code"], &*form["code_verifier"]), ("c/1", "v1"));
    assert_eq!(form["redirect_uri"], "http://localhost:1455/auth/callback");
}

#[tokio::test]
async fn an_exchange_without_a_refresh_token_is_refused() {
    let (client, _) = issuer(200, r#"{"access_token":"at","refresh_token":""}"#).await;

    let error = client.exchange_code(&code()).await.err().unwrap();

    assert!(matches!(error, OAuthError::Malformed { missing: "a refresh_token", .. }));
}

#[tokio::test]
async fn a_device_login_reads_both_spellings_and_a_textual_interval() {
    for body in [
        r#"{"device_auth_id":"d","user_code":"AB-CD","interval":"3"}"#,
        r#"{"device_auth_id":"d","usercode":"AB-CD","interval":3}"#,
    ] {
        let (client, _) = issuer(200, body).await;

        let code = client.device_start().await.unwrap();

        assert_eq!((&*code.user_code, code.interval), ("AB-CD", Duration::from_secs(3)));
        assert!(code.page.path().ends_with("/codex/device"));
    }
}

#[tokio::test]
async fn a_device_poll_tells_pending_denied_expired_and_failed_apart() {
    let (starter, _) = issuer(200, r#"{"device_auth_id":"d","user_code":"u"}"#).await;
    let code = starter.device_start().await.unwrap();
    let poll = async |status, body| {
        let (client, _) = issuer(status, body).await;
        client.device_poll(&code).await
    };

    assert!(matches!(poll(403, "").await, Ok(DevicePoll::Pending)));
    assert!(matches!(poll(404, "").await, Ok(DevicePoll::Pending)));
    assert!(matches!(poll(400, r#"{"error":"authorization_pending"}"#).await, Ok(DevicePoll::Pending)));
    assert_eq!(poll(403, r#"{"error":"access_denied"}"#).await.err(), Some(DeviceError::Denied));
    assert_eq!(poll(400, r#"{"error":"expired_token"}"#).await.err(), Some(DeviceError::Expired));
    assert!(matches!(poll(500, "").await, Err(DeviceError::Issuer(OAuthError::Refused { .. }))));
    let approved = poll(200, r#"{"authorization_code":"c","code_challenge":"x","code_verifier":"v"}"#).await;
    let Ok(DevicePoll::Approved(approved)) = approved else { panic!("not approved") };
    assert!(approved.redirect_uri.ends_with("/deviceauth/callback"));
}

#[tokio::test]
async fn a_disabled_device_login_says_so() {
    let (client, _) = issuer(404, "").await;

    assert_eq!(client.device_start().await.err(), Some(DeviceError::NotEnabled));
}

#[tokio::test]
async fn revoking_names_the_token_and_its_kind() {
    let (client, seen) = issuer(200, "").await;

    client.revoke(&"rt".into()).await.unwrap();

    let (path, _, _, body) = seen.lock().unwrap().remove(0);
    assert_eq!(path, "/oauth/revoke");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"token": "rt", "token_type_hint": "refresh_token", "client_id": CLIENT_ID})
    );
}
