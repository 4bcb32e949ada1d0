//! A changed document under traffic: all or nothing, and nobody notices (HI-62, HI-63 in small).
//!
//! What is in flight finishes on what it began with; what comes next meets the new document, on the same connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;

/// Answers with its name; `/slow` only once the gate is open.
fn named(name: &'static str, gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::http1(move |conn| {
        while let Some(request) = conn.read_request() {
            if request.target() == "/slow" {
                gate.wait();
            }
            conn.respond("200 OK", &[], name);
        }
    })
}

/// One route that answers by itself.
fn answering(body: &str) -> String {
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
    )
}

#[test]
fn hi_62_a_bad_document_is_refused_whole_and_the_old_one_serves_on() {
    let good = answering("old");
    let gateway = Gateway::start(&good);
    let new = answering("new");
    let second =
        "\n[[route]]\nname = \"same\"\nmatch = { path = \"/a\" }\nrespond = { status = 200 }\n";
    let bad = [
        ("syntax", format!("{new}\n[[route"), "gateway.toml:"),
        (
            "an unknown key",
            format!("{new}\n[[route]]\nmatch = {{ path = \"/a\" }}\nrespnd = {{ status = 200 }}\n"),
            "respond",
        ),
        (
            "an unknown upstream",
            format!("{new}\n[[route]]\nmatch = {{ path = \"/a\" }}\nupstream = \"nowhere\"\n"),
            "nowhere",
        ),
        (
            "a duplicate route",
            format!("{new}{second}{}", second.replace("/a", "/b")),
            "same",
        ),
        (
            "a missing certificate",
            new.replace(
                "bind =",
                "tls = { cert = \"no.pem\", key = \"no.key\" }\nbind =",
            ),
            "no.pem",
        ),
        (
            "a bad unit",
            format!("{new}timeout = \"5 parsecs\"\n"),
            "gateway.toml:",
        ),
        (
            "what this build has not",
            new.replace("bind =", "proxy_protocol = true\nbind ="),
            "not available in this build",
        ),
        (
            "a test that fails",
            format!(
                "{new}\n[[test]]\nrequest = {{ method = \"GET\", path = \"/\" }}\nexpect = {{ status = 404 }}\n"
            ),
            "gateway.toml:",
        ),
    ];
    let mut client = gateway.client();
    for (name, toml, word) in bad {
        let refusal = gateway.edit(&toml).expect_err(name);
        assert!(refusal.contains(word), "{name}: {refusal}");
        assert_eq!(client.get("/").text(), "old", "{name}");
        assert_eq!(gateway.get("/").text(), "old", "{name}");
    }
    let status = gateway.get_status().to_string();
    assert!(
        status.contains("gateway.toml:"),
        "the last refusal is told with its line: {status}"
    );
    gateway
        .edit(&new)
        .expect("a good document is taken after all the bad ones");
    assert_eq!(client.get("/").text(), "new");
}

#[test]
fn hi_62_a_document_that_is_bad_at_start_starts_nothing() {
    let refusal = Gateway::try_start("[[listener]]\nbind = \"127.0.0.1:0\"\nbnd = 1\n")
        .map(drop)
        .expect_err("refused");
    assert!(refusal.contains("bnd"), "{refusal}");
}

#[test]
fn hi_63_a_request_in_flight_finishes_on_the_document_it_began_with() {
    let gate = Gate::new();
    let (old, new) = (named("old", &gate), named("new", &gate));
    let gateway = Gateway::start(&document(old.address(), "", "", ""));
    let mut slow = gateway.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    old.wait("the slow request", |journal| journal.requests.len() == 1);
    let first = gateway
        .edit(&document(new.address(), "", "", ""))
        .expect("a good document");
    assert_eq!(gateway.get("/").text(), "new");
    // The old upstream is in no document any more; a second swap must not matter either.
    let second = gateway
        .edit(&document(new.address(), "", "timeout = \"61s\"", ""))
        .expect("a good document");
    assert!(second > first, "generations are counted: {first}, {second}");
    gate.open();
    assert_eq!(slow.read_response().text(), "old");
    assert_eq!(
        slow.get("/").text(),
        "new",
        "the next request on the same connection meets the new document"
    );
}

