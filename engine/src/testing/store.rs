//! A real Redis for tests: a process of its own on a port of its own, without a file, gone with its handle. Where the
//! program is not installed there is none, and a test says that it is skipped.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// A running store; killed when dropped.
pub struct Redis {
    address: SocketAddr,
    arguments: Vec<String>,
    child: Child,
}

impl Redis {
    /// `None`, and a line that says so, where there is no `redis-server`.
    pub fn start(arguments: &[&str]) -> Option<Redis> {
        Redis::start_at(free(), arguments)
    }

    /// The same on an address that is known to be free.
    pub fn start_at(address: SocketAddr, arguments: &[&str]) -> Option<Redis> {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let Ok(child) = spawn(address, &arguments) else {
            eprintln!("skipped: there is no redis-server on this machine");
            return None;
        };
        let mut redis = Redis {
            address,
            arguments,
            child,
        };
        redis.wait();
        Some(redis)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// A new one in its place, which knows nothing.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.address, &self.arguments).expect("it could be started before");
        self.wait();
    }

    /// It is there, and answers nobody.
    pub fn stall(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Answers to commands, one a line, as they come; without a password only.
    pub fn ask(&self, commands: &str) -> String {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let limited = stream.set_read_timeout(Some(PATIENCE));
        limited.expect("a connected socket takes options");
        let commands = format!("{}\r\nQUIT\r\n", commands.replace('\n', "\r\n"));
        stream.write_all(commands.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let sent = kill_process(pid.expect("a child has a number"), signal);
        sent.expect("it is our child");
    }

    fn wait(&mut self) {
        let began = Instant::now();
        // On a port for TLS alone nobody answers in clear text, but somebody listens.
        while TcpStream::connect(self.address).is_err() {
            assert!(began.elapsed() < PATIENCE, "the store does not listen");
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the store ended: {status}");
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(address: SocketAddr, arguments: &[String]) -> std::io::Result<Child> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut command = Command::new("redis-server");
    command.args(["--bind", &host, "--save", "", "--appendonly", "no"]);
    if !arguments.iter().any(|argument| argument == "--tls-port") {
        command.args(["--port", &port]);
    }
    command.args(arguments).current_dir(std::env::temp_dir());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// An address that nobody listens on, and that nobody else is given: it is on a host of loopback of its own. A port of
/// 127.0.0.1 that is free now may be anybody's by the time it is used.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (process, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    assert!(next < 100, "no test program needs so many");
    let [_, _, high, low] = process.to_be_bytes();
    let host = [127, 128 + next as u8, high, low];
    let listener = TcpListener::bind(SocketAddr::from((host, 0))).expect("there is a free port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
}
