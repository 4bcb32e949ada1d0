//! Who this data plane is in a mesh: whether somebody can say so, and whether who needs it can have it.

use std::path::Path;

use super::Checks;
use crate::document::{Identity, IdentitySource, Mesh, Place};

pub(super) fn check(checks: &mut Checks<'_>) {
    if let Some(identity) = checks.identity {
        provable(identity, checks);
    } else if !checks.fleet && !checks.broken.touches("identity") {
        needed(checks);
    }
}

/// Whether a certificate can ever be had.
fn provable(identity: &Identity, checks: &mut Checks<'_>) {
    let IdentitySource::Authority {
        token,
        kubernetes_token,
    } = &identity.source
    else {
        return;
    };
    let place = Some(identity.place.clone());
    if !checks.control_plane && !checks.broken.touches("control_plane") {
        checks.report.add(
            "no-authority",
            place,
            "nobody can sign this data plane's certificate",
            "add `[control_plane]` with `urls = [\"https://127.0.0.1:8080\"]`, or name files: `cert`, `key` and `ca`",
        );
    } else if token.is_none() && kubernetes_token.is_none() && !checks.keeps_state {
        checks.report.add(
            "no-proof",
            place,
            "nothing proves to the authority who this data plane is",
            "write `token = \"${file:join.token}\"` with a token from `tollgate identity token`, or `kubernetes_token`",
        );
    }
}

/// Who speaks with members must be one.
fn needed(checks: &mut Checks<'_>) {
    const HINT: &str = "add `[identity]` with `service = \"orders\"`, or take `mesh` out";
    for listener in checks.listeners.iter() {
        if listener.mesh.value != Mesh::Off {
            let place = listener.place(listener.mesh.at);
            let message = "the listener is for members of a mesh, and this data plane is none";
            checks.report.add("no-identity", place, message, HINT);
        }
    }
    for upstream in checks.upstreams {
        if let Some(mesh) = &upstream.mesh {
            let message = "the upstream is a member of a mesh, and this data plane is none";
            let place = upstream.place(mesh.at);
            checks.report.add("no-identity", place, message, HINT);
        }
    }
}

/// The files that an identity names, whether each holds a key, and where it stands.
pub(super) fn files(identity: &Identity) -> Vec<(&Path, bool, Option<Place>)> {
    let place = || Some(identity.place.clone());
    match &identity.source {
        IdentitySource::Files { cert, key, ca } => vec![
            (cert.as_path(), false, place()),
            (key.as_path(), true, place()),
            (ca.as_path(), false, place()),
        ],
        // A service-account token is read at each asking, and need not be there yet.
        IdentitySource::Authority { .. } => Vec::new(),
    }
}
