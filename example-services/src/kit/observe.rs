//! What is known of every request, over gRPC or HTTP: its place in a trace (W3C), its correlation id, one log line, and the
//! request metrics (OBS-204, OBS-302). One function around both servers; services do nothing for it.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    future::Future,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue};

use super::{
    log,
    metrics::Metrics,
    recent::{self, Span},
};

/// A request's place in a trace.
#[derive(Clone, Debug)]
pub struct Trace {
    trace: u128,
    span: u64,
    /// The caller's span, if there is one.
    parent: Option<u64>,
    sampled: bool,
    correlation: String,
}

tokio::task_local! {
    static CURRENT: Trace;
}

/// The trace of the request that this task answers.
pub fn current() -> Option<Trace> {
    CURRENT.try_with(Trace::clone).ok()
}

/// Runs a task on behalf of a request that it outlives, or of none: with a trace of its own in the second case.
pub async fn within<T>(trace: Option<Trace>, task: impl Future<Output = T>) -> T {
    let trace = trace.unwrap_or_else(|| Trace::from_headers(&HeaderMap::new()));
    CURRENT.scope(trace, task).await
}

impl Trace {
    /// Continues the caller's trace with a span of our own, or begins one.
    fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (trace, parent, sampled) = match text("traceparent").and_then(parent) {
            Some((trace, parent, sampled)) => (trace, Some(parent), sampled),
            None => (fastrand::u128(1..), None, false),
        };
        let correlation = ["x-correlation-id", "x-request-id"]
            .into_iter()
            .find_map(text)
            // Whoever sends more than an id does not get it into our log.
            .filter(|id| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_graphic()))
            .map_or_else(|| format!("{trace:032x}"), str::to_string);
        Self {
            trace,
            span: fastrand::u64(1..),
            parent,
            sampled,
            correlation,
        }
    }

    /// A step of this one: its caller is this span.
    fn step(&self) -> Self {
        Self {
            span: fastrand::u64(1..),
            parent: Some(self.span),
            ..self.clone()
        }
    }

    /// 32 digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// 16 digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// What ties the lines of several services to one request of a client.
    pub fn correlation_id(&self) -> &str {
        &self.correlation
    }

    /// What a call that this request makes sends on.
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(55);
        // Writing into a `String` cannot fail.
        write!(
            text,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.sampled)
        )
        .ok();
        text
    }
}

