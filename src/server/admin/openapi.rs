//! The admin API describes itself: the routes are made of the same declarations as the document.

use super::problem::Fault;
use super::{Admin, accounts, aliases, keys, log, logins, pools, sign_in, system, tenants, usage};
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::{Arc, OnceLock};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, HeaderBuilder, OpenApi, PathItem, Ref, RefOr, ResponseBuilder};
use utoipa::{OpenApi as _, ToSchema as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Tollway admin API",
        description = "Runs the gateway: accounts, pools, teams, users, keys, limits, usage. \
            Times are Unix milliseconds. Lists come in pages: ask with `cursor` for the next one. \
            Objects have an `ETag`; a change with `If-Match` is made only to what was seen. \
            A POST with an `Idempotency-Key` is made once, however often it is sent within a day. \
            Every change is in the audit log.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/admin/v1")),
    components(schemas(Fault)),
)]
struct Document;

/// Every route with its description.
pub(super) fn described() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(accounts::list, accounts::import))
        .routes(routes!(accounts::get, accounts::patch, accounts::delete))
        .routes(routes!(accounts::refresh))
        .routes(routes!(accounts::probe))
        .routes(routes!(accounts::events))
        .routes(routes!(logins::begin))
        .routes(routes!(logins::finish))
        .routes(routes!(pools::list, pools::create))
        .routes(routes!(pools::get, pools::patch, pools::delete))
        .routes(routes!(pools::explain))
        .routes(routes!(pools::decisions))
        .routes(routes!(tenants::list_teams, tenants::create_team))
        .routes(routes!(tenants::get_team, tenants::patch_team, tenants::delete_team))
        .routes(routes!(tenants::list_users, tenants::create_user))
        .routes(routes!(tenants::get_user, tenants::patch_user, tenants::delete_user))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::get, keys::patch, keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::standing))
        .routes(routes!(aliases::list, aliases::create))
        .routes(routes!(aliases::get, aliases::patch, aliases::delete))
        .routes(routes!(usage::report))
        .routes(routes!(usage::requests))
        .routes(routes!(usage::request))
        .routes(routes!(system::me))
        .routes(routes!(system::admin_keys, system::create_admin_key))
        .routes(routes!(system::revoke_admin_key))
        .routes(routes!(system::audit))
        .routes(routes!(system::settings))
        .routes(routes!(log::get, log::patch))
        .routes(routes!(system::keyring))
        .routes(routes!(system::rotate_keyring))
        .routes(routes!(sign_in::session))
}

/// Those that people's browsers go to, before they are anybody or to be nobody again.
pub(super) fn people() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(sign_in::login))
        .routes(routes!(sign_in::callback))
        .routes(routes!(sign_in::logout))
}

/// The document, which takes no key.
pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/openapi.json", get(serve))
}

async fn serve() -> Response {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| document().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], text.as_str()).into_response()
}

/// The document, with what holds for every operation.
pub(super) fn document() -> OpenApi {
    let (_, mut document) = described().merge(people()).split_for_parts();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            common(operation, method, path);
        }
    }
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("admin_key", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description(
        super::gate::SESSION,
        "Given by a sign-in; over TLS its name begins with `__Host-`. Changes need X-CSRF-Token too.",
    ));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    let either = ["admin_key", "session"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
    document.security = Some(either.to_vec());
    document
}

fn operations(item: &mut PathItem) -> Vec<(&'static str, &mut Operation)> {
    let PathItem { get, post, patch, delete, .. } = item;
    let all = [("get", get), ("post", post), ("patch", patch), ("delete", delete)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?))).collect()
}

/// The problems that an operation may answer with, by its method and address.
fn common(operation: &mut Operation, method: &str, path: &str) {
    let mut problems = vec![
        ("400", "The request cannot be read"),
        ("401", "No valid key or session"),
        ("403", "Not for this role"),
        ("429", "Too many failed attempts"),
    ];
    problems.push(("404", "There is no such thing, or it is another team's"));
    if method == "get" {
        problems.push(("409", "More than one thing is called so"));
    } else {
        problems.push(("409", "Something stands in the way"));
        problems.push(("412", "It was changed meanwhile"));
        problems.push(("422", "A value cannot be used"));
    }
    if matches!(method, "post" | "patch") {
        problems.push(("413", "The body is too large"));
        problems.push(("415", "The body is not JSON"));
    }
    if ["refresh", "probe", "account-logins", "auth/login", "auth/callback"].iter().any(|word| path.contains(word)) {
        problems.push(("502", "The issuer or the backend failed"));
    }
    for (status, description) in problems {
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(Fault::name()))));
        let mut response = ResponseBuilder::new().description(description).content("application/problem+json", content);
        if status == "429" {
            response = response.header("Retry-After", HeaderBuilder::new().description(Some("Seconds")).build());
        }
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response.build().into());
    }
}
