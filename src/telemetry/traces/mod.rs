//! Spans, and their way to an OTLP collector. Names and attributes follow the OpenTelemetry
//! conventions for HTTP servers and for generative AI (clients.md 3).

mod sampling;
mod tail;
mod watched;

pub use sampling::Sampling;

use super::{Headers, TelemetryError};
use crate::codex::Usage;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Array, Context, StringValue, Value, global};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter};

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// The collector.
    pub endpoint: Endpoint,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// What it wants to see, e.g. a key.
    pub headers: Headers,
    /// `service.name`, unless the environment says otherwise.
    pub service_name: String,
    /// Which traces are kept, where the caller has not decided: known when they begin.
    pub sampling: Sampling,
    /// The share for [`Sampling::ParentBasedTraceIdRatio`] and its like: 0.0–1.0.
    pub sample_ratio: f64,
    /// Which others are kept after all: known when they end.
    pub keep: Keep,
}

/// Where a collector is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// The collector for all signals: `http://host:4317` for gRPC, `http://host:4318` for HTTP.
    Base(String),
    /// The address for traces, as it is.
    Traces(String),
}

/// Which traces are kept although they were not to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Those in which something has failed.
    pub errors: bool,
    /// Those that took at least this long.
    pub slow: Option<Duration>,
}

impl Keep {
    /// Whether there may be any.
    fn any(self) -> bool {
        self.errors || self.slow.is_some()
    }
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP with protobuf.
    #[serde(rename = "http/protobuf")]
    Http,
}

pub(super) fn provider(otlp: &Otlp) -> Result<SdkTracerProvider, TelemetryError> {
    // Time-outs and compression are the builder's to read: `OTEL_EXPORTER_OTLP_TIMEOUT` and its like.
    let exporter = match otlp.protocol {
        Protocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_endpoint(otlp.endpoint.for_grpc())
            .with_metadata(metadata(&otlp.headers)?)
            .build()?,
        Protocol::Http => SpanExporter::builder()
            .with_http()
            .with_endpoint(otlp.endpoint.for_http())
            .with_headers(plain(&otlp.headers))
            .build()?,
    };
    // `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are read by the builder and win.
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(otlp.service_name.clone());
    }
    let room = watched::Room::new(queue_size());
    let config = BatchConfigBuilder::default().with_max_queue_size(room.size()).build();
    let exporter = watched::Exporter::new(exporter, room.clone());
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    Ok(SdkTracerProvider::builder()
        .with_span_processor(tail::Processor::new(batches, room, otlp.keep))
        .with_sampler(sampling::sampler(otlp.sampling, otlp.sample_ratio, otlp.keep.any()))
        .with_resource(resource.build())
        .build())
}

/// How many spans may wait for the exporter: as OpenTelemetry's variable says, or its default.
fn queue_size() -> usize {
    let given = std::env::var("OTEL_BSP_MAX_QUEUE_SIZE").ok().and_then(|text| text.parse().ok());
    given.filter(|size| *size > 0).unwrap_or(2048)
}

/// Our own spans and events, also those too fine for the log; what libraries trace would drown them.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tollway"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter::Targets::new().with_target("tollway", LevelFilter::DEBUG))
}

/// Reads W3C `traceparent` and `tracestate` from now on.
pub(super) fn propagate() {
    global::set_text_map_propagator(TraceContextPropagator::new());
}

/// The span of a request, under the caller's trace if its headers name one.
pub fn server_span(route: &'static str, request_id: &str, headers: &HeaderMap) -> Span {
    let span = info_span!(
        "request",
        otel.name = route,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.route = route,
        http.response.status_code = field::Empty,
        tollway.request_id = request_id,
        tollway.key = field::Empty,
        tollway.team = field::Empty,
        tollway.account = field::Empty,
        tollway.attempts = field::Empty,
        tollway.outcome = field::Empty,
        gen_ai.operation.name = field::Empty,
        gen_ai.request.model = field::Empty,
        gen_ai.usage.input_tokens = field::Empty,
        gen_ai.usage.cache_read.input_tokens = field::Empty,
        gen_ai.usage.output_tokens = field::Empty,
        gen_ai.usage.reasoning.output_tokens = field::Empty,
        error.type = field::Empty,
    );
    if headers.contains_key("traceparent") {
        let parent = global::get_text_map_propagator(|p| p.extract(&Inbound(headers)));
        // Fails only where no exporter is installed: then there is no trace to belong to.
        let _ = span.set_parent(parent);
    }
    span
}

