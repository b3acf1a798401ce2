//! Tokens that look like the issuer's: JWTs with the claims of protocol.md 1.8.
//!
//! Pure. The signature is noise: nobody in this protocol checks it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Whom a token speaks of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The login's address.
    pub(crate) email: &'a str,
    /// Plan at the time of minting.
    pub(crate) plan: &'a str,
    /// The workspace.
    pub(crate) chatgpt_account_id: &'a str,
    /// The person.
    pub(crate) user_id: &'a str,
    /// FedRAMP workspace.
    pub(crate) fedramp: bool,
}

/// The validity of a token, and what makes it unlike every other.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// Unix seconds.
    pub(crate) issued_at: i64,
    /// Unix seconds.
    pub(crate) expires_at: i64,
    /// `jti`.
    pub(crate) id: String,
    /// Issuer's address.
    pub(crate) issuer: String,
}

/// Mints an access token.
pub(crate) fn access(subject: Subject<'_>, mark: &Mark, client_id: &str) -> String {
    let mut claims = common(subject, mark);
    claims["aud"] = json!(["https://api.openai.com/v1"]);
    claims["client_id"] = json!(client_id);
    claims["scp"] = json!(["openid", "profile", "email", "offline_access"]);
    claims["nbf"] = json!(mark.issued_at);
    sign(&claims)
}

/// Mints an id token.
pub(crate) fn identity(subject: Subject<'_>, mark: &Mark, client_id: &str) -> String {
    let mut claims = common(subject, mark);
    claims["aud"] = json!([client_id]);
    claims["email"] = json!(subject.email);
    claims["email_verified"] = json!(true);
    claims["auth_provider"] = json!("password");
    sign(&claims)
}

fn common(subject: Subject<'_>, mark: &Mark) -> Value {
    json!({
        "iss": mark.issuer, "iat": mark.issued_at, "exp": mark.expires_at, "jti": mark.id,
        "sub": format!("auth0|{}", subject.user_id),
        "https://api.openai.com/profile": {"email": subject.email, "email_verified": true},
        "https://api.openai.com/auth": {
            "chatgpt_account_id": subject.chatgpt_account_id, "chatgpt_plan_type": subject.plan,
            "chatgpt_user_id": subject.user_id, "user_id": subject.user_id,
            "chatgpt_account_user_id": format!("{}__{}", subject.user_id, subject.chatgpt_account_id),
            "chatgpt_account_is_fedramp": subject.fedramp, "chatgpt_compute_residency": "no_constraint",
        },
    })
}

fn sign(claims: &Value) -> String {
    let header = json!({"alg": "RS256", "kid": "codex-sim", "typ": "JWT"});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&header), part(claims), URL_SAFE_NO_PAD.encode("unsigned: made by codex-sim"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_carries_the_claims() {
        let subject =
            Subject { email: "a@x", plan: "pro", chatgpt_account_id: "acc", user_id: "user-1", fedramp: false };
        let mark = Mark { issued_at: 1, expires_at: 2, id: "j".into(), issuer: "http://i".into() };
        let token = access(subject, &mark, "app");
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(claims["exp"], 2);
        assert_eq!(claims["https://api.openai.com/auth"]["chatgpt_account_id"], "acc");
    }
}
