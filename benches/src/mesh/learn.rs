//! What the first call of a service costs that no file names: the sidecar asks its control plane who it is, hears, and
//! shakes hands, while the request waits. The second call is what all others are.

use std::io;
use std::time::Instant;

use super::Stage;
use super::pair::dependency;
use super::report::Figures;
use crate::fleet::{Caller, expect};
use crate::peers::Peer;

pub(super) async fn learn(stage: &Stage<'_>) -> io::Result<Figures> {
    let mut figures = Figures::default();
    if stage.ours.is_none() {
        return Ok(figures);
    }
    let (fleet, count) = (stage.fleet()?, stage.settings.dependencies);
    let _dependencies = fleet.dependencies(stage, count).await?;
    let sidecar = fleet.caller(stage).await?;
    for host in (0..count).map(dependency) {
        let mut caller = Caller::for_host(sidecar.outbound, &host)?;
        let mut ask = || -> io::Result<f64> {
            let began = Instant::now();
            expect(&caller.ask("GET", "/1k", "")?, 200)?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        let (first, second) = (ask()?, ask()?);
        figures.add(("first call", "ms", None), Peer::Tollgate, first);
        figures.add(("second call", "ms", None), Peer::Tollgate, second);
    }
    Ok(figures)
}
