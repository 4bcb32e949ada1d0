//! CPU time for a request: the cases in which all proxies are set side by side.

use std::io;
use std::time::{Duration, Instant};

use super::proxy::{Proxy, Shape};
use super::report::{CaseReport, Round, Row};
use super::{Case, Peer, Stage, strace};
use crate::load::{Plan, Protocol, Running};
use crate::upstream::LARGE;

/// Requests in the run that is traced.
const TRACED: u64 = 20_000;

/// Measures one case with every proxy that can do it.
pub(super) async fn cost(stage: &Stage<'_>, case: Case) -> io::Result<CaseReport> {
    let shape = Shape {
        tls: case == Case::Tls,
        http2: case == Case::Http2,
        protected: case == Case::Protected,
        transcode: case == Case::Transcode,
        ..Shape::default()
    };
    let mut report = CaseReport::new(case, "µs CPU/request");
    let mut proxies = Vec::new();
    for found in stage.found {
        let mut row = Row::new(found.peer);
        if shape.http2 && found.peer == Peer::Nginx {
            row.skipped = Some("skipped: no HTTP/2 to upstreams".to_owned());
        } else if shape.transcode && matches!(found.peer, Peer::Nginx | Peer::Haproxy) {
            row.skipped = Some("skipped: does not transcode".to_owned());
        } else {
            let proxy = Proxy::start(stage, found, &shape).await?;
            row.resident_at_start = proxy.at_start.resident;
            proxies.push(proxy);
        }
        report.rows.push(row);
    }
    for number in 1..=stage.settings.rounds {
        for proxy in &proxies {
            let round = round(stage, proxy, plan(case, &shape, proxy)).await?;
            (stage.say)(&format!(
                "  round {number} {}: {:.2} µs, {:.0} requests/s, {:.0} % of the core{}",
                proxy.peer.title(),
                round.cost,
                round.per_second,
                round.busy * 100.0,
                if round.bad > 0 {
                    format!(", {} FAILED", round.bad)
                } else {
                    String::new()
                }
            ));
            if let Some(row) = report.rows.iter_mut().find(|row| row.peer == proxy.peer) {
                row.rounds.push(round);
                row.resident_after = proxy.usage()?.resident;
            }
        }
    }
    if stage.settings.strace {
        for proxy in &proxies {
            let requests = if case == Case::LargeBody {
                TRACED / 100
            } else {
                TRACED
            };
            let plan = Plan {
                requests,
                duration: Some(Duration::from_secs(60)),
                ..plan(case, &shape, proxy)
            };
            match strace::count(stage, proxy, plan).await {
                Ok(calls) => {
                    if let Some(row) = report.rows.iter_mut().find(|row| row.peer == proxy.peer) {
                        row.syscalls = Some(calls);
                    }
                }
                Err(error) => (stage.say)(&format!(
                    "  {}: system calls not counted: {error}",
                    proxy.peer.title()
                )),
            }
        }
    }
    Ok(report)
}

fn plan(case: Case, shape: &Shape, proxy: &Proxy) -> Plan {
    let small = proxy.plan(shape, 64);
    match case {
        Case::Http2 => Plan {
            connections: 16,
            ..small
        },
        Case::LargeBody => Plan {
            connections: 16,
            paths: vec!["/1m".to_owned()],
            expect_body: LARGE,
            ..small
        },
        Case::NewConnection => Plan {
            protocol: Protocol::NewConnection,
            ..small
        },
        _ => small,
    }
}

/// One proxy under load: a warm-up that opens the connections, then the counted seconds. Requests and CPU time are read
/// at the same two moments, so neither the connections' handshakes nor the load's end is charged to anybody.
pub(super) async fn round(stage: &Stage<'_>, proxy: &Proxy, plan: Plan) -> io::Result<Round> {
    let running = Running::start(plan, Some(stage.settings.load_core))?;
    tokio::time::sleep(stage.settings.warming()).await;
    let pids = proxy.pids()?;
    let (before, done_before, started) = (
        crate::process::usage(&pids),
        running.live.completed(),
        Instant::now(),
    );
    tokio::time::sleep(stage.settings.measured()).await;
    let (after, done_after, elapsed) = (
        crate::process::usage(&pids),
        running.live.completed(),
        started.elapsed(),
    );
    let summary = running.finish().await?;
    let requests = done_after - done_before;
    let cpu = after.cpu.saturating_sub(before.cpu);
    let switches =
        |usage: crate::process::Usage| usage.voluntary_switches + usage.involuntary_switches;
    let each = |total: f64| {
        if requests == 0 {
            f64::NAN
        } else {
            total / requests as f64
        }
    };
    Ok(Round {
        cost: each(cpu.as_secs_f64() * 1e6),
        requests,
        bad: summary.bad(),
        per_second: requests as f64 / elapsed.as_secs_f64(),
        busy: cpu.as_secs_f64() / elapsed.as_secs_f64(),
        switches_per_request: each(switches(after).saturating_sub(switches(before)) as f64),
        p50_micros: summary.latency_micros.p50,
        p99_micros: summary.latency_micros.p99,
    })
}
