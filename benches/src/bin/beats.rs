//! What a control plane spends on heartbeats: starts the program with an empty state, registers instances over
//! keep-alive connections, lets each beat at its interval, and reads from `/proc` what that cost.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::Instant;
use tollgate_benches::fleet::Plane;
use tollgate_benches::process::usage;
use tollgate_benches::summary::{Failure, Recorder};
use tollgate_benches::thread;

/// Heartbeats of many instances.
#[derive(Parser)]
struct Arguments {
    /// The program; beside this one by default
    #[arg(long)]
    control_plane: Option<PathBuf>,
    #[arg(long, default_value_t = 10_000)]
    instances: usize,
    /// Keep-alive connections that the instances share; as many as instances is what a fleet would have
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Instances of one service
    #[arg(long, default_value_t = 20)]
    service: usize,
    /// Seconds between two beats of an instance
    #[arg(long, default_value_t = 15.0)]
    interval: f64,
    /// How long to count
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Cores of the control plane and of the load
    #[arg(long, default_value_t = 0)]
    plane_core: usize,
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let beside =
        || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("tollgate-control-plane"));
    let program = arguments.control_plane.clone().map_or_else(beside, Ok)?;
    let settings = "probe = { enabled = false }\n";
    let plane = thread::pinned(arguments.plane_core, || {
        Plane::start(&program, folder.path(), settings)
    })??;
    thread::pin(arguments.load_core)?;
    let runtime = thread::runtime()?;
    runtime.block_on(load(arguments, &plane))
}

async fn load(arguments: &Arguments, plane: &Plane) -> io::Result<()> {
    let pid = plane.program.id();
    let registered = Rc::new(Barrier::new(arguments.connections + 1));
    let end = Rc::new(Cell::new(None));
    let recorder = Rc::new(RefCell::new(Recorder::default()));
    let began = Instant::now();
    let before = usage(&[pid]);
    let mut tasks = Vec::new();
    for connection in 0..arguments.connections {
        let ids: Vec<usize> = (connection..arguments.instances)
            .step_by(arguments.connections)
            .collect();
        let (registered, end, recorder) = (registered.clone(), end.clone(), recorder.clone());
        let (address, service, interval) = (plane.address, arguments.service, arguments.interval);
        tasks.push(tokio::task::spawn_local(async move {
            one(
                address,
                &ids,
                (service, interval),
                &registered,
                &end,
                &recorder,
            )
            .await
        }));
    }
    registered.wait().await;
    let took = began.elapsed();
    let cost = usage(&[pid]).cpu.saturating_sub(before.cpu);
    println!(
        "{} registrations over {} connections in {:.2} s ({:.0}/s), {:.2} s of CPU",
        arguments.instances,
        arguments.connections,
        took.as_secs_f64(),
        arguments.instances as f64 / took.as_secs_f64(),
        cost.as_secs_f64()
    );
    let seconds = Duration::from_secs_f64(arguments.seconds);
    let began = Instant::now();
    let before = usage(&[pid]);
    end.set(Some(began + seconds));
    registered.wait().await;
    tokio::time::sleep_until(began + seconds).await;
    let after = usage(&[pid]);
    let spent = after.cpu.saturating_sub(before.cpu);
    let took = began.elapsed();
    for task in tasks {
        task.await.map_err(io::Error::other)??;
    }
    let summary = recorder.borrow().summary(took);
    let beats: u64 = summary.status.values().sum();
    println!(
        "{beats} heartbeats in {:.1} s ({:.0}/s): {:.1} % of a core, {:.0} µs of CPU each, {:.1} MiB resident",
        took.as_secs_f64(),
        beats as f64 / took.as_secs_f64(),
        spent.as_secs_f64() / took.as_secs_f64() * 100.0,
        spent.as_secs_f64() * 1e6 / beats.max(1) as f64,
        after.resident as f64 / f64::from(1 << 20),
    );
    println!("{}", serde_json::to_string(&summary).unwrap_or_default());
    Ok(())
}

/// One connection: registers its instances, then beats for each of them at the interval, each at a phase of its own.
async fn one(
    address: SocketAddr,
    ids: &[usize],
    (service, interval): (usize, f64),
    registered: &Barrier,
    end: &Cell<Option<Instant>>,
    recorder: &RefCell<Recorder>,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    for id in ids {
        let body = format!(
            "{{\"id\":\"i{id}\",\"name\":\"service-{}\",\"address\":\"10.{}.{}.{}:80\",\
             \"metadata\":{{\"version\":\"1.2.3\",\"zone\":\"a\"}}}}",
            id / service,
            id >> 16 & 255,
            id >> 8 & 255,
            id & 255
        );
        let head = format!(
            "POST /register HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if ask(&mut stream, format!("{head}{body}").as_bytes()).await? != 201 {
            return Err(io::Error::other("a registration is refused"));
        }
    }
    registered.wait().await;
    registered.wait().await;
    let end = end.get().unwrap_or_else(Instant::now);
    let step = Duration::from_secs_f64(interval / ids.len().max(1) as f64);
    let mut next = Instant::now() + step.mul_f64(fastrand::f64());
    'run: loop {
        for id in ids {
            if next >= end {
                break 'run;
            }
            tokio::time::sleep_until(next).await;
            let sent = Instant::now();
            let beat = format!("PUT /heartbeat/i{id} HTTP/1.1\r\nHost: cp\r\n\r\n");
            match ask(&mut stream, beat.as_bytes()).await {
                Ok(status) => recorder.borrow_mut().answered(status, sent.elapsed()),
                Err(_) => {
                    recorder.borrow_mut().failed(Failure::Closed);
                    break 'run;
                }
            }
            next += step;
        }
        if ids.is_empty() {
            break;
        }
    }
    Ok(())
}

/// The status of an answer whose length is told.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request).await?;
    let mut buffer = [0; 2048];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) =
            head.parse(&buffer[..filled]).map_err(io::Error::other)?
        else {
            continue;
        };
        let status = head.code.unwrap_or_default();
        let body = { head.headers.iter() }
            .find(|field| field.name.eq_ignore_ascii_case("content-length"))
            .and_then(|field| std::str::from_utf8(field.value).ok()?.parse::<usize>().ok())
            .unwrap_or(0);
        if filled >= length + body {
            return Ok(status);
        }
    }
}
