//! JSON to gRPC as values.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use super::{At, Setting};

/// `{ transcode = { … } }`.
#[derive(Debug, Clone)]
pub struct Transcode {
    pub descriptors: Descriptors,
    /// By full name; empty: all.
    pub services: Vec<String>,
    /// Methods without annotation are found by their names. Default false.
    pub convention: bool,
    pub bindings: Vec<TranscodeBinding>,
    /// Keys of answers as the descriptors spell them. Default false: in camel case.
    pub proto_names: bool,
    /// Fields are written also with their default value. Default false.
    pub defaults: bool,
    /// Default false: by name.
    pub enum_numbers: bool,
    /// Default false: they are refused.
    pub ignore_unknown: bool,
    /// Default false: they are refused.
    pub pass_unmatched: bool,
    /// Answers of one message are wrapped (GW-809). Default false.
    pub envelope: bool,
    /// Where a service says another status of success.
    pub status_header: Option<HeaderName>,
    /// By the reason that a service gives.
    pub statuses: Vec<(String, StatusCode)>,
    /// Bytes. Default 4 MiB.
    pub max_message: Setting<u64>,
    /// Default 100.
    pub max_depth: Setting<u64>,
    /// Default 100,000.
    pub max_fields: Setting<u64>,
}

/// Where the descriptors of a service are from.
#[derive(Debug, Clone)]
pub enum Descriptors {
    /// A set in a file.
    File(Setting<PathBuf>),
    /// What the route's upstream tells of itself; of several, the first.
    Reflection {
        /// From one question to the next. Default 1 min.
        refresh: Duration,
    },
}

impl Transcode {
    /// The file that the descriptors are read from, if they are.
    pub fn file(&self) -> Option<&Setting<PathBuf>> {
        match &self.descriptors {
            Descriptors::File(file) => Some(file),
            Descriptors::Reflection { .. } => None,
        }
    }
}

/// How one method is called, whatever the descriptors say.
#[derive(Debug, Clone)]
pub struct TranscodeBinding {
    /// Package, service and method.
    pub method: String,
    pub verb: Method,
    /// A template as in `google.api.http`.
    pub path: String,
    /// "": none; "*": the whole message.
    pub body: String,
    /// "": the whole message.
    pub response_body: String,
    pub status: Option<StatusCode>,
    pub at: At,
}
