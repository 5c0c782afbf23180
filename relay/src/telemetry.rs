//! Traces for an OpenTelemetry collector: how long a token request, the resolution of its DID and an upgrade took, and how they ended.
//!
//! Counts and distributions are in Prometheus' format on the admin port, which collectors scrape; here are only spans.
//! Invariant: a span holds what a log line may hold: kinds and codes, no token, payload, DID, address or room id.
//! Only with the feature `opentelemetry`. Spec: docs/operating.md.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// How long the collector may take for a batch; what it does not take is dropped.
const EXPORT_MAX: Duration = Duration::from_secs(5);

/// Sends spans in the background; tell it when to stop.
pub struct Telemetry(SdkTracerProvider);

impl Telemetry {
    /// For the collector at `endpoint` (`http://host:4318`). Not within an async runtime: it has threads of its own.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub fn new(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT_MAX)
            .build()?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("weft-relay").with_attribute(version).build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// What takes the spans.
    pub fn layer<S: tracing::Subscriber + for<'span> LookupSpan<'span>>(&self) -> OpenTelemetryLayer<S, SdkTracer> {
        let tracer = self.0.tracer("weft-relay");
        tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false)
    }

    /// Sends what is left, within a bounded time.
    pub fn stop(self) {
        if let Err(error) = self.0.shutdown_with_timeout(EXPORT_MAX) {
            tracing::debug!(%error, "the last spans were not taken");
        }
    }
}