/// One call of the backend, for its span.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// What is asked for: `chat`.
    pub operation: &'static str,
    /// The model, or where there is none, what is called.
    pub model: &'a str,
    /// The backend's host.
    pub address: &'a str,
    /// Its port.
    pub port: u16,
    /// From 1.
    pub number: u32,
    /// Whether the client streams.
    pub stream: bool,
}

/// The span of one call of the backend.
pub fn upstream_span(parent: &Span, attempt: &Attempt<'_>) -> Span {
    let Attempt { operation, model, address, port, number, stream } = *attempt;
    info_span!(
        parent: parent,
        "upstream",
        otel.name = format!("{operation} {model}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = "openai",
        gen_ai.request.model = model,
        gen_ai.request.stream = stream,
        gen_ai.response.id = field::Empty,
        gen_ai.response.model = field::Empty,
        gen_ai.response.time_to_first_chunk = field::Empty,
        gen_ai.usage.input_tokens = field::Empty,
        gen_ai.usage.cache_read.input_tokens = field::Empty,
        gen_ai.usage.output_tokens = field::Empty,
        gen_ai.usage.reasoning.output_tokens = field::Empty,
        openai.api.type = "responses",
        openai.response.service_tier = field::Empty,
        server.address = address,
        server.port = i64::from(port),
        http.response.status_code = field::Empty,
        tollway.attempt = i64::from(number),
        error.type = field::Empty,
    )
}

/// Says on a span what was used.
pub fn record_usage(span: &Span, usage: Usage) {
    let counts = [
        ("gen_ai.usage.input_tokens", usage.input),
        ("gen_ai.usage.cache_read.input_tokens", usage.cached),
        ("gen_ai.usage.output_tokens", usage.output),
        ("gen_ai.usage.reasoning.output_tokens", usage.reasoning),
    ];
    for (name, tokens) in counts {
        // The conventions' type; what is not signed would be sent as text.
        span.record(name, i64::try_from(tokens).unwrap_or(i64::MAX));
    }
}

/// Says on a span why the model has stopped: a list, as the conventions want it.
pub fn record_finish(span: &Span, reason: &str) {
    let reasons = vec![StringValue::from(reason.to_owned())];
    span.set_attribute("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons)));
}

/// A span ends now, and not when its work was last awaited: what is left of a stream is nobody's future.
pub fn end(span: &Span) {
    span.in_scope(|| ());
}

/// Writes the current span's context into headers for the backend: only the ids. A client's
/// `tracestate` is for those who wrote it.
pub fn inject(headers: &mut HeaderMap) {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return;
    }
    TraceContextPropagator::new().inject_context(&context, &mut Outbound(headers));
    headers.remove("tracestate");
}

/// The ids of a span's trace and of itself, in hexadecimal, if the trace is kept.
pub(super) fn sampled_trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    (ids.is_valid() && ids.is_sampled()).then(|| ids.trace_id().to_string())
}

/// The ids in a context: the trace's and the span's.
pub(super) fn ids_of(context: &Context) -> Option<(String, String)> {
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
}

struct Inbound<'a>(&'a HeaderMap);

impl Extractor for Inbound<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Outbound<'a>(&'a mut HeaderMap);

impl Injector for Outbound<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

impl Endpoint {
    /// gRPC has its own paths.
    fn for_grpc(&self) -> &str {
        match self {
            Self::Base(address) | Self::Traces(address) => address,
        }
    }

    /// Over HTTP the exporter wants the whole address. That of all signals is completed; one that is for
    /// traces is meant as it stands.
    fn for_http(&self) -> String {
        match self {
            Self::Base(base) => format!("{}/v1/traces", base.trim_end_matches('/')),
            Self::Traces(address) => address.clone(),
        }
    }
}

fn plain(headers: &Headers) -> HashMap<String, String> {
    headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
}

fn metadata(headers: &Headers) -> Result<MetadataMap, TelemetryError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let refused = || TelemetryError::Header(name.clone());
        let mut secret = HeaderValue::try_from(value.expose_secret()).map_err(|_| refused())?;
        secret.set_sensitive(true);
        map.insert(HeaderName::try_from(name.as_str()).map_err(|_| refused())?, secret);
    }
    Ok(MetadataMap::from_headers(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_all_signals_is_completed_and_that_of_traces_is_not() {
        for base in ["http://c:4318", "http://c:4318/"] {
            assert_eq!(Endpoint::Base(base.into()).for_http(), "http://c:4318/v1/traces");
        }
        assert_eq!(Endpoint::Base("http://c/otel".into()).for_http(), "http://c/otel/v1/traces");
        assert_eq!(Endpoint::Traces("http://c:4318/ingest".into()).for_http(), "http://c:4318/ingest");
        assert_eq!(Endpoint::Traces("http://c:4318/".into()).for_http(), "http://c:4318/");
    }
}
