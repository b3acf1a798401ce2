//! `tollway api`: any call of the admin API, of this machine's gateway (through its database, without
//! a key) or of a remote one.

use super::open;
use super::show::{self, say};
use crate::config::{Loaded, Settings};
use crate::server::admin::Local;
use crate::server::assemble;
use anyhow::{Context, Result, bail};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use secrecy::ExposeSecret as _;
use std::io::Read as _;
use url::Url;

/// The longest answer that is read.
const MOST: usize = 64 << 20;

/// Call the admin API and print its answer
#[derive(clap::Args)]
pub(super) struct Options {
    /// GET, POST, PATCH or DELETE
    method: Method,
    /// What to call: /keys, /usage?by=team; docs/admin.md lists all
    path: String,
    /// A JSON body, or - for standard input
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// A gateway's admin listener, such as https://tollway-admin.example.com; the key is taken from
    /// the setting admin.key (TOLLWAY_ADMIN__KEY). Without it, this machine's database
    #[arg(long)]
    url: Option<Url>,
    /// Change only what was seen: the ETag
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

/// Calls, prints, and fails where the answer is a problem.
pub(super) async fn run(loaded: Loaded, options: Options) -> Result<()> {
    let mut data = options.data.clone();
    if data.as_deref() == Some("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        data = Some(text);
    }
    let (status, body) = match &options.url {
        Some(url) => remote(url, &loaded.settings, &options, data).await?,
        None => local(loaded, &options, data).await?,
    };
    let text = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(value) => serde_json::to_string_pretty(&value)?,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    if !status.is_success() {
        bail!("the admin API answered {status}:\n{text}");
    }
    if text.is_empty() { Ok(say!("{status}")?) } else { Ok(show::hand_over(&(text + "\n"))?) }
}

fn path(options: &Options) -> String {
    format!("/admin/v1/{}", options.path.trim_start_matches('/').trim_start_matches("admin/v1/"))
}

async fn local(loaded: Loaded, options: &Options, data: Option<String>) -> Result<(StatusCode, Bytes)> {
    let (shown, settings) = (loaded.show(), loaded.settings);
    let store = open::store(&settings).await?;
    let currency = assemble::prices(&settings)?.currency().to_owned();
    let api = Local::new(&settings, shown, store, currency, &open::operator());
    let mut request = Request::builder().method(&options.method).uri(path(options));
    request = request.header(header::CONTENT_TYPE, "application/json");
    if let Some(tag) = &options.if_match {
        request = request.header(header::IF_MATCH, tag);
    }
    let request = request.body(data.map_or_else(Body::empty, Body::from)).context("the path is no address")?;
    let answer = api.call(request).await;
    let status = answer.status();
    let body = to_bytes(answer.into_body(), MOST).await.context("the answer cannot be read")?;
    api.close().await;
    Ok((status, body))
}

async fn remote(
    url: &Url,
    settings: &Settings,
    options: &Options,
    data: Option<String>,
) -> Result<(StatusCode, Bytes)> {
    let key = settings.admin.key.as_ref().context("admin.key (TOLLWAY_ADMIN__KEY) is not set: the key for --url")?;
    let address = url.join(&path(options)).context("the path is no address")?;
    // A redirect would carry the key to another address.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let mut request = http.request(options.method.clone(), address).bearer_auth(key.expose_secret().trim());
    request = request.header(header::CONTENT_TYPE, "application/json");
    if let Some(tag) = &options.if_match {
        request = request.header(header::IF_MATCH, tag);
    }
    if let Some(data) = data {
        request = request.body(data);
    }
    let answer = request.send().await.with_context(|| format!("{url} does not answer"))?;
    Ok((answer.status(), answer.bytes().await?))
}
