//! What a provider says of itself (OpenID Connect Discovery 1.0).

use serde::Deserialize;
use url::{Host, Url};

/// The discovery document, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) jwks_uri: Url,
    pub(super) userinfo_endpoint: Option<Url>,
    pub(super) end_session_endpoint: Option<Url>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// RFC 9207: the browser always comes back with `iss`.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// How the client proves itself at the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
}

/// Whether nobody on the way reads what is sent there: TLS, or this machine itself.
pub fn is_confidential(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && here)
}

/// Where the document is.
pub(super) fn address(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    url.set_path(&format!("{}/.well-known/openid-configuration", issuer.path().trim_end_matches('/')));
    url
}

impl Metadata {
    /// What is wrong with it, for an issuer that was asked for it.
    pub(super) fn fault(&self, issuer: &Url) -> Option<String> {
        // An address without a path is read with a slash at its end, which its issuer may not have.
        if self.issuer.trim_end_matches('/') != issuer.as_str().trim_end_matches('/') {
            return Some(format!("the document is that of another issuer, {:?}", self.issuer));
        }
        let required = [&self.authorization_endpoint, &self.token_endpoint, &self.jwks_uri];
        let optional = [&self.userinfo_endpoint, &self.end_session_endpoint];
        let mut all = required.into_iter().chain(optional.into_iter().flatten());
        let open = all.find(|url| !is_confidential(url))?;
        Some(format!("the document names {open}, which is not https"))
    }

    /// How a client with a secret proves itself; `client_secret_basic` where nothing is said.
    pub(super) fn proof(&self) -> Option<Proof> {
        let Some(methods) = &self.token_endpoint_auth_methods_supported else { return Some(Proof::Basic) };
        let known = [("client_secret_basic", Proof::Basic), ("client_secret_post", Proof::Post)];
        known.into_iter().find(|(name, _)| methods.iter().any(|method| method == name)).map(|(_, proof)| proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn metadata(change: &Value) -> Metadata {
        let mut document = json!({
            "issuer": "https://id.example.com",
            "authorization_endpoint": "https://id.example.com/auth",
            "token_endpoint": "https://id.example.com/token",
            "jwks_uri": "https://id.example.com/keys",
        });
        for (name, value) in change.as_object().unwrap() {
            document[name] = value.clone();
        }
        serde_json::from_value(document).unwrap()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_document_is_below_the_issuer() {
        for (issuer, expected) in [
            ("https://id.example.com", "https://id.example.com/.well-known/openid-configuration"),
            ("https://id.example.com/realms/a/", "https://id.example.com/realms/a/.well-known/openid-configuration"),
        ] {
            assert_eq!(address(&url(issuer)).as_str(), expected);
        }
    }

    #[test]
    fn the_document_must_be_that_of_the_issuer_and_name_no_open_address() {
        let issuer = url("https://id.example.com");
        assert_eq!(metadata(&json!({})).fault(&issuer), None);
        assert!(metadata(&json!({})).fault(&url("https://id.example.com/other")).is_some());
        assert!(metadata(&json!({"issuer": "https://evil.example.com"})).fault(&issuer).is_some());
        assert!(metadata(&json!({"token_endpoint": "http://id.example.com/token"})).fault(&issuer).is_some());
        assert!(metadata(&json!({"userinfo_endpoint": "http://127.0.0.1/me"})).fault(&issuer).is_none());
    }

    #[test]
    fn a_client_proves_itself_as_the_provider_takes_it() {
        let proof = |methods: Value| metadata(&json!({"token_endpoint_auth_methods_supported": methods})).proof();
        assert_eq!(proof(Value::Null), Some(Proof::Basic));
        assert_eq!(proof(json!(["client_secret_post", "client_secret_basic"])), Some(Proof::Basic));
        assert_eq!(proof(json!(["private_key_jwt", "client_secret_post"])), Some(Proof::Post));
        assert_eq!(proof(json!(["private_key_jwt"])), None);
    }

    #[test]
    fn only_tls_and_this_machine_are_confidential() {
        for (address, expected) in [
            ("https://id.example.com", true),
            ("http://127.0.0.1:9", true),
            ("http://[::1]:9", true),
            ("http://localhost:9", true),
            ("http://id.example.com", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(is_confidential(&url(address)), expected, "{address}");
        }
    }
}
