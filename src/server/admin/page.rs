//! Plain pages for people whose browser comes here by itself: who is signed in, and what went wrong.
//! They hold no script, and nothing from elsewhere.

use super::gate::Session;
use super::problem::Fault;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const STYLE: &str = "body{font-family:system-ui,sans-serif;max-width:36em;margin:4em auto;padding:0 1em}\
    dt{font-weight:bold;margin-top:.6em}dd{margin:0}button{font:inherit;padding:.4em 1em;margin-top:1.2em}";

/// Whether a page is wanted more than JSON: what a browser says when somebody goes somewhere.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|line| line.split(','))
        .any(|media| media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("text/html")))
}

/// Shows people a problem as a page.
pub(super) async fn for_people(request: Request<Body>, next: Next) -> Response {
    let wanted = is_wanted(request.headers());
    let back = if request.uri().path().ends_with("/auth") { "auth" } else { "../auth" };
    let mut response = next.run(request).await;
    let Some(fault) = response.extensions_mut().remove::<Fault>().filter(|_| wanted) else { return response };
    let (_, title, detail) = fault.told();
    let mut shown = page(
        response.status(),
        title,
        &format!("<p role=\"alert\">{}</p><p><a href=\"{back}\">Back</a></p>", escaped(detail)),
    );
    for name in [header::RETRY_AFTER, header::SET_COOKIE, header::WWW_AUTHENTICATE] {
        for value in response.headers().get_all(&name) {
            shown.headers_mut().append(&name, value.clone());
        }
    }
    if let Some(whose) = response.extensions_mut().remove::<super::gate::Whose>() {
        shown.extensions_mut().insert(whose);
    }
    shown
}

/// Who is signed in, with a way out.
pub(super) fn signed_in(session: &Session, team: Option<&str>, until: &str) -> Response {
    let team = team.map_or_else(|| "the whole gateway".to_owned(), escaped);
    let facts = [
        ("Signed in as", escaped(&session.name)),
        ("Role", session.role.as_str().to_owned()),
        ("Team", team),
        ("Until", escaped(until)),
    ];
    let facts = facts.map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>")).concat();
    // Addresses are relative to /admin/v1/auth, so that a proxy may put a path before it.
    let body = format!(
        "<dl>{facts}</dl><form method=\"post\" action=\"auth/logout\">\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{}\"><button>Sign out</button></form>",
        escaped(&session.csrf)
    );
    page(StatusCode::OK, "Signed in", &body)
}

/// Nobody is.
pub(super) fn signed_out() -> Response {
    page(StatusCode::OK, "Not signed in", "<p><a href=\"auth/login\">Sign in</a></p>")
}

/// Nobody is any more; the provider's own sign-out follows by itself.
pub(super) fn leaving(provider: Option<&str>) -> Response {
    let Some(url) = provider else {
        return page(StatusCode::OK, "Signed out", "<p>You are signed out. <a href=\"../auth\">Back</a></p>");
    };
    let body = format!("<p>You are signed out here. <a href=\"{}\">Sign out at the provider too</a></p>", escaped(url));
    let mut response = page(StatusCode::OK, "Signed out", &body);
    // Not a redirect: what a form may lead to is narrowed by the page that it is on.
    if let Ok(value) = HeaderValue::try_from(format!("0; url={url}")) {
        response.headers_mut().insert(header::REFRESH, value);
    }
    response
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} - Tollway</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>\n"
    );
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, &policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, text).into_response()
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_is_text_on_a_page() {
        assert_eq!(escaped("<b a=\"1\" c='2'>&"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
    }

    #[test]
    fn only_who_asks_for_a_page_gets_one() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", true),
            ("application/json, TEXT/HTML;q=0.5", true),
            ("*/*", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        }
    }
}
