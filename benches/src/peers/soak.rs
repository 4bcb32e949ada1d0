//! A long time of mixed traffic and faults through Tollgate (HI-72): does memory or the number of open files grow, do
//! answers get slower, does anybody who did nothing wrong notice?
//!
//! Minute by minute every kind of honest traffic runs at a fixed rate, while other clients leave in the middle of what
//! they say and an upstream behind a route of its own breaks off, delays, refuses and talks nonsense. Each minute's
//! memory, open files and p99 are one point; a line through them tells what an hour would do.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::own::{figure, tollgate};
use super::proxy::{Proxy, Shape};
use super::report::CaseReport;
use super::{Case, Stage};
use crate::load::{Arrivals, Plan, Protocol, Running};
use crate::thread::Pinned;
use crate::upstream::LARGE;

/// One point of the line.
const STEP: Duration = Duration::from_secs(60);
/// The first points, in which pools fill and code is touched for the first time, belong to no line.
const WARMING: usize = 2;
const MEBIBYTE: f64 = (1 << 20) as f64;

struct Point {
    minutes: f64,
    resident: f64,
    files: f64,
    p99: f64,
}

pub(super) async fn soak(stage: &Stage<'_>) -> io::Result<CaseReport> {
    let mut report = CaseReport::new(Case::Soak, "");
    let Some(found) = tollgate(stage) else {
        return Ok(report);
    };
    let broken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    broken.set_nonblocking(true)?;
    let shape = Shape {
        chaos: Some(broken.local_addr()?),
        ..Shape::default()
    };
    let _upstream = Pinned::run("chaos", Some(stage.settings.load_core), move || {
        misbehaving_upstream(broken)
    })?;
    let proxy = Proxy::start(stage, found, &shape).await?;
    let front = proxy.front.listen;
    let _clients = Pinned::run("rude", Some(stage.settings.load_core), move || {
        rude_clients(front)
    })?;
    let (began, mut points) = (Instant::now(), Vec::new());
    let (mut answered, mut failed, mut nonsense) = (0, 0, 0);
    let steps = usize::try_from(stage.settings.soak_minutes).unwrap_or(usize::MAX);
    for _ in 0..steps.saturating_add(WARMING) {
        let step = Step::start(stage, &proxy, &shape)?;
        tokio::time::sleep(STEP).await;
        let (honest, odd) = step.finish().await?;
        answered += honest.iter().map(|one| one.requests).sum::<u64>();
        failed += honest.iter().map(|one| one.bad()).sum::<u64>();
        nonsense += odd;
        let point = Point {
            minutes: began.elapsed().as_secs_f64() / 60.0,
            resident: proxy.usage()?.resident as f64 / MEBIBYTE,
            files: open_files(&proxy)?,
            p99: honest
                .first()
                .map_or(f64::NAN, |one| one.latency_micros.p99),
        };
        (stage.say)(&format!(
            "  minute {:.0}: {:.2} MiB, {:.0} files, p99 {:.0} µs, {failed} failed",
            point.minutes, point.resident, point.files, point.p99
        ));
        points.push(point);
    }
    let line: Vec<&Point> = points.iter().skip(WARMING).collect();
    let p99 = |points: &[&Point]| {
        crate::summary::median(points.iter().map(|point| point.p99)).unwrap_or(f64::NAN)
    };
    let (first, last) = line.split_at(line.len() / 2);
    report.figures = vec![
        figure("minutes", stage.settings.soak_minutes as f64, "", None),
        figure("answers to honest clients", answered as f64, "", None),
        figure("of them failed", failed as f64, "", Some(0.0)),
        figure(
            "answers from a misbehaving upstream",
            nonsense as f64,
            "",
            None,
        ),
        figure(
            "resident memory grows, in 10 minutes",
            slope(&line, |point| point.resident) * 10.0,
            "MiB",
            Some(1.0),
        ),
        figure(
            "open files grow, in 10 minutes",
            slope(&line, |point| point.files) * 10.0,
            "",
            None,
        ),
        figure("p99, second half ÷ first", p99(last) / p99(first), "", None),
    ];
    Ok(report)
}

/// One minute's traffic.
struct Step {
    honest: Vec<Running>,
    odd: Running,
}

