//! Cases that only Tollgate is measured in: many routes, reloads under full load, and how soon one change serves.
//!
//! A reload is over when `GET /status` on the admin address names another document; nothing here waits for a time to pass
//! and hopes.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cost::round;
use super::find::Found;
use super::proxy::{Proxy, Shape, write};
use super::report::{CaseReport, Figure};
use super::text::Routes;
use super::{Case, Peer, Stage};
use crate::load::{Plan, Running, Stream, get};
use crate::summary::median;

/// How long one reload may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(5);
const MEBIBYTE: f64 = (1 << 20) as f64;

pub(super) fn tollgate<'a>(stage: &Stage<'a>) -> Option<&'a Found> {
    let found = stage
        .found
        .iter()
        .find(|found| found.peer == Peer::Tollgate);
    if found.is_none() {
        (stage.say)("  skipped: Tollgate is not there to be measured");
    }
    found
}

pub(super) fn figure(
    name: impl Into<String>,
    value: f64,
    unit: &'static str,
    goal: Option<f64>,
) -> Figure {
    Figure {
        name: name.into(),
        value,
        unit,
        goal,
    }
}

/// Memory at start, and HTTP/1.1 cost, with one route and with thousands; rounds in turn.
pub(super) async fn routes(stage: &Stage<'_>) -> io::Result<CaseReport> {
    let mut report = CaseReport::new(Case::Routes, "");
    let Some(found) = tollgate(stage) else {
        return Ok(report);
    };
    let many = stage.settings.routes;
    let with = |more| Shape {
        routes: Routes {
            more,
            marks: Vec::new(),
        },
        ..Shape::default()
    };
    let (one, all) = (with(0), with(many - 1));
    let (small, large) = (
        Proxy::start(stage, found, &one).await?,
        Proxy::start(stage, found, &all).await?,
    );
    // The same requests for both; with many routes each ends at another one.
    let paths: Vec<String> = (0..many).map(|number| Routes::path(number, "1k")).collect();
    let mut costs = [Vec::new(), Vec::new()];
    for number in 1..=stage.settings.rounds {
        for (proxy, costs) in [&small, &large].into_iter().zip(&mut costs) {
            let round = round(
                stage,
                proxy,
                Plan {
                    paths: paths.clone(),
                    ..proxy.plan(&one, 64)
                },
            )
            .await?;
            (stage.say)(&format!(
                "  round {number}: {:.2} µs, {} failed",
                round.cost, round.bad
            ));
            costs.push(round.cost);
        }
    }
    let [few, lots] = costs;
    let ratio = median(lots.iter().zip(&few).map(|(lots, few)| lots / few)).unwrap_or(f64::NAN);
    let resident = |proxy: &Proxy| proxy.at_start.resident as f64 / MEBIBYTE;
    report.figures = vec![
        figure(
            "resident at start, one route",
            resident(&small),
            "MiB",
            Some(8e6 / MEBIBYTE),
        ),
        figure(
            format!("resident at start, {many} routes"),
            resident(&large),
            "MiB",
            Some(30e6 / MEBIBYTE),
        ),
        figure(
            "cost, one route",
            median(few).unwrap_or(f64::NAN),
            "µs CPU/request",
            None,
        ),
        figure(
            format!("cost, {many} routes"),
            median(lots).unwrap_or(f64::NAN),
            "µs CPU/request",
            None,
        ),
        figure(
            format!("cost, {many} routes ÷ one route"),
            ratio,
            "",
            Some(1.03),
        ),
    ];
    Ok(report)
}

