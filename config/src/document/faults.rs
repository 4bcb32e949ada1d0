//! Faults on purpose as values.

use std::fmt;
use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{Setting, ValueMatch};

/// `{ fault = { … } }`: `delay`, `abort` or both are there.
#[derive(Debug, Clone)]
pub struct InjectedFault {
    pub delay: Option<Setting<Duration>>,
    /// After the delay.
    pub abort: Option<Setting<Abort>>,
    /// Of the requests that have the headers; 0 to 100. Default 100.
    pub percent: Setting<f64>,
    /// All of them. Default: any request.
    pub headers: Vec<(HeaderName, ValueMatch)>,
}

/// How a request is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// 400 to 599.
    Status(StatusCode),
    /// Without an answer.
    Reset,
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Abort::Status(status) => f.write_str(status.as_str()),
            Abort::Reset => f.write_str("reset"),
        }
    }
}
