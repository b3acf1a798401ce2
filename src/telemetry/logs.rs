//! Log lines, for people or for machines. Bodies and secrets are never logged: nothing that holds
//! one can be formatted.

mod json;
mod outlet;

use json::Lines;
pub(super) use outlet::Outlet;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::FormattedFields;
use tracing_subscriber::fmt::format::{FormatFields, Writer};
use tracing_subscriber::layer::{Context, Filter};
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

/// What the log takes: the lines that the operator wants, and of spans only those that are for somebody.
struct Taken {
    lines: EnvFilter,
    /// Whether anybody reads what spans know. A span that nobody takes costs nothing, at each of the many
    /// values that it learns.
    spans: bool,
}

impl Taken {
    /// A filter may ask for what happens within a span.
    fn new(lines: EnvFilter, spans: bool) -> Self {
        let spans = spans || lines.to_string().contains('[');
        Self { lines, spans }
    }

    fn is_for_nobody(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && !self.spans
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Taken {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        !self.is_for_nobody(metadata) && Filter::enabled(&self.lines, metadata, context)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_for_nobody(metadata) {
            return Interest::never();
        }
        <EnvFilter as Filter<S>>::callsite_enabled(&self.lines, metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        <EnvFilter as Filter<S>>::max_level_hint(&self.lines)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        Filter::on_new_span(&self.lines, attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.lines, id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_enter(&self.lines, id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        Filter::on_exit(&self.lines, id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        Filter::on_close(&self.lines, id, context);
    }
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

/// The log, and what sets its level. `traced`: whether spans are traces too, which lines name.
pub(super) fn layer<S>(
    format: Format,
    level: &str,
    traced: bool,
    outlet: Outlet,
) -> Result<(Box<dyn Layer<S> + Send + Sync>, Level), ParseError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Lines for people repeat what their spans know.
    let spans = traced || format == Format::Human;
    let (filter, handle) = reload::Layer::new(Taken::new(filter(level)?, spans));
    let layer = tracing_subscriber::fmt::layer().with_writer(move || outlet.clone());
    let layer = match format {
        Format::Human => {
            layer.with_target(false).with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed()
        }
        Format::Json => layer.event_format(Lines).fmt_fields(NoFields).with_filter(filter).boxed(),
    };
    let set = Box::new(move |filter| handle.reload(Taken::new(filter, spans)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn a_level_may_name_modules_and_a_wrong_one_is_refused() {
        assert!(filter("info,tollway::relay=debug").is_ok());
        assert!(filter("tollway=loud").is_err());
    }

    /// Whether a span is made under such a log, before and after its filter is set to another.
    fn makes_spans(format: Format, level: &str, traced: bool, then: &str) -> [bool; 2] {
        let outlet = Outlet::to(std::io::sink()).expect("a thread");
        let (log, handle) = layer(format, level, traced, outlet).expect("a filter");
        let made = || !tracing::info_span!("request").is_disabled();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            let before = made();
            handle.set(then).expect("a filter");
            [before, made()]
        })
    }

    #[test]
    fn spans_are_made_only_for_somebody_who_reads_them() {
        let of_spans = "info,[request]=debug";
        assert_eq!(makes_spans(Format::Json, "info", false, of_spans), [false, true]);
        assert_eq!(makes_spans(Format::Json, of_spans, false, "info"), [true, false]);
        assert_eq!(makes_spans(Format::Json, "info", true, "warn,tollway=info"), [true, true]);
        assert_eq!(makes_spans(Format::Human, "info", false, "info"), [true, true]);
    }
}
