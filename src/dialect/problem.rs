//! What went wrong, before a dialect words it.

use crate::codex::{Failure, FailureKind};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::time::Duration;

/// A limit that is lifted within this time is worth waiting for: the SDKs wait no longer.
const WORTH_WAITING: Duration = Duration::from_mins(1);

/// How soon a client may try again what the database was needed for.
const AWAY: Duration = Duration::from_secs(5);

/// A refusal or failure that a client is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is; decides status and type.
    pub kind: ProblemKind,
    /// For people.
    pub message: String,
    /// The backend's own code, where it had one and the kind has none of its own.
    pub code: Option<String>,
    /// The parameter to blame.
    pub param: Option<String>,
    /// How long to wait before another try.
    pub retry_after: Option<Duration>,
    /// When a limit resets, Unix seconds: the Codex CLI shows it.
    pub resets_at: Option<i64>,
    /// How much too long the request is, where the backend does not say.
    pub overflow: Option<Overflow>,
    /// More that the client is told in headers.
    pub headers: Option<Box<HeaderMap>>,
}

/// A request that is longer than its model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// Tokens of the request, counted or estimated.
    pub tokens: u64,
    /// The most that the model takes, by its catalogue.
    pub maximum: u64,
}

/// What a problem is. The comment gives the status and OpenAI's type and code; Anthropic's type
/// follows from the status (clients.md 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// 400 `invalid_request_error`.
    InvalidRequest,
    /// 400 `invalid_request_error`, `context_length_exceeded`.
    ContextLength,
    /// 400 `invalid_request_error`, the backend's policy code.
    Policy,
    /// 401 `authentication_error`, `invalid_api_key`.
    InvalidKey,
    /// 403 `permission_error`.
    PermissionDenied,
    /// 404 `invalid_request_error`, `model_not_found`.
    ModelNotFound,
    /// 404 `invalid_request_error`, `not_found`.
    NotFound,
    /// 405 `invalid_request_error`, `method_not_allowed`.
    MethodNotAllowed,
    /// 413 `invalid_request_error`, `request_too_large`.
    TooLarge,
    /// 415 `invalid_request_error`, `unsupported_media_type`.
    UnsupportedMediaType,
    /// 404 `invalid_request_error`, `unsupported_endpoint`: the backend has nothing for it.
    Unsupported,
    /// 429, type and code `usage_limit_reached`: every account that could serve is used up.
    UsageLimit,
    /// 429 `rate_limit_error`, `rate_limit_exceeded`.
    RateLimited,
    /// 503 `server_error`, `server_is_overloaded`: the backend is at capacity.
    Overloaded,
    /// 503 `server_error`, `server_is_overloaded`: the gateway takes no more requests.
    ShuttingDown,
    /// 503 `server_error`, `service_unavailable`: the gateway's database does not answer, and this
    /// needs it.
    Unavailable,
    /// 503 `server_error`, `no_account_available`: no account is fit to serve; an operator must act.
    NoAccount,
    /// 502 `server_error`, `upstream_error`: the backend failed, or cut the stream.
    Upstream,
    /// 504 `server_error`, `upstream_timeout`.
    UpstreamTimeout,
    /// 500 `server_error`, `internal_error`.
    Internal,
}

impl ProblemKind {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::ContextLength | Self::Policy => StatusCode::BAD_REQUEST,
            Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::ModelNotFound | Self::NotFound | Self::Unsupported => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UsageLimit | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::ShuttingDown | Self::Unavailable | Self::NoAccount => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Upstream => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// One word, for logs and books.
    pub fn as_str(self) -> &'static str {
        self.openai_code().unwrap_or(match self {
            Self::Policy => "policy",
            Self::PermissionDenied => "permission_denied",
            _ => "invalid_request",
        })
    }

    /// OpenAI's `type`.
    pub fn openai_type(self) -> &'static str {
        match self {
            Self::InvalidKey => "authentication_error",
            Self::PermissionDenied => "permission_error",
            Self::RateLimited => "rate_limit_error",
            Self::UsageLimit => "usage_limit_reached",
            Self::Overloaded
            | Self::ShuttingDown
            | Self::Unavailable
            | Self::NoAccount
            | Self::Upstream
            | Self::UpstreamTimeout
            | Self::Internal => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// OpenAI's `code`, where the kind has one.
    pub fn openai_code(self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidRequest | Self::Policy | Self::PermissionDenied => return None,
            Self::ContextLength => "context_length_exceeded",
            Self::InvalidKey => "invalid_api_key",
            Self::ModelNotFound => "model_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "request_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unsupported => "unsupported_endpoint",
            Self::UsageLimit => "usage_limit_reached",
            Self::RateLimited => "rate_limit_exceeded",
            Self::Overloaded | Self::ShuttingDown => "server_is_overloaded",
            Self::Unavailable => "service_unavailable",
            Self::NoAccount => "no_account_available",
            Self::Upstream => "upstream_error",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Internal => "internal_error",
        })
    }
}

