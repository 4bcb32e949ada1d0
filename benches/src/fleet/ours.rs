//! A control plane, and a gateway that follows it.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use super::caller::{Caller, expect, wait_for};
use super::{CHANGING, Follower, Instance, Plane, Program, Size, changes, instances, listeners};
use crate::process::usage;

const ORDERS: &str = "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\nbalance = \"round_robin\"\n[[route]]\nname = \"orders\"\nmatch = { path = \"/orders\" }\nupstream = \"orders\"\n";

/// Measures everything. `programs`: the folder of both.
pub fn ours(programs: &Path, folder: &Path, size: Size) -> io::Result<()> {
    let plane = Plane::start(&programs.join("tollgate-control-plane"), folder, "")?;
    let mut control = Caller::to(plane.address)?;
    let documents = size.routes / size.document;
    let began = Instant::now();
    for number in 0..documents {
        apply(&mut control, size, number, 0)?;
    }
    let took = began.elapsed();
    println!(
        "{} routes in {documents} documents applied in {took:?}",
        size.routes
    );
    let body = json!({ "documents": { "orders.toml": ORDERS } }).to_string();
    expect(&control.ask("POST", "/apply", &body)?, 200)?;
    let (gateway, at) = gateway(programs, folder, plane.address)?;
    drop(wait_for(at, "/r0")?);
    let resident = usage(&[gateway.id()]).resident >> 20;
    println!("gateway with all routes: {resident} MiB");
    let stays = Instance::start("stays")?;
    let mut told = Told(control);
    told.register("stays", stays.address)?;
    changes(&mut told, at, size)?;
    instances(&mut told, at, size)?;
    listeners(size, &mut told.0, &plane)
}

/// Told over the control plane's API.
struct Told(Caller);

impl Told {
    fn register(&mut self, id: &str, address: SocketAddr) -> io::Result<()> {
        let body = json!({ "id": id, "name": "orders", "address": address.to_string() });
        expect(&self.0.ask("POST", "/register", &body.to_string())?, 201)
    }
}

impl Follower for Told {
    fn change(&mut self, size: Size, document: usize, number: usize) -> io::Result<()> {
        apply(&mut self.0, size, document, number)
    }

    fn add(&mut self, comes: SocketAddr) -> io::Result<()> {
        self.register("comes", comes)
    }

    fn remove(&mut self) -> io::Result<()> {
        expect(&self.0.ask("DELETE", "/services/comes", "")?, 200)
    }
}

fn gateway(programs: &Path, folder: &Path, plane: SocketAddr) -> io::Result<(Program, SocketAddr)> {
    let at = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let document = folder.join("gateway.toml");
    let text = format!(
        "[server]\nadmin = \"off\"\nworkers = 1\n[telemetry]\naccess_log = \"off\"\n[[listener]]\nname = \"in\"\nbind = \"{at}\"\n[control_plane]\nurls = [\"http://{plane}\"]\nnode = \"edge-1\"\n"
    );
    std::fs::write(&document, text)?;
    let child = Command::new(programs.join("tollgate-gateway"))
        .arg("run")
        .arg(&document)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok((Program(child), at))
}

/// A document with all its routes; one of them answers with this number.
pub(super) fn apply(
    control: &mut Caller,
    size: Size,
    document: usize,
    number: usize,
) -> io::Result<()> {
    let mut text = String::new();
    for at in 0..size.document {
        let route = document * size.document + at;
        let body = if at == CHANGING { number } else { 0 };
        writeln!(
            text,
            "[[route]]\nname = \"r{route}\"\nmatch = {{ path = \"/r{route}\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
        )
        .map_err(io::Error::other)?;
    }
    let name = format!("routes/{document}.toml");
    let body = json!({ "documents": { name: text } }).to_string();
    expect(&control.ask("POST", "/apply", &body)?, 200)
}
