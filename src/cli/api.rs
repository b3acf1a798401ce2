//! `tollway api`: any call of the admin API, of this machine's gateway (through its database, without
//! a key) or of a remote one.

use super::gateway::{Call, Gateway};
use super::show::{self, say};
use crate::config::Loaded;
use anyhow::{Context, Result, bail};
use http::Method;
use std::io::Read as _;
use url::Url;

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
    let gateway = Gateway::open(loaded, options.url).await?;
    let Options { method, path, if_match, .. } = options;
    let answer = gateway.call(Call { method, path, body: data, if_match, ..Call::default() }).await;
    gateway.close().await;
    let (status, body) = answer?;
    let text = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(value) => serde_json::to_string_pretty(&value)?,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    if !status.is_success() {
        bail!("the admin API answered {status}:\n{text}");
    }
    if text.is_empty() { Ok(say!("{status}")?) } else { Ok(show::hand_over(&(text + "\n"))?) }
}
