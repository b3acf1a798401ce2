//! One JSON object a line, as `tracing-subscriber` writes it, with the ids of its trace. Every request ends
//! in a line: written this way it costs less than half.

use crate::telemetry::traces;
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// Room for the line of a request.
const USUAL: usize = 768;
/// What the bridge from the `log` crate adds to its events: among it, where they come from.
const BRIDGED: &str = "log.";
const BRIDGED_TARGET: &str = "log.target";

/// Writes events as lines.
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line { text: String::with_capacity(USUAL), target: None };
        line.text.push_str(r#"{"timestamp":""#);
        SystemTime.format_time(&mut Writer::new(&mut line.text))?;
        line.text.push_str(r#"","level":""#);
        line.text.push_str(event.metadata().level().as_str());
        line.text.push('"');
        event.record(&mut line);
        let target = line.target.take();
        line.member("target", target.as_deref().unwrap_or(event.metadata().target()));
        let span = context.event_scope().and_then(|mut scope| scope.next());
        let ids = span.and_then(|span| {
            tracing::dispatcher::get_default(|log| tracing_opentelemetry::get_otel_context(&span.id(), log))
                .as_ref()
                .and_then(traces::ids_of)
        });
        if let Some((trace, span)) = ids {
            line.member("trace_id", &trace);
            line.member("span_id", &span);
        }
        line.text.push_str("}\n");
        writer.write_str(&line.text)
    }
}

/// A line that is being written.
struct Line {
    text: String,
    /// Where the event comes from, if that is not what its metadata say.
    target: Option<String>,
}

impl Line {
    fn name(&mut self, name: &str) {
        self.text.push(',');
        self.quote(name);
        self.text.push(':');
    }

    fn member(&mut self, name: &str, value: &str) {
        self.name(name);
        self.quote(value);
    }

    fn quote(&mut self, text: &str) {
        if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
            // Text always has a form in JSON.
            self.text.push_str(&serde_json::to_string(text).unwrap_or_default());
            return;
        }
        self.text.push('"');
        self.text.push_str(text);
        self.text.push('"');
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if !field.name().starts_with(BRIDGED) {
            self.name(field.name());
            // Nothing fails that writes to a string.
            let _ = write!(self.text, "{value}");
        }
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Neither infinity nor what is no number has a form in JSON.
        if value.is_finite() { self.plain(field, format_args!("{value:?}")) } else { self.plain(field, "null") }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            BRIDGED_TARGET => self.target = Some(value.to_owned()),
            name if name.starts_with(BRIDGED) => {}
            name => self.member(name, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex, PoisonError};
    use tracing_subscriber::layer::SubscriberExt as _;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that our formatter writes, or the library's, of all that is logged meanwhile.
    fn lines(ours: bool, log: impl Fn()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        if ours {
            let log_to = tracing_subscriber::registry().with(layer.event_format(Lines));
            tracing::subscriber::with_default(log_to, log);
        } else {
            let layer = layer.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        }
        let text = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(text).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn lines_say_what_those_of_the_library_say() {
        let log = || {
            tracing::info!(request_id = %"req_1", route = "/v1", key = Option::<&str>::None, "request");
            tracing::warn!(target: "elsewhere", quoted = "a \"b\" \\ c\nd\u{1}é🦀", error = ?Some("x"), "it is \"so\"");
            let (half, whole, infinite) = (0.5, 2.0, f64::INFINITY);
            tracing::error!(half, whole, infinite, least = i64::MIN, most = u64::MAX, yes = true, "numbers");
            tracing::info!(r#type = "x", gen_ai.usage = 1);
        };
        let without_time = |lines: Vec<Value>| -> Vec<Value> {
            let emptied = lines.into_iter().map(|mut line| {
                assert!(line["timestamp"].take().as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 27));
                line
            });
            emptied.collect()
        };
        let ours = without_time(lines(true, log));
        assert_eq!(ours, without_time(lines(false, log)));
        assert_eq!(ours[0]["request_id"], json!("req_1"));
        assert_eq!(ours[2]["infinite"], Value::Null);
    }

    #[test]
    fn the_name_of_a_library_that_logs_elsewhere_is_its_target() {
        let log = || tracing::info!(log.target = "rustls::client", log.line = 7, "hello");
        let line = &lines(true, log)[0];
        assert_eq!(line["target"], "rustls::client");
        assert_eq!(line.as_object().map(serde_json::Map::len), Some(4), "{line}");
    }
}
