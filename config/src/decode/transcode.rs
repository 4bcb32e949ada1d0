//! JSON to gRPC: which descriptors, which bindings, which bounds.

use std::path::Path;

use http::StatusCode;

use super::{at, count, file, setting, size, text, texts};
use crate::binding;
use crate::document::{Setting, Transcode, TranscodeBinding};
use crate::parse::Node;
use crate::report::ItemReport;

pub(super) fn transcode(
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> Option<Transcode> {
    let is = |key: &str, word: &str| text(node, key) == Some(word);
    let flag = |key: &str| node.get(key).and_then(Node::flag).unwrap_or(false);
    let bindings = node.get("bindings").map_or(&[][..], Node::list);
    Some(Transcode {
        descriptors: Setting {
            value: file(node, "descriptors", folder)?,
            at: node.get("descriptors").map(at).unwrap_or_default(),
        },
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
