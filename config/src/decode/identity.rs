//! Who this data plane is in a mesh, and what `mesh` says at listeners and upstreams.

use std::path::Path;

use super::{at, file, text};
use crate::control_plane::token;
use crate::document::{
    Identity, IdentitySource, ListenerTls, Mesh, MeshPeer, Place, Secret, Setting, UpstreamTls,
};
use crate::identity;
use crate::parse::Node;
use crate::report::ItemReport;

const NAMESPACE: &str = "default";

pub(crate) fn identity(
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> Option<Identity> {
    // Told at the section's header: a problem shows the line that it is about.
    let token = match node.get("token") {
        Some(node) => Some(token(node, (0, 1), report)?),
        None => None,
    };
    let files = (
        file(node, "cert", folder),
        file(node, "key", folder),
        file(node, "ca", folder),
    );
    let source = match files {
        (Some(cert), Some(key), Some(ca)) => IdentitySource::Files { cert, key, ca },
        _ => IdentitySource::Authority {
            token: token.map(|token| Secret(token.to_owned())),
            kubernetes_token: file(node, "kubernetes_token", folder),
        },
    };
    Some(Identity {
        service: text(node, "service")?.to_owned(),
        namespace: text(node, "namespace").unwrap_or(NAMESPACE).to_owned(),
        source,
        place: Place {
            file: report.file.clone(),
            line: report.line.saturating_add(node.spot.0),
            column: 1,
        },
    })
}

/// `mesh` of a listener.
pub(super) fn listener(
    node: &Node,
    tls: Option<&ListenerTls>,
    report: &mut ItemReport<'_>,
) -> Setting<Mesh> {
    let Some(mesh) = node.get("mesh") else {
        return Setting::default_of(Mesh::Off);
    };
    let value = match mesh.text() {
        Some("strict") => Mesh::Strict,
        Some("permissive") => Mesh::Permissive,
        _ => Mesh::Off,
    };
    if value != Mesh::Off && tls.is_some() {
        both(mesh, "listener", report);
    }
    Setting {
        value,
        at: at(mesh),
    }
}

/// `mesh` of an upstream.
pub(super) fn upstream(
    node: &Node,
    tls: Option<&UpstreamTls>,
    report: &mut ItemReport<'_>,
) -> Option<MeshPeer> {
    let mesh = node.get("mesh")?;
    if tls.is_some() {
        both(mesh, "upstream", report);
    }
    let Some(name) = mesh.text() else {
        if mesh.flag() != Some(true) {
            return None;
        }
        if let Some(service) = node.get("service") {
            let name = service.text()?;
            // `*`: whatever service is asked for.
            if name != "*"
                && let Err(fault) = identity::service(name)
            {
                report.add("bad-identity", service.spot, fault.message, fault.hint);
            }
        } else {
            report.add(
                "missing-key",
                mesh.spot,
                "`mesh = true` means the member that `service` names, and there is no `service`",
                "write `service = \"orders\"`, or name the member: `mesh = \"orders\"`",
            );
        }
        return Some(MeshPeer {
            namespace: None,
            service: None,
            at: at(mesh),
        });
    };
    let (namespace, service) = match name.split_once('/') {
        Some((namespace, service)) => (Some(namespace), service),
        None => (None, name),
    };
    Some(MeshPeer {
        namespace: namespace.map(str::to_owned),
        service: Some(service.to_owned()),
        at: at(mesh),
    })
}

fn both(mesh: &Node, what: &str, report: &mut ItemReport<'_>) {
    report.add(
        "contradiction",
        mesh.spot,
        format!("a {what} has either `tls` or `mesh`, which brings a TLS of its own"),
        "take one of the two out",
    );
}
