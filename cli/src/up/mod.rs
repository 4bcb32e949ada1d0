//! `up`: the whole system on this machine, from one command: the shop's four services, each beside its sidecar, a control
//! plane that knows them, and a gateway that follows it. Each part is a process of its own (`system`, `part`, `parts`), so that it can be killed to see
//! what becomes of the others; one that dies is named with its log and started again.
//!
//! Everything that is started here ends here, in the order in which nobody notices: the gateway first, then what stands
//! behind it. The folder with documents, state and logs is removed.

mod greeting;
mod load;
mod news;
mod part;
pub(crate) mod parts;
mod pod;
mod system;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;
use tollgate_engine::process::{Request as Told, Signals, exit};

use crate::client::Admin;
use crate::table::print;
use greeting::{Places, greeting};
use news::News;
use part::Part;
use system::System;

/// How long everything may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// Parts that die more often than this are not started again.
const MOST_DEATHS: u32 = 5;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Where health, metrics and status are served; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Where the control plane listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    control: SocketAddr,
    /// Sends a steady trickle of requests, so that there is something to see.
    #[arg(long)]
    load: bool,
}

pub(crate) fn up(arguments: &Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(failed("no runtime can be made")(error)),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err((message, code)) => {
            eprintln!("{message}");
            ExitCode::from(code)
        }
    }
}

/// Why it could not start, and the exit code that says so.
type Failure = (String, u8);

fn failed(what: &str) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| (format!("{what}: {error}"), exit::FAILURE)
}

/// An address that cannot be had, with the option that chooses another.
fn taken(address: SocketAddr, error: &io::Error, option: &str) -> Failure {
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => "is in use by another process".to_owned(),
        _ => format!("cannot be used: {error}"),
    };
    let free = SocketAddr::new(address.ip(), 0);
    (
        format!(
            "{address} {cause}\n  = choose another address with {option}, for example {option} {free} for any free port\n  = `ss -ltnp 'sport = :{}'` shows who has it",
            address.port()
        ),
        exit::ADDRESS_IN_USE,
    )
}

async fn run(arguments: &Arguments) -> Result<u8, Failure> {
    // From here on no signal ends this process by itself.
    let mut signals = Signals::new().map_err(failed("signals cannot be heard"))?;
    let folder = tempfile::Builder::new()
        .prefix("tollgate-up-")
        .tempdir()
        .map_err(failed("no folder can be made for the documents"))?;
    let stopping = Arc::new(AtomicBool::new(false));
    let mut system = System::new(folder.path(), arguments);
    let lived = tokio::select! {
        lived = live(&mut system, arguments.load, &stopping) => lived,
        () = told_to_stop(&mut signals) => Ok(()),
    };
    stopping.store(true, Ordering::Release);
    let code = stop(&mut system, &mut signals).await;
    remove(folder)?;
    lived?;
    print("nothing is left behind\n");
    Ok(code)
}

async fn told_to_stop(signals: &mut Signals) {
    while signals.next().await != Told::Stop {}
}

/// Starts everything, and looks after it. Ends only when that fails.
async fn live(
    system: &mut System<'_>,
    load: bool,
    stopping: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let began = Instant::now();
    print("starting\n");
    system.start().await?;
    ready(system).await?;
    let took = began.elapsed().as_millis();
    print(&format!("  all of it is ready after {took} ms\n\n"));
    let places = Places {
        gateway: format!("http://{}", system.listen),
        admin: format!("http://{}", system.admin),
        control: format!("http://{}", system.control),
    };
    let control = system
        .parts
        .iter()
        .find(|part| part.name == "control-plane");
    print(&greeting(
        &places,
        system.folder,
        control.and_then(Part::pid),
    ));
    if load {
        load::start(&system.listen.to_string(), stopping)
            .map_err(failed("the load cannot start"))?;
    }
    look_after(system).await
}

/// Waits until the gateway has its routes, and the routes their services.
async fn ready(system: &mut System<'_>) -> Result<(), Failure> {
    let began = Instant::now();
    let admin = system.admin.to_string().parse();
    let admin: Admin = admin.map_err(|why| (why, exit::FAILURE))?;
    while !serves(&admin).await {
        let soon = tokio::time::timeout(Duration::from_millis(20), first_to_end(&mut system.parts));
        if let Ok((_, words)) = soon.await {
            return Err((words, exit::FAILURE));
        }
        if began.elapsed() > READY {
            let logs = system.folder.join("log");
            let (seconds, logs) = (READY.as_secs(), logs.display());
            let words = format!("the gateway is not ready after {seconds} s; logs are in {logs}");
            return Err((words, exit::FAILURE));
        }
    }
    Ok(())
}

/// Says what becomes of edits; names each part that dies, and starts it again.
async fn look_after(system: &mut System<'_>) -> Result<(), Failure> {
    let (mut deaths, mut news) = (0, News::default());
    loop {
        let (number, words) = tokio::select! {
            ended = first_to_end(&mut system.parts) => ended,
            text = news.next(system.control) => {
                print(&text);
                continue;
            }
        };
        deaths += 1;
        print(&words);
        if deaths > MOST_DEATHS {
            let words = "parts died too often; everything is stopped";
            return Err((words.to_owned(), exit::FAILURE));
        }
        system.start_again(number).await?;
    }
}

/// Stops what runs, the last that was started first. A second signal stops the waiting.
async fn stop(system: &mut System<'_>, signals: &mut Signals) -> u8 {
    let mut code = exit::OK;
    while let Some(mut part) = system.parts.pop() {
        let name = part.name;
        if part.is_over() {
            // Its death was told when it died, and it may have been about to be started again.
            print(&format!("{name}: ended before\n"));
            continue;
        }
        let status = tokio::select! {
            status = part.stop() => status,
            () = told_to_stop(signals) => None,
        };
        let ended = status.and_then(|status| status.code());
        let said = match name {
            "gateway" | "control-plane" => {
                let log = system.folder.join("log").join(format!("{name}.log"));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                log.lines().last().unwrap_or("stopped").to_owned()
            }
            _ if ended == Some(0) => "stopped".to_owned(),
            _ => "stopped, and not as it should".to_owned(),
        };
        print(&format!("{name}: {said}\n"));
        if ended != Some(0) {
            code = ended
                .and_then(|code| code.try_into().ok())
                .unwrap_or(exit::CUT);
        }
    }
    code
}

/// Whether the gateway is ready and every upstream has an endpoint that may be asked.
async fn serves(admin: &Admin) -> bool {
    let admin = admin.clone();
    let asked = tokio::task::spawn_blocking(move || admin.ask("GET", "/status", "")).await;
    let Ok(Ok(status)) = asked else {
        return false;
    };
    let upstreams = status["upstreams"].as_array().cloned().unwrap_or_default();
    let full = |upstream: &serde_json::Value| {
        upstream["endpoints"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    };
    status["ready"] == true && !upstreams.is_empty() && upstreams.iter().all(full)
}

async fn first_to_end(parts: &mut [Part]) -> (usize, String) {
    let mut ends: Vec<_> = parts
        .iter_mut()
        .map(|part| Box::pin(part.ended()))
        .collect();
    std::future::poll_fn(|context| {
        for (number, end) in ends.iter_mut().enumerate() {
            if let std::task::Poll::Ready(words) = end.as_mut().poll(context) {
                return std::task::Poll::Ready((number, words));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn remove(folder: TempDir) -> Result<(), Failure> {
    let path = folder.path().to_owned();
    folder.close().map_err(|error| {
        (
            format!("{} cannot be removed: {error}", path.display()),
            exit::FAILURE,
        )
    })
}
