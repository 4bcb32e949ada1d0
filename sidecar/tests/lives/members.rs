//! Sidecars as members of a mesh, and one of them killed in the midst of what passes between them (MESH-102, MESH-302): its
//! callers' clients see an end and nothing hangs; what is safe goes elsewhere, and nothing else is sent twice.

use std::net::SocketAddr;

use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::members::Members;
use tollgate_engine::testing::upstream::{Conn, Upstream};

use super::support::{Sidecar, Signal, Site, until};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// A frame of RFC 6455, section 5.7.
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";

/// A folder, and the sidecar that runs from there.
struct Beside {
    sidecar: Sidecar,
    _site: Site,
}

impl Beside {
    fn run(text: &str) -> Beside {
        let nobody = Upstream::nobody();
        let site = Site::new(nobody, "", "");
        site.write(&format!(
            "{text}\n[server]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\n[telemetry]\naccess_log = \"off\"\n"
        ));
        Beside {
            sidecar: site.run(),
            _site: site,
        }
    }

    /// Beside `orders`, which members alone may call.
    fn callee(members: &Members, app: SocketAddr) -> Beside {
        let identity = members.folder_for("orders").section("orders");
        Beside::run(&format!(
            "{identity}[[listener]]\nname = \"inbound\"\nbind = \"127.0.0.1:0\"\nmesh = \"strict\"\n\n\
             [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\ntimeout = \"60s\"\n\n\
             [[upstream]]\nname = \"app\"\nendpoints = [\"{app}\"]\n"
        ))
    }

    /// Beside `web`, which calls `orders` there.
    fn caller(members: &Members, orders: &[SocketAddr]) -> Beside {
        let identity = members.folder_for("web").section("web");
        let orders: Vec<_> = orders.iter().map(|at| format!("\"{at}\"")).collect();
        Beside::run(&format!(
            "{identity}[[listener]]\nname = \"outbound\"\nbind = \"127.0.0.1:0\"\n\n\
             [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"orders\"\ntimeout = \"60s\"\n\n\
             [[upstream]]\nname = \"orders\"\nendpoints = [{}]\nmesh = \"orders\"\nprotocol = \"http2\"\n\
             connect_timeout = \"30s\"\nbalance = \"round_robin\"\n",
            orders.join(", ")
        ))
    }

    fn inbound(&mut self) -> SocketAddr {
        self.sidecar.listener("inbound")
    }

    fn client(&mut self) -> Client {
        Client::connect(self.sidecar.listener("outbound"))
    }
}

/// Switches when asked to, and sends back what comes; answers second tries, and first ones never.
fn app() -> Upstream {
    Upstream::http1(|conn: &mut Conn| {
        while let Some(request) = conn.read_request() {
            if request.header("upgrade").is_some() {
                conn.send(SWITCH);
                while let Some(byte) = conn.read_exact(1) {
                    conn.send(byte);
                }
                return;
            }
            if request.header("x-tollgate-attempt") != Some("2") {
                conn.wait_closed();
                return;
            }
            conn.respond("200 OK", &[], "from the other one");
        }
    })
}

/// Two instances of `orders`, and `web`, which calls them.
struct Three {
    apps: [Upstream; 2],
    peers: [Beside; 2],
    web: Beside,
    _members: Members,
}

impl Three {
    fn new() -> Three {
        let (members, apps) = (Members::new(), [app(), app()]);
        let mut peers =
            [0, 1].map(|number: usize| Beside::callee(&members, apps[number].address()));
        let [one, other] = &mut peers;
        let at = [one.inbound(), other.inbound()];
        Three {
            web: Beside::caller(&members, &at),
            apps,
            peers,
            _members: members,
        }
    }

    /// How many requests each application was sent.
    fn sent(&self) -> [usize; 2] {
        [0, 1].map(|number: usize| self.apps[number].requests().len())
    }

    /// Kills the sidecar of the application that has the one request that was sent.
    fn kill_the_one_that_was_asked(&mut self) -> usize {
        until("the request", || self.sent().iter().sum::<usize>() == 1);
        let asked = usize::from(self.sent()[1] == 1);
        let peer = &mut self.peers[asked].sidecar;
        peer.tell(Signal::KILL);
        peer.ends();
        asked
    }
}

#[test]
fn a_websocket_ends_at_both_ends_when_a_sidecar_in_between_is_killed_and_the_next_opens_elsewhere_mesh_102()
 {
    let mut three = Three::new();
    let mut client = three.web.client();
    client.send(UPGRADE);
    assert_eq!(client.read_response().status, 101);
    client.send(HELLO);
    assert_eq!(client.read_exact(HELLO.len()), HELLO);
    let asked = three.kill_the_one_that_was_asked();
    client.assert_closed();
    three.apps[asked].wait("the application's end", |journal| journal.ended == 1);

    let mut next = three.web.client();
    next.send(UPGRADE);
    assert_eq!(next.read_response().status, 101);
    assert_eq!(three.sent(), [1, 1]);
}

#[test]
fn a_call_whose_peers_sidecar_is_killed_goes_elsewhere_only_if_it_is_safe_gw_504() {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let mut three = Three::new();
        let mut client = three.web.client();
        client.send(format!(
            "{method} /call HTTP/1.1\r\nHost: orders\r\nContent-Length: 0\r\n\r\n"
        ));
        three.kill_the_one_that_was_asked();
        let answer = client.read_response_to(method);
        assert_eq!(answer.status, status, "{method}: {answer:?}");
        let tries = three.sent().iter().sum::<usize>();
        assert_eq!(tries, if status == 200 { 2 } else { 1 }, "{method}");
    }
}
