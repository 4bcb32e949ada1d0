//! Numbers for Prometheus (OBS-301, OBS-302, OBS-306). Labels are bounded: methods, route patterns and codes, never ids.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use super::idempotency;

/// Seconds (OBS-302).
const BUCKETS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// A service's series. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    service: &'static str,
    http_requests: IntCounterVec,
    http_seconds: HistogramVec,
    grpc_requests: IntCounterVec,
    grpc_seconds: HistogramVec,
}

impl Metrics {
    /// The request metrics of a service.
    pub fn new(service: &'static str) -> Self {
        let registry = Registry::new();
        let http = ["service", "method", "path", "status"];
        let grpc = ["service", "method", "code"];
        let counter = |name: &str, about: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, about), labels)
                .expect("a fixed name and fixed labels are valid")
        };
        let histogram = |name: &str, about: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, about).buckets(BUCKETS.to_vec());
            HistogramVec::new(options, labels).expect("a fixed name and fixed labels are valid")
        };
        let metrics = Self {
            service,
            http_requests: counter("http_requests_total", "Requests over HTTP.", &http),
            http_seconds: histogram(
                "http_request_duration_seconds",
                "How long they took.",
                &http,
            ),
            grpc_requests: counter("grpc_requests_total", "Calls over gRPC.", &grpc),
            grpc_seconds: histogram(
                "grpc_request_duration_seconds",
                "How long they took.",
                &grpc,
            ),
            registry,
        };
        metrics.add(metrics.http_requests.clone());
        metrics.add(metrics.http_seconds.clone());
        metrics.add(metrics.grpc_requests.clone());
        metrics.add(metrics.grpc_seconds.clone());
        metrics.add(idempotency::claims());
        metrics
    }

    /// A counter of the service's own.
    pub fn counter(&self, name: &str, about: &str) -> IntCounter {
        let counter = IntCounter::new(name, about).expect("services name series validly");
        self.add(counter.clone());
        counter
    }

    /// Counters of the service's own, by labels that no client chooses.
    pub fn counters(&self, name: &str, about: &str, labels: &[&str]) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, about), labels)
            .expect("services name series validly");
        self.add(counters.clone());
        counters
    }

    /// A gauge of the service's own.
    pub fn gauge(&self, name: &str, about: &str) -> IntGauge {
        let gauge = IntGauge::new(name, about).expect("services name series validly");
        self.add(gauge.clone());
        gauge
    }

    /// A duration of the service's own, in seconds.
    pub fn histogram(&self, name: &str, about: &str, labels: &[&str]) -> HistogramVec {
        let options = HistogramOpts::new(name, about).buckets(BUCKETS.to_vec());
        let histogram = HistogramVec::new(options, labels).expect("services name series validly");
        self.add(histogram.clone());
        histogram
    }

    fn add(&self, collector: impl prometheus::core::Collector + 'static) {
        self.registry
            .register(Box::new(collector))
            .expect("each series is made once");
    }

    pub(super) fn http(&self, method: &str, path: &str, status: u16, seconds: f64) {
        // A client may invent methods; labels may not follow.
        let method = match method {
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
            _ => "other",
        };
        let labels = [self.service, method, path, &status.to_string()];
        self.http_requests.with_label_values(&labels).inc();
        self.http_seconds
            .with_label_values(&labels)
            .observe(seconds);
    }

    pub(super) fn grpc(&self, method: &str, code: i64, seconds: f64) {
        let labels = [self.service, method, &code.to_string()];
        self.grpc_requests.with_label_values(&labels).inc();
        self.grpc_seconds
            .with_label_values(&labels)
            .observe(seconds);
    }

    /// The page of `GET /metrics`.
    pub fn page(&self) -> String {
        let mut page = Vec::new();
        // Encoding into memory fails only for families that are inconsistent, which `add` keeps out.
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut page)
            .ok();
        String::from_utf8(page).unwrap_or_default()
    }
}
