//! What an operator sees: the metric catalogue, traces and logs.
//!
//! This room knows names, labels and exporters; it must not know how a request is served.

pub mod logs;
pub mod metrics;
pub mod traces;

use metrics_exporter_prometheus::PrometheusHandle;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What to install.
#[derive(Debug, Clone)]
pub struct Options {
    /// How log lines look.
    pub format: logs::Format,
    /// Which are written, in `EnvFilter`'s syntax.
    pub level: String,
    /// Where spans go, if anywhere.
    pub otlp: Option<traces::Otlp>,
    /// How many keys have metrics of their own.
    pub keys: u32,
}

/// Why telemetry was not installed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` is not a filter.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter could not be built.
    #[error("otlp: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A header for the collector is not one.
    #[error("otlp.headers: {0} is not a header")]
    Header(String),
    /// The thread that writes lines could not be started.
    #[error("the log could not be begun: {0}")]
    Thread(std::io::Error),
    /// A recorder or a subscriber is there already.
    #[error("telemetry was installed twice")]
    Twice,
}

/// Renders metrics, and flushes spans at the end. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    metrics: PrometheusHandle,
    level: logs::Level,
    lines: logs::Outlet,
    traces: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// How often the metrics recorder tidies up.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long the collector may take for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// How long whoever reads the log may take for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

impl Telemetry {
    /// Installs the subscriber and the recorder, for the process.
    pub fn install(options: &Options) -> Result<Self, TelemetryError> {
        // Standard output is for what a command prints; logs go beside it.
        let lines = logs::Outlet::to(std::io::stderr()).map_err(TelemetryError::Thread)?;
        let (log, level) = logs::layer(options.format, &options.level, options.otlp.is_some(), lines.clone())?;
        let traces = options.otlp.as_ref().map(traces::provider).transpose()?;
        let registry = tracing_subscriber::registry().with(log);
        // A layer that is absent would want every span all the same.
        let installed = match &traces {
            Some(provider) => registry.with(traces::layer(provider)).try_init(),
            None => registry.try_init(),
        };
        installed.map_err(|_| TelemetryError::Twice)?;
        if traces.is_some() {
            traces::propagate();
        }
        Ok(Self { metrics: metrics::install(options.keys)?, level, lines, traces })
    }

    /// Which log lines are written.
    pub fn level(&self) -> &logs::Level {
        &self.level
    }

    /// The metrics page.
    pub fn render(&self) -> String {
        metrics::process();
        self.metrics.render()
    }

    /// The same as OpenMetrics, which names the traces of some requests.
    pub fn render_openmetrics(&self) -> String {
        metrics::openmetrics(&self.render())
    }

    /// Keeps histograms small until `stop`.
    pub async fn upkeep(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.metrics.run_upkeep(),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Sends the spans that are left, and writes the lines. Blocks; call it when nothing runs any more.
    pub fn shutdown(&self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(LAST_SPANS)
        {
            tracing::warn!(%error, "the last spans were not sent");
        }
        self.lines.flush(LAST_LINES);
    }
}

/// Pairs of a header's name and value, sent to the collector.
pub type Headers = BTreeMap<String, secrecy::SecretString>;
