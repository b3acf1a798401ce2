//! `/openapi.json`: what the API listener serves, gathered from the handlers' own descriptions
//! (`#[utoipa::path]`). A handler is added in one line below; a test compares with the router.
//!
//! The bodies are OpenAI's and Anthropic's: their vendors document them. Here stands what every
//! request must have, what every answer has, and which statuses and content types there are.

mod batches;
mod errors;
mod kept;
mod shapes;

pub(super) use batches::*;
pub(super) use errors::{AnthropicErrors, EitherErrors, OpenAiErrors};
pub(super) use kept::*;
pub(super) use shapes::*;

use super::{
    batches as message_batches, compact, conversations, images, kept as kept_responses, me, models, reply, serve,
    status,
};
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tollway", description = "OpenAI Responses, OpenAI Chat Completions and Anthropic Messages, answered by a team's ChatGPT/Codex accounts."),
    paths(
        serve::responses,
        serve::codex_responses,
        compact::compact,
        images::generations,
        images::edits,
        me::me,
        status::status,
        status::refresh,
        kept_responses::retrieve,
        kept_responses::delete,
        kept_responses::cancel,
        kept_responses::input_items,
        kept_responses::input_tokens,
        conversations::create,
        conversations::one,
        conversations::update,
        conversations::delete,
        conversations::items,
        conversations::add,
        conversations::item,
        conversations::delete_item,
        serve::chat,
        serve::messages,
        serve::count_tokens,
        message_batches::create,
        message_batches::list,
        message_batches::retrieve,
        message_batches::cancel,
        message_batches::delete,
        message_batches::results,
        models::list,
        models::one,
        models::codex,
        super::root,
        super::hello,
        document,
    ),
    components(schemas(OpenAiError, AnthropicError)),
    modifiers(&Keys),
)]
struct Document;

/// A key of the gateway opens every path but those that say otherwise.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
        components.add_security_scheme("x-api-key", SecurityScheme::ApiKey(header));
        let either = ["bearer", "x-api-key"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
        document.security = Some(either.to_vec());
    }
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", tag = "Gateway", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/json"))
)]
pub(super) async fn document() -> Response {
    reply::json(StatusCode::OK, Body::from(Document::openapi().to_json().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    const METHODS: [&str; 5] = ["get", "post", "delete", "put", "patch"];

    /// Every `method path` of the document.
    fn described() -> BTreeSet<String> {
        let document = serde_json::to_value(Document::openapi()).expect("a document");
        let paths = document["paths"].as_object().expect("paths").clone();
        paths
            .iter()
            .flat_map(|(path, item)| {
                METHODS.iter().filter(|method| item[**method].is_object()).map(move |method| format!("{method} {path}"))
            })
            .collect()
    }

    /// Every `method path` that a router's source names: `.route("/path", get(handler).post(handler))`.
    fn routed(code: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for call in code.split(".route(").skip(1) {
            let Some((path, rest)) = call.split_once(',') else { continue };
            let path = literal(path.trim(), code);
            // The methods are what stands between the path and the parenthesis that ends the call.
            let (mut depth, mut methods) = (1, String::new());
            for letter in rest.chars() {
                depth += i32::from(letter == '(') - i32::from(letter == ')');
                if depth == 0 {
                    break;
                }
                methods.push(if depth == 1 || (depth == 2 && letter == '(') { letter } else { ' ' });
            }
            for method in METHODS {
                let is_named = methods
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '(')
                    .any(|word| word == format!("{method}("));
                if is_named {
                    // A tail that may hold slashes has no word of its own in OpenAPI.
                    found.insert(format!("{method} {}", path.replace("{*", "{")));
                }
            }
        }
        found
    }

    /// A path as it is written, or as a constant of the same file has it.
    fn literal<'a>(path: &'a str, code: &'a str) -> &'a str {
        let constant = format!("const {path}: &str = ");
        code.split_once(&constant).map_or(path, |(_, rest)| rest.split(';').next().unwrap_or(path)).trim_matches('"')
    }

    #[test]
    fn every_route_is_described_and_every_description_has_a_route() {
        let mut routes = BTreeSet::new();
        let mut rooms = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/data")];
        while let Some(room) = rooms.pop() {
            for entry in std::fs::read_dir(room).expect("the room").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() {
                    rooms.push(entry);
                } else {
                    let text = std::fs::read_to_string(&entry).expect("a source file");
                    routes.extend(routed(text.split("#[cfg(test)]").next().unwrap_or_default()));
                }
            }
        }
        // A GET there is an upgrade to a WebSocket, or refused: OpenAPI has no words for it.
        routes.retain(|route| !["get /v1/responses", "get /backend-api/codex/responses"].contains(&route.as_str()));
        let described = described();
        assert_eq!(described.difference(&routes).collect::<Vec<_>>(), Vec::<&String>::new(), "described, but no route");
        // What the Codex CLI calls of its own backend has no public description; some of it is passed as it is.
        let is_internal =
            |route: &str| ["/backend-api/", "/api/codex/", "/v1/alpha/"].iter().any(|own| route.contains(own));
        let undescribed = routes.difference(&described).filter(|route| !is_internal(route));
        assert_eq!(undescribed.collect::<Vec<_>>(), Vec::<&String>::new(), "a route, but not described");
    }

    #[test]
    fn routes_are_found_with_all_their_methods() {
        let code = "const C: &str = \"/c\";\n.route(\"/a\", get(x::get_it).post(post_it))\n.route(C, put(z))\n.route(\n \"/b/{id}\", delete(|| async { y(get) }))";
        let found: Vec<String> = routed(code).into_iter().collect();
        assert_eq!(found, ["delete /b/{id}", "get /a", "post /a", "put /c"]);
    }
}