impl Step {
    fn start(stage: &Stage<'_>, proxy: &Proxy, shape: &Shape) -> io::Result<Step> {
        let small = proxy.plan(shape, 32);
        let at = |per_second| Arrivals::Open { per_second };
        let plans = [
            Plan {
                arrivals: at(400.0),
                ..small.clone()
            },
            Plan {
                arrivals: at(50.0),
                protocol: Protocol::NewConnection,
                ..small.clone()
            },
            Plan {
                arrivals: at(400.0),
                connections: 4,
                protocol: Protocol::Http2 { streams: 16 },
                ..small.clone()
            },
            Plan {
                arrivals: at(5.0),
                connections: 4,
                paths: vec!["/1m".to_owned()],
                expect_body: LARGE,
                ..small.clone()
            },
        ];
        let start = |plan| Running::start(plan, Some(stage.settings.load_core));
        Ok(Step {
            honest: plans.into_iter().map(start).collect::<io::Result<_>>()?,
            odd: start(Plan {
                arrivals: at(50.0),
                connections: 16,
                paths: vec!["/chaos/1".to_owned()],
                expect_body: 0,
                ..small
            })?,
        })
    }

    /// Summaries of honest traffic, and how many answers the other upstream's clients got.
    async fn finish(self) -> io::Result<(Vec<crate::summary::Summary>, u64)> {
        let mut honest = Vec::new();
        for running in self.honest {
            honest.push(running.finish().await?);
        }
        Ok((honest, self.odd.finish().await?.requests))
    }
}

/// Answers well, or not, in every way that a broken service has.
async fn misbehaving_upstream(listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("no misbehaving upstream: {error}"),
    };
    let mut all = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        while all.try_join_next().is_some() {}
        drop(all.spawn_local(async move {
            let mut bytes = [0; 4096];
            while let Ok(1..) = stream.read(&mut bytes).await {
                let answer: &[u8] = match fastrand::u8(..8) {
                    0 => return,
                    1 => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
                    2 => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                    3 => b"nonsense\r\n\r\n",
                    4 => {
                        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n"
                    }
                    5 => {
                        tokio::time::sleep(Duration::from_millis(300)).await;
                        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate"
                    }
                    _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                };
                if stream.write_all(answer).await.is_err() || !answer.ends_with(b"ok") {
                    return;
                }
            }
        }));
    }
}

/// Thirty times a second somebody says part of something, waits a little, and is gone.
async fn rude_clients(front: SocketAddr) {
    let mut tick = tokio::time::interval(Duration::from_millis(33));
    let mut all = JoinSet::new();
    loop {
        tick.tick().await;
        while all.try_join_next().is_some() {}
        drop(all.spawn_local(async move {
            let Ok(mut stream) = TcpStream::connect(front).await else {
                return;
            };
            let said: &[u8] = match fastrand::u8(..5) {
                0 => b"POST /1k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\nsome",
                1 => b"GET /1m HTTP/1.1\r\nhost: localhost\r\n\r\n",
                2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
                3 => b"\x16\x03\x01\x02\0\x01",
                _ => b"GET /1k HTTP/1.1\r\nhost: localh",
            };
            // Whatever becomes of it is the proxy's to bear.
            drop(stream.write_all(said).await);
            let pause = Duration::from_millis(fastrand::u64(..200));
            drop(tokio::time::timeout(pause, stream.read(&mut [0; 512])).await);
        }));
    }
}

fn open_files(proxy: &Proxy) -> io::Result<f64> {
    let mut files = 0;
    for pid in proxy.pids()? {
        files += std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    }
    Ok(files as f64)
}

/// Least squares: how much a value grows in a minute.
fn slope(points: &[&Point], value: impl Fn(&Point) -> f64) -> f64 {
    let count = points.len() as f64;
    let mean =
        |of: &dyn Fn(&Point) -> f64| points.iter().map(|point| of(point)).sum::<f64>() / count;
    let (time, level) = (mean(&|point| point.minutes), mean(&value));
    let over = |of: &dyn Fn(&Point) -> f64| points.iter().map(|point| of(point)).sum::<f64>();
    over(&|point| (point.minutes - time) * (value(point) - level))
        / over(&|point| (point.minutes - time).powi(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_what_a_value_grows_in_a_minute() {
        let points: Vec<Point> = (0..5)
            .map(|minute| Point {
                minutes: f64::from(minute),
                resident: 3.0 + 0.5 * f64::from(minute),
                files: 7.0,
                p99: 1.0,
            })
            .collect();
        let all: Vec<&Point> = points.iter().collect();
        assert!((slope(&all, |point| point.resident) - 0.5).abs() < 1e-9);
        assert!(slope(&all, |point| point.files).abs() < 1e-9);
    }
}
