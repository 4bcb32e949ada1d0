//! `[telemetry]`: what is told about requests, and whom.

use std::path::Path;
use std::time::Duration;

use super::callers::web_url;
use super::{count, duration, file, text};
use crate::document::{AccessLog, Collector, Telemetry, Traces};
use crate::parse::Node;
use crate::problem::Fault;
use crate::report::ItemReport;

/// Where a collector takes spans over HTTP.
const OVER_HTTP: &str = "/v1/traces";

pub(crate) fn default_telemetry() -> Telemetry {
    Telemetry {
        access_log: AccessLog::Stdout,
        access_log_sample: 1.0,
        labels: Vec::new(),
        traces: None,
    }
}

pub(crate) fn telemetry(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Telemetry {
    let mut telemetry = default_telemetry();
    telemetry.labels = pairs(node.get("labels"));
    telemetry.traces = { node.get("traces") }.and_then(|node| traces(node, folder, report));
    let Some(log) = node.get("access_log") else {
        return telemetry;
    };
    match log.text().or_else(|| text(log, "to")) {
        Some("off") => telemetry.access_log = AccessLog::Off,
        None | Some("stdout") => {}
        Some(path) => telemetry.access_log = AccessLog::File(folder.join(path)),
    }
    if let Some(sample) = log.get("sample").and_then(Node::number) {
        telemetry.access_log_sample = sample;
    }
    telemetry
}

fn traces(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<Traces> {
    let otlp = collector(text(node, "otlp")?).ok()?;
    if let (Some(ca), false) = (node.get("ca"), otlp.url.encrypted) {
        report.add(
            "contradiction",
            ca.spot,
            "`ca` says nothing of a collector that is reached without TLS",
            "write \"https://…\", or take `ca` out",
        );
    }
    let flag = |key: &str| node.get(key).and_then(Node::flag);
    Some(Traces {
        otlp,
        ca: file(node, "ca", folder),
        sample: node.get("sample").and_then(Node::number).unwrap_or(0.01),
        always_on_error: flag("always_on_error").unwrap_or(true),
        service: text(node, "service").map(str::to_owned),
        attributes: pairs(node.get("attributes")),
        batch_size: { count(node, "batch_size") }
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(512),
        batch_timeout: { node.get("batch_timeout") }
            .and_then(duration)
            .unwrap_or(Duration::from_secs(1)),
    })
}

fn pairs(node: Option<&Node>) -> Vec<(String, String)> {
    { node.map_or(&[][..], Node::entries) }
        .iter()
        .filter_map(|entry| Some((entry.key.clone(), entry.node.text()?.to_owned())))
        .collect()
}

/// The URL of a collector: without a path it takes gRPC.
pub(crate) fn collector(url: &str) -> Result<Collector, Fault> {
    let hint =
        "write \"http://127.0.0.1:4317\" for gRPC, or \"http://127.0.0.1:4318/v1/traces\" for HTTP";
    let url = web_url(url, hint)?;
    let over_http = match url.path.as_str() {
        "/" => false,
        OVER_HTTP => true,
        _ => {
            return Err(Fault::new(
                format!(
                    "`{}` has a path that is not `{OVER_HTTP}`",
                    crate::unit::short(&url.text)
                ),
                hint,
            ));
        }
    };
    Ok(Collector { url, over_http })
}
