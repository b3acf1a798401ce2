//! The admin API as commands call it: of this machine's gateway, through its database and without a
//! key, or of a remote one.

use super::open;
use crate::config::Loaded;
use crate::server::admin::Local;
use crate::server::assemble;
use anyhow::{Context, Result};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderName, Method, Request, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

/// The longest answer that is read.
const MOST: usize = 64 << 20;

/// Whose admin API is called.
pub(super) enum Gateway {
    /// This machine's.
    Here(Box<Local>),
    /// Another one's.
    There { http: reqwest::Client, url: Url, key: SecretString },
}

/// What is asked of it.
#[derive(Default)]
pub(super) struct Call {
    pub(super) method: Method,
    /// `/keys`, `/usage?by=team`.
    pub(super) path: String,
    /// JSON.
    pub(super) body: Option<String>,
    /// Only what was seen is changed: the ETag.
    pub(super) if_match: Option<String>,
    /// A create that is sent again under the same key is made once.
    pub(super) idempotency_key: Option<String>,
}

impl Call {
    fn path(&self) -> String {
        format!("/admin/v1/{}", self.path.trim_start_matches('/').trim_start_matches("admin/v1/"))
    }

    fn headers(&self) -> Vec<(HeaderName, &str)> {
        let mut headers = vec![(header::CONTENT_TYPE, "application/json")];
        headers.extend(self.if_match.as_deref().map(|tag| (header::IF_MATCH, tag)));
        let once = self.idempotency_key.as_deref();
        headers.extend(once.map(|key| (HeaderName::from_static("idempotency-key"), key)));
        headers
    }
}

impl Gateway {
    /// The one at `url`, with the setting `admin.key`; without a `url` this machine's.
    pub(super) async fn open(loaded: Loaded, url: Option<Url>) -> Result<Self> {
        let Some(url) = url else {
            let (shown, settings) = (loaded.show(), loaded.settings);
            let store = open::store(&settings).await?;
            let currency = assemble::prices(&settings)?.currency().to_owned();
            let local = Local::new(&settings, shown, store, currency, &open::operator());
            return Ok(Self::Here(Box::new(local)));
        };
        let key = loaded.settings.admin.key.as_ref();
        let key = key.context("admin.key (TOLLWAY_ADMIN__KEY) is not set: the key for --url")?;
        // A redirect would carry the key to another address.
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self::There { http, url, key: key.clone() })
    }

    /// The status and the body of the answer.
    pub(super) async fn call(&self, call: Call) -> Result<(StatusCode, Bytes)> {
        match self {
            Self::Here(local) => {
                let mut request = Request::builder().method(&call.method).uri(call.path());
                for (name, value) in call.headers() {
                    request = request.header(name, value);
                }
                let body = call.body.map_or_else(Body::empty, Body::from);
                let answer = local.call(request.body(body).context("the path is no address")?).await;
                let status = answer.status();
                let body = to_bytes(answer.into_body(), MOST).await.context("the answer cannot be read")?;
                Ok((status, body))
            }
            Self::There { http, url, key } => {
                let address = url.join(&call.path()).context("the path is no address")?;
                let mut request = http.request(call.method.clone(), address).bearer_auth(key.expose_secret().trim());
                for (name, value) in call.headers() {
                    request = request.header(name, value);
                }
                if let Some(body) = call.body {
                    request = request.body(body);
                }
                let answer = request.send().await.with_context(|| format!("{url} does not answer"))?;
                Ok((answer.status(), answer.bytes().await?))
            }
        }
    }

    /// Writes what was learnt, and closes the store.
    pub(super) async fn close(self) {
        if let Self::Here(local) = self {
            local.close().await;
        }
    }
}
