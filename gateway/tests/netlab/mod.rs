//! A bad network: a hub and three spokes in network namespaces of their own, joined by wires that lose and delay
//! (`wire.py`, which is run for as long as the value lives and takes everything with it).
//!
//! Threads enter a namespace and stay there, and so do the threads and processes that they start. The namespace of the
//! test's own threads is never left.

// The tests of the control plane use it, too, for which the script is named by way of this package.
#![allow(dead_code, unreachable_pub)] // every test file uses a part of it

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const SPOKES: usize = 3;

pub struct Network {
    program: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    /// The hub's, then each spoke's.
    namespaces: Vec<File>,
}

impl Network {
    /// `Err` says what is missing where none can be made.
    pub fn begin() -> Result<Network, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may make network namespaces".to_owned());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Err("there is no /dev/net/tun".to_owned());
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/netlab/wire.py");
        let mut program = Command::new("python3")
            .arg(script)
            .arg(SPOKES.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let input = program.stdin.take().expect("piped");
        let mut output = BufReader::new(program.stdout.take().expect("piped"));
        let mut line = String::new();
        let read = output.read_line(&mut line);
        let open = |number: &str| File::open(format!("/proc/{}/fd/{number}", program.id()));
        let namespaces: Result<Vec<File>, _> = line.split_whitespace().map(open).collect();
        match (read, namespaces) {
            (Ok(1..), Ok(namespaces)) if namespaces.len() == SPOKES + 1 => Ok(Network {
                program,
                pipes: Mutex::new((input, output)),
                namespaces,
            }),
            _ => {
                drop(input);
                let mut words = String::new();
                let mut errors = program.stderr.take().expect("piped");
                let _read = errors.read_to_string(&mut words);
                let _ended = program.wait();
                let last = words.lines().last().unwrap_or("no word about why");
                Err(format!("no network namespaces: {last}"))
            }
        }
    }

    /// Moves this thread to the hub, where the gateway and its clients are.
    pub fn enter_hub(&self) {
        self.enter(0);
    }

    /// Moves this thread to a spoke, counted from 1.
    pub fn enter(&self, spoke: usize) {
        let namespace = self.namespaces[spoke].as_fd();
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .expect("who made the namespaces may enter them");
    }

    /// A spoke's address.
    pub fn address(spoke: usize) -> IpAddr {
        let spoke = u8::try_from(spoke).expect("few spokes");
        Ipv4Addr::new(198, 18, spoke, 2).into()
    }

    /// Changes the wire to a spoke; returns once it is in force. The words are those of `wire.py`.
    pub fn change(&self, spoke: usize, words: &str) {
        assert_eq!(self.tell(&format!("{spoke} {words}")), "ok");
    }

    /// How many frames came, and how many of them were lost.
    pub fn frames(&self, spoke: usize) -> (u64, u64) {
        let answer = self.tell(&format!("{spoke} frames"));
        let mut numbers = answer
            .split(' ')
            .map(|word| word.parse().expect("a number"));
        let mut next = || numbers.next().expect("two numbers");
        (next(), next())
    }

    fn tell(&self, order: &str) -> String {
        let mut pipes = self.pipes.lock().expect("nobody panics with it");
        let (input, output) = &mut *pipes;
        writeln!(input, "{order}").expect("it reads until the end");
        let mut line = String::new();
        output.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ended_already = self.program.kill();
        let _reaped = self.program.wait();
    }
}
