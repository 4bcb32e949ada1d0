//! An upstream that stands in for what a template would make of a service: wholly, so what it does not say is a default, and
//! not what the template says. Often the two stand far from one another: a node's own file has the template, the control
//! plane's documents the other. Where they meet, it is told.

use crate::document::{Document, EndpointSource, Item, Upstream, UpstreamProtocol};
use crate::problem::Problem;

/// Those that take services out of the mesh.
pub(super) fn warn(document: &Document, warnings: &mut Vec<Problem>) {
    for template in document.upstreams.iter().filter(|one| one.mesh.is_some()) {
        let EndpointSource::Asked { with, .. } = &template.endpoints else {
            continue;
        };
        let others = document.upstreams.iter();
        let stand_ins = others.filter(|one| one.mesh.is_none() && one.tls.is_none());
        for one in stand_ins.filter(|one| is_of_service(one, with)) {
            warnings.push(told(one, template));
        }
    }
}

/// Whether it is called like the service whose instances it has, all that the template would take.
fn is_of_service(upstream: &Upstream, wanted: &[(String, String)]) -> bool {
    matches!(
        &upstream.endpoints,
        EndpointSource::Service { name, with, .. } if *name == upstream.name && with == wanted
    )
}

fn told(one: &Item<Upstream>, template: &Item<Upstream>) -> Problem {
    let speaks = |one: &Upstream| one.protocol == UpstreamProtocol::Http2;
    let http2 = speaks(template) && !speaks(one);
    let (protocol, also) = match http2 {
        true => (" and `protocol`", ", `protocol = \"http2\"`"),
        false => ("", ""),
    };
    Problem {
        code: "stands-in-without-mesh",
        place: Some(one.begins()),
        message: format!(
            "upstream `{}` takes the place of what `{}` ({}:{}) makes of that service, and says nothing of `mesh`{protocol}: \
             its calls leave in clear text",
            one.name, template.name, template.file, template.line
        ),
        text: None,
        hint: Some(format!(
            "write `mesh = true`{also} there, too; or give the upstream another name, where clear text is meant"
        )),
    }
}
