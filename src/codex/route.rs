//! Where an account's workspace lives (protocol.md 6.6): most live at the backend's own address, some
//! at another origin, and requests for these must go there.

use http::HeaderValue;
use serde::Deserialize;
use url::Url;

/// What the backend writes where there is nothing to obey.
const FREE: &str = "NO_CONSTRAINT";

/// Where requests of one account go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// The workspace's origin, where it is not the configured one.
    pub origin: Option<Url>,
    /// What `x-openai-account-routing-override` says.
    pub routing_override: Option<HeaderValue>,
}

/// Why a workspace cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The answer was no account list.
    #[error("the backend's account list is not legible")]
    Illegible,
    /// The account is not in its own list.
    #[error("the backend's account list does not name the account")]
    Unlisted,
    /// What stands for an origin is none, or carries credentials.
    #[error("its workspace's origin is not one")]
    NoOrigin,
    /// An origin that is not allowed; the origin, without anything else.
    #[error("its workspace lives at {0}, which `backend.workspace_origins` does not allow")]
    Forbidden(String),
}

/// Which origins workspaces may live at: those named, and the vendor's own domains over HTTPS.
#[derive(Debug, Clone, Default)]
pub struct OriginRule {
    named: Vec<url::Origin>,
}

/// The vendor's domains.
const DOMAINS: [&str; 2] = ["chatgpt.com", "openai.com"];

impl OriginRule {
    /// The rule with more origins, separated by spaces or commas.
    pub fn new(named: &str) -> Result<Self, url::ParseError> {
        let words = named.split([' ', ',']).filter(|word| !word.is_empty());
        Ok(Self { named: words.map(|word| Url::parse(word).map(|url| url.origin())).collect::<Result<_, _>>()? })
    }

    fn allows(&self, origin: &Url) -> bool {
        if self.named.contains(&origin.origin()) {
            return true;
        }
        let host = origin.host_str().unwrap_or_default();
        let is_in =
            |domain: &&str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        origin.scheme() == "https" && origin.port().is_none() && DOMAINS.iter().any(is_in)
    }
}

impl Route {
    /// Reads an `accounts/check` answer for the account of id `chatgpt_account_id`. `base` is the
    /// configured address: its own origin needs no leave.
    pub fn read(body: &[u8], chatgpt_account_id: &str, base: &Url, rule: &OriginRule) -> Result<Self, RouteError> {
        #[derive(Deserialize)]
        struct Check {
            accounts: Vec<Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            id: String,
            #[serde(default)]
            workspace_backend_origin: Option<String>,
            #[serde(default)]
            account_routing_override: Option<String>,
        }
        let check: Check = serde_json::from_slice(body).map_err(|_| RouteError::Illegible)?;
        let listed = check.accounts.into_iter().find(|one| one.id == chatgpt_account_id).ok_or(RouteError::Unlisted)?;
        let origin = match listed.workspace_backend_origin.as_deref() {
            None | Some(FREE | "") => None,
            Some(text) => Some(origin(text, base, rule)?),
        };
        let routing_override = listed.account_routing_override.filter(|choice| choice != FREE && !choice.is_empty());
        Ok(Self {
            origin: origin.filter(|origin| origin.origin() != base.origin()),
            routing_override: routing_override.and_then(|choice| HeaderValue::try_from(choice).ok()),
        })
    }
}

fn origin(text: &str, base: &Url, rule: &OriginRule) -> Result<Url, RouteError> {
    let url = Url::parse(text).map_err(|_| RouteError::NoOrigin)?;
    let is_plain = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !url.has_host() || !is_plain || !url.username().is_empty() || url.password().is_some() {
        return Err(RouteError::NoOrigin);
    }
    if url.origin() == base.origin() || rule.allows(&url) {
        return Ok(url);
    }
    Err(RouteError::Forbidden(url.origin().ascii_serialization()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(origin: &str, choice: &str, rule: &str) -> Result<Route, RouteError> {
        let body = json!({"accounts":[{"id":"other","workspace_backend_origin":"https://no.example"},
            {"id":"a","workspace_backend_origin":origin,"account_routing_override":choice}]});
        let base = Url::parse("https://chatgpt.com/backend-api").expect("an address");
        Route::read(body.to_string().as_bytes(), "a", &base, &OriginRule::new(rule).expect("origins"))
    }

    #[test]
    fn a_workspace_without_constraint_or_at_home_needs_no_route() {
        for origin in [FREE, "https://chatgpt.com", "https://chatgpt.com/"] {
            assert_eq!(read(origin, FREE, ""), Ok(Route::default()), "{origin}");
        }
    }

    #[test]
    fn the_vendors_own_domains_are_allowed_over_https_only() {
        let us = read("https://us.chatgpt.com", "us", "").expect("allowed");
        assert_eq!(us.origin.expect("an origin").as_str(), "https://us.chatgpt.com/");
        assert_eq!(us.routing_override, Some(HeaderValue::from_static("us")));
        for origin in [
            "http://us.chatgpt.com",
            "https://notchatgpt.com",
            "https://chatgpt.com.evil.example",
            "https://us.chatgpt.com:8443",
        ] {
            assert!(matches!(read(origin, FREE, ""), Err(RouteError::Forbidden(_))), "{origin}");
        }
    }

    #[test]
    fn the_operator_allows_more_by_name() {
        assert!(read("http://127.0.0.1:9", FREE, "https://a.example http://127.0.0.1:9").is_ok());
        assert!(read("http://127.0.0.1:8", FREE, "https://a.example http://127.0.0.1:9").is_err());
        assert!(OriginRule::new("nonsense").is_err());
    }

    #[test]
    fn what_is_no_origin_is_refused_without_being_repeated() {
        for origin in ["https://u:p@us.chatgpt.com", "https://us.chatgpt.com/path", "us", "data:x"] {
            assert_eq!(read(origin, FREE, ""), Err(RouteError::NoOrigin), "{origin}");
        }
    }

    #[test]
    fn an_account_that_its_list_does_not_name_has_no_route() {
        let base = Url::parse("https://chatgpt.com").expect("an address");
        let read = |body: &[u8]| Route::read(body, "a", &base, &OriginRule::default());
        assert_eq!(read(br#"{"accounts":[]}"#), Err(RouteError::Unlisted));
        assert_eq!(read(b"[]"), Err(RouteError::Illegible));
    }
}
