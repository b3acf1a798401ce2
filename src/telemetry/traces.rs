//! Spans, and their way to an OTLP collector. Names and attributes follow the OpenTelemetry
//! conventions for HTTP servers and for generative AI (clients.md 3).

use super::{Headers, TelemetryError};
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::global;
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use secrecy::ExposeSecret;
use std::collections::HashMap;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter};

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// The collector: `http://host:4317` for gRPC, `http://host:4318` for HTTP.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// What it wants to see, e.g. a key.
    pub headers: Headers,
    /// `service.name`, unless the environment says otherwise.
    pub service_name: String,
    /// The share of traces that are kept, where the caller has not decided: 0.0–1.0.
    pub sample_ratio: f64,
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
    let exporter = match otlp.protocol {
        Protocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&otlp.endpoint)
            .with_metadata(metadata(&otlp.headers)?)
            .build()?,
        Protocol::Http => SpanExporter::builder()
            .with_http()
            .with_endpoint(traces_url(&otlp.endpoint))
            .with_headers(plain(&otlp.headers))
            .build()?,
    };
    // `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are read by the builder and win.
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(otlp.service_name.clone());
    }
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource.build())
        .build())
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
        .with_filter(filter::Targets::new().with_target("tollway", LevelFilter::DEBUG))
}

/// Reads and writes W3C `traceparent` from now on.
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

/// The span of one call of the backend.
pub fn upstream_span(parent: &Span, model: &str, address: &str, port: u16, attempt: u32) -> Span {
    info_span!(
        parent: parent,
        "upstream",
        otel.name = format!("chat {model}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = "openai",
        gen_ai.request.model = model,
        openai.api.type = "responses",
        server.address = address,
        server.port = port,
        tollway.attempt = attempt,
        error.type = field::Empty,
    )
}

/// Writes the current span's context into headers for the backend.
pub fn inject(headers: &mut HeaderMap) {
    let context = Span::current().context();
    global::get_text_map_propagator(|p| p.inject_context(&context, &mut Outbound(headers)));
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

/// Over HTTP the exporter wants the whole address.
fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
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
    fn the_http_address_is_completed_once() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint), "http://c:4318/v1/traces");
        }
    }
}
