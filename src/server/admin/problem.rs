//! What the admin API answers when it cannot do what it was asked: RFC 9457 problem details.

use crate::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Problem details (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Fault {
    /// What kind of problem: `urn:tollway:problem:not_found`.
    #[serde(rename = "type")]
    kind: String,
    /// The same in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// Seconds until it may be tried again.
    #[serde(skip)]
    pub(super) retry_after: Option<u64>,
}

/// Every kind of problem: its name, its status, its title.
const KINDS: [(&str, StatusCode, &str); 15] = [
    ("invalid_request", StatusCode::BAD_REQUEST, "The request cannot be read"),
    ("unauthenticated", StatusCode::UNAUTHORIZED, "Nobody known has asked"),
    ("forbidden", StatusCode::FORBIDDEN, "The caller's role does not allow this"),
    ("not_found", StatusCode::NOT_FOUND, "There is no such thing"),
    ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "The address does not take this method"),
    ("conflict", StatusCode::CONFLICT, "Something stands in the way"),
    ("ambiguous", StatusCode::CONFLICT, "More than one thing is called so"),
    ("outdated", StatusCode::PRECONDITION_FAILED, "Somebody else changed it meanwhile"),
    ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not JSON"),
    ("invalid_value", StatusCode::UNPROCESSABLE_ENTITY, "A value cannot be used"),
    ("too_many_attempts", StatusCode::TOO_MANY_REQUESTS, "Too many attempts"),
    ("internal", StatusCode::INTERNAL_SERVER_ERROR, "The gateway failed"),
    ("upstream", StatusCode::BAD_GATEWAY, "The issuer or the backend failed"),
    ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "This gateway does not offer it"),
];

impl Fault {
    /// Of a kind of [`KINDS`].
    pub(super) fn new(name: &str, detail: impl Into<String>) -> Self {
        let known = KINDS.iter().find(|(kind, ..)| *kind == name).unwrap_or(&KINDS[12]);
        let (kind, status, title) = *known;
        let kind = format!("urn:tollway:problem:{kind}");
        Self { kind, title, status: status.as_u16(), detail: detail.into(), retry_after: None }
    }

    /// Status, title and detail, for a page.
    pub(super) fn told(&self) -> (u16, &'static str, &str) {
        (self.status, self.title, &self.detail)
    }

    /// A value that cannot be used.
    pub(super) fn value(detail: impl Into<String>) -> Self {
        Self::new("invalid_value", detail)
    }

    /// There is no such thing, or it is none of the caller's business.
    pub(super) fn not_found(what: &str, asked: &str) -> Self {
        Self::new("not_found", format!("no {what} is called {asked:?}"))
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NotFound { .. } => "not_found",
            StoreError::Ambiguous { .. } => "ambiguous",
            StoreError::Taken { .. }
            | StoreError::KnownHash
            | StoreError::InUse { .. }
            | StoreError::NotCurrent { .. } => "conflict",
            StoreError::Outdated { .. } => "outdated",
            StoreError::Repeated => {
                let detail = "this Idempotency-Key has made its change before, and the answer is not known (yet): look at what it made";
                return Self::new("conflict", detail);
            }
            _ => {
                tracing::error!(error = &error as &dyn std::error::Error, "the admin API failed");
                return Self::new("internal", "the database could not do it; the log says why");
            }
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(&self)).into_response();
        // For whoever shows it in another form.
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tollway admin\""));
        }
        response
    }
}