/// Reloads under full load, every other one changing the route that bears the load.
pub(super) async fn reload(stage: &Stage<'_>) -> io::Result<CaseReport> {
    let mut report = CaseReport::new(Case::Reload, "");
    let Some(found) = tollgate(stage) else {
        return Ok(report);
    };
    let shape = Shape {
        routes: Routes {
            more: 100,
            marks: Vec::new(),
        },
        ..Shape::default()
    };
    let mut proxy = Proxy::start(stage, found, &shape).await?;
    // Ten streams on the busy route and ten on one that no reload touches.
    let mut streams = Vec::new();
    for number in 0..20 {
        let path = Routes::path(if number % 2 == 0 { 0 } else { 100 }, "drip");
        streams.push(Stream::open(proxy.front.listen, &path).await?);
    }
    let plan = proxy.plan(&shape, 64);
    // Without reloads, but with the same looks at the status.
    let quiet = Running::start(plan.clone(), Some(stage.settings.load_core))?;
    let until = Instant::now() + stage.settings.measured().max(Duration::from_secs(1));
    while Instant::now() < until {
        document(&proxy).await?;
        tokio::time::sleep(LOOK).await;
    }
    let quiet = quiet.finish().await?;
    let before = proxy.usage()?.resident;

    let busy = Running::start(plan, Some(stage.settings.load_core))?;
    let started = Instant::now();
    let mut served = document(&proxy).await?;
    for number in 1..=stage.settings.reloads {
        let mark = (
            if number % 2 == 0 {
                0
            } else {
                1 + number / 2 % 99
            },
            number as u64,
        );
        let marks = &mut proxy.front.routes.marks;
        marks.retain(|(route, _)| *route != mark.0);
        marks.push(mark);
        write(Peer::Tollgate, &proxy.front)?;
        served = changed(&proxy, &served).await?;
        if number % 100 == 0 {
            (stage.say)(&format!(
                "  {number} reloads, {} failed",
                busy.live.failed()
            ));
        }
    }
    let each = started.elapsed().as_secs_f64() * 1e3 / stage.settings.reloads.max(1) as f64;
    let summary = busy.finish().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = proxy.usage()?.resident;
    let cut = streams
        .iter()
        .filter(|stream| stream.bytes().is_none())
        .count();
    let (p99, p99_quiet) = (summary.latency_micros.p99, quiet.latency_micros.p99);
    let reloads = stage.settings.reloads;
    report.figures = vec![
        figure(
            format!("failed requests in {reloads} reloads"),
            summary.bad() as f64,
            "",
            Some(0.0),
        ),
        figure(
            "requests answered meanwhile",
            summary.requests as f64,
            "",
            None,
        ),
        figure(
            "connections that had to be opened again",
            summary.reconnects as f64,
            "",
            None,
        ),
        figure("streams cut, of 20", cut as f64, "", Some(0.0)),
        figure("p99 without reloads", p99_quiet, "µs", None),
        figure("p99 with reloads", p99, "µs", None),
        figure("p99 with ÷ without", p99 / p99_quiet, "", Some(1.2)),
        figure("from write to served, mean", each, "ms", None),
        figure("resident before", before as f64 / MEBIBYTE, "MiB", None),
        figure(
            "resident after ÷ before",
            after as f64 / before as f64,
            "",
            Some(1.05),
        ),
    ];
    Ok(report)
}

/// From the write of a file in which one of thousands of routes has changed until it serves.
pub(super) async fn change_one(stage: &Stage<'_>) -> io::Result<CaseReport> {
    let mut report = CaseReport::new(Case::ChangeOne, "");
    let Some(found) = tollgate(stage) else {
        return Ok(report);
    };
    let many = stage.settings.routes;
    let shape = Shape {
        routes: Routes {
            more: many - 1,
            marks: Vec::new(),
        },
        ..Shape::default()
    };
    let mut proxy = Proxy::start(stage, found, &shape).await?;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    let mut served = document(&proxy).await?;
    for number in 1..=stage.settings.changes {
        // Another route each time, spread over all of them.
        let route = 1 + (number * 7_919) % (many - 1).max(1);
        proxy.front.routes.marks = vec![(route, number as u64)];
        let path = Routes::path(route, "1k");
        write(Peer::Tollgate, &proxy.front)?;
        let written = Instant::now();
        while get(proxy.front.listen, &path)
            .await?
            .header("x-mark")
            .as_deref()
            != Some(&number.to_string())
        {
            if written.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "a changed route does not serve after {PATIENCE:?}"
                )));
            }
        }
        outside.push(written.elapsed().as_secs_f64() * 1e3);
        served = changed(&proxy, &served).await?;
        let status = status(&proxy).await?;
        if let Some(micros) = status
            .pointer("/last_reload/micros")
            .and_then(Value::as_f64)
        {
            inside.push(micros / 1e3);
        }
    }
    if let Some(time) = median(inside) {
        report.figures.push(figure(
            format!("in the process, {many} routes"),
            time,
            "ms",
            Some(5.0),
        ));
    }
    let outside = median(outside).unwrap_or(f64::NAN);
    report.figures.push(figure(
        "seen from outside, with the file watch",
        outside,
        "ms",
        None,
    ));
    Ok(report)
}

async fn status(proxy: &Proxy) -> io::Result<Value> {
    let got = get(proxy.front.admin, "/status").await?;
    serde_json::from_slice(&got.body)
        .map_err(|error| io::Error::other(format!("/status is no JSON: {error}")))
}

/// What tells one loaded document from another.
async fn document(proxy: &Proxy) -> io::Result<Value> {
    let status = status(proxy).await?;
    let known = ["generation", "hash"]
        .into_iter()
        .find_map(|key| status.get(key).cloned());
    known.ok_or_else(|| {
        io::Error::other("/status has neither `generation` nor `hash`; a reload cannot be seen")
    })
}

/// Waits until another document than `before` is served.
async fn changed(proxy: &Proxy, before: &Value) -> io::Result<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = document(proxy).await?;
        if now != *before {
            return Ok(now);
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!(
                "no reload in {PATIENCE:?}; does it watch {}?",
                proxy.file.display()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}
