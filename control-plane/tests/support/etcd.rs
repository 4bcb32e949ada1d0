//! Real etcd servers on loopback, as many as a test wants, with folders that go with them. Whoever wants them asks
//! [`missing`] first.
#![allow(dead_code, unreachable_pub)] // every test uses a part of it

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The one hard limit.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says so where etcd is not on this machine.
pub fn missing() -> bool {
    let there = Command::new("etcd")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let missing = there.is_err();
    if missing {
        println!("skipped: etcd is not on this machine");
    }
    missing
}

/// A cluster. Its servers are killed when it is dropped.
pub struct Servers {
    nodes: Vec<Node>,
    folder: tempfile::TempDir,
    initial: String,
    more: Vec<String>,
    scheme: &'static str,
}

struct Node {
    child: Option<Child>,
    client: String,
    peer: String,
}

impl Servers {
    pub fn start(count: usize) -> Servers {
        Servers::with(count, "http", &[])
    }

    /// With more arguments; `scheme` is that of the clients' URLs.
    pub fn with(count: usize, scheme: &'static str, more: &[String]) -> Servers {
        // Nobody else listens on an address of loopback that was made up just now.
        let part = || fastrand::u8(1..255);
        let host = format!("127.{}.{}.{}", part(), part(), part());
        let sockets: Vec<TcpListener> = { 0..2 * count }
            .map(|_| TcpListener::bind((host.as_str(), 0)).expect("a port"))
            .collect();
        let port = |at: usize| sockets[at].local_addr().expect("bound").to_string();
        let nodes: Vec<Node> = { 0..count }
            .map(|number| Node {
                child: None,
                client: port(number),
                peer: port(count + number),
            })
            .collect();
        drop(sockets);
        let peers = nodes.iter().enumerate();
        let initial: Vec<String> = peers
            .map(|(number, node)| format!("n{number}=http://{}", node.peer))
            .collect();
        let mut servers = Servers {
            nodes,
            folder: tempfile::tempdir().expect("a folder"),
            initial: initial.join(","),
            more: more.to_vec(),
            scheme,
        };
        for number in 0..count {
            servers.run(number);
        }
        for number in 0..count {
            servers.wait_for(number);
        }
        servers
    }

    pub fn urls(&self) -> Vec<String> {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| format!("{}://{}", self.scheme, node.client))
            .collect()
    }

    /// Starts a server that does not run; it has what it had.
    pub fn run(&mut self, number: usize) {
        let node = &self.nodes[number];
        if node.child.is_some() {
            return;
        }
        let name = format!("n{number}");
        let log = self.folder.path().join(format!("{name}.log"));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name, "--data-dir"])
            .arg(self.folder.path().join(&name))
            .args([
                "--listen-client-urls",
                &format!("{}://{}", self.scheme, node.client),
            ])
            .args([
                "--advertise-client-urls",
                &format!("{}://{}", self.scheme, node.client),
            ])
            .args(["--listen-peer-urls", &format!("http://{}", node.peer)])
            .args([
                "--initial-advertise-peer-urls",
                &format!("http://{}", node.peer),
            ])
            .args([
                "--initial-cluster",
                &self.initial,
                "--initial-cluster-state",
                "new",
            ])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        self.nodes[number].child = Some(command.spawn().expect("etcd starts"));
    }

    /// Waits until a server listens.
    pub fn wait_for(&mut self, number: usize) {
        let began = Instant::now();
        while TcpStream::connect(&self.nodes[number].client).is_err() {
            let ended = self.nodes[number]
                .child
                .as_mut()
                .and_then(|c| c.try_wait().expect("a child"));
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "etcd does not serve: {}",
                self.log(number)
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.nodes[number].child.take() {
            let _ended_already = child.kill();
            let _reaped = child.wait();
        }
    }

    pub fn signal(&self, number: usize, signal: Signal) {
        if let Some(child) = &self.nodes[number].child {
            kill_process(Pid::from_child(child), signal).expect("it lives");
        }
    }

    pub fn runs(&self, number: usize) -> bool {
        self.nodes[number].child.is_some()
    }

    fn log(&self, number: usize) -> String {
        let mut text = String::new();
        let file = std::fs::File::open(self.folder.path().join(format!("n{number}.log")));
        if let Ok(mut file) = file {
            let _partial = file.read_to_string(&mut text);
        }
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.join("\n")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for number in 0..self.nodes.len() {
            self.kill(number);
        }
    }
}
