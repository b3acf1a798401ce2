//! `tollway serve`.

use super::{Common, open};
use crate::config::{Settings, Shown};
use crate::telemetry::Telemetry;
use clap::Args;

#[derive(Args)]
pub(super) struct Options {
    /// Where the API listens
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where the admin API listens
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// Where /healthz, /readyz and /metrics listen
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<String>,
    /// Serve requests without a key; only on a loopback address
    #[arg(long)]
    insecure_no_keys: bool,
}

pub(super) async fn run(common: &Common, options: &Options) -> anyhow::Result<()> {
    let mut sources = common.sources();
    let no_keys = options.insecure_no_keys.then(|| "true".to_owned());
    let flags = [
        ("server.listen", "--listen", &options.listen),
        ("admin.listen", "--admin-listen", &options.admin_listen),
        ("server.ops_listen", "--ops-listen", &options.ops_listen),
        ("server.insecure_no_keys", "--insecure-no-keys", &no_keys),
    ];
    for (key, flag, value) in flags {
        if let Some(value) = value {
            sources.flags.push((key, flag, value.clone()));
        }
    }
    let loaded = crate::config::load(&sources)?;
    let (shown, settings) = (loaded.show(), loaded.settings);
    // The exporter's HTTP client blocks where it is built.
    let telemetry_options = settings.telemetry();
    let telemetry = tokio::task::spawn_blocking(move || Telemetry::install(&telemetry_options)).await??;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), backend = %settings.backend.base_url, "starting");
    let served = serve(&settings, shown, &telemetry).await;
    tokio::task::spawn_blocking(move || telemetry.shutdown()).await?;
    served
}

/// Waits for the database, and serves until the process is told to stop.
async fn serve(settings: &Settings, shown: Vec<Shown>, telemetry: &Telemetry) -> anyhow::Result<()> {
    // Whoever waits for a database can be told to stop.
    let mut told_to_stop = std::pin::pin!(crate::server::told_to_stop());
    let store = tokio::select! {
        opened = open::store_in_time(settings) => opened?,
        () = &mut told_to_stop => return Ok(()),
    };
    let served = crate::server::run(settings, shown, store.clone(), telemetry.clone(), told_to_stop).await;
    store.close().await;
    Ok(served?)
}
