//! Device-code login; protocol.md 1.6. Here the issuer chooses the PKCE pair.

use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::client::{OAuthClient, refused, success};
use super::error::{DeviceError, OAuthError};
use super::login::AuthorizationCode;
use super::reply::lenient_seconds;

/// How long a code can be entered (protocol.md 1.6).
pub const DEVICE_CODE_LIFE: Duration = Duration::from_mins(15);

/// The interval where the issuer names none.
const INTERVAL: Duration = Duration::from_secs(5);

/// A device login that waits for a person.
pub struct DeviceCode {
    /// What the person types.
    pub user_code: String,
    /// Where.
    pub page: Url,
    /// How long to wait between two polls.
    pub interval: Duration,
    device_auth_id: String,
}

impl DeviceCode {
    /// For a login that another process may end: to be kept sealed.
    pub fn to_note(&self) -> Zeroizing<Vec<u8>> {
        let seconds = self.interval.as_secs().to_string();
        let parts = [self.user_code.as_str(), self.page.as_str(), &seconds, &self.device_auth_id];
        Zeroizing::new(parts.join("\n").into_bytes())
    }

    /// What [`DeviceCode::to_note`] kept.
    pub fn of_note(note: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(note).ok()?.split('\n');
        let mut next = || parts.next().map(str::to_owned);
        let (user_code, page, seconds, device_auth_id) = (next()?, next()?, next()?, next()?);
        let (page, interval) = (Url::parse(&page).ok()?, Duration::from_secs(seconds.parse().ok()?));
        Some(Self { user_code, page, interval, device_auth_id })
    }
}

/// What a poll found.
pub enum DevicePoll {
    /// Nobody has entered the code yet.
    Pending,
    /// The login is done; exchange this.
    Approved(AuthorizationCode),
}

#[derive(Deserialize)]
struct StartReply {
    device_auth_id: String,
    #[serde(alias = "usercode")]
    user_code: String,
    #[serde(default, deserialize_with = "lenient_seconds")]
    interval: Option<Duration>,
}

#[derive(Deserialize)]
struct PollReply {
    authorization_code: SecretString,
    code_verifier: SecretString,
}

impl OAuthClient {
    /// Asks for a code.
    pub async fn device_start(&self) -> Result<DeviceCode, DeviceError> {
        const STEP: &str = "asking for a device code";
        let body = json!({ "client_id": self.client_id() });
        let answer = self
            .post(&self.endpoints().device_start, |request| request.json(&body))
            .await
            .map_err(|none| none.in_step(STEP))?;
        if answer.status == 404 {
            return Err(DeviceError::NotEnabled);
        }
        let reply: StartReply = success(&answer, STEP, "a device_auth_id and a user_code")?;
        Ok(DeviceCode {
            user_code: reply.user_code,
            page: self.endpoints().device_page.clone(),
            interval: reply.interval.unwrap_or(INTERVAL).max(Duration::from_secs(1)),
            device_auth_id: reply.device_auth_id,
        })
    }

    /// Asks once whether the code was entered.
    pub async fn device_poll(&self, code: &DeviceCode) -> Result<DevicePoll, DeviceError> {
        const STEP: &str = "asking whether the code was entered";
        let body = json!({
            "device_auth_id": code.device_auth_id,
            "user_code": code.user_code,
        });
        let answer = self
            .post(&self.endpoints().device_poll, |request| request.json(&body))
            .await
            .map_err(|none| none.in_step(STEP))?;
        if answer.is_success() {
            let reply: PollReply = success(&answer, STEP, "an authorization_code")?;
            return Ok(DevicePoll::Approved(AuthorizationCode {
                code: reply.authorization_code,
                verifier: reply.code_verifier,
                redirect_uri: self.endpoints().device_redirect.to_string(),
            }));
        }
        let fault = answer.fault();
        match (answer.status, fault.code.as_deref()) {
            (_, Some("access_denied" | "authorization_denied")) => Err(DeviceError::Denied),
            (_, Some("expired_token" | "device_code_expired")) => Err(DeviceError::Expired),
            // 403 and 404 are how this issuer says "not yet" (protocol.md 1.6).
            (403 | 404, _) | (_, Some("authorization_pending" | "slow_down")) => Ok(DevicePoll::Pending),
            _ => Err(refused(&answer, STEP).into()),
        }
    }
}

/// Polls every `interval` until the code is entered, refused or [`DEVICE_CODE_LIFE`] old. `tick`
/// gets the time that is left, every second. A poll that gets no answer is no reason to give up.
pub async fn wait_for_approval(
    interval: Duration,
    mut poll: impl AsyncFnMut() -> Result<DevicePoll, DeviceError>,
    mut tick: impl FnMut(Duration),
) -> Result<AuthorizationCode, DeviceError> {
    let deadline = Instant::now() + DEVICE_CODE_LIFE;
    let mut next_poll = Instant::now() + interval;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        let now = seconds.tick().await;
        let left = deadline.saturating_duration_since(now);
        tick(left);
        if left.is_zero() {
            return Err(DeviceError::Expired);
        }
        if now < next_poll {
            continue;
        }
        match poll().await {
            Ok(DevicePoll::Approved(code)) => return Ok(code),
            Ok(DevicePoll::Pending) | Err(DeviceError::Issuer(OAuthError::Unreachable { .. })) => {}
            Err(other) => return Err(other),
        }
        next_poll = Instant::now() + interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approved() -> DevicePoll {
        DevicePoll::Approved(AuthorizationCode {
            code: "c".into(),
            verifier: "v".into(),
            redirect_uri: "https://issuer/deviceauth/callback".into(),
        })
    }

    fn unreachable() -> DeviceError {
        DeviceError::Issuer(OAuthError::Unreachable { step: "s", detail: "d".into() })
    }

    #[tokio::test(start_paused = true)]
    async fn polling_keeps_the_interval_and_outlives_a_lost_answer() {
        let (begin, mut polls) = (Instant::now(), Vec::new());

        let code = wait_for_approval(
            Duration::from_secs(5),
            async || {
                polls.push(begin.elapsed().as_secs());
                match polls.len() {
                    1 => Ok(DevicePoll::Pending),
                    2 => Err(unreachable()),
                    _ => Ok(approved()),
                }
            },
            |_| {},
        )
        .await;

        assert!(code.is_ok());
        assert_eq!(polls, [5, 10, 15]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_that_nobody_enters_expires_after_a_countdown_to_zero() {
        let mut countdown = Vec::new();

        let end = wait_for_approval(
            Duration::from_secs(5),
            async || Ok(DevicePoll::Pending),
            |left| countdown.push(left.as_secs()),
        )
        .await;

        assert_eq!(end.err(), Some(DeviceError::Expired));
        assert_eq!((countdown[0], countdown.len()), (900, 901));
        assert_eq!(countdown.last(), Some(&0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_denied_code_ends_the_wait() {
        let end = wait_for_approval(Duration::from_secs(5), async || Err(DeviceError::Denied), |_| {}).await;

        assert_eq!(end.err(), Some(DeviceError::Denied));
    }
}
