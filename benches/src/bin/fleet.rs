//! How fast a fleet follows its control plane: starts both programs with thousands of routes and measures from the
//! request that changes something to the answer that shows it, with load beside it; then how much memory listeners take.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use tollgate_benches::process::usage;

/// A control plane, a gateway that follows it, and many listeners.
#[derive(Parser)]
struct Arguments {
    /// Folder of the programs; this one's by default
    #[arg(long)]
    programs: Option<PathBuf>,
    #[arg(long, default_value_t = 5000)]
    routes: usize,
    /// Routes of one document
    #[arg(long, default_value_t = 100)]
    document: usize,
    #[arg(long, default_value_t = 200)]
    changes: usize,
    #[arg(long, default_value_t = 100)]
    instances: usize,
    #[arg(long, default_value_t = 1000)]
    listeners: usize,
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

/// Killed when this is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let own = std::env::current_exe()?;
    let programs = arguments.programs.clone();
    let programs = programs.unwrap_or_else(|| own.parent().unwrap_or(Path::new(".")).to_owned());
    let (plane, address) = plane(&programs, folder.path())?;
    let mut control = Caller::to(address)?;
    let documents = arguments.routes / arguments.document;
    let began = Instant::now();
    for number in 0..documents {
        apply(&mut control, arguments, number, 0)?;
    }
    println!(
        "{} routes in {documents} documents applied in {:?}",
        arguments.routes,
        began.elapsed()
    );
    let orders = "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\nbalance = \"round_robin\"\n[[route]]\nname = \"orders\"\nmatch = { path = \"/orders\" }\nupstream = \"orders\"\n";
    let body = json!({ "documents": { "orders.toml": orders } }).to_string();
    expect(&control.ask("POST", "/apply", &body)?, 200)?;
    let (gateway, at) = gateway(&programs, folder.path(), address)?;
    let mut client = wait_for(at, "/r0")?;
    println!(
        "gateway with all routes: {} MiB",
        usage(&[gateway.0.id()]).resident >> 20
    );

    let load = Load::on(at, "/r1")?;
    let mut spans = Vec::new();
    for number in 1..=arguments.changes {
        let document = number % documents;
        let target = format!("/r{}", document * arguments.document + 7);
        let began = Instant::now();
        apply(&mut control, arguments, document, number)?;
        let wanted = number.to_string();
        while client.ask("GET", &target, "")?.1 != wanted {}
        spans.push(began.elapsed());
        // 20 changes a second.
        thread::sleep(Duration::from_millis(50).saturating_sub(began.elapsed()));
    }
    load.end()?;
    show("one of the routes changed -> served", spans);

    instances(arguments, &mut control, at)?;
    listeners(arguments, &mut control, address, &plane)
}

