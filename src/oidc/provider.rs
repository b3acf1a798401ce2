//! The provider: where it sends people, what it gives for a code, and its keys as they change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::claims::{self, Claims};
use super::error::{OidcError, TokenError};
use super::metadata::{self, Metadata, Proof};
use super::token::{self, Expected};
use crate::oauth::Pkce;

/// How long what the provider says of itself is believed.
const FRESH: Duration = Duration::from_hours(1);
/// How often its keys are asked for at most, whatever keys tokens name.
const RENEWAL: Duration = Duration::from_secs(10);
/// No answer of a provider is larger.
const LARGEST: usize = 1 << 20;

/// Who we are at which provider.
#[derive(Debug, Clone)]
pub struct Client {
    /// The provider.
    pub issuer: Url,
    /// Our id there.
    pub id: String,
    /// Of a confidential client.
    pub secret: Option<SecretString>,
    /// Separated by spaces; `openid` is among them.
    pub scopes: String,
    /// Where the provider sends people back to.
    pub redirect: Url,
    /// The claim that lists somebody's groups.
    pub groups_claim: String,
    /// The claim that says what to call somebody.
    pub name_claim: String,
}

/// What a sign-in that has begun remembers until the browser is back.
#[derive(Serialize, Deserialize)]
pub struct Pending {
    nonce: String,
    verifier: String,
}

/// A sign-in that has begun.
pub struct Began {
    /// Where the browser goes.
    pub url: Url,
    /// What it will come back with.
    pub state: String,
    /// What is needed then.
    pub pending: Pending,
}

/// What the browser comes back with.
#[derive(Deserialize)]
pub struct Callback {
    /// As it was sent.
    pub state: Option<String>,
    code: Option<String>,
    /// RFC 9207.
    iss: Option<String>,
    error: Option<String>,
}

/// Somebody, as the provider knows them.
pub struct Person {
    /// Who they are, for ever.
    pub subject: String,
    /// What people call them.
    pub name: String,
    /// The groups that they are in.
    pub groups: Vec<String>,
    /// The token that says so, which the provider wants to see at the end.
    pub id_token: SecretString,
}

/// What a provider has said of itself.
struct Known {
    metadata: Metadata,
    keys: Vec<Jwk>,
    at: Instant,
}

/// A provider.
pub struct Provider {
    http: reqwest::Client,
    client: Client,
    known: Mutex<Option<Arc<Known>>>,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: SecretString,
    id_token: SecretString,
}

