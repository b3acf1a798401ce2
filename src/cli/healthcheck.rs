//! `tollway healthcheck`: for containers without a shell or curl.

use super::Common;
use super::show::say;
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Options {
    /// What to ask; by default /readyz of the configured operations address
    #[arg(long)]
    url: Option<String>,
}

pub(super) async fn run(common: &Common, options: Options) -> Result<ExitCode> {
    let url = match options.url {
        Some(url) => url,
        None => format!("http://{}/readyz", reachable(common.load()?.settings.server.ops_listen)),
    };
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build()?;
    match client.get(&url).send().await {
        Ok(response) if response.status().is_success() => {
            say!("{url}: {}", response.status())?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(response) => {
            eprintln!("{url}: {} {}", response.status(), response.text().await.unwrap_or_default());
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            eprintln!("{url}: {:#}", anyhow::Error::from(error.without_url()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A server that listens everywhere is asked here.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
