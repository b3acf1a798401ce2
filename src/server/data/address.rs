//! What a request's address means. People give their tools base addresses with and without `/v1`, with
//! a slash at the end, and some tools add `/v1` to what has it already: one form reaches the router.

use super::serve;
use axum::http::header::CONTENT_ENCODING;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Request, Uri};
use std::borrow::Cow;

/// The first segments below `/v1` of OpenAI's and Anthropic's APIs, whether they are served or refused.
const RESOURCES: [&str; 33] = [
    "responses",
    "chat",
    "messages",
    "models",
    "completions",
    "complete",
    "conversations",
    "images",
    "status",
    "me",
    "auth",
    "alpha",
    "embeddings",
    "audio",
    "moderations",
    "files",
    "uploads",
    "batches",
    "fine_tuning",
    "vector_stores",
    "assistants",
    "threads",
    "realtime",
    "videos",
    "evals",
    "containers",
    "skills",
    "organization",
    "organizations",
    "chatkit",
    "edits",
    "agents",
    "memory_stores",
];

/// The request at the one address that the router knows, with its encoding named as the standard does.
pub(super) fn canonical<B>(mut request: Request<B>) -> Request<B> {
    if let Cow::Owned(path) = canonical_path(request.uri().path())
        && let Some(uri) = with_path(request.uri(), &path)
    {
        *request.uri_mut() = uri;
    }
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING) {
        let name = encoding.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => drop(request.headers_mut().remove(CONTENT_ENCODING)),
            "x-gzip" => drop(request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"))),
            _ => {
                if let Ok(name) = HeaderValue::try_from(name) {
                    request.headers_mut().insert(CONTENT_ENCODING, name);
                }
            }
        }
    }
    request
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let whole = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).ok()?);
    Uri::from_parts(parts).ok()
}

/// `//v1/v1/models/` is `/v1/models`, as is `/models`. Escapes are left as they are.
fn canonical_path(path: &str) -> Cow<'_, str> {
    // What nearly all requests are for is not taken apart.
    if serve::generates(path).is_some() {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    while let ["v1", "v1" | "backend-api" | "openapi.json", ..] = segments[..] {
        segments.remove(0);
    }
    if let ["backend-api", "codex", "v1", _, ..] = segments[..] {
        segments.remove(2);
    }
    if segments.first().is_some_and(|first| RESOURCES.contains(first)) {
        segments.insert(0, "v1");
    }
    let canonical = format!("/{}", segments.join("/"));
    if canonical == path { Cow::Borrowed(path) } else { Cow::Owned(canonical) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_base_address_leads_to_the_same_route() {
        let rows = [
            ("/v1/responses", "/v1/responses"),
            ("/responses", "/v1/responses"),
            ("/v1/v1/responses", "/v1/responses"),
            ("/v1/v1/v1/responses", "/v1/responses"),
            ("/v1/responses/", "/v1/responses"),
            ("//v1//responses", "/v1/responses"),
            ("/chat/completions", "/v1/chat/completions"),
            ("/messages/count_tokens/", "/v1/messages/count_tokens"),
            ("/models/openai-codex%2Fgpt-5.5", "/v1/models/openai-codex%2Fgpt-5.5"),
            ("/backend-api/codex/responses/", "/backend-api/codex/responses"),
            ("/v1/backend-api/codex/models", "/backend-api/codex/models"),
            ("/backend-api/codex/v1/models", "/backend-api/codex/models"),
            ("/openapi.json", "/openapi.json"),
            ("/api/hello", "/api/hello"),
            ("/", "/"),
            ("/v1", "/v1"),
            ("/v1/", "/v1"),
            ("/nothing/here", "/nothing/here"),
        ];
        for (path, canonical) in rows {
            assert_eq!(canonical_path(path), canonical, "{path}");
        }
    }

    #[test]
    fn a_query_stays_with_its_path() {
        let request = Request::builder().uri("/v1/v1/messages/?beta=true").body(()).expect("a request");
        assert_eq!(canonical(request).uri(), "/v1/messages?beta=true");
    }

    #[test]
    fn an_encoding_has_one_name() {
        for (given, expected) in [("GZIP ", Some("gzip")), ("x-gzip", Some("gzip")), ("identity", None)] {
            let request = Request::builder().header(CONTENT_ENCODING, given).body(()).expect("a request");
            let encoding = canonical(request).headers().get(CONTENT_ENCODING).cloned();
            assert_eq!(encoding.as_ref().and_then(|value| value.to_str().ok()), expected, "{given}");
        }
    }
}
