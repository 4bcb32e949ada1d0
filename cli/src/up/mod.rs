//! `up`: the whole system on this machine, from one command: a control plane, two sample services that register with it,
//! and a gateway that follows it. Each part is a process of its own (`part`, `parts`), so that it can be killed to see
//! what becomes of the others; one that dies is named with its log and started again.
//!
//! Everything that is started here ends here, in the order in which nobody notices: the gateway first, then what stands
//! behind it. The folder with documents, state and logs is removed.

mod greeting;
mod load;
mod news;
mod part;
pub(crate) mod parts;
mod samples;
mod server;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tollgate_engine::process::{Request as Told, Signals, exit};

use crate::client::Admin;
use crate::table::print;
use greeting::{Places, greeting};
use news::News;
use part::Part;

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
        lived = system.live(arguments.load, &stopping) => lived,
        () = told_to_stop(&mut signals) => Ok(()),
    };
    stopping.store(true, Ordering::Release);
    let code = system.stop(&mut signals).await;
    remove(folder)?;
    lived?;
    print("nothing is left behind\n");
    Ok(code)
}

async fn told_to_stop(signals: &mut Signals) {
    while signals.next().await != Told::Stop {}
}

/// The parts that run, and where.
struct System<'a> {
    folder: &'a Path,
    listen: SocketAddr,
    admin: SocketAddr,
    control: SocketAddr,
    catalog: SocketAddr,
    orders: SocketAddr,
    /// Somebody asked for a free port.
    any_port: bool,
    /// In the order in which they were started.
    parts: Vec<Part>,
}

