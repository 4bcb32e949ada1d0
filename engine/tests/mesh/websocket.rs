//! WebSockets from member to member: by extended CONNECT (RFC 8441) where members speak HTTP/2, which they do, and by an
//! HTTP/1 connection where either will do (MESH-102, HI-61).
//!
//! The way is as long as it gets: a gateway, and two data planes behind it that each pass on what comes.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Request};
use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client::{self, poll_until};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::members::Members;
use tollgate_engine::testing::upstream::{Conn, Upstream};

use super::{callee, callee_document, caller, until};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Protocol: chat\r\n\r\n";
/// What RFC 6455 says to that key, in section 1.3.
const PROOF: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// `Hello` as a client and as a server says it, of section 5.7.
const HELLO: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const HELLO_BACK: &[u8] = b"\x81\x05Hello";
/// A close frame of a client and a server's answer to it.
const CLOSE: &[u8] = b"\x88\x80\x00\x00\x00\x00";
const CLOSE_BACK: &[u8] = b"\x88\x00";

/// Takes the upgrade; anything else is answered.
fn accept(conn: &mut Conn) -> bool {
    while let Some(request) = conn.read_request() {
        if request.header("upgrade").is_some() {
            return conn.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: of-the-last-hop\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            );
        }
        conn.respond("200 OK", &[], "a page");
    }
    false
}

/// A server of WebSockets that answers one `Hello` after the other, and a close.
fn chat() -> Upstream {
    Upstream::http1(|conn| {
        if !accept(conn) {
            return;
        }
        while let Some(frame) = conn.read_exact(CLOSE.len()) {
            if frame == CLOSE {
                conn.send(CLOSE_BACK);
                return;
            }
            let rest = conn.read_exact(HELLO.len() - frame.len());
            let whole = [frame, rest.unwrap_or_default()].concat();
            assert_eq!(whole, HELLO);
            conn.send(HELLO_BACK);
        }
    })
}

/// The gateway, and behind it the data planes of `web` and `orders`, before an application.
struct Way {
    gateway: Gateway,
    web: Gateway,
    orders: Gateway,
    members: Members,
}

impl Way {
    fn to(app: SocketAddr, protocol: &str) -> Way {
        let members = Members::new();
        let orders = callee(&members, "orders", "strict", app);
        let at = orders.address();
        let web = members.folder_for("web").section("web");
        let web = callee_document(&web, "strict", at, protocol);
        let web = Gateway::start(&format!("{web}mesh = \"orders\"\n"));
        let gateway = caller(&members, "gateway", "web", web.address(), protocol);
        Way {
            gateway,
            web,
            orders,
            members,
        }
    }

    fn open(&self) -> Client {
        let mut client = self.gateway.client();
        client.send(UPGRADE);
        let response = client.read_response();
        assert_eq!(response.status, 101, "{response:?}");
        client
    }
}

fn says_hello(client: &mut Client) {
    client.send(HELLO);
    assert_eq!(client.read_exact(HELLO_BACK.len()), HELLO_BACK);
}

#[test]
fn a_websocket_passes_a_gateway_and_two_members_and_the_application_sees_one_mesh_102() {
    for protocol in ["http2", "auto"] {
        let app = chat();
        let way = Way::to(app.address(), protocol);
        assert_eq!(way.gateway.get("/page").status, 200);
        let mut client = way.gateway.client();
        client.send(UPGRADE);
        let response = client.read_response();
        assert_eq!(response.status, 101, "{protocol}: {response:?}");
        assert_eq!(response.header("upgrade"), Some("websocket"));
        if protocol == "http2" {
            assert_eq!(response.all("sec-websocket-accept"), [PROOF]);
        }
        assert_eq!(response.header("sec-websocket-protocol"), Some("chat"));
        says_hello(&mut client);
        // Requests share the connections of members with it.
        assert_eq!(way.gateway.get("/page").status, 200);
        says_hello(&mut client);
        client.send(CLOSE);
        assert_eq!(client.drain(), (CLOSE_BACK.to_vec(), Ended::Closed));

        let requests = app.requests();
        let request = { requests.iter() }.find(|request| request.target() == "/chat");
        let request = request.expect("it arrived");
        assert_eq!(request.method(), "GET");
        assert!(
            { request.header("upgrade") }
                .is_some_and(|word| word.eq_ignore_ascii_case("websocket")),
            "{request:?}"
        );
        assert_eq!(request.header("sec-websocket-version"), Some("13"));
        assert_eq!(request.header("sec-websocket-protocol"), Some("chat"));
        let key = request.all("sec-websocket-key");
        assert!(matches!(key[..], [key] if key.len() == 24), "{key:?}");
        assert_eq!(
            request.all("x-forwarded-client-cert"),
            [format!("URI={}", way.members.id("web"))]
        );
    }
}

#[test]
fn a_client_of_http_2_opens_one_by_extended_connect_mesh_102() {
    let app = chat();
    let way = Way::to(app.address(), "http2");
    h2_client::run(async {
        let mut sender = h2_client::connect(way.gateway.address()).await;
        poll_until(|| sender.is_extended_connect_protocol_enabled()).await;
        let asked = Request::builder().method(Method::CONNECT);
        let mut asked = asked.uri("http://a/chat").body(()).expect("a request");
        let websocket = Protocol::from_static("websocket");
        asked.extensions_mut().insert(websocket);
        let (response, mut send) = sender.send_request(asked, false).expect("sent");
        let response = response.await.expect("a head");
        assert_eq!(response.status(), 200);
        for name in ["sec-websocket-accept", "upgrade", "connection"] {
            assert!(!response.headers().contains_key(name), "{response:?}");
        }
        let mut body = response.into_body();
        for (frame, answer) in [(HELLO, HELLO_BACK), (CLOSE, CLOSE_BACK)] {
            { send.send_data(Bytes::from_static(frame), false) }.expect("sent");
            let mut heard = Vec::new();
            while heard.len() < answer.len() {
                let piece = h2_client::piece(&mut body).await.expect("more");
                heard.extend(piece.expect("no error"));
            }
            assert_eq!(heard, answer);
        }
    });
}