/// 256 bits that nobody can guess, as text.
fn random() -> Result<String, OidcError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| OidcError::NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl Provider {
    /// Over a client that follows no redirects and gives up in time. Nothing is asked yet.
    pub fn new(http: reqwest::Client, client: Client) -> Self {
        Self { http, client, known: Mutex::default() }
    }

    /// Begins a sign-in.
    pub async fn begin(&self) -> Result<Began, OidcError> {
        let known = self.known().await?;
        let (state, nonce) = (random()?, random()?);
        let pkce = Pkce::of_verifier(random()?.into());
        let mut url = known.metadata.authorization_endpoint.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client.id)
            .append_pair("redirect_uri", self.client.redirect.as_str())
            .append_pair("scope", &self.client.scopes)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &pkce.challenge)
            .append_pair("code_challenge_method", "S256");
        let verifier = pkce.verifier.expose_secret().to_owned();
        Ok(Began { url, state, pending: Pending { nonce, verifier } })
    }

    /// Finishes the sign-in that the browser comes back from; that its `state` is that of `pending` is
    /// the caller's business.
    pub async fn finish(&self, pending: &Pending, callback: &Callback) -> Result<Person, OidcError> {
        let known = self.known().await?;
        let wrong_issuer = match &callback.iss {
            Some(iss) => *iss != known.metadata.issuer,
            None => known.metadata.authorization_response_iss_parameter_supported,
        };
        if wrong_issuer {
            return Err(OidcError::Callback("the `iss` of another provider, or none"));
        }
        if let Some(error) = &callback.error {
            return Err(OidcError::Ended(code(error)));
        }
        let code = callback.code.as_deref().ok_or(OidcError::Callback("no code"))?;
        let tokens = self.exchange(&known.metadata, code, &pending.verifier).await?;
        let (known, mut claims) = self.believed(known, &tokens, &pending.nonce).await?;
        if claims::find(&claims, &self.client.groups_claim).is_none() {
            let told = self.userinfo(&known.metadata, &tokens.access_token, &claims).await?;
            // What was signed counts more.
            for (name, value) in told {
                claims.entry(name).or_insert(value);
            }
        }
        let subject = claims["sub"].as_str().unwrap_or_default().to_owned();
        let groups = claims::find(&claims, &self.client.groups_claim).map(claims::groups).unwrap_or_default();
        let name = claims::name(&claims, &self.client.name_claim, &subject);
        Ok(Person { subject, name, groups, id_token: tokens.id_token })
    }

    /// Where a browser goes to be signed out there too, if the provider has such a place.
    pub async fn end_session(&self, id_token: Option<&SecretString>) -> Result<Option<Url>, OidcError> {
        let known = self.known().await?;
        let Some(mut url) = known.metadata.end_session_endpoint.clone() else { return Ok(None) };
        url.query_pairs_mut().append_pair("client_id", &self.client.id);
        if let Some(token) = id_token {
            url.query_pairs_mut().append_pair("id_token_hint", token.expose_secret());
        }
        Ok(Some(url))
    }

    /// The claims of an ID token. A key that is not known may be new, so keys are asked for once more.
    async fn believed(
        &self,
        known: Arc<Known>,
        tokens: &Tokens,
        nonce: &str,
    ) -> Result<(Arc<Known>, Claims), OidcError> {
        let verify = |known: &Known| {
            let expected = Expected {
                issuer: &known.metadata.issuer,
                client_id: &self.client.id,
                nonce,
                access_token: tokens.access_token.expose_secret(),
                now: unix_seconds(),
            };
            token::verify(tokens.id_token.expose_secret(), &known.keys, &expected)
        };
        match verify(&known) {
            Err(TokenError::UnknownKey) => {
                let known = self.renewed(&known).await?;
                let claims = verify(&known)?;
                Ok((known, claims))
            }
            told => Ok((known, told?)),
        }
    }

    async fn exchange(&self, metadata: &Metadata, code: &str, verifier: &str) -> Result<Tokens, OidcError> {
        const STEP: &str = "token endpoint";
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.client.redirect.as_str()),
            ("code_verifier", verifier),
        ];
        let mut request = self.http.post(metadata.token_endpoint.clone());
        match &self.client.secret {
            None => form.push(("client_id", &self.client.id)),
            Some(secret) => match metadata.proof() {
                Some(Proof::Basic) => {
                    // RFC 6749 2.3.1: both are encoded as in a form first.
                    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                    request = request.basic_auth(encoded(&self.client.id), Some(encoded(secret.expose_secret())));
                }
                Some(Proof::Post) => {
                    form.extend([("client_id", self.client.id.as_str()), ("client_secret", secret.expose_secret())]);
                }
                None => {
                    let reason = "the provider takes neither client_secret_basic nor client_secret_post".into();
                    return Err(OidcError::Unreadable { step: STEP, reason });
                }
            },
        }
        answer(STEP, request.form(&form)).await
    }

    async fn userinfo(&self, metadata: &Metadata, token: &SecretString, known: &Claims) -> Result<Claims, OidcError> {
        const STEP: &str = "userinfo endpoint";
        let Some(url) = &metadata.userinfo_endpoint else { return Ok(Claims::new()) };
        let claims: Claims = answer(STEP, self.http.get(url.clone()).bearer_auth(token.expose_secret())).await?;
        if claims.get("sub") == known.get("sub") {
            return Ok(claims);
        }
        Err(OidcError::Unreadable { step: STEP, reason: "it speaks of somebody else than the ID token".into() })
    }

    /// What the provider says of itself, from memory while that is fresh.
    async fn known(&self) -> Result<Arc<Known>, OidcError> {
        match self.remembered().filter(|known| known.at.elapsed() < FRESH) {
            Some(known) => Ok(known),
            None => self.ask().await,
        }
    }

    /// What the provider says now, unless it was asked a moment ago.
    async fn renewed(&self, old: &Arc<Known>) -> Result<Arc<Known>, OidcError> {
        let newest = self.remembered().unwrap_or_else(|| old.clone());
        if !Arc::ptr_eq(&newest, old) || newest.at.elapsed() < RENEWAL { Ok(newest) } else { self.ask().await }
    }

    fn remembered(&self) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask(&self) -> Result<Arc<Known>, OidcError> {
        const STEP: &str = "discovery";
        let metadata: Metadata = answer(STEP, self.http.get(metadata::address(&self.client.issuer))).await?;
        if let Some(reason) = metadata.fault(&self.client.issuer) {
            return Err(OidcError::Unreadable { step: STEP, reason });
        }
        let set: Value = answer("key set", self.http.get(metadata.jwks_uri.clone())).await?;
        let known = Arc::new(Known { metadata, keys: token::keys(&set), at: Instant::now() });
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }
}

/// A JSON answer of a good status.
async fn answer<T: DeserializeOwned>(step: &'static str, request: RequestBuilder) -> Result<T, OidcError> {
    // The address is left out: a query may hold what nobody is to see.
    let unreachable = |error: reqwest::Error| OidcError::Unreachable { step, source: error.without_url() };
    let mut response = request.header("accept", "application/json").send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST {
            return Err(OidcError::Unreadable { step, reason: "the answer is larger than 1 MiB".into() });
        }
    }
    let status = response.status();
    if !status.is_success() {
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        let code = code(error["error"].as_str().unwrap_or_default());
        return Err(OidcError::Refused { step, status: status.as_u16(), code });
    }
    // The error's own text could repeat what it could not read.
    let unreadable = |error: serde_json::Error| OidcError::Unreadable {
        step,
        reason: format!("the answer is not as it must be (line {}, column {})", error.line(), error.column()),
    };
    serde_json::from_slice(&body).map_err(unreadable)
}

/// An error code as one may log it.
fn code(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')).take(64).collect()
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
