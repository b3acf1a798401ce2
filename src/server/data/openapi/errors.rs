//! The answers that say what went wrong, in each vendor's shape.

use super::shapes::{AnthropicError, OpenAiError};
use std::collections::BTreeMap;
use utoipa::openapi::schema::OneOf;
use utoipa::openapi::{Content, Ref, RefOr, Response, Schema};
use utoipa::{IntoResponses, ToSchema};

/// Statuses and what they mean, alike in both shapes.
const STATUSES: [(&str, &str); 11] = [
    ("400", "The request is at fault, or cannot be served as it is"),
    ("401", "No key, or none that is known"),
    ("403", "The key may not do this"),
    ("404", "There is no such thing, or not for this key"),
    ("413", "The body is too large"),
    ("415", "The body's encoding is not understood"),
    ("429", "A limit is used up; `retry-after` says until when"),
    ("500", "The gateway failed"),
    ("502", "The backend failed"),
    ("503", "No account can serve now"),
    ("504", "The backend did not answer in time"),
];

/// OpenAI's error object.
pub(in crate::server::data) struct OpenAiErrors;

impl IntoResponses for OpenAiErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        in_shape(&Schema::from(one_of(&[&OpenAiError::name()])), &[])
    }
}

/// Anthropic's, with a status of its own for an overload.
pub(in crate::server::data) struct AnthropicErrors;

impl IntoResponses for AnthropicErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        in_shape(&Schema::from(one_of(&[&AnthropicError::name()])), &[("529", "The backend is overloaded")])
    }
}

/// The shape that the caller's headers ask for.
pub(in crate::server::data) struct EitherErrors;

impl IntoResponses for EitherErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let either = one_of(&[&OpenAiError::name(), &AnthropicError::name()]);
        in_shape(&Schema::from(either), &[("529", "The backend is overloaded")])
    }
}

fn one_of(names: &[&str]) -> OneOf {
    let mut shapes = OneOf::new();
    shapes.items = names.iter().map(|name| RefOr::Ref(Ref::from_schema_name(*name))).collect();
    shapes
}

fn in_shape(shape: &Schema, more: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let respond = |(status, meaning): &(&str, &str)| {
        let mut response = Response::new(*meaning);
        response.content.insert("application/json".to_owned(), Content::new(Some(shape.clone())).into());
        ((*status).to_owned(), RefOr::T(response))
    };
    STATUSES.iter().chain(more).map(respond).collect()
}
