//! `[telemetry]`, as values: what is told about requests, and whom.

use std::path::PathBuf;
use std::time::Duration;

use super::{Document, WebUrl};

#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    pub access_log: AccessLog,
    /// 0.0 to 1.0: share of lines written; answers of 500 and above are always written.
    pub access_log_sample: f64,
    /// On every series of this process.
    pub labels: Vec<(String, String)>,
    /// Absent: trace context is passed on, and no collector is told.
    pub traces: Option<Traces>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stdout,
    File(PathBuf),
}

/// Which spans are told to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    pub otlp: Collector,
    /// Absent: the system's.
    pub ca: Option<PathBuf>,
    /// 0.0 to 1.0: share of the traces that begin here.
    pub sample: f64,
    /// What failed is told whether or not its trace is sampled.
    pub always_on_error: bool,
    /// Absent: [`Document::service_name`].
    pub service: Option<String>,
    /// Of the resource, besides its service, instance and version.
    pub attributes: Vec<(String, String)>,
    /// Spans in one message at the most.
    pub batch_size: usize,
    /// The longest that a span waits for others.
    pub batch_timeout: Duration,
}

/// Who takes spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    pub url: WebUrl,
    /// Protobuf in an HTTP request, and not gRPC.
    pub over_http: bool,
}

impl Document {
    /// The service that this node is, or stands for; `None`: it has no other name than its program's.
    pub fn service_name(&self) -> Option<&str> {
        let own = self.identity.as_ref().map(|own| own.service.as_str());
        let announced = { self.control_plane.as_ref() }.and_then(|known| known.register.as_ref());
        own.or_else(|| announced.map(|register| register.name.as_str()))
    }
}
