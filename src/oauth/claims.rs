//! What a token says about its owner; protocol.md 1.8.
//!
//! The payload is decoded without checking the signature: the tokens came from the issuer over TLS
//! or from the operator's own file, and the backend checks them on every call. A claim of an
//! unexpected type counts as absent, so that a new spelling costs a label and not a login.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use thiserror::Error;

const AUTH: &str = "https://api.openai.com/auth";
const PROFILE: &str = "https://api.openai.com/profile";

/// Why a token could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClaimsError {
    /// Not three parts with dots between them.
    #[error("the token is not a JWT (three parts separated by dots)")]
    NotAJwt,
    /// The middle part is not base64url.
    #[error("the token's payload is not base64url")]
    NotBase64,
    /// The middle part is not a JSON object.
    #[error("the token's payload is not a JSON object")]
    NotJson,
}

/// The claims that the gateway uses; every one of them may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Top-level `email`, else the profile's.
    pub email: Option<String>,
    /// `chatgpt_user_id`, else `user_id`.
    pub chatgpt_user_id: Option<String>,
    /// The workspace; sent with every backend call.
    pub chatgpt_account_id: Option<String>,
    /// The plan as the token spells it; unknown plans are kept.
    pub plan: Option<String>,
    /// Whether backend calls need the FedRAMP header.
    pub fedramp: bool,
    /// `exp`, in Unix milliseconds.
    pub expires_at: Option<i64>,
}

impl Claims {
    /// Reads the payload of `jwt`.
    pub fn of(jwt: &str) -> Result<Self, ClaimsError> {
        let mut parts = jwt.trim().split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(ClaimsError::NotAJwt);
        };
        let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).map_err(|_| ClaimsError::NotBase64)?;
        match serde_json::from_slice(&bytes) {
            Ok(payload @ Value::Object(_)) => Ok(Self::of_payload(&payload)),
            _ => Err(ClaimsError::NotJson),
        }
    }

    fn of_payload(payload: &Value) -> Self {
        let auth = &payload[AUTH];
        Self {
            email: text(&payload["email"]).or_else(|| text(&payload[PROFILE]["email"])),
            chatgpt_user_id: text(&auth["chatgpt_user_id"]).or_else(|| text(&auth["user_id"])),
            chatgpt_account_id: text(&auth["chatgpt_account_id"]),
            plan: text(&auth["chatgpt_plan_type"]),
            fedramp: auth["chatgpt_account_is_fedramp"].as_bool().unwrap_or_default(),
            expires_at: seconds(&payload["exp"]).map(|exp| exp.saturating_mul(1000)),
        }
    }

    /// These claims, with the gaps filled from `other`. The expiry stays: it belongs to one token.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            email: self.email.or(other.email),
            chatgpt_user_id: self.chatgpt_user_id.or(other.chatgpt_user_id),
            chatgpt_account_id: self.chatgpt_account_id.or(other.chatgpt_account_id),
            plan: self.plan.or(other.plan),
            fedramp: self.fedramp || other.fedramp,
            expires_at: self.expires_at,
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A NumericDate: RFC 7519 allows fractions, which are of no use here.
fn seconds(value: &Value) -> Option<i64> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float cast saturates, and a fraction of a second does not matter"
    )]
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::jwt;
    use super::*;

    #[test]
    fn the_usual_claims_are_read() {
        let token = jwt(&json!({
            "email": "ada@example.com", "exp": 1_790_781_392,
            AUTH: {"chatgpt_account_id": "acc-1", "chatgpt_user_id": "user-1",
                   "chatgpt_plan_type": "pro", "chatgpt_account_is_fedramp": true},
        }));

        assert_eq!(
            Claims::of(&token).unwrap(),
            Claims {
                email: Some("ada@example.com".into()),
                chatgpt_user_id: Some("user-1".into()),
                chatgpt_account_id: Some("acc-1".into()),
                plan: Some("pro".into()),
                fedramp: true,
                expires_at: Some(1_790_781_392_000),
            }
        );
    }

    #[test]
    fn email_and_user_id_fall_back_to_their_other_places() {
        let token = jwt(&json!({
            PROFILE: {"email": "ada@example.com"},
            AUTH: {"chatgpt_user_id": "", "user_id": "user-2"},
        }));

        let claims = Claims::of(&token).unwrap();

        assert_eq!(claims.email.as_deref(), Some("ada@example.com"));
        assert_eq!(claims.chatgpt_user_id.as_deref(), Some("user-2"));
    }

    #[test]
    fn an_unknown_plan_is_kept_and_a_claim_of_the_wrong_type_is_absent() {
        let token = jwt(
            &json!({"email": 7, "exp": "soon", AUTH: {"chatgpt_plan_type": "galactic_2", "chatgpt_account_is_fedramp": "yes"}}),
        );

        let claims = Claims::of(&token).unwrap();

        assert_eq!(claims.plan.as_deref(), Some("galactic_2"));
        assert_eq!((claims.email, claims.expires_at, claims.fedramp), (None, None, false));
    }

    #[test]
    fn an_expiry_with_a_fraction_or_out_of_range_does_no_harm() {
        let expiry = |exp: Value| Claims::of(&jwt(&json!({ "exp": exp }))).unwrap().expires_at;

        assert_eq!(expiry(json!(1_790_781_392.9)), Some(1_790_781_392_000));
        assert_eq!(expiry(json!(1e300)), Some(i64::MAX));
    }

    #[test]
    fn what_is_not_a_token_is_refused_by_kind() {
        for (token, fault) in [
            ("", ClaimsError::NotAJwt),
            ("a.b", ClaimsError::NotAJwt),
            ("a.b.c.d", ClaimsError::NotAJwt),
            ("a.%%%.c", ClaimsError::NotBase64),
            ("a.bm90IGpzb24.c", ClaimsError::NotJson),
            ("a.WzFd.c", ClaimsError::NotJson),
        ] {
            assert_eq!(Claims::of(token), Err(fault), "{token:?}");
        }
    }

    #[test]
    fn gaps_are_filled_from_the_other_token_but_the_expiry_is_not() {
        let id = Claims { email: Some("ada@example.com".into()), ..Claims::default() };
        let access = Claims {
            email: Some("old@example.com".into()),
            plan: Some("plus".into()),
            expires_at: Some(5),
            ..Claims::default()
        };

        let both = id.or(access);

        assert_eq!(both.email.as_deref(), Some("ada@example.com"));
        assert_eq!((both.plan.as_deref(), both.expires_at), (Some("plus"), None));
    }
}
