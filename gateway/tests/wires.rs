//! Wires that are cut without a word, while what is relayed, a WebSocket or a request is on them (HI-39, HI-61): what heals
//! goes on where it was, and what does not is found by the time-out that is set for it, with nothing held on either side.
//!
//! Nobody closes anything here: no end of a connection passes a cut wire. The network is made of namespaces, for which one
//! must be root; elsewhere these tests say that they are skipped. What the kernel finds by itself where no time-out is set
//! takes two minutes and is not waited for: `engine/src/net/keepalive.rs` shows that every socket asks for it.

mod netlab;
mod support;

use std::net::SocketAddr;

use netlab::Network;
use support::{Process, Site, tell, until};
use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::upstream::{Conn, Upstream};

/// The wire to the upstream, and the one to the client.
const UPSTREAM: usize = 1;
const CLIENT: usize = 2;
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// No machine stands still for so long.
const NEVER: &str = "1h";
/// So short that it passes by itself.
const SOON: &str = "2s";

/// What passes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    WebSocket,
    Bytes,
}

/// An upstream behind one wire, a client behind another, and the gateway between them.
struct Scene<'n> {
    network: &'n Network,
    gateway: Process,
    /// For WebSockets and pages, and for bytes.
    upstreams: Option<[Upstream; 2]>,
    _site: Site,
}

/// Plays it on a thread of the hub, as often as there are kinds.
fn play(name: &str, idle: &str, part: impl Fn(&Scene<'_>, Kind) + Sync) {
    let network = match Network::begin() {
        Ok(network) => network,
        Err(why) => return tell(&format!("skipped: {name}: {why}")),
    };
    inside(&network, 0, || {
        let scene = Scene::new(&network, idle);
        for kind in [Kind::WebSocket, Kind::Bytes] {
            tell(&format!("{name}: {kind:?}"));
            part(&scene, kind);
            for wire in [UPSTREAM, CLIENT] {
                network.change(wire, "cut=0");
            }
        }
    });
}

/// Does this on a thread of this namespace.
fn inside<T: Send>(network: &Network, spoke: usize, part: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            network.enter(spoke);
            part()
        });
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Sends back what comes.
fn echo(conn: &mut Conn) {
    while let Some(byte) = conn.read_exact(1) {
        if !conn.send(byte) {
            return;
        }
    }
}

