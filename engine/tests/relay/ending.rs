//! How relays end that nobody ends, and what is written down about all of them.

use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{LOGGED, assert_broken, document, echo, lines, metric, named, until};

#[test]
fn mesh_102_one_line_tells_of_a_connection_when_it_is_over() {
    let upstream = named("hello");
    let gateway = Gateway::start(&(document(&[upstream.address()], "", "") + LOGGED));
    let mut client = gateway.client();
    let address = client.local_address();
    client.read_exact(5);
    client.send("abc");
    client.read_exact(3);
    assert_eq!(metric(&gateway, "relay_connections{listener=\"in\"}"), 1);
    client.finish();
    client.assert_closed();
    let line = &lines(&gateway, 1)[0];
    assert_eq!(line["message"], "connection", "{line}");
    assert_eq!(line["end"], "finished", "{line}");
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&3.into(), &8.into()),
        "{line}"
    );
    assert_eq!(line["client"], address.ip().to_string(), "{line}");
    assert_eq!(line["upstream"], "app", "{line}");
    assert_eq!(line["endpoint"], upstream.address().to_string(), "{line}");
    assert_eq!(line["listener"], "in", "{line}");
    assert_eq!(line["attempts"], 1, "{line}");
    assert_eq!(line["generation"], 1, "{line}");
    assert!(
        line.get("error").is_none() && line.get("method").is_none(),
        "{line}"
    );
    assert_eq!(metric(&gateway, "relay_connections{listener=\"in\"}"), 0);
    for (sample, count) in [
        (
            "relay_connections_total{listener=\"in\",end=\"finished\"}",
            1,
        ),
        ("relay_bytes_total{listener=\"in\",direction=\"in\"}", 3),
        ("relay_bytes_total{listener=\"in\",direction=\"out\"}", 8),
    ] {
        assert_eq!(metric(&gateway, sample), count, "{sample}");
    }
    let page = gateway.metrics();
    assert!(
        !page.contains("http_requests_total{"),
        "no request was made: {page}"
    );
}

#[test]
fn mesh_102_bytes_are_counted_while_they_go_by() {
    let upstream = named("");
    let gateway = Gateway::start(&document(&[upstream.address()], "", ""));
    let mut client = gateway.client();
    client.send([1; 1000]);
    client.read_exact(1000);
    until("they are counted", || {
        metric(
            &gateway,
            "relay_bytes_total{listener=\"in\",direction=\"out\"}",
        ) == 1000
    });
}

#[test]
fn mesh_102_a_relay_in_which_nothing_moves_ends_after_its_idle_time() {
    let upstream = named("");
    let keys = "relay_idle_timeout = \"50ms\"";
    let gateway = Gateway::start(&(document(&[upstream.address()], keys, "") + LOGGED));
    assert_broken(&gateway);
    assert_eq!(lines(&gateway, 1)[0]["end"], "idle_timeout");
}

#[test]
fn mesh_102_what_broke_off_is_told_by_whom() {
    let upstream = Upstream::http1(|conn| {
        conn.send("x");
        if conn.read_exact(1) == Some(b"r".to_vec()) {
            conn.reset();
        } else {
            conn.wait_closed();
        }
    });
    let gateway = Gateway::start(&(document(&[upstream.address()], "", "") + LOGGED));
    let mut first = gateway.client();
    first.read_exact(1);
    first.send("r");
    first.assert_closed();
    assert_eq!(lines(&gateway, 1)[0]["end"], "upstream_reset");
    let mut second = gateway.client();
    second.read_exact(1);
    second.reset();
    assert_eq!(lines(&gateway, 2)[1]["end"], "client_reset");
}

#[test]
fn mesh_102_a_relay_is_in_flight_while_the_process_drains_and_finishes() {
    let upstream = Upstream::http1(echo);
    let server = "\n[server]\nworkers = 2\ndrain = \"60s\"\n";
    let gateway = Gateway::start(&(document(&[upstream.address()], "", "") + server));
    let address = gateway.address();
    let mut client = gateway.client();
    client.send("a");
    assert_eq!(client.read_exact(1), b"a");
    let stopping = std::thread::spawn(move || gateway.stop());
    until("nothing new is taken", || {
        std::net::TcpStream::connect(address).is_err()
    });
    client.send("b");
    assert_eq!(client.read_exact(1), b"b");
    assert!(!stopping.is_finished());
    client.finish();
    assert_eq!(client.drain(), (Vec::new(), Ended::Closed));
    let report = stopping.join().expect("no panic");
    assert_eq!(report.cut, 0, "{report}");
}

#[test]
fn mesh_102_a_relay_that_does_not_end_is_cut_after_the_drain_and_counted() {
    let upstream = Upstream::http1(echo);
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let more = format!(
        "\n[server]\nworkers = 1\ndrain = \"100ms\"\n[telemetry]\naccess_log = {{ to = {:?} }}\n",
        log.to_str().expect("text")
    );
    let gateway = Gateway::start(&(document(&[upstream.address()], "", "") + &more));
    let mut client = gateway.client();
    client.send("a");
    assert_eq!(client.read_exact(1), b"a");
    let report = gateway.stop();
    assert_eq!(report.cut, 1, "{report}");
    assert_eq!(
        client.drain(),
        (Vec::new(), Ended::Reset),
        "it was not whole"
    );
    until("its line is written", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("\"end\":\"cut\"") && text.contains("\"bytes_in\":1,")
    });
}

#[test]
fn mesh_102_a_running_relay_stays_on_what_it_began_with() {
    let (old, new) = (named("old"), named("new"));
    let gateway = Gateway::start(&document(&[old.address()], "", ""));
    let mut before = gateway.client();
    assert_eq!(before.read_exact(3), b"old");
    let changed = document(&[new.address()], "relay_idle_timeout = \"2h\"", "");
    gateway.edit(&changed).expect("it is valid");
    let mut after = gateway.client();
    assert_eq!(after.read_exact(3), b"new");
    before.send("still here");
    assert_eq!(before.read_exact(10), b"still here");
    before.finish();
    assert_eq!(before.drain(), (Vec::new(), Ended::Closed));
}

#[test]
fn mesh_102_a_listener_may_become_one_for_bytes_and_back() {
    let upstream = Upstream::fixed("http");
    let http = tollgate_engine::testing::gateway::document(upstream.address(), "", "", "");
    let gateway = Gateway::start(&http);
    let mut kept = gateway.client();
    assert_eq!(kept.get("/").text(), "http");
    let bytes = document(&[upstream.address()], "", "");
    gateway.edit(&bytes).expect("it is valid");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "http");
    until("it was relayed", || {
        metric(&gateway, "relay_connections{listener=\"in\"}") == 1
    });
    gateway.edit(&http).expect("it is valid");
    assert_eq!(gateway.get("/").text(), "http");
}
