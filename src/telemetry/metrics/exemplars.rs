//! Exemplars: of each bucket of some histograms, the trace of the request that fell into it last. The
//! recorder knows none, so they are kept here, and written into the page as OpenMetrics wants it.

use super::catalogue::{Kind, Metric};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The series of a bucket: its metric with the labels as the page has them, and its place.
type Bucket = (String, usize);

struct Exemplar {
    trace: String,
    value: f64,
    at: f64,
}

/// As many as the histograms have buckets, whose labels are bounded.
static KEPT: LazyLock<Mutex<HashMap<Bucket, Exemplar>>> = LazyLock::new(Mutex::default);

/// A request of this trace has this value.
pub(super) fn record(metric: &Metric, labels: &[(&str, Cow<'static, str>)], value: f64, trace: &str) {
    let Kind::Histogram(bounds) = metric.kind else { return };
    let place = bounds.partition_point(|bound| *bound < value);
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    let series = format!("{}_bucket{{{}", metric.name, labels.join(","));
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let exemplar = Exemplar { trace: trace.to_owned(), value, at };
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert((series, place), exemplar);
}

/// As the page writes a label's value.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A page in Prometheus' text format as OpenMetrics, with exemplars.
pub(super) fn openmetrics(page: &str) -> String {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = String::with_capacity(page.len() + page.len() / 8);
    // The place of a bucket is that of its line among those of its series.
    let (mut last, mut place) = (String::new(), 0);
    for line in page.lines().filter(|line| !line.is_empty()) {
        if let Some(about) = line.strip_prefix("# ") {
            let _ = writeln!(out, "# {}", family(about));
            continue;
        }
        out.push_str(line);
        if let Some((series, _)) = line.split_once(",le=\"") {
            place = if series == last { place + 1 } else { 0 };
            series.clone_into(&mut last);
            if let Some(Exemplar { trace, value, at }) = kept.get(&(last.clone(), place)) {
                let _ = write!(out, " # {{trace_id=\"{trace}\"}} {value} {at:.3}");
            }
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

/// `HELP name text` and `TYPE name type`, where a counter is named without its `_total`.
fn family(about: &str) -> Cow<'_, str> {
    let mut words = about.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(what), Some(name), Some(rest)) => match name.strip_suffix("_total") {
            Some(family) => Cow::Owned(format!("{what} {family} {}", help(what, rest))),
            None => Cow::Owned(format!("{what} {name} {}", help(what, rest))),
        },
        _ => Cow::Borrowed(about),
    }
}

/// OpenMetrics wants quotes escaped in a text too.
fn help<'a>(what: &str, text: &'a str) -> Cow<'a, str> {
    if what == "HELP" && text.contains('"') { Cow::Owned(text.replace('"', "\\\"")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::DURATION;
    use super::*;

    #[test]
    fn a_page_is_told_as_openmetrics_and_a_bucket_names_the_trace_that_fell_into_it() {
        record(&DURATION, &[("dialect", "chat".into()), ("model", "a\"b".into())], 0.03, "abc");
        let page = "# HELP x_total It's \"x\"\n# TYPE x_total counter\nx_total{a=\"b\"} 1\n\n\
                    # TYPE tollway_request_duration_seconds histogram\n\
                    tollway_request_duration_seconds_bucket{dialect=\"chat\",model=\"a\\\"b\",le=\"0.01\"} 0\n\
                    tollway_request_duration_seconds_bucket{dialect=\"chat\",model=\"a\\\"b\",le=\"0.05\"} 1\n\
                    tollway_request_duration_seconds_sum{dialect=\"chat\",model=\"a\\\"b\"} 0.03\n";
        let told = openmetrics(page);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[..3], ["# HELP x It's \\\"x\\\"", "# TYPE x counter", "x_total{a=\"b\"} 1"]);
        assert!(lines[4].ends_with("le=\"0.01\"} 0"), "{told}");
        assert!(lines[5].contains("le=\"0.05\"} 1 # {trace_id=\"abc\"} 0.03 "), "{told}");
        assert_eq!((lines.len(), lines[7]), (8, "# EOF"));
    }
}