impl<'n> Scene<'n> {
    fn new(network: &'n Network, idle: &str) -> Scene<'n> {
        let upstreams = inside(network, UPSTREAM, || {
            let chat = Upstream::http1_on(Network::address(UPSTREAM), |conn| {
                while let Some(request) = conn.read_request() {
                    if request.header("upgrade").is_some() {
                        conn.send(SWITCH);
                        return echo(conn);
                    }
                    conn.respond("200 OK", &[], "a page");
                }
            });
            [chat, Upstream::http1_on(Network::address(UPSTREAM), echo)]
        });
        let [chat_at, bytes_at] = [0, 1].map(|number: usize| upstreams[number].address());
        let site = Site::with(&format!(
            "[[listener]]\nname = \"chat\"\nbind = \"198.18.{CLIENT}.1:0\"\n\n\
             [[listener]]\nname = \"bytes\"\nbind = \"198.18.{CLIENT}.1:0\"\nprotocol = \"tcp\"\nforward = \"bytes\"\n\
             relay_idle_timeout = \"{idle}\"\n\n\
             [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"chat\"\nretry = \"off\"\n\
             timeout = \"{idle}\"\nidle_timeout = \"{idle}\"\n\n\
             [[upstream]]\nname = \"chat\"\nendpoints = [\"{chat_at}\"]\nconnect_timeout = \"60s\"\noutlier = \"off\"\n\
             breaker = \"off\"\n\n\
             [[upstream]]\nname = \"bytes\"\nendpoints = [\"{bytes_at}\"]\nconnect_timeout = \"60s\"\noutlier = \"off\"\n\
             breaker = \"off\"\n\n[server]\nworkers = 1\ndrain = \"60s\"\n"
        ));
        Scene {
            network,
            gateway: site.run(),
            upstreams: Some(upstreams),
            _site: site,
        }
    }

    fn upstream(&self, kind: Kind) -> &Upstream {
        let [chat, bytes] = self.upstreams.as_ref().expect("dropped with the scene");
        match kind {
            Kind::WebSocket => chat,
            Kind::Bytes => bytes,
        }
    }

    fn door(&self, kind: Kind) -> SocketAddr {
        self.gateway.listener(match kind {
            Kind::WebSocket => "chat",
            Kind::Bytes => "bytes",
        })
    }

    /// A client behind its wire, through to the upstream.
    fn open(&self, kind: Kind) -> Client {
        let mut client = inside(self.network, CLIENT, || Client::connect(self.door(kind)));
        if let Kind::WebSocket = kind {
            client.send(UPGRADE);
            assert_eq!(client.read_response().status, 101);
        }
        client.send("hello");
        assert_eq!(client.read_exact(5), b"hello");
        client
    }

    /// Cuts a wire; from here on nothing passes.
    fn cut(&self, wire: usize) {
        self.network.change(wire, "cut=1");
    }

    /// Waits until the gateway holds nothing of it.
    fn is_released(&self, kind: Kind) {
        let (name, upstream) = match kind {
            Kind::WebSocket => ("chat", "chat"),
            Kind::Bytes => ("bytes", "bytes"),
        };
        let nothing = [
            format!("listener_connections{{listener=\"{name}\"}} 0"),
            format!("upstream_connections{{upstream=\"{upstream}\",state=\"active\"}} 0"),
        ];
        until("everything to be released", || {
            let page = self.gateway.ask("GET /metrics").text();
            nothing.iter().all(|line| page.lines().any(|l| l == line))
        });
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        // They wake themselves by a connection, which the other side of a wire that was cut may not get for a while.
        let upstreams = self.upstreams.take();
        inside(self.network, UPSTREAM, || drop(upstreams));
    }
}

#[test]
fn hi_39_what_is_on_a_wire_that_heals_goes_on_where_it_was() {
    play("a wire that heals", NEVER, |scene, kind| {
        for wire in [UPSTREAM, CLIENT] {
            let mut client = scene.open(kind);
            scene.cut(wire);
            let (_, lost) = scene.network.frames(wire);
            client.send("meanwhile");
            until("a frame to be lost", || scene.network.frames(wire).1 > lost);
            scene.network.change(wire, "cut=0");
            assert_eq!(client.read_exact(9), b"meanwhile", "{kind:?}, wire {wire}");
            client.finish();
            assert_eq!(client.drain(), (Vec::new(), Ended::Closed));
        }
        scene.is_released(kind);
    });
}

#[test]
fn hi_39_a_client_whose_upstream_vanished_is_let_go_and_nothing_is_held() {
    play(
        "an upstream's wire that does not heal",
        SOON,
        |scene, kind| {
            let mut client = scene.open(kind);
            scene.cut(UPSTREAM);
            client.send("into the void");
            let (heard, ended) = client.drain();
            assert!(
                heard.is_empty() && ended != Ended::Silent,
                "{kind:?}: {ended:?}"
            );
            scene.is_released(kind);
        },
    );
}

#[test]
fn hi_39_an_upstream_whose_client_vanished_is_let_go_and_nothing_is_held() {
    play("a client's wire that does not heal", SOON, |scene, kind| {
        let client = scene.open(kind);
        scene.cut(CLIENT);
        let upstream = scene.upstream(kind);
        upstream.wait("the end", |journal| journal.ended == journal.connections);
        scene.is_released(kind);
        drop(client);
    });
}

#[test]
fn hi_39_a_request_on_a_wire_that_is_cut_is_answered_in_its_time_and_the_next_one_well() {
    play("a request", SOON, |scene, kind| {
        if let Kind::Bytes = kind {
            return;
        }
        let door = scene.door(kind);
        let get = || inside(scene.network, CLIENT, || Client::connect(door).get("/page"));
        until("a connection that is kept", || get().status == 200);
        scene.cut(UPSTREAM);
        let late = get();
        assert_eq!(late.status, 504, "{late:?}");
        scene.network.change(UPSTREAM, "cut=0");
        until("the next request to be served", || get().status == 200);
    });
}
