//! Log lines, for people or for machines. Bodies and secrets are never logged: nothing that holds
//! one can be formatted.

use std::io::IsTerminal;
use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// For people at a terminal, else for machines.
    pub fn suited() -> Self {
        if std::io::stderr().is_terminal() { Self::Human } else { Self::Json }
    }
}

/// Libraries say less than we do.
const QUIET: &str = "hyper=warn,h2=warn,reqwest=warn,rustls=warn,sqlx=warn,opentelemetry=warn,tonic=warn,tower=warn";

pub(super) fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // What the operator writes comes last and so wins.
    EnvFilter::builder().parse(format!("{QUIET},{level}"))
}

pub(super) fn layer<S>(format: Format, filter: EnvFilter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Standard output is for what a command prints; logs go beside it.
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Human => {
            layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
        }
        Format::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_may_name_modules_and_a_wrong_one_is_refused() {
        assert!(filter("info,tollway::relay=debug").is_ok());
        assert!(filter("tollway=loud").is_err());
    }
}
