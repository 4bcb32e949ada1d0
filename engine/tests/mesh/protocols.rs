//! Which protocol members speak with each other where `protocol = "auto"` leaves it to them.

use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::members::Members;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::upstream::pool::FEW;

use super::{callee_document, caller, caller_document};
use tollgate_engine::testing::waiting::until;

/// A callee that logs what it is asked over.
fn logging(members: &Members, app: &Upstream) -> Gateway {
    let identity = members.folder_for("orders").section("orders");
    let document = callee_document(&identity, "strict", app.address(), "http1");
    Gateway::start(&format!(
        "{document}\n[telemetry]\naccess_log = \"access.log\"\n"
    ))
}

fn protocols(lines: &[Value]) -> Vec<&str> {
    { lines.iter() }
        .map(|line| line["protocol"].as_str().expect("a protocol"))
        .collect()
}

#[test]
fn few_requests_at_once_go_over_http1_and_more_over_http2_as_well() {
    let members = Members::new();
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let of_app = gate.clone();
    let app = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            let (open, opened) = &*of_app;
            let open = open.lock().expect("nobody panics");
            drop(
                opened
                    .wait_while(open, |open| !*open)
                    .expect("nobody panics"),
            );
            conn.respond("200 OK", &[], "well");
        }
    });
    let orders = logging(&members, &app);
    let web = caller(&members, "web", "orders", orders.address(), "auto");
    let all = FEW as usize + 3;
    let mut clients = Vec::new();
    for number in 1..=all {
        let mut client = Client::connect(web.address());
        client.send("GET /held HTTP/1.1\r\nHost: orders\r\n\r\n");
        app.wait("the request", |journal| journal.requests.len() == number);
        clients.push(client);
    }
    *gate.0.lock().expect("nobody panics") = true;
    gate.1.notify_all();
    for client in &mut clients {
        assert_eq!(client.read_response().status, 200);
    }
    let lines = orders.wait_lines("access.log", all);
    let over = |name| protocols(&lines).iter().filter(|one| **one == name).count();
    assert_eq!((over("HTTP/1.1"), over("HTTP/2")), (FEW as usize, 3));
    // Alone again, and after a while it is believed.
    let mut count = all;
    until("HTTP/1.1 again", || {
        assert_eq!(clients[0].get("/alone").status, 200);
        count += 1;
        protocols(&orders.wait_lines("access.log", count))[count - 1] == "HTTP/1.1"
    });
}

#[test]
fn what_came_over_http2_goes_over_http2_also_alone() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = logging(&members, &app);
    let web = caller(&members, "web", "orders", orders.address(), "auto");
    // An idle connection of the other kind is there, and is not taken.
    assert_eq!(web.get("/first").status, 200);
    h2_client::run(async {
        let sender = h2_client::connect(web.address()).await;
        let answer = h2_client::get(&sender, "/second").await;
        assert_eq!(answer.expect("an answer").status, 200);
    });
    let lines = orders.wait_lines("access.log", 2);
    assert_eq!(protocols(&lines), ["HTTP/1.1", "HTTP/2"]);
}

/// What HTTP/1.1 has taken, and whether, nobody can say when its connection ends.
#[test]
fn what_may_not_be_sent_twice_goes_over_http2_also_alone() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = logging(&members, &app);
    let web = caller(&members, "web", "orders", orders.address(), "auto");
    assert_eq!(web.get("/first").status, 200);
    let mut client = Client::connect(web.address());
    client.send("POST /second HTTP/1.1\r\nHost: orders\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.read_response().status, 200);
    let lines = orders.wait_lines("access.log", 2);
    assert_eq!(protocols(&lines), ["HTTP/1.1", "HTTP/2"]);
}

#[test]
fn a_page_is_probed_where_an_endpoint_would_rather_speak_http2() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = logging(&members, &app);
    let identity = members.folder_for("web").section("web");
    let document = caller_document(&identity, "orders", orders.address(), "auto");
    let probing = "health = { path = \"/well\", interval = \"2s\" }\n";
    let _web = Gateway::start(&format!("{document}{probing}"));
    app.wait("a probe", |journal| !journal.requests.is_empty());
    let lines = orders.wait_lines("access.log", 1);
    assert_eq!(lines[0]["path"], "/well");
    assert_eq!(protocols(&lines[..1]), ["HTTP/1.1"]);
}

#[test]
fn a_connection_that_becomes_another_protocol_crosses_the_mesh() {
    let members = Members::new();
    let app = Upstream::http1(|conn| {
        conn.read_request();
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        let asked = conn.read_exact(4).expect("it goes on");
        conn.send(asked);
    });
    let orders = logging(&members, &app);
    let web = caller(&members, "web", "orders", orders.address(), "auto");
    let mut client = Client::connect(web.address());
    client.send(
        "GET /chat HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_eq!(client.read_head().status, 101);
    client.send("ping");
    assert_eq!(client.read_exact(4), b"ping");
}
