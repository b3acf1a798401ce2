//! The token sets that the issuer hands out, and what is known about whom they belong to.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use super::claims::Claims;

/// The answer to a refresh. Every field that is there replaces the stored one, the others stay as
/// they are (protocol.md 1.4); at least one of the first two is there.
#[derive(Clone)]
pub struct TokenSet {
    /// The new access token.
    pub access_token: Option<SecretString>,
    /// The successor of the refresh token, which is dead from now on. Save it before anything else.
    pub refresh_token: Option<SecretString>,
    /// The new id token.
    pub id_token: Option<SecretString>,
    /// The access token's life as the reply states it.
    pub expires_in: Option<Duration>,
}

impl TokenSet {
    /// When the new access token ends (Unix milliseconds): its own `exp`, else `now` plus
    /// `expires_in`. None when neither is known or when there is no new access token.
    pub fn access_expires_at(&self, now: i64) -> Option<i64> {
        self.access_token.as_ref().and_then(|token| expiry(token, self.expires_in, now))
    }
}

/// The answer to a code exchange: a whole new login (protocol.md 1.3).
pub struct LoginTokens {
    /// Sent to the backend.
    pub access_token: SecretString,
    /// Single use: each refresh gives its successor.
    pub refresh_token: SecretString,
    /// Says who logged in.
    pub id_token: Option<SecretString>,
    /// The access token's life as the reply states it.
    pub expires_in: Option<Duration>,
}

/// The tokens do not say which workspace they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the tokens name no ChatGPT account (claim chatgpt_account_id); was this a ChatGPT login?")]
pub struct IdentityError;

/// What a login or an import brings: a credential set and the account it is for.
pub struct Enrolment {
    /// For people to tell accounts apart; not the identity.
    pub email: Option<String>,
    /// With `chatgpt_account_id` the identity of an account (protocol.md 1.8).
    pub chatgpt_user_id: Option<String>,
    /// The workspace.
    pub chatgpt_account_id: String,
    /// The plan as the token spells it.
    pub plan: Option<String>,
    /// Whether backend calls need the FedRAMP header.
    pub fedramp: bool,
    /// Sent to the backend.
    pub access_token: SecretString,
    /// Never empty.
    pub refresh_token: SecretString,
    /// Absent in some files.
    pub id_token: Option<SecretString>,
    /// When the access token ends, in Unix milliseconds.
    pub access_expires_at: Option<i64>,
}

impl LoginTokens {
    /// Reads the account out of the tokens. `now` (Unix milliseconds) anchors `expires_in`.
    pub fn enrol(self, now: i64) -> Result<Enrolment, IdentityError> {
        let claims = claims_of(self.id_token.as_ref(), &self.access_token);
        Ok(Enrolment {
            email: claims.email,
            chatgpt_user_id: claims.chatgpt_user_id,
            chatgpt_account_id: claims.chatgpt_account_id.ok_or(IdentityError)?,
            plan: claims.plan,
            fedramp: claims.fedramp,
            access_expires_at: expiry(&self.access_token, self.expires_in, now),
            access_token: self.access_token,
            refresh_token: self.refresh_token,
            id_token: self.id_token,
        })
    }
}

/// The id token's claims with the gaps filled from the access token: both carry the auth claim.
pub(super) fn claims_of(id_token: Option<&SecretString>, access_token: &SecretString) -> Claims {
    let read = |token: &SecretString| Claims::of(token.expose_secret()).unwrap_or_default();
    id_token.map(read).unwrap_or_default().or(read(access_token))
}

/// The end that the token itself states, in Unix milliseconds.
pub(super) fn own_expiry(access_token: &SecretString) -> Option<i64> {
    Claims::of(access_token.expose_secret()).ok()?.expires_at
}

fn expiry(access_token: &SecretString, expires_in: Option<Duration>, now: i64) -> Option<i64> {
    own_expiry(access_token).or_else(|| {
        let life = i64::try_from(expires_in?.as_millis()).unwrap_or(i64::MAX);
        Some(now.saturating_add(life))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{access_token, jwt};
    use super::*;

    fn tokens(access: &str, id: Option<String>, expires_in: Option<u64>) -> LoginTokens {
        LoginTokens {
            access_token: access.into(),
            refresh_token: "rt".into(),
            id_token: id.map(Into::into),
            expires_in: expires_in.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_login_is_enrolled_under_the_account_that_its_tokens_name() {
        let id = jwt(&serde_json::json!({"email": "ada@work.example"}));

        let enrolment = tokens(&access_token("acc-1", "user-1", 100), Some(id), Some(9)).enrol(0).unwrap();

        assert_eq!(enrolment.email.as_deref(), Some("ada@work.example"));
        assert_eq!(enrolment.chatgpt_account_id, "acc-1");
        assert_eq!(enrolment.access_expires_at, Some(100_000));
    }

    #[test]
    fn an_opaque_access_token_lives_as_long_as_the_reply_says() {
        let set = TokenSet {
            access_token: Some("opaque".into()),
            refresh_token: None,
            id_token: None,
            expires_in: Some(Duration::from_mins(1)),
        };

        assert_eq!(set.access_expires_at(1_000), Some(61_000));
    }

    #[test]
    fn tokens_without_an_account_are_no_enrolment() {
        assert_eq!(tokens("opaque", None, None).enrol(0).err(), Some(IdentityError));
    }
}
