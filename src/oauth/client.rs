//! The issuer's endpoints: authorize URL, code exchange, refresh, revoke. The device endpoints are
//! in `device.rs`.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::time::timeout;
use url::Url;

use super::departure::{Departure, Timely};
use super::error::{OAuthError, RefreshError};
use super::login::AuthorizationCode;
use super::reply::{Answer, NoAnswer, TokenReply, send};
use super::tokens::{LoginTokens, TokenSet};

/// The Codex CLI's public client id (protocol.md 1.1).
pub const CLIENT_ID: &str = "app_EMoamEEZ73f0CkXaXp7hrann";

/// What the gateway needs and no more: the CLI also asks for the connectors' scopes, peers work
/// without them (protocol.md 1.2). `offline_access` is what brings a refresh token.
pub const SCOPE: &str = "openid profile email offline_access";

/// Revoking is best effort (protocol.md 1.7).
const REVOKE_TIMEOUT: Duration = Duration::from_secs(10);

/// After the time for a refresh is over: for an answer that is there and was not read yet.
const LAST_CALL: Duration = Duration::from_secs(1);

/// Why a refresh is made; travels with it (protocol.md 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshReason {
    /// The access token ends soon or has ended.
    ProactiveExpiry,
    /// The token's end is unknown and the last refresh is long ago.
    Scheduled,
    /// The backend answered 401.
    UnauthorizedRecovery,
    /// An operator asked for it.
    Forced,
}

impl RefreshReason {
    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProactiveExpiry => "proactive_expiry",
            Self::Scheduled => "scheduled",
            Self::UnauthorizedRecovery => "unauthorized_recovery",
            Self::Forced => "forced",
        }
    }
}

/// The issuer's addresses (protocol.md 1.1, 1.2, 1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Where a person's browser goes.
    pub authorize: Url,
    /// Code exchange and refresh.
    pub token: Url,
    /// Ends a login.
    pub revoke: Url,
    /// Gives a device code.
    pub device_start: Url,
    /// Says whether the code was entered.
    pub device_poll: Url,
    /// Where a person enters it.
    pub device_page: Url,
    /// Stands in for a redirect in the exchange after a device login.
    pub device_redirect: Url,
}

impl Endpoints {
    /// The endpoints below `issuer`.
    pub fn of(issuer: &Url) -> Self {
        let below = |path: &str| {
            let mut url = issuer.clone();
            url.set_path(&format!("{}/{path}", issuer.path().trim_end_matches('/')));
            url.set_query(None);
            url.set_fragment(None);
            url
        };
        Self {
            authorize: below("oauth/authorize"),
            token: below("oauth/token"),
            revoke: below("oauth/revoke"),
            device_start: below("api/accounts/deviceauth/usercode"),
            device_poll: below("api/accounts/deviceauth/token"),
            device_page: below("codex/device"),
            device_redirect: below("deviceauth/callback"),
        }
    }

    /// Another token endpoint; the revoke endpoint moves to the same origin, as in the CLI
    /// (protocol.md 1.1). Set `revoke` afterwards where it lives elsewhere.
    #[must_use]
    pub fn with_token(mut self, token: Url) -> Self {
        self.revoke = token.clone();
        self.revoke.set_path("/oauth/revoke");
        self.revoke.set_query(None);
        self.token = token;
        self
    }
}

/// What an [`OAuthClient`] is made of besides the connection pool.
#[derive(Debug, Clone)]
pub struct OAuthConfig {
    /// The addresses.
    pub endpoints: Endpoints,
    /// The client id that the logins belong to.
    pub client_id: String,
    /// Space-separated; must hold `offline_access`.
    pub scope: String,
    /// Says who is calling, in the authorize URL and as a header.
    pub originator: String,
    /// The `user-agent` header.
    pub user_agent: String,
    /// For a whole exchange, from connecting to the last byte.
    pub timeout: Duration,
}

/// A client of the issuer. Cheap to clone.
///
/// Hand in a [`reqwest::Client`] that follows no redirects: a redirected refresh would carry the
/// refresh token to another address.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    http: reqwest::Client,
    config: OAuthConfig,
}

impl OAuthClient {
    /// A client over this connection pool.
    pub fn new(http: reqwest::Client, config: OAuthConfig) -> Self {
        Self { http, config }
    }

    /// The addresses in use.
    pub fn endpoints(&self) -> &Endpoints {
        &self.config.endpoints
    }

    /// The client id in use.
    pub fn client_id(&self) -> &str {
        &self.config.client_id
    }

