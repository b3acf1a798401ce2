//! One exchange with the issuer over HTTP: send, read a bounded body, say what went wrong without
//! repeating what was sent.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{RequestBuilder, Response};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::{IssuerFault, OAuthError, clean_message};

/// Token answers have a few KiB; more than this is not one.
const BODY_LIMIT: usize = 256 * 1024;

/// An answer of any status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// There was no answer.
pub(super) struct NoAnswer {
    /// One line, without the address and without anything that was sent.
    pub(super) detail: String,
}

/// The fields of the token endpoint's answers; all optional (protocol.md 1.4).
#[derive(Deserialize)]
pub(super) struct TokenReply {
    pub(super) access_token: Option<SecretString>,
    pub(super) refresh_token: Option<SecretString>,
    pub(super) id_token: Option<SecretString>,
    #[serde(default, deserialize_with = "lenient_seconds")]
    pub(super) expires_in: Option<Duration>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// None when the body is not such an object. Serde's words are dropped: they quote the input.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    pub(super) fn fault(&self) -> IssuerFault {
        IssuerFault::read(self.status, &self.body)
    }
}

/// Sends `request` and reads the answer.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, NoAnswer> {
    let response = request.send().await.map_err(NoAnswer::of)?;
    let status = response.status().as_u16();
    let retry_after = retry_after(&response);
    let body = read_bounded(response).await?;
    Ok(Answer { status, retry_after, body })
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, NoAnswer> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(NoAnswer::of)? {
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(NoAnswer { detail: "the issuer's answer is too long to be one".to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Only the form in seconds; a date is rare here and not worth a parser.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

impl NoAnswer {
    fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let kind = if error.is_connect() {
            "cannot connect to the issuer"
        } else if error.is_timeout() {
            "the issuer did not answer in time"
        } else {
            "the connection to the issuer broke"
        };
        let mut cause = error.source();
        while let Some(deeper) = cause.and_then(std::error::Error::source) {
            cause = Some(deeper);
        }
        let detail = match cause {
            Some(cause) => format!("{kind}: {}", clean_message(&cause.to_string())),
            None => kind.to_owned(),
        };
        Self { detail }
    }

    pub(super) fn in_step(self, step: &'static str) -> OAuthError {
        OAuthError::Unreachable { step, detail: self.detail }
    }
}

/// Seconds as a number or as text: the device endpoint sends text, peers saw both (protocol.md
/// 1.6). Anything else counts as absent.
pub(super) fn lenient_seconds<'de, D>(deserializer: D) -> Result<Option<Duration>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    let seconds = value.as_u64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    Ok(seconds.map(Duration::from_secs))
}