#[test]
fn a_generation_counts_as_long_as_a_request_uses_it() {
    let gate = Gate::new();
    let upstream = named("ok", &gate);
    let gateway = Gateway::start(&document(upstream.address(), "", "", ""));
    let told = |count: usize| {
        let line = format!("\nconfig_generations {count}\n");
        gateway.wait_metrics(&[&line]);
    };
    told(1);
    let mut slow = gateway.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the slow request", |journal| journal.requests.len() == 1);
    for timeout in ["61s", "62s"] {
        let route = format!("timeout = \"{timeout}\"");
        gateway
            .edit(&document(upstream.address(), "", &route, ""))
            .expect("a good document");
    }
    // The one between had no requests; that of the slow request and the newest are left.
    told(2);
    gate.open();
    assert_eq!(slow.read_response().text(), "ok");
    told(1);
}

#[test]
fn hi_63_a_tunnel_and_a_stream_outlive_every_swap() {
    let gate = Gate::new();
    let wait = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        let Some(request) = conn.read_request() else {
            return;
        };
        if request.target() == "/tunnel" {
            conn.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            );
            while let Some(byte) = conn.read_exact(1) {
                conn.send(byte);
            }
        } else {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            wait.wait();
            conn.send("4\r\nlast\r\n0\r\n\r\n");
        }
    });
    let toml = |body: &str, timeout: &str| {
        let route = format!("timeout = \"{timeout}\"");
        let extra = format!(
            "\n[[route]]\nmatch = {{ path = \"/other\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
        );
        document(upstream.address(), "", &route, "") + &extra
    };
    let gateway = Gateway::start(&toml("0", "60s"));
    let mut tunnel = gateway.client();
    tunnel.send("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(tunnel.read_response().status, 101);
    let mut stream = gateway.client();
    stream.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.read_head();
    assert_eq!(stream.read_chunk(), b"first");
    for n in 1..=10 {
        // Odd swaps leave their route alone, even ones change it under them.
        let timeout = format!("{}s", 60 + n / 2);
        gateway
            .edit(&toml(&n.to_string(), &timeout))
            .expect("a good document");
        assert_eq!(gateway.get("/other").text(), n.to_string());
        tunnel.send("ping");
        assert_eq!(tunnel.read_exact(4), b"ping");
    }
    gate.open();
    assert_eq!(stream.read_chunk(), b"last");
    assert_eq!(stream.read_up_to("\r\n\r\n"), "0\r\n\r\n");
}