#[test]
fn either_end_may_be_torn_out_and_the_other_hears_of_it_at_once_hi_61() {
    let app = chat();
    let way = Way::to(app.address(), "http2");
    let mut client = way.open();
    says_hello(&mut client);
    client.reset();
    app.wait("the tunnel's end", |journal| journal.ended == 1);

    let app = Upstream::http1(|conn| {
        if accept(conn) {
            conn.read_exact(HELLO.len());
            conn.reset();
        }
    });
    let way = Way::to(app.address(), "http2");
    let mut client = way.open();
    client.send(HELLO);
    let (rest, ended) = client.drain();
    assert!(rest.is_empty() && ended != Ended::Silent, "{ended:?}");
}

#[test]
fn a_half_close_passes_all_members_and_the_other_direction_goes_on_hi_61() {
    let app = Upstream::http1(|conn| {
        if accept(conn) {
            conn.wait_closed();
            conn.send(HELLO_BACK);
        }
    });
    let way = Way::to(app.address(), "http2");
    let mut client = way.open();
    client.finish();
    assert_eq!(client.drain(), (HELLO_BACK.to_vec(), Ended::Closed));
}

#[test]
fn a_member_that_stops_cuts_what_does_not_end_and_the_client_hears_of_it_mesh_107() {
    let app = chat();
    let Way {
        gateway,
        web,
        orders,
        members: _members,
    } = Way::to(app.address(), "http2");
    let mut client = gateway.client();
    client.send(UPGRADE);
    assert_eq!(client.read_response().status, 101);
    says_hello(&mut client);
    let report = orders.stop();
    assert_eq!(report.cut, 1, "{report:?}");
    let (rest, ended) = client.drain();
    assert!(rest.is_empty() && ended != Ended::Silent, "{ended:?}");
    // Nobody in between holds anything of it.
    for between in [gateway, web] {
        let report = between.stop();
        assert_eq!(report.cut, 0, "{report:?}");
    }
}

#[test]
fn an_application_that_does_not_switch_is_heard_out_mesh_102() {
    let app = Upstream::http1(|conn| {
        while let Some(request) = conn.read_request() {
            let status = match request.target() {
                "/chat" => "403 Forbidden",
                _ => "200 OK",
            };
            conn.respond(status, &["X-Why: not-here"], "no chat");
        }
    });
    let way = Way::to(app.address(), "http2");
    let mut client = way.gateway.client();
    client.send(UPGRADE);
    let response = client.read_response();
    assert_eq!((response.status, &*response.text()), (403, "no chat"));
    assert_eq!(response.header("x-why"), Some("not-here"));
    // In HTTP/2, a page that is fine could not be told from an agreement.
    client.send(UPGRADE.replace("/chat", "/page"));
    let response = client.read_response();
    assert_eq!(
        (response.status, &*response.code()),
        (400, "upgrade_refused")
    );
    assert_eq!(client.get("/").status, 200, "the connection goes on");
}

#[test]
fn an_endpoint_that_does_not_offer_it_is_not_asked() {
    let app = Http2Upstream::without_upgrades();
    let gateway = Gateway::start(&document(app.address(), "", "", "protocol = \"http2\""));
    let mut client = gateway.client();
    client.send(UPGRADE);
    let response = client.read_response();
    assert_eq!(
        (response.status, &*response.code()),
        (400, "upgrade_refused")
    );
    assert!(app.requests().is_empty(), "nothing of it reaches it");
}

#[test]
fn rules_of_access_meet_the_upgrade_as_the_get_that_it_is_mesh_402() {
    const RULE: &str = "\n[[access]]\nname = \"chats\"\nfrom = [\"web\"]\nto = \"orders\"\nmethods = [\"GET\"]\npath = \"/chat\"\n";
    let app = chat();
    let members = Members::new();
    let identity = members.folder_for("orders").section("orders");
    let text = callee_document(&identity, "strict", app.address(), "http1");
    let text = text.replace("retry =", "filters = [{ access = \"enforce\" }]\nretry =");
    let orders = Gateway::start(&(text + RULE));
    let web = caller(&members, "web", "orders", orders.address(), "http2");
    let mut client = web.client();
    client.send(UPGRADE.replace("/chat", "/elsewhere"));
    assert_eq!(client.read_response().status, 403);
    client.send(UPGRADE);
    assert_eq!(client.read_response().status, 101);
    says_hello(&mut client);

    let other = caller(&members, "users", "orders", orders.address(), "http2");
    let mut client = other.client();
    client.send(UPGRADE);
    assert_eq!(client.read_response().status, 403);
    until("both refusals", || {
        let page = orders.metrics();
        let counted =
            |line: &str| line.starts_with("access_refused_total{") && line.ends_with(" 1");
        page.lines().filter(|line| counted(line)).count() == 2
    });
}
