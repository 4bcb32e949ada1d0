//! What two hops add to a request, and what each of both sidecars spends on it.

use std::io;
use std::net::SocketAddr;

use super::pair::{CALLED, Pair, Way};
use super::report::Figures;
use super::{Stage, turn};
use crate::load::{Arrivals, Plan, Protocol, Running};
use crate::peers::Peer;
use crate::upstream::SMALL;

const CONNECTIONS: usize = 16;
/// Requests before the first round, so that whatever is opened or made once is there.
const FIRST: u64 = 2_000;

type Name = (&'static str, &'static str, Option<f64>);

/// What one rate is told by.
struct Names {
    p50: Name,
    p99: Name,
    direct: [Name; 2],
    cpu: Name,
    first: Name,
    second: Name,
}

const QUIET: Names = Names {
    p50: ("two hops add, p50", "ms", Some(0.5)),
    p99: ("two hops add, p99", "ms", Some(1.5)),
    direct: [("direct, p50", "ms", None), ("direct, p99", "ms", None)],
    cpu: ("a sidecar, at 1,000/s", "core per 1,000/s", Some(0.05)),
    first: ("the way out, at 1,000/s", "core per 1,000/s", None),
    second: ("the way in, at 1,000/s", "core per 1,000/s", None),
};

const BUSY: Names = Names {
    p50: ("two hops add at 10,000/s, p50", "ms", None),
    p99: ("two hops add at 10,000/s, p99", "ms", None),
    direct: [
        ("direct at 10,000/s, p50", "ms", None),
        ("direct at 10,000/s, p99", "ms", None),
    ],
    cpu: ("a sidecar, at 10,000/s", "core per 1,000/s", None),
    first: ("the way out, at 10,000/s", "core per 1,000/s", None),
    second: ("the way in, at 10,000/s", "core per 1,000/s", None),
};

const FAILED: Name = ("requests that failed", "", Some(0.0));

/// Measures all in turn, in every round.
pub(super) async fn hops(stage: &Stage<'_>) -> io::Result<Figures> {
    let mut figures = Figures::default();
    let mut pairs = Vec::new();
    for peer in stage.peers() {
        let pair = Pair::start(stage, peer, Way::Requests, stage.upstream.http1, 0).await?;
        pair.answers(CALLED).await?;
        let first = Plan {
            arrivals: Arrivals::Closed,
            requests: FIRST,
            ..plan(pair.entrance, 0.0)
        };
        Running::start(first, Some(stage.settings.load_core))?
            .wait()
            .await?;
        pairs.push(pair);
    }
    for (rate, names) in [(1_000.0, QUIET), (10_000.0, BUSY)] {
        for _ in 0..stage.settings.rounds {
            let [p50, p99] = ask(stage, &plan(stage.upstream.http1, rate), &[])
                .await?
                .latency;
            // One of a kind, shown in our column.
            figures.add(names.direct[0], Peer::Tollgate, p50);
            figures.add(names.direct[1], Peer::Tollgate, p99);
            for pair in &pairs {
                let asked = ask(stage, &plan(pair.entrance, rate), &pair.ids()).await?;
                let both = (asked.cpu[0] + asked.cpu[1]) / 2.0;
                for (name, value) in [
                    (names.p50, asked.latency[0] - p50),
                    (names.p99, asked.latency[1] - p99),
                    (names.cpu, both),
                    (names.first, asked.cpu[0]),
                    (names.second, asked.cpu[1]),
                    (FAILED, asked.bad),
                ] {
                    figures.add(name, pair.peer, value);
                }
            }
        }
    }
    Ok(figures)
}

/// An open loop: latency counts from the moment at which a request is due.
fn plan(to: SocketAddr, per_second: f64) -> Plan {
    Plan {
        to,
        host: CALLED.to_owned(),
        paths: vec!["/1k".to_owned()],
        headers: Vec::new(),
        protocol: Protocol::KeepAlive,
        tls: false,
        connections: CONNECTIONS,
        expect_body: SMALL,
        arrivals: Arrivals::Open { per_second },
        requests: 0,
        duration: None,
    }
}

struct Asked {
    /// Milliseconds: p50 and p99.
    latency: [f64; 2],
    /// Cores that a thousand requests a second take, of each process.
    cpu: Vec<f64>,
    bad: f64,
}

async fn ask(stage: &Stage<'_>, plan: &Plan, pids: &[u32]) -> io::Result<Asked> {
    let running = Running::start(plan.clone(), Some(stage.settings.load_core))?;
    let turn = turn(stage, pids, || running.live.completed()).await;
    let summary = running.finish().await?;
    let thousands = turn.count as f64 / 1e3;
    Ok(Asked {
        latency: [summary.latency_micros.p50, summary.latency_micros.p99].map(|us| us / 1e3),
        cpu: { turn.cpu.iter() }
            .map(|cpu| cpu.as_secs_f64() / thousands)
            .collect(),
        bad: summary.bad() as f64,
    })
}
