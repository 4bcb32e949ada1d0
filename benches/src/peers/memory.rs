//! What an idle connection holds in memory: the growth of resident memory over thousands of keep-alive connections, each
//! after one request, divided by their number. The kernel's own socket buffers are not in it.

use std::io;
use std::time::Duration;

use super::proxy::{Proxy, Shape};
use super::report::{CaseReport, Round, Row};
use super::{Case, Stage};
use crate::load::{Arrivals, Idle, Plan, Running};

/// Between the last request and the reading, so that what is freed a moment later counts as freed.
const SETTLE: Duration = Duration::from_secs(1);

/// Measures each proxy once for every round, on a fresh process: memory that was used once often stays.
pub(super) async fn idle(stage: &Stage<'_>) -> io::Result<CaseReport> {
    let mut report = CaseReport::new(Case::Idle, "KiB/connection");
    report.rows = stage
        .found
        .iter()
        .map(|found| Row::new(found.peer))
        .collect();
    let rounds = stage.settings.rounds.min(3);
    for number in 1..=rounds {
        for (found, row) in stage.found.iter().zip(&mut report.rows) {
            let shape = Shape::default();
            let proxy = Proxy::start(stage, found, &shape).await?;
            // What grows once with the first requests is no connection's.
            let warm = Plan {
                arrivals: Arrivals::Closed,
                requests: 2_000,
                ..proxy.plan(&shape, 16)
            };
            Running::start(warm, Some(stage.settings.load_core))?
                .wait()
                .await?;
            tokio::time::sleep(SETTLE).await;
            let before = proxy.usage()?.resident;
            let count = stage.settings.idle_connections;
            let mut held = Vec::with_capacity(count);
            for opened in 0..count {
                let idle = Idle::open(proxy.front.listen, "/1k")
                    .await
                    .map_err(|error| {
                        io::Error::other(format!(
                            "{}: idle connection {opened}: {error}",
                            proxy.peer.title()
                        ))
                    })?;
                held.push(idle);
            }
            tokio::time::sleep(SETTLE).await;
            let after = proxy.usage()?.resident;
            let cost = after.saturating_sub(before) as f64 / 1024.0 / count.max(1) as f64;
            (stage.say)(&format!(
                "  round {number} {}: {cost:.2} KiB",
                proxy.peer.title()
            ));
            row.resident_at_start = proxy.at_start.resident;
            row.resident_after = after;
            row.rounds.push(Round {
                cost,
                requests: count as u64,
                ..Round::default()
            });
        }
    }
    Ok(report)
}
