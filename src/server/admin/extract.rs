//! How the admin API reads requests and writes answers: JSON bodies, queries, pages, entity tags and
//! merge patches (RFC 7396), each with its problem when it cannot be read.

use super::problem::Fault;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// What a handler answers.
pub(super) type Answer = Result<Response, Fault>;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let is_json =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|media| {
                let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                media == "application/json" || media == "application/merge-patch+json"
            });
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|_| Fault::new("too_large", "a body is at most 1 MiB long"))?;
        if !is_json {
            return Err(Fault::new("unsupported_media_type", "send the body as application/json"));
        }
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| Fault::new("invalid_request", format!("the body is not JSON: {error}")))?;
        serde_json::from_value(value).map(Self).map_err(|error| Fault::value(error.to_string()))
    }
}

/// The query.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(query)| Self(query)).map_err(|error| Fault::new("invalid_request", error.body_text()))
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many, 50 if left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Where the page before ended: its `next_cursor`.
    cursor: Option<String>,
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List<T> {
    /// The things.
    pub(super) data: Vec<T>,
    /// Ask with it for what follows; null at the end.
    pub(super) next_cursor: Option<String>,
}

impl Page {
    /// Of a query that holds more than the page.
    pub(super) fn new(limit: Option<u32>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// How many.
    pub(super) fn limit(&self) -> Result<u32, Fault> {
        match self.limit.unwrap_or(50) {
            limit @ 1..=500 => Ok(limit),
            other => Err(Fault::new("invalid_request", format!("limit is from 1 to 500, not {other}"))),
        }
    }

    /// The id that the page before ended with.
    pub(super) fn after(&self) -> Result<Option<String>, Fault> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let id = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let legible = id.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()));
        legible.map(Some).ok_or_else(|| Fault::new("invalid_request", "cursor is none of this list's"))
    }

    /// The page of things that are in memory, ordered by id.
    pub(super) fn of<T>(&self, mut all: Vec<T>, id: impl Fn(&T) -> String) -> Result<List<T>, Fault> {
        let after = self.after()?;
        all.sort_by_cached_key(&id);
        all.retain(|one| after.as_ref().is_none_or(|after| id(one) > *after));
        self.cut(all, id)
    }

    /// The page out of things that begin where it does; one more than fit tells that there are more.
    pub(super) fn cut<T>(&self, mut all: Vec<T>, id: impl Fn(&T) -> String) -> Result<List<T>, Fault> {
        let limit = usize::try_from(self.limit()?).unwrap_or(usize::MAX);
        let more = all.len() > limit;
        all.truncate(limit);
        let next_cursor = all.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(id(last)));
        Ok(List { data: all, next_cursor })
    }
}

/// The version that a caller has seen, by `If-Match`; none if any will do.
pub(super) struct Seen(pub(super) Option<i64>);

impl Seen {
    /// Refuses to remove what is not as it was seen. It is looked at just before, not in the
    /// transaction of the removal.
    pub(super) fn is_still(&self, what: &'static str, version: i64) -> Result<(), Fault> {
        match self.0 {
            Some(seen) if seen != version => Err(Fault::new("outdated", format!("the {what} was changed meanwhile"))),
            _ => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Seen {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        // A tag that was never given out matches nothing, as an old one does.
        let version = text.strip_prefix("\"v").and_then(|rest| rest.strip_suffix('"')).and_then(|v| v.parse().ok());
        Ok(Self(Some(version.unwrap_or(-1))))
    }
}

/// An answer with a body.
#[expect(clippy::unnecessary_wraps, reason = "it is what a handler ends with")]
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    Ok((status, Json(body)).into_response())
}

/// An answer with a body and its version.
#[expect(clippy::unnecessary_wraps, reason = "it is what a handler ends with")]
pub(super) fn versioned(status: StatusCode, version: i64, body: &impl Serialize) -> Answer {
    let mut headers = HeaderMap::new();
    if let Ok(tag) = HeaderValue::try_from(format!("\"v{version}\"")) {
        headers.insert(header::ETAG, tag);
    }
    Ok((status, headers, Json(body)).into_response())
}

/// `target` with what a merge patch changes (RFC 7396).
pub(super) fn merge(target: Value, patch: Value) -> Value {
    let Value::Object(changes) = patch else { return patch };
    let mut merged = if let Value::Object(target) = target { target } else { serde_json::Map::new() };
    for (name, change) in changes {
        if change.is_null() {
            merged.remove(&name);
        } else {
            let old = merged.remove(&name).unwrap_or_default();
            merged.insert(name, merge(old, change));
        }
    }
    Value::Object(merged)
}

/// A name as people may give it.
pub(super) fn name(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err(Fault::value("name: give 1 to 200 characters, none of them a control character"));
    }
    Ok(text.to_owned())
}

/// A line of text that is no name.
pub(super) fn line(field: &str, text: &str) -> Result<String, Fault> {
    if text.chars().count() > 320 || text.chars().any(char::is_control) {
        return Err(Fault::value(format!("{field}: give at most 320 characters, none of them a control character")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_changes_what_it_names() {
        let target = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1]});
        let merged = merge(target, json!({"b": {"c": null, "x": 9}, "e": [2], "f": true}));
        assert_eq!(merged, json!({"a": 1, "b": {"d": 3, "x": 9}, "e": [2], "f": true}));
    }

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let page = |limit, cursor| Page { limit: Some(limit), cursor };
        let id = |one: &&str| (*one).to_owned();
        let first = page(2, None).of(vec!["c", "a", "b"], id).expect("a page");
        assert_eq!(first.data, ["a", "b"]);
        let second = page(2, first.next_cursor).of(vec!["c", "a", "b", "b2"], id).expect("a page");
        assert_eq!((second.data, second.next_cursor), (vec!["b2", "c"], None));
        assert!(page(0, None).of(vec!["a"], id).is_err());
        assert!(page(1, Some("?".into())).of(vec!["a"], id).is_err());
    }
}
