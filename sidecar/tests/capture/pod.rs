//! A pod with a service and an engine in a network namespace of its own, and somebody else on a wire to it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::time::Instant;

use rustix::process::Uid;
use rustix::thread::set_thread_uid;
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::{Conn, Upstream};

use crate::netlab::Network;

/// The user that the service runs as.
const SERVICE: u32 = 12_345;

/// The engine at both doors. What is not HTTP goes where it was going, and so does HTTP for hosts that nobody knows.
const DOCUMENT: &str = r#"
[[listener]]
name     = "outbound"
bind     = "127.0.0.1:15001"
protocol = "detect"
forward  = "original"
capture  = true
detect_timeout = "SILENCE"

[[listener]]
name     = "outbound6"
bind     = "[::1]:15001"
protocol = "detect"
forward  = "original"
capture  = true
detect_timeout = "SILENCE"

[[listener]]
name     = "inbound"
bind     = "[::]:15006"
protocol = "tcp"
forward  = "original"
capture  = true

[[route]]
name    = "known"
match   = { host = "known.example", path = "/*" }
respond = { status = 200, body = "by its route" }

[[route]]
name     = "elsewhere"
match    = { path = "/*" }
upstream = "original"

[[upstream]]
name      = "original"
endpoints = "original"

[server]
admin = "127.0.0.1:15000"
workers = 2
drain   = "100ms"

[telemetry]
access_log = { to = "access.log" }
"#;

pub(crate) struct Pod {
    network: Network,
    gateway: Option<Gateway>,
}

impl Pod {
    /// `silence`: after so long, a client that says nothing is no HTTP client. `None` where no network can be made, which is
    /// told.
    pub(crate) fn begin(name: &str, silence: &str) -> Option<Pod> {
        let network = match Network::begin() {
            Ok(network) => network,
            Err(why) => {
                let _nobody_reads = writeln!(std::io::stderr(), "skipped: {name}: {why}");
                return None;
            }
        };
        for (place, device, address) in [
            (0, "wire1", "2001:db8::1/64"),
            (1, "wire", "2001:db8::2/64"),
        ] {
            inside(&network, place, || {
                run(
                    "ip",
                    &["-6", "addr", "add", address, "dev", device, "nodad"],
                );
            });
        }
        let document = DOCUMENT.replace("SILENCE", silence);
        let gateway = inside(&network, 0, || Gateway::start(&document));
        Some(Pod {
            network,
            gateway: Some(gateway),
        })
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("there until the end")
    }

    /// Runs this in the pod as the sidecar's own user.
    pub(crate) fn here<T: Send>(&self, part: impl FnOnce() -> T + Send) -> T {
        inside(&self.network, 0, part)
    }

    /// Runs this in the pod as the service would.
    pub(crate) fn as_service<T: Send>(&self, part: impl FnOnce() -> T + Send) -> T {
        self.here(|| {
            set_thread_uid(Uid::from_raw(SERVICE)).expect("root may be anybody");
            part()
        })
    }

    /// Runs this on the other end of the wire.
    pub(crate) fn elsewhere<T: Send>(&self, part: impl FnOnce() -> T + Send) -> T {
        inside(&self.network, 1, part)
    }

    /// Servers on the other end of the wire, for as long as this runs in the pod.
    pub(crate) fn with_servers_elsewhere(
        &self,
        script: fn(&mut Conn),
        part: impl FnOnce([SocketAddr; 2]) + Send,
    ) {
        std::thread::scope(|scope| {
            let (told, servers) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            scope.spawn(move || {
                self.elsewhere(move || {
                    let servers = addresses(2).map(|address| Upstream::http1_on(address, script));
                    let _nobody_waits = told.send(servers.each_ref().map(Upstream::address));
                    let _all_is_over = ended.recv();
                });
            });
            // Dropped also when a check fails, so that the servers end.
            let _end = end;
            let servers = servers.recv().expect("the servers begin");
            self.here(|| part(servers));
        });
    }

    /// Waits until so many lines of the access log say that a connection was going there.
    pub(crate) fn captured(&self, original: SocketAddr, count: usize) {
        let file = self.gateway().folder().join("access.log");
        let wanted = format!("\"original\":\"{original}\"");
        let deadline = Instant::now() + 6 * PATIENCE;
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if text.lines().filter(|line| line.contains(&wanted)).count() == count {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not {count} × {wanted} in\n{text}"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Its end is asked for over its own network.
        let gateway = self.gateway.take();
        inside(&self.network, 0, || drop(gateway));
    }
}

/// Runs this on a thread of a namespace: 0 is the hub.
fn inside<T: Send>(network: &Network, place: usize, part: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            network.enter(place);
            part()
        });
        match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The addresses of the pod (1) and of the other end (2), of either kind.
pub(crate) fn addresses(last: u8) -> [IpAddr; 2] {
    [
        [198, 18, 1, last].into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into(),
    ]
}

/// All rules of this namespace, of both kinds.
pub(crate) fn ruleset() -> String {
    let mut all = run("nft", &["--stateless", "list", "ruleset"]);
    for program in ["iptables", "ip6tables"] {
        all += &run(program, &["-w", "-t", "nat", "-S"]);
    }
    all
}

fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Says who speaks, and sends back what comes.
pub(crate) fn echo(conn: &mut Conn) {
    conn.send("hello");
    while let Some(byte) = conn.read_exact(1) {
        if !conn.send(byte) {
            return;
        }
    }
}

/// Hears `echo` out.
pub(crate) fn talk(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard)?;
    assert_eq!(&heard, b"hello");
    stream.write_all(b"\0abc")?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    assert_eq!(rest, b"\0abc");
    Ok(())
}

/// One request on a connection of its own; the whole answer as text.
pub(crate) fn get(address: SocketAddr, host: &str) -> String {
    let mut stream = connect(address).expect("somebody accepts");
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a proper end");
    answer
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(6 * PATIENCE))?;
    Ok(stream)
}
