//! What `control_plane.register` names: a listener that others come in by, an upstream that tells whether it is ready.

use super::{Checks, Names, unknown};
use crate::document::Announced;
use crate::unit::short;

pub(super) fn check(listeners: &Names<'_>, upstreams: &Names<'_>, checks: &mut Checks<'_>) {
    let Some((register, place)) = checks.register.clone() else {
        return;
    };
    if let Announced::Listener(name) = &register.address {
        let (code, section) = ("unknown-listener", "listener");
        unknown(code, section, name, Some(place.clone()), listeners, checks);
    }
    let Some(name) = &register.upstream else {
        return;
    };
    let Some(upstream) = { checks.upstreams.iter() }.find(|item| item.name == *name) else {
        let (code, section) = ("unknown-upstream", "upstream");
        return unknown(code, section, name, Some(place), upstreams, checks);
    };
    if upstream.health.is_none() {
        let message = format!(
            "`register.upstream` names `{}`, which nobody asks whether it is ready",
            short(name)
        );
        let hint =
            "write `[upstream.health]` for it, such as `health = { path = \"/health/ready\" }`";
        checks.report.add("no-probe", Some(place), message, hint);
    }
}
