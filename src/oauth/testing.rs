//! Unsigned tokens and a plain client for this crate's unit tests.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::Url;

use super::client::{CLIENT_ID, Endpoints, OAuthClient, OAuthConfig, SCOPE};

/// A client of the issuer at this address.
pub(crate) fn client(issuer: &Url) -> OAuthClient {
    OAuthClient::new(
        reqwest::Client::new(),
        OAuthConfig {
            endpoints: Endpoints::of(issuer),
            client_id: CLIENT_ID.into(),
            scope: SCOPE.into(),
            originator: "tollway".into(),
            user_agent: "tollway/0".into(),
            timeout: Duration::from_secs(5),
        },
    )
}

/// A token with this payload and a signature that is none.
pub(crate) fn jwt(payload: &Value) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", part(br#"{"alg":"none"}"#), part(payload.to_string().as_bytes()), part(b"signature"))
}

/// An access token of `account` and `user` that ends at `exp` (Unix seconds).
pub(crate) fn access_token(account: &str, user: &str, exp: i64) -> String {
    jwt(&json!({
        "exp": exp,
        "https://api.openai.com/profile": {"email": format!("{user}@example.com")},
        "https://api.openai.com/auth": {
            "chatgpt_account_id": account, "chatgpt_user_id": user, "chatgpt_plan_type": "team",
        },
    }))
}
