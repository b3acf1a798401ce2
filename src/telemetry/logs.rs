//! Log lines, for people or for machines. Bodies and secrets are never logged: nothing that holds
//! one can be formatted.

use super::traces;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::span::Record;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, reload};

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

fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // What the operator writes comes last and so wins.
    EnvFilter::builder().parse(format!("{QUIET},{level}"))
}

/// Which lines are written, while the process runs. Cheap to clone.
#[derive(Clone)]
pub struct Level {
    now: Arc<Mutex<Now>>,
}

struct Now {
    /// As it was written by whoever set it.
    text: String,
    set: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send>,
}

/// Why a level was not set.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// It is not one.
    #[error("`{0}` is neither a level (error, warn, info, debug, trace, off) nor a filter: {1}")]
    Parse(String, ParseError),
    /// There is none.
    #[error("is empty; `off` writes nothing")]
    Empty,
    /// The log is no more.
    #[error("the log does not take a level: {0}")]
    Gone(#[from] reload::Error),
}

impl Level {
    /// The level, or filter, in force.
    pub fn get(&self) -> String {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// From now on these lines are written. Gives what was in force before.
    pub fn set(&self, text: &str) -> Result<String, LevelError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(LevelError::Empty);
        }
        let no_level = |error| LevelError::Parse(text.to_owned(), error);
        let filter = filter(text).map_err(no_level)?;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (now.set)(filter)?;
        Ok(std::mem::replace(&mut now.text, text.to_owned()))
    }
}

/// The log, and what sets its level.
pub(super) fn layer<S>(format: Format, level: &str) -> Result<(Box<dyn Layer<S> + Send + Sync>, Level), ParseError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (filter, handle) = reload::Layer::new(filter(level)?);
    // Standard output is for what a command prints; logs go beside it.
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        Format::Human => {
            layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
        }
        Format::Json => {
            let json = format::format().json().flatten_event(true).with_current_span(false).with_span_list(false);
            layer.event_format(Traced(json)).fmt_fields(NoFields).with_filter(filter).boxed()
        }
    };
    let set = Box::new(move |filter| handle.reload(filter));
    Ok((layer, Level { now: Arc::new(Mutex::new(Now { text: level.to_owned(), set })) }))
}

/// What spans know is not in JSON lines, so it is not written down for them either: each value that a
/// span learns would be, with all that it knew before.
struct NoFields;

impl FormatFields<'_> for NoFields {
    fn format_fields<R: RecordFields>(&self, _: Writer<'_>, _: R) -> fmt::Result {
        Ok(())
    }

    fn add_fields(&self, _: &mut FormattedFields<Self>, _: &Record<'_>) -> fmt::Result {
        Ok(())
    }
}

/// JSON lines that say which trace they belong to, where they belong to one.
struct Traced<F>(F);

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> format::FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let span = context.event_scope().and_then(|mut scope| scope.next());
        let ids = span.and_then(|span| {
            tracing::dispatcher::get_default(|log| tracing_opentelemetry::get_otel_context(&span.id(), log))
                .as_ref()
                .and_then(traces::ids_of)
        });
        let Some((trace, span)) = ids else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match line.strip_suffix('}') {
            Some(open) => writeln!(writer, r#"{open},"trace_id":"{trace}","span_id":"{span}"}}"#),
            None => writeln!(writer, "{line}"),
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
