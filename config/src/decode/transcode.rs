//! JSON to gRPC: which descriptors, which bindings, which bounds.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;

use super::{at, count, duration, file, setting, size, text, texts};
use crate::binding;
use crate::document::{Descriptors, Setting, Transcode, TranscodeBinding};
use crate::parse::Node;
use crate::report::ItemReport;

/// From one question about descriptors to the next, and the least that may be written.
const REFRESH: Duration = Duration::from_secs(60);
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

pub(super) fn transcode(
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> Option<Transcode> {
    let is = |key: &str, word: &str| text(node, key) == Some(word);
    let flag = |key: &str| node.get(key).and_then(Node::flag).unwrap_or(false);
    let bindings = node.get("bindings").map_or(&[][..], Node::list);
    Some(Transcode {
        descriptors: descriptors(node, folder, report)?,
        services: { texts(node.get("services")).into_iter() }
            .map(str::to_owned)
            .collect(),
        convention: flag("convention"),
        bindings: bindings
            .iter()
            .filter_map(|node| binding(node, report))
            .collect(),
        proto_names: is("names", "proto"),
        defaults: flag("defaults"),
        enum_numbers: is("enums", "number"),
        ignore_unknown: is("unknown_fields", "ignore"),
        pass_unmatched: is("unmatched", "pass"),
        envelope: flag("envelope"),
        status_header: text(node, "status_header").and_then(|name| name.parse().ok()),
        statuses: node
            .get("statuses")
            .map_or(&[][..], Node::entries)
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), status(&entry.node)?)))
            .collect(),
        max_message: setting(node, "max_message", size, 4 << 20),
        max_depth: setting(node, "max_depth", Node::count, 100),
        max_fields: setting(node, "max_fields", Node::count, 100_000),
    })
}

/// A file, or the upstream: one of the two.
fn descriptors(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<Descriptors> {
    let reflects = node.get("reflection").and_then(Node::flag) == Some(true);
    let refresh = node.get("refresh");
    match (node.get("descriptors"), reflects) {
        (Some(named), false) => {
            if let Some(refresh) = refresh {
                report.add(
                    "contradiction",
                    refresh.spot,
                    "`refresh` says nothing of a file, which is read again when it changes",
                    "take `refresh` out",
                );
            }
            Some(Descriptors::File(Setting {
                value: file(node, "descriptors", folder)?,
                at: at(named),
            }))
        }
        (Some(named), true) => {
            report.add(
                "contradiction",
                named.spot,
                "descriptors come from a file or from the upstream, not from both",
                "take `descriptors` or `reflection` out",
            );
            None
        }
        (None, true) => {
            let span = refresh.and_then(duration);
            let short = span.filter(|span| *span < SHORTEST_REFRESH);
            if let (Some(refresh), Some(_)) = (refresh, short) {
                report.add(
                    "bad-duration",
                    refresh.spot,
                    "`refresh` is shorter than a second",
                    "write \"1s\" or more",
                );
            }
            Some(Descriptors::Reflection {
                refresh: span.unwrap_or(REFRESH),
            })
        }
        (None, false) => {
            report.add(
                "missing-key",
                node.spot,
                "`transcode` needs descriptors",
                "write `descriptors = \"FILE\"`, or `reflection = true`",
            );
            None
        }
    }
}

fn binding(node: &Node, report: &mut ItemReport<'_>) -> Option<TranscodeBinding> {
    let method = text(node, "method")?;
    if !method.contains('.') {
        report.add(
            "bad-name",
            node.get("method")?.spot,
            "`method` is the full name: package, service and method",
            "write it as in \"shop.v1.Orders.GetOrder\"",
        );
    }
    let (verb, path) = binding::parse(text(node, "http")?).ok()?;
    Some(TranscodeBinding {
        method: method.to_owned(),
        verb,
        path,
        body: text(node, "body").unwrap_or_default().to_owned(),
        response_body: text(node, "response_body").unwrap_or_default().to_owned(),
        status: count(node, "status")
            .and_then(|number| u16::try_from(number).ok())
            .and_then(|number| StatusCode::from_u16(number).ok()),
        at: at(node),
    })
}

fn status(node: &Node) -> Option<StatusCode> {
    let number = u16::try_from(node.count()?).ok()?;
    StatusCode::from_u16(number).ok()
}