impl Problem {
    /// A problem with nothing but a kind and words.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: None,
            param: None,
            retry_after: None,
            resets_at: None,
            overflow: None,
            headers: None,
        }
    }

    /// The gateway's database was needed, and does not answer.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after: Some(AWAY), ..Self::new(ProblemKind::Unavailable, message) }
    }

    /// The client's request is at fault, in this parameter.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(ProblemKind::InvalidRequest, message) }
    }

    /// Whether a client is told to try again, or not to, by `x-should-retry`; `None` leaves it to what
    /// the client thinks of the status.
    pub fn should_retry(&self) -> Option<bool> {
        let soon = self.retry_after.is_some_and(|wait| wait <= WORTH_WAITING);
        match self.kind {
            // Some clients answer a 401 by asking for a new key, and that is no retry in vain.
            ProblemKind::InvalidKey => None,
            ProblemKind::UsageLimit | ProblemKind::NoAccount => Some(soon),
            kind if kind.status().is_server_error() || kind == ProblemKind::RateLimited => Some(true),
            _ => Some(false),
        }
    }

    /// The same problem for a Codex CLI: one that it takes as final, where the gateway has tried what
    /// there is to try. It would call thirty times after another 5xx, and six times after a 404
    /// (protocol.md 5.4).
    #[must_use]
    pub fn final_for_codex_cli(mut self) -> Self {
        self.kind = match self.kind {
            kind if kind.status().is_server_error() => ProblemKind::Overloaded,
            ProblemKind::ModelNotFound => {
                self.code = Some("model_not_found".to_owned());
                ProblemKind::InvalidRequest
            }
            kind => kind,
        };
        self
    }

    /// The code an OpenAI client sees.
    pub fn openai_code(&self) -> Option<&str> {
        self.kind.openai_code().or(self.code.as_deref())
    }
}

/// An error answer, worded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The HTTP status.
    pub status: StatusCode,
    /// The JSON body.
    pub body: Bytes,
}

pub(super) fn of_failure(failure: &Failure) -> Problem {
    let kind = match failure.kind {
        FailureKind::UsageLimit => ProblemKind::UsageLimit,
        FailureKind::RateLimited => ProblemKind::RateLimited,
        FailureKind::Overloaded => ProblemKind::Overloaded,
        FailureKind::NotIncluded | FailureKind::ModelNotOffered => ProblemKind::ModelNotFound,
        FailureKind::Timeout => ProblemKind::UpstreamTimeout,
        FailureKind::ContextLength => ProblemKind::ContextLength,
        FailureKind::Policy => ProblemKind::Policy,
        FailureKind::BadRequest | FailureKind::ForeignReasoning => ProblemKind::InvalidRequest,
        FailureKind::Unauthorized | FailureKind::Forbidden => ProblemKind::NoAccount,
        FailureKind::ServerError | FailureKind::Connection | FailureKind::StreamCut => ProblemKind::Upstream,
    };
    Problem {
        code: failure.code.clone(),
        param: failure.param.clone(),
        retry_after: failure.retry_after,
        resets_at: failure.resets_at,
        ..Problem::new(kind, failure.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProblemKind as K;

    #[test]
    fn clients_are_told_not_to_retry_where_it_is_pointless() {
        let told = |kind, wait: Option<u64>| {
            let retry_after = wait.map(Duration::from_secs);
            Problem { retry_after, ..Problem::new(kind, "words") }.should_retry()
        };
        for kind in [K::InvalidRequest, K::ContextLength, K::Policy, K::ModelNotFound, K::TooLarge, K::Unsupported] {
            assert_eq!(told(kind, None), Some(false), "{kind:?}");
        }
        for kind in [K::UsageLimit, K::NoAccount] {
            assert_eq!(
                (told(kind, None), told(kind, Some(7200)), told(kind, Some(5))),
                (Some(false), Some(false), Some(true))
            );
        }
        for kind in [K::RateLimited, K::Overloaded, K::ShuttingDown, K::Upstream, K::UpstreamTimeout, K::Internal] {
            assert_eq!(told(kind, None), Some(true), "{kind:?}");
        }
        assert_eq!(told(K::InvalidKey, None), None);
    }

    #[test]
    fn a_codex_cli_gets_no_failure_that_it_would_repeat_in_vain() {
        let kind = |kind| Problem::new(kind, "words").final_for_codex_cli().kind;
        for failed in [K::Upstream, K::UpstreamTimeout, K::NoAccount, K::Internal, K::Overloaded] {
            assert_eq!(kind(failed), K::Overloaded, "{failed:?}");
        }
        assert_eq!(kind(K::UsageLimit), K::UsageLimit);
        assert_eq!(kind(K::RateLimited), K::RateLimited, "it waits as long as it is told");
        let unknown = Problem::new(K::ModelNotFound, "words").final_for_codex_cli();
        assert_eq!((unknown.kind, unknown.openai_code()), (K::InvalidRequest, Some("model_not_found")));
    }
}
