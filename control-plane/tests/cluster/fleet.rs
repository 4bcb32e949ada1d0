//! Three control planes, each a process of its own, over three etcd servers; what a test does to them, and what it asks
//! of whichever of them is there.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tollgate_engine::testing::gateway::Gateway;

use crate::etcd::Servers;
use crate::support::{Caller, PROGRAM, until, wait};

pub(crate) struct Fleet {
    pub(crate) servers: Servers,
    pub(crate) planes: Vec<Plane>,
    folder: tempfile::TempDir,
    more: String,
}

pub(crate) struct Plane {
    pub(crate) node: String,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    pub(crate) stopped: bool,
    /// What it said, to be shown when a test fails.
    words: Arc<Mutex<Vec<String>>>,
}

impl Fleet {
    /// With `more` in the document of each.
    pub(crate) fn start(planes: usize, servers: usize, more: &str) -> Fleet {
        let host = [127, fastrand::u8(1..255), fastrand::u8(1..255), 1];
        let sockets = { 0..planes }.map(|_| TcpListener::bind(SocketAddr::from((host, 0))));
        let sockets: Vec<TcpListener> = sockets.map(|socket| socket.expect("a port")).collect();
        let planes = sockets.iter().enumerate().map(|(number, socket)| Plane {
            node: format!("cp-{number}"),
            address: socket.local_addr().expect("bound"),
            child: None,
            stopped: false,
            words: Arc::default(),
        });
        let planes: Vec<Plane> = planes.collect();
        drop(sockets);
        let mut fleet = Fleet {
            servers: Servers::start(servers),
            folder: tempfile::tempdir().expect("a folder"),
            more: more.to_owned(),
            planes,
        };
        for number in 0..fleet.planes.len() {
            fleet.run(number);
        }
        for number in 0..fleet.planes.len() {
            fleet.ready(number);
        }
        until("a leader that all know", || {
            let leader = fleet.leader();
            let known = |number| {
                leader.is_some()
                    && fleet.about(number)["leader"] == json!(leader.map(|n| &fleet.planes[n].node))
            };
            { 0..fleet.planes.len() }.all(known)
        });
        fleet
    }

    /// Starts one that does not run.
    pub(crate) fn run(&mut self, number: usize) {
        let urls = serde_json::to_string(&self.servers.urls()).expect("JSON");
        let plane = &mut self.planes[number];
        if plane.child.is_some() {
            return;
        }
        let node = &plane.node;
        let text = format!(
            "[server]\nbind = \"{}\"\nstate_dir = \"{node}\"\n\n[store]\nkind = \"etcd\"\nendpoints = {urls}\n\
             node = \"{node}\"\nlease = \"6s\"\n\n{}",
            plane.address, self.more
        );
        let file = self.folder.path().join(format!("{node}.toml"));
        std::fs::write(&file, text).expect("written");
        let mut child = Command::new(PROGRAM)
            .arg("run")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let said = BufReader::new(child.stderr.take().expect("piped"));
        let words = plane.words.clone();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                words.lock().expect("not poisoned").push(line);
            }
        });
        plane.child = Some(child);
    }

    /// Waits until it serves.
    pub(crate) fn ready(&self, number: usize) {
        let plane = &self.planes[number];
        until("a control plane to serve", || {
            std::net::TcpStream::connect(plane.address).is_ok()
        });
    }

    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.planes[number].child.take() {
            let _ended_already = child.kill();
            let _reaped = child.wait();
        }
        self.planes[number].stopped = false;
    }

    pub(crate) fn signal(&mut self, number: usize, signal: Signal) {
        let plane = &mut self.planes[number];
        if let Some(child) = &plane.child {
            kill_process(Pid::from_child(child), signal).expect("it lives");
            plane.stopped = signal == Signal::STOP;
        }
    }

    pub(crate) fn is_there(&self, number: usize) -> bool {
        self.planes[number].child.is_some() && !self.planes[number].stopped
    }

    /// Those that run and are not stopped.
    pub(crate) fn there(&self) -> Vec<usize> {
        { 0..self.planes.len() }
            .filter(|number| self.is_there(*number))
            .collect()
    }

    pub(crate) fn caller(&self, number: usize) -> Caller {
        Caller::to(self.planes[number].address)
    }

    /// `GET /cluster`.
    pub(crate) fn about(&self, number: usize) -> Value {
        self.caller(number).json("GET /cluster", "", 200)
    }

    /// Who says that it leads.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |number: &usize| self.about(*number)["leads"] == true;
        self.there().into_iter().find(leads)
    }

    #[track_caller]
    pub(crate) fn until_led(&self) -> usize {
        let mut found = None;
        until("a leader", || {
            found = self.leader();
            found.is_some()
        });
        found.expect("a leader")
    }

    pub(crate) fn follower(&self) -> usize {
        let leader = self.until_led();
        let mut there = self.there().into_iter();
        there.find(|number| *number != leader).expect("another")
    }

    /// Asks one after the other of those that are there, until one does it. What was answered with doubt is asked again:
    /// everything that tests ask is the same twice.
    #[track_caller]
    pub(crate) fn ask(&self, line: &str, body: &str) -> (u16, Value) {
        let mut answer = None;
        until(line, || {
            for number in self.there() {
                let response = self.caller(number).ask(line, body);
                if response.status != 503 {
                    let value = serde_json::from_slice(&response.body).unwrap_or_default();
                    answer = Some((response.status, value));
                    return true;
                }
            }
            false
        });
        answer.expect("answered")
    }

    /// Asks this one until somebody leads: it says 503 where the leader was not heard of for a while, as on a machine that
    /// stood still. Everything that tests ask is the same twice.
    #[track_caller]
    pub(crate) fn done(&self, number: usize, line: &str, body: &str, status: u16) -> Value {
        let look = || {
            let response = self.caller(number).ask(line, body);
            (response.status, response.text())
        };
        let (told, text) = wait(line, look, |(status, _)| *status != 503);
        assert_eq!(told, status, "{line}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Ids of a service at one of them.
    pub(crate) fn ids(&self, number: usize, service: &str) -> Vec<String> {
        let mut ids = self.caller(number).ids(&format!("/services/{service}"));
        ids.sort_unstable();
        ids
    }

    /// A gateway that knows all of them, this one first.
    pub(crate) fn gateway(&self, first: usize, node: &str) -> Gateway {
        let count = self.planes.len();
        let urls = { 0..count }.map(|turn| self.planes[(first + turn) % count].address);
        let urls: Vec<String> = urls
            .map(|address| format!("\"http://{address}\""))
            .collect();
        Gateway::start(&format!(
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[server]\nworkers = 1\ndrain = \"2s\"\n\n\
             [control_plane]\nurls = [{}]\nnode = \"{node}\"\n",
            urls.join(", ")
        ))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for number in 0..self.planes.len() {
            self.kill(number);
            if std::thread::panicking() {
                let plane = &self.planes[number];
                let words = plane.words.lock().expect("not poisoned");
                let last = words.iter().rev().take(30).rev();
                println!("== {}", plane.node);
                last.for_each(|line| println!("{line}"));
            }
        }
    }
}

pub(crate) fn answering(name: &str, body: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n\n"
    )
}

pub(crate) fn document(name: &str, text: &str) -> String {
    json!({ "documents": { name: text }, "by": "test" }).to_string()
}

pub(crate) fn instance(id: &str, address: SocketAddr) -> String {
    json!({ "id": id, "name": "orders", "address": address.to_string() }).to_string()
}
