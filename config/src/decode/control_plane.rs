//! Where the rest of the document comes from.

use std::path::Path;

use super::upstream::tls;
use super::{text, texts};
use crate::control_plane::token;
use crate::document::{Announced, ControlPlane, Place, Register, Secret, Url};
use crate::feed::NodeKind;
use crate::parse::Node;
use crate::quick;
use crate::report::ItemReport;

pub(crate) fn control_plane(
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> ControlPlane {
    if let Some(urls) = node.get("urls")
        && urls.list().is_empty()
    {
        report.add(
            "no-url",
            urls.spot,
            "there is no control plane in the list",
            "write at least one, as in `urls = [\"http://127.0.0.1:8080\"]`, or take the section out",
        );
    }
    let urls = texts(node.get("urls")).into_iter().filter_map(|text| {
        let (address, encrypted) = quick::target(text).ok()?;
        Some(Url {
            text: text.to_owned(),
            address,
            encrypted,
        })
    });
    // Told at the section's header: a problem shows the line that it is about.
    let token = { node.get("token") }.and_then(|node| token(node, (0, 1), report));
    ControlPlane {
        urls: urls.collect(),
        token: token.map(|token| Secret(token.to_owned())),
        node: text(node, "node").map(str::to_owned),
        kind: match text(node, "kind") {
            Some("sidecar") => NodeKind::Sidecar,
            _ => NodeKind::Gateway,
        },
        tls: node.get("tls").map(|node| tls(node, folder)),
        register: node.get("register").and_then(register),
        place: Place {
            file: report.file.clone(),
            line: report.line.saturating_add(node.spot.0),
            column: 1,
        },
    }
}

fn register(node: &Node) -> Option<Register> {
    let metadata = node.get("metadata").map_or(&[][..], Node::entries).iter();
    let metadata = metadata.filter_map(|e| Some((e.key.clone(), e.node.text()?.to_owned())));
    Some(Register {
        name: text(node, "name")?.to_owned(),
        address: match text(node, "listener") {
            Some(listener) => Announced::Listener(listener.to_owned()),
            None => Announced::Address(text(node, "address")?.to_owned()),
        },
        health: text(node, "health").unwrap_or("/health/ready").to_owned(),
        metadata: metadata.collect(),
        upstream: text(node, "upstream").map(str::to_owned),
    })
}