#[test]
fn hi_63_under_load_no_request_is_lost_and_none_meets_a_mixture() {
    let gate = Gate::new();
    let (one, two) = (named("one", &gate), named("two", &gate));
    let toml = |upstream: &Upstream, mark: &str| {
        let server = "\n[server]\nworkers = 2\ndrain = \"2s\"\n";
        let extra = "[[route]]\nname = \"mark\"\nmatch = { path = \"/mark\" }\n";
        let body = format!("respond = {{ status = 200, body = \"{mark}\" }}\n");
        document(upstream.address(), "", "", "") + extra + &body + server
    };
    let gateway = Gateway::start(&toml(&one, "one"));
    let address = gateway.address();
    let (stop, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = Vec::new();
    for n in 0..3 {
        let (stop, served) = (stop.clone(), served.clone());
        load.push(std::thread::spawn(move || {
            let mut client = Client::connect(address);
            while !stop.load(Ordering::SeqCst) {
                // One client in three opens a connection for each request.
                if n == 0 {
                    client = Client::connect(address);
                }
                let response = client.get("/");
                assert!(matches!(&*response.text(), "one" | "two"), "{response:?}");
                served.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let (stop2, served2) = (stop.clone(), served.clone());
    load.push(std::thread::spawn(move || {
        h2_client::run(async {
            let sender = h2_client::connect(address).await;
            while !stop2.load(Ordering::SeqCst) {
                let answer = h2_client::get(&sender, "/")
                    .await
                    .expect("no stream is lost");
                assert!(matches!(&*answer.text(), "one" | "two"), "{answer:?}");
                served2.fetch_add(1, Ordering::SeqCst);
            }
        });
    }));
    for n in 0..30 {
        let (upstream, mark) = if n % 2 == 0 {
            (&two, "two")
        } else {
            (&one, "one")
        };
        let before = served.load(Ordering::SeqCst);
        gateway
            .edit(&toml(upstream, mark))
            .expect("a good document");
        assert_eq!(
            gateway.get("/mark").text(),
            mark,
            "a swap is complete when it is reported"
        );
        assert_eq!(gateway.get("/").text(), mark);
        until("more answers", || {
            served.load(Ordering::SeqCst) >= before + 5
        });
    }
    stop.store(true, Ordering::SeqCst);
    for thread in load {
        thread.join().expect("no client lost a request");
    }
    assert!(served.load(Ordering::SeqCst) >= 150);
}

#[test]
fn listeners_come_and_go_without_dropping_others() {
    let gate = Gate::new();
    let upstream = named("app", &gate);
    let plain = document(upstream.address(), "", "", "");
    let more = format!("{plain}\n[[listener]]\nname = \"more\"\nbind = \"127.0.0.2:0\"\n");
    let gateway = Gateway::start(&plain);
    let (first, mut kept) = (gateway.address(), gateway.client());
    assert_eq!(kept.get("/").text(), "app");
    assert!(!gateway.listens("more"));
    gateway.edit(&more).expect("a good document");
    let added = gateway.listener("more");
    assert_eq!(Client::connect(added).get("/").text(), "app");
    let mut slow = Client::connect(added);
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the slow request", |journal| {
        journal
            .requests
            .iter()
            .any(|request| request.target() == "/slow")
    });
    gateway.edit(&plain).expect("a good document");
    assert!(!gateway.listens("more"));
    assert_eq!(
        gateway.address(),
        first,
        "a listener that stays keeps its socket"
    );
    until("a removed listener to accept no more", || {
        std::net::TcpStream::connect(added).is_err()
    });
    gate.open();
    assert_eq!(
        slow.read_response().text(),
        "app",
        "what its connections had in flight still finishes"
    );
    slow.assert_closed();
    assert_eq!(
        kept.get("/").text(),
        "app",
        "a connection on another listener never noticed"
    );
}

#[test]
fn a_changed_file_is_noticed_without_being_told() {
    let gateway = Gateway::watching(&answering("old"));
    assert_eq!(gateway.get("/").text(), "old");
    gateway.write(&answering("new"));
    until("the changed file to be noticed", || {
        gateway.get("/").text() == "new"
    });
}

#[test]
fn post_reload_reloads_and_tells_what_came_of_it() {
    let gateway = Gateway::start(&answering("old"));
    gateway.write(&answering("new"));
    let response = gateway.ask("POST /reload");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(gateway.get("/").text(), "new");
    gateway.write("[[listener]]\nnonsense = 1\n");
    let response = gateway.ask("POST /reload");
    assert!((400..500).contains(&response.status), "{response:?}");
    assert!(response.text().contains("nonsense"), "{response:?}");
    assert_eq!(gateway.get("/").text(), "new");
}

#[test]
fn an_untouched_upstream_keeps_its_idle_connections() {
    let gate = Gate::new();
    let upstream = named("app", &gate);
    let toml = |body: &str| {
        let extra = format!(
            "\n[[route]]\nmatch = {{ path = \"/other\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
        );
        document(upstream.address(), "", "", "") + &extra
    };
    let gateway = Gateway::start(&toml("0"));
    for n in 1..=5 {
        assert_eq!(gateway.get("/").text(), "app");
        gateway
            .edit(&toml(&n.to_string()))
            .expect("a good document");
    }
    assert_eq!(gateway.get("/").text(), "app");
    assert_eq!(upstream.connections(), 1);
}