    /// Where the person who logs in goes (protocol.md 1.2; parameters in the CLI's order).
    pub fn authorize_url(&self, redirect_uri: &str, challenge: &str, state: &str) -> Url {
        let mut url = self.config.endpoints.authorize.clone();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.config.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", &self.config.scope),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
            ("id_token_add_organizations", "true"),
            ("codex_cli_simplified_flow", "true"),
            ("state", state),
            ("originator", &self.config.originator),
        ]);
        url
    }

    /// Turns a code into tokens (protocol.md 1.3). A code works once, so this is not repeated.
    pub async fn exchange_code(&self, code: &AuthorizationCode) -> Result<LoginTokens, OAuthError> {
        const STEP: &str = "exchanging the code for tokens";
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.code.expose_secret()),
            ("redirect_uri", &code.redirect_uri),
            ("client_id", &self.config.client_id),
            ("code_verifier", code.verifier.expose_secret()),
        ];
        let answer = self
            .post(&self.config.endpoints.token, |request| request.form(&form))
            .await
            .map_err(|none| none.in_step(STEP))?;
        let reply: TokenReply = success(&answer, STEP, "a JSON object")?;
        let required = |field: Option<SecretString>, missing| {
            field.filter(|token| !token.expose_secret().is_empty()).ok_or(OAuthError::Malformed { step: STEP, missing })
        };
        Ok(LoginTokens {
            access_token: required(reply.access_token, "an access_token")?,
            refresh_token: required(reply.refresh_token, "a refresh_token")?,
            id_token: reply.id_token,
            expires_in: reply.expires_in,
        })
    }

    /// The longest that a refresh takes.
    pub fn longest(&self) -> Duration {
        self.config.timeout + LAST_CALL
    }

    /// Exchanges a refresh token for its successor (protocol.md 1.4). Never repeats itself: the
    /// token may be used up although no answer arrived. `timely` is asked when its bytes are about to
    /// leave; if it says no, they do not, and the error is [`RefreshError::Withheld`].
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        reason: RefreshReason,
        timely: Timely,
    ) -> Result<TokenSet, RefreshError> {
        let body = json!({
            "client_id": self.config.client_id,
            "grant_type": "refresh_token",
            "refresh_reason": reason.as_str(),
            "refresh_token": refresh_token.expose_secret(),
        });
        let body = Bytes::from(body.to_string());
        let length = body.len();
        let (body, fate) = Departure::new(body, timely);
        let request = self
            .request(&self.config.endpoints.token)
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap(body));
        let answer = match self.heard_out(send(request)).await {
            Ok(answer) => answer,
            Err(_) if fate.was_withheld() => return Err(RefreshError::Withheld),
            Err(detail) => {
                let ambiguous = fate.left();
                return Err(RefreshError::Transient { code: None, detail, retry_after: None, ambiguous });
            }
        };
        if answer.is_success() {
            token_set(&answer)
        } else {
            let fault = answer.fault().without(refresh_token.expose_secret());
            Err(RefreshError::of_fault(fault, answer.retry_after))
        }
    }

    /// Ends a login at the issuer (protocol.md 1.7). Best effort: callers go on when it fails.
    pub async fn revoke(&self, refresh_token: &SecretString) -> Result<(), OAuthError> {
        const STEP: &str = "revoking the login";
        let body = json!({
            "token": refresh_token.expose_secret(),
            "token_type_hint": "refresh_token",
            "client_id": self.config.client_id,
        });
        let answer = self
            .post(&self.config.endpoints.revoke, |request| request.json(&body).timeout(REVOKE_TIMEOUT))
            .await
            .map_err(|none| none.in_step(STEP))?;
        if answer.is_success() { Ok(()) } else { Err(refused(&answer, STEP)) }
    }

    pub(super) async fn post(
        &self,
        url: &Url,
        body: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Answer, NoAnswer> {
        send(body(self.request(url).timeout(self.config.timeout))).await
    }

    fn request(&self, url: &Url) -> RequestBuilder {
        let request = self.http.post(url.clone()).header(USER_AGENT, &self.config.user_agent);
        request.header("originator", &self.config.originator)
    }

    /// Waits for an answer that must not be missed. To a process that was paused, the time is over when
    /// it wakes, with the answer in its socket: it is read before the time counts.
    async fn heard_out(&self, answer: impl Future<Output = Result<Answer, NoAnswer>>) -> Result<Answer, String> {
        let mut answer = pin!(answer);
        for patience in [self.config.timeout, LAST_CALL] {
            if let Ok(heard) = timeout(patience, &mut answer).await {
                return heard.map_err(|none| none.detail);
            }
        }
        Err("the issuer did not answer in time".to_owned())
    }
}

pub(super) fn refused(answer: &Answer, step: &'static str) -> OAuthError {
    OAuthError::Refused { step, fault: answer.fault() }
}

pub(super) fn success<T: serde::de::DeserializeOwned>(
    answer: &Answer,
    step: &'static str,
    missing: &'static str,
) -> Result<T, OAuthError> {
    if !answer.is_success() {
        return Err(refused(answer, step));
    }
    answer.json().ok_or(OAuthError::Malformed { step, missing })
}

/// A success without tokens hides what happened to the refresh token: transient, and ambiguous.
fn token_set(answer: &Answer) -> Result<TokenSet, RefreshError> {
    let filled = |field: Option<SecretString>| field.filter(|t| !t.expose_secret().is_empty());
    let set = answer.json().map(|reply: TokenReply| TokenSet {
        access_token: filled(reply.access_token),
        refresh_token: filled(reply.refresh_token),
        id_token: filled(reply.id_token),
        expires_in: reply.expires_in,
    });
    match set {
        Some(set) if set.access_token.is_some() || set.refresh_token.is_some() => Ok(set),
        _ => Err(RefreshError::Transient {
            code: None,
            detail: format!("the issuer's answer (HTTP {}) holds no tokens", answer.status),
            retry_after: None,
            ambiguous: true,
        }),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
