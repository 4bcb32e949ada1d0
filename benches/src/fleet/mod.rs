//! How fast a data plane follows whoever configures it: from the moment at which something is changed to the answer that
//! shows it, with load beside it that may not fail. `ours` is a control plane and a gateway that follows it; `envoy` is
//! Envoy told the same through files, its own way to be configured without a server of somebody else's.

mod caller;
mod envoy;
mod instance;
mod listeners;
mod ours;

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use caller::Load;
use instance::Instance;
use listeners::listeners;

pub(crate) use caller::{Caller, expect};
pub use envoy::envoy;
pub use ours::ours;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub routes: usize,
    /// Routes of one document.
    pub document: usize,
    pub changes: usize,
    pub instances: usize,
    pub listeners: usize,
}

/// A child process; killed when this is dropped.
pub struct Program(Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> io::Result<Program> {
        command.spawn().map(Program)
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A control plane.
pub struct Plane {
    pub program: Program,
    pub address: SocketAddr,
}

impl Plane {
    /// Starts it with these settings beside its address and state, which are in the folder.
    pub fn start(program: &Path, folder: &Path, settings: &str) -> io::Result<Plane> {
        let document = folder.join("control-plane.toml");
        let server = "server = { bind = \"127.0.0.1:0\", state_dir = \"state\" }";
        std::fs::write(&document, format!("{server}\n{settings}"))?;
        let mut command = Command::new(program);
        let mut child = command
            .arg("run")
            .arg(&document)
            .stderr(Stdio::piped())
            .spawn()?;
        let words = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let program = Program(child);
        let mut words = BufReader::new(words);
        let (mut line, mut said) = (String::new(), String::new());
        // What it has to say of its keys comes before.
        let address = loop {
            line.clear();
            if words.read_line(&mut line)? == 0 {
                return Err(io::Error::other(format!(
                    "the control plane does not start: {said}"
                )));
            }
            said.push_str(&line);
            let serving = line.strip_prefix("serving on http://");
            if let Some(address) = serving.and_then(|rest| rest.split(' ').next()?.parse().ok()) {
                break address;
            }
        };
        std::thread::spawn(move || io::copy(&mut words, &mut io::sink()));
        Ok(Plane { program, address })
    }
}

/// Somebody who can be told of changes, and whose answers show them.
trait Follower {
    /// One route, in the middle of this document, answers with this number from now on.
    fn change(&mut self, size: Size, document: usize, number: usize) -> io::Result<()>;
    /// An instance of `orders` is there beside the one that stays.
    fn add(&mut self, comes: SocketAddr) -> io::Result<()>;
    fn remove(&mut self) -> io::Result<()>;
}

/// The body that shows that a route has changed: of every document the same route.
const CHANGING: usize = 7;

/// One route after the other, twenty in a second.
fn changes(of: &mut impl Follower, at: SocketAddr, size: Size) -> io::Result<()> {
    let mut client = Caller::to(at)?;
    let load = Load::on(at, "/r1")?;
    let documents = size.routes / size.document;
    let mut spans = Vec::new();
    for number in 1..=size.changes {
        let document = number % documents;
        let target = format!("/r{}", document * size.document + CHANGING);
        let began = Instant::now();
        of.change(size, document, number)?;
        let wanted = number.to_string();
        while client.ask("GET", &target, "")?.1 != wanted {}
        spans.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(50).saturating_sub(began.elapsed()));
    }
    load.end()?;
    show("one of the routes changed -> served", spans);
    Ok(())
}

/// An instance comes and leaves, again and again, beside one that stays and is told of by the caller.
fn instances(of: &mut impl Follower, at: SocketAddr, size: Size) -> io::Result<()> {
    let comes = Instance::start("comes")?;
    let mut client = caller::wait_for(at, "/orders")?;
    let load = Load::on(at, "/orders")?;
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    for _ in 0..size.instances {
        let began = Instant::now();
        of.add(comes.address)?;
        while client.ask("GET", "/orders", "")?.1 != "comes" {}
        joined.push(began.elapsed());
        let began = Instant::now();
        of.remove()?;
        // For twice as long as it may take, somebody could still ask it.
        std::thread::sleep(Duration::from_millis(100));
        let last = comes.last_asked();
        left.push(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(began)));
    }
    load.end()?;
    show("an instance added -> traffic", joined);
    show("removed -> last request", left);
    Ok(())
}

fn show(what: &str, mut spans: Vec<Duration>) {
    spans.sort_unstable();
    let at =
        |share: usize| spans.get((spans.len() * share / 100).min(spans.len().saturating_sub(1)));
    let (Some(median), Some(late), Some(most)) = (at(50), at(99), spans.last()) else {
        return;
    };
    println!(
        "{what}: median {median:.2?}, p99 {late:.2?}, most {most:.2?} of {}",
        spans.len()
    );
}