impl<'a> System<'a> {
    fn new(folder: &'a Path, arguments: &Arguments) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        System {
            folder,
            listen: arguments.listen,
            admin: arguments.admin,
            control: arguments.control,
            catalog: any,
            orders: any,
            any_port: [arguments.listen, arguments.admin, arguments.control]
                .map(|address| address.port())
                .contains(&0),
            parts: Vec::new(),
        }
    }

    /// Starts everything, and looks after it. Ends only when that fails.
    async fn live(&mut self, load: bool, stopping: &Arc<AtomicBool>) -> Result<(), Failure> {
        let began = Instant::now();
        print("starting\n");
        for name in ["control-plane", "samples", "gateway"] {
            let part = self.start(name).await?;
            self.parts.push(part);
        }
        self.ready().await?;
        print(&format!(
            "  all of it is ready after {} ms\n\n",
            began.elapsed().as_millis()
        ));
        let places = Places {
            gateway: format!("http://{}", self.listen),
            admin: format!("http://{}", self.admin),
            control: format!("http://{}", self.control),
        };
        let control = self.parts.iter().find(|part| part.name == "control-plane");
        print(&greeting(&places, self.folder, control.and_then(Part::pid)));
        if load {
            load::start(self.listen.to_string(), stopping.clone())
                .map_err(failed("the load cannot start"))?;
        }
        self.look_after().await
    }

    /// What the part needs to read. Once it is there it belongs to whoever edits it, unless it would take another free
    /// port each time.
    fn write_documents(&self, part: &str) -> io::Result<()> {
        let control = self.control;
        let (name, text) = match part {
            "control-plane" => {
                std::fs::create_dir_all(self.folder.join("fleet"))?;
                let fleet = self.folder.join("fleet/shop.toml");
                if !fleet.exists() {
                    std::fs::write(fleet, include_str!("fleet.toml.in"))?;
                }
                (
                    "control-plane.toml",
                    format!(include_str!("control-plane.toml.in"), control = control),
                )
            }
            "gateway" => {
                let control = format!("http://{control}");
                let (listen, admin) = (self.listen, self.admin);
                (
                    "gateway.toml",
                    format!(
                        include_str!("gateway.toml.in"),
                        listen = listen,
                        admin = admin,
                        control = control
                    ),
                )
            }
            _ => return Ok(()),
        };
        let path = self.folder.join(name);
        match path.exists() && !self.any_port {
            true => Ok(()),
            false => std::fs::write(path, text),
        }
    }

    /// Starts a part, and remembers where it listens: started again, it listens there.
    async fn start(&mut self, name: &'static str) -> Result<Part, Failure> {
        let logs = self.folder.join("log");
        std::fs::create_dir_all(&logs)
            .and_then(|()| self.write_documents(name))
            .map_err(failed("the documents cannot be written"))?;
        let document = |file: &str| self.folder.join(file).display().to_string();
        let arguments = match name {
            "control-plane" => vec![document("control-plane.toml")],
            "gateway" => vec![document("gateway.toml")],
            _ => vec![
                format!("--control=http://{}", self.control),
                format!("--catalog={}", self.catalog),
                format!("--orders={}", self.orders),
            ],
        };
        let part = Part::start(name, &arguments, &logs).await?;
        let place = |key: &str, known: SocketAddr| {
            let said = part.says[key]
                .as_str()
                .and_then(|address| address.parse().ok());
            said.unwrap_or(known)
        };
        self.control = place("control", self.control);
        self.catalog = place("catalog", self.catalog);
        self.orders = place("orders", self.orders);
        self.listen = place("gateway", self.listen);
        self.admin = place("admin", self.admin);
        let places = match name {
            "control-plane" => self.control.to_string(),
            "gateway" => format!("{}, admin {}", self.listen, self.admin),
            _ => format!("catalog {}, orders {}", self.catalog, self.orders),
        };
        print(&format!("  {name:13}  {places}\n"));
        Ok(part)
    }

    /// Waits until the gateway has its routes, and the routes their services.
    async fn ready(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let admin: Admin = self
            .admin
            .to_string()
            .parse()
            .map_err(|why| (why, exit::FAILURE))?;
        while !serves(&admin).await {
            let dead = self.parts.iter_mut();
            for part in dead {
                let soon = tokio::time::timeout(Duration::from_millis(5), part.ended()).await;
                if let Ok(words) = soon {
                    return Err((words, exit::FAILURE));
                }
            }
            if began.elapsed() > READY {
                let logs = self.folder.join("log");
                return Err((
                    format!(
                        "the gateway is not ready after {} s; logs are in {}",
                        READY.as_secs(),
                        logs.display()
                    ),
                    exit::FAILURE,
                ));
            }
        }
        Ok(())
    }

    /// Says what becomes of edits; names each part that dies, and starts it again.
    async fn look_after(&mut self) -> Result<(), Failure> {
        let (mut deaths, mut news) = (0, News::default());
        loop {
            let ended = tokio::select! {
                ended = first_to_end(&mut self.parts) => ended,
                text = news.next(self.control) => {
                    print(&text);
                    continue;
                }
            };
            let (number, words) = ended;
            deaths += 1;
            print(&words);
            if deaths > MOST_DEATHS {
                let words = "parts died too often; everything is stopped";
                return Err((words.to_owned(), exit::FAILURE));
            }
            let name = self.parts[number].name;
            print(&format!("{name} is started again\n"));
            self.parts[number] = self.start(name).await?;
        }
    }

    /// Stops what runs: the gateway drains before anything behind it goes. A second signal stops the waiting.
    async fn stop(&mut self, signals: &mut Signals) -> u8 {
        let mut code = exit::OK;
        if let Some(samples) = self.parts.iter().find(|part| part.name == "samples") {
            samples.tell(Signal::HUP);
        }
        while let Some(part) = self.parts.pop() {
            let (name, log) = (
                part.name,
                self.folder.join("log").join(format!("{}.log", part.name)),
            );
            let status = tokio::select! {
                status = part.stop() => status,
                () = told_to_stop(signals) => None,
            };
            let said = std::fs::read_to_string(log).unwrap_or_default();
            print(&format!(
                "{name}: {}\n",
                said.lines().last().unwrap_or("stopped")
            ));
            let ended = status.and_then(|status| status.code());
            if ended != Some(0) {
                code = ended
                    .and_then(|code| code.try_into().ok())
                    .unwrap_or(exit::CUT);
            }
        }
        code
    }
}

/// Whether the gateway is ready and every upstream has an endpoint that may be asked.
async fn serves(admin: &Admin) -> bool {
    let admin = admin.clone();
    let asked = tokio::task::spawn_blocking(move || admin.ask("GET", "/status", "")).await;
    let Ok(Ok(status)) = asked else {
        return false;
    };
    let upstreams = status["upstreams"].as_array().cloned().unwrap_or_default();
    let full = |upstream: &Value| {
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