fn plane(programs: &Path, folder: &Path) -> io::Result<(Program, SocketAddr)> {
    let document = folder.join("control-plane.toml");
    std::fs::write(
        &document,
        "server = { bind = \"127.0.0.1:0\", state_dir = \"state\" }\n",
    )?;
    let mut child = Command::new(programs.join("tollgate-control-plane"))
        .arg("run")
        .arg(&document)
        .stderr(Stdio::piped())
        .spawn()?;
    let mut words = BufReader::new(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?);
    let program = Program(child);
    let mut line = String::new();
    words.read_line(&mut line)?;
    thread::spawn(move || io::copy(&mut words, &mut io::sink()));
    let address = { line.split("http://").nth(1) }
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .ok_or_else(|| io::Error::other(line.clone()))?;
    Ok((program, address))
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

/// A connection to a gateway that serves this.
fn wait_for(at: SocketAddr, target: &str) -> io::Result<Caller> {
    let began = Instant::now();
    loop {
        if let Ok(mut caller) = Caller::to(at)
            && caller
                .ask("GET", target, "")
                .is_ok_and(|answer| answer.0 == 200)
        {
            return Ok(caller);
        }
        if began.elapsed() > Duration::from_secs(20) {
            return Err(io::Error::other("the gateway does not serve"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A document with all its routes; one of them answers with this number.
fn apply(
    control: &mut Caller,
    arguments: &Arguments,
    document: usize,
    number: usize,
) -> io::Result<()> {
    let mut text = String::new();
    for at in 0..arguments.document {
        let route = document * arguments.document + at;
        let body = if at == 7 { number } else { 0 };
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

/// Instances register and leave one after another beside one that stays.
fn instances(arguments: &Arguments, control: &mut Caller, at: SocketAddr) -> io::Result<()> {
    let (stays, comes) = (Instance::start("stays")?, Instance::start("comes")?);
    let register = |id: &str, instance: &Instance| {
        json!({ "id": id, "name": "orders", "address": instance.address.to_string(), "health": "healthy" }).to_string()
    };
    expect(
        &control.ask("POST", "/register", &register("stays", &stays))?,
        201,
    )?;
    let mut client = wait_for(at, "/orders")?;
    let load = Load::on(at, "/orders")?;
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    for _ in 0..arguments.instances {
        let began = Instant::now();
        expect(
            &control.ask("POST", "/register", &register("comes", &comes))?,
            201,
        )?;
        while client.ask("GET", "/orders", "")?.1 != "comes" {}
        joined.push(began.elapsed());
        let began = Instant::now();
        expect(&control.ask("DELETE", "/services/comes", "")?, 200)?;
        thread::sleep(Duration::from_millis(100));
        let last = *comes.last.lock().unwrap_or_else(PoisonError::into_inner);
        left.push(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(began)));
    }
    load.end()?;
    show("instance registered -> traffic", joined);
    show("deregistered -> last request", left);
    Ok(())
}

/// Those who read, and those who do not.
fn listeners(
    arguments: &Arguments,
    control: &mut Caller,
    plane: SocketAddr,
    program: &Program,
) -> io::Result<()> {
    let resident = || usage(&[program.0.id()]).resident >> 10;
    let before = resident();
    let mut open = Vec::new();
    let began = Instant::now();
    for number in 0..arguments.listeners {
        let mut reader = listen(plane, number)?;
        read_to(&mut reader, "{\"end\"")?;
        open.push(reader);
    }
    let all = open.len();
    println!(
        "{all} listeners told everything in {:?}: {} KiB more ({} KiB each)",
        began.elapsed(),
        resident().saturating_sub(before),
        resident().saturating_sub(before) / all.max(1) as u64
    );
    let began = Instant::now();
    apply(control, arguments, 0, 1_000_000)?;
    for reader in &mut open {
        read_to(reader, "{\"end\"")?;
    }
    println!("a change told to all {all} after {:?}", began.elapsed());
    drop(open);
    thread::sleep(Duration::from_secs(1));
    let before = resident();
    let open: Vec<_> = (0..arguments.listeners)
        .map(|number| listen(plane, number))
        .collect::<Result<_, _>>()?;
    let mut most: u64 = 0;
    for number in 0..100 {
        apply(control, arguments, 0, 2_000_000 + number)?;
        most = most.max(resident());
    }
    println!(
        "{} listeners that read nothing, and 100 changes: {} KiB more at most",
        open.len(),
        most.saturating_sub(before)
    );
    Ok(())
}

fn listen(plane: SocketAddr, number: usize) -> io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(plane)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(
        stream,
        "GET /feed?node=reader-{number} HTTP/1.1\r\nHost: cp\r\n\r\n"
    )?;
    Ok(BufReader::with_capacity(64 << 10, stream))
}

fn read_to(reader: &mut BufReader<TcpStream>, wanted: &str) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.starts_with(wanted) {
            return Ok(());
        }
    }
}

/// Asks all the time; nothing may fail.
struct Load {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<(u64, u64)>>,
}

impl Load {
    fn on(at: SocketAddr, target: &'static str) -> io::Result<Load> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut caller = Caller::to(at)?;
        let thread = thread::spawn(move || {
            let (mut all, mut bad) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                all += 1;
                bad += u64::from(caller.ask("GET", target, "")?.0 != 200);
                thread::sleep(Duration::from_micros(500));
            }
            Ok((all, bad))
        });
        Ok(Load { stop, thread })
    }

    fn end(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self
            .thread
            .join()
            .map_err(|_| io::Error::other("the load died"))?;
        let (all, bad) = ended?;
        println!("load beside it: {all} requests, {bad} failed");
        Ok(())
    }
}

/// An upstream that says its name, and when it was asked last.
struct Instance {
    address: SocketAddr,
    last: Arc<Mutex<Option<Instant>>>,
}

impl Instance {
    fn start(name: &'static str) -> io::Result<Instance> {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let last = Arc::new(Mutex::new(None));
        let asked = last.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = asked.clone();
                thread::spawn(move || -> io::Result<()> {
                    stream.set_nodelay(true)?;
                    let mut reader = BufReader::new(stream);
                    let mut line = String::new();
                    while reader.read_line(&mut line)? > 0 {
                        if line == "\r\n" {
                            ASKED.fetch_add(1, Ordering::Relaxed);
                            *asked.lock().unwrap_or_else(PoisonError::into_inner) =
                                Some(Instant::now());
                            let length = name.len();
                            write!(
                                reader.get_mut(),
                                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}"
                            )?;
                        }
                        line.clear();
                    }
                    Ok(())
                });
            }
        });
        Ok(Instance { address, last })
    }
}

/// One keep-alive connection.
struct Caller(BufReader<TcpStream>);

impl Caller {
    fn to(address: SocketAddr) -> io::Result<Caller> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Caller(BufReader::new(stream)))
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: fleet\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(text.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status"))?;
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

fn expect(answer: &(u16, String), status: u16) -> io::Result<()> {
    match answer.0 == status {
        true => Ok(()),
        false => Err(io::Error::other(format!("{}: {}", answer.0, answer.1))),
    }
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