/// Trace id, the caller's span and sampling out of a `traceparent` of version 00, when it is one.
fn parent(text: &str) -> Option<(u128, u64, bool)> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower = |part: &str| {
        part.bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let shape = version.len() == 2
        && version != "ff"
        && trace.len() == 32
        && span.len() == 16
        && flags.len() == 2;
    if !shape
        || ![version, trace, span, flags].into_iter().all(lower)
        || (version == "00" && parts.next().is_some())
    {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    Some((trace, span, u8::from_str_radix(flags, 16).ok()? & 1 == 1))
}

/// Around the HTTP side: a layer with `axum::middleware::from_fn_with_state`.
pub async fn http(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_string();
    let method = request.method().as_str().to_string();
    around(request, next, move |response, seconds| {
        let status = response.status();
        metrics.http(&method, &path, status.as_u16(), seconds);
        let quiet = path.starts_with("/health")
            || path.starts_with("/debug/")
            || path == "/metrics"
            || path == "/ready";
        let broken = status.is_server_error();
        let code = status.as_u16();
        line(quiet, broken, &method, &path, code.into(), seconds);
        (!quiet).then(|| Kept {
            operation: format!("{method} {path}"),
            broken,
            tags: BTreeMap::from([("method", method), ("status", code.to_string())]),
        })
    })
    .await
}

/// Around the gRPC side. A call's end is told by its head when it failed; that of a stream is not seen here.
pub async fn grpc(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_string();
    crash(&path, "received");
    around(request, next, move |response, seconds| {
        crash(&path, "answering");
        let code = response
            .headers()
            .get("grpc-status")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(0);
        // A method that we do not have must not become a label.
        let method = match path.rsplit_once('/') {
            Some((_, method)) if code != 12 => method,
            _ => "unmatched",
        };
        metrics.grpc(method, code, seconds);
        let broken = matches!(code, 2 | 4 | 8 | 13 | 14 | 15);
        let quiet = path.starts_with("/grpc.");
        line(quiet, broken, method, &path, code, seconds);
        (!quiet).then(|| Kept {
            operation: method.to_string(),
            broken,
            tags: BTreeMap::from([("grpc_status", code.to_string())]),
        })
    })
    .await
}

/// Calls that come in are places to die at: before anything of them happened, and after everything but the answer.
fn crash(path: &str, word: &str) {
    if let Some((_, method)) = path.rsplit_once('/') {
        super::crash::at(&[word, method]);
    }
}

/// What is kept of a request or a step as a span.
struct Kept {
    operation: String,
    broken: bool,
    tags: BTreeMap<&'static str, String>,
}

/// Since when something lasts, by both clocks.
struct Began(SystemTime, Instant);

impl Began {
    fn now() -> Self {
        Self(SystemTime::now(), Instant::now())
    }

    fn keep(&self, trace: &Trace, kind: &'static str, kept: Kept) {
        let start = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        recent::span(Span {
            trace_id: trace.trace_id(),
            span_id: trace.span_id(),
            parent_id: trace.parent.map(|id| format!("{id:016x}")),
            service: log::service(),
            operation: kept.operation,
            kind,
            start_us: u64::try_from(start.as_micros()).unwrap_or(u64::MAX),
            duration_us: u64::try_from(self.1.elapsed().as_micros()).unwrap_or(u64::MAX),
            status: if kept.broken { "error" } else { "ok" },
            tags: kept.tags,
        });
    }
}

/// Does a part of what a request asks for as a span of its own: calls that it makes have it as their caller.
pub async fn step<T, E>(
    name: &str,
    tags: &[(&'static str, &(dyn Display + Sync))],
    reason: impl Fn(&E) -> String,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let Some(trace) = current().map(|trace| trace.step()) else {
        return work.await;
    };
    let mut tags: BTreeMap<_, _> = { tags.iter() }
        .map(|(key, value)| (*key, value.to_string()))
        .collect();
    let began = Began::now();
    let done = CURRENT.scope(trace.clone(), work).await;
    if let Err(error) = &done {
        tags.insert("reason", reason(error));
    }
    let kept = Kept {
        operation: name.to_string(),
        broken: done.is_err(),
        tags,
    };
    began.keep(&trace, "internal", kept);
    done
}

/// `end` tells what is kept of it, if anything.
async fn around(
    request: Request,
    next: Next,
    end: impl FnOnce(&Response, f64) -> Option<Kept>,
) -> Response {
    let trace = Trace::from_headers(request.headers());
    let began = Began::now();
    CURRENT
        .scope(trace.clone(), async {
            let mut response = next.run(request).await;
            if let Some(kept) = end(&response, began.1.elapsed().as_secs_f64()) {
                began.keep(&trace, "server", kept);
            }
            if let Ok(id) = HeaderValue::from_str(trace.correlation_id()) {
                response.headers_mut().insert("x-correlation-id", id);
            }
            response
        })
        .await
}

fn line(quiet: bool, broken: bool, method: &str, path: &str, status: i64, seconds: f64) {
    let fields: [(&str, &dyn std::fmt::Display); 4] = [
        ("method", &method),
        ("path", &path),
        ("status", &status),
        ("duration_ms", &((seconds * 1e6).round() / 1e3)),
    ];
    match (broken, quiet) {
        (true, _) => log::error("request failed", &fields),
        (false, true) => log::debug("request", &fields),
        (false, false) => log::info("request", &fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_trace_is_continued_and_a_bad_one_is_not() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            parent(good),
            Some((
                0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
                0x00f0_67aa_0ba9_02b7,
                true
            ))
        );
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(parent(bad), None, "{bad}");
        }
    }
}
